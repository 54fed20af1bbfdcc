"""Read all runs of a folder into three tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from sims.analysis.origins import distinct, made_by
from sims.runs.layout import TEXT, TOY
from sims.runs.store import RunFolder, run_folders
from sims.runs.tables import joined
from sims.system.errors import StoreError
from sims.system.files import visible
from sims.system.plain import some
from toymodel.stages import CHAIN

# What the cells of an analysis are made of, and the budget that follows from the batch size.
AXES = ("stage", "batch_size", "lr", "seed", "steps", "eval_every")
# Fields of language models that differ from run to run and define no cell.
OWN = ("name", "tokens_per_step", "checkpoints", "model.id")
# Statuses of rows without a value.
NO_VALUE = ("not fitted", "diverged")
LABEL = ("stage", "batch_size", "lr", "seed")

_Table = TypeVar("_Table")


@dataclass(frozen=True)
class Runs:
    """Hold the tables of complete runs, of the toy or of language models.

    Attributes:
        runs: one row a run: run_id, stage, batch_size, lr (NaN where unknown), seed, ended, step, tokens,
            val_loss, seconds_… (NaN where unknown).
        rows: every measured number (columns of `sims.runs.layout.ROWS`) with run_id, stage, batch_size, lr, seed.
        spectra: every spectrum, likewise.
        incomplete: run ids without a done marker.
        pruned: run ids that successive halving stopped early; they have no place in the tables.
        differing: fields of the configuration in which the runs differ, other than stage, batch size, learning rate,
            seed and the budget that follows from the batch size.
        mixed: measurements that the runs do not have in one version, as far as run.json records it.
        copies: folders left out because another one holds the same run, with the name of that one.
        made_by: sentences about runs that were not made alike (versions, source, processor).
        kind: TOY or TEXT of `sims.runs.layout`; TEXT where any run is.
        configs: the stored configuration of each run, by run id.
    """

    runs: pd.DataFrame
    rows: pd.DataFrame
    spectra: pd.DataFrame
    incomplete: tuple[str, ...]
    pruned: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    made_by: tuple[str, ...] = ()
    kind: str = TOY
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _made: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def values(self, quantity: str, object_: str = "", site: str = "", **which: str | bool) -> pd.DataFrame:
        """Return the fitted rows of one quantity.

        Args:
            quantity, object_, site: of the rows; "" for any object or site.
            which: further columns of `sims.runs.columns.WHICH` (window="10-40", set="task", seen=False); "" for any.
        """
        return self.rows.iloc[self._places(quantity, {"object": object_, "site": site, **which})]

    def has(self, quantity: str, object_: str = "", site: str = "", **which: str | bool) -> bool:
        """Return whether there are fitted rows of one quantity (arguments as of `values`)."""
        return len(self._places(quantity, {"object": object_, "site": site, **which})) > 0

    @property
    def loss_name(self) -> str:
        """What the validation loss of the runs is: of watched models nobody knows whether the probe was held out."""
        return "loss on the probe" if self.watched else "validation loss"

    @property
    def watched(self) -> bool:
        """Whether a monitor made some of the runs."""
        return any(own.get("model", {}).get("kind") == "watched" for own in self.configs.values())

    def once(self, table: Callable[[Runs], _Table]) -> _Table:
        """Return `table(runs)`; it is made at the first call and shared by all, so that nobody may change it.

        A page shows some tables in several places; its runs hold them until it is written.
        """
        if table not in self._made:
            self._made[table] = table(self)
        return self._made[table]

    def _places(self, quantity: str, which: Mapping[str, str | bool]) -> np.ndarray:
        """Return the positions of rows; to copy rows, mostly texts, takes longer than all comparisons."""
        places = np.flatnonzero(self.rows["quantity"] == quantity)
        places = places[~self.rows["status"].iloc[places].isin(NO_VALUE).to_numpy()]
        for column, wanted in which.items():
            if wanted != "":
                places = places[(self.rows[column].iloc[places] == wanted).to_numpy(bool, na_value=False)]
        return places


def load(out: Path | str, kind: str | None = None, *, others: bool = False) -> Runs:
    """Read every complete run directly below a folder; those that were pruned are only named.

    Args:
        out: the folder.
        kind: TOY or TEXT of `sims.runs.layout`, where all of them have to be of that kind.
        others: complete runs of another kind are left out instead.

    Raises:
        StoreError: no complete run there, or one of another kind.
    """
    out = Path(out)
    folders = run_folders(out)
    pruned = dict.fromkeys(f for f in folders if f.done and f.outcome["ended"] == "pruned")
    folders = [f for f in folders if f not in pruned]
    if not any(f.done for f in folders):
        if (out / "run.json").exists():
            raise StoreError(
                f"{out} is the folder of one run; give the folder that holds it: {out.absolute().parent}"
            )
        raise StoreError(f"{out} holds no complete run{_instead(out, len(folders))}")
    other = [f.path.name for f in folders if kind and f.done and f.identity().get("kind", TOY) != kind]
    if others:
        folders = [f for f in folders if f.path.name not in other]
    elif other:
        names = {TOY: "toy runs", TEXT: "runs of language models or watched models"}
        found = names[TEXT if kind == TOY else TOY]
        raise StoreError(
            f"{out} holds {found} ({some(other, 5)}), where {names[str(kind)]} are compared; give the folder of those, "
            "each kind in one of its own"
        )
    return replace(read_runs(folders), pruned=tuple(f.path.name for f in pruned))


def _instead(out: Path, begun: int) -> str:
    """Say what a folder without a complete run holds in place of one, and what to do."""
    if begun:
        return f" ({begun} begun: `speclens ls {out}` shows them); the command that began them continues them"
    if others := [path.name for path in visible(out)]:
        return f", but {some(others, 4)}; give a folder that `speclens demo` or `speclens train` has written"
    return f"; make some with `speclens demo --out {out}` or `speclens train`"


def read_runs(folders: Sequence[RunFolder], copies: bool = False) -> Runs:
    """Read these runs, at least one of them complete.

    Args:
        folders: where they lie.
        copies: keep every folder; by default folders of one configuration are one run, and one of them is read.

    Raises:
        StoreError: a complete one is of another version, or damaged.
    """
    done = [f for f in folders if f.done]
    found = distinct(done)
    complete = [(f, f.identity()) for f in (done if copies else found.folders)]
    # In the order of the stages, so that every table and figure made from these is.
    complete.sort(key=lambda run: _place(run[1]["train"]))
    labels = pd.DataFrame([_label(folder, own["train"]) for folder, own in complete])
    outcomes = pd.DataFrame([_outcome(folder) for folder, _ in complete])
    paths = [folder.path for folder, _ in complete]
    return Runs(
        pd.concat([labels, outcomes], axis=1),
        joined(paths, "rows", labels),
        joined(paths, "spectra", labels),
        tuple(f.path.name for f in folders if not f.done),
        differing=_differing([own["train"] for _, own in complete]),
        mixed=_mixed([own.get("measured", {}) for _, own in complete]),
        copies={} if copies else found.copies,
        made_by=made_by([folder for folder, _ in complete]),
        kind=TEXT if any(own.get("kind", TOY) == TEXT for _, own in complete) else TOY,
        configs={folder.path.name: own["train"] for folder, own in complete},
    )


def _mixed(measured: Sequence[Mapping[str, int]]) -> tuple[str, ...]:
    """Return the measurements that are not in all runs in one version; runs without a record do not count."""
    known = [versions for versions in measured if versions]
    names = dict.fromkeys(name for versions in known for name in versions)
    return tuple(name for name in names if len({versions.get(name) for versions in known}) > 1)


def _differing(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    tables = pd.json_normalize([dict(c) for c in configs]).drop(columns=[*AXES, *OWN], errors="ignore")
    # A field that some runs leave at None, or do not write, is one more value.
    varied = tables.astype(object).where(tables.notna(), "none").astype(str).nunique() > 1
    return tuple(varied.index[varied])


def _place(config: Mapping[str, Any]) -> tuple[int, str, int, float, int]:
    """Return a sorting key: stages in the order of the chain, then others by name."""
    stage = config["stage"]
    place = list(CHAIN).index(stage) if stage in CHAIN else len(CHAIN)
    return place, stage, config["batch_size"], config["lr"] or 0.0, config["seed"]


def _label(folder: RunFolder, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"run_id": folder.path.name, **{name: _number(config[name]) for name in LABEL}}


def _outcome(folder: RunFolder) -> dict[str, Any]:
    outcome = folder.outcome
    seconds = {f"seconds_{part}": s for part, s in outcome.pop("seconds").items()}
    return {name: _number(value) for name, value in {**outcome, **seconds}.items()}


def _number(value: Any) -> Any:
    """Return NaN for a missing value, so that its column is one of numbers."""
    return math.nan if value is None else value
