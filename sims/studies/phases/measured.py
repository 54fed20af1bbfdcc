"""Read the geometry of states of runs, and put runs that are alike but for their seed into sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sims.analysis.cells import keep, usable
from sims.analysis.origins import provenance_of
from sims.analysis.runs import Runs, read_runs
from sims.measure.geometry import ACTIVATION
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmRun
from sims.runs.store import RunFolder
from sims.studies.stored import check_alike
from sims.system.errors import MeasureError
from sims.system.files import read_object
from sims.text.making import MANIFEST
from toymodel.config import RunConfig, canonical_hash
from toymodel.stages import CHAIN
from toymodel.tasks import ModularWalks
from toymodel.transformer import FINAL

TOY, LANGUAGE, CHECKPOINTS = "toy", "language model", "checkpoints"
REMEDY = (
    "train with --measure.geometry --measure.schedules activations=100+12/decade (language models: --measure "
    "--measuring.geometry --measuring.pooling last --looks 40), or name a folder of checkpoints and a text with --data"
)


@dataclass(frozen=True)
class Setting:
    """Describe the runs of one set; what is not known is None.

    Attributes:
        kind: toy, language model, or checkpoints (of somebody else).
        stage, layers, width, batch, lr, steps: of the run.
        vocabulary: of the task or the text.
        warmup, warmdown: steps in which the learning rate rises and falls.
        text: task of the toy; the digest of the text of a language model.
        null: which null the text is ("shuffled text"); empty for none.
        bias: whether the logits have a learned bias.
        pooling, states: the samples of a spectrum, and their number.
    """

    kind: str
    stage: str
    layers: int | None = None
    width: int | None = None
    vocabulary: int | None = None
    batch: int | None = None
    lr: float | None = None
    steps: int | None = None
    warmup: int | None = None
    warmdown: int | None = None
    text: str = ""
    null: str = ""
    bias: bool | None = None
    pooling: str = ""
    states: int | None = None

    @property
    def is_null(self) -> bool:
        """Return whether no third phase is expected: a text without its order, or no bottleneck."""
        return bool(self.null) or self.is_wide

    @property
    def is_wide(self) -> bool:
        """Return whether the states have as many directions as there are tokens."""
        return self.width is not None and self.vocabulary is not None and self.width >= self.vocabulary

    @property
    def place(self) -> tuple[Any, ...]:
        """Return a key that sorts settings: nulls last, stages in the order of the chain."""
        stages = list(CHAIN)
        order = stages.index(self.stage) if self.stage in stages else len(stages)
        numbers = (self.layers, self.width, self.batch, self.lr, self.warmup, self.steps)
        return self.is_null, self.kind, order, self.stage, *(value or 0 for value in numbers), bool(self.bias)

    def without(self, *names: str) -> Setting:
        """Return the setting with some values left open, to find runs that differ in them alone."""
        blank = {f.name: f.default for f in fields(self)}
        return replace(self, **{name: blank[name] for name in names})


# How a setting is named where several occur.
WORDS: Mapping[str, str] = {
    "layers": "L {}", "width": "d {}", "batch": "batch {}", "lr": "lr {:g}", "steps": "{} steps",
    "warmup": "warm-up {}", "warmdown": "warm-down {}", "pooling": "{} states", "states": "{} states",
    "vocabulary": "V {}",
}  # fmt: skip


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

    def alike(self, *but: str) -> list[list[str]]:
        """Return groups of two or more sets that differ in some settings alone."""
        groups: dict[Setting, list[str]] = {}
        for cell, setting in self.settings.items():
            groups.setdefault(setting.without(*but), []).append(cell)
        return [own for own in groups.values() if len(own) > 1]


def null_texts(folders: Sequence[Path]) -> dict[frozenset[str], str]:
    """Return which null each of some texts is, by the digests of its shards; empty for a text that is none.

    Args:
        folders: of token shards, with their data.json.

    Raises:
        MeasureError: a folder without a record of its shards.
    """
    found = {}
    for folder in folders:
        file = folder / MANIFEST
        if not file.is_file():
            raise MeasureError(f"{folder} has no {MANIFEST}; --texts takes folders of speclens data")
        record = read_object(file)
        shards = frozenset(str(shard.get("sha256")) for shard in record.get("shards", ()))
        found[shards] = f"{record['null']['kind']} text" if record.get("null") else ""
    return found


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
    cells = _named(settings)
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


def setting_of(folder: RunFolder, nulls: Mapping[frozenset[str], str] | None = None) -> Setting:
    """Return what tells the runs of one set from those of another.

    Args:
        folder: of one of them.
        nulls: of `null_texts`.
    """
    spec, measure = folder.spec, folder.identity().get("measure") or {}
    common: dict[str, Any] = {
        "stage": spec.stage, "batch": spec.batch_size, "lr": spec.lr, "steps": spec.steps,
        "pooling": measure.get("pooling", ""),
    }  # fmt: skip
    if isinstance(spec, RunConfig):
        task = spec.task
        return Setting(
            TOY, layers=spec.model.layers, width=spec.model.d_model, vocabulary=task.vocab, warmup=0, warmdown=0,
            text="" if isinstance(task, ModularWalks) else task.kind, states=measure.get("sequences"), bias=False,
            **common,
        )  # fmt: skip
    states = measure.get("tokens", 0) // max(measure.get("length", 1), 1)
    common["states"] = states if common["pooling"] != "token" else measure.get("tokens")
    if isinstance(spec, LmConfig):
        return Setting(
            LANGUAGE, layers=spec.shape.layers, width=spec.sizes.d, vocabulary=spec.vocabulary,
            warmup=round(spec.warmup * spec.steps), warmdown=round(spec.warmdown * spec.steps), text=spec.data,
            null=(nulls or {}).get(_shards(folder), ""), bias=spec.logit_bias, **common,
        )  # fmt: skip
    model = spec.model if isinstance(spec, LmRun) else {}
    sizes = {name: model.get(name) for name in ("layers", "width", "vocabulary")}
    return Setting(CHECKPOINTS, text=getattr(spec, "data", ""), **sizes, **common)


def _shards(folder: RunFolder) -> frozenset[str]:
    """Return the digests of the shards that a run was trained on."""
    return frozenset(str(shard.get("sha256")) for shard in provenance_of(folder).get("shards") or ())


def _named(settings: Mapping[str, Setting]) -> dict[str, str]:
    """Return the name of the set of each run: stage, and the settings in which several sets of it differ."""
    kinds = {own.kind for own in settings.values()}
    texts = {own.text for own in settings.values() if own.kind != TOY and not own.null}
    names = {}
    for run, own in settings.items():
        same = [other for other in settings.values() if (other.kind, other.stage) == (own.kind, own.stage)]
        parts = [own.stage if len(kinds) == 1 or own.kind == CHECKPOINTS else f"{own.kind} {own.stage}"]
        for name, word in WORDS.items():
            value = getattr(own, name)
            if value is not None and len({getattr(other, name) for other in same}) > 1:
                parts.append(word.format(value))
        if own.bias:
            parts.append("bias on logits")
        if own.null:
            parts.append(own.null)
        elif own.kind == TOY:
            parts += [own.text] if own.text else []
        elif len(texts) > 1:
            parts.append(f"text {own.text[:6]}")
        names[run] = ", ".join(parts)
    return _distinct_names(names, settings)


def _distinct_names(names: dict[str, str], settings: Mapping[str, Setting]) -> dict[str, str]:
    """Return names of which each belongs to one setting."""
    owners: dict[str, dict[tuple[Any, ...], int]] = {}
    found = {}
    for run, name in names.items():
        places = owners.setdefault(name, {})
        place = places.setdefault(astuple(settings[run]), len(places))
        found[run] = name if place == 0 else f"{name} ({place + 1})"
    return found
