"""`speclens bands`: Fourier concentration on twenty bands, and how many seeds and bands a difference needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console

from sims.pages.number import intervals
from sims.pages.table import Table
from sims.pages.write import pipes, write_tables
from sims.studies.bands.measured import BandPlan, band_report, default_named
from sims.studies.bands.variance import SOURCES
from sims.studies.stored import chosen_runs


@dataclass(frozen=True)
class Bands:
    """Measure H_S and H_peak on many bands of stored checkpoints: by position, over training, and what they vary with.

    Needs complete runs of at least two seeds, with checkpoints; nothing is trained. About three minutes of one core
    for twelve runs of the demo's size.

    Examples:
        speclens demo --seeds 3
        speclens bands demo
        speclens bands demo --bands 30 --fractions 0.25 0.5 0.75 1
    """

    folder: tyro.conf.Positional[Path]
    """A folder of runs, made by `speclens demo`, `train` or `sweep`."""
    bands: int = 20
    """Number of bands, half of them inside the training set."""
    named: tuple[tuple[int, int], ...] = ()
    """Bands (modulus offset) that are always measured; by default the two published ones where they fit."""
    samples: int = 2
    """Independent probe samples a band and seed."""
    per_state: int = 8
    """Sequences for each state of a band in one clean sample."""
    fractions: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Parts of training whose nearest checkpoints are measured."""
    batch_size: int | None = None
    """The runs of this batch size; by default the smallest."""
    out: Path | None = None
    """Folder for tables and figures; by default FOLDER/bands."""

    def run(self) -> int:
        """Run it."""
        console = Console()
        started = time.process_time()
        vocab = chosen_runs(self.folder, self.batch_size)[0][1].task.vocab
        plan = BandPlan(
            bands=self.bands,
            named=self.named or default_named(vocab),
            samples=self.samples,
            per_state=self.per_state,
            fractions=self.fractions,
            batch_size=self.batch_size,
        )
        report = band_report(self.folder, plan, console)
        shown = shown_tables(report.tables)
        tables = {**report.tables, "measured": report.measured}
        out = self.out or self.folder / "bands"
        page = write_tables(out, "Concentration on many bands", tables, report.figures, shown)
        for heading in ("Parts of the variance", "Seeds needed"):
            console.print(
                f"\n{heading}",
                *pipes(Table.of_frame(shown[heading])),
                sep="\n",
                highlight=False,
                soft_wrap=True,
            )
        seconds = time.process_time() - started
        console.print(f"\n{seconds:.0f} s of processor time; page: {page}", highlight=False, soft_wrap=True)
        return 0


def shown_tables(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables of `band_report` as a reader wants them: intervals in brackets, the essential columns."""
    contrast = ["quantity", "regime", "kind", "stage"]
    position, training, parts = (tables[name] for name in ("position", "training", "components"))
    planning = tables["planning"]
    needed = planning.assign(
        seeds=[
            f"{'>1000' if pd.isna(a) else a} / {'–' if n == 1 else '>1000' if pd.isna(b) else b}"
            for a, b, n in zip(planning["new_seeds"], planning["new_both"], planning["bands"], strict=True)
        ]
    ).pivot_table(
        index=["quantity", "target", "origin", "size"],
        columns="bands",
        values="seeds",
        aggfunc="first",
        sort=False,
    )
    needed.columns = [f"bands: {n}" for n in needed.columns]
    return {
        "Along the sequence": _contrast(position, contrast, "position"),
        "Over training": _contrast(training, contrast, "fraction"),
        "Parts of the variance": _parts(parts[parts["kind"] == "all"]),
        "Parts of the variance, by kind of band": _parts(parts[parts["kind"] != "all"]),
        "Seeds needed": needed.reset_index(),
        "Bands at the end of training": _bands(tables["bands"]),
    }


def _contrast(table: pd.DataFrame, keys: list[str], axis: str) -> pd.DataFrame:
    made = table[[*keys, "first", "top", f"top_{axis}", "last", f"last_{axis}"]].copy()
    made["last − first"] = intervals(table, "change", "low", "high")
    made["last − top"] = intervals(table, "after_top", "after_low", "after_high")
    return made.assign(**{"loss first − last": table["context_gain"]})


def _parts(parts: pd.DataFrame) -> pd.DataFrame:
    made = parts[["quantity", "target", "kind", "bands", "left_out"]].copy()
    made["mean, bands in general"] = intervals(parts, "mean", "low", "high")
    made["mean, these bands"] = intervals(parts, "mean", "low_here", "high_here")
    for source in SOURCES:
        spread = parts[[source, f"{source} low", f"{source} high"]] ** 0.5
        raw = parts[f"{source} raw"]
        text = intervals(spread, source, f"{source} low", f"{source} high")
        made[f"sd {source}"] = [
            f"{t} (raw variance {r:.2g})" if r < 0 else t for t, r in zip(text, raw, strict=True)
        ]
    return made


def _bands(bands: pd.DataFrame) -> pd.DataFrame:
    text = bands.assign(
        cell=[
            f"{h:.2f} / {p:.3f}" if h == h else "–"
            for h, p in zip(bands["h_s"], bands["h_peak"], strict=True)
        ]
    )
    index = ["band", "kind", "known", "h_s_null"]
    wide = text.assign(h_s_null=text["h_s_null"].round(3)).pivot_table(
        index=index, columns="stage", values="cell", aggfunc="first", sort=False
    )
    wide.columns = [f"{stage}: H_S / H_peak" for stage in wide.columns]
    peaks = text.groupby("band")["h_peak_null"].mean()
    return wide.reset_index().assign(h_peak_null=lambda t: t["band"].map(peaks))
