"""The answer of a command as JSON: one object on stdout, and nothing else there.

Every command that prints numbers takes --json and answers in this way. The rules: numbers in full precision, what was
not measured (NaN) is null, a table is a list of records, one a row, and names are in snake_case.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from sims.system.as_json import json_text

Answer = dict[str, Any]


@contextmanager
def answering(as_json: bool) -> Iterator[Answer | None]:
    """Collect what a command found; when it ends without an error, write that on stdout.

    Args:
        as_json: whether the answer is asked for. Then everything that is printed goes to stderr.

    Yields:
        A dictionary to fill: name → a value or a table (data frame); None where people read the output.
    """
    if not as_json:
        yield None
        return
    answer: Answer = {}
    stdout = sys.stdout
    with redirect_stdout(sys.stderr):
        yield answer
    if answer:
        stdout.write(json_text(answer) + "\n")
