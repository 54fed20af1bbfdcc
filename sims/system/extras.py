"""Optional packages: imported on first use; errors give the pip command."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from sims.system.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Import and return an optional package.

    Args:
        module: its import name, which is also what pip calls it.
        extra: the extra of this package that installs it.

    Raises:
        MissingExtraError: it is not installed, or cannot be imported.
    """
    check(module, extra)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{module} cannot be imported ({error}); {_remedy(module, extra)}") from error


def check(module: str, extra: str) -> None:
    """Check that an optional package is installed, without importing it.

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{module} is not installed; {_remedy(module, extra)}")


def _remedy(module: str, extra: str) -> str:
    return f"install it with: pip install 'spectral-lens[{extra}]' (or pip install {module})"
