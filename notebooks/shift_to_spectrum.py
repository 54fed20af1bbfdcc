# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From a shift to a spectrum
#
# Why should the covariance spectrum of a transformer know anything about arithmetic? The chain has four links: the
# task is a shift of a circle; characters diagonalise shifts; class means that go round the circle have a circulant
# Gram matrix; so their Fourier energies *are* the head of the covariance spectrum, or bound it from below. We walk it
# first on four numbers, where every matrix fits on the screen, then on a model that we train.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sims.models.transformer import TransformerSubject
from spectra import band_energies, class_means, covariance_spectrum, h_s, rankme, task_band, top_share
from theory.formulas import fourier
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig, probe_split, train

torch.set_num_threads(1)
np.set_printoptions(precision=3, suppress=True)

# %% [markdown]
# ## A model of four numbers
# The circle $\mathbb Z_4$ has the states 0, 1, 2, 3. The rule "add one" is the matrix $S$ that takes every state to
# the next.

# %%
c = 4
S = np.roll(np.eye(c), 1, axis=0)
print(S.astype(int))
print("0 becomes", int((S @ np.eye(c)[0]).argmax()), "and 3 becomes", int((S @ np.eye(c)[3]).argmax()))

# %% [markdown]
# ## Characters
# A character is a wave that fits the circle: $\chi_r(m) = e^{2\pi i r m/4}$. Shifting a wave only turns it, so every
# character is an eigenvector of $S$ (read here as acting on functions, $(S^\top f)(m) = f(m+1)$), with eigenvalue
# $e^{2\pi i r/4}$: 1, $i$, −1, $-i$. All shifts share these eigenvectors, whatever the step.

# %%
m = np.arange(c)
characters = np.exp(2j * np.pi * np.outer(m, m) / c)
for r in range(c):
    wave = characters[:, r]
    value = np.exp(2j * np.pi * r / c)
    print(f"r = {r}: wave {wave.round(2)}, eigenvalue {value.round(2)}")
    assert np.allclose(S.T @ wave, value * wave)
    assert np.allclose(S.T @ S.T @ wave, value**2 * wave)

# %% [markdown]
# ## Class means
# Let the hidden state of a model be a point in the plane for each of the four states, plus a third coordinate that
# alternates: frequencies 1 and 3 (one real wave, a conjugate pair) and frequency 2.

# %%
H = np.array([[2, 0, 0.5], [0, 2, -0.5], [-2, 0, 0.5], [0, -2, -0.5]])
energies = band_energies(H)
print("energies E_r:", energies, "sum", energies.sum())
print("H_S of {1, 3}:", h_s(H, (1, 3)))

# %% [markdown]
# ## The Gram matrix is circulant, so the spectrum is the energies
# $HH^\top$ compares the states with each other. Here it depends only on how far apart they are on the circle, as each
# row is the row above moved by one. Such a matrix commutes with $S$; the characters diagonalise it, and the
# eigenvalues of the covariance of the class means, $\Sigma_B = H^\top H/4$, are the energies $E_r$.

# %%
gram = H @ H.T / c
eigenvalues = np.linalg.eigvalsh(H.T @ H / c)[::-1]
print(gram)
print("commutes with the shift:", np.allclose(gram @ S, S @ gram))
print("eigenvalues of the covariance:", eigenvalues)
print("energies, sorted:             ", np.sort(energies)[::-1][:3])
assert np.allclose(eigenvalues, np.sort(energies)[::-1][:3])

# %% [markdown]
# ## Without symmetry: a bound
# Disturb the means. The Gram matrix is no longer circulant, and the energies are only its *diagonal* in the Fourier
# basis. The largest eigenvalues of a symmetric matrix always outweigh any equally large part of its diagonal, in any
# basis (Ky Fan), so
# $$H_S \le \frac{\lambda_1 + \dots + \lambda_{|S|}}{\operatorname{tr}\Sigma_B},$$
# and the head of the covariance is at least as heavy as the Fourier concentration. The converse is false: below, the
# means jump between two points in an order that is no wave. One eigenvalue holds everything, while no pair of
# frequencies does.

# %%
generator = np.random.default_rng(2)
for strength in (0.0, 0.3, 1.0):
    disturbed = H + strength * generator.standard_normal(H.shape)
    disturbed -= disturbed.mean(axis=0)
    head = np.linalg.svd(disturbed, compute_uv=False) ** 2
    print(
        f"disturbance {strength}: H_S {h_s(disturbed, (1, 3)):.3f} ≤ head {head[:2].sum() / head.sum():.3f}"
    )
    assert h_s(disturbed, (1, 3)) <= head[:2].sum() / head.sum() + 1e-12

jumps = np.where(generator.permutation(31) < 15, 1.0, -1.0)[:, None]
largest = 2 * band_energies(jumps).max() / band_energies(jumps).sum()
print(f"one direction, no wave: head 1.000, largest pair {largest:.3f}")

# %% [markdown]
# ## Which frequencies does the task want?
# With one token seen, the step is unknown: any of $\lfloor c/8 \rfloor \dots c-1$. Averaging the shifts over steps
# gives a circulant whose eigenvalue at $r$ has modulus $|k_r|$, largest for small $r$. These are the frequencies that
# a model can predict anything about before it knows the step: the *task band* $r = \pm 1 \dots \pm 7$.

# %%
band = 31
kernel = fourier.bigram_modulus(band, fourier.smallest_step(band))
print("|k_r|, r = 1…15:", kernel[1:16])
print(f"r ≤ 7 holds {fourier.power_within(kernel, 7):.0%} of the power; by chance {14 / 30:.0%}")

# %% [markdown]
# ## A trained model
# Now train a small transformer on such walks and follow one circle, 31 states at offset 20, that its training data do
# not favour. At every look: the class means by state, $H_S$ of the task band, the head of $\Sigma_B$ that it bounds,
# and the head of the total covariance (between states and within), which it bounds after a factor
# $\operatorname{tr}\Sigma_B/\operatorname{tr}\Sigma$.

# %%
task = TaskConfig(vocab=64, length=16, train=4_000, val=256, test=16)
config = RunConfig(
    stage="untied",
    task=task,
    model=ModelConfig(d_model=64, heads=4),
    batch_size=64,
    lr=1e-3,
    steps=200,
    eval_every=25,
    eval_size=256,
)
probe = probe_split(task, c=band, o=20, n=1_024)
tokens = torch.tensor(probe.tokens)
states = probe.states[:, -1]
chosen = task_band(band)

# %%
rows = []
for snapshot in train(Ensemble([config])):
    subject = TransformerSubject.of_weights(config, snapshot.ensemble.weights(0), snapshot.step)
    h = torch.cat([a["final"][:, -1] for a in subject.activations(tokens, ["final"])]).double().numpy()
    means = class_means(h, states, band).means
    # Every state counts the same, however often it was drawn: that makes the bound exact.
    weights = 1 / (band * np.bincount(states, minlength=band)[states])
    centred = means - means.mean(axis=0)
    between = np.linalg.svd(centred, compute_uv=False) ** 2 / band
    within = (h - means[states]) * np.sqrt(weights)[:, None]
    total = np.linalg.eigvalsh(centred.T @ centred / band + within.T @ within)[::-1]
    concentration = h_s(means, chosen)
    rows.append(
        (
            snapshot.step,
            snapshot.val_losses[0],
            concentration,
            between[:14].sum() / between.sum(),
            concentration * between.sum() / total.sum(),
            total[:14].sum() / total.sum(),
        )
    )
    print(
        "step {:>3}: loss {:.3f}  H_S {:.3f} ≤ head of Σ_B {:.3f}   bound {:.3f} ≤ head of Σ {:.3f}".format(
            *rows[-1]
        )
    )
    assert rows[-1][2] <= rows[-1][3] + 1e-9
    assert rows[-1][4] <= rows[-1][5] + 1e-9

# %% [markdown]
# The inequalities hold at every step, as they must for any numbers. What training adds is how they fill: $H_S$ leaves
# its chance level of 14/30 while the task is learned. The bound on the total covariance loosens as soon as the model
# reads the step, for then states of one class differ from each other and $\Sigma_W$ takes its share.

# %%
table = np.array(rows)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
for column, label, style in (
    (2, "H_S, task band", "-"),
    (3, "head of Σ_B", "--"),
    (4, "bound on the head of Σ", "-"),
    (5, "head of Σ", "--"),
):
    left.plot(table[:, 0], table[:, column], style, color="C0" if column < 4 else "C1", label=label)
left.axhline(14 / 30, color="0.4", linestyle=":", label="H_S by chance")
left.set(xlabel="step", ylabel="share", ylim=(0, 1.02))
left.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
pairs = band_energies(means)[1:16]
right.semilogy(np.arange(1, 16), pairs / pairs[0], "o-", label="energies E_r by frequency, end of training")
right.semilogy(np.arange(1, 16), np.sort(pairs)[::-1] / pairs.max(), ":", color="0.4", label="sorted")
right.semilogy(np.arange(1, 16), between[:30:2] / between[0], "s", markersize=4, label="every other λ of Σ_B")
right.set(xlabel="frequency, or rank of a pair", ylabel="relative to the first")
right.legend(fontsize=8, loc="lower left")
plt.show()

# %%
spectrum = covariance_spectrum(h)
print(
    f"RankMe of the final states {rankme(spectrum):.1f}; share of the ten largest {top_share(spectrum, 10):.2f}"
)
print(
    f"RankMe of the class means {fourier.exp_entropy(between):.1f}, at most exp(entropy of the modes) "
    f"{fourier.exp_entropy(band_energies(means)[1:]):.1f}"
)

# %% [markdown]
# If the eigenvalues lay on the sorted energies, the class means would be circulant: the circle would be represented
# with its full symmetry. They fall faster, so the model bends the circle. `docs/theory.md` has the claims with
# proofs and simulations; `speclens theory --against RUNS` asks them of a whole folder of runs.
