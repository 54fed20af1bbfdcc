"""The kit itself: it catches every planted defect by the law that names it, and reports it readably."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from mutants import DOCUMENTED, MUTANTS, tried
from mutants.documented import float32_uncentred_covariance, rankme_with_epsilon
from mutants.matrices import second_moment_for_covariance

from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.results import Estimate
from spectra.summaries import rankme
from spectra.testing import KINDS, LAWS, LawsBroken, check_estimator, laws_for, strategies
from spectra.testing.laws import hygiene

ROOT = Path(__file__).parents[2]


# ------------------------------------------------------------------------------------------------ mutants


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


# ----------------------------------------------------------------------------------------------- reporting


def test_the_report_shows_law_finding_and_smallest_example(capsys):
    report = check_estimator(rankme_with_epsilon, "effective rank", laws=["scale", "bounds"], max_examples=20)
    printed = capsys.readouterr().out
    assert printed == str(report) + "\n"
    assert "rankme_with_epsilon as effective rank: 1 of 2 laws broken (tolerance 1e-08)" in printed
    assert "  ok    scale                  20 examples" in printed
    assert "law      1 ≤ f(λ) ≤ rank" in printed
    assert "found    f(λ) = 0.99999 is below 1" in printed
    assert "example  eigenvalues = [1]" in printed


def test_the_smallest_example_is_the_real_one_and_replays():
    result = tried(DOCUMENTED[0], laws=["bounds"])["bounds"]
    assert result.outcome == "failed"
    assert result.examples >= 1
    np.testing.assert_array_equal(result.example["eigenvalues"], [1.0])
    assert rankme_with_epsilon(result.example["eigenvalues"]) < 1


@pytest.mark.parametrize(
    ("mutant", "law", "entries"),
    [(second_moment_for_covariance, "translation", 2), (float32_uncentred_covariance, "translation", 3)],
)
def test_failing_matrices_shrink_to_a_handful_of_entries(mutant, law, entries):
    example = check_estimator(mutant, "covariance spectrum", laws=[law], quiet=True)[law].example["x"]
    assert example.size <= entries


def test_raise_if_failed_carries_the_report_and_returns_a_clean_one():
    report = tried(DOCUMENTED[0], laws=["bounds"], max_examples=5)
    assert not report.passed
    with pytest.raises(LawsBroken, match="1 of 1 laws broken"):
        report.raise_if_failed()
    clean = check_estimator(rankme, "effective rank", laws=["bounds"], max_examples=5, quiet=True)
    assert clean.raise_if_failed() is clean
    assert "all 1 laws hold" in str(clean)


def test_two_runs_give_the_same_report():
    first, second = (
        str(tried(DOCUMENTED[2], laws=["scale", "window must fit"], max_examples=20)) for _ in range(2)
    )
    assert first == second


def test_the_callers_profile_does_not_change_the_run():
    with_profile = settings.get_profile("slow")
    assert with_profile.max_examples == 2000
    report = check_estimator(rankme, "effective rank", laws=["bounds"], max_examples=7, quiet=True)
    assert report["bounds"].examples == 7


@settings(max_examples=2, suppress_health_check=[HealthCheck.nested_given])
@given(st.integers(3, 5))
def test_it_runs_inside_a_property_test(examples):
    report = check_estimator(rankme, "effective rank", laws=["scale"], max_examples=examples, quiet=True)
    assert report["scale"].examples == examples


def test_it_runs_outside_pytest():
    program = (
        "import numpy as np\n"
        "from spectra.testing import check_estimator\n"
        "def count(values): return float(np.count_nonzero(values))\n"
        "check_estimator(count, 'effective rank', laws=['bounds', 'Kronecker'], max_examples=10)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("count as effective rank: all 2 laws hold")
    assert run.stderr == ""


# ------------------------------------------------------------------------------------- how functions behave


def test_a_crash_on_a_valid_input_is_reported_with_its_exception():
    def broken(eigenvalues):
        raise KeyError("no such\nthing")

    message = check_estimator(broken, "effective rank", laws=["bounds"], quiet=True)["bounds"].message
    assert message.startswith("raised KeyError")
    assert "\n" not in message


def test_refusing_everything_is_no_way_to_pass():
    def timid(eigenvalues):
        raise ValueError("not today")

    report = check_estimator(timid, "effective rank", laws=["bounds", "NaN and Inf"], quiet=True)
    assert report["bounds"].message == "refused a valid input: ValueError: not today"
    assert report["NaN and Inf"].outcome == "passed"


def test_a_crash_is_not_a_refusal_unless_the_caller_says_so():
    def crashing(eigenvalues):
        if not np.isfinite(eigenvalues).all():
            raise RuntimeError("LAPACK says no")
        return rankme(eigenvalues)

    law = ["NaN and Inf"]
    refused = check_estimator(crashing, "effective rank", laws=law, quiet=True)
    assert "crashed with RuntimeError" in refused["NaN and Inf"].message
    allowed = (ValueError, RuntimeError)
    assert check_estimator(crashing, "effective rank", laws=law, refusals=allowed, quiet=True).passed


def test_not_fitted_counts_as_a_refusal_and_nan_does_not():
    def window(fails):
        def estimate(eigenvalues, lo, hi):
            return fails if not 1 <= lo < hi <= len(eigenvalues) else 1.0

        return check_estimator(estimate, "exponent", laws=["window must fit"], quiet=True)

    assert window(Estimate.not_fitted("the window does not fit")).passed
    assert not window(float("nan")).passed


def test_a_function_that_fails_only_once_is_told_so():
    calls = []

    def forgetful(eigenvalues):
        calls.append(1)
        return 0.0 if len(calls) == 1 else rankme(eigenvalues)

    result = check_estimator(forgetful, "effective rank", laws=["bounds"], quiet=True)["bounds"]
    assert result.outcome == "failed"
    assert "keeps state or is random" in result.message
    assert "eigenvalues" in result.example


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (float("nan"), "NaN or Inf"),
        (np.ones(3), "axes are expected"),
        ("four", "numbers are expected"),
        (None, "NaN"),
    ],
)
def test_results_of_the_wrong_form_are_named(result, message):
    report = check_estimator(lambda v: result, "effective rank", laws=["bounds"], quiet=True)
    assert message in report["bounds"].message


def test_a_looser_tolerance_admits_float32_and_still_finds_cancellation():
    def float32_centred(x):
        centred = (x - x.mean(axis=0)).astype(np.float32)
        return np.linalg.eigvalsh(centred.T @ centred / (len(x) - 1))[::-1].astype(np.float64)

    def report(tolerance):
        return check_estimator(
            float32_centred,
            "covariance spectrum",
            laws=["known spectrum"],
            tolerance=tolerance,
            max_examples=50,
            quiet=True,
        )

    assert not report(1e-8).passed
    assert report(1e-4).passed
    loose = check_estimator(
        float32_uncentred_covariance, "covariance spectrum", laws=["descending"], tolerance=1e-4, quiet=True
    )
    assert not loose.passed


# ----------------------------------------------------------------------------------------------- arguments


def test_unknown_kinds_and_laws_are_named_with_the_known_ones():
    with pytest.raises(InputError, match="'effective rank', 'effective ranks'"):
        check_estimator(rankme, "effective dimension")
    with pytest.raises(InputError, match="'symmetry' is no law of kind 'effective rank'; known: scale, "):
        check_estimator(rankme, "effective rank", laws=["symmetry"])
    with pytest.raises(InputError, match="is no law"):
        check_estimator(rankme, "effective rank", skip=["symmetry"])
    with pytest.raises(InputError, match="both selected and skipped"):
        check_estimator(rankme, "effective rank", laws=["scale"], skip=["scale"])


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": 1.5}, {"max_examples": 0}])
def test_meaningless_options_are_refused(options):
    with pytest.raises(InputError):
        check_estimator(rankme, "effective rank", **options)


def test_skipped_laws_and_the_torch_law_say_why():
    report = check_estimator(rankme, "effective rank", skip=["scale"], max_examples=2, quiet=True)
    assert report["scale"].message == "asked to skip"
    assert "torch=True" in report["device"].message
    assert report["device"].outcome == "skipped"
    assert report.passed
    with pytest.raises(InputError, match="no law 'symmetry' in this report"):
        report["symmetry"]


def test_law_names_are_unique_within_a_kind_and_have_a_statement():
    for kind in KINDS:
        names = [law.name for law in laws_for(kind)]
        assert len(names) == len(set(names)), kind
        assert names
    assert all(law.statement for law in LAWS)


# ---------------------------------------------------------------------------------------------- strategies


@pytest.mark.parametrize("centred", [True, False])
def test_planted_matrices_have_their_spectrum(centred):
    @settings(max_examples=50, database=None)
    @given(strategies.matrices_with_spectrum(centred=centred))
    def check(planted):
        x, energies = planted
        if centred:
            x = x - x.mean(axis=0)
        freedom = len(x) - 1 if centred else len(x)
        found = np.linalg.svd(x, compute_uv=False) ** 2 / freedom
        # 1e-12·λ₁: rounding of the product that builds x.
        np.testing.assert_allclose(found, energies, atol=1e-12 * energies[0], rtol=0)

    check()


def test_planting_says_what_it_cannot_do():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="need at least 4 samples"):
        strategies.matrix_with_spectrum([3.0, 2.0, 1.0], 3, rng)
    with pytest.raises(InputError, match="none negative"):
        strategies.matrix_with_spectrum([1.0, -1.0], 5, rng)
    assert strategies.matrix_with_spectrum([3.0, 2.0, 1.0], 3, rng, centred=False).shape == (3, 3)


@settings(max_examples=100, database=None)
@given(strategies.matrices(), strategies.spectra(), strategies.class_means(), strategies.spectrum_pairs(3))
def test_strategies_keep_their_promises(x, eigenvalues, H, pairs):
    assert strategies.varies(x)
    assert covariance_spectrum(x).values[0] > 0
    assert eigenvalues[0] > 0
    assert (eigenvalues >= 0).all()
    assert (np.diff(eigenvalues) <= 0).all()
    assert len(H) >= 3
    assert len({len(values) for values in pairs}) == 1


@settings(max_examples=50, database=None)
@given(st.integers(1, 8).flatmap(strategies.orthogonal_matrices))
def test_orthogonal_matrices_are_orthogonal(q):
    # Rank-one update of the identity: a few ulp.
    np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-14)


FAMILIES = [
    ("large mean", lambda x: np.abs(x.mean(axis=0)).max() > 1e4 * x.std(axis=0).max()),
    (
        "ill scaled",
        lambda x: (
            x.shape[1] > 1 and x.std(axis=0).min() > 0 and x.std(axis=0).max() > 1e6 * x.std(axis=0).min()
        ),
    ),
    ("near duplicates", lambda x: 0 < min(np.abs(a - b).max() for a, b in combinations(x, 2)) < 1e-4),
    (
        "heavy tailed",
        lambda x: np.abs(x).max() > 1e4 * max(np.median(np.abs(x)), 1) and x.min() < 0 < x.max(),
    ),
    ("more columns than rows", lambda x: x.shape[1] > x.shape[0]),
    ("rank deficient", lambda x: min(x.shape) > 2 and np.linalg.matrix_rank(x) < min(x.shape) - 1),
]


@pytest.mark.parametrize(("name", "condition"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_hard_data_are_drawn_within_a_usual_run(name, condition):
    options = settings(max_examples=200, database=None, derandomize=True, phases=(Phase.generate,))
    assert condition(find(strategies.matrices(), condition, settings=options))


def test_a_large_mean_shrinks_to_one_column_of_whole_numbers():
    options = settings(max_examples=200, database=None, derandomize=True)
    x = find(strategies.matrices(), lambda x: x.mean() > 1e3 * x.std(), settings=options)
    assert x.tolist() in ([[1000.0], [1001.0]], [[10000.0], [10001.0]])


@pytest.mark.parametrize("r", [1, 2, 3])
def test_a_wave_has_its_energy_at_its_frequency(r):
    transform = np.abs(np.fft.fft(strategies.wave(7, r)[:, 0]) / 7) ** 2
    expected = np.zeros(7)
    expected[[r, 7 - r]] = 0.25
    np.testing.assert_allclose(transform, expected, atol=1e-15)


# ------------------------------------------------------------------------------------------- documentation

SHOWN = [
    (DOCUMENTED[0], {}),
    (DOCUMENTED[1], {"laws": ["descending", "scale", "translation", "known spectrum"], "tolerance": 1e-4}),
    (DOCUMENTED[2], {}),
    (DOCUMENTED[3], {}),
]


def test_the_documentation_lists_every_kind_and_law():
    page = (ROOT / "docs" / "property-testing.md").read_text()
    for law in LAWS:
        assert f"| {law.name} | {law.statement} |" in page.replace("\\|", "|")
    assert all(kind.signature in page for kind in KINDS.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "options"), SHOWN, ids=lambda v: getattr(getattr(v, "function", None), "__name__", "")
)
def test_the_documentation_shows_the_real_output(mutant, options):
    page = (ROOT / "docs" / "property-testing.md").read_text()
    report = tried(mutant, **options)
    for result in report.failures:
        assert f"found    {result.message}" in page
    assert str(report).splitlines()[0] in page
