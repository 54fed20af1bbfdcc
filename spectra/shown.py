"""Show results in notebooks: small tables and line drawings as HTML, in the colours of the reader's theme."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

if TYPE_CHECKING:
    import pandas as pd

# Width and height of a sparkline, in pixels.
SPARKLINE = (160, 48)
# Arrays up to this length are listed.
LISTED = 6


class Shown:
    """Give a result a table of its fields in notebooks, and what is no dataclass a line of them.

    >>> from spectra import UpdateWindow
    >>> UpdateWindow(3), "<table>" in UpdateWindow(3)._repr_html_()
    (UpdateWindow(window=3, updates=0, coordinates=None), True)
    """

    def _shown(self) -> Mapping[str, object]:
        """Return what the table shows, by name: the fields of a dataclass."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(cast(Any, self))}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._shown().items())})"
        )

    def _repr_html_(self) -> str:
        return table_html(type(self).__name__, self._shown())


def table_html(title: str, fields: Mapping[str, object], drawing: str = "") -> str:
    """Return a small table of names and values, with a drawing beside it.

    >>> table_html("Edge", {"k": 2}).count("<tr>")
    1
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{cell_html(value)}</td></tr>"
        for name, value in fields.items()
    )
    table = f"<table>{rows}</table>"
    if drawing:
        table = f"<div style='display:flex;gap:1em;align-items:center'>{table}{drawing}</div>"
    return f"<div><strong>{html.escape(title)}</strong>{table}</div>"


def cell_html(value: object) -> str:
    """Return a value in a few words: numbers with four digits, long arrays by shape and range.

    >>> cell_html(0.123456), cell_html(None), cell_html(np.arange(9.0))
    ('0.1235', 'unknown', '(9,), 0 to 8')
    """
    if value is None:
        return "unknown"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4g}"
    if isinstance(value, np.ndarray | torch.Tensor):
        return html.escape(_array(value))
    if isinstance(value, tuple) and all(isinstance(part, int | float) for part in value):
        return ", ".join(cell_html(part) for part in value)
    if hasattr(value, "_repr_html_"):
        return cast(Any, value)._repr_html_()
    return html.escape(str(value)).replace("\n", "<br>")


def sparkline(energies: Sequence[float] | np.ndarray) -> str:
    """Return a line drawing of energies by rank as SVG, both axes logarithmic; zeros are left out.

    >>> sparkline([4.0, 2.0, 1.0]).startswith("<svg")
    True
    """
    width, height = SPARKLINE
    values = np.asarray(energies, dtype=float)
    ranks = np.flatnonzero(values > 0)
    # More points than pixels only make the page longer.
    ranks = np.unique(ranks[np.unique(np.geomspace(1, len(ranks), width).round().astype(int)) - 1])
    x, y = _spread(np.log(ranks + 1.0)), _spread(-np.log(values[ranks]))
    points = " ".join(
        f"{4 + (width - 8) * a:.1f},{4 + (height - 8) * b:.1f}" for a, b in zip(x, y, strict=True)
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' role='img' "
        "aria-label='energies by rank, both axes logarithmic'>"
        f"<polyline points='{points}' fill='none' stroke='currentColor' stroke-width='1.5' "
        "stroke-linecap='round'/></svg>"
    )


def data_frame(columns: Mapping[str, object]) -> pd.DataFrame:
    """Return columns as a pandas table.

    Raises:
        ImportError: without pandas.

    >>> data_frame({"rank": [1, 2]}).shape
    (2, 1)
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "to_frame makes a pandas table, and pandas is missing; pip install pandas"
        ) from error
    return pd.DataFrame(dict(columns))


def _array(value: np.ndarray | torch.Tensor) -> str:
    shape = tuple(value.shape)
    if isinstance(value, torch.Tensor):
        return f"{shape}, {str(value.dtype).removeprefix('torch.')}"
    if value.size and value.ndim == 1 and value.size <= LISTED:
        return ", ".join(f"{one:.4g}" for one in value)
    if not value.size:
        return f"{shape}"
    return f"{shape}, {value.min():.4g} to {value.max():.4g}"


def _spread(values: np.ndarray) -> np.ndarray:
    """Return values moved and scaled into [0, 1], 1/2 where all are equal."""
    least, width = values.min(), np.ptp(values)
    return (values - least) / width if width > 0 else np.full(len(values), 0.5)
