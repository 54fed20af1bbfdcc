# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A language-model run, from its checkpoints to a report
#
# The toy's measurements and analyses take a language model as they are. Here a very small one is trained for a few
# seconds, its checkpoints are measured on held-out text, and it is set beside two stages of the toy. To look at a run
# of yours, begin at "Measuring" with the folder that holds its checkpoints.

# %%
import pydoc_data.topics
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

torch.set_num_threads(1)

# %% [markdown]
# ## Text
# The help pages of the Python language, byte by byte: real text that comes with every Python. `speclens data` makes
# shards of any text in GPT-2's vocabulary; a shard is a header and tokens, whatever they stand for.

# %%
from sims.text.shards import TokenSequences, write_shard

text = np.frombuffer("\n".join(pydoc_data.topics.topics.values()).encode(), np.uint8)
Path("shards").mkdir()
write_shard(Path("shards/text_train_000001.bin"), text[:400_000])
write_shard(Path("shards/text_val_000000.bin"), text[400_000:600_000])
print(bytes(text[1_000:1_080].tolist()).decode(), "…")

# %% [markdown]
# ## A run
# A transformer of the GPT-2 shape with two blocks. Its checkpoints are what nanoGPT would have written; foreign ones
# of nanoGPT, modded-nanogpt and Hugging Face are read the same way (`speclens inspect` says what a file is).

# %%
from sims.models.gpt import GPT, Architecture
from toymodel.cross_entropy import head_cross_entropy

LENGTH, BATCH, STEPS = 32, 32, 60
arch = Architecture(
    vocab=256, width=48, layers=2, heads=4, mlp=192, activation="gelu", length=LENGTH, gain=True, fused=True
)
torch.manual_seed(0)
model = GPT(arch)
for parameter in model.parameters():
    if parameter.ndim == 2:
        torch.nn.init.normal_(parameter, std=0.05)
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
sequences = TokenSequences([Path("shards/text_train_000001.bin")], LENGTH, vocabulary=256)
sizes = {"n_layer": 2, "n_head": 4, "n_embd": 48, "block_size": LENGTH, "vocab_size": 256}
Path("small-gpt").mkdir()


def save(step):
    recipe = {"batch_size": BATCH, "gradient_accumulation_steps": 1, "block_size": LENGTH}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record = {"model": state, "model_args": {**sizes, "bias": False}, "iter_num": step, "config": recipe}
    torch.save(record, f"small-gpt/step{step}.pt")


for step, batch in zip(range(STEPS + 1), sequences.batches(BATCH, seed=0), strict=False):
    if step % 15 == 0:
        save(step)
    states = model(batch[:, :-1]).flatten(0, 1)
    loss = head_cross_entropy(states[None], model.lm_head.weight[None], batch[:, 1:].reshape(1, -1), None)
    optimiser.zero_grad()
    loss.sum().backward()
    optimiser.step()
print(f"training loss after {STEPS} steps: {float(loss.sum().detach()):.2f} nats a byte")

# %% [markdown]
# ## Measuring
# One pass over the tokens gives the covariance at several blocks and the loss; per-sample gradients come block by block
# of sequences within a budget of memory. The digits are a cyclic family of tokens: their rows of the embedding are
# probed for concentration on a frequency, as a band of the toy is. On the command line:
# `speclens measure small-gpt --data shards --families digits`.

# %%
from sims.measure.checkpoint_runner import measure_checkpoints, text_run
from sims.measure.lm import prepare_text
from sims.models.checkpoints import CheckpointRun
from sims.runs.lm_measure_config import LmMeasureConfig, RunMetadata
from sims.runs.store import RunFolder

config = LmMeasureConfig(
    tokens=16_000, length=LENGTH, batch=4_000, gradient_sequences=48, families=("digits", "vowels=a,e,i,o,u")
)
run = CheckpointRun.of(Path("small-gpt"))
shards = [Path("shards/text_val_000000.bin")]
instruments = prepare_text(config, shards, encode=lambda word: list(word.encode()), vocabulary=256)
identity = text_run(run, run[0], RunMetadata(stage="rope"), LENGTH, shards)
folder = RunFolder(Path("runs") / identity.run_id)
measure_checkpoints(run, identity, instruments, folder)
print(
    f"{len(folder.rows())} numbers and {len(folder.spectra())} spectra of {len(run)} checkpoints in {folder.path}"
)

# %% [markdown]
# ## Looking
# `load` reads the folder into the tables that every analysis takes. Tokens of a sequence are not independent, and n/d
# is large here: mind what the rows say of themselves (status, null).

# %%
from sims.analysis.runs import load

runs = load(Path("runs"))
figure, axes = plt.subplots(1, 3, figsize=(11, 3), constrained_layout=True)
losses = runs.values("val_loss")
axes[0].errorbar(losses["tokens"], losses["value"], yerr=losses["high"] - losses["value"], marker="o")
axes[0].set(xlabel="training tokens", ylabel="validation loss (nats a byte)")
for site in ("blocks.0", "blocks.1", "final"):
    own = runs.values("rankme", "activation", site)
    axes[1].plot(own["tokens"], own["value"], marker="o", label=site)
axes[1].set(xlabel="training tokens", ylabel="RankMe of the activations")
axes[1].legend()
for family in ("digits", "vowels"):
    own = runs.values("h_peak", "table", "embed", detail=family)
    (line,) = axes[2].plot(own["tokens"], own["value"], marker="o", label=family)
    axes[2].plot(own["tokens"], own["null_high"], linestyle=":", color=line.get_color())
axes[2].set(xlabel="training tokens", ylabel="H_peak in the embedding (dotted: null, 97.5 %)")
axes[2].legend()
plt.show()

# %% [markdown]
# ## Beside the toy
# Two stages of the toy with two seeds each, as small as they can be. The page says what a single language-model run
# cannot show. On the command line: `speclens carry-over toy runs --out carry-over.html`.

# %%
from sims.runs.measure_config import MeasureConfig
from sims.studies.carry_over.page import write_comparison
from sims.studies.carry_over.sections import Sides
from sims.training.toy_runner import run_group
from toymodel import ModelConfig, RunConfig, TaskConfig

task = TaskConfig(vocab=32, length=16, train=1_000, val=256, test=16)
toys = [
    RunConfig(
        stage=stage, task=task, model=ModelConfig(d_model=48, heads=4, layers=1), batch_size=16, lr=2e-3, seed=seed,
        steps=40, eval_every=10, eval_size=128,
    )
    for stage in ("rope", "muon")
    for seed in (0, 1)
]  # fmt: skip
measuring = MeasureConfig(
    every=10, sequences=128, windows=((1, 10), (10, 40)), gradient_sequences=16, bands=((11, 7),), training_bands=0,
    probe_sequences=128, causal_sequences=0,
)  # fmt: skip
for toy in toys:
    run_group([toy], measuring, Path("toy"), "cpu")
sides = Sides(load(Path("toy")), runs, Path("toy"), Path("runs"))
answers = write_comparison(sides, Path("carry-over.html"), "this notebook")
print(answers[["question", "what", "verdict", "reason"]].to_string(index=False))
