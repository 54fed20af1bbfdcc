"""The description of a checkpoint in the terminal."""

from __future__ import annotations

import re
from typing import Any

from sims.pages.plain import show_table

_LISTS = ("sites", "matrices", "gradients", "windows", "steps", "gaps", "notes")


def show_checkpoint(found: dict[str, Any]) -> None:
    """Print the description of a checkpoint (see `sims.models.describe.describe`)."""
    rows = [(name.replace("_", " "), _text(v)) for name, v in found.items() if name not in _LISTS]
    if "steps" in found:
        rows += [("checkpoints", str(len(found["steps"]))), ("steps", _steps(found["steps"]))]
        rows += [("gaps", ", ".join(f"{a}–{b}" for a, b in found["gaps"]) or "none")]
        rows += [("note", note) for note in found["notes"]]
    show_table(("checkpoint", ""), rows, left=2)
    print()
    show_table(("site", "width"), _grouped(found["sites"]))
    print()
    gradients = set(found["gradients"])
    shapes = {name: f"{r} × {c}" for name, (r, c) in found["matrices"].items()}
    marked = {name: (shape, "yes" if name in gradients else "no") for name, shape in shapes.items()}
    groups = _grouped(marked)
    show_table(("matrix", "shape", "gradients"), [(name, *value) for name, value in groups])
    print()
    windows = [
        (f"{w['window'][0]}–{w['window'][1]}", w["tier"], "yes" if w["fits"] else "no", w["reason"])
        for w in found["windows"]
    ]
    show_table(("ranks", "tier", "fits", "needs"), windows, left=4)


def _grouped(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return names and values, with blocks of equal values in one line."""
    groups: dict[tuple[str, Any], list[int]] = {}
    for name, value in values.items():
        number = re.search(r"(?<=^blocks\.)\d+", name)
        pattern = name if number is None else re.sub(r"(?<=^blocks\.)\d+", "{}", name)
        groups.setdefault((pattern, value), []).extend([] if number is None else [int(number[0])])
    lines = []
    for (pattern, value), blocks in groups.items():
        span = f"{blocks[0]}–{blocks[-1]}" if len(blocks) > 1 else str(*blocks)
        lines.append((pattern.format(span), value if isinstance(value, tuple) else str(value)))
    return lines


def _steps(steps: list[int], shown: int = 8) -> str:
    if len(steps) <= shown:
        return ", ".join(map(str, steps))
    return ", ".join(map(str, steps[: shown - 2])) + f", …, {steps[-1]}"


def _text(value: Any) -> str:
    if value is None:
        return "not said"
    return f"{value:,}" if isinstance(value, int) else str(value)
