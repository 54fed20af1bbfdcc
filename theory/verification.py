"""Verify claims: draw cases, check each, run the mutants, and return a verdict."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from theory.cases import Drawn, draw_cases
from theory.claim import Claim, Derivation, Profile
from theory.values import Array, Case, Measurement, Sampling

Status = Literal["true", "false", "unknown"]


@dataclass(frozen=True, eq=False)
class CaseResult:
    """Hold one tested case and its score.

    ``score`` is the largest component score; at most 1 passes, NaN fails.

    >>> CaseResult({"x": 1}, np.array([1.0]), Measurement.exact([1.0]), score=0.0).passed
    True
    """

    case: Case
    predicted: Array
    measured: Measurement
    score: float

    @property
    def passed(self) -> bool:
        """Return whether the score is a number and at most 1."""
        return bool(self.score <= 1.0)


@dataclass(frozen=True)
class MutantResult:
    """State whether the check rejected a wrong version, after how many cases, and on which one.

    >>> MutantResult("sign", rejected=True, tested=1, case={"x": 1}).rejected
    True
    """

    name: str
    rejected: bool
    tested: int
    case: Case | None


@dataclass(frozen=True, eq=False)
class Verdict:
    """Hold the verdict on one claim with all results.

    ``true``: enough distinct effective cases, all passed, the derivation agrees and every mutant was rejected.
    ``false``: a case failed (``worst``), or sympy disagrees with the formula in use.
    ``unknown``: too few effective cases, or a mutant survived, so that passing means nothing. Not a pass.

    >>> from theory import select
    >>> verdict = verify(select("T7.scale")[0])
    >>> verdict.status, verdict.worst.passed
    ('true', True)
    """

    claim: Claim
    status: Status
    reason: str
    drawn: Drawn
    results: tuple[CaseResult, ...]
    mutants: tuple[MutantResult, ...]
    derivation: Derivation | None
    seconds: float

    @property
    def cases(self) -> int:
        """Return the number of distinct cases that met every assumption and were tested."""
        return len(self.results)

    @property
    def worst(self) -> CaseResult | None:
        """Return the tested case with the largest score, NaN being the largest; None without any case."""
        if not self.results:
            return None
        return max(self.results, key=lambda r: np.inf if np.isnan(r.score) else r.score)


def _score(claim: Claim, case: Case, predicted: Array, measured: Measurement) -> float:
    """Return the largest component score; NaN if any component is NaN or nothing was compared."""
    with np.errstate(all="ignore"):
        scores = claim.compare(predicted, measured, claim.tolerance, case)
    return float(np.max(scores)) if scores.size and not np.isnan(scores).any() else float("nan")


def _sampling(claim: Claim, index: int, profile: Profile, generator_seed: int) -> Sampling:
    entropy = [generator_seed, zlib.crc32(claim.id.encode()), index]
    return Sampling(np.random.default_rng(entropy), claim.effort(profile).draws)


def check_cases(
    claim: Claim, cases: Iterable[Case], profile: Profile, generator_seed: int
) -> list[CaseResult]:
    """Predict, measure and compare every case.

    The i-th case always gets the i-th generator.

    >>> from theory import select
    >>> (claim,) = select("T7.scale")
    >>> cases = draw_cases(claim.domain, 3, generator_seed=0).cases
    >>> [result.passed for result in check_cases(claim, cases, "quick", generator_seed=0)]
    [True, True, True]
    """
    results = []
    for i, case in enumerate(cases):
        measured = claim.measured(case, _sampling(claim, i, profile, generator_seed))
        predicted = np.asarray(claim.predicted(case), dtype=np.float64).ravel()
        results.append(CaseResult(case, predicted, measured, _score(claim, case, predicted, measured)))
    return results


def _run_mutants(
    claim: Claim, results: list[CaseResult], profile: Profile, generator_seed: int
) -> Iterator[MutantResult]:
    """Test each mutant on the same cases until one rejects it; unchanged measurements are reused."""
    for mutant in claim.mutants:
        predict = mutant.predicted or claim.predicted
        found: Case | None = None
        tested = 0
        for i, result in enumerate(results):
            tested += 1
            measured = (
                mutant.measured(result.case, _sampling(claim, i, profile, generator_seed))
                if mutant.measured
                else result.measured
            )
            predicted = np.asarray(predict(result.case), dtype=np.float64).ravel()
            # A wrong version that gives no number is broken, which is no reason to believe the claim.
            if _score(claim, result.case, predicted, measured) > 1.0:
                found = result.case
                break
        yield MutantResult(mutant.name, found is not None, tested, found)


def verify(claim: Claim, profile: Profile = "quick", generator_seed: int = 0) -> Verdict:
    """Verify one claim and return its verdict.

    Args:
        claim: the claim to check.
        profile: ``"quick"`` or ``"full"``; sets the number of cases and Monte Carlo draws.
        generator_seed: seeds hypothesis and every measurement; with the same code the same seed gives the same verdict.

    >>> from theory import select
    >>> verify(select("T7.scale")[0]).status
    'true'
    """
    start = time.process_time()
    drawn = draw_cases(claim.domain, claim.effort(profile).cases, generator_seed)
    results = check_cases(claim, drawn.cases, profile, generator_seed)
    mutants = tuple(_run_mutants(claim, results, profile, generator_seed))
    derivation = claim.derivation() if claim.derivation else None
    status, reason = _judge(claim, drawn, results, mutants, derivation)
    elapsed = time.process_time() - start
    return Verdict(claim, status, reason, drawn, tuple(results), mutants, derivation, elapsed)


def _judge(
    claim: Claim,
    drawn: Drawn,
    results: list[CaseResult],
    mutants: tuple[MutantResult, ...],
    derivation: Derivation | None,
) -> tuple[Status, str]:
    failed = [r for r in results if not r.passed]
    if failed:
        worst = max(failed, key=lambda r: np.inf if np.isnan(r.score) else r.score)
        return "false", (
            f"{len(failed)} of {len(results)} cases fail; worst at {dict(worst.case)}, "
            f"error {worst.score:.3g} × the tolerance"
        )
    if derivation is not None and not derivation.holds:
        wrong = [a.name for a in derivation.agreements if not a.holds]
        return (
            "false",
            f"sympy disagrees with the formula in use: {', '.join(wrong) or 'nothing was compared'}",
        )
    if len(results) < claim.domain.minimum:
        unmet = "; ".join(f"{text}: {n}×" for text, n in drawn.unmet.items()) or "the domain yields too few"
        return "unknown", (
            f"{len(results)} effective cases in {drawn.draws} draws, {claim.domain.minimum} needed ({unmet})"
        )
    survivors = [m.name for m in mutants if not m.rejected]
    if survivors:
        return "unknown", f"the check cannot tell the claim from: {', '.join(survivors)}"
    return "true", f"{len(results)} cases, {len(mutants)} mutants rejected"
