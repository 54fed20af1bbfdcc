"""The examples in docstrings of the packages that others import.

Not by --doctest-modules of pytest: it also imports helpers and conftest.py below tests/, whose names are not unique.
"""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [
    file.relative_to(ROOT)
    for package in ("spectra", "toymodel", "theory")
    for file in sorted((ROOT / package).rglob("*.py"))
    if ">>>" in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_examples_run(file):
    name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert tried > 0


def test_there_are_examples():
    assert "toymodel" in {file.parts[0] for file in FILES}
