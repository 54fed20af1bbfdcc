# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Does the commutator defect warn of grokking?
#
# A small network memorises half of the table of $a + b \bmod 47$ in 250 steps, and understands the other half a
# thousand steps later. Does anything tell in advance? One candidate is the *commutator defect*: how far the gradient
# steps of two batches are from commuting. We train the network, a control that can only memorise, and look at both.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

from sims.measure.observers import observers
from sims.runs.measure_config import MeasureConfig
from toymodel import Ensemble, ModelConfig, RunConfig, train
from toymodel.tasks.modular_arithmetic import ModularArithmetic

torch.set_num_threads(1)

# %% [markdown]
# ## Two networks
# The control has the same network, the same optimiser and the same weight decay; its results are permuted over all
# pairs, so that there is nothing to understand.

# %%
task = ModularArithmetic(p=47, op="add")
grokking = RunConfig(
    stage="mlp", task=task, model=ModelConfig(d_model=64), batch_size=512, lr=3e-3, steps=2_000, weight_decay=1.0,
    beta2=0.98, clip=1.0, eval_every=500, eval_size=None,
)  # fmt: skip
random = replace(grokking, task=replace(task, labels="random"))
measuring = MeasureConfig(
    bands=(), training_bands=0, gradient_sequences=0, causal_sequences=0, sequences=256, accuracy=50, defect=100,
    defect_pairs=3,
)  # fmt: skip


def looked_at(config):
    """Train a run and return what its observers found, by quantity and site: steps and values."""
    watching = observers(measuring, config)
    for _ in train(Ensemble([config]), [watching]):
        pass
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for observer in watching:
        for sheet in observer.flush():
            for row in sheet.rows:
                found.setdefault((row["quantity"], row["site"]), []).append((row["step"], row["value"]))
    return {key: np.array(points, float).T for key, points in found.items()}


looks = {"a + b": looked_at(grokking), "random labels": looked_at(random)}
for name, own in looks.items():
    steps, test = own["accuracy", "validation"]
    reached = steps[test >= 0.9]
    print(f"{name}: test accuracy {test[-1]:.3f} at the end, 0.9 at step {reached[0]:.0f}" if len(reached) else
          f"{name}: test accuracy {test[-1]:.3f} at the end, never 0.9")  # fmt: skip

# %% [markdown]
# ## The signal, in two arithmetics
# The exact defect takes two products with the Hessian, in float64. The published one subtracts positions after two
# steps in float32: as soon as the gradient is small against the rounding of the weights, it measures that rounding, and
# then falls to exactly 0, because nothing moves any more.

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
for name, own in looks.items():
    (line,) = axes[0].plot(*own["accuracy", "validation"], label=name)
    axes[0].plot(*own["accuracy", "training"], color=line.get_color(), linestyle="dashed", linewidth=0.8)
    axes[1].plot(*own["defect", "all"], label=name)
    axes[2].plot(*own["defect_fd32", "all"], label=name)
axes[0].set(title="accuracy (dashed: training)", xlabel="step")
axes[1].set(title="commutator defect, exact", xlabel="step", yscale="log")
axes[2].set(title="commutator defect, positions in float32", xlabel="step", yscale="symlog")
axes[0].legend()
plt.show()

# %%
for name, own in looks.items():
    (steps, exact), published = own["defect", "all"], own["defect_fd32", "all"][1]
    for step in (0, 500, 1_000, 1_500):
        at = int(np.flatnonzero(steps == step)[0])
        print(f"{name}, step {step}: exact {exact[at]:.3g}, positions in float32 {published[at]:.3g}")

# %% [markdown]
# ## Two runs decide nothing
# Whether the defect rises more, or earlier, in runs that grok is a question for many runs and for several kinds of
# control, with directions and thresholds from other runs. `speclens grokking` asks it, of this and other signals; the
# results are in docs/grokking.md.
