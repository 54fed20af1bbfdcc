"""Measure a model of any kind as it is, for example while somebody else's loop trains it.

Unlike `ModuleSubject` it needs neither tokens nor a head, and copies nothing: activations and gradients are those of
the model itself, in the precision of its weights, and `undisturbed` puts back what a pass changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sims.models.block_list import chosen_blocks, numbered
from sims.models.factors import factors_of
from sims.models.independence import dependent
from sims.models.layout import (
    INPUT_OF,
    Matrices,
    activation,
    check_module,
    matrices_outside,
    sites_outside,
    watch,
)
from sims.models.parts import Parts, find_parts, unwrapped
from sims.models.passage import BlockChain
from sims.models.probe import Probe
from sims.models.states import states_of
from sims.models.undisturbed import same_random_numbers, undisturbed
from sims.system.errors import MeasureError
from sims.system.plain import some
from spectra import Factors, InputError, capture_factors
from toymodel.precision import full_precision

# A pseudo-site: the losses of the samples, as states (b, 1, 1).
LOSS = "loss"
# Samples of the first pass, which finds out what can be measured.
TRIED = 2
# Samples that are each run beside themselves, to see that a module returns one row of each. An expert that a router
# chooses is given exactly one token of each of them with a probability below 0.4^8.
ALONE = 8
_ROUTED = (
    "the first axis of what their modules return is not the samples, as where tokens are flattened or a router "
    "chooses some of them"
)
_DEPENDS = (
    "change with the other samples of a batch, as in a recurrent layer or an attention without batch_first=True, with "
    "statistics of the batch, or in a loss across samples"
)


@dataclass(frozen=True, eq=False)
class WatchedSubject:
    """A model of any kind at one point of its training. Create it with `WatchedSubject.of`.

    "Sequences" are indices (n, 1) of samples of the probe, as `samples` returns them.

    Args:
        model: without wrappers.
        parts: what is measured of it.
        probe: what it is fed; None where only weights are measured.
        with_gradients: names of the matrices whose per-sample gradients can be measured.
        step: optimiser steps so far.
        tokens: training tokens so far, None if unknown.
        at_once: samples in one pass.
        about: what is known of its origin.
        left_out: what was found and cannot be measured, with the reason.
    """

    model: nn.Module
    parts: Parts
    probe: Probe | None = None
    with_gradients: tuple[str, ...] = ()
    step: int = 0
    tokens: int | None = None
    at_once: int = 64
    about: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: nn.Module, probe: Probe | None = None, layers: Sequence[str] = (), at_once: int = 64
    ) -> WatchedSubject:
        """Find what can be measured of a model: a first pass of two samples tries the probe.

        Args:
            model: with or without the wrappers of torch.compile and DistributedDataParallel.
            probe: what it is fed.
            layers: names or patterns, as `find_parts` takes them; what they name must be measurable.
            at_once: samples in one pass.

        Raises:
            MeasureError: not a module, weights that cannot be measured, a pattern that matches nothing, or named layers
                that cannot be measured.
        """
        check_module(model)
        model = unwrapped(model)
        found = cls(model, find_parts(model, layers), probe, at_once=at_once)
        if probe is None:
            return found
        with undisturbed(model):
            sites, without_sites = found._usable_sites()
            gradients, without_gradients = found._usable_gradients() if probe.has_losses else ((), {})
            mixed = found._mixed([*sites, *([LOSS] if gradients else [])])
        if LOSS in mixed:
            gradients, without_gradients = (), {"gradients": f"the losses of the samples {_DEPENDS}"}
        if layers and without_sites:
            raise MeasureError(
                some([f"{name}: {why}" for name, why in without_sites.items()])
                + "; name other layers, or weights only"
            )
        notes = [*found.parts.notes, *([note] if (note := probe.doubt) else [])]
        if states := [site for site in mixed if site != LOSS]:
            notes.append(
                f"the states of {some(states, 8)} {_DEPENDS}: they are those of {at_once} samples at once"
            )
        parts = replace(
            found.parts, sites={site: found.parts.sites[site] for site in sites}, notes=tuple(notes)
        )
        left_out = {**without_sites, **without_gradients}
        if not found.parts.sites:
            left_out["activations"] = (
                "the model is one layer, or has no blocks and no layers that return states"
            )
        if not probe.has_losses:
            left_out["gradients"] = "the probe has no targets; pass a pair (x, y), or losses="
        return cls(model, parts, probe, gradients, at_once=at_once, left_out=left_out)

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites in the order of the forward pass."""
        return tuple(self.parts.sites)

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """Weight matrices (rows, cols), cut out of their parameters when they are read."""
        return Matrices(self.model, self.parts.matrices)

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """All weights by their names in the module; a tied one is there once."""
        return dict(self.model.named_parameters())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self.model.parameters())).device

    @property
    def head(self) -> Tensor:
        """No rows (0, 0): what the losses need is counted with what a pass saves."""
        return torch.empty(0, 0)

    def samples(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the indices (n, 1) of samples of the probe."""
        assert self.probe is not None
        return torch.arange(start, self.probe.samples if stop is None else stop)[:, None]

    def activations(self, sequences: Tensor, sites: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
        """Yield activations (b, T, width) at `sites`, in batches; `LOSS` gives the losses as (b, 1, 1)."""
        for batch in sequences.split(self.at_once):
            with torch.no_grad():
                yield self._see(self._part(batch), len(batch), sites)

    def gradient_factors(self, sequences: Tensor, matrices: Sequence[str]) -> Mapping[str, Factors]:
        """Return factors of ∂L_m/∂W for every sample m, from one backward pass of all of them.

        Raises:
            MeasureError: losses that the probe does not define, or a weight that is used more than once.
            InputError: a module whose gradients have no factors (see `spectra.capture_factors`).
        """
        assert self.probe is not None
        modules = dict.fromkeys(self.parts.matrices[name].module for name in matrices)
        with torch.enable_grad(), capture_factors(self.model, list(modules)) as capture:
            terms = capture.factors(self.probe.losses(self.model, self._part(sequences)))
        return factors_of(self.parts.matrices, matrices, terms)

    def without_blocks(self, blocks: Collection[int]) -> WatchedSubject:
        """Return the model without some blocks, on the same weights: the residual stream passes them unchanged.

        The structure is copied; two samples are run first, to see that the blocks form a chain.

        Raises:
            MeasureError: numbers that are no blocks or repeated, blocks that form no chain, or no probe to see it.
        """
        chosen = chosen_blocks(blocks, numbered(self.sites))
        if not chosen:
            return self
        if self.probe is None:
            raise MeasureError("blocks are removed from a model that can be run; pass a probe")
        with undisturbed(self.model):
            chain = BlockChain.of(self.model, self.parts.sites, self.few_outputs)
            short = chain.without(chosen)
        gone = [chain.places[block] for block in chosen]
        matrices = matrices_outside(self.parts.matrices, gone)
        parts = replace(self.parts, sites=sites_outside(self.parts.sites, gone), matrices=matrices)
        gradients = tuple(name for name in self.with_gradients if name in matrices)
        return replace(self, model=short, parts=parts, with_gradients=gradients)

    def few_outputs(self, model: nn.Module) -> Tensor:
        """Return what a model computes of two samples."""
        assert self.probe is not None
        return activation(
            self.probe.run(model, self._part(self.samples(0, TRIED))), "the output of the model"
        )

    def _part(self, sequences: Tensor) -> Any:
        """Return the samples of consecutive indices (n, 1)."""
        assert self.probe is not None
        return self.probe.part(int(sequences[0, 0]), int(sequences[-1, 0]) + 1, self.device)

    def on_every_sample(self) -> tuple[WatchedSubject, dict[str, str]]:
        """Return the model without the sites and gradients that not every sample passes once, and why.

        Two samples need not show it: experts that a router chooses are called on different samples each time.
        """
        places = dict(self.parts.sites)
        inside = {f"gradients of {name}": self.parts.matrices[name].module for name in self.with_gradients}
        bad: dict[str, str] = {}
        for batch in self.samples().split(self.at_once):
            with torch.no_grad():
                seen, _ = self._outputs(self._part(batch), places | inside)
            for name, outputs in seen.items():
                # Without numbers that differ at each look, which would be another note each time.
                if len(outputs) != 1:
                    bad.setdefault(name, "a forward pass of all samples does not call its module once")
                elif not outputs[0].ndim or len(outputs[0]) != len(batch):
                    bad.setdefault(name, "its module is not called on every sample")
        parts = replace(self.parts, sites={site: place for site, place in places.items() if site not in bad})
        gradients = tuple(name for name in self.with_gradients if f"gradients of {name}" not in bad)
        return replace(self, parts=parts, with_gradients=gradients), bad

    def _outputs(
        self, part: Any, places: Mapping[str, str], losses: bool = False
    ) -> tuple[dict[str, list[Tensor]], Tensor | None]:
        """Return what modules put out in one pass, and the losses; hooks are removed also after an exception."""
        assert self.probe is not None
        seen: dict[str, list[Tensor]] = {name: [] for name in places}
        handles: list[RemovableHandle] = []
        try:
            for name, outputs in seen.items():
                handles.append(watch(self.model, places[name], outputs.append))
            if losses:
                return seen, self.probe.losses(self.model, part)
            self.probe.run(self.model, part)
            return seen, None
        finally:
            for handle in handles:
                handle.remove()

    def _see(self, part: Any, samples: int, sites: Sequence[str]) -> dict[str, Tensor]:
        """Return the states at the sites, for a part of so many samples."""
        places = {site: self.parts.sites[site] for site in sites if site != LOSS}
        seen, losses = self._outputs(part, places, LOSS in sites)
        found = {} if losses is None else {LOSS: losses[:, None, None]}
        if wrong := [f"{site} ({len(outputs)} times)" for site, outputs in seen.items() if len(outputs) != 1]:
            raise MeasureError(f"a forward pass does not call the modules of {some(wrong)} once; name others")
        for site, (output,) in seen.items():
            module = self.model.get_submodule(places[site].removeprefix(INPUT_OF))
            found[site] = states_of(site, module, output, samples)
        return found

    def _mixed(self, sites: Sequence[str]) -> tuple[str, ...]:
        """Return the sites, and `LOSS`, where a sample has other values beside another sample."""
        probe, coarsest = self.probe, max(torch.finfo(p.dtype).eps for p in self.model.parameters())
        assert probe is not None

        def run(pair: Sequence[int]) -> Mapping[str, Tensor]:
            with torch.no_grad(), full_precision(), same_random_numbers():
                return self._see(probe.chosen(pair, self.device), len(pair), sites)

        try:
            return dependent(run, coarsest**0.5) if sites else ()
        except Exception:
            # Of a foreign model anything may be raised, as where a router calls another expert.
            return ()

    def _usable_sites(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the sites that two samples can be seen at, and why others cannot.

        Raises:
            MeasureError: the model cannot be run on the probe.
        """
        tried = self.samples(0, TRIED)
        assert self.probe is not None
        with torch.no_grad():
            try:
                self.probe.run(self.model, self._part(tried))
            except Exception as error:
                what = "the model" if self.probe.given is None else "losses="
                raise MeasureError(
                    f"{what} cannot be run on the probe ({type(error).__name__}: {error}); pass a batch as it is "
                    "trained on, or losses= that takes the model and the batch"
                ) from error
            good, bad = _usable(self.sites, lambda sites: self._see(self._part(tried), len(tried), sites))
        return self._with_own_rows(good, bad, self.parts.sites)

    def _usable_gradients(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the matrices whose gradients two samples give, and why others cannot be measured.

        Raises:
            MeasureError: the probe's losses are not what they have to be.
        """
        tried = self.samples(0, TRIED)
        assert self.probe is not None
        try:
            with torch.enable_grad():
                losses = self.probe.losses(self.model, self._part(tried))
            if self.probe.given is not None and not losses.requires_grad:
                raise MeasureError(
                    "losses= returns losses that are detached from the model: return them as computed"
                )
        except MeasureError as error:
            if self.probe.given is not None:
                raise
            return (), {"gradients": str(error)}
        except Exception as error:
            # Of the user's code, such as a loss that detaches or a model in inference mode.
            return (), {"gradients": f"{type(error).__name__}: {error}"}
        matrices = self.parts.matrices
        # Frozen weights have a gradient here and none in the training, unless all of them are frozen.
        trained = [name for name, place in matrices.items() if place.weight(self.model).requires_grad]
        names = [name for name in trained or matrices if matrices[name].is_linear(self.model)]
        usable, bad = _usable(names, lambda names: self.gradient_factors(tried, names))
        usable, bad = self._with_own_rows(usable, bad, {name: matrices[name].module for name in usable})
        left_out = self._by_reason(bad)
        if other := [name for name in trained if name not in names and not _looked_up(self, name)]:
            left_out["gradients of " + some(other, 8)] = (
                "their modules are not linear maps, so that they have no factors"
            )
        return usable, left_out

    def _with_own_rows(
        self, names: Sequence[str], bad: Mapping[str, str], places: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Move the names whose modules do not return one row of each sample to those that cannot be measured.

        Two samples need not show it: an expert may be given as many tokens as there are samples, by chance. It returns
        rows (tokens, width): modules that return more axes are tried once.
        """
        assert self.probe is not None
        routed: set[str] = set()
        flat = {name: places[name] for name in names}
        for i in dict.fromkeys(np.linspace(0, self.probe.samples - 1, ALONE).astype(int).tolist()):
            if not flat:
                break
            try:
                # Twice the same sample: a batch of one has no statistics.
                with torch.no_grad(), same_random_numbers():
                    seen, _ = self._outputs(self.probe.chosen((i, i), self.device), flat)
            except Exception:
                # Of a foreign model anything may be raised, as by one that wants samples that differ.
                continue
            routed |= {
                name for name, rows in seen.items() if [len(row) for row in rows if row.ndim] != [TRIED]
            }
            flat = {name: at for name, at in flat.items() if name not in routed and seen[name][0].ndim <= 2}
        left = tuple(name for name in names if name not in routed)
        return left, {**bad, **{name: _ROUTED for name in names if name in routed}}

    def _by_reason(self, bad: Mapping[str, str]) -> dict[str, str]:
        """Return the names of matrices without gradients, those with the same reason together, and the reason."""
        alike: dict[str, list[str]] = {}
        reasons = list(bad.values())
        for name, why in bad.items():
            # A reason of several names has none of them in it; a name such as "router" may be a word of it.
            own = reasons.count(why) == 1
            general = why.replace(self.parts.matrices[name].module, "").replace(name, "") if own else why
            alike.setdefault(general, []).append(name)
        return {f"gradients of {some(names, 8)}": bad[names[0]] for names in alike.values()}


def _looked_up(subject: WatchedSubject, name: str) -> bool:
    """Return whether a matrix is that of an embedding, whose rows are looked up."""
    return isinstance(subject.model.get_submodule(subject.parts.matrices[name].module), nn.Embedding)


def _in_words(error: str) -> str:
    """Return why a weight has no gradients, without numbers: alike for all experts of a router."""
    if "were not called" in error:
        return "the model uses the weight without calling its module"
    if "first axis must be the sample" in error:
        return _ROUTED
    return error


def _usable(names: Sequence[str], use: Any) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the names that can be used together, and why each of the others cannot."""
    if not names:
        return (), {}
    try:
        use(names)
        return tuple(names), {}
    except Exception:
        # Of a foreign model anything may be raised.
        pass
    good, bad = [], {}
    for name in names:
        try:
            use([name])
            good.append(name)
        except (MeasureError, InputError) as error:
            bad[name] = _in_words(str(error))
        except Exception as error:
            bad[name] = f"{type(error).__name__}: {error}"
    return tuple(good), bad
