"""How much of single updates, and of their sum over a window, lies in the directions above the edge.

`python tests/studies/edge_energy.py [SEEDS]` trains the unchanged runs of `speclens grokking --causal` up to step 1,500
and prints shares of energy from step 325 on: of the update of one step without its weight decay, and of the sum of the
window's updates; in the directions above the edge, in the window, and in a random direction as interventions draw it.
"""

import sys

import numpy as np
import torch

from sims.studies.grokking.causal_runs import twins
from toymodel.ensemble import Ensemble
from toymodel.intervention import Intervention
from toymodel.subspace import SubspaceScaling

START, LAST = 325, 1_500


class Shares(SubspaceScaling):
    """Change nothing, and note what would be taken away."""

    def __init__(self, settings, seed):
        super().__init__(settings, seed)
        self.found = []

    def _removed(self, g):
        taken = super()._removed(g)
        assert self._directions is not None
        basis, edge = self._directions
        total = torch.stack(self.updates).double().sum(dim=0)

        def share(vectors, of):
            return float((vectors @ of).square().sum() / of.square().sum())

        u = taken / taken.norm()
        self.found.append(
            (edge, share(basis[:edge], g), share(basis, g), share(basis[:edge], total), share(u[None], total))
        )
        return torch.zeros_like(g)


def shares(twin):
    """One row a step: k*, energy of g in the edge and the window, energy of the window's sum in the edge and in u."""
    ensemble = Ensemble([twin])
    ensemble.advance(START - 55)
    noted = Shares(Intervention("random", START), twin.seed)
    for step in range(START - 55, LAST):
        before = torch.cat([w.flatten() for w in ensemble.view(0).weights().values()])
        ensemble.advance(1)
        view = ensemble.view(0)
        share = float(view.decay()["head"])
        after = torch.cat([w.flatten() for w in view.weights().values()])
        noted.change(step, before, before * (1 - share), after)
    return np.array(noted.found)


if __name__ == "__main__":
    found = [shares(twin).mean(axis=0) for twin in twins(range(int((sys.argv[1:] or ["3"])[0])))]
    names = ("k*", "step in the edge", "step in the window", "window's sum in the edge", "window's sum in u")
    for name, values in zip(names, np.transpose(found), strict=True):
        print(f"{name:26} {values.mean():.3f} ({values.min():.3f}–{values.max():.3f} over seeds)")
