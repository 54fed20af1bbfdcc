"""The experiment: measuring runs, sweeps, records, figures, reports and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spectral_lens import __version__ as __version__

if TYPE_CHECKING:
    from sims.studies.look.look import look as look

__all__ = ["__version__", "look"]


def __getattr__(name: str) -> Any:
    """Load what users import from here when it is asked for: a command line starts without it."""
    if name == "look":
        from sims.studies.look.look import look

        return look
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
