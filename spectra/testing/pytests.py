"""Make pytest tests of an estimator: one for each law."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

from spectra.errors import InputError
from spectra.testing.check import check_estimator, chosen_laws
from spectra.testing.laws import laws_for


def estimator_tests(
    function: Callable[..., object],
    kind: str,
    *,
    takes: str | None = None,
    laws: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    **options: Any,
) -> Callable[[str], None]:
    """Return a pytest test that runs once for each law of a kind.

    Assign it to a name that pytest collects: ``test_mine = estimator_tests(my_function, "effective rank")``. A law that
    is broken fails with its part of the report; one that is skipped is skipped with the reason. `pytest -k scale`
    runs one law.

    Args:
        function, kind, takes, laws, skip, options: as `check_estimator` takes them.

    Raises:
        InputError: an argument that `check_estimator` refuses by its name or its value, when the test is made.
        ImportError: without pytest.

    >>> from spectra import rankme
    >>> test_rankme = estimator_tests(rankme, "effective rank", skip=["Schur concavity"], max_examples=5)
    >>> test_rankme("scale")
    """
    try:
        import pytest
    except ImportError as error:
        raise ImportError(
            "estimator_tests makes tests for pytest, which is missing; pip install pytest"
        ) from error
    chosen, skipped = chosen_laws(kind, takes, laws, skip)
    unknown = [
        name for name in options if name not in signature(check_estimator).parameters or name == "quiet"
    ]
    if unknown:
        raise InputError(f"{unknown} are no options of estimator_tests; see check_estimator")
    # Without a law nothing is run, and all arguments are checked.
    every = [law.name for law in laws_for(kind, takes)]
    check_estimator(function, kind, takes=takes, skip=every, quiet=True, **options)

    @pytest.mark.parametrize("law", [law.name for law in chosen])
    def test(law: str) -> None:
        if law in skipped:
            pytest.skip("asked to skip")
        report = check_estimator(function, kind, takes=takes, laws=[law], quiet=True, **options)
        if report[law].outcome == "skipped":
            pytest.skip(report[law].message)
        if not report.passed:
            pytest.fail(str(report), pytrace=False)

    return test
