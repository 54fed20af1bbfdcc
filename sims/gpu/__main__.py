"""`./run gpu`, or `python -m sims.gpu` where nothing of this project was installed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from sims.gpu.cell import CELL
from sims.gpu.correctness import MEASURING, TRAINING
from sims.gpu.language import LANGUAGE, MEMORY
from sims.gpu.lines import Results, work_through
from sims.gpu.machine import MACHINE, machine
from sims.gpu.profile import FOLDER, carry_out
from sims.gpu.setting import Setting
from sims.gpu.speed import SPEED
from sims.system.errors import MissingExtraError, StoreError

# In the order of their worth: a call that is cut short has the first ones.
PARTS = (MACHINE, TRAINING, MEASURING, SPEED, CELL, LANGUAGE, MEMORY)
HOST_THREADS = 4

DESCRIPTION = """Measure this project on this machine's GPU: rates of the card, training and measuring against
the CPU, training speed, one published cell, language models. Results are written after every line, and
the same command goes on with the lines that are missing. `profile` trains the runs of the published
profile instead, as far as time allows."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; return 0, 1 where a check failed, or 2 where nothing could begin."""
    began = time.perf_counter()
    options = _parser().parse_args(arguments)
    if not options.small and not torch.cuda.is_available():
        return _refused(
            f"torch {torch.__version__} of {sys.executable} sees no CUDA device; run this on a machine with a GPU and "
            "a torch built for it, or try the script itself at tiny sizes with --small"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # The CPU is the other side of comparisons; at tiny sizes a second thread is slower.
    torch.set_num_threads(1 if options.small else min(HOST_THREADS, os.cpu_count() or 1))
    setting = Setting(device, options.small, began + options.budget)
    chosen = [part for part in PARTS if part.name in options.only]
    try:
        results = Results(options.out, machine(setting), PARTS)
        if options.what == FOLDER:
            carry_out(setting, results)
        else:
            left = work_through(chosen, setting, results)
            if left:
                print(f"{len(left)} lines are left, from {left[0]!r} on; the same command goes on with them")
    except (StoreError, MissingExtraError) as error:
        return _refused(str(error))
    for name in results.failed:
        print(f"failed: {name}")
    print(f"{options.out / 'results.md'} has the tables")
    return 1 if results.failed else 0


def _parser() -> argparse.ArgumentParser:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="gpu", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("tables", FOLDER), default="tables")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder of the results")
    parser.add_argument("--budget", type=_seconds, default=540.0, help="seconds of this call (540)")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="PART", help=f"parts: {', '.join(names)}"
    )
    parser.add_argument(
        "--small", action="store_true", help="tiny sizes, on a CPU too; the numbers mean nothing"
    )
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value


def _refused(reason: str) -> int:
    print(f"gpu: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
