"""The table, the page, the exit status."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import sims.studies.theory.verification as command
from sims.studies.theory.claims_page import section, write_claims
from sims.studies.theory.figures.claims import PICTURES, latex_svg
from theory import CLAIMS, select, verify


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
def test_every_statement_renders(claim):
    assert latex_svg(claim.latex) is not None, claim.latex


def test_pictures_belong_to_claims():
    assert set(PICTURES) <= {c.id for c in CLAIMS}


def test_run_writes_a_self_contained_page_and_says_all_is_true(tmp_path: Path):
    text = StringIO()
    status = command.run(("T1", "T11.band"), "quick", tmp_path, True, console=Console(file=text, width=140))
    page = (tmp_path / "theory.html").read_text()
    assert status == 0
    assert "T11.band" in text.getvalue()
    # The table of all claims, and a section for each.
    assert page.count("<section") == 1 + 3
    assert "<svg" in page
    assert "src=" not in page
    assert "https://" not in page.replace("https://matplotlib.org", "")
    assert (tmp_path / "T11.band.png").stat().st_size > 5000


def test_exit_status_tells_false_from_unknown(monkeypatch: pytest.MonkeyPatch):
    (claim,) = select("T7.scale")
    quiet = Console(file=StringIO())
    wrong = replace(claim, predicted=lambda case: 2 * claim.predicted(case))
    monkeypatch.setattr(command, "select", lambda *_: (wrong,))
    assert command.run((), "quick", None, False, console=quiet) == 1
    vacuous = replace(claim, domain=replace(claim.domain, minimum=10**6))
    monkeypatch.setattr(command, "select", lambda *_: (vacuous,))
    assert command.run((), "quick", None, False, console=quiet) == 3


def test_an_unknown_name_is_refused_with_the_choices(capsys: pytest.CaptureFixture[str]):
    assert command.run(("T77",), "quick", None, False) == 2
    assert "T8.boundary" in capsys.readouterr().err


def test_a_false_claim_is_shown_with_its_counterexample(tmp_path: Path):
    (claim,) = select("T7.scale")
    wrong = verify(replace(claim, predicted=lambda case: np.zeros(1)))
    page = write_claims([wrong], [section(wrong)], "quick", 0, tmp_path).read_text()
    assert '<p class="bad">false: ' in page
    assert "scale" in page
    assert "error" in page
