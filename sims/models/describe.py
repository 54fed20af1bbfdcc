"""What a checkpoint is and what of it can be measured, before anything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions
from sims.models.checkpoints import CheckpointRun, build, is_checkpoint, load, look
from sims.models.formats import own as trained
from sims.models.module import EMBED, FINAL, HEAD
from sims.models.transformer import TransformerSubject
from sims.runs.measure_config import HEAD_WINDOW, Window

# Rank windows of the exponents by depth: twelve blocks, and thirty-six or more (arXiv 2605.05683).
TIERS: dict[str, tuple[Window, ...]] = {
    "any": (HEAD_WINDOW,),
    "d12": ((10, 40), (40, 90), (90, 200)),
    "d36": ((100, 200), (200, 400), (400, 800)),
}


def describe(path: Path, hints: CheckpointOptions) -> dict[str, Any]:
    """A checkpoint, or a run by its last checkpoint, as plain values.

    Returns:
        path, kind, step, tokens (None where nothing says), what the adapter recognised, layers, width, vocabulary,
        parameters (tied ones once), longest_input, sites (name → width), matrices (name → [rows, cols]), gradients
        (matrices with per-sample gradients), windows (window, tier, fits, reason); for a folder of checkpoints also
        steps and gaps.

    Raises:
        CheckpointError: nothing that is known, damaged, or cut.
        MissingExtraError: a folder of Hugging Face without the extra `hf`.
    """
    several: dict[str, Any] = {}
    if is_checkpoint(path):
        found = look(path, hints)
    else:
        run = CheckpointRun.of(path, hints)
        found = run.found[-1]
        several = {"steps": list(run.steps), "gaps": [list(gap) for gap in run.gaps]}
    parts = _parts(found, hints)
    vocabulary, width = parts.shapes[EMBED]
    return {
        "path": str(found.path),
        "kind": found.kind,
        "step": found.step,
        "tokens": found.tokens,
        **several,
        **parts.facts,
        "layers": sum(site not in (EMBED, FINAL) for site in parts.sites),
        "width": width,
        "vocabulary": vocabulary,
        "parameters": parts.parameters,
        "longest_input": parts.length,
        "sites": dict.fromkeys(parts.sites, width),
        "matrices": parts.shapes,
        "gradients": [name for name in parts.shapes if name not in (EMBED, HEAD)],
        "windows": windows(width),
    }


@dataclass(frozen=True)
class _Parts:
    shapes: dict[str, list[int]]
    sites: tuple[str, ...]
    parameters: int
    length: int | None
    facts: Mapping[str, Any]


def _parts(found: CheckpointInfo, hints: CheckpointOptions) -> _Parts:
    if found.kind == trained.KIND:
        subject = load(found.path, hints)
        assert isinstance(subject, TransformerSubject)
        shapes = {name: list(matrix.shape) for name, matrix in subject.matrices.items()}
        count = subject.transformer.parameter_count()
        return _Parts(shapes, subject.sites, count, subject.config.sizes.length, trained.facts(subject))
    built = build(found.path, hints)
    shapes = {name: list(part.of(built.model).shape) for name, part in built.layout.matrices.items()}
    count = sum(p.numel() for p in built.model.parameters())
    return _Parts(shapes, tuple(built.layout.sites), count, built.layout.length, built.facts)


def windows(width: int) -> list[dict[str, Any]]:
    """Which rank windows fit activations of this width, and what the others would need."""
    return [
        {
            "window": list(window),
            "tier": tier,
            "fits": window[1] <= width,
            "reason": f"more than {window[1]} samples"
            if window[1] <= width
            else f"ends beyond the width {width}",
        }
        for tier, chosen in TIERS.items()
        for window in chosen
    ]
