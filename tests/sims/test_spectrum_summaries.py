"""An estimator on every run is one line in SUMMARIES: it is then in rows, compare, report, export, tests and docs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sims import cli
from sims.analysis import summaries
from sims.analysis.paired import compare_stages
from sims.analysis.runs import load
from sims.analysis.summaries import SUMMARIES, Summary
from sims.measure import registry
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import summarise
from sims.training.toy_runner import run_group
from spectra import Spectrum

DOCS = Path(__file__).parents[2] / "docs" / "measurements.md"


def spread(spectrum):
    """Return λ₁/λ₃."""
    return float(spectrum.values[0] / spectrum.values[2])


@pytest.fixture
def more(monkeypatch):
    made = Summary("spread", spread, "spread of three", "λ₁/λ₃")
    monkeypatch.setattr(summaries, "SUMMARIES", (*SUMMARIES, made))


def test_rows_of_a_spectrum_have_their_order_and_their_nulls():
    sheet = MeasurementRows(3, 30)
    values = np.arange(1, 21.0) ** -1.5
    summarise(sheet, "activation", "final", Spectrum(values, n=100, d=20, centred=True), [(1, 10), (2, 12)])
    found = [(r["quantity"], r["window"], r["detail"]) for r in sheet.rows]
    assert found == [
        ("alpha", "1-10", ""),
        ("alpha", "2-12", ""),
        ("rankme", "", ""),
        ("participation_ratio", "", ""),
        ("stable_rank", "", ""),
        ("top_share", "", "10"),
        ("trace", "", ""),
    ]
    rows = {r["quantity"]: r for r in sheet.rows}
    assert rows["alpha"]["value"] == pytest.approx(1.5)
    assert rows["stable_rank"]["value"] == pytest.approx(values.sum())
    assert np.isnan(rows["trace"]["null"])
    assert not np.isnan([rows[s.name]["null"] for s in SUMMARIES if s.null]).any()


def test_names_and_labels():
    assert len({s.name for s in SUMMARIES}) == len(SUMMARIES)
    assert summaries.label("alpha 10-40") == "α 10-40"
    assert summaries.label("rankme") == "RankMe"
    assert summaries.label("val_loss") is None


@pytest.mark.slow
def test_one_line_more_is_seen_everywhere(more, tmp_path, undrawn, tiny_run, tiny_measure, capsys):
    runs_folder = tmp_path / "runs"
    configs = [tiny_run(stage=stage, seed=seed) for stage in ("untied", "value_mix") for seed in (0, 1)]
    measure = tiny_measure(causal_sequences=0, training_bands=0, every=3, bands=((17, 5),))
    for config in configs:
        assert not run_group([config], measure, runs_folder)
    runs = load(runs_folder)
    rows = runs.values("spread", "activation", "final")
    spectra = runs.spectra[(runs.spectra["object"] == "activation") & (runs.spectra["site"] == "final")]
    merged = rows.merge(spectra, on=["run_id", "step"], suffixes=("", "_spectrum"))
    assert len(merged) == len(rows) > 0
    assert merged["value"].to_numpy() == pytest.approx([v[0] / v[2] for v in merged["values"]])
    assert (rows["null"] >= 1).all()
    # Weights and gradients have it too, and stages are tested by it.
    assert {"weight", "gradient"} <= set(runs.rows[runs.rows["quantity"] == "spread"]["object"])
    assert "spread" in set(compare_stages(runs, "untied", "value_mix")["quantity"])
    capsys.readouterr()
    assert cli.main(["compare", str(runs_folder)]) == 0
    assert "spread of three" in capsys.readouterr().out
    assert cli.main(["report", str(runs_folder)]) == 0
    assert "spread of three" in (runs_folder / "report.html").read_text()
    assert cli.main(["export", str(runs_folder), "--to", str(tmp_path / "r.csv"), "--table", "rows"]) == 0
    assert "spread" in set(pd.read_csv(tmp_path / "r.csv")["quantity"])
    assert "| `spread` | spread of three: λ₁/λ₃ |" in summaries.markdown_table()


@pytest.mark.parametrize("module", [summaries, registry])
def test_the_tables_of_the_documentation_are_those_of_the_code(module):
    command = f"python -m {module.__name__}"
    assert module.markdown_table() in DOCS.read_text("utf-8"), f"put the output of `{command}` into {DOCS}"
