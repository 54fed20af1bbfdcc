"""The wrappers of public estimators, as far as their packages are installed here, and the page about them."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from spectra.testing import KINDS, LawResult, Report, laws_for
from spectra.testing.public import PUBLIC

ROOT = Path(__file__).parents[2]
INSTALLED = [name for name, estimator in PUBLIC.items() if estimator.version is not None]


@pytest.mark.parametrize("name", INSTALLED)
def test_each_wrapper_returns_a_number_that_repeats(name):
    report = PUBLIC[name].check(laws=["repeatable"], max_examples=2, quiet=True)
    assert report.passed, str(report)
    assert report["repeatable"].outcome == "passed", str(report)


@pytest.mark.slow
def test_powerlaw_by_default_goes_up_to_three():
    law, few = ["Pareto quantiles"], {"max_examples": 8, "quiet": True}
    narrow, wide = PUBLIC["powerlaw.Fit"], PUBLIC["powerlaw.Fit, wide range"]
    assert narrow.version is not None
    found = narrow.check(laws=law, **few)[law[0]]
    assert found.outcome == "failed"
    assert found.example["alpha"] > 3
    assert wide.check(laws=law, **few).passed
    assert set(law) <= set(narrow.by_design)


def test_what_is_not_installed_is_said():
    assert {"numpy.linalg.matrix_rank", "scipy.stats.entropy", "powerlaw.Fit"} <= set(INSTALLED)
    absent = dataclasses.replace(PUBLIC["powerlaw.Fit"], package="no-such-package-here")
    with pytest.raises(ImportError, match="pip install no-such-package-here"):
        absent.check()


@pytest.mark.parametrize("name", PUBLIC)
def test_the_table_names_kinds_and_laws_that_there_are(name):
    estimator = PUBLIC[name]
    assert estimator.kind in KINDS
    assert set(estimator.by_design) <= {law.name for law in laws_for(estimator.kind, estimator.takes)}


def script():
    place = ROOT / "tests" / "studies" / "public_estimators.py"
    spec = importlib.util.spec_from_file_location("public_estimators", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_written_and_says_what_is_missing(tmp_path, monkeypatch):
    study, out = script(), tmp_path / "page.md"
    names = ["numpy.linalg.matrix_rank", "weightwatcher.stable_rank"]
    lost = dataclasses.replace(PUBLIC[names[1]], package="no-such-package-here")
    monkeypatch.setitem(study.PUBLIC, names[1], lost)
    monkeypatch.setattr("sys.argv", ["x", "--out", str(out), "--examples", "2", "--only", *names])
    study.main()
    page = out.read_text("utf-8")
    assert "left out: weightwatcher.stable_rank (no-such-package-here)" in page
    assert "## numpy.linalg.matrix_rank" in page
    assert "- all zeros: the rank of nothing is 0 by definition." in page
    assert "  ok " not in page.split("```text")[1]


def test_laws_that_hold_are_counted_and_long_examples_cut():
    broken = LawResult("scale", "f(cλ) = f(λ)", "failed", 1, {"λ": tuple(range(200))}, "f = 1")
    fine = [LawResult(name, "s", "passed", 3) for name in "ab"]
    text = script().folded(str(Report("f", "effective rank", 1e-8, (fine[0], broken, *fine))))
    assert "  ...   1 law holds\n  FAIL  scale" in text
    assert text.endswith("  ...   2 laws hold")
    assert max(map(len, text.splitlines())) < 160


def test_the_stored_page_has_every_estimator_and_no_address():
    page = (ROOT / "docs" / "public-estimators.md").read_text("utf-8")
    assert [name for name in PUBLIC if f"\n## {name}\n" not in page] == []
    assert "0x" not in page
    assert "left out:" not in page
