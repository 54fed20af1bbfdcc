"""Time training and evaluation beside the published toy, in turns, and show how much of a step is products.

    python tests/studies/beside.py CHECKOUT [--stages baseline rope …] [--batches 32 128] [--trees NAME=FOLDER …]

CHECKOUT is a checkout of the published code (github.com/AndyLiuin/Spectral-lens-llm-training), whose models and
optimisers are imported from its toy_model/. Each side runs in a process of its own, with one thread; they take turns,
and the ratio is the median over turns of published / ours. --trees adds other checkouts of this project.
Floor: what the published step would take if nothing but its matrix products and attention cost anything.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
EVALUATED = 512
LR, MUON_LR, DECAY = 6e-4, 3e-2, 1e-2
VARIANTS = {
    "baseline": "baseline",
    "rope": "baseline+rope",
    "muon": "baseline+rope+muon",
    "untied": "baseline+rope+muon+untie_embed",
}


class Published:
    """One run as the published loop trains it: modules, torch's AdamW and its own Muon, a loss read every step."""

    def __init__(self, checkout, stage, batch):
        import numpy as np
        import torch

        sys.path.insert(0, str(Path(checkout) / "toy_model"))
        from models_modarith import build_modarith_model
        from optimizers import Muon

        from toymodel.config import RunConfig
        from toymodel.data import dataset

        data = dataset(RunConfig().task)
        self.train, self.val = (np.asarray(s.tokens, dtype=np.int64) for s in (data.train, data.val))
        torch.manual_seed(0)
        self.model = build_modarith_model("a", 1024, 64, 128, 4, 2, 2, VARIANTS[stage])
        self.batch, self.rng = batch, np.random.default_rng(11)
        named = list(self.model.named_parameters())
        if "muon" not in VARIANTS[stage]:
            self.optimisers = [torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.0)]
            return
        matrices = [p for n, p in named if "embed" not in n and n != "lm_head.weight"]
        rest = [p for n, p in named if "embed" in n or n == "lm_head.weight"]
        adamw = [torch.optim.AdamW([p], lr=LR, weight_decay=DECAY) for p in rest]
        self.optimisers = [*adamw, Muon(matrices, lr=MUON_LR)]

    def loss(self, rows):
        import torch
        import torch.nn.functional as F

        tokens = torch.as_tensor(rows)
        logits, _ = self.model(tokens[:, :-1], return_repr=True)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))

    def gradients(self):
        loss = self.loss(self.train[self.rng.integers(0, len(self.train), size=self.batch)])
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        return loss

    def steps(self, count):
        for _ in range(count):
            loss = self.gradients()
            for optimiser in self.optimisers:
                optimiser.step()
            loss.item()

    def evaluate(self):
        import torch

        with torch.no_grad():
            self.loss(self.val[:EVALUATED]).item()


class Ours:
    """One run of this project."""

    def __init__(self, stage, batch):
        from toymodel.config import RunConfig
        from toymodel.ensemble import Ensemble

        self.ensemble = Ensemble([RunConfig(stage=stage, batch_size=batch, lr=LR, eval_size=EVALUATED)])

    def steps(self, count):
        self.ensemble.advance(count)

    def evaluate(self):
        self.ensemble.evaluate()


def products(run):
    """Return a function that repeats the matrix products and the attention of one step, forward and backward."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    kept = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.name()
            if "mm" in name or "attention" in name:
                kept.append((func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Record():
        run.gradients()

    def again():
        with torch.no_grad():
            for func, args, kwargs in kept:
                func(*args, **kwargs)

    return again


def worker(kind, checkout, stage, batch, warm):
    import torch

    torch.set_num_threads(1)
    run = Published(checkout, stage, batch) if kind == "published" else Ours(stage, batch)
    run.steps(warm)
    run.evaluate()
    # The same object serves "products" between the steps.
    calls = {"steps": run.steps, "evaluate": lambda _: run.evaluate()}
    if kind == "published":
        again = products(run)
        calls["products"] = lambda count: [again() for _ in range(count)]
    print("ready", flush=True)
    for line in sys.stdin:
        name, count = line.split()
        began = time.process_time()
        calls[name](int(count))
        print((time.process_time() - began) / int(count), flush=True)


def start(kind, tree, options, stage, batch):
    command = [
        sys.executable,
        __file__,
        str(options.checkout),
        "--worker",
        kind,
        stage,
        str(batch),
        str(options.warm),
    ]
    env = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def ask(process, name, count):
    process.stdin.write(f"{name} {count}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def compare(options, stage, batch):
    sides = {"published": HERE, "ours": HERE, **dict(t.split("=") for t in options.trees)}
    running = {
        name: start(
            "published" if name == "published" else "ours", Path(tree).resolve(), options, stage, batch
        )
        for name, tree in sides.items()
    }
    for process in running.values():
        assert process.stdout.readline() == "ready\n"
    steps = max(1, 256 // batch)
    took = {}
    for _ in range(options.turns):
        for name, process in running.items():
            took.setdefault((name, "step"), []).append(ask(process, "steps", steps))
            took.setdefault((name, "evaluation"), []).append(ask(process, "evaluate", 1))
        took.setdefault(("published", "products"), []).append(ask(running["published"], "products", steps))
    for process in running.values():
        process.stdin.close()
        process.wait()
    for part in ("step", "evaluation"):
        base = took["published", part]
        cells = [f"published {statistics.median(base) * 1e3:.1f} ms"]
        for name in list(sides)[1:]:
            own = took[name, part]
            ratio = statistics.median(a / b for a, b in zip(base, own, strict=True))
            cells.append(f"{name} {statistics.median(own) * 1e3:.1f} ms ({ratio:.2f}×)")
        if part == "step":
            floor = took["published", "products"]
            most = statistics.median(a / b for a, b in zip(base, floor, strict=True))
            cells.append(f"products alone {statistics.median(floor) * 1e3:.1f} ms (at most {most:.2f}×)")
        print(f"{stage} B={batch} {part}: " + ", ".join(cells), flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--stages", nargs="+", default=list(VARIANTS))
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument(
        "--warm", type=int, default=60, help="steps before: the first ones of tied heads are slow"
    )
    parser.add_argument("--trees", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        kind, stage, batch, warm = options.worker
        worker(kind, options.checkout, stage, int(batch), int(warm))
        return
    for stage in options.stages:
        for batch in options.batches:
            compare(options, stage, batch)


if __name__ == "__main__":
    main()
