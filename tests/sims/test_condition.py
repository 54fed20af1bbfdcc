"""Conditions on a listing: what pandas would say of the same columns, and nothing that runs code."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.runs.condition import holds
from sims.runs.select import select
from sims.system.errors import QueryError

TABLE = pd.DataFrame(
    {
        "run_id": ["a", "b", "c", "d"],
        "stage": ["rope", "muon", "muon", "untied"],
        "status": ["done", "done", "failed", "target"],
        "lr": [1e-3, 3e-3, 6e-4, 1e-3],
        "seed": pd.array([0, 1, 2, 3], dtype="Int64"),
        "step": pd.array([10, None, 30, 40], dtype="Int64"),
        "val_loss": [2.0, np.nan, 3.5, -1.0],
        "task.length": [8, 16, 16, 64],
        "task.pareto": [True, False, True, None],
        "odd name": [1, 2, 3, 4],
        "mixed": [1, "one", 2, None],
        "when": pd.to_datetime(["2026-01-01", "2026-02-01", "2026-03-01", "NaT"], utc=True),
    }
)


def names(where):
    return "".join(select(TABLE, where=where)["run_id"])


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("stage == 'muon' and lr < 1e-3", "c"),
        ('stage == "muon" & lr < 1e-3', None),
        ("(stage == 'muon') & (lr < 1e-3) | (seed == 0)", "ac"),
        ("not stage == 'muon'", "ad"),
        ("~(stage == 'muon')", "ad"),
        ("stage in ('rope', 'untied')", "ad"),
        ("stage in ['rope']", "a"),
        ("stage not in ['rope', 'muon']", "d"),
        ("task.length == 16", "bc"),
        ("`task.length` >= 16 and `odd name` != 3", "bd"),
        ("6e-4 <= lr <= 1e-3", "acd"),
        ("1e-3 == lr", "ad"),
        ("val_loss < -0.5", "d"),
        ("val_loss > -1e9", "acd"),
        ("not val_loss > -1e9", "b"),
        ("val_loss != 2", "cd"),
        ("val_loss is None", "b"),
        ("val_loss is not None and step is not None", "acd"),
        ("step == None", "b"),
        ("step not in [10]", "cd"),
        ("task.pareto", "ac"),
        ("not task.pareto", "bd"),
        ("task.pareto == False", "b"),
        ("mixed == 1", "a"),
        ("mixed == 'one'", "b"),
        ("mixed != 1", "bc"),
        ("mixed < 2", "a"),
        ("when > '2026-01-15'", "bc"),
        ("seed > lr", "bcd"),
        ("stage == status", ""),
        ("stage > 'n'", "ad"),
        ("True", "abcd"),
        ("lr == +1e-3", "ad"),
        (" stage == 'rope' ", "a"),
    ],
)
def test_what_a_condition_chooses(where, chosen):
    if chosen is None:
        # & binds more tightly than a comparison, as in Python: refused, not guessed.
        with pytest.raises(QueryError, match="--where"):
            names(where)
    else:
        assert names(where) == chosen


HOSTILE = [
    "@re.enum.sys.modules['os'].system('touch OWNED')",
    "@os.system('touch OWNED')",
    "stage.__class__.__init__.__globals__['os'].system('touch OWNED')",
    "lr.to_csv('OWNED')",
    "lr.to_csv('OWNED') == 1",
    "`lr`.to_csv('OWNED')",
    "__import__('os').system('touch OWNED')",
    "open('OWNED', 'w') == 1",
    "[open('OWNED', 'w') for x in (1,)] == 1",
    "(lambda: open('OWNED', 'w'))() == 1",
    'f\'{open("OWNED", "w")}\' == stage',
    "stage == f'{lr}'",
    "(x := lr) > 1",
    "lr if lr > 1 else lr",
    "lr[0] > 1",
    "lr ** 9 ** 9 ** 9 > 1",
    "lr + 1 > 1",
    "10 ** 10 ** 10 == lr",
    "stage == 'a' * 10 ** 10",
    "lr; import os",
    "lr == 1\nimport os",
    "lambda: 1",
    "stage == b'muon'",
    "lr == 1j",
    "lr == ...",
    "*lr",
    "lr > 1 > stage",
    "lr == [1]",
    "lr in 3",
    "lr in stage",
    "lr is 1",
    "lr < None",
    "lr",
    "'muon'",
    "1",
    "-lr > 1",
    "nothing == 1",
    "task.nothing == 1",
    "task == 1",
    "__class__ == 1",
    "stage.upper == 1",
    "stage < 3",
    "stage == 3",
    "lr in ['a']",
    "when > 'yesterday evening'",
    "",
    "   ",
    "and",
    "lr <",
    "`lr == 1",
    "``== 1",
    "(" * 5_000 + "True" + ")" * 5_000,
    "not " * 3_000 + "True",
    "lr == 1 or " * 5_000 + "True",
    "\x00",
    "lr == 1 # ok\x00",
]


@pytest.mark.parametrize("where", HOSTILE, ids=range(len(HOSTILE)))
def test_everything_else_is_refused_and_nothing_runs(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QueryError, match="--where"):
        holds(TABLE, where)
    assert os.listdir(tmp_path) == []


@given(st.text(alphabet="lrstagenumo.=<>!()[]'\"`&|~@_ 0123456789e-+,\\\n", max_size=60))
def test_any_text_is_a_condition_or_is_refused(where):
    before = set(os.listdir(Path.cwd()))
    try:
        found = holds(TABLE, where)
    except QueryError:
        return
    finally:
        assert set(os.listdir(Path.cwd())) == before
    assert found.dtype == bool
    assert len(found) == len(TABLE)


COLUMNS = {
    "lr": st.sampled_from([6e-4, 1e-3, 3e-3, 0.5]),
    "seed": st.integers(-1, 4),
    "step": st.integers(9, 41),
    "val_loss": st.sampled_from([-1.0, 2.0, 3.5, 10.0]),
    "stage": st.sampled_from(["rope", "muon", "untied", "x"]),
}


@st.composite
def comparisons(draw):
    """Return a condition and what it means in pandas, where a missing value makes a comparison false."""
    name = draw(st.sampled_from(sorted(COLUMNS)))
    value = draw(COLUMNS[name])
    sign = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
    column = TABLE[name]
    compare = {
        "==": column.eq,
        "!=": column.ne,
        "<": column.lt,
        "<=": column.le,
        ">": column.gt,
        ">=": column.ge,
    }[sign]
    return f"{name} {sign} {value!r}", compare(value).fillna(False).astype(bool) & column.notna()


@st.composite
def conditions(draw):
    parts = st.recursive(
        comparisons(),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) and ({p[1][0]})", p[0][1] & p[1][1])),
            st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) or ({p[1][0]})", p[0][1] | p[1][1])),
            inner.map(lambda p: (f"not ({p[0]})", ~p[1])),
        ),
        max_leaves=6,
    )
    return draw(parts)


@given(conditions())
def test_conditions_mean_what_pandas_says(condition):
    where, wanted = condition
    assert holds(TABLE, where).tolist() == wanted.tolist()


def test_an_empty_listing_has_no_rows_that_meet_a_condition():
    assert holds(TABLE.iloc[:0], "stage == 'muon' and lr < 1 or task.pareto").tolist() == []
    with pytest.raises(QueryError, match="nothing"):
        holds(TABLE.iloc[:0], "nothing == 1")


def test_a_long_condition_is_not_told_in_full():
    with pytest.raises(QueryError) as refused:
        holds(pd.DataFrame({"seed": [1]}), "seed < " + "9" * 5000)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("val_los < 3", "did you mean 'val_loss'?"),
        ("stage == muon", "a text stands in quotes, as 'muon'"),
        ("stage = 'muon'", "has a single =; compare by =="),
        ("stage == 'muon", "has a text without its second quote"),
        ("(lr < 1", "has a bracket without its other half"),
        ("lr < 1 2", "cannot be read from"),
        ("seed == 0777", "cannot be read"),
        ("lr < 1\x00", "cannot be read"),
        ("when > '2026-13-45'", "write times as"),
        ("1" * 5000 + " < lr", "cannot be read"),
    ],
)
def test_a_refusal_says_what_to_write_in_the_words_of_conditions(where, says):
    with pytest.raises(QueryError) as refused:
        holds(TABLE, where)
    told = str(refused.value)
    assert says in told
    assert not re.search(
        "syntax|literal|python|pandas|pyarrow|Error|null bytes|octal|datetime", told, re.IGNORECASE
    )


def test_a_column_to_sort_by_is_suggested():
    with pytest.raises(
        QueryError, match=r"--sort 'val_los' is not a column; did you mean 'val_loss'\? The columns"
    ):
        select(TABLE, sort="val_los")
