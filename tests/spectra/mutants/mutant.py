"""What is known of a mutant, and the trial of one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spectra.testing import Report, check_estimator


@dataclass(frozen=True)
class Mutant:
    """A defective function, the kind it claims to be, and laws that must each fail on it."""

    function: Callable[..., Any]
    kind: str
    caught_by: tuple[str, ...]
    torch: bool = False


def tried(mutant: Mutant, **options: Any) -> Report:
    """The report on a mutant; the options are those of `check_estimator`."""
    return check_estimator(mutant.function, mutant.kind, torch=mutant.torch, quiet=True, **options)
