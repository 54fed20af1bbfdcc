"""`speclens windows`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from sims.system.command_options import ConfigFile
from sims.system.errors import MeasureError
from sims.text.shards import GPT2_VOCABULARY
from toymodel.limits import LARGEST

# A window or a spectrum of more does not fit into memory.
MOST_TOKENS = 10**7


@dataclass(frozen=True)
class Windows:
    """Compute the covariance spectrum of token windows: the structure of the data before any model.

    A window is the counts of its tokens, over √T. Its spectrum is printed next to that of the same tokens shuffled,
    which follows from their frequencies.

    Examples:
        speclens windows shards --figure windows.svg
        speclens windows shards --lengths 16 64 256 --most-tokens 500000 --out windows.csv
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
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        if not self.lengths:
            raise MeasureError("--lengths is empty; give the tokens of a window, such as 64")
        for name, least, most in (
            ("lengths", 1, MOST_TOKENS),
            ("ranks", 1, MOST_TOKENS),
            ("vocabulary", 2, 2**32),
            ("most_tokens", 2, LARGEST),
        ):
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if value is not None and not least <= value <= most:
                    raise MeasureError(
                        f"--{name.replace('_', '-')} has {value}; it must lie in {least} … {most}"
                    )

    def run(self) -> int:
        """Print and write the spectra; return 0."""
        import pandas as pd

        from sims.pages.answer import answering
        from sims.runs.tables import check_table_file, write_table
        from sims.studies.token_windows.tables import eigenvalues, show_windows
        from sims.studies.token_windows.token_windows import read_windows, shuffled, window_spectrum
        from sims.text.shards import shard_files

        if self.out is not None:
            check_table_file(self.out)
        if self.figure is not None:
            # Loading matplotlib takes a second: only when a figure is asked for.
            from sims.pages.figure_file import check_figure_file

            check_figure_file(self.figure)
        files = shard_files(self.shards, "train")
        spectra = []
        for length in self.lengths:
            windows = read_windows(files, length, self.most_tokens, self.vocabulary)
            for name, tokens in (("text", windows), ("shuffled", shuffled(windows))):
                spectra.append((name, window_spectrum(tokens, self.ranks)))
        table = pd.concat([eigenvalues(*spectrum) for spectrum in spectra], ignore_index=True)
        with answering(self.json) as answer:
            show_windows(spectra, table, answer)
        if self.out is not None:
            write_table(self.out, table)
        if self.figure is not None:
            from sims.pages.figure_file import save_figure
            from sims.studies.token_windows.figures import token_windows_figure

            save_figure(self.figure, lambda: token_windows_figure(table))
        return 0
