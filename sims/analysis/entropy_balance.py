"""Split changes of the entropy of states over the ranks of their spectrum: which directions carry a phase.

The entropy S = −Σ p ln p of the shares p of the eigenvalues is ln RankMe. Between two looks the shares are taken to
move on a straight line: rank i then adds c_i = −∫(ln p_i + S) dp_i, for a small change its term in dS = −Cov_p(g, ln p)
dt with g_i = d ln λ_i/dt, and the sum of all c_i is the change of S exactly (`theory.formulas.entropy`). What the looks
leave open is how the shares moved between them, which two numbers tell: by how much the trapezoidal rule of
−Cov_p(g, ln p) misses the change of S, and by how much the part of any group of ranks differs if every second look is
left out.

Ranks are those of each look: a direction that overtakes another one takes its rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from sims.analysis.cells import usable
from sims.analysis.runs import Runs
from sims.system.errors import MeasureError
from spectra import Spectrum
from theory.formulas.entropy import entropy_contributions, entropy_rate, spectral_entropy

# Last ranks of the groups; what is behind them is the last group.
ENDS = (1, 8, 32)
# A part that half of the looks change by more than this share of the largest part depends on how often one looks.
TOLERANCE = 0.1
_KEY = ("run_id", "stage", "batch_size", "seed")


@dataclass(frozen=True, eq=False)
class SpectrumPath:
    """Hold the spectra of one run at its looks.

    Attributes:
        tokens: (n,) ascending; 0 is the start.
        energies: (n, d) eigenvalues, each row descending.
        mean_share: (n,) share of the mean state ‖h̄‖²/E‖h‖², NaN where it was not measured.
    """

    tokens: np.ndarray
    energies: np.ndarray
    mean_share: np.ndarray

    def part(self, start: float, end: float) -> SpectrumPath:
        """Return the looks from the one nearest to `start` in ln tokens to the one nearest to `end`."""
        later = np.flatnonzero(self.tokens > 0)
        places = np.log(self.tokens[later])
        first, last = (int(later[np.argmin(np.abs(places - math.log(t)))]) for t in (start, end))
        chosen = slice(first, last + 1)
        return SpectrumPath(self.tokens[chosen], self.energies[chosen], self.mean_share[chosen])


@dataclass(frozen=True, eq=False)
class Balance:
    """Hold the entropy balance of one path of spectra.

    Attributes:
        change: of S from the first to the last look, in nats.
        parts: contribution of each group of ranks; their sum is the change.
        residual: |sum of the parts − change|: rounding.
        rule_error: trapezoidal rule of −Cov_p(g, ln p), less the change; of the ranks with energy at both looks.
        split_error: largest |difference| of a part where every second look is left out.
        status: "ok"; "flagged" where `split_error` is above a tenth of the largest part, or fewer than three looks
            leave it unknown (it is then the largest part).
        reason: why it is flagged.
    """

    change: float
    parts: np.ndarray
    residual: float
    rule_error: float
    split_error: float
    status: Literal["ok", "flagged"]
    reason: str


def rank_groups(width: int, ends: Sequence[int] = ENDS) -> dict[str, slice]:
    """Return the groups of ranks of a width by name.

    Raises:
        MeasureError: ends that do not ascend from 1 or more.

    >>> list(rank_groups(64)), list(rank_groups(8))
    (['1', '2-8', '9-32', '33-64'], ['1', '2-8'])
    """
    if not ends or list(ends) != sorted(set(ends)) or ends[0] < 1:
        raise MeasureError(f"the groups of ranks end at {tuple(ends)}; give ascending ranks from 1 on")
    edges = [0, *(end for end in ends if end < width), width]
    return {
        str(high) if high == low + 1 else f"{low + 1}-{high}": slice(low, high)
        for low, high in pairwise(edges)
    }


def balance_of(energies: np.ndarray, ends: Sequence[int] = ENDS) -> Balance:
    """Return the entropy balance of spectra in the order of time.

    Args:
        energies: (n, d) eigenvalues ≥ 0 of at least two looks, each row descending.
        ends: last ranks of the groups.

    Raises:
        MeasureError: fewer than two spectra, or one that is negative, not finite or zero everywhere.

    >>> found = balance_of(np.array([[3.0, 1.0], [2.5, 1.5], [2.0, 2.0]]))
    >>> found.parts.round(3), round(found.change, 3), found.residual < 1e-12
    (array([0.043, 0.087]), 0.131, True)
    """
    values = np.asarray(energies, float)
    if values.ndim != 2 or len(values) < 2:
        raise MeasureError(f"spectra have shape {values.shape}; pass (looks, ranks) of at least two looks")
    try:
        entropy = spectral_entropy(values)
    except ValueError as error:
        raise MeasureError(f"no balance of these spectra: {error}") from error
    groups = list(rank_groups(values.shape[1], ends).values())
    change, parts = float(entropy[-1] - entropy[0]), _parts(values, groups)
    residual = abs(float(parts.sum()) - change)
    largest = float(np.abs(parts).max())
    if len(values) == 2:
        return Balance(
            change, parts, residual, _rule(values) - change, largest, "flagged", "there are two looks only"
        )
    fewer = np.concatenate([values[:-1:2], values[-1:]])
    split = float(np.abs(_parts(fewer, groups) - parts).max())
    rough = split > TOLERANCE * largest
    reason = f"a part differs by {split:.2g} of {largest:.2g} nats with half of the looks" if rough else ""
    return Balance(
        change, parts, residual, _rule(values) - change, split, "flagged" if rough else "ok", reason
    )


def _parts(values: np.ndarray, groups: Sequence[slice]) -> np.ndarray:
    """Return the contributions of groups of ranks along the whole path."""
    each = np.sum([entropy_contributions(a, b) for a, b in pairwise(values)], axis=0)
    return np.array([float(each[own].sum()) for own in groups])


def _rule(values: np.ndarray) -> float:
    """Integrate −Cov_p(g, ln p) by the trapezoidal rule, each step with its mean growth."""
    total = 0.0
    for a, b in pairwise(values):
        both = (a > 0) & (b > 0)
        growth = np.log(b[both] / a[both])
        total += (entropy_rate(a[both], growth) + entropy_rate(b[both], growth)) / 2
    return total


@dataclass(frozen=True, eq=False)
class EntropyBalance:
    """Hold the entropy balance of runs.

    Attributes:
        groups: names of the groups of ranks, in their order.
        ends: their last ranks.
        paths: spectra of each run, by run id.
        looks: one row a run and look: run_id, stage, batch_size, seed, tokens, entropy (ln RankMe), mean_share (NaN
            where it was not measured).
        steps: one row a run, pair of neighbouring looks and group: run_id, stage, batch_size, seed, tokens_from,
            tokens_to, part, contribution (nats). The contributions of all groups add up to the change of the entropy.
        checks: one row a run, over all of its looks: run_id, stage, batch_size, seed, looks, change, residual,
            rule_error, split_error, status, reason (see `Balance`).
    """

    groups: tuple[str, ...]
    ends: tuple[int, ...]
    paths: Mapping[str, SpectrumPath]
    looks: pd.DataFrame
    steps: pd.DataFrame
    checks: pd.DataFrame


def entropy_balance(runs: Runs, site: str = "final", ends: Sequence[int] = ENDS) -> EntropyBalance:
    """Return the entropy balance of every run at one site, from its stored spectra of activations.

    Args:
        runs: of one width; those that diverged or were pruned are left out.
        site: of the activations.
        ends: last ranks of the groups.

    Raises:
        MeasureError: a run has fewer than two spectra there, or runs have several widths.
    """
    alive = usable(runs)
    chosen = runs.spectra[(runs.spectra["object"] == "activation") & (runs.spectra["site"] == site)]
    shares_of_mean = runs.values("mean_share", "activation", site)
    paths: dict[str, SpectrumPath] = {}
    tables: dict[str, list[dict[str, Any]]] = {"looks": [], "steps": [], "checks": []}
    for key in alive[list(_KEY)].to_dict("records"):
        own = chosen[chosen["run_id"] == key["run_id"]].sort_values("tokens")
        if len(own) < 2:
            raise MeasureError(
                f"{key['run_id']} has spectra of activations at {site!r} at {len(own)} looks, of two needed; measure "
                "it at more steps"
            )
        mean = shares_of_mean[shares_of_mean["run_id"] == key["run_id"]].set_index("step")["value"]
        energies = [
            Spectrum(np.asarray(values), kind=kind).energies
            for values, kind in zip(own["values"], own["kind"], strict=True)
        ]
        widths = {len(e) for e in energies} | {path.energies.shape[1] for path in paths.values()}
        if len(widths) > 1:
            raise MeasureError(
                f"the states at {site!r} have the widths {', '.join(map(str, sorted(widths)))}; ranks mean something "
                "else in each: give runs of one width"
            )
        path = SpectrumPath(
            own["tokens"].to_numpy(float),
            np.array(energies),
            mean.reindex(own["step"].to_numpy()).to_numpy(float),
        )
        paths[str(key["run_id"])] = path
        _add(tables, {str(name): value for name, value in key.items()}, path, ends)
    width = next(iter(paths.values())).energies.shape[1]
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    return EntropyBalance(tuple(rank_groups(width, ends)), tuple(ends), paths, **frames)


def _add(
    tables: dict[str, list[dict[str, Any]]], key: dict[str, Any], path: SpectrumPath, ends: Sequence[int]
) -> None:
    """Add the rows of one run to the tables."""
    groups = rank_groups(path.energies.shape[1], ends)
    whole = balance_of(path.energies, ends)
    numbers = {n: getattr(whole, n) for n in ("change", "residual", "rule_error", "split_error")}
    tables["checks"].append(
        {**key, "looks": len(path.tokens), **numbers, "status": whole.status, "reason": whole.reason}
    )
    entropy = spectral_entropy(path.energies)
    for tokens, value, mean in zip(path.tokens, entropy, path.mean_share, strict=True):
        tables["looks"].append({**key, "tokens": tokens, "entropy": value, "mean_share": mean})
    for (a, b), (start, end) in zip(pairwise(path.energies), pairwise(path.tokens), strict=True):
        each = entropy_contributions(a, b)
        for name, own in groups.items():
            place = {"tokens_from": start, "tokens_to": end, "part": name}
            tables["steps"].append({**key, **place, "contribution": float(each[own].sum())})
