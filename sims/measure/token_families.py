"""Cyclic families of tokens: digits, numbers, weekdays, months, or any that the user names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sims.models.subject import Subject
from sims.runs.lm_measure_config import FAMILIES
from sims.system.errors import MeasureError

# In the order of the cycle, as they stand inside a text: words after a space.
PRESETS: dict[str, tuple[str, ...]] = {
    "digits": tuple(map(str, range(10))),
    "numbers": tuple(map(str, range(100))),
    "weekdays": (" Monday", " Tuesday", " Wednesday", " Thursday", " Friday", " Saturday", " Sunday"),
    "months": (
        *(" January", " February", " March", " April", " May", " June"),
        *(" July", " August", " September", " October", " November", " December"),
    ),
}
LEAST = 3

Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Family:
    """Name tokens that form a cycle.

    Args:
        name: of the family.
        tokens: indices in the vocabulary, in the order of the cycle.
    """

    name: str
    tokens: tuple[int, ...]


def read_families(given: Iterable[str]) -> tuple[str, ...]:
    """Return the given families with those in files written out.

    Args:
        given: presets, name=token,token,…, or files with one of these in each line.

    Raises:
        MeasureError: a file that cannot be read.
    """
    found: list[str] = []
    for item in given:
        if item in PRESETS or "=" in item:
            found.append(item)
            continue
        try:
            lines = Path(item).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise MeasureError(
                f"{item!r} is no family: presets are {', '.join(PRESETS)}, others are written name=token,token,… or "
                f"stand in a file, one a line ({error})"
            ) from error
        found += [line for line in lines if line.strip() and not line.startswith("#")]
    return tuple(found)


def families(given: Sequence[str], encode: Encode | None) -> tuple[Family, ...]:
    """Return families as tokens of a vocabulary.

    Args:
        given: presets, or name=token,token,…; spaces belong to a token (" Monday" is not "Monday").
        encode: the tokens of a text.

    Raises:
        MeasureError: no vocabulary, an unknown preset, fewer than three tokens, one that is no single token of the
            vocabulary, or one that occurs twice.
    """
    if given and encode is None:
        raise MeasureError(
            f"the families {', '.join(given)} need the vocabulary that the text was encoded with; pass it, or name no "
            "families"
        )
    return tuple(_family(item, encode) for item in given if encode is not None)


def _family(item: str, encode: Encode) -> Family:
    name, written, listed = item.partition("=")
    if not written and name not in PRESETS:
        raise MeasureError(
            f"no family is called {name!r}; presets are {', '.join(PRESETS)}, others are written name=token,token,…"
        )
    words = tuple(listed.split(",")) if written else PRESETS[name]
    if len(words) < LEAST or not name.strip():
        raise MeasureError(
            f"family {item!r} has {len(words)} tokens; a cycle has a name and at least {LEAST} tokens"
        )
    if parted := _parted(words, encode):
        raise MeasureError(
            f"{parted[0]!r} of family {name.strip()!r} is {parted[1]} tokens in this vocabulary; each member must be a "
            "single one (a word inside a text begins with its space): write it otherwise, or leave it out"
        )
    numbers = [int(encode(word)[0]) for word in words]
    if len(set(numbers)) < len(numbers):
        raise MeasureError(
            f"family {name.strip()!r} names a token twice; each stands for one place in the cycle"
        )
    return Family(name.strip(), tuple(numbers))


def _parted(words: Sequence[str], encode: Encode) -> tuple[str, int] | None:
    """Return the first word that is not a single token, and its number of tokens."""
    counts = ((word, len(encode(word))) for word in words)
    return next(((word, count) for word, count in counts if count != 1), None)


def default_families(encode: Encode, size: int, known: int) -> tuple[tuple[str, ...], str]:
    """Return the presets in a vocabulary.

    Args:
        encode: tokens of a text.
        size: tokens of that vocabulary.
        known: tokens of the model.

    Returns:
        Their names, and one line that names what was left out and why ("" for nothing).
    """
    if size > known:
        return (), (
            f"no families are measured: the vocabulary at hand has {size} tokens and the model {known}, so that it is "
            "not the model's; pass the model's own with --vocabulary"
        )
    found = {name: _parted(PRESETS[name], encode) for name in FAMILIES}
    kept = tuple(name for name, parted in found.items() if parted is None)
    lacking = [f"{name} ({p[0]!r} is {p[1]} tokens)" for name, p in found.items() if p is not None]
    if not lacking:
        return kept, ""
    left = f"measured are {', '.join(kept)}" if kept else "no families are measured"
    return kept, f"families that this vocabulary of {size} tokens lacks: {', '.join(lacking)}; {left}"


def check_families(subject: Subject, chosen: Sequence[Family]) -> None:
    """Raise an error for families that exceed a model's vocabulary.

    Raises:
        MeasureError: a token is not in the vocabulary.
    """
    size = len(subject.matrices["embed"])
    for family in chosen:
        if max(family.tokens) >= size:
            raise MeasureError(
                f"family {family.name!r} has token {max(family.tokens)} and the model a vocabulary of {size}; the text "
                "was encoded for another model"
            )
