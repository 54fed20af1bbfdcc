"""Draw the pictures of docs/plots.md with the code of the page.

    python tests/studies/plot_pictures.py [--sizes FOLDER]

--sizes draws every kind of plot there, at 6×4 and 3×2 inches, on light and dark ground, to be looked at.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from spectra import BetaNull, Estimate, Spectrum, covariance_spectrum, weight_spectrum

DOCS = Path(__file__).parents[2] / "docs"
# Axes of the page's blocks, in their order.
PICTURES = ("plots-spectrum", "plots-estimates")


def pictures() -> None:
    """Run the blocks of the page and keep the last axes of each picture."""
    text = (DOCS / "plots.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    with plt.rc_context({"figure.figsize": (5, 3.2)}):
        for name, block in zip(PICTURES, blocks, strict=False):
            exec(block, names)
            axes = names["ax"]
            assert isinstance(axes, Axes)
            axes.figure.savefig(DOCS / "figures" / f"{name}.png", dpi=100)


def gallery(folder: Path) -> None:
    """Draw every kind of plot at two sizes and on two grounds."""
    folder.mkdir(parents=True, exist_ok=True)
    for style in ("default", "dark_background"):
        for width, height in ((6, 4), (3, 2)):
            with plt.style.context(style):
                drawn = kinds()
                figure = plt.figure(figsize=(3 * width, -(-len(drawn) // 3) * height), layout="constrained")
                parts = figure.subfigures(-(-len(drawn) // 3), 3).flat
                for part, (name, draw) in zip(parts, drawn.items(), strict=False):
                    ax = part.subplots()
                    draw(ax)
                    ax.set_title(name)
                figure.savefig(folder / f"{style}-{width}x{height}.png", dpi=100)
                plt.close(figure)


def kinds() -> dict[str, Callable[[Axes], object]]:
    """Return what a user may draw, by name."""
    rng = np.random.default_rng(0)
    data = rng.standard_normal((600, 128)) * np.arange(1, 129) ** -0.6
    one = covariance_spectrum(data)
    low_rank = weight_spectrum(rng.standard_normal((60, 40)) @ np.diag(np.r_[np.ones(30), np.zeros(10)]))
    flagged = Estimate(1.68, 1.2, np.inf, status="flagged", reason="bias")
    missing = Estimate.not_fitted("the window 50–200 does not fit in rank 128")
    return {
        "one window": lambda ax: one.plot(ax, window=(10, 40)),
        "two windows": lambda ax: one.plot(ax, window=[(10, 40), (50, 120)]),
        "a fit with interval": lambda ax: one.plot(ax, window=(10, 40), fit=Estimate(1.2, 1.0, 1.4)),
        "few samples": lambda ax: covariance_spectrum(data[:100]).plot(ax, window=(50, 90)),
        "low rank": lambda ax: low_rank.plot(ax, window=(20, 35), label="blocks.0.mlp.fc"),
        "n and d unknown": lambda ax: Spectrum(np.arange(1, 20) ** -1.0).plot(ax, window=(2, 12)),
        "two spectra": lambda ax: [
            s.plot(ax, scale="share", label=n) for n, s in (("a", one), ("b", low_rank))
        ],
        "one value": lambda ax: Spectrum([2.0], n=5, d=3).plot(ax),
        "one estimate": lambda ax: Estimate(0.6, 0.5, 0.7).plot(ax, label="H_S", null=BetaNull(2.0, 6.0)),
        "rows": lambda ax: [e.plot(ax, label=f"α {i}", null=0.3) for i, e in enumerate((flagged, missing))],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/plots.md.")
    parser.add_argument("--sizes", type=Path, metavar="FOLDER", help="draw every kind of plot here instead")
    sizes: Path | None = parser.parse_args().sizes
    if sizes is None:
        pictures()
    else:
        gallery(sizes)
