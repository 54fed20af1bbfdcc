"""Draw the cases of a domain, determined by the seed only."""

from __future__ import annotations

import math
import random
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.errors import HypothesisWarning
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, PrimitiveProvider

from theory.claim import Domain

# Slow or rare draws are part of a domain and are counted; hypothesis need not warn about them.
ALL_HEALTH_CHECKS = [
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
    HealthCheck.nested_given,
]

BACKEND = "theory"
# Share of numbers that are a bound or 0 on purpose: uniform draws would miss the cases where wrong formulas show.
EDGE_SHARE = 0.1
# Draws that are made if need be, so that a domain of a few cases yields all of them with any seed.
FEWEST_DRAWS = 60
# Size of numbers without bounds, and length of text and bytes.
WIDEST, LONGEST = 2**31, 20

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Drawn:
    """Hold the distinct cases that met every assumption, the number of draws, and how often each assumption failed.

    >>> Drawn(({"x": 1},), draws=3, unmet={"x > 0": 2}).draws
    3
    """

    cases: tuple[dict[str, Any], ...]
    draws: int
    unmet: Mapping[str, int]


class SeededProvider(PrimitiveProvider):
    """Draw the values of a case from one random generator.

    The provider of hypothesis also draws constants of the source code that is loaded, so that its cases differ between
    processes. The interface is that of alternative backends in the documentation of hypothesis. Numbers are uniform but
    for the edges (bounds, and 0 between them), and finite; without a bound they lie within WIDEST of 0 or of the other
    bound.

    >>> 0 <= SeededProvider(None).draw_integer(0, 9) <= 9
    True
    """

    lifetime = "test_function"
    seed: ClassVar[int] = 0

    def __init__(self, conjecturedata: Any, /) -> None:
        super().__init__(conjecturedata)
        self._random = random.Random(self.seed)

    def draw_boolean(self, p: float = 0.5) -> bool:
        """Return True with probability p."""
        return self._random.random() < p

    def draw_integer(
        self,
        min_value: int | None = None,
        max_value: int | None = None,
        *,
        weights: dict[int, float] | None = None,
        shrink_towards: int = 0,
    ) -> int:
        """Draw an integer between the bounds."""
        low = min_value if min_value is not None else min(max_value or 0, 0) - WIDEST
        high = max_value if max_value is not None else max(min_value or 0, 0) + WIDEST
        edge = self._edge([low, high, 0], low, high)
        return self._random.randint(low, high) if edge is None else edge

    def draw_float(
        self,
        *,
        min_value: float = -math.inf,
        max_value: float = math.inf,
        allow_nan: bool = True,
        smallest_nonzero_magnitude: float,
    ) -> float:
        """Draw a finite float between the bounds."""
        low = min_value if math.isfinite(min_value) else min(max_value, 0.0) - WIDEST
        high = max_value if math.isfinite(max_value) else max(min_value, 0.0) + WIDEST
        edge = self._edge([low, high, 0.0], low, high)
        # Rounding may leave the bounds by one ulp, and subnormal numbers may be excluded.
        value = min(max(self._random.uniform(low, high), low), high) if edge is None else edge
        return 0.0 if abs(value) < smallest_nonzero_magnitude else value

    def draw_string(self, intervals: Any, *, min_size: int = 0, max_size: int = LONGEST) -> str:
        """Draw text from the allowed code points."""
        size = self._random.randint(min_size, min(max_size, min_size + LONGEST)) if len(intervals) else 0
        return "".join(chr(intervals[self._random.randrange(len(intervals))]) for _ in range(size))

    def draw_bytes(self, min_size: int = 0, max_size: int = LONGEST) -> bytes:
        """Draw bytes."""
        return self._random.randbytes(self._random.randint(min_size, min(max_size, min_size + LONGEST)))

    def _edge(self, edges: Sequence[_Number], low: _Number, high: _Number) -> _Number | None:
        """Return one of the edges within the bounds in a share of the draws, otherwise None."""
        if self._random.random() >= EDGE_SHARE:
            return None
        return self._random.choice([edge for edge in edges if low <= edge <= high])


class _Enough(Exception):
    """End the run of hypothesis once there are enough cases."""


def draw_cases(domain: Domain, count: int, generator_seed: int, oversampling: int = 6) -> Drawn:
    """Draw up to ``count`` distinct cases that meet the assumptions of a domain.

    At most ``oversampling·count`` draws are made (or FEWEST_DRAWS, if that is more), so that an
    unsatisfiable domain ends with few or no cases. Bounds, and 0 between them, are drawn more often than by chance. A
    seed fixes the cases for one version of hypothesis; keep a counterexample by its printed case, not by its seed.

    >>> from theory import select
    >>> len(draw_cases(select("T7.scale")[0].domain, 5, generator_seed=0).cases)
    5
    """
    cases: dict[str, dict[str, Any]] = {}
    unmet: Counter[str] = Counter()
    draws = 0
    AVAILABLE_PROVIDERS[BACKEND] = type("Seeded", (SeededProvider,), {"seed": generator_seed})

    @seed(generator_seed)
    @settings(
        max_examples=max(FEWEST_DRAWS, oversampling * count),
        backend=BACKEND,
        phases=[Phase.generate],
        database=None,
        derandomize=False,
        deadline=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=ALL_HEALTH_CHECKS,
    )
    @given(domain.strategy)
    def collect(case: dict[str, Any]) -> None:
        nonlocal draws
        if len(cases) >= count:
            raise _Enough
        draws += 1
        broken = domain.unmet(case)
        if broken is not None:
            unmet[broken] += 1
        else:
            cases.setdefault(repr(sorted(case.items())), case)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)
        with suppress(_Enough):
            collect()
    return Drawn(tuple(cases.values()), draws, dict(unmet))
