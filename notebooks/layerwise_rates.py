# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Which matrices should learn faster?
#
# Published controllers give a higher learning rate to a matrix with a lighter tail, that is a higher exponent. If a
# model then ends with a lower loss, is it the exponents that helped, or would *any* unequal rates of that size have
# done so? We train a small transformer with one rate, with rates by the FARMS exponent, and with controls: the reverse,
# the same multipliers given to other matrices, and depth, which reads no spectrum at all.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from sims.training.rates import layerwise
from toymodel import Ensemble, ModelConfig, Rates, RunConfig, TaskConfig, train

torch.set_num_threads(1)

# %% [markdown]
# ## Train every arm
# An ensemble of three seeds for each arm, equal in data, base rate and order of batches. The mean multiplier over all
# weights is 1 in every arm, so none wins by a larger rate alone. Multipliers are chosen anew every 20 steps.

# %%
task = TaskConfig(vocab=32, length=12, train=4_000, val=256, test=16)
base = RunConfig(
    stage="rope", task=task, model=ModelConfig(d_model=32, heads=2, layers=3), batch_size=16, lr=3e-3, steps=200,
    eval_every=200, eval_size=256,
)  # fmt: skip
arms = {
    "uniform": Rates(),
    "farms": Rates("farms", every=20),
    "reversed": Rates("reversed-farms", every=20),
    **{f"shuffle {k}": Rates("shuffled-farms", every=20, seed=k) for k in range(3)},
    "depth": Rates("depth", every=20),
}
losses, multipliers = {}, {}
for arm, rates in arms.items():
    ensemble = Ensemble([replace(base, seed=seed, rates=rates) for seed in range(3)], controller=layerwise)
    for snapshot in train(ensemble):
        losses[arm] = np.array(snapshot.val_losses)
    multipliers[arm] = {matrix: m for matrix, (m, _) in ensemble.view(0).rates().items()}

# %% [markdown]
# ## Which matrices get more
# The multipliers of `farms` at the end of its first seed. They follow the kind of a matrix more than its depth.

# %%
kinds = list(dict.fromkeys(matrix.split(".", 2)[2] for matrix in multipliers["farms"]))
final = np.array([[multipliers["farms"][f"blocks.{b}.{kind}"] for kind in kinds] for b in range(3)])
figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
image = ax.imshow(final, cmap="RdBu_r", vmin=0.4, vmax=1.6, aspect="auto")
ax.set(xticks=range(len(kinds)), xticklabels=kinds, yticks=range(3), ylabel="block")
figure.colorbar(image, label="multiplier of the rate")
plt.show()
for kind, column in zip(kinds, final.T, strict=True):
    print(f"{kind:10s}", " ".join(f"{value:.2f}" for value in column))

# %% [markdown]
# ## What each arm gains
# Each arm against one rate with the same seed. Three seeds and one base rate are not enough to tell anything: the study
# `speclens rates` compares arms at the best of three base rates each, with five seeds and ten shuffles, and has rules
# for what may be concluded.

# %%
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for at, (arm, values) in enumerate(losses.items()):
    gain = values - losses["uniform"]
    ax.plot(np.full(len(gain), at), gain, "o", color="C0" if arm == "farms" else "0.5")
    print(
        f"{arm:10s} loss {values.mean():.3f}, to one rate {gain.mean():+.3f} ({gain.min():+.3f} to {gain.max():+.3f})"
    )
ax.axhline(0, color="k", linewidth=0.8)
ax.set(xticks=range(len(losses)), ylabel="loss less that of one rate (nats)")
ax.set_xticklabels(list(losses), rotation=20)
plt.show()
