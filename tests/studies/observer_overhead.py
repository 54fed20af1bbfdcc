"""Time of the measurements between training steps, and the memory of windows of updates.

    python tests/studies/observer_overhead.py                    # toy runs, and windows of 1e6 parameters
    python tests/studies/observer_overhead.py --sketch 100000000   # and a sketch of that many

A toy run of the published shape at width 64, stage muon, one thread. Times are those of this process (CPU), so that
other work on the machine counts little; per look, and per training step at the schedule of the row. Measure on an idle
machine all the same: caches are shared.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from sims.measure.observers import observers
from sims.runs.measure_config import MeasureConfig
from spectra import SketchedWindow, UpdateWindow
from toymodel import Ensemble, ModelConfig, RunConfig, TaskConfig, train

STEPS = 300
RUN = RunConfig(
    "muon",
    task=TaskConfig(vocab=256, length=32, train=4_000, val=512, test=512),
    model=ModelConfig(64, 4, 2),
    steps=STEPS,
    eval_every=STEPS,
    weight_decay=0.1,
)
SEVERAL = {"update_windows": (5, 10, 20), "update_groups": ("optimiser", "all", "attention")}
CASES = {
    "updates=50": {"updates": 50},
    "updates=50, W 5 10 20, 4 groups": {"updates": 50, **SEVERAL},
    "updates=50, stride 10, W 5 10 20, 4 groups": {"updates": 50, "update_stride": 10, **SEVERAL},
    "the same, 199 draws": {"updates": 50, "update_stride": 10, "update_draws": 199, **SEVERAL},
    "the same, 199 draws, decay": {
        "updates": 50,
        "update_stride": 10,
        "update_draws": 199,
        "update_decay": True,
        **SEVERAL,
    },
    "defect=100": {"defect": 100},
    "accuracy=10": {"accuracy": 10},
}


class Timed:
    """Add up the processor time of one observer."""

    def __init__(self, observer) -> None:
        self.observer, self.spent, self.looks = observer, 0.0, 0
        self.due = observer.due

    def look(self, view) -> None:
        began = time.process_time()
        self.observer.look(view)
        self.spent += time.process_time() - began
        self.looks += 1

    def state_dict(self):
        return self.observer.state_dict()

    def load_state_dict(self, state) -> None:
        self.observer.load_state_dict(state)


def run_table() -> None:
    """Print the time of each measurement."""
    began = time.process_time()
    for _ in train(Ensemble([RUN])):
        pass
    plain = time.process_time() - began
    print(f"a training step without them: {plain / STEPS * 1e3:.1f} ms\n")
    print("| measurement | steps looked at | ms a measured step | ms a training step | share of a step |")
    print("|---|---:|---:|---:|---:|")
    for name, settings in CASES.items():
        (observer,) = observers(MeasureConfig(**settings), RUN)
        timed = Timed(observer)
        for _ in train(Ensemble([RUN]), [[timed]]):
            pass
        rows = observer.flush()
        a_step = timed.spent / STEPS
        cells = [name, str(timed.looks), f"{timed.spent / len(rows) * 1e3:.0f}", f"{a_step * 1e3:.2f}"]
        print("| " + " | ".join([*cells, f"{a_step / (plain / STEPS):.0%}"]) + " |")


def window_table(sizes: dict[str, tuple[int, int]], window: int = 10) -> None:
    """Print the time of one update in a full window, and what the window holds."""
    print(f"\n| window of {window} updates | parameters | seconds an update | MB held |")
    print("|---|---:|---:|---:|")
    for name, (size, sketch) in sizes.items():
        held = SketchedWindow(sketch, 0, window) if sketch else UpdateWindow(window)
        update = torch.randn(size, generator=torch.Generator().manual_seed(0))
        spent = 0.0
        for _ in range(2 if size > 10**7 else window):
            began = time.process_time()
            held.push(update)
            spent = time.process_time() - began
        state = held.state_dict().values()
        memory = sum(t.numel() * t.element_size() for t in state if isinstance(t, torch.Tensor))
        print(f"| {name} | {size:.0e} | {spent:.3f} | {memory / 1e6:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sketch", type=int, default=10**6, help="parameters of the sketched window")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run_table()
    window_table({"all numbers": (10**6, 0), "sketch of 10,000": (options.sketch, 10_000)})


if __name__ == "__main__":
    main()
