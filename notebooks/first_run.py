# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # One run, its spectrum and its Fourier concentration
#
# A transformer learns to continue walks on a circle: $s_{k+1} = s_k + d \bmod c$. We train one for a minute,
# look at the covariance spectrum of its final states, and at how much of what it knows of a circle sits on few
# Fourier frequencies.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sims.models.transformer import TransformerSubject
from spectra import class_means, covariance_spectrum, h_peak, h_s, rankme, task_band, window_exponent
from spectra.nulls import effective_dimension, h_peak_null
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig, make_dataset, probe_split, train

torch.set_num_threads(1)

# %% [markdown]
# ## The task
# A sequence has a modulus $c$, an offset $o$, a start and a step $d$; its tokens are $o + s_k$.

# %%
task = TaskConfig(vocab=64, length=32, train=4_000, val=512, test=16)
data = make_dataset(task)
latents = data.train.latents
print("first sequence:", data.train.tokens[0][:12], "…")
print(f"c = {latents.modulus[0, 0]}, o = {latents.offset[0, 0]}, d = {latents.step[0, 0]}")
print(f"{data.overlap:.0%} of the validation sequences also occur in training")

# %% [markdown]
# ## Training
# `train` is a generator of snapshots; it does not know who looks. Two members train at once, one for each seed.
# At every snapshot we probe the circle 31:20 (modulus 31, offset 20): the mean final state for each of its 31
# states, and from it $H_\mathrm{peak}$, one side of the strongest conjugate pair of frequencies.

# %%
config = RunConfig(
    stage="untied",
    task=task,
    model=ModelConfig(d_model=64, heads=4),
    batch_size=64,
    lr=1e-3,
    steps=240,
    eval_every=40,
    eval_size=256,
)
configs = [config, RunConfig(**{**config.__dict__, "seed": 1})]
probe = probe_split(task, c=31, o=20, n=1_024)
tokens = torch.tensor(probe.tokens)


def look(subject):
    """Final states at the last position, and the class means over the circle's states."""
    states = torch.cat([a["final"][:, -1] for a in subject.activations(tokens, ["final"])])
    return states, class_means(states, probe.states[:, -1], 31).means


rows = []
for snapshot in train(Ensemble(configs)):
    for k, member in enumerate(snapshot.configs):
        subject = TransformerSubject.of_weights(member, snapshot.ensemble.weights(k), snapshot.step)
        states, means = look(subject)
        null = h_peak_null(31, round(effective_dimension(covariance_spectrum(states))))
        rows.append((member.seed, snapshot.step, snapshot.val_losses[k], h_peak(means), null.quantile(0.975)))
        print("seed {} step {:>3}: loss {:.3f}  H_peak {:.3f}  (null, 97.5 %: {:.3f})".format(*rows[-1]))

# %% [markdown]
# ## Concentration rises while the circle is learned
# Compare the whole trajectory with the null. At the first step the model knows nothing and $H_\mathrm{peak}$ is
# what averages over shuffled states would give.

# %%
table = np.array(rows)
figure, axis = plt.subplots(figsize=(5, 3), constrained_layout=True)
for seed in (0, 1):
    own = table[table[:, 0] == seed]
    axis.plot(own[:, 1], own[:, 3], marker="o", label=f"seed {seed}")
axis.plot(own[:, 1], own[:, 4], linestyle=":", color="0.4", label="null, 97.5 %")
axis.set(xlabel="step", ylabel="H_peak of band 31:20")
axis.legend()
plt.show()

# %% [markdown]
# ## The spectrum behind it
# The same states, as a covariance spectrum over validation sequences. An exponent is a slope over stated ranks,
# and says itself whether it can be trusted.

# %%
validation = torch.tensor(data.val.tokens)
final = torch.cat([a["final"][:, -1] for a in subject.activations(validation, ["final"])])
spectrum = covariance_spectrum(final)
exponent = window_exponent(spectrum, 10, 40)
figure, axis = plt.subplots(figsize=(5, 3), constrained_layout=True)
spectrum.plot(axis, scale="share", window=(10, 40))
axis.set_title(f"RankMe {rankme(spectrum):.1f}")
print(f"α over ranks 10–40: {exponent.value:.2f} ({exponent.status}) {exponent.reason}")
print(f"RankMe {rankme(spectrum):.1f} of {len(spectrum)}")
print(f"H_S on the task band ±1…±7: {h_s(means, task_band(31)):.2f}, by chance {14 / 30:.2f}")
plt.show()

# %% [markdown]
# Next: `speclens demo` does this for four stages and eight seeds, and writes a report.
