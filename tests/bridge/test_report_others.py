"""The report of runs that are no toys, and of folders with both."""

import json

import pytest
from made_up import text_runs, toy_runs

from sims.cli import main
from sims.studies.overview.findings import report_runs


def edit(path, name, change):
    """Change a file of a run; without digests, as of an earlier version, it can be."""
    outcome = json.loads((path / "done.json").read_text())
    (path / "done.json").write_text(
        json.dumps({k: v for k, v in outcome.items() if k not in ("files", "sha256")})
    )
    data = json.loads((path / name).read_text())
    change(data)
    (path / name).write_text(json.dumps(data))


def report(folder, capsys):
    assert main(["report", str(folder)]) == 0
    page = folder / "report.html"
    return (page.read_text() if page.exists() else ""), capsys.readouterr().out


@pytest.mark.slow
def test_language_models_have_a_report_without_bands(tmp_path, undrawn, capsys):
    page, told = report(text_runs(tmp_path, sizes=(8, 16), sites=("blocks.0", "final")), capsys)
    for title in ("Losses", "Activation spectra by site", "Layer by layer", "Gradient spectra"):
        assert f"{title}</h2>" in page
    assert "language models" in page
    assert "Mean final validation loss at B = 8, in nats: muon" in page
    assert "12 runs: stages rope, muon; batch sizes 8, 16; 3 seeds." in page
    assert "H_peak" not in page
    assert "Weight spectra" not in page
    assert "rope" in told


@pytest.mark.parametrize("sites", [("final",), ("blocks.0", "blocks.1")])
def test_few_sites(tmp_path, undrawn, capsys, sites):
    page, _ = report(text_runs(tmp_path, seeds=(0, 1), sites=sites), capsys)
    assert (
        f"activations at {sites[-1]}" in page
        or "Eigenvalues of the centred covariance of the state at" in page
    )
    assert f"the state at {sites[-1]}, divided by their sum" in page
    assert ("Layer by layer" in page) == (len(sites) > 1)


def test_runs_without_cells_stand_for_themselves(tmp_path, undrawn, capsys):
    text_runs(tmp_path, stages=("muon",), seeds=(0, 1))
    for path in tmp_path.iterdir():
        edit(path, "run.json", lambda run: run["train"].update(model={"layers": 1 + run["train"]["seed"]}))
    page, told = report(tmp_path, capsys)
    assert "2 runs, each for itself: muon-8-0, muon-8-1." in page
    assert "these runs also differ in model.layers" in " ".join(told.split())


def test_toys_are_reported_and_others_named(tmp_path, undrawn, capsys):
    text_runs(tmp_path, seeds=(0, 1))
    toy_runs(tmp_path, sizes=(32,), seeds=(0, 1))
    page, told = report(tmp_path, capsys)
    assert "modular-arithmetic" in page
    assert "4 runs of other models are left out (muon-8-0, muon-8-1, rope-8-0, rope-8-1)" in " ".join(
        told.split()
    )
    runs, _ = report_runs(tmp_path)
    assert len(runs.runs) == 4
    assert runs.differing == ()


def test_diverged_runs_alone_have_none(tmp_path, capsys):
    text_runs(tmp_path, seeds=(0,))
    for path in tmp_path.iterdir():
        edit(path, "done.json", lambda outcome: outcome.update(ended="diverged"))
    page, told = report(tmp_path, capsys)
    assert page == ""
    assert "no report: all of these runs diverged" in told
