"""Label phases once: what was labelled is kept beside the page, and read at the next call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from sims.analysis import geometry, intervals, phases, resampling, segmentation
from sims.analysis.geometry import Phase, Phases, label_phases
from sims.measure.cache import Tables, cached
from sims.system.hashing import sha256
from theory import decision

VERSION = 1
# What labels depend on.
RULES = (geometry, segmentation, phases, resampling, intervals, decision)
Labels = Callable[..., Phases]


@dataclass(frozen=True)
class StoredLabels:
    """Label phases as `label_phases`, from what is kept in a folder where the same curves were labelled before.

    Attributes:
        store: the folder.
    """

    store: Path

    def __call__(
        self,
        tokens: np.ndarray,
        rankme: np.ndarray,
        alpha: np.ndarray | None = None,
        **settings: float,
    ) -> Phases:
        """Return the phases; arguments as of `label_phases`."""

        def labelled() -> Tables:
            found = asdict(label_phases(tokens, rankme, alpha, **settings))  # pyright: ignore[reportArgumentType]
            return {"phases": list(found.pop("phases")), "word": [found]}

        curves = [_digest(own) for own in (tokens, rankme, alpha)]
        found = cached(self.store, "phases", VERSION, [_rules(), curves, settings], labelled)
        (word,) = found["word"]
        return Phases(**{**word, "phases": tuple(Phase(**own) for own in found["phases"])})


def _digest(values: np.ndarray | None) -> str:
    if values is None:
        return ""
    own = np.ascontiguousarray(values, float)
    return hashlib.sha256(repr(own.shape).encode() + own.tobytes()).hexdigest()


@lru_cache(maxsize=1)
def _rules() -> list[str]:
    """Return the digests of the rules: labels of other ones are made again."""
    return [sha256(Path(str(module.__file__))) for module in RULES]
