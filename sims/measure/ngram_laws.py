"""The laws of n-grams of a training text at held-out positions: counted once, and kept beside the shards."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sims.runs.lm_measure_config import NGRAM_CONTEXT, positions_in
from sims.text.continuations import INFINITE, ORDERS, Continuations, Counts
from sims.text.shards import read_shard

if TYPE_CHECKING:
    from sims.measure.cache import Record, Tables

TRIGRAM = 3
assert max(ORDERS) == NGRAM_CONTEXT + 1
POSITIONS_STREAM = 23
CACHE_NAME, CACHE_VERSION = "ngrams", 1
# Upper ends of the table of lengths; what is longer is its last row.
SHORT, LONG = 3, 8


@dataclass(frozen=True, eq=False)
class Positions:
    """Hold held-out positions: the token at one of them is the last of a context, the one after it is predicted.

    Attributes:
        rows: (N,) sequence of each position, rising.
        places: (N,) its place in the sequence, from 0.
        contexts: (N, T) tokens of its sequence; those after its place are not used.
        next: (N,) the token after it.
    """

    rows: np.ndarray
    places: np.ndarray
    contexts: np.ndarray
    next: np.ndarray

    @property
    def last(self) -> np.ndarray:
        """Return the last tokens (N,) of the contexts."""
        return self.contexts[np.arange(len(self.places)), self.places]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all of it."""
        parts = (np.ascontiguousarray(a, "<i8") for a in (self.rows, self.places, self.contexts, self.next))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def draw_positions(sequences: int, length: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw positions without replacement from sequences of equal length.

    Returns:
        rows and places (count,), in the order of the sequences; they depend on the arguments only.
    """
    each = positions_in(length)
    stream = np.random.SeedSequence(seed, spawn_key=(POSITIONS_STREAM,))
    drawn = np.random.default_rng(stream).choice(sequences * each, count, replace=False, shuffle=False)
    rows, places = np.divmod(np.sort(drawn), each)
    return rows, places + NGRAM_CONTEXT - 1


@dataclass(frozen=True)
class Training:
    """Name a training text whose n-grams are counted.

    Attributes:
        shards: its files; they are one text, in their order.
        vocabulary: V; every token is below it.
        end: token that begins every document; None does not keep documents apart.
    """

    shards: tuple[Path, ...]
    vocabulary: int
    end: int | None


@dataclass(frozen=True, eq=False)
class NgramLaws:
    """Hold the laws p_n of the next token at held-out positions, from counts c(context·w)/c(context).

    The context of p_n is the n − 1 tokens before w, fewer where a document begins after its first; that of p_∞ the
    longest that occurs in the text. Nothing is smoothed: a context that does not occur has no law.

    Attributes:
        orders: chance of the token that came, (N,) by n; NaN where the context does not occur.
        lengths: (N,) tokens of the context of p_∞.
        trigram: (N,) whether the likeliest token of p_3 came.
        longer: (N,) whether it did not, and the likeliest of p_∞ came.
        unigram: (V,) p_1.
        commonest: its likeliest token.
        followers, chances: tokens, and p_2 of them, by the last token of a context.
    """

    orders: dict[int, np.ndarray]
    lengths: np.ndarray
    trigram: np.ndarray
    longer: np.ndarray
    unigram: np.ndarray
    commonest: int
    followers: dict[int, np.ndarray]
    chances: dict[int, np.ndarray]

    def length_shares(self) -> dict[str, float]:
        """Return the share of positions by the length of the context of p_∞: "≤3", "4", …, "8", ">8"."""
        return length_shares(self.lengths)


def length_shares(lengths: np.ndarray) -> dict[str, float]:
    """Return the share of lengths (N,) up to 3, of each up to 8, and above.

    >>> length_shares(np.array([0, 3, 5, 12]))
    {'≤3': 0.5, '4': 0.0, '5': 0.25, '6': 0.0, '7': 0.0, '8': 0.0, '>8': 0.25}
    """
    between = {str(k): float(np.mean(lengths == k)) for k in range(SHORT + 1, LONG + 1)}
    low, high = float(np.mean(lengths <= SHORT)), float(np.mean(lengths > LONG))
    return {f"≤{SHORT}": low, **between, f">{LONG}": high}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out positions with the laws of n-grams there."""

    positions: Positions
    laws: NgramLaws


def held_out(sequences: np.ndarray, rows: np.ndarray, places: np.ndarray, text: Training) -> HeldOut:
    """Return held-out positions with the laws of n-grams there; these are read where they were counted before.

    What is counted is kept beside the shards, in measured/, under a digest of the shards, the positions and the token
    that begins a document; where that folder cannot be written to, a warning says so.

    Args:
        sequences: (N, T+1) the sequence of each position.
        rows: (N,) their numbers.
        places: (N,) places in them.
        text: does not hold the positions.

    Raises:
        StoreError: a shard is missing, damaged or of another vocabulary.
    """
    from sims.measure.cache import cached, file_digest

    after = sequences[np.arange(len(places)), places + 1]
    positions = Positions(rows, places, sequences[:, :-1], after)
    source = {
        "shards": [file_digest(path) for path in text.shards],
        "positions": positions.digest,
        "orders": list(ORDERS),
        "end": text.end,
    }

    def count() -> Tables:
        tokens = _tokens(text)
        if text.end is not None and not (tokens == text.end).any():
            warnings.warn(
                f"{text.shards[0].parent}: the training shards do not hold token {text.end}, which begins a document; "
                "documents are not kept apart",
                stacklevel=2,
            )
        return counted(Continuations.of(tokens, text.end), positions)

    tables = cached(text.shards[0].parent, CACHE_NAME, CACHE_VERSION, source, count)
    if max(record["token"] for record in tables["tokens"]) >= text.vocabulary:
        # Counted for a model of more tokens: reading refuses what it refuses before a count.
        _tokens(text)
    return HeldOut(positions, _laws(tables, text.vocabulary))


def _tokens(text: Training) -> np.ndarray:
    """Return the tokens of all shards."""
    return np.concatenate([read_shard(path, text.vocabulary) for path in text.shards])


def counted(text: Continuations, positions: Positions) -> Tables:
    """Count what followed the contexts of positions.

    Returns:
        "positions": a record a position: length, trigram, longer, and "p1", "p2", … by order; "tokens": records of
        token, count of the whole text; "followers": a record for each last token of a context: token, next, count
        (lists).
    """
    records = []
    follow: dict[int, Counts] = {}
    for row, place, token in zip(positions.contexts, positions.places, positions.next, strict=True):
        context = text.within_document(row[: place + 1])
        last = int(context[-1])
        if last not in follow:
            follow[last] = text.after(context[-1:])
        records.append(_position(text, context, int(token), follow[last]))
    whole = text.after([])
    return {
        "positions": records,
        "tokens": [
            {"token": int(t), "count": int(c)} for t, c in zip(whole.tokens, whole.counts, strict=True)
        ],
        "followers": [
            {"token": last, "next": own.tokens.tolist(), "count": own.counts.tolist()}
            for last, own in follow.items()
        ],
    }


def _position(text: Continuations, context: np.ndarray, token: int, follow: Counts) -> Record:
    """Return the record of one position but for p_1, which is that of the text."""
    laws = {2: follow}
    for n in ORDERS:
        if n > 2:
            laws[n] = text.after(context[-(n - 1) :])
    length = text.longest(context)
    laws[INFINITE] = text.after(context[len(context) - length :])
    trigram = laws[TRIGRAM].likeliest == token
    chances = {f"p{n}": own.of(token) / own.total if own.total else np.nan for n, own in laws.items()}
    longer = not trigram and laws[INFINITE].likeliest == token
    return {"token": token, "length": length, "trigram": trigram, "longer": longer, **chances}


def _laws(tables: Tables, vocabulary: int) -> NgramLaws:
    own, tokens = tables["positions"], tables["tokens"]
    unigram = np.zeros(vocabulary)
    unigram[[r["token"] for r in tokens]] = [r["count"] for r in tokens]
    unigram /= unigram.sum()
    orders = {n: _column(own, f"p{n}") for n in ORDERS if n != 1}
    orders[1] = unigram[np.array([r["token"] for r in own], int)]
    followers = {r["token"]: np.array(r["next"], int) for r in tables["followers"]}
    counts = {r["token"]: np.array(r["count"], float) for r in tables["followers"]}
    return NgramLaws(
        {n: orders[n] for n in ORDERS},
        _column(own, "length").astype(int),
        _column(own, "trigram").astype(bool),
        _column(own, "longer").astype(bool),
        unigram,
        int(np.argmax(unigram)),
        followers,
        {last: own / max(own.sum(), 1) for last, own in counts.items()},
    )


def _column(records: Sequence[Record], name: str) -> np.ndarray:
    return np.array([record[name] for record in records], float)
