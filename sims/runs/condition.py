"""Conditions on the columns of a listing: a small language of its own, in which nothing can be called.

    stage == 'muon' and lr < 1e-3
    task.length in [64, 128] and not seed == 0
    1e-4 <= lr <= 1e-3 or status != 'done'

Columns are named as in the listing, dots included; names with other characters stand between backticks. Values are
numbers, texts in quotes, True, False and, after in, lists of them. Comparisons, chained or not, are joined by and, or,
not and parentheses; & | ~ mean the same. A comparison with a value that a run lacks is false; `val_loss is None` finds
these runs.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype

from sims.system.errors import QueryError

LONGEST = 10_000
# Characters of it in a message.
SHOWN = 300
_QUOTED = "column_{}_"
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EXAMPLE = "write one such as \"stage == 'muon' and lr < 1e-3\""


def holds(table: pd.DataFrame, where: str) -> pd.Series:
    """Return for each row of a listing whether it meets a condition.

    Args:
        table: the listing.
        where: the condition, in the language of this module.

    Raises:
        QueryError: not a condition of this language, an unknown column, or values that cannot be compared.

    >>> runs = pd.DataFrame({"stage": ["rope", "muon"], "lr": [1e-3, 3e-3]})
    >>> holds(runs, "stage == 'muon' and lr > 2e-3").tolist()
    [False, True]
    """
    return _Condition(table, where).holds()


def known(name: str, columns: Iterable[str]) -> str:
    """Return the remedy for a column that is not there: the one of a similar name, and all of them.

    >>> known("val_los", ["run_id", "val_loss"])
    "did you mean 'val_loss'? The columns are run_id, val_loss"
    """
    names = list(columns)
    near = get_close_matches(name, names, n=1)
    question = f"did you mean {near[0]!r}? The" if near else "the"
    return f"{question} columns are {', '.join(names)}"


class _Condition:
    """One condition on one table."""

    def __init__(self, table: pd.DataFrame, where: str) -> None:
        self.table, self.where = table, where
        self.quoted: dict[str, str] = {}

    def holds(self) -> pd.Series:
        if len(self.where) > LONGEST:
            raise QueryError(f"--where has {len(self.where)} characters; it may have {LONGEST}")
        try:
            tree = ast.parse(re.sub(r"`([^`]*)`", self._quote, self.where.strip()), mode="eval")
            return pd.Series(self._truth(tree.body), self.table.index, dtype=bool)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> QueryError:
        """Say where a text stops being a condition, in the words of this language."""
        if re.search(r"(?<![=<>!])=(?!=)", self.where):
            return self._refused("has a single =", "compare by ==")
        if len(re.findall("['\"]", self.where)) % 2:
            return self._refused(
                "has a text without its second quote", "end it by the one that it begins with"
            )
        if len(re.findall(r"[(\[]", self.where)) != len(re.findall(r"[)\]]", self.where)):
            return self._refused(
                "has a bracket without its other half", "close every bracket, or leave it out"
            )
        place = error.offset if isinstance(error, SyntaxError) else None
        rest = self.where.strip()[place - 1 :] if place and not self.quoted else ""
        return self._refused(f"cannot be read{f' from {rest[:20]!r} on' if rest else ''}")

    def _quote(self, match: re.Match[str]) -> str:
        name = _QUOTED.format(len(self.quoted))
        self.quoted[name] = match[1]
        return name

    def _refused(self, what: str, remedy: str = _EXAMPLE) -> QueryError:
        return QueryError(f"--where {_shortened(self.where)!r} {_shortened(what)}; {remedy}")

    def _truth(self, node: ast.expr) -> np.ndarray:
        """Return whether each row meets a part of the condition."""
        match node:
            case ast.BoolOp(op, values):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return join.reduce([self._truth(value) for value in values])
            case ast.BinOp(left, ast.BitAnd() | ast.BitOr() as op, right):
                join = np.logical_and if isinstance(op, ast.BitAnd) else np.logical_or
                return join(self._truth(left), self._truth(right))
            case ast.UnaryOp(ast.Not() | ast.Invert(), operand):
                return ~self._truth(operand)
            case ast.Compare(left, ops, others):
                sides = [left, *others]
                pairs = zip(sides[:-1], ops, sides[1:], strict=True)
                return np.logical_and.reduce([self._comparison(a, op, b) for a, op, b in pairs])
            case ast.Name() | ast.Attribute():
                column = self._column(node)
                if not _of_truth(column):
                    raise self._refused(f"uses {self._name(node)} as a condition, which holds other values")
                return column.fillna(False).to_numpy(dtype=bool)
            case ast.Constant(bool() as value):
                return np.full(len(self.table), value)
        raise self._refused(
            f"is not a condition: {ast.unparse(node)!r} is neither a comparison nor and, or, not"
        )

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> np.ndarray:
        if isinstance(right, ast.Constant) and right.value is None:
            if not isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
                raise self._refused("compares with None", "ask for missing values by is None or is not None")
            missing = self._values(left).isna().to_numpy()
            return missing if isinstance(op, ast.Is | ast.Eq) else ~missing
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise self._refused(f"has {ast.unparse(right)!r} after in; give a list such as [1, 2]")
            found = np.zeros(len(self.table), dtype=bool)
            for value in right.elts:
                found |= self._compared(left, ast.Eq(), value)
            return found if isinstance(op, ast.In) else ~found & self._values(left).notna().to_numpy()
        if type(op) not in _COMPARE:
            raise self._refused("compares by is", "use == and !=, and is for None only")
        return self._compared(left, op, right)

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> np.ndarray:
        """Compare row by row; false where one of the sides is missing."""
        a, b = self._values(left), self._values(right)
        if is_datetime64_any_dtype(a) != is_datetime64_any_dtype(b):
            a, b = self._moments(a), self._moments(b)
        kinds = _kinds(a), _kinds(b)
        if not kinds[0] & kinds[1] and all(kinds):
            raise self._refused(
                f"compares {ast.unparse(left)}, which is {_named(kinds[0])}, with {ast.unparse(right)}, which is "
                f"{_named(kinds[1])}",
                "compare numbers with numbers, and texts, in quotes, with texts",
            )
        compare, unequal = _COMPARE[type(op)], isinstance(op, ast.NotEq)
        present = (a.notna() & b.notna()).to_numpy()
        # Values of two kinds are never equal and have no order.
        found = [
            here and (bool(compare(x, y)) if _kind(x) == _kind(y) else unequal)
            for here, x, y in zip(present, a, b, strict=True)
        ]
        return np.array(found, dtype=bool)

    def _moments(self, values: pd.Series) -> pd.Series:
        try:
            # pandas takes numbers for times since 1970.
            if _kinds(values) <= {"a text", "a time"}:
                return pd.to_datetime(values, utc=True, format="ISO8601")
            cause = None
        except (ValueError, TypeError) as error:
            cause = error
        raise self._refused(
            f"compares a time with {values.iloc[0]!r}, which is none", "write times as '2026-01-31 16:30'"
        ) from cause

    def _values(self, node: ast.expr) -> pd.Series:
        """Return the value of a column or of a constant for each row."""
        match node:
            case ast.Name() | ast.Attribute():
                return self._column(node)
            case ast.Constant(bool() | int() | float() | str() as value):
                return pd.Series([value] * len(self.table), self.table.index, dtype=object)
            case ast.UnaryOp(ast.USub() | ast.UAdd() as sign, ast.Constant(int() | float() as value)):
                signed = -value if isinstance(sign, ast.USub) else value
                return pd.Series([signed] * len(self.table), self.table.index, dtype=object)
        raise self._refused(
            f"has {ast.unparse(node)!r}, which is neither a column, a number nor a text in quotes"
        )

    def _column(self, node: ast.expr) -> pd.Series:
        name = self._name(node)
        if name not in self.table.columns:
            remedy = known(name, self.table.columns)
            if re.search(rf"[=!]=\s*{re.escape(name)}\b", self.where):
                remedy = f"a text stands in quotes, as '{name}'; {remedy}"
            raise self._refused(f"names the column {name!r}, which is not there", remedy)
        return self.table[name]

    def _name(self, node: ast.expr) -> str:
        """Return the name of a column, dots included."""
        match node:
            case ast.Name(name):
                return self.quoted.get(name, name)
            case ast.Attribute(value, name):
                return f"{self._name(value)}.{name}"
        raise self._refused(f"has {ast.unparse(node)!r}, which is not the name of a column")


def _shortened(text: str) -> str:
    """Return the beginning of a text that is too long for a message."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "True or False"
    if isinstance(value, int | float | np.number):
        return "a number"
    return "a text" if isinstance(value, str) else "a time"


def _kinds(values: pd.Series) -> set[str]:
    return {_kind(value) for value in values[values.notna()]}


def _named(kinds: set[str]) -> str:
    return " or ".join(sorted(kinds))


def _of_truth(column: pd.Series) -> bool:
    return is_bool_dtype(column) or all(isinstance(v, bool) for v in column if not pd.isna(v))
