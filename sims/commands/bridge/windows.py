"""`speclens bridge windows`: the covariance spectrum of the data itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

from sims.pages.figure_file import save_figure
from sims.pages.plain import show_table
from sims.runs.measure_config import DEPTH_WINDOWS, HEAD_WINDOW
from sims.runs.tables import write_table
from sims.studies.token_windows.token_windows import WindowSpectrum, read_windows, shuffled, window_spectrum
from sims.text.shards import GPT2_VOCABULARY, shard_files
from spectra import window_exponent

# The rank windows of a d12 model's activations.
EXPONENTS = (HEAD_WINDOW, *DEPTH_WINDOWS["d12"])


@dataclass(frozen=True)
class Windows:
    """Covariance spectrum of the token windows of shards, before any model: what the data alone brings along.

    A window is the counts of its tokens, over √T; its spectrum stands beside that of the same tokens shuffled, which
    follows their frequencies.

    Examples:
        speclens bridge windows shards --figure windows.svg
        speclens bridge windows shards --lengths 16 64 256 --most-tokens 500000 --out windows.csv
    """

    shards: tyro.conf.Positional[Path]
    """A shard, or a folder of shards; of a folder its train shards."""
    lengths: tuple[int, ...] = (64,)
    """Tokens a window."""
    most_tokens: int | None = 2_000_000
    """Tokens to take at most, evenly spaced over the shards."""
    ranks: int = 200
    """Eigenvalues to find."""
    vocabulary: int = GPT2_VOCABULARY
    """Number of tokens of the vocabulary; a shard with a higher one is refused."""
    out: Path | None = None
    """The eigenvalues as a .csv, .json or .parquet file."""
    figure: Path | None = None
    """An .svg or .png file."""

    def run(self) -> int:
        """Run it."""
        files = shard_files(self.shards, "train")
        parts, rows = [], []
        for length in self.lengths:
            windows = read_windows(files, length, self.most_tokens, self.vocabulary)
            for name, tokens in (("text", windows), ("shuffled", shuffled(windows))):
                found = window_spectrum(tokens, self.ranks)
                parts.append(_table(name, found))
                rows.append(_summary(name, found))
        exponents = [f"α({low}–{high})" for low, high in EXPONENTS]
        show_table(["T", "tokens", "windows", "different tokens", "first share", *exponents], rows, left=2)
        table = pd.concat(parts, ignore_index=True)
        if self.out is not None:
            write_table(self.out, table)
        if self.figure is not None:
            # matplotlib takes its second only where a picture is wanted.
            from sims.studies.token_windows.figures import token_windows_figure

            save_figure(self.figure, lambda: token_windows_figure(table))
        return 0


def _table(name: str, found: WindowSpectrum) -> pd.DataFrame:
    values = found.spectrum.values
    facts = {"window": found.window, "tokens": name, "n": found.spectrum.n, "d": found.spectrum.d}
    columns = {"rank": range(1, len(values) + 1), "eigenvalue": values, "share": found.shares}
    return pd.DataFrame({**columns}).assign(**facts)


def _summary(name: str, found: WindowSpectrum) -> list[str]:
    fits = [window_exponent(found.spectrum, low, high) for low, high in EXPONENTS]
    return [
        *(str(found.window), name, str(found.spectrum.n), str(found.spectrum.d), f"{found.shares[0]:.4f}"),
        *("not fitted" if f.status == "not fitted" else f"{f.value:.3f}" for f in fits),
    ]
