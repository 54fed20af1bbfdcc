"""Where a monitor writes to: a run folder, trackers, functions, or nowhere but memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sims.measure.added import take_up
from sims.measure.rows import MeasurementRows
from sims.runs.identity import identity
from sims.runs.layout import ROWS
from sims.runs.lm_measure_config import LmRun
from sims.runs.store import RunFolder
from sims.runs.tables import rows_so_far
from sims.runs.watched_config import WatchedConfig
from sims.system.errors import MeasureError, StoreError
from sims.system.files import explained, json_value, make_folder, read_object, write_json
from sims.system.provenance import provenance
from sims.training.trackers import registry
from sims.training.trackers.registry import TrackedRun, Trackers, named
from toymodel.config import as_dict

if TYPE_CHECKING:
    import pandas as pd

# (step, numbers by name), as of `wandb.log`.
Log = Callable[[int, Mapping[str, float]], object]
Target = str | Path | Log


class Function:
    """Hand the numbers of every look to a function (a `sims.training.trackers.tracker.Tracker`)."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def started(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Do nothing."""

    def logged(self, step: int, numbers: Mapping[str, float]) -> None:
        """Call the function."""
        self.log(step, numbers)

    def ended(self, outcome: Mapping[str, Any]) -> None:
        """Do nothing."""


def targets(to: Target | Iterable[Target] | None) -> tuple[Path | None, list[str], list[Log]]:
    """Return the folder, the names of trackers and the functions that are meant.

    Raises:
        MeasureError: neither, or two folders.
        QueryError, MissingExtraError: a tracker that is not installed.
    """
    if (
        to == ""
        or isinstance(to, Mapping)
        or not (to is None or isinstance(to, str | Path | Iterable) or callable(to))
    ):
        raise MeasureError(
            f"to is {to!r}; pass a folder of runs, one of {', '.join(registry.TRACKERS)}, a function of (step, "
            "numbers), several of these, or None"
        )
    several = [] if to is None else [to] if isinstance(to, str | Path) or callable(to) else list(to)
    folders, trackers, functions = [], [], []
    for one in several:
        if isinstance(one, str) and one in registry.TRACKERS:
            trackers.append(one)
        elif isinstance(one, str | Path):
            folders.append(Path(one))
        elif callable(one):
            functions.append(one)
        else:
            raise MeasureError(
                f"to holds {one!r}; pass a folder of runs, one of {', '.join(registry.TRACKERS)}, or a function of "
                "(step, numbers)"
            )
    if len(folders) > 1:
        raise MeasureError(f"to names {len(folders)} folders ({', '.join(map(str, folders))}); pass one")
    registry.check(trackers)
    return (folders[0] if folders else None), trackers, functions


class Outputs:
    """Write the rows of one run to all of its targets.

    Args:
        to: targets, as `targets` takes them.
        run: the run; a name that ends in "-" is completed by the first number that is free.
        config: what is measured.
        device: where the model is, for the record.
        versions: of the measurements.
        continued: whether the run continues one that the folder holds.

    Raises:
        StoreError: the folder cannot be written, or holds another run of this name.
    """

    def __init__(
        self,
        to: Target | Iterable[Target] | None,
        run: LmRun,
        config: WatchedConfig,
        device: str,
        versions: Mapping[str, int],
        continued: bool = False,
    ) -> None:
        out, trackers, functions = targets(to)
        # Without a folder the rows stay in memory.
        self.kept: list[MeasurementRows] = []
        self.folder: RunFolder | None = None
        self.config, self._lock = config, ExitStack()
        self.run = run if not run.name.endswith("-") else replace(run, name=_free(out, run.name))
        if out is not None:
            self.folder = self._start(out, device, versions, continued)
        beside = (out or Path.cwd()).resolve()
        makers: dict[str, Callable[[], Any]] = {
            name: partial(registry.make, name, beside) for name in trackers
        }
        makers |= {f"function {k + 1}": partial(Function, log) for k, log in enumerate(functions)}
        self.trackers = Trackers(makers)
        self.tracked: TrackedRun | None = None
        if makers:
            self.tracked = self.trackers.started(self.run.name, identity(self.run, config))

    def _start(self, out: Path, device: str, versions: Mapping[str, int], continued: bool) -> RunFolder:
        folder = RunFolder(out / self.run.name)
        if (folder.path / "run.json").exists() and not continued:
            raise StoreError(
                f"{folder.path} holds a run already; choose another name (run=RunMetadata(name=…)), or continue it "
                "with the state of its monitor (state=)"
            )
        make_folder(folder.path)
        self._lock.enter_context(folder.locked())
        if folder.done:
            # Completed when its process ended; the training goes on.
            reopen(folder, self.run, self.config)
        folder.start(self.run, self.config, provenance(device), versions)
        return folder

    def keep(self, sheet: MeasurementRows) -> None:
        """Write the rows and spectra of one look."""
        if self.folder is None:
            self.kept.append(sheet)
        else:
            self.folder.keep_part(sheet.step, sheet.rows, sheet.spectra)
        if self.tracked is not None:
            self.tracked.logged(sheet.step, named(sheet.rows))

    def frame(self) -> pd.DataFrame:
        """Return all rows so far, by step."""
        import pandas as pd

        if self.folder is None:
            found = pd.DataFrame([row for sheet in self.kept for row in sheet.rows], columns=ROWS.names)
        else:
            found = rows_so_far(self.folder.path, self.folder.done)
        # Windows of updates have the step at which they end.
        return found.sort_values("step", kind="stable", ignore_index=True)

    def progress(self, record: Mapping[str, Any]) -> None:
        """Write the position of the run."""
        if self.folder is not None:
            write_json(self.folder.path / "progress.json", {"steps": self.run.steps, "ended": None, **record})

    def forget_after(self, step: int) -> None:
        """Delete what was written after a step that the run continues from."""
        if self.folder is not None:
            for part in (self.folder.path / "parts").glob("*.parquet"):
                if int(part.stem.rsplit("-", 1)[1]) > step:
                    part.unlink()

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Complete the folder, and end the report to the trackers."""
        if self.folder is not None:
            finish(self.folder, outcome)
        if self.tracked is not None:
            self.tracked.ended(outcome)
        self._lock.close()


def finish(folder: RunFolder, outcome: Mapping[str, Any]) -> None:
    """Complete a folder; run.json then holds the number of steps that the run really had."""
    record = folder.identity()
    record["train"] = {**record["train"], "steps": outcome["step"]}
    write_json(folder.path / "run.json", record)
    folder.finish(outcome)


def reopen(folder: RunFolder, run: LmRun, config: WatchedConfig) -> None:
    """Turn a complete folder into that of the same run, incomplete.

    Raises:
        StoreError: it holds another run.
    """
    found, wanted = folder.identity()["train"], json_value(as_dict(run))
    other = sorted(name for name in wanted if name != "steps" and found.get(name) != wanted[name])
    if other:
        raise StoreError(
            f"{folder.path} holds another run ({', '.join(other)} differ); choose another folder, or make a run of its "
            "own, without state="
        )
    take_up(folder, run, config)


def complete_run(path: Path | str) -> RunFolder:
    """Complete the folder of a run whose process was killed, with what was measured until then.

    Args:
        path: the run folder. A complete one is left as it is.

    Raises:
        StoreError: not a run folder, or one that a process still writes to.
    """
    folder = RunFolder(Path(path))
    folder.identity()
    with folder.locked():
        if not folder.done:
            file = folder.path / "progress.json"
            found = read_object(file) if file.exists() else {}
            step = int(found.get("step", 0))
            a_step = folder.spec.tokens_per_step
            note = f"the process ended without closing its monitor, after step {step}"
            finish(
                folder,
                {
                    "ended": "finished",
                    "step": step,
                    "tokens": step * a_step,
                    "val_loss": found.get("val_loss"),
                    "validation_overlap": None,
                    "notes": "; ".join([*found.get("notes", ()), note]),
                    "seconds": found.get("seconds", {"training": None, "measurement": None}),
                },
            )
    return folder


def _free(out: Path | None, stem: str) -> str:
    """Return the stem with the first number that no folder has; make that folder, as other processes may begin too."""
    number = 1
    while out is not None:
        folder = make_folder(out) / f"{stem}{number}"
        try:
            folder.mkdir()
            break
        except FileExistsError:
            number += 1
        except OSError as error:
            raise explained(error, folder) from error
    return f"{stem}{number}"
