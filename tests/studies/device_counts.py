"""What toy training asks of a GPU: launches, synchronisations, transfers and bytes, stage by stage.

    python tests/studies/device_counts.py                     # the table of docs/gpu.md
    python tests/studies/device_counts.py --stages untied --lines  # and which lines of the project ask for it

These are counts, by a simulated CUDA device (`tests/simulated`), and no times: a dispatched operation counts as one
launch. Steps are counted as they are before their capture; a captured one is a single launch. Runs of the published
size, three members, batch 32; the first two steps, which build what is kept, are not counted. About five minutes
on one core.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from simulated import Counts, SimulatedDevice, simulated_device  # noqa: E402

from sims.measure.engine import gather  # noqa: E402
from sims.measure.toy import prepare  # noqa: E402
from sims.models.transformer import TransformerStack  # noqa: E402
from sims.sweep.presets import SWEEP_MEASURE  # noqa: E402
from toymodel.config import RunConfig  # noqa: E402
from toymodel.data import dataset  # noqa: E402
from toymodel.ensemble import Ensemble  # noqa: E402
from toymodel.stages import CHAIN  # noqa: E402

MEMBERS = 3
HEAD = "| stage | work | launches | synchronisations | transfers | to the device | to the host | MB read and written |"


def counted(device: SimulatedDevice, work: Callable[[], object]) -> Counts:
    """Return what a piece of work asks of the device."""
    with device.counting() as counts:
        work()
    return counts


def counts_of(stage: str) -> dict[str, Counts]:
    """Return the counts of a training step, an evaluation, and of keeping the states of all members."""
    base = replace(RunConfig(stage=stage), newton_schulz="float32")
    with simulated_device() as device:
        ensemble = Ensemble([replace(base, seed=seed) for seed in range(MEMBERS)], "cuda", "off")
        ensemble.advance(2)
        ensemble.evaluate()
        return {
            "step": counted(device, lambda: ensemble.advance(1)),
            "evaluation of 512": counted(device, ensemble.evaluate),
            f"{MEMBERS} states": counted(device, lambda: ensemble.trainable.states(range(MEMBERS))),
        }


def measured(stage: str, members: int) -> Counts:
    """Return the counts of a measuring point of a sweep; what depends on the probes alone is computed before."""
    configs = [replace(RunConfig(stage=stage), newton_schulz="float32", seed=seed) for seed in range(members)]
    with simulated_device() as device:
        ensemble = Ensemble(configs, "cuda")
        ensemble.advance(2)
        data = prepare(SWEEP_MEASURE, configs[0], dataset(configs[0].task), "cuda")
        models = TransformerStack(configs, {n: p.detach() for n, p in ensemble.params.items()}, ensemble.step)
        gather(models, data)
        return counted(device, lambda: gather(models, data))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=list(CHAIN), choices=CHAIN)
    parser.add_argument(
        "--lines", action="store_true", help="show the lines of the project behind the counts"
    )
    chosen = parser.parse_args()
    print(HEAD)
    print("|---" * 2 + "|---:" * 6 + "|")
    for stage in chosen.stages:
        points = {f"measuring point, K = {k}": measured(stage, k) for k in (1, MEMBERS)}
        for work, counts in {**counts_of(stage), **points}.items():
            numbers = [counts.launches, counts.waits, len(counts.transfers)]
            moved = [counts.moved("device"), counts.moved("host")]
            cells = [f"{n:,}" for n in numbers + moved] + [f"{counts.bytes / 1e6:,.0f}"]
            print(f"| {stage} | {work} | {' | '.join(cells)} |", flush=True)
            if chosen.lines:
                print(counts)
                for line, launches in counts.lines.most_common():
                    print(f"  {launches} launches {line}")


if __name__ == "__main__":
    main()
