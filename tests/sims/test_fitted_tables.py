"""Tables on narrow terminals: every word is whole, no line is too long, and nothing is lost."""

import io
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listed import every_state
from rich.console import Console
from rich.text import Text

from sims import cli
from sims.pages.fitted import FittedTable
from sims.pages.table import Table
from sims.pages.terminal import print_table, rich_table

FRAME = "┏┓┗┛┃━┳┻╇┡┩│├┤┼┴└┘─╈╋"


def printed(table, width, **options):
    file = io.StringIO()
    Console(file=file, width=width, **options).print(table)
    return file.getvalue()


def words(text):
    return text.translate(dict.fromkeys(map(ord, FRAME), " ")).split()


WORDS = st.text("abcXYZ019.,()", min_size=1, max_size=12)
CELLS = st.lists(WORDS, max_size=5).map(" ".join)


@st.composite
def tables(draw):
    count = draw(st.integers(1, 7))
    heads = draw(st.lists(CELLS.filter(bool), min_size=count, max_size=count))
    rows = draw(st.lists(st.lists(CELLS, min_size=count, max_size=count), min_size=1, max_size=4))
    return FittedTable(
        heads, [[Text(cell) for cell in row] for row in rows], left=range(draw(st.integers(0, count)))
    )


@settings(max_examples=80, deadline=None)
@given(tables(), st.integers(30, 120))
def test_no_word_is_cut_and_no_line_is_too_long(table, width):
    shown = printed(table, width)
    assert max(map(len, shown.splitlines())) <= width
    found = words(shown)
    headings = 1 if shown.startswith("┏") or len(table.rows) == 1 else len(table.rows)
    cells = [cell.plain for row in table.rows for cell in row]
    told = [word for text in (*table.columns, *cells) for word in text.split()]
    assert set(found) == set(told)
    for word in set(told):
        assert found.count(word) >= told.count(word)
        assert found.count(word) <= told.count(word) * headings


@settings(max_examples=40, deadline=None)
@given(tables())
def test_what_fits_is_one_line_a_row_in_a_frame(table):
    lines = printed(table, 1000).splitlines()
    assert len(lines) == 4 + len(table.rows)
    assert lines[0][0] == "┏"


RUN = "untied-b32-lr0.000707107-s0-0123456789ab"


def test_names_of_runs_are_divided_at_their_hyphens():
    table = FittedTable(("run", "status"), [[Text(RUN), Text("done")]])
    assert printed(table, 60).startswith("┏")
    assert printed(table, 48).split() == ["run", "status", RUN, "done"]
    assert printed(table, 40).split() == [
        "run",
        "status",
        "untied-b32-lr0.000707107-s0-",
        "done",
        "0123456789ab",
    ]
    assert printed(table, 26).split() == [
        "run",
        "status",
        "untied-b32-",
        "done",
        "lr0.000707107-s0-",
        "0123456789ab",
    ]


def test_a_row_that_no_width_holds_is_a_block():
    columns = ("quantity", "measured value", "explanation")
    rows = [
        [Text("rankme"), Text("12.5"), Text("an effective rank")],
        [Text("alpha"), Text("1.2"), Text("")],
    ]
    lines = printed(FittedTable(columns, rows, "Last"), 28).splitlines()
    assert [line.rstrip() for line in lines] == [
        "Last",
        "quantity       rankme",
        "measured value 12.5",
        "explanation    an effective",
        "               rank",
        "",
        "quantity       alpha",
        "measured value 1.2",
        "explanation",
    ]


def test_verdicts_keep_their_colour():
    table = Table(("what", "verdict"), (("[a]", "holds"),))
    shown = printed(
        rich_table("title", table, {"holds": "good"}), 60, force_terminal=True, color_system="standard"
    )
    assert re.search(r"\x1b\[32m *holds\x1b", shown)
    assert "[a]" in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_is_fitted_on_a_terminal_and_markdown_elsewhere(terminal):
    table = Table(("what", "a long heading of many words"), (("seeds", "8"),))
    file = io.StringIO()
    print_table("Counts", table, Console(file=file, width=24, force_terminal=terminal))
    lines = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue()).splitlines()
    assert (max(map(len, lines)) <= 24) == terminal
    assert ("| seeds | 8 |" in lines) != terminal


@pytest.mark.parametrize("columns", [80, 40, 24])
def test_a_listing_cuts_nothing_on_a_narrow_terminal(tmp_path, monkeypatch, capsys, columns):
    every_state(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(["ls", str(tmp_path)]) == 0
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    for word in ("status", "tokens", "minutes", "written", "waiting", "diverged", "continues"):
        assert word in words(shown)
