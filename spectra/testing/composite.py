"""Make strategies that check their arguments when they are called, not when hypothesis draws from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from spectra.arrays import whole

P = ParamSpec("P")
T = TypeVar("T")


def strategy(**least: int) -> Callable[..., Any]:
    """Make a strategy of a function that draws; the least values of its arguments are checked when it is called."""

    def made(function: Callable[Concatenate[st.DrawFn, P], T]) -> Callable[P, SearchStrategy[T]]:
        composite = st.composite(function)
        signature = inspect.signature(composite)

        @wraps(composite)
        def checked(*args: P.args, **kwargs: P.kwargs) -> SearchStrategy[T]:
            given = signature.bind(*args, **kwargs)
            for name in given.arguments.keys() & least.keys():
                given.arguments[name] = whole(given.arguments[name], name, least=least[name])
            return composite(*given.args, **given.kwargs)

        return checked

    return made
