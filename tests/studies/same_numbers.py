"""Compare two folders of runs value by value: every row, spectrum, loss, outcome and checkpoint.

    python tests/studies/same_numbers.py OLD NEW

reads run folders of every readable format below both and prints how many values were compared, how many of them are
equal to the last bit, the largest relative difference |a − b| / max(|a|, |b|), and what only one of the two has.
Seconds and throughput are left out, as is provenance. Exits with 1 where anything differs or is missing, with 2 where
a folder cannot be read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sims.pages.plain import show_table  # noqa: E402
from sims.runs.columns import WHICH  # noqa: E402
from sims.runs.folders import flat  # noqa: E402
from sims.runs.store import RunFolder, run_folders  # noqa: E402
from sims.system.errors import StoreError  # noqa: E402

ROW_KEY = ["step", "quantity", "object", "site", *WHICH]
SPECTRUM_KEY = ["step", "object", "site", "kind"]
# Fields of an outcome, and quantities of rows, that depend on the clock.
CLOCK = ("seconds", "tokens_per_second", "mfu")

# What run.json says of the version that wrote it.
VERSIONS = ("format", "measured")


@dataclass
class Tally:
    """Count the values of one kind.

    Attributes:
        compared, equal: values that both folders have, and those that are equal to the last bit.
        largest: relative difference; infinite between texts, and between a number and NaN.
        missing: names of what only one folder has.
    """

    compared: int = 0
    equal: int = 0
    largest: float = 0.0
    missing: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether nothing differs and nothing is missing."""
        return self.compared == self.equal and not self.missing

    def numbers(self, old: Any, new: Any) -> None:
        """Compare two arrays of one shape element by element; NaN equals NaN."""
        a, b = np.asarray(old, float), np.asarray(new, float)
        same = ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))
        self.compared += same.size
        self.equal += int(same.sum())
        x, y = a[~same], b[~same]
        if len(x):
            scale = np.maximum(np.abs(x), np.abs(y))
            # Zeros of different sign differ by 0; a number and NaN by infinity.
            share = np.where(np.isfinite(x - y), 0.0, math.inf)
            np.divide(np.abs(x - y), scale, out=share, where=np.isfinite(x - y) & (scale > 0))
            self.largest = max(self.largest, float(share.max()))

    def values(self, old: Sequence[Any], new: Sequence[Any]) -> None:
        """Compare texts, truth values and missing values one by one."""
        same = [_plain(a) == _plain(b) for a, b in zip(old, new, strict=True)]
        self.compared += len(same)
        self.equal += sum(same)
        self.largest = self.largest if all(same) else math.inf


def compare(old: Path, new: Path) -> dict[str, Tally]:
    """Compare all runs below two folders.

    Raises:
        StoreError: no run below one of them, or one that cannot be read.
    """
    sides = [{folder.path.name: folder for folder in run_folders(path)} for path in (old, new)]
    for path, found in zip((old, new), sides, strict=True):
        if not found:
            raise StoreError(f"{path} holds no run folder; give a folder of runs")
    kinds = ("runs", "configurations", "outcomes", "losses", "rows", "spectra", "checkpoints")
    tallies = {kind: Tally() for kind in kinds}
    first, second = sides
    for name in _both(tallies["runs"], first, second):
        _compare_runs(tallies, name, first[name], second[name])
    return tallies


def _compare_runs(tallies: Mapping[str, Tally], name: str, old: RunFolder, new: RunFolder) -> None:
    complete = (old.done, new.done)
    tallies["runs"].values([complete[0]], [complete[1]])
    identities = [{k: v for k, v in run.identity().items() if k not in VERSIONS} for run in (old, new)]
    _compare_fields(tallies["configurations"], name, *identities)
    _compare_checkpoints(tallies["checkpoints"], name, old, new)
    if not all(complete):
        tallies["rows"].missing += [f"{name}: rows of an incomplete run"]
        return
    outcomes = [{k: v for k, v in run.outcome.items() if k not in CLOCK} for run in (old, new)]
    _compare_fields(tallies["outcomes"], name, *outcomes)
    rows = [run.rows() for run in (old, new)]
    rows = [table[~table["quantity"].isin(CLOCK)] for table in rows]
    for kind, losses in (("losses", True), ("rows", False)):
        chosen = [_keyed(table[(table["object"] == "loss") == losses], ROW_KEY) for table in rows]
        _compare_tables(tallies[kind], name, *chosen)
    _compare_tables(tallies["spectra"], name, *(_keyed(run.spectra(), SPECTRUM_KEY) for run in (old, new)))


def _compare_fields(tally: Tally, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    flat_old, flat_new = flat(dict(old)), flat(dict(new))
    for key in _both(tally, flat_old, flat_new, f"{name}: "):
        a, b = flat_old[key], flat_new[key]
        if isinstance(a, float) and isinstance(b, float):
            tally.numbers([a], [b])
        else:
            tally.values([a], [b])


def _compare_tables(tally: Tally, name: str, old: pd.DataFrame, new: pd.DataFrame) -> None:
    keys = _both(tally, old.index, new.index, f"{name}: ")
    a, b = old.loc[keys], new.loc[keys]
    for column in old.columns:
        if column == "values":
            for key, x, y in zip(keys, a[column], b[column], strict=True):
                if len(x) == len(y):
                    tally.numbers(x, y)
                else:
                    tally.missing.append(f"{name}: {key} has {len(x)} values and {len(y)}")
        elif pd.api.types.is_float_dtype(a[column]) and pd.api.types.is_float_dtype(b[column]):
            tally.numbers(a[column].to_numpy(), b[column].to_numpy())
        else:
            tally.values(a[column].tolist(), b[column].tolist())


def _compare_checkpoints(tally: Tally, name: str, old: RunFolder, new: RunFolder) -> None:
    one, two = ({path.name: path for path in run.checkpoints()} for run in (old, new))
    for file in _both(tally, one, two, f"{name}: "):
        with safe_open(one[file], framework="pt") as first, safe_open(two[file], framework="pt") as second:
            for key in _both(tally, first.keys(), second.keys(), f"{name}: {file} "):
                a, b = first.get_tensor(key), second.get_tensor(key)
                if a.shape == b.shape and a.dtype == b.dtype:
                    # Doubles hold every value of the narrower types.
                    tally.numbers(a.double().numpy(), b.double().numpy())
                else:
                    shapes = f"{a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
                    tally.missing.append(f"{name}: {file} {key} is {shapes}")


def _keyed(table: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Index a table by its key as one text, with a number where it repeats."""
    columns = zip(*(table[name] for name in key), strict=True)
    texts = pd.Series([" ".join(map(str, values)) for values in columns], table.index, dtype=str)
    again = texts.groupby(texts).cumcount().astype(str)
    rest = table.drop(columns=list(key))
    return rest.set_index(texts.where(again == "0", texts + " #" + again))


def _both(tally: Tally, old: Iterable[str], new: Iterable[str], label: str = "") -> list[str]:
    """Return the names that both have, in the order of the first; note the others as missing."""
    one, two = list(old), list(new)
    tally.missing += [f"{label}{name} (in the first only)" for name in one if name not in set(two)]
    tally.missing += [f"{label}{name} (in the second only)" for name in two if name not in set(one)]
    return [name for name in one if name in set(two)]


def _plain(value: Any) -> Any:
    return None if value is None or value is pd.NA or value != value else value


def main(arguments: Sequence[str]) -> int:
    """Print the table; return 0 where everything is equal, else 1, or 2 for a misuse."""
    if len(arguments) != 2:
        print(f"usage: {Path(__file__).name} OLD NEW", file=sys.stderr)
        return 2
    try:
        tallies = compare(*map(Path, arguments))
    except StoreError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    rows = [
        (k, str(t.compared), str(t.equal), f"{t.largest:.3g}", str(len(t.missing)))
        for k, t in tallies.items()
    ]
    show_table(("of", "compared", "equal", "largest difference", "missing"), rows, left=1)
    for kind, tally in tallies.items():
        for name in tally.missing[:10]:
            print(f"missing of {kind}: {name}")
    return 0 if all(t.same for t in tallies.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
