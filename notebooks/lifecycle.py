# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A head without its gauge
#
# An attention head computes $x^\top W_q^\top W_k\, y$. The matrices $M W_q$ and $M^{-\top} W_k$ compute the same for
# every invertible $M$: the singular values of $W_q$ and of $W_k$ alone are not a property of the model, those of the
# product are. We train a small transformer, look at both over training and depth, and then change the basis of its
# heads.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sims.measure.weights import weight_sheet
from sims.models.transformer import TransformerSubject
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig, train

torch.set_num_threads(1)

# %% [markdown]
# ## Train, and look at the weights every few steps
# `weight_sheet` returns spectra, exponents and the products of heads of any model that can be measured: this one, or
# a checkpoint of Pythia.

# %%
task = TaskConfig(vocab=64, length=32, train=4_000, val=256, test=64)
config = RunConfig(
    stage="baseline", task=task, model=ModelConfig(d_model=32, heads=2, layers=4), batch_size=32, lr=3e-3, steps=150,
    eval_every=10, eval_size=128,
)  # fmt: skip
ensemble = Ensemble([config])
looks: dict[tuple[str, str], list[tuple[int, float]]] = {}
for _ in train(ensemble):
    subject = TransformerSubject.of_weights(config, ensemble.weights(0), ensemble.step)
    for row in weight_sheet(subject).rows:
        if row["quantity"] == "stable_rank" and row["status"] == "ok":
            looks.setdefault((row["object"], row["site"]), []).append((ensemble.step, row["value"]))

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
kinds = [
    ("weight", "blocks.{}.attn.q", "q"),
    ("weight", "blocks.{}.attn.v", "v"),
    ("product", "blocks.{}.attn.qk.0", "qk, head 0"),
]
for ax, (kind, site, title) in zip(axes, kinds, strict=True):
    for block in range(4):
        steps, values = np.array(looks[kind, site.format(block)]).T
        ax.plot(steps, values, color=plt.cm.viridis(block / 3.3), label=f"block {block}")
    ax.set(title=title, xlabel="training step", ylabel="stable rank")
axes[0].legend()
plt.show()
last = {key: points[-1][1] for key, points in looks.items()}
print("stable rank at the end, blocks 0 to 3:")
for kind, site, title in kinds:
    print(f"  {title}: " + ", ".join(f"{last[kind, site.format(block)]:.1f}" for block in range(4)))

# %% [markdown]
# ## Change the basis inside every head
# Each head gets its own random $M$. The losses stay; the stable ranks of q and k change, those of the products do not.
# Two things take this freedom away: rotary positions leave only those $M$ that commute with them, and a norm of q and k
# (in the stages `rope`, `muon` and `untied` here) leaves rotations and one scale a head, so that there the single
# matrices have spectra of their own.

# %%
generator = np.random.default_rng(0)
weights = {name: value.clone() for name, value in ensemble.weights(0).items()}
before = TransformerSubject.of_weights(config, ensemble.weights(0), ensemble.step)
width = config.model.d_model // config.model.heads
for name, qkv in weights.items():
    if name.endswith(".attn.qkv"):
        for head in range(config.model.heads):
            rows = slice(head * width, (head + 1) * width)
            change = generator.standard_normal((width, width))
            qkv[0, rows] = torch.tensor(change @ qkv[0, rows].double().numpy()).float()
            qkv[1, rows] = torch.tensor(np.linalg.solve(change.T, qkv[1, rows].double().numpy())).float()
after = TransformerSubject.of_weights(config, weights, ensemble.step)
probe = torch.randint(0, task.vocab, (32, task.length + 1), generator=torch.Generator().manual_seed(0))
print(f"largest change of a loss: {float((after.losses(probe) - before.losses(probe)).abs().max()):.1e} nats")
for sheet, title in ((weight_sheet(before), "before"), (weight_sheet(after), "after")):
    own = {(r["object"], r["site"]): r["value"] for r in sheet.rows if r["quantity"] == "stable_rank"}
    q, qk = own["weight", "blocks.2.attn.q"], own["product", "blocks.2.attn.qk.0"]
    print(f"{title}: block 2, stable rank of q {q:.2f}, of W_qᵀW_k in head 0 {qk:.2f}")
