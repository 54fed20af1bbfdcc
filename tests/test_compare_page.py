"""The page "how this compares": its table has the numbers of its code (run by bridge/test_documented_code.py)."""

import doctest
import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "compare.md"


def test_the_table_has_the_numbers_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    shown = "\n".join(e.want for e in doctest.DocTestParser().get_examples(text))
    found = [float(n) for n in re.findall(r"\d+\.\d+", shown)]
    cells = [line.rstrip(" |").rpartition("|")[2] for line in text.splitlines() if line.startswith("|")]
    wanted = [n for cell in cells for n in re.findall(r"\d*\.\d+", re.sub(r"\(.*?\)", "", cell))]
    assert len(wanted) >= 10
    for number in wanted:
        digits = len(number.partition(".")[2])
        assert any(round(value, digits) == float(number) for value in found), number
