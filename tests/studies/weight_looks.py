"""Time of looks at the weights of a small language model, beside that of its training.

    python tests/studies/weight_looks.py
    python tests/studies/weight_looks.py --profile

A language model of tier tiny8 on bytes, 8 sequences of 64 tokens a step as in docs/lifecycle.md (the text is random),
one thread. Training and looks take turns: the smallest of several times is that which other work on the machine
disturbed least. Times are those of this process, and those of a look include writing its tables.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch

from sims.measure.lm_prepare import Text
from sims.measure.measurement import StepObserver
from sims.measure.observers import observers
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.store import write_records
from sims.system.process_group import SINGLE
from sims.text.corpus import Corpus
from sims.text.shards import write_shard
from sims.training.execution import Execution
from sims.training.throughput import Throughput, flops_per_token
from sims.training.trainer import Trainer, train
from toymodel.observe import View

PERIOD, ROUNDS, LENGTH, BATCH, BYTES = 25, 10, 64, 8, 257
# Whether exponents are measured as well.
CASES: Mapping[str, bool] = {
    "spectra": False,
    "spectra, exponents and products of heads": True,
}


class Timed:
    """Look several times after every round of steps, once for each case, and keep the times."""

    def __init__(self, cases: Mapping[str, StepObserver], folder: Path) -> None:
        self.cases, self.folder = cases, folder
        self.times: dict[str, list[float]] = {name: [] for name in cases}
        self.spent = 0.0
        self.view: View | None = None

    def due(self, step: int) -> bool:
        return step % PERIOD == 0

    def look(self, view: View) -> None:
        self.view, whole = view, time.process_time()
        for name, observer in self.cases.items():
            began = time.process_time()
            observer.look(view)
            (sheet,) = observer.flush()
            for table, records in (("rows", sheet.rows), ("spectra", sheet.spectra)):
                write_records(self.folder, table, records)
            self.times[name].append(time.process_time() - began)
        self.spent += time.process_time() - whole

    def state_dict(self):
        return {}

    def load_state_dict(self, state) -> None:
        pass


def setup(folder: Path, tier: str, stage: str) -> tuple[Trainer, dict[str, StepObserver]]:
    """Return a run on random bytes, and what looks at it in each case."""
    for name, seed in (("train", 0), ("val", 1)):
        shard = np.random.default_rng(seed).integers(0, 256, 60_000)
        write_shard(folder / f"{name}_000000.bin", shard)
    steps = PERIOD * ROUNDS
    config = LmConfig(
        tier, stage, BYTES, LENGTH, BATCH, steps, lr=2e-3, precision="float32", eval_every=steps, eval_tokens=512
    )  # fmt: skip
    trainer = Trainer(config, Execution(torch.device("cpu"), BATCH), Corpus(folder, LENGTH, 0), SINGLE)
    text, found = Text.of(folder, "val", families=False), {}
    for name, tails in CASES.items():
        measure = LmMeasureConfig(
            tokens=1024, length=LENGTH, gradient_sequences=0, families=(), schedules=(f"weights={PERIOD}",), tails=tails
        )  # fmt: skip
        (found[name],) = observers(measure, config, text.measurement_data(measure, "cpu", BYTES))
    return trainer, found


def run(tier: str, stage: str, profile: bool) -> None:
    """Print the least times of a training step and of a look."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, cases = setup(Path(folder), tier, stage)
        throughput = Throughput(LENGTH * BATCH, flops_per_token(trainer.config.transformer()), 1e9)
        timed, rounds = Timed(cases, Path(folder)), []
        began = time.process_time()
        for snapshot in train(trainer, throughput, [timed]):
            if snapshot.step % PERIOD == 0:
                rounds.append(time.process_time() - began - timed.spent)
                began, timed.spent = time.process_time(), 0.0
        # The first round compiles and fills caches, and the last one evaluates.
        step = min(rounds[2:-1]) / PERIOD
        print(f"{tier}, stage {stage}: {step * 1e3:.1f} ms a training step\n")
        print(f"| look every {PERIOD} steps | ms | share of the time of training |\n|---|---:|---:|")
        for name, times in timed.times.items():
            best = min(times[2:])
            print(f"| {name} | {best * 1e3:.1f} | {best / PERIOD / step:.1%} |")
        if profile and timed.view is not None:
            name, observer = list(cases.items())[-1]
            with cProfile.Profile() as counted:
                for _ in range(5):
                    observer.look(timed.view)
            print(f"\n5 looks, {name}:")
            pstats.Stats(counted).sort_stats("tottime").print_stats(40)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", default="tiny8", help="size of the model")
    parser.add_argument("--stage", default="rope", help="stage of the model")
    parser.add_argument("--profile", action="store_true", help="print where the time of a look goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(options.tier, options.stage, options.profile)


if __name__ == "__main__":
    main()
