"""LaTeX as MathML, which browsers draw by themselves, in the colour and at the size of the text around it."""

from __future__ import annotations

from functools import cache
from typing import Literal

from markupsafe import escape


@cache
def mathml(latex: str, display: Literal["block", "inline"] = "block") -> str:
    """Return a formula as a MathML element, with the LaTeX as text for those who do not see it.

    Args:
        latex: with or without dollar signs around it.
        display: a line of its own, or within a sentence.

    Raises:
        ValueError: a command that is not known, or braces that do not match.

    >>> mathml("$x^2$")
    '<math display="block" alttext="x^2"><msup><mi>x</mi><mn>2</mn></msup></math>'
    """
    # Pages without formulas do without it.
    from math_core import LatexError, LatexToMathML

    source = latex.strip("$")
    try:
        element = LatexToMathML().convert_with_local_state(source, displaystyle=display == "block")
    except LatexError as error:
        raise ValueError(f"the formula {source!r} cannot be written as MathML: {error}") from error
    return element.replace(">", f' alttext="{escape(source)}">', 1)
