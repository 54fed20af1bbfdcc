"""Runs of language models as data of the figures: what they are, and what of the toy's they do not allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims.analysis.cells import keep
from sims.analysis.runs import Runs
from sims.pages.number import counted, verb
from sims.runs.layout import TEXT
from sims.runs.store import RunFolder
from sims.runs.tiers import TIERS
from sims.system.errors import StoreError

BANDS = (
    "concentration is read on probe bands, whose state at each position is known, and text has no such state"
)


@dataclass(frozen=True)
class Language:
    """What the language models of a folder are.

    Attributes:
        model: their size, vocabulary and length, in words.
        tokens: tokens a step, by batch size in sequences.
        by_token: whether some activation spectrum has a sample a token.
        unmeasured: runs of which nothing but losses was measured, beside others that were; they are left out.
        differing: fields in which the runs differ beside the cells of the analysis.
    """

    model: str
    tokens: Mapping[int, tuple[int, ...]]
    by_token: bool
    unmeasured: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def batches(self) -> str:
        """Return every batch size in words: "B = 16 (2,048 tokens a step)"."""
        return ", ".join(
            f"B = {size} ({' or '.join(f'{t:,}' for t in tokens)} tokens a step)"
            for size, tokens in self.tokens.items()
        )

    @property
    def warnings(self) -> list[str]:
        """Return what a reader must know before believing the numbers."""
        found = []
        if left := len(self.unmeasured):
            found.append(
                f"{counted(left, 'run')} {verb(left, 'has', 'have')} losses alone and {verb(left)} left out, for "
                f"instance {self.unmeasured[0]}; `speclens measure --data` measures their checkpoints."
            )
        if self.differing:
            found.append(
                "The runs differ in more than stage, batch size, learning rate and seed: "
                f"{', '.join(self.differing)}. Losses of different texts or vocabularies are not comparable."
            )
        if self.by_token:
            found.append(
                "The samples of the activation spectra are tokens, which are not independent within a sequence; nulls "
                "and sampling floors count them as if they were: what chance alone does is more than they say."
            )
        return found


def language(folders: Sequence[RunFolder], runs: Runs, out: Path) -> Language | None:
    """Describe the language models among complete runs; None of toy runs.

    Args:
        folders: of the runs.
        runs: what was read of them.
        out: where they lie.

    Raises:
        StoreError: toy runs beside language models, or models of several sizes.
    """
    found = [f.identity() for f in folders]
    trained = [data["train"] for data in found if data.get("kind") == TEXT]
    if not trained:
        return None
    if len(trained) < len(found):
        raise StoreError(
            f"{out} holds {len(found) - len(trained)} toy runs and {len(trained)} runs of language models, and a page "
            "is about one kind: move each into a folder of its own; `speclens carry-over TOY LM` sets them side "
            "by side"
        )
    sizes = sorted({_size(train) for train in trained})
    if len(sizes) > 1:
        raise StoreError(
            f"{out} holds language models of {len(sizes)} sizes ({'; '.join(sizes)}), and a figure compares runs of "
            "one: move each size into a folder of its own, and name that with --runs"
        )
    measured = set(measured_runs(runs))
    tokens: dict[int, set[int]] = {}
    for train in trained:
        tokens.setdefault(train["batch_size"], set()).add(train["tokens_per_step"])
    return Language(
        _described(trained, sizes[0]),
        {size: tuple(sorted(tokens[size])) for size in sorted(tokens)},
        any(data["measure"].get("pooling") == "token" for data in found),
        tuple(r for r in runs.runs["run_id"] if r not in measured) if measured else (),
        runs.differing,
    )


def measured_runs(runs: Runs) -> list[str]:
    """Return the runs of which more than losses was measured."""
    return list(runs.rows.loc[runs.rows["object"] != "loss", "run_id"].unique())


def without_unmeasured(runs: Runs) -> Runs:
    """Keep only the measured runs, where any was measured: the others have no measured loss."""
    measured = measured_runs(runs)
    return keep(runs, measured) if measured else runs


def _size(train: Mapping[str, Any]) -> str:
    """Return the size in words; a trained run names its tier, a measured checkpoint its sizes."""
    model = train.get("model", {})
    tier = TIERS.get(train.get("tier", ""))
    layers, width = (tier.layers, tier.width) if tier else (model.get("layers"), model.get("width"))
    return f"{layers} blocks, {width} wide" if layers and width else "size not recorded"


def _described(trained: Sequence[Mapping[str, Any]], size: str) -> str:
    """Return the size, and of tier, vocabulary and length what all runs have in common."""
    known = {
        "tier {}": {t.get("tier") for t in trained},
        "{}": {size},
        "vocabulary {:,}": {t.get("vocabulary", t.get("model", {}).get("vocabulary")) for t in trained},
        "sequences of {:,} tokens": {t["tokens_per_step"] // t["batch_size"] for t in trained},
    }
    return ", ".join(
        name.format(*values) for name, values in known.items() if len(values) == 1 and None not in values
    )
