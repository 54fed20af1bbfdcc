"""Formulas of pages: every one of the theory becomes MathML, and none falls back to anything else."""

import re
from html import unescape
from xml.etree import ElementTree

import pytest

from sims.pages.mathml import mathml
from sims.pages.page import Fold, Formula, Page, Section, Steps
from sims.pages.write import write_page
from theory import CLAIMS

# Of MathML Core; merror is left out.
ELEMENTS = {
    *("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "ms", "mstyle", "mpadded", "mphantom"),
    *("mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder", "mover", "munderover"),
    *("mmultiscripts", "mprescripts", "mtable", "mtr", "mtd"),
}


def parsed(latex):
    """Parse the element as XML, in which HTML's names of characters (&nbsp;) are not known."""
    text = re.sub(r"&(?!amp;|lt;|gt;|quot;|#)\w+;", lambda name: unescape(name[0]), mathml(latex))
    return ElementTree.fromstring(text)


def formulas():
    derivations = {c.derivation: c.id for c in CLAIMS if c.derivation}
    yield from ((c.id, c.latex) for c in CLAIMS)
    yield from ((name, step.latex) for derive, name in derivations.items() for step in derive().steps)


@pytest.mark.slow
def test_every_formula_of_the_theory_becomes_mathml():
    count = 0
    for name, latex in formulas():
        element = parsed(latex)
        parts = list(element.iter())
        assert {part.tag for part in parts} <= ELEMENTS, name
        drawn = "".join(element.itertext())
        assert not set("\\$^_") & set(drawn), (name, drawn)
        assert drawn.strip(), name
        assert element.attrib["alttext"] == latex.strip("$"), name
        count += 1
    assert count > len(CLAIMS)


@pytest.mark.parametrize("latex", [r"\frac{1}{2", r"\nosuchcommand{x}", "x}", "$x^{$"])
def test_what_is_no_formula_is_refused(latex):
    with pytest.raises(ValueError, match="cannot be written as MathML"):
        mathml(latex)


def test_the_formula_is_named_whatever_it_holds():
    element = parsed(r"a < b \ \& \ c > d")
    assert element.attrib["alttext"] == r"a < b \ \& \ c > d"
    assert "<" in "".join(element.itertext())


def test_pages_show_formulas(tmp_path):
    steps = Steps("", (Formula("$x$", "first:"), Formula("y^2")))
    blocks = (Formula("$x^2$"), Steps("Derivation", steps.steps), Fold("more", (steps,)))
    page = Page(title="t", sections=[Section(title="s", blocks=blocks)])
    write_page(page, tmp_path / "page.html", tmp_path / "page.md")
    html, text = ((tmp_path / f"page.{form}").read_text("utf-8") for form in ("html", "md"))
    assert html.count("<math ") == 1 + 2 + 2
    assert '<details class="fold"><summary>more</summary>' in html
    assert html.count("<h3>Derivation</h3>") == 1
    assert "1. first: `$x$`" in text
    assert "2.  `y^2`" in text or "2. `y^2`" in text
