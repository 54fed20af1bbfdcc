"""Questions to trained models: which runs and looks of them count."""

from dataclasses import replace

import numpy as np
import pytest
from planted_evidence import WINDOW, against_law, along, arrivals, concentrations, evidence, label, row

from sims.analysis.comparisons import pilot_count, with_pilots
from sims.studies.theory.hitting import hitting
from sims.studies.theory.noise import noise
from sims.studies.theory.outcome import seeds_that_decide
from sims.studies.theory.overshoot import overshoot
from sims.studies.theory.position import position
from sims.studies.theory.predictive import predictive
from sims.studies.theory.tying import direct_path
from theory.predictions import PREDICTIONS


def diverged(found, seed):
    """The same with the runs of a seed diverged."""
    runs = found.runs.runs
    lost = runs.assign(ended=np.where(runs["seed"] == seed, "diverged", runs["ended"]))
    return replace(found, runs=replace(found.runs, runs=lost))


def test_every_run_is_read_at_its_own_last_look():
    # A larger batch takes fewer steps: its last look is at another step.
    rows = [*against_law((-0.8, -0.2), (0.1, 0.5)), *against_law((-0.8, -0.4), (0.1, 0.3), size=128, last=4)]
    _, falls, holds = predictive(evidence(rows))
    assert falls.effect == pytest.approx((-0.61 - 0.41) / 2)
    assert holds.effect == pytest.approx((0.41 + 0.21) / 2)
    assert (falls.runs, falls.seeds) == (6, 3)


def test_the_last_checkpoint_of_a_diverged_run_is_no_end_of_training():
    law = evidence(against_law((-0.8, -0.2), (0.1, 0.5)))
    assert [o.runs for o in predictive(diverged(law, 2))] == [3, 2, 2]
    places = evidence(positions=along(-0.1, -0.2))
    assert [o.runs for o in position(diverged(places, 2))] == [2, 2, 2]
    modes = evidence(modes=[*arrivals("rope", (1, 2, 8)), *arrivals("muon", (1, 2, 4))])
    assert hitting(modes)[0].seeds == 3
    assert hitting(diverged(modes, 2))[0].seeds == 2
    free = [{**label(seed=s, step=9), "asymmetry": 0.5, "follows": 0.4 + 0.01 * s} for s in range(3)]
    assert direct_path(diverged(evidence(direct=free), 2))[0].seeds == 2
    alphas = [
        row("alpha", 1.0 + s, "activation", "final", null=1.5, which=WINDOW, seed=s, step=5) for s in range(3)
    ]
    assert noise(diverged(evidence(alphas), 2))[0].seeds == 2


def test_seeds_that_choose_the_moment_of_a_top_are_to_be_trained_too():
    two = [r for r in concentrations((0.4, 0.8, 0.5), (0.4, 0.8, 0.5)) if r["seed"] < 2]
    (outcome,) = overshoot(evidence(two))
    assert (outcome.seeds, outcome.needs) == (1, "at least 3 seeds")
    assert "train at least 3" in outcome.reason
    question = PREDICTIONS["overshoot-beyond-noise"]
    read, trained = (seeds_that_decide(question, 0.1, 0.2, more) for more in (float, with_pilots))
    numbers = [int(said.split()[1]) for said in (read, trained)]
    assert numbers[1] - pilot_count(numbers[1]) == numbers[0]
