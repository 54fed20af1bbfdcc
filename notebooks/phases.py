# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Phases of a small run
#
# How many directions do the states of a model fill while it learns? RankMe, the exponential of the entropy of their
# spectrum, says it in one number. We train three seeds of a small transformer, look at its final states at steps that
# are evenly spaced in their logarithm, label the phases by a rule, and look at what carries them.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from sims.analysis.geometry import label_phases
from sims.analysis.geometry_claims import word_verdict
from sims.models.transformer import TransformerSubject
from spectra import alpha_req, covariance_spectrum, rankme
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig, make_dataset, train

torch.set_num_threads(1)

# %% [markdown]
# ## Train, and look at steps that are evenly spaced in their logarithm
# The final states of 512 held-out sequences, their last position, centred: a spectrum of 32 directions.

# %%
task = TaskConfig(vocab=32, length=8, train=4_000, val=512, test=16)
steps = 800
looks = {int(step) for step in np.geomspace(1, steps, 36).round()}
configs = [
    RunConfig(
        stage="untied", task=task, model=ModelConfig(d_model=32, heads=2, layers=1), batch_size=32, lr=3e-3,
        steps=steps, eval_every=1, eval_size=16, seed=seed,
    )
    for seed in range(3)
]  # fmt: skip
validation = torch.tensor(make_dataset(task).val.tokens)
curves: dict[str, list[list[float]]] = {"RankMe": [], "without the first": [], "α-ReQ": [], "mean share": []}
ensemble = Ensemble(configs)
tokens = []
for _ in train(ensemble):
    if ensemble.step not in looks:
        continue
    tokens.append(ensemble.step * configs[0].tokens_per_step)
    found: dict[str, list[float]] = {name: [] for name in curves}
    for member, config in enumerate(configs):
        subject = TransformerSubject.of_weights(config, ensemble.weights(member), ensemble.step)
        states = torch.cat([a["final"][:, -1] for a in subject.activations(validation, ["final"])]).double()
        spectrum = covariance_spectrum(states)
        found["RankMe"].append(rankme(spectrum))
        found["without the first"].append(rankme(spectrum.energies[1:]))
        found["α-ReQ"].append(alpha_req(spectrum, 12, 25).value)
        found["mean share"].append(float(states.mean(0).square().sum() / states.square().sum(1).mean()))
    for name, values in found.items():
        curves[name].append(values)

# %% [markdown]
# ## Label the phases
# The rule sees the three seeds at once: ln RankMe is segmented against ln tokens, each change and slope is tested, and
# two thirds of the seeds must have each turn. W is a fall before any rise, E a rise, C a fall after it.

# %%
x = np.array(tokens)
y = {name: np.array(values).T for name, values in curves.items()}
phases = label_phases(x, y["RankMe"], y["α-ReQ"])
print(phases.sentence)
print(word_verdict(phases, "WEC").sentence)
rest = label_phases(x, y["without the first"])
print(f"Without the first direction: {rest.word}.")

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
colours = {"W": "C0", "E": "C1", "C": "C2"}
for ax, names in zip(axes, (("RankMe", "without the first"), ("α-ReQ",), ("mean share",)), strict=True):
    for name in names:
        lines = ax.plot(
            x, y[name].T, color="black" if name in ("RankMe", *names[:1]) else "0.6", linewidth=0.8
        )
        lines[0].set_label(name)
    for phase in phases.phases:
        if phase.label in colours:
            ax.axvspan(phase.start, phase.end, color=colours[phase.label], alpha=0.2, linewidth=0)
    ax.set(xscale="log", xlabel="training tokens")
    ax.legend()
plt.show()

# %% [markdown]
# ## What a rule is for
# Curves wiggle. On curves without a third phase, with noise whose neighbours correlate, the rule sees one rarely; an
# eye that knows what it looks for sees it often.

# %%
generator = np.random.default_rng(0)
share = np.linspace(0, 1, 30)
level = 3 - 4 * np.minimum(share, 0.2) + 2 * np.clip(share - 0.2, 0, 0.4)
third = 0
for _ in range(6):
    noise = np.zeros(30)
    for i in range(1, 30):
        noise[i] = 0.5 * noise[i - 1] + 0.02 * generator.standard_normal()
    third += "C" in label_phases(np.geomspace(1e4, 1e6, 30), np.exp(level + noise), draws=99).word
print(f"a third phase in {third} of 6 curves that have none")
