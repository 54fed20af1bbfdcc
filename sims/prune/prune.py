"""Prune a model: block after block, each with the inputs that the blocks before it give once they are pruned.

    prunable(subject)                               the matrices, and the site that feeds each
    counts = allocate(scores, entries(subject), 0.5, 0.2)
    prune(subject, counts, "sparsegpt", sequences)

Pruned are the linear maps inside blocks: not embedding and head, nor tables, routers and experts, which do not read
every position. q, k and v of a fused weight are three matrices of their own, and so are gate and up; a fused weight
whose parts are not known is one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from sims.models.block_list import numbered, within
from sims.models.subject import EMBED, HEAD, Subject
from sims.models.weights import faulty_weights
from sims.prune.allocation import block_of
from sims.prune.inputs import block_moments
from sims.prune.least_squares import output_error
from sims.prune.magnitude import prune_magnitude
from sims.prune.sparsegpt import prune_sparsegpt
from sims.prune.wanda import prune_wanda
from sims.system.errors import MeasureError
from toymodel.precision import full_precision

# From a matrix (rows, cols), XᵀX/n (cols, cols) of its inputs and a number of zeros to the pruned matrix.
METHODS: Mapping[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "magnitude": prune_magnitude,
    "wanda": prune_wanda,
    "sparsegpt": prune_sparsegpt,
}
# Those that do not look at the inputs.
WITHOUT_INPUTS = ("magnitude",)


@dataclass(frozen=True, eq=False)
class Pruned:
    """A pruned model.

    Attributes:
        subject: it.
        table: one row a matrix: matrix, block, rows, columns, zeros (weights that are zero), share (of them), error
            ‖(W − Ŵ)X‖²/‖WX‖² of its outputs on the calibration text, NaN without any.
    """

    subject: Subject
    table: pd.DataFrame

    @property
    def sparsity(self) -> float:
        """Return the share of zeros among the weights of all pruned matrices."""
        return float(self.table["zeros"].sum() / (self.table["rows"] * self.table["columns"]).sum())


def prunable(subject: Subject) -> dict[str, str]:
    """Return the matrices that can be pruned, in the order of the model, and the site that feeds each.

    Raises:
        MeasureError: there are none.
    """
    blocks = numbered(subject.sites)
    sites = subject.input_sites
    found = {
        name: sites[name]
        for name in subject.matrices
        if name in sites and name not in (EMBED, HEAD) and within(name, blocks)
    }
    if not found:
        raise MeasureError(
            "this model has no linear maps in blocks to prune; its blocks must be sites named blocks.0, blocks.1, …"
        )
    return found


def entries(subject: Subject) -> dict[str, int]:
    """Return the number of weights of every matrix that can be pruned."""
    matrices = subject.matrices
    return {name: matrices[name].numel() for name in prunable(subject)}


def zeros_of(subject: Subject) -> dict[str, int]:
    """Return the number of weights that are zero already, of every matrix that can be pruned."""
    matrices = subject.matrices
    return {name: int((matrices[name] == 0).sum()) for name in prunable(subject)}


def refuse_excess(held: Mapping[str, int], counts: Mapping[str, int]) -> None:
    """Refuse to prune matrices to fewer zeros than they have: the total would not be that of other allocations.

    Args:
        held: of `zeros_of`.
        counts: matrix → number of zeros that are asked for.

    Raises:
        MeasureError: a matrix has more zeros than that.
    """
    if name := next((name for name, count in counts.items() if held[name] > count), None):
        raise MeasureError(
            f"{name} has {held[name]} zeros already, and {counts[name]} are asked for; zeros are equal only if no "
            "matrix has more than its share: raise the sparsity, lower ε, or prune a checkpoint with fewer zeros"
        )


@full_precision()
def prune(
    subject: Subject,
    counts: Mapping[str, int],
    method: str,
    sequences: Tensor | None = None,
    done: Callable[[int, int], None] | None = None,
) -> Pruned:
    """Prune matrices of a model; the model itself does not change.

    Args:
        subject: the model.
        counts: matrix → number of weights that become zero; other matrices are left alone.
        method: magnitude, wanda or sparsegpt.
        sequences: (n, T+1) tokens of calibration. Without them magnitude prunes, and the errors are NaN.
        done: called with the number of pruned blocks, and of all.

    Raises:
        MeasureError: an unknown method or matrix, a method that needs sequences and has none, weights that are not
            finite, or zeros that a matrix has already and a method cannot count among those asked for.
    """
    feeds = prunable(subject)
    if method not in METHODS:
        raise MeasureError(f"no method {method!r} of pruning; methods are {', '.join(METHODS)}")
    if sequences is None and method not in WITHOUT_INPUTS:
        raise MeasureError(f"{method} weighs weights by their inputs; give sequences of calibration")
    if unknown := [name for name in counts if name not in feeds]:
        raise MeasureError(f"{', '.join(unknown[:4])} cannot be pruned; this model has {', '.join(feeds)}")
    if fault := faulty_weights(subject):
        raise MeasureError(f"{fault}; prune a checkpoint before the run diverged")
    refuse_excess(zeros_of(subject), counts)
    blocks = {name: block_of(name) for name in feeds if name in counts}
    order = list(dict.fromkeys(blocks.values()))
    moments = None if sequences is None else block_moments(subject, sequences)
    pruned, rows = subject, []
    for number, block in enumerate(order):
        own = [name for name in blocks if blocks[name] == block]
        sites = dict.fromkeys(feeds[name] for name in own)
        grams = {} if moments is None else moments(pruned, int(block.removeprefix("blocks.")), tuple(sites))
        for name in own:
            old = pruned.matrices[name]
            gram = grams.get(feeds[name])
            new = METHODS[method](old, old.new_empty(0, 0) if gram is None else gram, counts[name])
            pruned = pruned.with_matrix(name, new)
            rows.append(_row(name, block, old, new, gram))
            if (zeros := rows[-1]["zeros"]) != counts[name]:
                raise MeasureError(
                    f"{name} has {zeros} zeros once {method} has pruned it, and {counts[name]} are asked for: "
                    "those that it had do not lie where the method prunes; take magnitude, raise the sparsity, or "
                    "prune a checkpoint with fewer zeros"
                )
        if done is not None:
            done(number + 1, len(order))
    return Pruned(pruned, pd.DataFrame(rows))


def _row(name: str, block: str, old: Tensor, new: Tensor, gram: Tensor | None) -> dict[str, object]:
    zeros = int((new == 0).sum())
    error = float("nan")
    if gram is not None:
        whole = output_error(old, torch.zeros_like(old), gram)
        error = output_error(old, new, gram) / whole if whole > 0 else 0.0
    return {
        "matrix": name,
        "block": block,
        "rows": old.shape[0],
        "columns": old.shape[1],
        "zeros": zeros,
        "share": zeros / old.numel(),
        "error": error,
    }
