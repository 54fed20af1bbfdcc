"""`check_estimator` on functions as they are found: matrices, weights, singular values, tensors, results in parts."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from spectra import covariance_spectrum, hill, participation_ratio, rankme, weight_spectrum
from spectra.errors import InputError
from spectra.testing import (
    KINDS,
    LawsBroken,
    as_taken,
    check_estimator,
    estimator_tests,
    laws_for,
    strategies,
)
from spectra.testing.__main__ import __doc__ as COMMAND_HELP
from spectra.testing.__main__ import main
from spectra.testing.forms import FORMS, TAKES

RANK = "effective rank"
ROOT = Path(__file__).parents[2]


def sigma(W):
    if not W.size or not np.isfinite(W).all() or not W.any():
        raise ValueError("W must be finite, and not zero everywhere")
    return np.linalg.svd(W.astype(np.float64), compute_uv=False)


def stable(W):
    values = sigma(W)
    return float((values**2).sum() / values[0] ** 2)


def checked(function, kind=RANK, **options):
    return check_estimator(function, kind, **{"max_examples": 30, "quiet": True, **options})


# ---------------------------------------------------------------------------------------------- what it takes


@pytest.mark.parametrize(
    ("function", "kind", "takes", "skip"),
    [
        (lambda x: rankme(covariance_spectrum(x)), RANK, "matrix", ()),
        # An estimator that does not centre does not claim "translation".
        (lambda x: rankme(covariance_spectrum(x, center=False)), RANK, "matrix", ["translation"]),
        (lambda W: participation_ratio(weight_spectrum(W)), RANK, "weights", ()),
        (lambda W: hill(weight_spectrum(W)), "tail exponent", "weights", ()),
        (lambda s: rankme(weight_spectrum(np.diag(as_floats(s)))), RANK, "singular", ()),
    ],
)
def test_right_functions_of_each_form_break_no_law(function, kind, takes, skip):
    report = checked(function, kind, takes=takes, skip=skip)
    assert report.passed, str(report)


def as_floats(values):
    values = np.asarray(values, dtype=np.float64)
    if not values.size or (values < 0).any() or not values.any():
        raise ValueError("singular values must be 0 or more, one of them positive")
    return np.pad(values, (0, 1))


def row_scaled(x):
    return stable(x / np.maximum(np.abs(x).max(axis=0), 1e-300))


def first_row(W):
    return stable(W) + abs(float(W[0, 0])) / float(np.abs(W).max())


def tall_only(W):
    return stable(W) * (2 if W.shape[0] < W.shape[1] else 1)


def uncentred(x):
    return stable(x)


def left_scaled(W):
    return stable(W / np.maximum(np.abs(W).max(axis=1, keepdims=True), 1e-300))


@pytest.mark.parametrize(
    ("function", "takes", "law"),
    [
        (row_scaled, "matrix", "orthogonal"),
        (first_row, "matrix", "rows and columns"),
        (uncentred, "matrix", "translation"),
        (first_row, "weights", "orthogonal, left"),
        (left_scaled, "weights", "orthogonal, left"),
        (tall_only, "weights", "transpose"),
    ],
)
def test_each_law_of_matrices_catches_what_breaks_it(function, takes, law):
    assert law in {r.law for r in checked(function, takes=takes, laws=[law]).failures}


@settings(max_examples=30)
@given(strategies.spectra())
def test_what_is_handed_over_has_the_eigenvalues_of_the_law(eigenvalues):
    share = np.sort(eigenvalues)[::-1] / eigenvalues.sum()
    x, W = as_taken(eigenvalues, "matrix"), as_taken(eigenvalues, "weights")
    assert np.abs(x.mean(axis=0)).max() == 0
    found = [covariance_spectrum(x), covariance_spectrum(x, center=False), weight_spectrum(W)]
    for spectrum in found:
        energies = spectrum.energies[: len(share)]
        np.testing.assert_allclose(energies / energies.sum(), share[: len(energies)], atol=1e-12)
    np.testing.assert_allclose(as_taken(eigenvalues, "singular") ** 2, eigenvalues, rtol=1e-12)
    for form in FORMS.values():
        back = np.sort(form.back(form.make(eigenvalues)))[::-1][: len(share)]
        np.testing.assert_allclose(back / back.sum(), share, atol=1e-12)


@pytest.mark.parametrize("bad", [[-1.0], [np.nan], [[1.0]], "ab"])
def test_no_spectrum_is_handed_over_as_one(bad):
    with pytest.raises(InputError):
        as_taken(bad, "matrix")


def test_the_form_of_a_kind_may_be_named_and_the_report_says_what_was_given():
    for kind, forms in TAKES.items():
        assert laws_for(kind, forms[0]) == laws_for(kind)
        for form in forms[1:]:
            assert {law.name for law in laws_for(kind, form)} > {"repeatable", "empty"}
    assert "data matrices as_taken(eigenvalues, 'matrix')" in str(checked(stable, takes="matrix"))
    assert set(TAKES) < set(KINDS)


# --------------------------------------------------------------------------------------------- arrays, tensors


def of_tensors(eigenvalues):
    p = eigenvalues.sort(descending=True).values
    return (p.sum() / p[0]).item()


def test_a_function_of_tensors_is_given_tensors_and_the_report_says_so():
    options = {"laws": ["scale", "flat spectrum"], "max_examples": 5}
    report = checked(of_tensors, **options)
    assert report.passed, str(report)
    assert "as tensors" in str(report)
    assert not checked(of_tensors, **options, holds="numpy").passed
    # One that takes both is given arrays.
    assert "tensors" not in str(checked(rankme, **options))


def test_a_function_that_fails_on_both_is_given_arrays():
    def broken(eigenvalues):
        raise KeyError(type(eigenvalues).__name__)

    assert "ndarray" in checked(broken, laws=["scale"])["scale"].message


# ------------------------------------------------------------------------------------------------------ results


@dataclass
class Fit:
    alpha: object
    ks: float = 0.1


class Pair(NamedTuple):
    rank: float
    other: float


@pytest.mark.parametrize(
    ("wrap", "pick"),
    [
        (float, None),
        (np.float64, None),
        (np.array, None),
        (lambda v: torch.tensor(v, dtype=torch.float64), None),
        (lambda v: torch.tensor(v, dtype=torch.float64, requires_grad=True), None),
        (lambda v: (0.0, v), 1),
        (lambda v: [v, None], 0),
        (lambda v: (None, v), -1),
        (lambda v: {"rank": v, "ks": "?"}, "rank"),
        (lambda v: {3: v}, 3),
        (lambda v: Pair(v, 0.0), "rank"),
        (lambda v: Fit(v), "alpha"),
        (lambda v: Fit(torch.tensor(v, dtype=torch.float64)), "alpha"),
        (lambda v: {"fit": Fit(v)}, lambda found: found["fit"].alpha),
        (lambda v: np.array([v, 0.0]), 0),
    ],
)
def test_the_number_is_picked_out_of_any_result(wrap, pick):
    report = checked(lambda v: wrap(rankme(v)), result=pick, laws=["scale", "bounds"], max_examples=10)
    assert report.passed, str(report)


@pytest.mark.parametrize(
    ("returned", "pick", "said"),
    [
        (
            {"alpha": 2.0, "D": 0.1},
            None,
            "a dict with 'alpha', 'D'; pick the number by result=, such as result='alpha'",
        ),
        ({"alpha": 2.0}, "aplha", "returned a dict with 'alpha', without 'aplha'"),
        ((1.0, 2.0), None, "pick the number by result=, such as result=0"),
        ((1.0, 2.0), 5, "a tuple with 0, 1, without 5"),
        (Fit(2.0), None, "a Fit with 'alpha', 'ks'; pick the number"),
        (Fit(2.0), lambda found: found.beta, "result= raised AttributeError on a Fit with"),
        (2.0, "alpha", "returned a float, without 'alpha'"),
    ],
)
def test_a_result_in_parts_says_what_it_has(returned, pick, said):
    message = checked(lambda v: returned, result=pick, laws=["bounds"])["bounds"].message
    assert said in message


def test_what_is_returned_for_a_bad_input_is_the_picked_number_without_an_address():
    class Found:
        def __init__(self, value):
            self.number = value

    options = {"laws": ["all zeros"], "max_examples": 3}
    picked = checked(lambda v: Found(2.5), result="number", **options)["all zeros"].message
    assert "it returned 2.5 instead" in picked
    whole = checked(lambda v: Found(2.5), **options)["all zeros"].message
    assert "Found object" in whole
    assert " at 0x" not in whole


# -------------------------------------------------------------------------------------------------------- hints


@pytest.mark.slow
def test_one_exception_everywhere_is_said_once():
    def of_matrices(x):
        return float(x.shape[1])

    report = checked(of_matrices)
    assert "laws that fail raised 'IndexError: tuple index out of range'" in report.hint
    assert "takes='singular', 'matrix', 'weights'" in report.hint
    assert "numpy arrays" in report.hint
    assert str(report).count("  hint  ") == 1
    assert "hint" in report._repr_html_()
    assert checked(stable, takes="weights").hint == ""
    # Two exceptions, or a law that fails by its numbers, have no one cause.
    calls = []

    def two(v):
        calls.append(1)
        raise (KeyError if len(calls) % 2 else TypeError)("x")

    assert "raised" not in checked(two, laws=["scale", "bounds", "permutation"], holds="numpy").hint
    assert checked(lambda v: 0.5).hint == ""


@pytest.mark.slow
def test_a_function_may_refuse_what_is_too_small_for_it():
    def of_ten(eigenvalues):
        if np.size(eigenvalues) < 10:
            raise ValueError("ten values are needed")
        return rankme(eigenvalues) + 1.0

    def never(eigenvalues):
        raise ValueError("not today")

    laws = ["scale", "bounds", "flat spectrum"]
    assert "ten values" in checked(of_ten, laws=laws)["bounds"].message
    report = checked(of_ten, laws=laws, may_refuse=True)
    assert report["scale"].outcome == "passed"
    assert report["flat spectrum"].example["size"] + report["flat spectrum"].example["zeros"] >= 10
    assert [r.outcome for r in checked(never, laws=laws, may_refuse=True).results] == ["skipped"] * 3
    # Bad inputs are refused as they should be, and nothing else is known.
    report = checked(never, laws=[*laws, "NaN and Inf"], may_refuse=True)
    assert report["NaN and Inf"].outcome == "passed"
    assert not report.passed
    assert "never as effective rank: every valid input was refused" in str(report)
    with pytest.raises(LawsBroken):
        report.raise_if_failed()
    # Being refused is not the same as returning NaN, or crashing.
    assert not checked(lambda v: float("nan"), laws=laws, may_refuse=True).passed


def test_a_random_function_is_called_so():
    rng = np.random.default_rng(0)
    report = checked(lambda v: 1 + rng.uniform())
    assert "other numbers for the same input" in report.hint
    refusing = checked(lambda v: float(np.ones(3)[7]), laws=["repeatable"])
    assert "same input" not in refusing.hint


# ----------------------------------------------------------------------------- tests, pages, the command


@pytest.mark.slow
def test_one_test_for_each_law(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "from spectra import rankme\n"
        "from spectra.testing import estimator_tests\n"
        "test_good = estimator_tests(rankme, 'effective rank', skip=['Kronecker'], max_examples=5)\n"
        "test_bad = estimator_tests(lambda v: 0.5, 'effective rank', laws=['scale', 'bounds'], max_examples=5)\n",
        encoding="utf-8",
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfs", "test_mine.py"]
    run = subprocess.run(words, cwd=tmp_path, env=with_root(), capture_output=True, text=True)
    count = len(laws_for(RANK))
    assert f"1 failed, {count - 1} passed, 2 skipped" in run.stdout, run.stdout
    assert "test_bad[bounds]" in run.stdout
    assert "f(λ) = 0.5 is below 1" in run.stdout
    assert "asked to skip" in run.stdout
    assert "Traceback" not in run.stdout


def with_root():
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    "options",
    [
        *({"laws": ["scael"]}, {"laws": []}, {"takes": "tensor"}, {"tolerence": 1}, {"quiet": True}),
        *({"tolerance": 5.0}, {"max_examples": 0}, {"result": 2.5}, {"holds": "pandas"}),
    ],
)
def test_tests_of_wrong_arguments_are_not_made(options):
    with pytest.raises(InputError):
        estimator_tests(rankme, RANK, **options)


def test_the_page_is_whole_or_not_there(tmp_path, monkeypatch):
    report = checked(lambda v: 0.5, laws=["bounds", "scale"], name="f<x>")
    page = report.to_html(tmp_path / "f.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert "f&lt;x&gt; as effective rank: 1 of 2 laws broken" in page
    assert "f<x>" not in page
    assert "f(λ) = 0.5 is below 1" in page
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        report.to_html(tmp_path / "g.html")
    assert [path.name for path in tmp_path.iterdir()] == ["f.html"]


def lines_of_help():
    import shlex

    for line in (COMMAND_HELP or "").splitlines():
        if line.startswith("    python -m spectra.testing "):
            yield shlex.split(line)[3:]


@pytest.mark.parametrize("words", list(lines_of_help()), ids=" ".join)
def test_the_examples_of_the_help_run(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    more = [] if "--list" in words or "--max-examples" in words else ["--max-examples", "5"]
    assert main([*words, *more]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert ("laws hold" in shown.out) != ("--list" in words)
    if "--html" in words:
        assert "<!doctype" in (tmp_path / "hill.html").read_text("utf-8")


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    (tmp_path / "cracked_estimator.py").write_text("def f(:\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    nowhere = str(tmp_path / "none" / "f.html")
    fine = ["spectra:rankme", RANK, "--max-examples", "2", "--laws", "scale"]
    for words, said in [
        (["spectra:rankmee", RANK], "has no attribute 'rankmee'"),
        (["spectraa:rankme", RANK], "No module named 'spectraa'"),
        (["spectra", RANK], "write MODULE:FUNCTION"),
        (["cracked_estimator:f", RANK], "cracked_estimator cannot be imported: SyntaxError"),
        (["spectra:rankme", "effective"], "kind is 'effective'"),
        ([*fine, "--takes", "tensor"], "takes is 'tensor'"),
        ([*fine, "--html", nowhere], "No such file"),
    ]:
        assert main(words) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["spectra:rankme"])
    assert stop.value.code == 2
    assert main(["numpy:max", RANK, "--laws", "scale", "--max-examples", "5"]) == 1
    pair = ["spectra:hill", "tail exponent", "--result", "value", "--laws", "scale", "--max-examples", "2"]
    assert main(pair) == 0
    assert main(["spectra:rankme", RANK, "--laws", "device"]) == 2
