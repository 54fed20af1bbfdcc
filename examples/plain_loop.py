"""Watch a model in a training loop of your own.

    python examples/plain_loop.py [FOLDER]

The monitor takes three lines; without them the losses are the same to the last bit. Then: speclens ls FOLDER.
"""

import sys

import torch
from torch import nn

from sims.monitor import Monitor


def train(runs: str, steps: int = 200) -> list[float]:
    """Train a small network for some steps, watched, and return its losses."""
    torch.manual_seed(0)
    inputs, classes = torch.randn(2_048, 32), torch.randint(10, (2_048,))
    model = nn.Sequential(
        nn.Linear(32, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    monitor = Monitor(model, (inputs[:256], classes[:256]), every=50, to=runs, optimizer=optimizer)
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (64,))
        loss = nn.functional.cross_entropy(model(inputs[chosen]), classes[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        monitor.step()
    return losses


if __name__ == "__main__":
    print(f"last loss {train(*sys.argv[1:2] or ['runs'])[-1]:.4f}")
