"""Any `torch.nn.Module` as a subject, by naming its sites.

Activations are what the named modules put out, seen through hooks; the gradients of a matrix come as the factors of
`spectra.capture_factors`. Nothing is asked of the model but that it takes (b, T) tokens and that its head is linear.
The adapters of known formats are layouts for this class.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sims.system.errors import MeasureError
from spectra import Factors, capture_factors
from toymodel.cross_entropy import head_cross_entropy, position_losses, softcap

EMBED, FINAL, HEAD = "embed", "final", "head"

# Positions that go through the model, and rows that go through the head, at once.
BATCH_POSITIONS = 16_384
HEAD_ROWS = 1_024


@dataclass(frozen=True, eq=False)
class Projection:
    """Where a matrix of the model is kept.

    Args:
        module: name of a module with a 2-D ``weight``, as in ``model.named_modules()``.
        rows: rows of the weight that are the matrix (q of a fused q, k, v); None for all of them.
    """

    module: str
    rows: slice | Tensor | None = None

    def of(self, model: nn.Module) -> Tensor:
        """The matrix (rows, cols); rows that do not lie together are copied."""
        weight = model.get_submodule(self.module).weight
        assert isinstance(weight, Tensor)  # Layout.check
        return weight.detach() if self.rows is None else weight.detach()[self.rows]


@dataclass(frozen=True)
class Layout:
    """Where the sites and the matrices of a model are.

    Args:
        sites: site → module whose output (b, T, width) it is, in the order of the forward pass; a module that returns
            a tuple is taken by its first entry. "final" must be among them: what the head reads.
        matrices: name → projection; "embed", whose rows are the tokens, must be among them.
        head: name of the linear module that turns final states into logits.
        trunk: module that is run on the tokens, "" for the model itself; one that ends before the head saves the
            logits of positions that nobody asks for.
        softcap: c of logits c·tanh(z/c); None for none.
        length: longest input, None for no limit.
    """

    sites: Mapping[str, str]
    matrices: Mapping[str, Projection]
    head: str
    trunk: str = ""
    softcap: float | None = None
    length: int | None = None

    def check(self, model: nn.Module) -> None:
        """Refuse a layout that does not fit the model.

        Raises:
            MeasureError: a module that is not there, no "final" or no "embed", a weight that is no matrix, or a head
                that is not linear.
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


@dataclass(frozen=True, eq=False)
class ModuleSubject:
    """A model that is measured through hooks, at one point of its training. Make one with `ModuleSubject.of`.

    Biases have no matrix and no factors: the gradients are those of the weights alone.

    Args:
        model: in eval mode, all parameters float32 and frozen.
        layout: where its sites and matrices are.
        step: optimiser steps so far.
        tokens: training tokens so far, None where nothing says.
        about: what is known of its origin, in words, for whoever looks.
    """

    model: nn.Module
    layout: Layout
    step: int
    tokens: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        layout: Layout,
        step: int,
        tokens: int | None = None,
        device: torch.device | str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> ModuleSubject:
        """The subject of a model, which stays as it is: same mode, same requires_grad, same dtype.

        Args:
            model, layout, step, tokens, about: as above; weights that are float32 on the device already are shared,
                so a subject changes when the model is trained on.
            device: where it is measured; by default where the parameters are.

        Raises:
            MeasureError: the layout does not fit the model.
        """
        layout.check(model)

        def frozen(tensor: Tensor) -> Tensor:
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            moved = tensor.detach().to(device or tensor.device, dtype)
            return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved

        return cls(_with_tensors(model, frozen).eval(), layout, step, tokens, dict(about or {}))

    @property
    def longest(self) -> int | None:
        """Inputs that a sequence has at most; None where the layout names no limit."""
        return self.layout.length

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the places where activations can be taken, in the order of the forward pass."""
        return tuple(self.layout.sites)

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Every weight matrix (rows, cols), cut out of its module's weight when it is asked for."""
        return _Matrices(self.model, self.layout.matrices)

    @property
    def head(self) -> Tensor:
        """(V, d) rows that the final state is compared with."""
        return self._head.weight

    @property
    def _head(self) -> nn.Linear:
        head = self.model.get_submodule(self.layout.head)
        assert isinstance(head, nn.Linear)  # Layout.check
        return head

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Activations (b, T, width) at the sites, batch by batch.

        Raises:
            MeasureError: unknown sites, or sequences that are none for this model.
        """
        _refuse_unknown("sites", sites, self.sites)
        for batch in self._batches(sequences):
            with torch.no_grad():
                seen = self._see(batch[:, :-1], sites)
            yield seen

    def last_states(self, sequences: Tensor) -> Tensor:
        """(n, width) final states of the last position."""
        # Cloned, because a view would keep the states of all positions until the last batch.
        return torch.cat([batch[FINAL][:, -1].clone() for batch in self.activations(sequences, (FINAL,))])

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, Factors]:
        """Factors of ∂L_m/∂W for every sequence m, from one backward pass.

        Parts of a fused weight share their inputs. All sequences go through at once: pass as many as fit in memory.

        Raises:
            MeasureError: unknown matrices, the embedding or the head (whose gradients are no product of two factors
                where they are tied), a weight that is used more than once, or sequences that are none for this model.
        """
        known = [name for name in self.layout.matrices if name not in (EMBED, HEAD)]
        _refuse_unknown("matrices with per-sample gradients", matrices, known)
        sequences = self._checked(sequences)
        modules = dict.fromkeys(self.layout.matrices[name].module for name in matrices)
        with torch.enable_grad(), capture_factors(self.model, list(modules)) as capture:
            states = self._see(sequences[:, :-1], (FINAL,))[FINAL]
            terms = capture.factors(self._sequence_losses(states, sequences[:, 1:]))
        factors = {}
        for name in matrices:
            projection = self.layout.matrices[name]
            if len(terms[projection.module]) != 1:
                raise MeasureError(
                    f"the weight of {name} is used {len(terms[projection.module])} times in a forward pass; its "
                    "gradient is a sum of terms: take them from spectra.capture_factors"
                )
            (whole,) = terms[projection.module]
            if projection.rows is None:
                factors[name] = whole
            else:
                assert isinstance(whole.d, Tensor)  # one-hot rows are those of embeddings alone
                factors[name] = Factors(whole.inputs, whole.d[..., projection.rows])
        return factors

    def _sequence_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """(M,) mean cross-entropies of (M, T, width) states, one sequence's logits at a time."""
        weight, bias = self._head.weight, self._head.bias
        if bias is not None:
            # x Wᵀ + b is (x, 1) (W, b)ᵀ.
            states, weight = F.pad(states, (0, 1), value=1.0), torch.cat((weight, bias[:, None]), dim=1)
        cap = self.layout.softcap
        return torch.cat(
            [
                head_cross_entropy(h[None], weight[None], y[None], cap)
                for h, y in zip(states, targets, strict=True)
            ]
        )

    @torch.no_grad()
    def head_losses(self, states: Tensor, targets: Tensor) -> Tensor:
        """(n,) cross-entropies in nats of final states."""
        targets = targets.to(states.device)
        return torch.cat(
            [
                position_losses(softcap(self._head(h), self.layout.softcap), y)
                for h, y in zip(states.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True)
            ]
        )

    def losses(self, sequences: Tensor) -> Tensor:
        """(n, T) cross-entropies in nats."""
        sequences = self._checked(sequences)
        targets = sequences[:, 1:].split(self._batch_size(sequences))
        parts = [
            self.head_losses(batch[FINAL].flatten(0, 1), y.flatten()).view(y.shape)
            for batch, y in zip(self.activations(sequences, (FINAL,)), targets, strict=True)
        ]
        return torch.cat(parts)

    def with_matrix(self, name: str, value: Tensor) -> ModuleSubject:
        """The same model with one matrix replaced; a tied weight changes wherever it is used.

        Raises:
            MeasureError: unknown matrix, or a value of another shape.
        """
        own = self.matrices
        if name not in own or own[name].shape != value.shape:
            known = f"it is {tuple(own[name].shape)}" if name in own else f"this model has {', '.join(own)}"
            raise MeasureError(f"{name} of shape {tuple(value.shape)} is no matrix of this model; {known}")
        projection = self.layout.matrices[name]
        old = self.model.get_submodule(projection.module).weight
        assert isinstance(old, nn.Parameter)  # Layout.check
        new = old.detach().clone()
        new[slice(None) if projection.rows is None else projection.rows] = value.to(new)
        changed = nn.Parameter(new, requires_grad=False)
        return replace(self, model=_with_tensors(self.model, lambda t: changed if t is old else t))

    def _see(self, tokens: Tensor, sites: Sequence[str]) -> dict[str, Tensor]:
        """What the modules of the sites put out for (b, T) tokens; no hook is left, also after an exception."""
        seen: dict[str, Tensor] = {}
        versions: dict[str, int] = {}
        handles = []
        try:
            for site in sites:

                def hook(module: nn.Module, args: Any, output: Any, site: str = site) -> None:
                    if site in seen:
                        raise MeasureError(
                            f"the module of site {site} is called twice in a forward pass; name modules that are "
                            "called once"
                        )
                    seen[site] = output[0] if isinstance(output, tuple) else output
                    versions[site] = seen[site]._version

                module = self.model.get_submodule(self.layout.sites[site])
                handles.append(module.register_forward_hook(hook))
            self.model.get_submodule(self.layout.trunk)(tokens)
        finally:
            for handle in handles:
                handle.remove()
        if missed := [site for site in sites if site not in seen]:
            raise MeasureError(f"the modules of sites {', '.join(missed)} are not called; name others")
        if changed := [site for site in sites if seen[site]._version != versions[site]]:
            raise MeasureError(
                f"the model overwrites the outputs at {', '.join(changed)} in place afterwards; name the modules that "
                "come after those operations"
            )
        return seen

    def _batches(self, sequences: Tensor) -> Iterator[Tensor]:
        sequences = self._checked(sequences)
        yield from sequences.split(self._batch_size(sequences))

    def _batch_size(self, sequences: Tensor) -> int:
        return max(1, BATCH_POSITIONS // sequences.shape[1])

    def _checked(self, sequences: Tensor) -> Tensor:
        """(n, T+1) int64 sequences on the device of the model."""
        shape = tuple(sequences.shape)
        if len(shape) != 2 or 0 in shape or shape[1] < 2 or sequences.is_floating_point():
            raise MeasureError(
                f"sequences have shape {shape} and dtype {sequences.dtype}; they must be (n, T+1) integers, none empty"
            )
        positions, vocabulary = sequences.shape[1] - 1, len(self.head)
        if self.layout.length is not None and positions > self.layout.length:
            raise MeasureError(
                f"sequences of {positions} inputs are longer than the {self.layout.length} positions of this model; "
                "cut them"
            )
        sequences = sequences.to(self.head.device, torch.int64)
        if int(sequences.min()) < 0 or int(sequences.max()) >= vocabulary:
            raise MeasureError(
                f"tokens lie in {int(sequences.min())}..{int(sequences.max())}; this model knows 0..{vocabulary - 1}: "
                "the data are of another vocabulary"
            )
        return sequences


class _Matrices(Mapping[str, Tensor]):
    """Matrices by name, cut out only when they are asked for."""

    def __init__(self, model: nn.Module, projections: Mapping[str, Projection]) -> None:
        self._model = model
        self._projections = projections

    def __getitem__(self, name: str) -> Tensor:
        return self._projections[name].of(self._model)

    def __iter__(self) -> Iterator[str]:
        return iter(self._projections)

    def __len__(self) -> int:
        return len(self._projections)


def _with_tensors(model: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """The model's structure once more, with changed parameters and buffers; what was tied stays tied."""
    # Whatever the memo holds is taken by deepcopy as the copy: no tensor is duplicated.
    memo: dict[int, Any] = {id(tensor): change(tensor) for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def _refuse_unknown(what: str, asked: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise MeasureError(
            f"unknown {what}: {', '.join(unknown) or 'none named'}; this model has {', '.join(known)}"
        )
