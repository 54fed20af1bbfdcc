"""Describe a checkpoint and what of it can be measured, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import CheckpointRun, inspect, is_checkpoint, read
from sims.models.subject import EMBED, FINAL, HEAD
from sims.runs.measure_config import DEPTH_WINDOWS


def describe(path: Path, options: CheckpointOptions) -> dict[str, Any]:
    """Describe a checkpoint, or the last checkpoint of a run, as plain values.

    Returns:
        path, kind, step, tokens (None if not recorded), what the adapter recognised, layers, width, vocabulary,
        parameters (tied ones once), longest_input, sites (name → width), matrices (name → [rows, cols]), gradients
        (matrices with per-sample gradients), windows (window, tier, fits, reason); for a folder of checkpoints also
        steps and gaps.

    Raises:
        CheckpointError: nothing that is known, damaged, or cut.
        MissingExtraError: a folder of Hugging Face without the extra `hf`.
    """
    several: dict[str, Any] = {}
    if is_checkpoint(path):
        found = inspect(path, options)
    else:
        run = CheckpointRun.of(path, options)
        found = run.found[-1]
        several = {"steps": list(run.steps), "gaps": [list(gap) for gap in run.gaps]}
    model = read(found.path, options)
    vocabulary, width = model.shapes[EMBED]
    return {
        "path": str(found.path),
        "kind": found.kind,
        "step": found.step,
        "tokens": found.tokens,
        **several,
        **model.facts,
        "layers": sum(site not in (EMBED, FINAL) for site in model.sites),
        "width": width,
        "vocabulary": vocabulary,
        "parameters": model.parameters,
        "longest_input": model.longest,
        "sites": dict.fromkeys(model.sites, width),
        "matrices": {name: list(shape) for name, shape in model.shapes.items()},
        "gradients": [name for name in model.shapes if name not in (EMBED, HEAD)],
        "windows": windows(width),
    }


def windows(width: int) -> list[dict[str, Any]]:
    """Return which rank windows fit activations of this width, and why not."""
    return [
        {
            "window": list(window),
            "tier": tier,
            "fits": window[1] <= width,
            "reason": f"more than {window[1]} samples"
            if window[1] <= width
            else f"ends beyond the width {width}",
        }
        for tier, chosen in DEPTH_WINDOWS.items()
        for window in chosen
    ]
