"""Names of the scores by which zeros are shared, and of their controls. Loads without torch."""

from __future__ import annotations

from sims.system.errors import MeasureError
from toymodel import rates
from toymodel.rates import REVERSED, SCORES, SHUFFLED, UNIFORM

SENSITIVITY = "sensitivity"
# Of a score that is not uniform there are controls.
BASES = (*SCORES, SENSITIVITY)
NAMES = (UNIFORM, *BASES, *(REVERSED + name for name in BASES), *(SHUFFLED + name for name in BASES))


def base_of(name: str) -> str:
    """Return the score that a control is made from; other scores are their own.

    >>> base_of("shuffled-farms-z"), base_of("depth")
    ('farms-z', 'depth')

    Raises:
        MeasureError: an unknown score.
    """
    if name not in NAMES:
        raise MeasureError(
            f"no score {name!r}; scores are {UNIFORM}, {', '.join(BASES)}, and {REVERSED}NAME and {SHUFFLED}NAME of "
            f"all but {UNIFORM}"
        )
    return rates.base_of(name)
