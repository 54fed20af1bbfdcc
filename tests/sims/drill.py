"""Fault drill: a sweep whose workers and driver are killed again and again ends as if nothing had happened.

    python tests/sims/drill.py --kills 1000

Forty small runs (4 stages, 2 batch sizes, 5 seeds) are swept by `speclens sweep` with two worker processes.
Each kill (SIGKILL) strikes when the sweep has made a random number of further evaluations, so that its place does
not depend on how fast the machine is; one in `DRIVER_SHARE` strikes the driver, the others a worker. When all runs
are complete before the last kill, the sweep starts over in a fresh folder. At the end every sweep is compared with
an undisturbed one, number by number.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from sims.runs.columns import WHICH
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder, run_folders
from sims.sweep.grid import Grid
from sims.sweep.presets import SMALL
from sims.sweep.sweep_run import SweepRun, run_all
from sims.sweep.work import ToyWork
from sims.system.errors import StoreError
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig

STAGES = ("baseline", "rope", "muon", "untied")
BATCHES, SEEDS, LR = (4, 8), (0, 1, 2, 3, 4), 3e-3
DRIVER_SHARE = 6
POLL_SECONDS = 0.02
# Longer than any driver needs to come up on a busy machine: without progress for so long, something hangs.
PATIENCE_SECONDS = 240.0

BASE = RunConfig(
    stage="untied",
    task=TaskConfig(vocab=24, length=8, train=200, val=32, test=8),
    model=ModelConfig(d_model=16, heads=2, layers=1, mlp_ratio=SMALL.model.mlp_ratio),
    steps=40,
    eval_every=2,
    eval_size=16,
)
MEASURE = MeasureConfig(
    every=20,
    sequences=32,
    windows=((1, 10),),
    gradient_sequences=4,
    bands=((11, 7),),
    training_bands=0,
    probe_sequences=120,
    causal_sequences=0,
)


def drill_configs() -> list[RunConfig]:
    """The forty runs."""
    return Grid(BASE, STAGES, BATCHES, SEEDS, {}, lrs=(LR,)).configs()


def start_driver(out: Path) -> subprocess.Popen[bytes]:
    """`speclens sweep` of the forty runs, as a process of its own."""
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]; "
        "from drill import drive; sys.exit(drive(Path(sys.argv[1])))"
    )
    log = open(out.with_suffix(".log"), "ab")  # noqa: SIM115
    with log:
        here = str(Path(__file__).parent)
        return subprocess.Popen([sys.executable, "-c", code, str(out), here], stdout=log, stderr=log)


def drive(out: Path) -> int:
    """What the driver process does; 0 when every run is complete."""
    campaign = SweepRun(
        drill_configs(), ToyWork(MEASURE, store_every=0.0), out, {"campaign": "drill"}, workers=2
    )
    failed = run_all(campaign, Console())
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}", flush=True)
    return 1 if failed else 0


def workers_of(driver: int) -> list[psutil.Process]:
    """Its worker processes: what the server of forks has forked."""
    with suppress(psutil.Error):
        return [
            grandchild
            for child in psutil.Process(driver).children()
            if "forkserver" in " ".join(child.cmdline())
            for grandchild in child.children()
        ]
    return []


def evaluations(out: Path) -> int:
    """How far the sweep is."""
    done = 0
    for file in out.glob("*/progress.json"):
        with suppress(OSError, ValueError):
            done += json.loads(file.read_bytes())["step"] // BASE.eval_every + 1
    return done


@dataclass(frozen=True)
class Blow:
    """One kill.

    Args:
        victim: "driver" or "worker".
        distance: evaluations of the whole sweep until it strikes.
        which: in [0, 1), chooses among the workers.
    """

    victim: str
    distance: int
    which: float

    @classmethod
    def draw(cls, dice: random.Random, total: int) -> Blow:
        """The same blows for the same seed, whatever the sweep does."""
        victim = "driver" if dice.randrange(DRIVER_SHARE) == 0 else "worker"
        return cls(victim, dice.randint(1, total // 10), dice.random())

    def strike(self, driver: subprocess.Popen[bytes]) -> bool:
        """Kill the victim; False while there is nobody to kill."""
        pids = [driver.pid] if self.victim == "driver" else [p.pid for p in workers_of(driver.pid)]
        if not pids:
            return False
        try:
            os.kill(pids[int(self.which * len(pids))], signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def disturb(out: Path, dice: random.Random, kills: int, report: Callable[[str], None]) -> Counter[str]:
    """Drive the sweep to its end and kill at most that many processes on the way.

    Returns:
        Kills by victim.

    Raises:
        RuntimeError: no progress for `PATIENCE_SECONDS`, or a driver that ended with an error.
    """
    struck: Counter[str] = Counter()
    driver = start_driver(out)
    total = len(drill_configs()) * (BASE.steps // BASE.eval_every + 1)
    # Work is lost at every kill, so the distance to the next one is counted from where the sweep then stands.
    blow = Blow.draw(dice, total)
    target = blow.distance
    seen, moved = -1, time.monotonic()
    while driver.poll() is None:
        now = evaluations(out)
        if now != seen:
            seen, moved = now, time.monotonic()
        if time.monotonic() - moved > PATIENCE_SECONDS:
            driver.kill()
            raise RuntimeError(f"no progress at {seen} of {total} evaluations\n{_log(out)}")
        if sum(struck.values()) < kills and seen >= target and blow.strike(driver):
            struck[blow.victim] += 1
            if blow.victim == "driver":
                driver.wait()
                driver = start_driver(out)
            blow = Blow.draw(dice, total)
            target = evaluations(out) + blow.distance
            report(f"{sum(struck.values())} kills, {seen}/{total} evaluations")
        time.sleep(POLL_SECONDS)
    if driver.returncode:
        raise RuntimeError(f"the driver ended with status {driver.returncode}\n{_log(out)}")
    return struck


def _log(out: Path) -> str:
    return "\n".join(out.with_suffix(".log").read_text(errors="replace").splitlines()[-30:])


def compare(disturbed: Path, undisturbed: Path) -> list[str]:
    """What differs between two sweeps; empty when nothing does."""
    faults = []
    wanted = {c.run_id for c in drill_configs()}
    found = [f.path.name for f in run_folders(disturbed)]
    if sorted(found) != sorted(wanted):
        faults.append(f"{len(wanted - set(found))} runs lost, {len(found) - len(wanted)} too many")
    leftovers = [str(p) for p in disturbed.rglob(".tmp-*")] + [str(p) for p in disturbed.glob("*/parts")]
    faults += [f"left behind: {name}" for name in leftovers]
    for name in sorted(wanted):
        one, other = RunFolder(disturbed / name), RunFolder(undisturbed / name)
        if not one.done:
            faults.append(f"{name} is not complete")
            continue
        for read, key in (
            (RunFolder.rows, ["step", "object", "quantity", "site", *WHICH]),
            (RunFolder.spectra, ["step", "object", "site"]),
        ):
            try:
                tables = [read(f).sort_values(key, ignore_index=True) for f in (one, other)]
            except StoreError as error:
                faults.append(f"{name}: {read.__name__} differ: {error}")
                continue
            if tables[0].to_json(double_precision=15) != tables[1].to_json(double_precision=15):
                faults.append(f"{name}: {read.__name__} differ")
        if [p.name for p in one.checkpoints()] != [p.name for p in other.checkpoints()]:
            faults.append(f"{name}: other checkpoints")
    return faults


def undisturbed(out: Path) -> None:
    """The forty runs in this process."""
    failed = run_all(
        SweepRun(drill_configs(), ToyWork(MEASURE), out, {"campaign": "drill"}, workers=1),
        Console(quiet=True),
    )
    assert not failed, failed


def main() -> int:
    """Sweep after sweep until the kills are used up; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, struck, sweeps, faults = random.Random(options.seed), Counter(), 0, []
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed(Path(scratch) / "undisturbed")
        while sum(struck.values()) < options.kills:
            out = Path(scratch) / f"sweep-{sweeps}"
            left = options.kills - sum(struck.values())
            struck += disturb(out, dice, left, lambda line: print(line, end="\r", flush=True))
            faults += compare(out, Path(scratch) / "undisturbed")
            sweeps += 1
            print(f"\nsweep {sweeps}: {dict(struck)} killed so far, {len(faults)} faults", flush=True)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
