"""Watch a module of Lightning while its Trainer trains it (extra `lightning`).

    python examples/lightning_trainer.py [FOLDER]

The monitor takes two lines; without them the losses are the same to the last bit. Then: speclens ls FOLDER.
"""

import sys

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sims.monitor.lightning import MonitorCallback


class Classifier(lightning.LightningModule):
    """Classify vectors of 32 numbers into 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 10))
        self.losses: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(runs: str, steps: int = 100) -> list[float]:
    """Train the classifier with Lightning, watched, and return its losses."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(1_024, 32), torch.randint(10, (1_024,)))
    probe = data[:128]
    model = Classifier()
    trainer = lightning.Trainer(
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
        enable_model_summary=False,
    )
    trainer.callbacks.append(MonitorCallback(probe, every=25, to=runs))
    trainer.fit(model, DataLoader(data, batch_size=64, shuffle=True))
    return model.losses


if __name__ == "__main__":
    print(f"last loss {train(*sys.argv[1:2] or ['runs'])[-1]:.4f}")
