"""Where the sites and the matrices of a `torch.nn.Module` are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sims.models.reading import some
from sims.models.state import not_weights
from sims.models.subject import EMBED, FINAL, input_site
from sims.system.errors import MeasureError


@dataclass(frozen=True, eq=False)
class Projection:
    """The place of one matrix in a model.

    Args:
        module: name of a module with a 2-D ``weight``, as in ``model.named_modules()``.
        rows: rows of the weight that form the matrix (q of a fused q, k, v); None for all of them.
    """

    module: str
    rows: slice | Tensor | None = None

    def of(self, model: nn.Module) -> Tensor:
        """Return the matrix (rows, cols): a view, or a copy if the rows are not adjacent."""
        weight = model.get_submodule(self.module).weight
        assert isinstance(weight, Tensor)  # Layout.check
        return weight.detach() if self.rows is None else weight.detach()[self.rows]


@dataclass(frozen=True)
class Layout:
    """The modules that are the sites and the matrices of a model.

    Args:
        sites: site → module whose output (b, T, width) it is, in the order of the forward pass; of a module that
            returns a tuple the first entry is taken. "final", the input of the head, must be one of them.
        matrices: name → projection; "embed", whose rows are the tokens, must be one of them. Matrices of one block with
            the names of the toy transformer ("blocks.0.attn.q", …) share input sites (see `input_site`).
        head: name of the linear module that turns final states into logits.
        trunk: module that is run on the tokens, "" for the model itself; a trunk without the head avoids computing
            logits that are not used.
        softcap: c of logits c·tanh(z/c); None for no bound.
        length: longest input, None for no limit.
    """

    sites: Mapping[str, str]
    matrices: Mapping[str, Projection]
    head: str
    trunk: str = ""
    softcap: float | None = None
    length: int | None = None

    def input_sites(self, model: nn.Module) -> dict[str, str]:
        """Return matrix → site that it multiplies, for the matrices of linear modules."""
        return {
            name: FINAL if projection.module == self.head else input_site(name)
            for name, projection in self.matrices.items()
            if isinstance(model.get_submodule(projection.module), nn.Linear)
        }

    def check(self, model: nn.Module) -> None:
        """Refuse a layout that does not fit the model.

        Raises:
            MeasureError: a missing module, no "final" or no "embed", a weight that is not a matrix, a head that is not
                linear, or a site with the name of a matrix's input.
        """
        modules = dict(model.named_modules(remove_duplicate=False))
        named = [*self.sites.values(), *(p.module for p in self.matrices.values()), self.head, self.trunk]
        if unknown := sorted({name for name in named if name not in modules}):
            raise MeasureError(
                f"the model has no modules {', '.join(unknown)}; choose from named_modules(): "
                f"{', '.join(list(modules)[1:13])}, …"
            )
        if FINAL not in self.sites or EMBED not in self.matrices:
            raise MeasureError(
                f"a layout names the site {FINAL!r} (what the head reads) and the matrix {EMBED!r} (the token "
                f"embedding); this one has sites {', '.join(self.sites)} and matrices {', '.join(self.matrices)}"
            )
        for name, projection in self.matrices.items():
            weight = getattr(modules[projection.module], "weight", None)
            if not isinstance(weight, Tensor) or weight.ndim != 2:
                raise MeasureError(
                    f"{name}: module {projection.module} ({type(modules[projection.module]).__name__}) has no 2-D "
                    "weight; name a linear or embedding module"
                )
        if not isinstance(modules[self.head], nn.Linear):
            raise MeasureError(
                f"the head {self.head} is a {type(modules[self.head]).__name__}; it must be an nn.Linear, whose rows "
                "the final state is compared with"
            )
        inputs = set(self.input_sites(model).values()) - {FINAL}
        if taken := sorted(inputs & set(self.sites)):
            raise MeasureError(
                f"the sites {', '.join(taken)} have the names of the inputs of matrices, which need no entry in sites; "
                "take them out or rename them"
            )


def check_module(model: Any) -> None:
    """Refuse what is no module, and weights that cannot be measured as they are.

    Raises:
        MeasureError: something else, or weights that are not dense tensors of real floating-point numbers.
    """
    if not isinstance(model, nn.Module):
        remedy = (
            "build the module and call its load_state_dict with it"
            if isinstance(model, Mapping)
            else "pass the module itself (for model.parameters(), the model)"
        )
        raise MeasureError(f"the model is a {type(model).__name__}; it must be a torch.nn.Module: {remedy}")
    if wrong := [f"{name} is {why}" for name, p in model.named_parameters() if (why := not_weights(p))]:
        raise MeasureError(
            f"{some(wrong)}; weights must be dense real floating-point tensors with values: load and convert the model "
            "before it is measured"
        )
