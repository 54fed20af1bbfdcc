"""`speclens bridge inspect`: what a checkpoint is and what of it can be measured."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from sims.models.checkpoint_info import CheckpointOptions
from sims.models.describe import describe
from sims.pages.plain import show_table
from sims.runs.tables import json_text

_LISTS = ("sites", "matrices", "gradients", "windows", "steps", "gaps")


@dataclass(frozen=True)
class Inspect:
    """Say what a checkpoint is, its sizes, where in its training it was taken, and what of it can be measured.

    Reads nanoGPT's ckpt.pt, states of the GPT-2 shape (modded-nanogpt up to U-Net skips) as .pt or .safetensors, and
    local folders of Hugging Face (GPT-2, GPT-NeoX, OLMo; extra `hf`). A folder of checkpoints is a run; its last one is
    described. Code in a file is never run.

    Examples:
        speclens bridge inspect out/ckpt.pt
        speclens bridge inspect logs/run --heads 6 --tokens-per-step 524288
        speclens bridge inspect pythia-70m/step1000 --json
    """

    path: tyro.conf.Positional[Path]
    """A checkpoint, or a folder of checkpoints."""
    hints: Annotated[CheckpointOptions, tyro.conf.arg(name="")] = field(default_factory=CheckpointOptions)
    json: bool = False
    """One JSON object."""

    def run(self) -> int:
        """Run it."""
        found = describe(self.path, self.hints)
        if self.json:
            sys.stdout.write(json_text(found) + "\n")
            return 0
        rows = [(name.replace("_", " "), _text(v)) for name, v in found.items() if name not in _LISTS]
        if "steps" in found:
            rows += [("checkpoints", str(len(found["steps"]))), ("steps", _steps(found["steps"]))]
            rows += [("gaps", ", ".join(f"{a}–{b}" for a, b in found["gaps"]) or "none")]
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
        return 0


def _grouped(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Names that differ in the number of their block alone, in one line where their values agree."""
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
