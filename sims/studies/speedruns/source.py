"""Constants of a training script that stands in a log, read without running any of it."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

# Beyond this a number is no setting; it also bounds what arithmetic of a foreign text can cost.
_LARGEST = 1e18
_DEEPEST = 50
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
}
_CALLS: dict[str, Callable[..., Any]] = {"int": int, "float": float, "round": round, "min": min, "max": max}
# The name under which `literal` finds the number of devices.
WORLD_SIZE = "WORLD_SIZE"
# Statements of a module begin at the left margin; only these are of interest here.
_STATEMENT = re.compile(r"^(?=[A-Za-z_@])", re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\s*(?::[^=\n]+)?=(?!=)")


def literal(node: ast.expr, names: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """Evaluate literals, names that are known, and arithmetic of these (8*64*1024); None for anything else.

    Args:
        node: parsed text; nothing of it is executed.
        names: values of names; of attributes (args.batch_size) by their last part with its dot (.batch_size), and of
            all ways to ask for the number of devices under `WORLD_SIZE`.
        depth: of the nesting, which is bounded.
    """
    names = names or {}
    if depth > _DEEPEST:
        return None
    match node:
        case ast.Constant(value=int() | float() | str() as value):
            return value
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=ast.Name(), attr=name):
            return names.get(f".{name}")
        case (
            ast.Call(func=ast.Attribute(attr="get_world_size"))
            | ast.Call(func=ast.Attribute(attr="get" | "getenv"), args=[ast.Constant(value="WORLD_SIZE"), *_])
            | ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value="WORLD_SIZE"))
        ):
            return names.get(WORLD_SIZE)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            values = tuple(literal(part, names, depth + 1) for part in parts)
            return None if None in values else values
        case ast.Subscript(value=whole, slice=ast.Constant(value=int() as place)):
            values = literal(whole, names, depth + 1)
            return values[place] if isinstance(values, tuple) and 0 <= place < len(values) else None
        case ast.UnaryOp(op=ast.USub(), operand=part):
            value = literal(part, names, depth + 1)
            return -value if isinstance(value, int | float) else None
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            pair = literal(left, names, depth + 1), literal(right, names, depth + 1)
            return _arithmetic(_BINARY[type(op)], *pair)
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in _CALLS and parts:
            return _arithmetic(_CALLS[name], *(literal(part, names, depth + 1) for part in parts))
    return None


def _arithmetic(function: Callable[..., Any], *values: Any) -> Any:
    if not all(isinstance(v, int | float) and abs(v) <= _LARGEST for v in values):
        return None
    if function in (operator.pow, operator.lshift) and not 0 <= values[1] <= 60:
        return None
    try:
        found = function(*values)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return found if isinstance(found, int | float) and abs(found) <= _LARGEST else None


@dataclass(frozen=True)
class Source:
    """The statements of a script, each parsed by itself: what is cut or of a later Python does not hide the rest.

    Args:
        statements: texts of the statements of the module, in order.
    """

    statements: tuple[str, ...]

    @staticmethod
    @lru_cache(maxsize=64)
    def of(text: str) -> Source:
        """Return the statements of a text; logs of one script share the result."""
        return Source(tuple(_STATEMENT.split(text)))

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Constants of the class `Hyperparameters`."""
        return self._class(self.constants(None))

    @cached_property
    def assignments(self) -> tuple[tuple[str, ast.expr], ...]:
        """Names and values that the module assigns, in order."""
        found = []
        for text in self.statements:
            if not _ASSIGNMENT.match(text):
                continue
            for node in _parse(text):
                found += _assigned(node)
        return tuple(found)

    def constants(self, devices: int | None) -> dict[str, Any]:
        """Return the constants of the module by name.

        Args:
            devices: the value of the world size; None leaves it out.
        """
        names: dict[str, Any] = {} if devices is None else {WORLD_SIZE: devices}
        for _ in range(2):  # the class can use the module's constants, and the module those of the class
            for name, value in self.assignments:
                found = literal(value, names)
                if found is not None:
                    names[name] = found
                elif name != WORLD_SIZE:
                    names.pop(name, None)
            names |= {f".{name}": value for name, value in self._class(names).items()}
        return names

    def definition(self, name: str) -> tuple[str, ...]:
        """Return the names of the parameters of a function of the module; none if it is not there."""
        for text in self.statements:
            if re.match(rf"def {re.escape(name)}\b", text):
                for node in _parse(text):
                    if isinstance(node, ast.FunctionDef):
                        return tuple(a.arg for a in node.args.posonlyargs + node.args.args)
        return ()

    def asserted_devices(self) -> int | None:
        """Return the world size that the script asserts."""
        for text in self.statements:
            found = re.match(r"assert \w*world_size == (\d{1,4})\b", text, re.IGNORECASE)
            if found:
                return int(found[1])
        return None

    @cached_property
    def _fields(self) -> tuple[tuple[str, ast.expr], ...]:
        """Names and values that the class `Hyperparameters` assigns, in order."""
        found: list[tuple[str, ast.expr]] = []
        for text in self.statements:
            if re.match(r"class Hyperparameters\b", text):
                classes = [node for node in _parse(text) if isinstance(node, ast.ClassDef)]
                found += [pair for node in classes for item in node.body for pair in _assigned(item)]
        return tuple(found)

    def _class(self, names: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in self._fields:
            known = literal(value, {**names, **found})
            if known is not None:
                found[name] = known
        return found


def _parse(text: str) -> list[ast.stmt]:
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _assigned(node: ast.stmt) -> list[tuple[str, ast.expr]]:
    match node:
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return [(name, value)]
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return [(name, value)]
    return []
