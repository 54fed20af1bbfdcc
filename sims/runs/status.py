"""What state a run folder is in."""

from __future__ import annotations

from typing import Literal, get_args

Status = Literal["done", "target", "diverged", "pruned", "running", "waiting", "failed", "damaged", "foreign"]
STATUSES: tuple[Status, ...] = get_args(Status)
# A folder with one of these statuses holds the tables of a run that came to its end.
COMPLETE: tuple[Status, ...] = ("done", "target", "diverged", "pruned")
