"""Write a page as one self-contained HTML file: figures are inline SVG, and nothing is loaded from elsewhere."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

import jinja2
from markupsafe import Markup

from sims.pages import page as headings
from sims.pages.mathml import mathml
from sims.pages.page import Block, Cells, Content, Files, Picture, Section, Statement, Window
from sims.pages.table import Table

# A point in pixels of CSS, and the width of a page in these.
PIXELS, PAGE_WIDTH = 96 / 72, 1200
# A figure is drawn so much larger than it was made, at most; and so much smaller, at least.
LARGEST, SMALLEST = 1.55, 0.92
# A key stands beside text of the page.
KEY_SIZE = 1.15
# A hyphen before a number that nothing stands in front of: not of a range, an option, a name or an exponent.
_NEGATIVE = re.compile(r"(?<![\w.\-/])-(?=\.?\d)")
# The contents of a page with more sections than this list the main ones only.
MOST_LISTED = 30


def html(content: Content, files: str = ".") -> str:
    """Return the page as HTML.

    Args:
        files: folder of figures and tables, relative to the page.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    count = itertools.count()
    environment.filters["mathml"] = lambda latex: Markup(mathml(latex))
    environment.filters["picture"] = lambda picture, title: _picture(picture, title, next(count))
    environment.filters["anchor"], environment.filters["minus"] = anchor, minus
    template = environment.from_string(
        resources.files("sims.pages").joinpath("template.html").read_text("utf-8")
    )
    page = content.page
    every = [(page.glance.title, content.glance)] if page.glance else []
    every += [(section.title, blocks) for section, blocks in content.sections]
    return template.render(
        page=page,
        style=Markup(resources.files("sims.pages").joinpath("style.css").read_text("utf-8")),
        glance=content.glance,
        sections=list(_anchored(content.sections)),
        statements=[f if isinstance(f, Statement) else Statement(f) for f in page.findings],
        words=content.words,
        links=content.links,
        files=files,
        tables=[(title, b) for title, blocks in every for b in blocks if isinstance(b, Files)],
        facts=Cells(Table.of_facts(list(page.provenance))),
        headings=headings,
        most_listed=MOST_LISTED,
    )


def anchor(text: str) -> str:
    """Return an id from a text: letters, digits, dots and dashes.

    >>> anchor("Losses, by stage")
    'losses-by-stage'
    """
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-") or "section"


def minus(text: str) -> str:
    """Return a text whose negative numbers have a minus sign, where a hyphen stands in files and on a terminal.

    >>> minus("-0.12 [-0.2, -.1] of 10-40 at 1e-05")
    '−0.12 [−0.2, −.1] of 10-40 at 1e-05'
    """
    return _NEGATIVE.sub("−", text)


def _anchored(
    sections: Iterable[tuple[Section, Sequence[Block]]],
) -> Iterator[tuple[str, Section, Sequence[Block]]]:
    """Yield each section with an id that no other part of the page has."""
    taken = {anchor(text) for text in (headings.FINDINGS, headings.CAVEATS, headings.PROVENANCE)}
    for section, blocks in sections:
        wanted = section.name or anchor(section.title)
        more = (f"{wanted}-{k}" for k in itertools.count(2))
        name = next(n for n in itertools.chain([wanted], more) if n not in taken)
        taken.add(name)
        yield name, section, blocks


def _with_ids_of_its_own(svg: str, place: int) -> Markup:
    """Make the ids of an SVG element unique on a page with several."""
    return Markup(re.sub(r'(id="|href="#|url\(#)', rf"\g<1>f{place}-", svg))


def _picture(picture: Picture, title: str, place: int) -> Markup:
    """Return the drawing in its box: the key, then the panels, or the whole drawing."""
    svg = str(_with_ids_of_its_own(picture.svg, place))
    label = Markup.escape(_alternative(picture, title))
    if not picture.panels:
        size = re.search(r'viewBox="0 0 ([\d.]+)', svg)
        width = float(size[1]) if size else PAGE_WIDTH / PIXELS
        whole = re.sub(r' width="[^"]*"| height="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
        return Markup(
            f'<div class="panels"{_measures(width, 1)} role="img" aria-label="{label}">{whole}</div>'
        )
    inner = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    contents = [f'<g id="f{place}">{inner}</g>', *[f'<use href="#f{place}"/>'] * (len(picture.panels) - 1)]
    shown = "".join(_view(w, c) for w, c in zip(picture.panels, contents, strict=True))
    key = "".join(_view(w, f'<use href="#f{place}"/>', fixed=True) for w in picture.key)
    measures = _measures(picture.panels[0][2], picture.columns)
    return Markup(
        f'<div role="img" aria-label="{label}"><div class="key">{key}</div>'
        f'<div class="panels"{measures}>{shown}</div></div>'
    )


def _measures(width: float, columns: int) -> str:
    """Return the custom properties of a box of panels: how wide one is, at least and at most, and how many a row."""
    natural = width * PIXELS
    return f' style="--n:{columns};--least:{natural * SMALLEST:.0f}px;--most:{natural * LARGEST:.0f}px"'


def _view(window: Window, content: str, fixed: bool = False) -> str:
    """Return an SVG element that shows a part of a drawing; a fixed one in the size in which it was drawn."""
    x, y, width, height = (f"{v:g}" for v in window)
    scale = PIXELS * KEY_SIZE
    size = f' width="{window[2] * scale:.0f}" height="{window[3] * scale:.0f}"' if fixed else ""
    return f'<svg viewBox="{x} {y} {width} {height}"{size} aria-hidden="true">{content}</svg>'


def _alternative(picture: Picture, title: str) -> str:
    """Return what a reader who does not see the figure is told."""
    parts = [title, picture.caption, f"Legend: {picture.legend}" if picture.legend else ""]
    return ". ".join(part.rstrip(".") for part in parts if part) + "."
