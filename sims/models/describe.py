"""Describe a checkpoint and what of it can be measured, before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import CheckpointRun, inspect, is_checkpoint, read
from sims.models.subject import EMBED, FINAL
from sims.models.weights import digests, faulty_weights, shared_weights
from sims.runs.rank_windows import DEPTH_WINDOWS
from toymodel.errors import CheckpointError


def describe(path: Path, options: CheckpointOptions) -> dict[str, Any]:
    """Describe a checkpoint, or the last checkpoint of a run, as plain values.

    Returns:
        path, kind, step, tokens (None if not recorded), what the adapter recognised, layers, width, vocabulary,
        parameters (tied ones once), longest_input, sites (name → width), matrices (name → [rows, cols]), gradients
        (matrices with per-sample gradients), windows (window, tier, fits, reason); for a folder of checkpoints also
        steps, gaps and notes (checkpoints that are damaged, that are not finite, or that share weights).

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
        several = {
            "steps": list(run.steps),
            "gaps": [list(gap) for gap in run.gaps],
            "notes": _notes(run),
        }
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
        "gradients": model.gradients,
        "windows": windows(width),
    }


def _notes(run: CheckpointRun) -> list[str]:
    """Say what is odd about the checkpoints of a run, as `measure` does; each is loaded by itself."""
    found: list[str] = []
    weights: dict[int, dict[str, str]] = {}
    for info, step in zip(run.found, run.steps, strict=True):
        try:
            subject = read(info.path, run.options).subject(info, run.device)
        except CheckpointError as error:
            found.append(f"step {step}: {error}")
            continue
        if fault := faulty_weights(subject):
            found.append(f"step {step}: {fault}")
        weights[step] = digests(subject)
    return [*found, *shared_weights(weights)]


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
