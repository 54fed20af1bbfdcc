"""Make two small language models of one text and compare them with approximate laws of it, for docs/look.md.

The text is the language reference that comes with Python (`pydoc_data`): both models are trained on its first part, and
what is left is measured. Run with `python tests/studies/look_laws.py FOLDER`, about ten minutes of one core; the models
and the text stay in the folder, and a second run goes on from them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from sims.commands.look import Look
from sims.studies.look.figures import against_laws
from sims.studies.look.laws import draft_table, law_rows
from sims.studies.look.options import TextOptions

VOCABULARY, LENGTH, BATCH = 512, 64, 32
TRAINED = 0.6
# Name: blocks, width and steps.
MODELS = {"untrained": (2, 48, 0), "small": (2, 48, 1500), "large": (3, 96, 1200)}


def tokenizer(text: str) -> Tokenizer:
    """Return byte pairs of a text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([text], trainer)
    return made


def trained(tokens: torch.Tensor, blocks: int, width: int, steps: int) -> GPT2LMHeadModel:
    """Train a GPT-2 with AdamW and a linear decay."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=blocks,
        n_head=4,
        n_embd=width,
        n_positions=LENGTH,
        vocab_size=VOCABULARY,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / 50) * (1 - step / max(steps, 1))
    )
    for step in range(steps):
        starts = torch.randint(0, len(tokens) - LENGTH - 1, (BATCH,))
        rows = tokens[starts[:, None] + torch.arange(LENGTH)]
        loss = model(rows, labels=rows).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 250 == 0:
            print(f"width {width}, step {step}: {loss.item():.3f}", file=sys.stderr)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(topics[name] for name in sorted(topics))
    cut = int(TRAINED * len(text))
    (folder / "rest.txt").write_text(text[cut:], "utf-8")
    own = tokenizer(text[:cut])
    tokens = torch.tensor(own.encode(text[:cut]).ids)
    for name, (blocks, width, steps) in MODELS.items():
        place = folder / name
        if not (place / "config.json").is_file():
            trained(tokens, blocks, width, steps).save_pretrained(place)
            own.save(str(place / "tokenizer.json"))
    sizes = TextOptions(length=LENGTH, tokens=20_000, gradients=0)
    for name in ("small", "untrained"):
        laws = ("bigram", "trigram", str(folder / "large"))
        start = time.process_time()
        Look(
            folder / name,
            folder / "rest.txt",
            predictive=laws,
            draft=True,
            layers=("embed",),
            out=folder / f"look-{name}",
            options=sizes,
        ).run()
        print(f"{name}: {time.process_time() - start:.0f} s of CPU", file=sys.stderr)
    rows = pd.read_parquet(folder / "look-small" / "rows.parquet")
    against_laws(law_rows(rows), draft_table(rows)).savefig(folder / "look-laws.png", dpi=110)


if __name__ == "__main__":
    main()
