"""Compare symbolic results with numeric formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import sympy as sp

from theory.claim import Agreement, Step


def step(text: str, expression: sp.Basic) -> Step:
    """Make a derivation line with LaTeX printed by sympy.

    >>> step("the square", sp.Symbol("x") ** 2).latex
    'x^{2}'
    """
    return Step(text, sp.latex(expression))


def agree(
    name: str,
    expression: sp.Expr,
    symbols: Sequence[sp.Symbol],
    numeric: Callable[..., float],
    points: Iterable[Sequence[float]],
    tolerance: float = 1e-9,
) -> Agreement:
    """Compare a sympy expression with a numeric formula at points.

    Largest |sympy − numeric|/max(1, |numeric|) over ``points``, sympy evaluated to 30 digits.

    ``expression`` must be real-valued there; an imaginary part counts as error. Without points nothing is compared, and
    nothing agrees.

    >>> x = sp.Symbol("x")
    >>> agree("square", x**2, [x], lambda v: v * v, [(2.0,), (3.0,)]).holds
    True
    """
    worst, points = 0.0, list(points)
    if not points:
        return Agreement(name, float("nan"), tolerance)
    for point in points:
        exact = complex(sp.N(expression.subs(dict(zip(symbols, point, strict=True))), 30))
        value = numeric(*point)
        error = abs(exact - value) / max(1.0, abs(value))
        # max() would drop a NaN; it must fail the comparison instead.
        worst = error if error != error else max(worst, error)
    return Agreement(name, float(worst), tolerance)


def vanishes(name: str, expression: sp.Expr) -> Agreement:
    """Check that an expression is identically 0 after simplification.

    Error 0 if so, else 1.

    >>> x = sp.Symbol("x")
    >>> vanishes("difference of squares", (x - 1) * (x + 1) - x**2 + 1).holds
    True
    """
    return Agreement(name, 0.0 if sp.simplify(expression) == 0 else 1.0, 0.0)
