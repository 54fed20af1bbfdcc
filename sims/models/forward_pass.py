"""Run a `torch.nn.Module` on tokens once, and keep the activations at sites of its layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sims.models.layout import Layout, watch
from sims.system.errors import MeasureError, first_line
from spectra.errors import NotFiniteError


def activations_at(
    model: nn.Module, layout: Layout, tokens: Tensor, sites: Sequence[str]
) -> dict[str, Tensor]:
    """Return activations (b, T, width) at sites for tokens (b, T); hooks are removed also after an exception.

    Args:
        model, layout: where the sites are.
        tokens: of the vocabulary of the model.
        sites: of the layout, or inputs of matrices (`Layout.input_sites`).

    Raises:
        MeasureError: the model fails on the tokens, or the activations at a site are not one tensor that keeps its
            values.
    """
    probe = _Probe(tokens.shape)
    handles = [*_unflattened(model, layout.flat, tokens.shape)]
    fed: dict[str, dict[str, None]] = {}  # input site → modules that read it, each once
    for matrix, site in layout.input_sites(model).items():
        fed.setdefault(site, {})[layout.matrices[matrix].module] = None
    try:
        for site in sites:
            if site in layout.sites:
                handles.append(watch(model, layout.sites[site], partial(probe.state, site)))
                continue
            for name in fed[site]:
                hook = partial(probe.input, site, name)
                handles.append(model.get_submodule(name).register_forward_hook(hook, with_kwargs=True))
        model.get_submodule(layout.trunk)(tokens)
    except (MeasureError, NotFiniteError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # Code of others raises whatever it stumbles over.
        raise MeasureError(
            f"a {type(model).__name__} fails on sequences of {tokens.shape[1]} inputs ({first_line(error)}); try "
            "shorter ones, of which it may have no more positions"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    probe.check(sites)
    return probe.seen


def _unflattened(model: nn.Module, flat: Sequence[str], shape: torch.Size) -> Iterator[RemovableHandle]:
    """Give flat modules (b, T, in) in place of (b·T, in), and what follows them their outputs as they were."""

    def before(module: nn.Module, args: Any) -> Any:
        return (args[0].unflatten(0, tuple(shape)), *args[1:])

    def after(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output.flatten(0, 1)

    for name in flat:
        module = model.get_submodule(name)
        yield module.register_forward_pre_hook(before)
        yield module.register_forward_hook(after)


class _Probe:
    """Hooks that collect the activations of one forward pass.

    Args:
        shape: (b, T) of the tokens.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self.seen: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._calls: set[tuple[str, str]] = set()

    def state(self, site: str, x: Tensor) -> None:
        """Keep the activation at a site of the layout."""
        self._count(site, "")
        self._keep(site, x)

    def input(
        self, site: str, name: str, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any
    ) -> None:
        """Keep the input of a linear module; modules of one site must have the same."""
        self._count(site, name)
        x = args[0] if args else next(iter(kwargs.values()))
        if x.shape[:-1] != self.shape:
            raise MeasureError(
                f"the input of module {name} has shape {tuple(x.shape)}; the site {site} needs {tuple(self.shape)} "
                "(batch, positions) and the width: this matrix does not read every position once"
            )
        if site not in self.seen:
            self._keep(site, x)
        elif x is not self.seen[site] and not torch.equal(x, self.seen[site]):
            raise MeasureError(
                f"module {name} does not read what the other matrices of the site {site} read; give its matrix a name "
                "that does not end like theirs"
            )

    def check(self, sites: Sequence[str]) -> None:
        """Refuse sites that were not seen, or that were overwritten later in the forward pass."""
        if missed := [site for site in sites if site not in self.seen]:
            raise MeasureError(f"the modules of sites {', '.join(missed)} are not called; name others")
        if changed := [site for site in sites if self.seen[site]._version != self._versions[site]]:
            raise MeasureError(
                f"the model overwrites the outputs at {', '.join(changed)} in place afterwards; name the modules that "
                "come after those operations"
            )

    def _keep(self, site: str, x: Tensor) -> None:
        self.seen[site], self._versions[site] = x, x._version

    def _count(self, site: str, name: str) -> None:
        if (site, name) in self._calls:
            raise MeasureError(
                f"the module of site {site} is called twice in a forward pass; name modules that are called once"
            )
        self._calls.add((site, name))
