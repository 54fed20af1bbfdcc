"""Names of the scores by which zeros are shared, and of their controls. Loads without torch."""

from __future__ import annotations

from sims.system.errors import MeasureError
from toymodel import rates
from toymodel.rates import REVERSED, SCORES, SHUFFLED, UNIFORM

SENSITIVITY, DEPTH, DEPTH_SHUFFLED = "sensitivity", "depth", "depth-shuffled-"
# Controls that are drawn several times.
DRAWN = (SHUFFLED, DEPTH_SHUFFLED)
# Of a score that is not uniform there are controls.
BASES = (*SCORES, SENSITIVITY)
NAMES = (
    UNIFORM,
    *BASES,
    *(REVERSED + name for name in BASES),
    *(SHUFFLED + name for name in BASES),
    # Depth has no other arrangement with the relation to depth that it has.
    *(DEPTH_SHUFFLED + name for name in BASES if name != DEPTH),
)


def base_of(name: str) -> str:
    """Return the score that a control is made from; other scores are their own.

    >>> base_of("shuffled-farms-z"), base_of("depth-shuffled-alpha"), base_of("depth")
    ('farms-z', 'alpha', 'depth')

    Raises:
        MeasureError: an unknown score.
    """
    if name not in NAMES:
        raise MeasureError(
            f"no score {name!r}; scores are {UNIFORM}, {', '.join(BASES)}, {REVERSED}NAME and {SHUFFLED}NAME of all "
            f"but {UNIFORM}, and {DEPTH_SHUFFLED}NAME of all but {UNIFORM} and {DEPTH}"
        )
    return rates.base_of(name.removeprefix(DEPTH_SHUFFLED))


def is_drawn(name: str) -> bool:
    """Return whether a score is a control that is drawn several times.

    >>> is_drawn("depth-shuffled-farms"), is_drawn("reversed-farms")
    (True, False)
    """
    return name.startswith(DRAWN)
