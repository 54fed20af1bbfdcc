"""Factors of per-sample gradients, cut for the matrices of a `Layout`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from sims.models.layout import Projection
from sims.system.errors import MeasureError
from spectra import Factors, Inputs


def factors_of(
    places: Mapping[str, Projection], names: Sequence[str], terms: Mapping[str, Sequence[Factors]]
) -> dict[str, Factors]:
    """Return the factors of matrices: those of their weights, or of some rows of them.

    Parts of a fused weight share their inputs.

    Args:
        places: of all matrices.
        names: the wanted ones, whose modules are linear.
        terms: module → factors of its weight, one entry for each use in the forward pass.

    Raises:
        MeasureError: a weight that is used more than once.
    """
    found: dict[str, Factors] = {}
    shared: dict[str, Inputs] = {}
    for name in names:
        place = places[name]
        uses = terms[place.module]
        if len(uses) != 1:
            raise MeasureError(
                f"the weight of {name} is used {len(uses)} times in a forward pass; its gradient is a sum of terms: "
                "take them from spectra.capture_factors"
            )
        (whole,) = uses
        assert isinstance(whole.d, Tensor)  # only embeddings have one-hot rows
        inputs, d = whole.inputs, whole.d
        if place.turned:
            # Of y = xW the factors are those of W (in, out).
            inputs, d = shared.setdefault(place.module, Inputs(whole.d)), whole.a
        found[name] = Factors(inputs, d if place.rows is None else d[..., place.rows])
    return found
