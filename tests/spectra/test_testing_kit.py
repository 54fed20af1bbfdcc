"""The kit itself: it catches every planted defect by the law that names it, and its documentation is right."""

from pathlib import Path

import numpy as np
import pytest
from mutants import DOCUMENTED, MUTANTS, tried

from spectra.summaries import rankme
from spectra.testing import KINDS, LAWS, laws_for
from spectra.testing.laws import hygiene

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "laws.md"


@pytest.fixture
def first_failure_only(monkeypatch):
    """Which law fires is what is asked of the mutants; looking for a shorter example doubles their time."""
    monkeypatch.setattr("spectra.testing.check.RESTARTS", 0)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.function.__name__)
def test_each_planted_defect_is_caught_by_the_law_that_names_it(mutant, first_failure_only):
    # The law that names the defect, here; every further one of the table in the slow run below.
    laws = mutant.caught_by if mutant in DOCUMENTED else mutant.caught_by[:1]
    report = tried(mutant, laws=laws)
    assert {r.law for r in report.failures} == set(laws)


def test_the_kit_has_at_least_twelve_mutants_and_the_four_documented_ones():
    assert len(MUTANTS) >= 12
    assert [m.function.__name__ for m in DOCUMENTED] == [
        "rankme_with_epsilon",
        "float32_uncentred_covariance",
        "clipped_window_exponent",
        "covariance_centring_in_place",
    ]


def test_every_law_has_a_mutant_that_breaks_it():
    broken = {(m.kind, law) for m in MUTANTS for law in m.caught_by}
    # The laws of handling are one factory for all kinds: one mutant of any kind shows that each can fail.
    handling = {law.name for law in hygiene.LAWS}
    assert handling <= {name for _, name in broken}
    # Any other law that binds several kinds has one check.
    others = [law for law in LAWS if law.name not in handling]
    assert [law.name for law in others if not any((kind, law.name) in broken for kind in law.kinds)] == []


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.function.__name__)
def test_the_whole_suite_catches_each_planted_defect_by_every_law_of_the_table(mutant, first_failure_only):
    report = tried(mutant)
    assert set(mutant.caught_by) <= {r.law for r in report.failures}


def test_entropy_of_singular_shares_is_not_schur_concave_in_the_energies():
    # The documented exception: one strong value, and a pair to level out beside it.
    before = np.array([0.9, 0.1] + [0.002] * 60)
    after = before.copy()
    after[:2] = 0.5 * before[0] + 0.5 * before[1]
    levelled = [(1 - t) * before[:2] + t * before[1::-1] for t in (0.01, 0.05, 0.1)]
    values = [rankme(np.concatenate([pair, before[2:]]), on="singular") for pair in levelled]
    assert min(values) < rankme(before, on="singular")


def test_law_names_are_unique_within_a_kind_and_have_a_statement():
    for kind in KINDS:
        names = [law.name for law in laws_for(kind)]
        assert len(names) == len(set(names)), kind
        assert names
    assert all(law.statement for law in LAWS)


def test_the_documentation_lists_every_kind_and_law():
    page = DOCUMENTATION.read_text()
    for law in LAWS:
        assert f"| {law.name} | {law.statement} |" in page.replace("\\|", "|")
    assert all(kind.signature in page for kind in KINDS.values())
