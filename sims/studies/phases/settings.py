"""Describe the runs of a set by what tells them from those of another, and name the sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

from sims.analysis.origins import provenance_of
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmRun
from sims.runs.spec import RunSpec
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError
from sims.system.files import read_object
from sims.text.making import MANIFEST
from toymodel.config import RunConfig, as_dict
from toymodel.stages import CHAIN
from toymodel.tasks import ModularWalks

TOY, LANGUAGE, CHECKPOINTS = "toy", "language model", "checkpoints"

# What other settings tell, what does not change the training, and what depends on the width by construction: of the
# run, its model and its task.
TOLD = {
    "stage", "batch_size", "lr", "steps", "warmup", "warmdown", "vocabulary", "data", "logit_bias", "tier", "seed",
    "name", "checkpoints", "eval_every", "eval_tokens", "eval_size",
}  # fmt: skip
TOLD_OF = {
    "model": {"d_model", "width", "layers", "vocabulary", "logit_bias", "parameters", "samples", "id"},
    "task": {"vocab", "seed"},
}


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
        rest: digest of all else that was chosen for the run, but for its seed and what is evaluated or stored.
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
    rest: str = ""

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


def setting_of(folder: RunFolder, nulls: Mapping[frozenset[str], str] | None = None) -> Setting:
    """Return what tells the runs of one set from those of another.

    Args:
        folder: of one of them.
        nulls: of `null_texts`.
    """
    spec, measure = folder.spec, folder.identity().get("measure") or {}
    common: dict[str, Any] = {
        "stage": spec.stage, "batch": spec.batch_size, "lr": spec.lr, "steps": spec.steps,
        "pooling": measure.get("pooling", ""), "rest": _rest(spec),
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
    bias = bool(model.get("logit_bias", False))
    return Setting(CHECKPOINTS, text=getattr(spec, "data", ""), bias=bias, **sizes, **common)


def _rest(spec: RunSpec) -> str:
    """Return a digest of what no other setting tells."""
    values = {name: value for name, value in as_dict(spec).items() if name not in TOLD}
    for name, told in TOLD_OF.items():
        values[name] = {key: value for key, value in values.get(name, {}).items() if key not in told}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _shards(folder: RunFolder) -> frozenset[str]:
    """Return the digests of the shards that a run was trained on."""
    return frozenset(str(shard.get("sha256")) for shard in provenance_of(folder).get("shards") or ())


def set_names(settings: Mapping[str, Setting]) -> dict[str, str]:
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
        # Runs that differ in the rest alone are of one set, which is refused with what they differ in.
        place = places.setdefault(astuple(settings[run].without("rest")), len(places))
        found[run] = name if place == 0 else f"{name} ({place + 1})"
    return found
