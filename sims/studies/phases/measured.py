"""Read the geometry of states of runs, and put runs that are alike but for their seed into sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import keep, usable
from sims.analysis.runs import Runs, read_runs
from sims.measure.geometry import ACTIVATION
from sims.runs.store import RunFolder
from sims.studies.phases.settings import LANGUAGE, Setting, null_texts, set_names, setting_of
from sims.studies.stored import check_alike
from sims.system.errors import MeasureError
from toymodel.config import canonical_hash
from toymodel.transformer import FINAL

REMEDY = (
    "train with --measure.geometry --measure.schedules activations=100+12/decade (language models: --measure "
    "--measuring.geometry --measuring.pooling last --looks 40), or name a folder of checkpoints and a text with --data"
)


@dataclass(frozen=True, eq=False)
class Curve:
    """Hold one number of the states of a set over training.

    Attributes:
        tokens: (n,) rising, of looks that all seeds have; 0 is the start.
        values: (seeds, n).
        seeds: in this order.
    """

    tokens: np.ndarray
    values: np.ndarray
    seeds: tuple[int, ...]

    @property
    def trained(self) -> Curve:
        """Return the looks after the start, which have a logarithm."""
        after = self.tokens > 0
        return Curve(self.tokens[after], self.values[:, after], self.seeds)

    def at(self, tokens: float) -> np.ndarray:
        """Return (seeds,) at the look nearest in ln tokens; at the start for 0."""
        if tokens == 0:
            return self.values[:, 0] if self.tokens[0] == 0 else np.full(len(self.values), math.nan)
        own = self.trained
        return own.values[:, int(np.argmin(np.abs(np.log(own.tokens / tokens))))]

    def onto(self, tokens: np.ndarray) -> np.ndarray:
        """Return (seeds, n) at some looks, NaN where there is none."""
        places = {float(own): i for i, own in enumerate(self.tokens)}
        found = np.full((len(self.values), len(tokens)), math.nan)
        for k, own in enumerate(tokens):
            if float(own) in places:
                found[:, k] = self.values[:, places[float(own)]]
        return found

    def table(self) -> pd.DataFrame:
        """Return one row a seed and look after the start: seed, tokens, value."""
        own = self.trained
        index = pd.MultiIndex.from_product([own.seeds, own.tokens], names=["seed", "tokens"])
        return pd.DataFrame({"value": own.values.ravel()}, index).reset_index()


@dataclass(frozen=True, eq=False)
class PhaseData:
    """Hold what was measured of all runs.

    Attributes:
        runs: the runs; their stage is the name of their set.
        settings: of each set.
        folders: of each run.
        notes: which runs were left out, and why.
    """

    runs: Runs
    settings: Mapping[str, Setting]
    folders: Mapping[str, RunFolder]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> list[str]:
        """Return the names of the sets by kind, stage, size and schedule, those of nulls last."""
        return sorted(self.settings, key=lambda cell: self.settings[cell].place)

    @property
    def main(self) -> list[str]:
        """Return the sets that are no nulls."""
        return [cell for cell in self.cells if not self.settings[cell].is_null]

    def of(self, cell: str) -> pd.DataFrame:
        """Return the rows of `Runs.runs` of a set, by seed."""
        own = usable(self.runs)
        return own[own["stage"] == cell].sort_values("seed")

    def run_ids(self, cell: str) -> list[str]:
        """Return the runs of a set, by seed."""
        return [str(run) for run in self.of(cell)["run_id"]]

    def batch(self, cell: str) -> int:
        """Return the batch size of a set."""
        return int(self.of(cell)["batch_size"].iloc[0])

    def alone(self, cell: str) -> Runs:
        """Return the runs of a set alone."""
        return keep(self.runs, self.run_ids(cell))

    def curve(self, cell: str, quantity: str, detail: str = "") -> Curve | None:
        """Return a number of the final states of a set; None where not all of its seeds have it at some look.

        Args:
            cell: the set.
            quantity, detail: of the rows of activations.
        """
        rows = self.runs.values(quantity, ACTIVATION, FINAL, detail=detail)
        rows = rows[rows["run_id"].isin(self.of(cell)["run_id"])]
        wide = rows.pivot_table(index="tokens", columns="seed", values="value").sort_index().dropna()
        if wide.empty or wide.shape[1] < len(self.of(cell)):
            return None
        return Curve(wide.index.to_numpy(float), wide.to_numpy(float).T, tuple(map(int, wide.columns)))

    def alike(self, name: str) -> list[list[str]]:
        """Return groups of two or more sets that differ in one setting alone, by its value.

        Under a constant rate the length of a run changes nothing before its end: where no two sets of one length
        differ in the setting, the longest of each value are a group.
        """
        known = {cell: own for cell, own in self.settings.items() if getattr(own, name) is not None}
        exact = _groups({cell: own.without(name) for cell, own in known.items()})
        constant = {cell: own for cell, own in known.items() if own.warmdown == 0}
        found = [self._by_value(cells, name) for cells in exact]
        found = [cells for cells in found if len(cells) > 1]
        for cells in _groups({cell: own.without(name, "steps") for cell, own in constant.items()}):
            values = {getattr(known[cell], name) for cell in cells}
            if len(values) > 1 and not any(
                values <= {getattr(known[cell], name) for cell in own}
                for own in found
                if set(own) <= set(cells)
            ):
                found.append(self._by_value(cells, name))
        return [own for own in found if not any(set(own) < set(other) for other in found)]

    def differing(self, first: str, second: str) -> int:
        """Return in how many settings two sets differ."""
        return sum(
            a != b for a, b in zip(*(astuple(self.settings[cell]) for cell in (first, second)), strict=True)
        )

    def _by_value(self, cells: Sequence[str], name: str) -> list[str]:
        """Return the longest set of each value of a setting, the values rising."""
        chosen: dict[Any, str] = {}
        for cell in sorted(cells, key=lambda own: self.settings[own].steps or 0):
            chosen[getattr(self.settings[cell], name)] = cell
        return [chosen[value] for value in sorted(chosen)]


def _groups(keys: Mapping[str, Setting]) -> list[list[str]]:
    """Return the names with equal keys."""
    groups: dict[Setting, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def phase_data(
    folders: Sequence[RunFolder], where: str, notes: Sequence[str] = (), texts: Sequence[Path] = ()
) -> PhaseData:
    """Return the geometry of states of complete runs.

    Args:
        folders: of runs, complete or not.
        where: the folders that they come from, for messages.
        notes: what is known of them already.
        texts: folders of token shards, of which nulls are recognised.

    Raises:
        MeasureError: no complete run with RankMe of its final states, runs of one set that differ in more than their
            seed, or two runs of one seed.
    """
    found: list[tuple[str, RunFolder, Runs]] = []
    left_out, seen = [], {}
    running = [folder.path.name for folder in folders if not folder.done]
    for folder in folders:
        if not folder.done:
            continue
        key = canonical_hash(folder.spec), str(folder.identity().get("measure"))
        if key in seen:
            left_out.append(f"{folder.path.name} (the same run as {seen[key]})")
            continue
        runs = read_runs([folder])
        rows = runs.values("rankme", ACTIVATION, FINAL)
        if not (rows["tokens"] > 0).any():
            left_out.append(f"{folder.path.name} (RankMe of its final states was not measured)")
        elif runs.runs["ended"].isin(["diverged", "pruned"]).any():
            left_out.append(f"{folder.path.name} ({runs.runs['ended'].iloc[0]})")
        else:
            seen[key] = folder.path.name
            found.append((folder.path.name, folder, runs))
    if not found:
        told = left_out + [f"{name} (not complete)" for name in running]
        raise MeasureError(
            f"{where} has no complete run with the geometry of states over training"
            f"{': ' + '; '.join(told[:3]) if told else ''}; {REMEDY}"
        )
    notes = [*notes, *([f"Left out: {'; '.join(left_out)}."] if left_out else [])]
    if running:
        notes.append(f"Not complete, and left out: {', '.join(running)}.")
    return _sets(_names_apart(found), notes, null_texts(texts))


def _names_apart(found: list[tuple[str, RunFolder, Runs]]) -> list[tuple[str, RunFolder, Runs]]:
    """Return runs with different names: runs on two texts may have folders of one name."""
    counts = Counter(name for name, _, _ in found)
    return [
        (name if counts[name] == 1 else f"{folder.path.parent.name}/{name}", folder, runs)
        for name, folder, runs in found
    ]


def _sets(
    found: list[tuple[str, RunFolder, Runs]], notes: Sequence[str], nulls: Mapping[frozenset[str], str]
) -> PhaseData:
    names = [name for name, _, _ in found]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise MeasureError(f"two runs are named {double}; rename one of their folders")
    settings = {name: setting_of(folder, nulls) for name, folder, _ in found}
    cells = set_names(settings)
    _check(pd.DataFrame({"run": names, "cell": [cells[n] for n in names]}), found)
    parts = {"runs": [], "rows": [], "spectra": []}
    for name, _, runs in found:
        for table, own in parts.items():
            own.append(getattr(runs, table).assign(run_id=name, stage=cells[name]))
    first = found[0][2]
    tables = {name: pd.concat(own, ignore_index=True) for name, own in parts.items()}
    joined = replace(
        first, **tables, configs={name: runs.configs[folder.path.name] for name, folder, runs in found}
    )
    double = joined.runs[joined.runs.duplicated(["stage", "seed"], keep=False)]
    if len(double):
        raise MeasureError(
            f"{' and '.join(double['run_id'][:2])} are runs of {double['stage'].iloc[0]} and seed "
            f"{double['seed'].iloc[0]}; move one of them to another folder"
        )
    trained_on = {own.text for own in settings.values() if own.kind == LANGUAGE}
    if len(trained_on) > 1 and not nulls:
        notes = [
            *notes,
            f"The sets were trained on {len(trained_on)} texts; name their folders with --texts, so that null texts "
            "are known as such.",
        ]
    order = {cells[name]: settings[name] for name in names}
    return PhaseData(joined, order, {name: folder for name, folder, _ in found}, tuple(notes))


def _check(runs: pd.DataFrame, found: list[tuple[str, RunFolder, Runs]]) -> None:
    """Refuse runs of one set that were not made, or not measured, alike."""
    check_alike(runs, {name: folder.spec for name, folder, _ in found})
    measures = {name: folder.identity().get("measure") for name, folder, _ in found}
    for cell, own in runs.groupby("cell", sort=False):
        first = own["run"].iloc[0]
        for other in own["run"].iloc[1:]:
            if measures[other] != measures[first]:
                raise MeasureError(
                    f"{first} and {other} are both of {cell}, and were measured differently; measure them alike "
                    "(speclens measure), or move one of them to another folder"
                )
