"""How the public functions of spectral edges are called; as in `entries`."""

import numpy as np
import torch

import spectra
from spectra.reference import updates as slow

from .entries import Entry
from .examples import ENERGIES, GRADIENTS, edge


def rows_of(gram: np.ndarray) -> np.ndarray:
    """Updates with these inner products."""
    energies, vectors = np.linalg.eigh(gram)
    return vectors * np.sqrt(energies)


def window_numbers(gram: np.ndarray) -> list[float]:
    rows = rows_of(gram)
    found = [slow.window_numbers(rows[i : i + 4]) for i in range(len(rows) - 3)]
    return [number for name in ("k", "gap", "r12", "pc1", "lag1") for number in (one[name] for one in found)]


def numbers(edges: spectra.WindowEdges) -> list[float]:
    return [*np.concatenate([*edges.edges(), edges.ratios[:, 0], edges.pc1, edges.correlations[:, 0]])]


def sine(parameters: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([part.sin().sum() for part in parameters]).sum()


def cube(parameters: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([(part**3).sum() for part in parameters]).sum()


def defect(x: np.ndarray) -> float:
    """That of `sine` and `cube`, whose Hessians are diagonal."""
    sine_step, cube_step = np.cos(x), 3 * x**2
    commutator = 6 * x * sine_step + np.sin(x) * cube_step
    return float(np.linalg.norm(commutator) / np.linalg.norm(sine_step) / np.linalg.norm(cube_step))


def one_by_one(dimensions: np.ndarray) -> tuple[float, float]:
    found = [spectra.edge_null(4, d, 0.5, 20, stride=2).p_value(None, 1.5) for d in dimensions.tolist()]
    return min(found), max(found)


E = Entry
EDGE_ENTRIES: dict[str, Entry] = {
    "commutator_defect": E(
        lambda parameters, rate: spectra.commutator_defect(sine, cube, parameters, rate=rate).exact,
        (ENERGIES,),
        defect,
        scalars=(("rate", 1e-3),),
        takes=("0-d tensor", "4-d", "ragged", "ragged tensors"),
    ),
    "edge_null": E(
        lambda **scalars: spectra.edge_null(**scalars).ks,
        scalars=(
            ("window", 4), ("dimension", 20), ("momentum", 0.5), ("draws", 20), ("seed", 0), ("stride", 3),
            ("most", 2),
        ),
    ),
    "edge_null, correlations": E(
        lambda correlations: spectra.edge_null(8, 20, correlations=correlations, draws=20).gaps,
        (ENERGIES / 10,),
        takes=("None",),
    ),
    "edge_null, norms": E(
        lambda norms: spectra.edge_null(7, 20, norms=norms, draws=20).gaps,
        (ENERGIES,),
        degree=0,
        takes=("None",),
    ),
    "edge_p_range": E(
        lambda dimensions, **scalars: spectra.edge_p_range(**scalars, dimensions=dimensions),
        (10 * ENERGIES,),
        one_by_one,
        scalars=(("gap", 1.5), ("window", 4), ("momentum", 0.5), ("k", None), ("draws", 20), ("stride", 2)),
    ),
    "sketch_error": E(
        lambda spectrum, **s: spectra.sketch_error(spectrum, **s).ratio,
        (ENERGIES,),
        lambda v: slow.edge(np.sqrt(np.sort(v[v > 0])[::-1]))[1],
        0,
        scalars=(("size", 30), ("j", None), ("most", None), ("draws", 20), ("seed", 0)),
    ),
    "spectral_edge": E(
        lambda window, **s: (lambda e: (e.k, e.gap))(spectra.spectral_edge(window, **s)),
        (GRADIENTS,),
        edge,
        0,
        scalars=(
            ("momentum", 0.0), ("stride", None), ("effective_dimension", None), ("draws", 20), ("null", "norms"),
            ("row_normalised", False), ("most", None),
        ),
    ),
    "window_edges": E(
        lambda gram, **s: numbers(spectra.window_edges(gram, **s)),
        (GRADIENTS @ GRADIENTS.T,),
        window_numbers,
        0,
        scalars=(("window", 4), ("row_normalised", False)),
    ),
}  # fmt: skip
