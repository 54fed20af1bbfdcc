"""Test a function by name: `python -m spectra.testing MODULE:FUNCTION KIND`.

    python -m spectra.testing spectra:rankme "effective rank"
    python -m spectra.testing numpy.linalg:matrix_rank "effective rank" --takes weights --laws scale bounds transpose
    python -m spectra.testing spectra:hill "tail exponent" --max-examples 20 --html hill.html
    python -m spectra.testing --list "effective rank" --takes matrix

FUNCTION may be a dotted name inside the module; modules of the present folder are found. Exit status: 0 if all laws
hold, 1 if one is broken, 2 if the question is wrong or no law was tested.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from spectra.errors import InputError
from spectra.testing import KINDS, check_estimator, laws_for


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    given = parser.parse_args(words)
    # The only positional arguments: MODULE:FUNCTION and KIND, or KIND alone with --list.
    if len(given.what) != (1 if given.list else 2):
        parser.error("pass KIND with --list" if given.list else "pass MODULE:FUNCTION and KIND")
    kind = given.what[-1]
    try:
        if given.list:
            for law in laws_for(kind, given.takes):
                print(f"{law.name:<22} {law.statement}")
            return 0
        report = check_estimator(
            _function(given.what[0]),
            kind,
            takes=given.takes,
            holds=given.holds,
            result=_part(given.result),
            laws=given.laws,
            skip=given.skip,
            tolerance=given.tolerance,
            max_examples=given.max_examples,
            name=given.what[0].split(":")[-1],
        )
        if given.html:
            print(f"wrote {report.to_html(given.html)}")
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if all(result.outcome == "skipped" for result in report.results):
        return 2
    return 0 if report.passed else 1


def _parser() -> argparse.ArgumentParser:
    head, examples = (__doc__ or "").split("\n\n", 1)
    parser = argparse.ArgumentParser(
        "python -m spectra.testing",
        description=head,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("what", nargs="*", metavar="MODULE:FUNCTION KIND", help=f"kinds: {', '.join(KINDS)}")
    option("--takes", help="spectrum, singular, matrix or weights: what the function takes of a spectrum")
    option(
        "--holds", choices=("numpy", "torch"), help="arrays or tensors; by default what the function takes"
    )
    option("--result", help="the number in what the function returns: a name, or an index")
    option("--laws", nargs="+", metavar="LAW", help="only these")
    option("--skip", nargs="+", metavar="LAW", default=(), help="not these")
    option("--tolerance", type=float, default=1e-8, help="relative agreement (1e-8)")
    option("--max-examples", type=int, default=200, help="examples of each law (200)")
    option("--html", metavar="FILE", help="write the report as a page too")
    option("--list", action="store_true", help="list the laws of KIND and stop")
    return parser


def _function(text: str) -> Callable[..., Any]:
    module, _, name = text.partition(":")
    if not module or not name:
        raise InputError(f"{text!r} names no function; write MODULE:FUNCTION, such as spectra:rankme")
    try:
        return attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise InputError(f"{text!r} is not there: {error}") from error
    except Exception as error:
        # An exit status of 1 would say that a law is broken.
        raise InputError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error


def _part(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


if __name__ == "__main__":
    sys.exit(main())
