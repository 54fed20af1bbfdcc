# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From one sequence to the predictive operator
#
# A language model is trained to give the law of the next token. Which contexts should then have similar states? Those
# that are followed by similar tokens. This is an operator on contexts, and on this package's toy it is known exactly.
# We walk from one sequence to the law, from the law to the operator and its eigenfunctions, and then look for these in
# the states of a model while it trains.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sims.models.transformer import TransformerSubject
from spectra.alignment import eigenfunction_shares, explained_share, predictive_embedding
from theory.formulas.law import WalkLaw
from theory.formulas.markov import shannon_entropy
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig, train
from toymodel.data import dataset

torch.set_num_threads(1)
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# ## One sequence
# The walk is $t_k = o + (a + dk) \bmod c$: it goes round a circle of $c$ tokens in steps of $d$. Nobody tells the model
# $c$, $o$, $a$ or $d$. `WalkLaw` sums over all of them, exactly.

# %%
task = TaskConfig(vocab=32, length=16, train=4_000, val=256, test=16)
law = WalkLaw(vocab=32)
sequence = dataset(task).val.tokens[3]
print("tokens:", sequence)
for k in (1, 2, 3, 6):
    p = law.next_tokens(sequence[None, :k])[0]
    best = np.argsort(p)[::-1][:4]
    guesses = ", ".join(f"{token} ({p[token]:.2f})" for token in best if p[token] > 0)
    print(
        f"after {k}: next is {sequence[k]}; likely {guesses}; entropy {shannon_entropy(p):.2f} nats, e^H = "
        f"{np.exp(shannon_entropy(p)):.1f} tokens"
    )

# %% [markdown]
# One token says little. Two tokens fix the step for each modulus, three often the modulus. The mean of these entropies
# is the *floor*: no model has a lower loss.

# %%
floor = law.entropies(dataset(task).val.inputs).mean(axis=0)
print("floor by tokens read:", floor)
print(f"mean {floor.mean():.3f} nats; uniform guesses have {np.log(32):.3f}")

# %% [markdown]
# ## The operator
# Compare two contexts by their laws, with the kernel $K(x, x') = \sum_w \sqrt{p_x(w)\,p_{x'}(w)}$: 1 for equal laws, 0
# for laws that share no token. Centre it over the contexts. Its eigenfunctions with large eigenvalues are the coarse
# distinctions between contexts that matter for what comes next. For contexts of two tokens they can be looked at: each
# one is a picture with one pixel a pair (white: no walk has it).

# %%
pairs = np.argwhere(law.next_tokens(np.arange(32)[:, None]) > 0)
p = law.next_tokens(pairs)
phi = predictive_embedding(p)
u, s, _ = np.linalg.svd(phi - phi.mean(axis=0), full_matrices=False)
eigenvalues = s**2 / len(pairs)
print("leading eigenvalues:", eigenvalues[:8], "of a trace of", round(eigenvalues.sum(), 3))

# %%
figure, axes = plt.subplots(1, 4, figsize=(11, 3), constrained_layout=True)
for i, ax in enumerate(axes):
    image = np.full((32, 32), np.nan)
    image[pairs[:, 0], pairs[:, 1]] = u[:, i]
    ax.imshow(image, origin="lower", cmap="RdBu")
    ax.set(title=f"eigenfunction {i + 1}, μ = {eigenvalues[i]:.3f}", xlabel="second token")
axes[0].set_ylabel("first token")
plt.show()

# %% [markdown]
# ## A model that trains
# Do its states come to hold these functions? An affine map is fitted from the states to each eigenfunction on half of
# the contexts, and scored on the other half. Permuted contexts show what chance alone gives.

# %%
config = RunConfig(
    stage="untied",
    task=task,
    model=ModelConfig(d_model=32, heads=4, layers=2, mlp_ratio=2),
    batch_size=64,
    lr=2e-3,
    steps=300,
    eval_every=50,
    eval_size=256,
)
rng = np.random.default_rng(0)
order, shuffled = rng.permutation(len(pairs)), rng.permutation(len(pairs))
# A context of two tokens is read at the second of them; the rest of the sequence does not matter.
tokens = torch.zeros(len(pairs), task.length + 1, dtype=torch.long)
tokens[:, :2] = torch.tensor(pairs[order])

# %%
rows = []
for snapshot in train(Ensemble([config])):
    subject = TransformerSubject.of_weights(config, snapshot.ensemble.weights(0), snapshot.step)
    h = torch.cat([a["final"][:, 1] for a in subject.activations(tokens, ["final"])]).double().numpy()
    found = eigenfunction_shares(h, phi[order])
    excess = snapshot.val_losses[0] - floor.mean()
    rows.append(
        [
            snapshot.step,
            excess,
            explained_share(h, phi[order]),
            explained_share(h, phi[shuffled]),
            *found.shares[:8],
        ]
    )
    print(
        "step {:>3}: {:.2f} nats above the floor; share of √p {:.2f} (permuted {:.2f}); eigenfunctions 1–4: "
        "{:.2f} {:.2f} {:.2f} {:.2f}".format(*rows[-1][:8])
    )
table = np.array(rows)
assert abs(table[0, 1] - (np.log(32) - floor.mean())) < 1e-3
assert table[-1, 2] > table[-1, 3] + 0.1

# %%
figure, ax = plt.subplots(figsize=(6, 3.4), constrained_layout=True)
for i in range(8):
    ax.plot(
        table[:, 0],
        table[:, 4 + i],
        color=plt.get_cmap("viridis")(i / 8),
        label=f"{i + 1}, μ = {eigenvalues[i]:.3f}",
    )
ax.plot(table[:, 0], table[:, 3], color="0.6", label="permuted contexts")
ax.set(xlabel="step", ylabel="held-out R²", title="The largest eigenvalues come first")
ax.legend(fontsize=7, ncols=3)
plt.show()

# %% [markdown]
# After two tokens the order of learning follows the eigenvalues. With more tokens read the eigenvalues lie close
# together, and there is less of an order to follow. `speclens markov` asks this of four stages and five seeds, beside
# operators that nothing should follow; `docs/markov.md` has the answers.
