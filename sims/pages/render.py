"""What every page has in common: the template, its sections, and figures that are also files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from sims.pages.style import to_png, to_svg
from sims.pages.table import Table
from sims.system.files import write_atomic


def render(**content: Any) -> str:
    """The page of a title, subtitle, warnings, findings, sections and provenance."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(
        resources.files("sims.pages").joinpath("template.html").read_text()
    ).render(**content)


def section(
    title: str, *, svg: str = "", caption: str = "", text: str = "", table: Table | None = None
) -> dict[str, Any]:
    """One section of a page."""
    return {"title": title, "text": text, "svg": svg, "caption": caption, "table": table}


def save_figure(figure: Figure, folder: Path, name: str) -> str:
    """Write a figure as PNG and as SVG, and return it as an inline SVG element.

    Raises:
        StoreError: a file cannot be written.
    """
    svg = to_svg(figure)
    # It was laid out for the first file, which took as long as drawing it.
    figure.set_layout_engine("none")
    write_atomic(folder / f"{name}.png", lambda file: to_png(figure, file, dpi=130))
    # A file of its own needs the header that it lacks inline.
    text = f'<?xml version="1.0" encoding="utf-8"?>\n{svg}'
    write_atomic(folder / f"{name}.svg", lambda file: file.write(text.encode()))
    return svg
