"""How each public function of `spectra.alignment` is called; as in `entries`."""

import numpy as np

from spectra import alignment
from spectra.reference import alignment as slow

from .entries import Entry
from .examples import X, Y

LAWS = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.125, 0.0, 0.875], [0.0, 1.0, 0.0]])
HEAD = np.array([[1.0, 0.0, 0.5, 0.0], [-1.0, 2.0, 0.0, 0.25], [0.0, -1.0, 1.0, 1.0]])


def eigenvalues(h: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Those of the centred Gram matrix; states do not matter."""
    centred = phi - phi.mean(axis=0)
    return np.linalg.eigvalsh(centred.T @ centred)[::-1] / len(phi)


def distances(h: np.ndarray, phi: np.ndarray) -> np.ndarray:
    return phi[1::2] - phi[1::2].mean(axis=0)


E = Entry
ALIGNMENT_ENTRIES: dict[str, Entry] = {
    "alignment.eigenfunction_shares": E(
        lambda h, phi: alignment.eigenfunction_shares(h, phi).shares, (X, Y), None, 0
    ),
    "alignment.eigenfunction_shares, eigenvalues": E(
        lambda h, phi: alignment.eigenfunction_shares(h, phi).eigenvalues, (X, Y), eigenvalues, 2
    ),
    "alignment.explained_share": E(alignment.explained_share, (X, Y), slow.explained_share, 0),
    "alignment.head_metric": E(alignment.head_metric, (HEAD, X), slow.head_metric),
    "alignment.held_out_residuals": E(
        lambda h, phi: alignment.held_out_residuals(h, phi)[1], (X, Y), distances, 1
    ),
    "alignment.held_out_residuals, residuals": E(
        lambda h, phi: alignment.held_out_residuals(h, phi)[0], (X, Y), None, 1
    ),
    "alignment.linear_cka": E(alignment.linear_cka, (X, Y), slow.linear_cka, 0),
    "alignment.predictive_embedding": E(
        alignment.predictive_embedding, (LAWS,), np.sqrt, scalars=(("kernel", "bhattacharyya"),)
    ),
    "alignment.subspace_overlap": E(
        alignment.subspace_overlap,
        (X, Y),
        lambda h, phi: slow.subspace_overlap(h, phi, 2),
        0,
        scalars=(("k", 2),),
    ),
}
