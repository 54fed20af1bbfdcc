# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Measuring a model that is not ours
#
# The instrument knows no model and no task. Here it looks at a transformer put together from torch's own modules and
# never trained, through hooks, in ten lines. To look at yours, replace the next cell.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)


class Foreign(nn.Module):
    """Six layers as torch initialises them, over 256 tokens."""

    def __init__(self, vocabulary=256, width=64, layers=6):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.embed = nn.Embedding(vocabulary, width)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.encoder(self.embed(tokens), mask=mask, is_causal=True))


model = Foreign()
data = torch.randint(0, 256, (1_024, 17))
x, y = data[:, :-1], data[:, 1:]
sites = ["embed", *(f"encoder.layers.{i}" for i in range(6))]
matrices = ["embed", "encoder.layers.0.linear2", "encoder.layers.5.linear2", "head"]

# %% [markdown]
# ## Ten lines
# Activations stream into moments (count, mean, second moment) at every site, at the last position: positions of one
# sequence are not independent. The gradients of 64 samples come as factors from one backward pass; none of them is
# ever formed. Weights need no pass at all.

# %%
from spectra import capture_factors, capture_moments, stacked_gradient_spectrum, weight_spectrum

with capture_moments(model, sites, rows=lambda output: output[:, -1]) as moments, torch.no_grad():
    for batch in x.split(256):
        model(batch)
activations = {site: moments[site].spectrum() for site in sites}
with capture_factors(model, matrices) as capture:
    losses = F.cross_entropy(model(x[:64]).transpose(1, 2), y[:64], reduction="none").mean(1)
gradients = {name: stacked_gradient_spectrum(own) for name, own in capture.factors(losses).items()}
weights = {name: weight_spectrum(model.get_submodule(name).weight) for name in matrices}

# %% [markdown]
# Afterwards the model is what it was: no hook is left, and no gradient was stored.

# %%
assert not any(module._forward_hooks for module in model.modules())
assert all(parameter.grad is None for parameter in model.parameters())

# %% [markdown]
# ## A spectrum that steepens with depth
# The inputs are random tokens: nothing has been learned and nothing could be. Even so RankMe falls from layer to layer
# and the exponent rises. A slope measured on a trained model starts from here, not from zero. (Where the status is
# "flagged", finite-sample bias is larger than the sampling spread: the trend stands, the second digit does not.)

# %%
from spectra import rankme, window_exponent

print("site               RankMe    α of ranks 2–20")
for site in sites:
    exponent = window_exponent(activations[site], 2, 20)
    print(f"{site:<18} {rankme(activations[site]):6.1f}    {exponent.value:.2f} ({exponent.status})")
print()
print("matrix                      RankMe: weight   gradients of 64 samples")
for name in matrices:
    print(f"{name:<27} {rankme(weights[name]):14.1f}   {rankme(gradients[name]):6.1f}")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3), constrained_layout=True)
for axis, measured, title in (
    (left, activations, "activations"),
    (middle, weights, "weights"),
    (right, gradients, "per-sample gradients"),
):
    for name, spectrum in measured.items():
        label = name.removeprefix("encoder.")
        spectrum.plot(axis, scale="share", null=False, label=label)
    axis.set_title(title)
    axis.legend(fontsize=6)
plt.show()

# %% [markdown]
# ## What the weights give away
# In the middle panel layers 0 and 5 lie on top of each other: `nn.TransformerEncoder` copies one layer six times, so
# that all layers start equal, and the same matrices act again and again on the same directions. Layers drawn one by
# one steepen the spectrum much less.

# %%
assert np.array_equal(weights[matrices[1]].values, weights[matrices[2]].values)
fresh = Foreign()
for layer in fresh.encoder.layers:
    layer.load_state_dict(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).state_dict())
with capture_moments(fresh, sites, rows=lambda output: output[:, -1]) as moments, torch.no_grad():
    fresh(x)
print("RankMe after six layers that are copies of one:", round(rankme(activations[sites[-1]]), 1))
print("RankMe after six layers drawn one by one:      ", round(rankme(moments[sites[-1]].spectrum()), 1))
assert rankme(moments[sites[-1]].spectrum()) > rankme(activations[sites[-1]]) + 5

# %% [markdown]
# ## An answer that is known
# The embedding table is drawn from a normal law, 256 rows in 64 dimensions. Its covariance must fill the
# Marchenko–Pastur bulk $(1 \pm \sqrt{64/256})^2$, and its largest eigenvalue must sit where chance puts it.

# %%
from spectra import MarchenkoPastur, covariance_spectrum, tracy_widom_test

table = covariance_spectrum(model.embed.weight)
edge = tracy_widom_test(table)
print("eigenvalues from {:.2f} to {:.2f}".format(*table.values[[-1, 0]]))
print("Marchenko–Pastur bulk from {:.2f} to {:.2f}".format(*MarchenkoPastur(64 / 256).edges))
print(f"largest eigenvalue against its law: p = {edge.p_value:.2f}")
assert edge.p_value > 0.001

# %% [markdown]
# ## Where hooks do not reach
# `nn.MultiheadAttention` multiplies with its weights without calling a module, so no hook sees it, and the capture
# says so. The general route works for every parameter, at the price of forming the gradients.

# %%
from spectra import InputError, per_sample_gradients

try:
    with capture_factors(model, ["encoder.layers.5.self_attn.out_proj"]) as capture:
        losses = F.cross_entropy(model(x[:16]).transpose(1, 2), y[:16], reduction="none").mean(1)
    capture.factors(losses)
except InputError as error:
    print(error)


def loss(predict, tokens, targets):
    return F.cross_entropy(predict(tokens).transpose(1, 2), targets)


with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
    formed = per_sample_gradients(
        model, "encoder.layers.5.self_attn.out_proj.weight", loss, x[:16], y[:16], chunk_size=8
    )
print(f"{tuple(formed.shape)} gradients, RankMe {rankme(stacked_gradient_spectrum(formed)):.1f} of 16")
