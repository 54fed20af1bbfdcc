"""Optional packages: imported when they are used, and named with their pip command when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from sims.errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """The module of an optional package.

    Args:
        module: its import name.
        extra: the extra of this package that installs it.

    Raises:
        MissingExtraError: it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package
        state = "is not installed" if missing else f"cannot be imported ({error})"
        raise MissingExtraError(
            f"{package} {state}; install it with: pip install 'spectral-lens[{extra}]' (or pip install {package})"
        ) from error
