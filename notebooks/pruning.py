# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Where to put the zeros
#
# Half of the weights of a model are to become zero. Should every block lose the same share, or should those lose more
# whose spectra have a lighter tail? We train a small transformer, share the zeros in several ways with equally many in
# all, and compare the losses: also with the same scores reversed, shuffled, and shuffled at equal depth.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sims.models.transformer import TransformerSubject
from sims.prune.allocation import allocate, block_means, block_of
from sims.prune.prune import entries, prune
from sims.prune.scores import control, weight_scores
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig, train
from toymodel.data import dataset

torch.set_num_threads(1)

# %% [markdown]
# ## A small model
# It predicts modular walks. Calibration comes from the training split, the reported loss from the validation split.

# %%
task = TaskConfig(vocab=64, length=32, train=4_000, val=256, test=64)
config = RunConfig(
    stage="rope", task=task, model=ModelConfig(d_model=32, heads=2, layers=4), batch_size=16, lr=3e-3, steps=200,
    eval_every=100, eval_size=64,
)  # fmt: skip
ensemble = Ensemble([config])
for _ in train(ensemble):
    pass
model = TransformerSubject.of_weights(config, ensemble.weights(0), ensemble.step)
data = dataset(task)
calibration, test = (torch.tensor(part.tokens[:64]).long() for part in (data.train, data.val))
print(f"loss without pruning: {float(model.losses(test).mean()):.3f} nats per token")

# %% [markdown]
# ## An allocation
# A score becomes a share of zeros by a linear map with spread ε; the total is exact. By block, all matrices of a block
# have one share.

# %%
SPARSITY, EPSILON = 0.5, 0.3
sizes = entries(model)
scores = {by: weight_scores(by, model) for by in ("uniform", "farms", "depth")}
scores["reversed-farms"] = control("reversed-farms", scores["farms"], "block")
allocations = {by: allocate(own, sizes, SPARSITY, EPSILON, "block") for by, own in scores.items()}
blocks = list(dict.fromkeys(map(block_of, sizes)))
print(
    f"{sum(sizes.values()):,} weights; zeros: "
    + ", ".join(f"{by} {sum(c.values()):,}" for by, c in allocations.items())
)
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for by, counts in allocations.items():
    shares = [
        sum(n for m, n in counts.items() if block_of(m) == b)
        / sum(n for m, n in sizes.items() if block_of(m) == b)
        for b in blocks
    ]
    ax.plot(shares, marker="o", label=by)
ax.set(xlabel="block", ylabel="share of zeros", xticks=range(len(blocks)))
ax.legend()
plt.show()

# %% [markdown]
# ## Prune, and what each way costs
# Blocks are pruned in order, each with the inputs that the pruned blocks before it give. Wanda removes the weights that
# move the outputs least; SparseGPT also corrects those that stay.


# %%
def loss(counts: dict[str, int], method: str) -> float:
    pruned = prune(model, counts, method, calibration)
    return float(pruned.subject.losses(test).double().mean())


for method in ("magnitude", "wanda", "sparsegpt"):
    found = {by: loss(counts, method) for by, counts in allocations.items()}
    apart = ", ".join(f"{by} {found[by] - found['uniform']:+.3f}" for by in found if by != "uniform")
    print(f"{method}: uniform {found['uniform']:.3f} nats; beside it {apart}")

# %% [markdown]
# ## Is it the score, or only its depth?
# A rule has to beat its own numbers in another order. Shuffles at equal depth keep the rank correlation of the scores
# of blocks with depth exactly, and with one share a matrix the scores of every block: what beats them knows more than
# depth. Scores that rise or fall all the way have no other order by block: their shuffles are the score itself.

# %%
means = [f"{own:.2f}" for own in dict.fromkeys(block_means(scores["farms"]).values())]
print(f"FARMS exponents of the blocks: {', '.join(means)}")
for unit in ("block", "matrix"):
    own = loss(allocate(scores["farms"], sizes, SPARSITY, EPSILON, unit), "wanda")
    print(f"one share a {unit}, by FARMS: {own:.3f} nats")
    for name in ("shuffled-farms", "depth-shuffled-farms"):
        drawn = [control(name, scores["farms"], unit, draw) for draw in range(6)]
        losses = [loss(allocate(one, sizes, SPARSITY, EPSILON, unit), "wanda") for one in drawn]
        as_good = sum(value <= own for value in losses)
        print(f"  {name}: mean {np.mean(losses):.3f}, {as_good} of {len(losses)} at least as good")

# %% [markdown]
# One model says nothing of others. `speclens prune` does this for several models, chooses ε on a text of its own, and
# gives intervals over the models.
