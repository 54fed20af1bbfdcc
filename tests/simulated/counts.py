"""What a program asks of a device: launches, synchronisations, transfers, and the lines that do it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
_OWN = str(Path(__file__).parent)
_PLACES = tuple(f"{ROOT / name}/" for name in ("toymodel", "sims", "spectra", "theory", "notebooks", "tests"))

# Operations after which the host waits for a number, a size or an error code of the device. Copies between the devices
# are not listed: they wait unless they are non-blocking and the memory of the host is pinned.
WAITING = frozenset(
    {"_local_scalar_dense", "equal", "nonzero", "masked_select", "repeat_interleave", "multinomial"}
    | {"_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc"}
    | {"_linalg_eigh", "linalg_eig", "linalg_eigvals", "_linalg_svd", "linalg_qr", "linalg_lstsq"}
    | {"linalg_cholesky", "linalg_inv", "_linalg_solve_ex"}
)
# Operations that start nothing on the device, besides views.
NO_LAUNCH = frozenset(
    {"_unsafe_view", "lift", "lift_fresh", "set_", "resize_", "_version"}
    | {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
)
# Operations that read as much of a table as they return.
_LOOKUPS = frozenset({"index", "embedding", "gather", "index_select"})


@dataclass(frozen=True)
class Transfer:
    """Describe a copy between the host and the device; `waits` tells whether it synchronises."""

    to: Literal["device", "host"]
    bytes: int
    line: str
    waits: bool


@dataclass
class Counts:
    """Collect what the device was asked to do.

    Attributes:
        operations: number of launches by operation.
        lines: number of launches by line of the project ("toymodel/ensemble.py:172").
        synchronisations: by "operation line".
        transfers: in order.
        bytes: read and written by the launched operations.
    """

    operations: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    synchronisations: Counter[str] = field(default_factory=Counter)
    transfers: list[Transfer] = field(default_factory=list)
    bytes: int = 0

    @property
    def launches(self) -> int:
        """Return the number of operations that were started on the device."""
        return self.operations.total()

    @property
    def waits(self) -> int:
        """Return how often the host waited for the device."""
        return self.synchronisations.total()

    def moved(self, to: Literal["device", "host"]) -> int:
        """Return the bytes copied in one direction."""
        return sum(t.bytes for t in self.transfers if t.to == to)

    def launched(self, name: str, read: list[int], written: list[int]) -> None:
        """Add an operation, with the bytes of each tensor that it reads and writes."""
        self.operations[name] += 1
        self.lines[line()] += 1
        self.bytes += sum(written) + (sum(written) + sum(read[1:]) if name in _LOOKUPS else sum(read))

    def waited(self, name: str) -> None:
        """Add a synchronisation."""
        self.synchronisations[f"{name} {line()}"] += 1

    def transferred(self, to: Literal["device", "host"], size: int, waits: bool) -> None:
        """Add a copy, which is a synchronisation too where it waits."""
        self.transfers.append(Transfer(to, size, line(), waits))
        if waits:
            self.waited(f"copy to the {to}")

    def __str__(self) -> str:
        moved = ", ".join(f"{self.moved(to)} bytes to the {to}" for to in ("device", "host"))
        parts = [
            f"{self.launches} launches, {self.waits} synchronisations, {len(self.transfers)} transfers ({moved})"
        ]
        parts += [f"  {count} × {name}" for name, count in self.synchronisations.most_common()]
        parts += [f"  {t.bytes} bytes to the {t.to} {t.line}" for t in self.transfers]
        return "\n".join(parts)


def line() -> str:
    """Return the innermost line of the project that is being executed, "?" outside of it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PLACES) and not file.startswith(_OWN):
            return f"{file[len(str(ROOT)) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"
