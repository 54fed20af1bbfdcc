"""The table, the page, the exit status."""

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from rich.console import Console

import sims.studies.theory.verification as command
from sims.studies.theory.claims_page import section, write_claims
from sims.studies.theory.figures.claims import PICTURES
from theory import CLAIMS, Measurement, Verdict, select, verify
from theory.families import FAMILIES


def test_pictures_belong_to_claims():
    assert set(PICTURES) <= {c.id for c in CLAIMS}


def test_run_writes_a_self_contained_page_and_says_all_is_true(tmp_path: Path):
    text = StringIO()
    status = command.run(("T1", "T11.band"), "quick", tmp_path, True, console=Console(file=text, width=140))
    page = (tmp_path / "theory.html").read_text()
    assert status == 0
    assert "T11.band" in text.getvalue()
    # How to read it, two families, three claims, how it was made.
    assert page.count("<section") == 1 + 2 + 3 + 1
    assert page.count("<svg") >= 3
    assert not re.search(r"<script|<link|<img|src=", page)
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


def rendered(verdicts: list[Verdict], folder: Path) -> str:
    return write_claims(verdicts, [section(v) for v in verdicts], "quick", 0, folder).read_text("utf-8")


def test_a_false_claim_is_shown_with_its_counterexample(tmp_path: Path):
    (claim,) = select("T7.scale")
    wrong = verify(replace(claim, predicted=lambda case: np.zeros(1)))
    page = rendered([wrong], tmp_path)
    assert "0 of 1 claim are true as stated; refuted: T7.scale." in page
    assert '<td class="text bad">refuted</td>' in page
    assert '<p class="bad">refuted: ' in page
    assert "scale" in page
    assert "error" in page


def test_a_claim_without_a_number_is_shown_as_refuted(tmp_path: Path):
    (claim,) = select("T7.scale")
    nothing = replace(
        claim,
        predicted=lambda case: np.full(1, np.nan),
        measured=lambda case, _: Measurement.exact([np.nan]),
    )
    assert '<td class="text bad">refuted</td>' in rendered([verify(nothing)], tmp_path)


def test_an_undecided_claim_is_open_and_its_family_says_which(tmp_path: Path):
    claim, other = select("T7.scale", "T7.trace")
    few = verify(replace(claim, domain=replace(claim.domain, minimum=10**6)))
    page = rendered([few, verify(other)], tmp_path)
    assert "1 of 2 claims is true as stated; open: T7.scale." in page
    assert "open: T7.scale\ntrue as stated: T7.trace" in page
    assert '<p class="open">open: ' in page


def test_the_page_is_grouped_and_says_each_thing_once(tmp_path: Path):
    verdicts = [verify(c) for c in select("T1", "T7.scale", "T7.trace", "T11.known")]
    page = rendered(verdicts, tmp_path)
    names = re.findall(r'<section id="([^"]+)">\s*<h([23])>', page)
    assert names[1:-1] == [
        *(("T1", "2"), ("T1-2", "3"), ("T1.group", "3")),
        *(("T7", "2"), ("T7.scale", "3"), ("T7.trace", "3")),
        *(("T11", "2"), ("T11.known", "3")),
    ]
    first = page[: page.index("<nav")]
    for family in ("T1", "T7", "T11"):
        assert f'<a href="#{family}">{family}</a>' in first
        assert escape(FAMILIES[family].sentence) in first
    derivations = re.findall(r"<summary>(Derivation of [^<]+)</summary>", page)
    assert derivations == ["Derivation of T1, by sympy", "Derivation of T7.scale, T7.trace, by sympy"]
    assert "The derivation of T11.known is the one under T1." in page
    for verdict in verdicts:
        assert page.count(escape(f"What this means: {verdict.claim.meaning}")) == 1
        assert page.count(escape(f"; {verdict.mutants[-1].name}.")) >= 1


def test_a_family_without_a_name_has_that_of_its_claim(tmp_path: Path):
    (claim,) = select("T7.scale")
    page = rendered([verify(replace(claim, id="T99.new"))], tmp_path)
    assert f"<h2>T99 · {claim.title}</h2>" in page
