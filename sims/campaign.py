"""Many runs in one folder: planned, watched, resumable."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sims.config import MeasureConfig
from sims.errors import StoreError
from sims.files import make_folder, read_json, write_json
from sims.plan import cost, plan
from sims.runner import run_group
from sims.store import RunFolder
from sims.workers import Job, cores, run_jobs
from toymodel.config import RunConfig

PLAIN_SECONDS = 15.0


def run_all(
    configs: Sequence[RunConfig],
    measuring: MeasureConfig,
    out: Path,
    *,
    label: Mapping[str, Any],
    device: str,
    workers: int | None,
    console: Console,
) -> dict[str, str]:
    """Bring every run to its end; what is complete is left alone.

    Args:
        label: what this folder is for; a folder with another label is refused.
        workers: processes; None takes one a core on a CPU and one on a GPU.

    Returns:
        {job: error} of what failed; everything else is complete.

    Raises:
        ConfigError, MeasureError, StoreError: before any work starts.
        KeyboardInterrupt: after the workers have stopped; the same call goes on.
    """
    for config in configs:
        measuring.check(config)
    make_folder(out)
    with _only_driver(out):
        _claim(out, label)
        waiting = [c for c in configs if not RunFolder(out / c.run_id).done]
        groups = plan(waiting, device)
        jobs = [Job(_name(g), run_group, (g, measuring, out, device)) for g in groups]
        count = workers or (1 if device.startswith("cuda") else cores())
        if len(waiting) < len(configs):
            console.print(f"{len(configs) - len(waiting)} of {len(configs)} runs are already complete")
        with watcher(configs, out, console) as watch:
            return run_jobs(jobs, count, watch, out / "errors")


def _name(group: Sequence[RunConfig]) -> str:
    more = f"+{len(group) - 1}" if len(group) > 1 else ""
    return group[0].run_id + more


def _claim(out: Path, label: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(label))
    file = out / "campaign.json"
    if not file.exists():
        write_json(file, wanted)
        return
    found = read_json(file)
    if found != wanted:
        names = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        shown = "; ".join(f"{k} is {found.get(k)!r} there, {wanted.get(k)!r} here" for k in names[:3])
        raise StoreError(
            f"{out} belongs to another campaign ({shown}); choose another --out, or delete that folder"
        )


@contextmanager
def _only_driver(out: Path) -> Iterator[None]:
    """Hold the folder; the operating system lets go of it however the process ends."""
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(
                f"another process is already working in {out}; wait for it, stop it, or choose another --out"
            ) from error
        yield


@contextmanager
def watcher(configs: Sequence[RunConfig], out: Path, console: Console) -> Iterator[Any]:
    """A function that shows where the runs stand: bars on a terminal, a line now and then elsewhere."""
    total = sum(cost(c) for c in configs)
    if not console.is_terminal:
        yield _plain(configs, out, console, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("training and measuring", total=total)

        def watch() -> None:
            done, finished, latest = _standing(configs, out)
            progress.update(bar, completed=done, description=f"{finished}/{len(configs)} runs {latest}")

        watch()
        yield watch
        watch()


def _plain(configs: Sequence[RunConfig], out: Path, console: Console, total: float):
    began, last = time.monotonic(), [time.monotonic()]
    start, _, _ = _standing(configs, out)

    def watch() -> None:
        now = time.monotonic()
        if now - last[0] < PLAIN_SECONDS:
            return
        last[0] = now
        done, finished, latest = _standing(configs, out)
        rate = (done - start) / (now - began)
        left = f", about {(total - done) / rate:.0f} s left" if rate > 0 else ""
        console.print(f"{finished}/{len(configs)} runs, {done / total:.0%}{left} {latest}", soft_wrap=True)

    return watch


def _standing(configs: Sequence[RunConfig], out: Path) -> tuple[float, int, str]:
    """Work done, runs finished, and a word on the run that is furthest among the unfinished."""
    done, finished, latest = 0.0, 0, ""
    for config in configs:
        try:
            progress = json.loads((out / config.run_id / "progress.json").read_text())
        except (OSError, ValueError):
            continue
        if progress["ended"]:
            finished += 1
            done += cost(config)
        else:
            done += cost(config) * progress["step"] / config.steps
            loss = progress["val_loss"]
            shown = "not finite" if loss is None else f"{loss:.3f}"
            latest = f"({config.stage} B={config.batch_size}: step {progress['step']}, loss {shown})"
    return done, finished, latest
