# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gradient descent against Muon, in the Fourier basis
#
# A linear map W is to learn the next-token rule of one cyclic band: y = x + d mod c with the step d unknown. The
# target is the bigram matrix, a circulant, so the characters of Z_c are its singular directions and every Fourier
# mode learns on its own. The question: in which order, and how far apart, do the modes arrive?

# %%
import matplotlib.pyplot as plt
import numpy as np

from theory.formulas import fourier, optimiser
from theory.simulate.flows import (
    MatrixProblem,
    hitting_times,
    matrix_descent,
    matrix_muon,
    newton_schulz_matrix,
)
from theory.simulate.walks import bigram_matrix

c = 31
q = fourier.smallest_step(c)
target = bigram_matrix(c, np.arange(q, c))
moduli = fourier.bigram_modulus(c, q)
print(f"c = {c}, q = {q}: r ≤ 7 hold {fourier.power_within(moduli, 7):.1%} of the power")

# %% [markdown]
# ## The modes
#
# Real singular vectors of a circulant: for each r, a cosine and a sine on the input side, and the same rotated by the
# phase of k_r on the output side. `MatrixProblem` takes them as columns u, v. The target amplitude of a mode is |k_r|;
# its curvature κ_r is the second moment of the input along that mode. Inputs are rarely white: here the embedding
# has a power-law spectrum, κ_r = r^(-1), steepest for the high frequencies.

# %%
m = np.arange(c)
frequencies = np.arange(1, (c - 1) // 2 + 1)
phases = np.angle([target[0] @ np.exp(2j * np.pi * r * m / c) for r in frequencies])
left, right = [], []
for r, phase in zip(frequencies, phases, strict=True):
    for wave in (np.cos, np.sin):
        right.append(wave(2 * np.pi * r * m / c) * np.sqrt(2 / c))
        # Row x of the bigram matrix is its row 0 shifted by x, so the output wave runs ahead by the phase of k_r.
        left.append(wave(2 * np.pi * r * m / c + phase) * np.sqrt(2 / c))
amplitudes = np.repeat(moduli[frequencies], 2)
curvature = np.repeat(1.0 / frequencies, 2)
problem = MatrixProblem(np.array(left).T, np.array(right).T, amplitudes, curvature)

rebuilt = (problem.left * amplitudes) @ problem.right.T + 1 / c
error = np.abs(rebuilt - target).max()
print(f"the modes rebuild the bigram matrix to {error:.1e}")
assert error < 1e-12

# %% [markdown]
# ## Three optimisers on the whole matrix
#
# Gradient descent, Muon with the exact polar factor, Muon with five Newton–Schulz steps. Lines are the closed forms
# a*(1 − e^(−κt)) and min(a*, t); dots are the simulated c × c matrix, read in the Fourier basis.

# %%
times = np.linspace(0, 40, 161)
descent = matrix_descent(problem, times, substeps=4)
horizon = 1.2 * amplitudes.max()
grid, polar = matrix_muon(problem, horizon, 240)
_, iterated = matrix_muon(problem, horizon, 240, newton_schulz_matrix)

predicted_descent = np.array([optimiser.descent_amplitude(amplitudes, curvature, t) for t in times])
predicted_muon = np.array([optimiser.muon_amplitude(amplitudes, t) for t in grid])
descent_error = np.abs(descent - predicted_descent).max()
muon_error = np.abs(polar - predicted_muon).max()
print(
    f"largest gap to the closed form: descent {descent_error:.1e}, Muon {muon_error:.1e} (one step is {grid[1]:.1e})"
)
assert descent_error < 1e-6
assert muon_error <= 1.5 * grid[1]

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
shown = [0, 2, 6, 10, 14]
for k, colour in zip(shown, plt.cm.viridis(np.linspace(0, 0.85, len(shown))), strict=True):
    label = f"r = {frequencies[k]}"
    row = 2 * k
    axes[0].plot(times, predicted_descent[:, row] / amplitudes[row], color=colour, label=label)
    axes[0].plot(times[::16], descent[::16, row] / amplitudes[row], "o", ms=4, color=colour)
    axes[1].plot(grid, predicted_muon[:, row] / amplitudes[row], color=colour)
    axes[1].plot(grid[::16], polar[::16, row] / amplitudes[row], "o", ms=4, color=colour)
    axes[2].plot(grid, iterated[:, row] / amplitudes[row], color=colour)
for axis, title in zip(
    axes, ("gradient descent", "Muon, exact polar factor", "Muon, Newton–Schulz"), strict=True
):
    axis.set(title=title, xlabel="time", ylim=(0, 1.6))
axes[0].set_ylabel("share of the mode learned")
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## How far apart do the modes arrive?
#
# Under gradient descent the spread of arrival times is κ_max/κ_min, whatever the targets. Under Muon it is
# |a*|_max/|a*|_min, whatever the curvatures: Muon removes the conditioning of the *input* and keeps the size of the
# *target*. When the weak modes of the task are its high frequencies, Muon meets those first.

# %%
share = 0.6
arrival_descent = hitting_times(times, descent, share * amplitudes)
arrival_muon = hitting_times(grid, polar, share * amplitudes)
rows = [
    ("gradient descent", arrival_descent.max() / arrival_descent.min(), optimiser.descent_spread(curvature)),
    ("Muon", arrival_muon.max() / arrival_muon.min(), optimiser.muon_spread(amplitudes)),
]
for name, measured, predicted in rows:
    print(f"{name:17s} spread of arrival times: measured {measured:6.2f}, predicted {predicted:6.2f}")
assert abs(rows[0][1] / rows[0][2] - 1) < 0.02
# The weakest target is only a few steps long, so its arrival is known to about one step in a dozen.
assert abs(rows[1][1] / rows[1][2] - 1) < 0.1

# %% [markdown]
# ## Which frequencies does H_S see?
#
# H of the task band {r ≤ 7}: the share of squared amplitude in it. Under gradient descent it starts at
# Σ_S κ²a² / Σ κ²a² (nearly 1, for the low frequencies are both stronger and faster) and falls to Σ_S a²/Σ a².
# Under Muon every mode starts at the same speed, so H starts at |S|/(c−1), the value of pure noise, and *rises*
# to the same end. The two optimisers approach one solution from opposite sides.

# %%
inside = np.repeat(frequencies <= 7, 2)


def task_share(path):
    energy = path[1:] ** 2
    return energy[:, inside].sum(1) / energy.sum(1)


h_descent, h_muon = task_share(descent), task_share(polar)
end = (amplitudes[inside] ** 2).sum() / (amplitudes**2).sum()
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.plot(np.linspace(0, 1, len(h_descent)), h_descent, label="gradient descent")
axis.plot(np.linspace(0, 1, len(h_muon)), h_muon, label="Muon")
axis.axhline(end, color="k", ls=":", lw=1, label="the task itself")
axis.axhline(14 / (c - 1), color="grey", ls="--", lw=1, label="noise")
axis.set(xlabel="share of the run", ylabel=r"$H_S$, S = {r ≤ 7}")
axis.legend(frameon=False)
plt.show()
print(
    f"H_S: descent {h_descent[0]:.3f} → {h_descent[-1]:.3f}, Muon {h_muon[0]:.3f} → {h_muon[-1]:.3f}, task {end:.3f}"
)
assert h_descent[0] > end > h_muon[0]
