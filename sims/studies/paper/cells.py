"""Cells of the published runs, in the order of their worth, and which of them a published number needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sims.studies.paper.published import PUBLISHED, SIZES, STAGES, TRANSITIONS, arrow
from sims.system.errors import QueryError
from toymodel.stages import CHAIN

A, B = "A", "B"
# Runs like those of A at one model seed, on other data.
DATA = "D"
# Sizes of the scan of run B.
SCAN_SIZES = (32, 64, 128, 256, 512)
# Cells of run A that come first: the stages that the statements are about, at every size, and the smallest batch of the
# others. Of the rest run A precedes run B, and of run B the two stages of which something was published.
FIRST = (
    *((stage, size) for stage in ("untied", "muon") for size in SIZES),
    *((stage, SIZES[0]) for stage in ("rope", "baseline")),
)
SCANNED = ("muon", "untied")
# Stages that train on other data, too: a run of theirs ends long before those of the others.
ON_OTHER_DATA = ("untied", "muon")


@dataclass(frozen=True)
class Cell:
    """Name the runs of one stage and batch size.

    Attributes:
        stage, batch_size: of its runs.
        part: "A" or "B", the published set that they belong to; "D" of runs like those of A on other data.

    >>> str(Cell("untied", 32)), str(Cell("muon", 64, "B"))
    ('untied:32', 'muon:64:B')
    """

    stage: str
    batch_size: int
    part: str = A

    def __str__(self) -> str:
        return ":".join((self.stage, str(self.batch_size), *((self.part,) if self.part != A else ())))


def by_worth(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells in the order in which they are worth training.

    >>> found = by_worth([Cell("rope", 128), Cell("muon", 32, "B"), Cell("muon", 512), Cell("untied", 128)])
    >>> [str(cell) for cell in found]
    ['untied:128', 'muon:512', 'rope:128', 'muon:32:B']
    """
    return sorted(dict.fromkeys(cells), key=_place)


def _place(cell: Cell) -> tuple[int, int, int, int]:
    own = (cell.stage, cell.batch_size)
    if cell.part == A and own in FIRST:
        return 0, FIRST.index(own), 0, 0
    if cell.part == DATA:
        return 0, len(FIRST), ON_OTHER_DATA.index(cell.stage), cell.batch_size
    place = list(CHAIN).index(cell.stage) if cell.stage in CHAIN else len(CHAIN)
    if cell.part == A:
        return 1, cell.batch_size, -place, 0
    scanned = SCANNED.index(cell.stage) if cell.stage in SCANNED else len(SCANNED)
    return 2, scanned, -place, cell.batch_size


def chosen(names: Sequence[str], cells: Collection[Cell]) -> list[Cell]:
    """Return the cells of these names, in their order.

    Args:
        names: such as "untied:32" of run A, "muon:64:B" of run B, "untied:32:D" of other data; none takes all cells in
            the order of their worth.
        cells: those that there are.

    Raises:
        QueryError: a name that none has, or one given twice.
    """
    if not names:
        return by_worth(cells)
    known = {str(cell): cell for cell in by_worth(cells)}
    for name in names:
        if name not in known:
            raise QueryError(
                f"--cells has {name!r}, which is not among these runs; choose from {', '.join(known)}"
            )
        if list(names).count(name) > 1:
            raise QueryError(f"--cells has {name!r} more than once; name every cell once")
    return [known[name] for name in names]


def needed(key: str) -> tuple[Cell, ...]:
    """Return the cells whose runs a published number or direction was read from.

    Means over batch sizes need all three of them: the mean over fewer is another number.

    Args:
        key: of `published.PUBLISHED`.

    >>> [str(cell) for cell in needed("tokens untied 128")]
    ['untied:128']
    >>> [str(cell) for cell in needed("early muon")][:2]
    ['muon:32:B', 'muon:64:B']
    """
    return _NEEDED[key]


def _needed(key: str) -> tuple[Cell, ...]:
    words = key.split()
    if key == "early muon":
        return tuple(Cell("muon", size, B) for size in SCAN_SIZES)
    if key == "tail untied":
        return tuple(Cell("untied", size, B) for size in SCAN_SIZES)
    if key.startswith(("final loss", "tokens")):
        return (Cell(words[-2], int(words[-1])),)
    if key == "link":
        return tuple(Cell(stage, size) for stage in STAGES for size in SIZES)
    for pair in TRANSITIONS:
        if arrow(*pair) in key:
            return tuple(Cell(stage, size) for stage in pair for size in SIZES)
    (stage,) = (word for word in words if word in STAGES)
    return tuple(Cell(stage, size) for size in SIZES)


_NEEDED = {key: _needed(key) for key in PUBLISHED}
