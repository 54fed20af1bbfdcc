"""Watch a model of transformers while its Trainer trains it (extra `hf`).

    python examples/huggingface_trainer.py [FOLDER]

The monitor takes two lines; without them the losses are the same to the last bit. Then: speclens ls FOLDER.
"""

import sys
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from sims.monitor.huggingface import MonitorCallback


class Sequences(torch.utils.data.Dataset):
    """Count upwards from a random number, modulo 97."""

    def __init__(self, samples: int) -> None:
        starts = torch.randint(97, (samples, 1), generator=torch.Generator().manual_seed(0))
        self.tokens = (starts + torch.arange(32)) % 97

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[k], "labels": self.tokens[k]}


def train(runs: str, steps: int = 100) -> list[float]:
    """Train a small GPT-2 with the Trainer, watched, and return its losses."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_positions=32, n_embd=64, n_layer=3, n_head=4))
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=16,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = Trainer(model, options, train_dataset=Sequences(2_048))
        trainer.add_callback(MonitorCallback(every=25, to=runs))
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    print(f"last loss {float(train(*sys.argv[1:2] or ['runs'])[-1]):.4f}")
