"""What `check_estimator` reports, what it makes of functions that misbehave, and the arguments it refuses."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutants import DOCUMENTED, tried
from mutants.documented import float32_uncentred_covariance, rankme_with_epsilon
from mutants.matrices import second_moment_for_covariance

from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.moments import Moments
from spectra.results import Estimate
from spectra.summaries import rankme
from spectra.testing import KINDS, LawsBroken, Subject, Violation, check_estimator, laws_for
from spectra.testing.law import Refused

ROOT = Path(__file__).parents[2]


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
    assert "its one law holds" in str(clean)


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


@pytest.mark.slow
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
        (None, "returned None (NoneType); numbers are expected"),
        ("1.0", "returned '1.0' (str); numbers are expected"),
        (b"1.0", "numbers are expected"),
        (np.timedelta64(1, "s"), "numbers are expected"),
        (np.ma.masked, "returned masked (MaskedConstant); numbers are expected"),
    ],
)
def test_results_of_the_wrong_form_are_named(result, message):
    report = check_estimator(lambda v: result, "effective rank", laws=["bounds"], quiet=True)
    assert message in report["bounds"].message


@pytest.mark.parametrize(
    "one", [Fraction(1), 10**30 // 10**30, np.float16(1), np.ma.array(1.0), torch.ones(())]
)
def test_numbers_of_any_type_are_taken(one):
    assert check_estimator(
        lambda v: one, "effective rank", laws=["bounds"], max_examples=3, quiet=True
    ).passed


def test_an_array_that_a_function_fills_again_is_compared_as_it_was():
    held, rng = np.zeros(64), np.random.default_rng(0)

    def filled(x):
        held[:] = 0.0
        values = covariance_spectrum(x).values
        held[: len(values)] = values
        return held

    def random(x):
        held[:] = rng.random(64)
        return torch.from_numpy(held)

    options = {"laws": ["scale", "orthogonal", "repeatable"], "max_examples": 5, "quiet": True}
    assert check_estimator(filled, "covariance spectrum", **options).passed
    assert len(check_estimator(random, "covariance spectrum", **options).failures) == 3


def test_a_merge_that_changes_the_other_is_found_where_spectra_share_one_array():
    class Held(Moments):
        def merge(self, other):
            other.update(np.eye(self.dim))
            return super().merge(other)

        def spectrum(self, center=True):
            self.held = getattr(self, "held", np.zeros(self.dim))
            self.held[:] = super().spectrum(center).values
            return self.held

    law = ["merge leaves other"]
    report = check_estimator(Held, "streaming moments", laws=law, max_examples=5, quiet=True)
    assert "spectrum of other after merge" in report[law[0]].message


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


def test_nothing_tested_is_no_pass():
    every = [law.name for law in laws_for("effective rank")]
    report = check_estimator(rankme, "effective rank", skip=every, quiet=True)
    assert not report.passed
    assert "rankme as effective rank: no law was tested" in str(report)
    with pytest.raises(LawsBroken, match="no law was tested"):
        report.raise_if_failed()
    with pytest.raises(InputError, match="laws is empty; name one at least"):
        check_estimator(rankme, "effective rank", laws=[])


# ------------------------------------------------------------------------------- tensors, complex numbers, scale


def torch_covariance(x):
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"a tensor is expected, not {type(x).__name__}")
    return covariance_spectrum(x).values


def test_an_estimator_of_tensors_only_is_tried_with_tensors():
    names = ["scale", "dtype", "layout", "device", "NaN and Inf", "empty", "one row", "input not mutated"]
    kind = "covariance spectrum"
    options = {"laws": ["scale"], "holds": "numpy", "max_examples": 3, "quiet": True}
    assert not check_estimator(torch_covariance, kind, **options).passed
    report = check_estimator(torch_covariance, kind, laws=names, holds="torch", max_examples=20, quiet=True)
    assert report.passed, str(report)
    assert [r.outcome for r in report.results] == ["passed"] * len(names)

    def in_place(x):
        values = torch_covariance(x)
        x -= x.mean(0)
        return values

    laws = ["input not mutated"]
    assert not check_estimator(in_place, kind, laws=laws, holds="torch", max_examples=20, quiet=True).passed

    class TensorMoments(Moments):
        def update(self, x, **options):
            assert isinstance(x, torch.Tensor)
            return super().update(x, **options)

    laws = ["merge order", "merge leaves other", "dtype"]
    options = {"laws": laws, "holds": "torch", "max_examples": 10, "quiet": True}
    assert check_estimator(TensorMoments, "streaming moments", **options).passed
    options = {"laws": ["repeatable"], "max_examples": 2, "quiet": True}
    assert check_estimator(TensorMoments, "streaming moments", **options).given == "as tensors"
    with pytest.raises(InputError, match="it must be True or False"):
        check_estimator(rankme, "effective rank", torch="only")  # pyright: ignore[reportArgumentType]


def test_accumulators_have_the_options_of_other_estimators():
    class Small(Moments):
        def spectrum(self, center=True):
            if self.count < 4:
                raise LookupError("four rows at least")
            return {"values": super().spectrum(center).values}

    kind = "streaming moments"
    subject = Subject(Small, KINDS[kind], refusals=(LookupError,), result="values")
    cases = {"cuts": (1,)}, {"cuts": (1,), "order": (0,)}, {"cut": 2}
    for law, case in zip(laws_for(kind)[:3], cases, strict=True):
        few, many = np.eye(3), np.eye(9)
        law.check(subject, x=many, **({"cut": 4} if "cut" in case else case))
        with pytest.raises(Refused, match="four rows at least"):
            law.check(subject, x=few, **case)
        with pytest.raises(Violation, match="raised LookupError"):
            law.check(replace(subject, refusals=(ValueError,)), x=few, **case)
        with pytest.raises(Violation, match="result='values'"):
            law.check(replace(subject, result=None), x=many, **({"cut": 4} if "cut" in case else case))


@pytest.mark.parametrize(
    "value",
    [1 + 2j, np.complex128(1 + 2j), np.array(3 + 1j), torch.tensor(1 + 2j)],
)
def test_complex_results_are_named_and_not_cast(value):
    report = check_estimator(lambda v: value, "effective rank", laws=["bounds"], quiet=True)
    assert "complex numbers" in report["bounds"].message
    eigenvalues = np.linalg.eigvals(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    found = check_estimator(lambda x: eigenvalues, "covariance spectrum", laws=["scale"], quiet=True)
    assert "complex numbers (complex128)" in found["scale"].message


def test_an_extreme_scale_may_be_refused_but_not_be_nan():
    def refuses(eigenvalues):
        if eigenvalues.max() > 1e100 or eigenvalues.max() < 1e-100:
            raise ValueError("divide by the largest value first")
        return rankme(eigenvalues)

    def overflows(eigenvalues):
        with np.errstate(all="ignore"):
            return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())

    laws = ["extreme scale"]
    assert check_estimator(refuses, "effective rank", laws=laws, max_examples=20, quiet=True).passed
    report = check_estimator(overflows, "effective rank", laws=laws, max_examples=20, quiet=True)
    assert "NaN" in report["extreme scale"].message
