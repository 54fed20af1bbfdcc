"""Published figures beside runs of some cells: which can be compared, and what the page says of the others."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from constructed import build

from sims.studies.paper.cells import Cell, needed
from sims.studies.paper.figure_data import SUPPORTS, FigureData
from sims.studies.paper.page import TITLE, _lead, all_checks, tally, write
from sims.studies.paper.profiles import profile
from sims.studies.paper.published import PUBLISHED, RUN_A, SIZES, STAGES
from sims.studies.paper.sections import sections
from sims.studies.paper.share import cell_table, cells_section
from sims.studies.paper.verdicts import AGREES, CANNOT_TELL, DISAGREES, NOT_RUN, WITHOUT, Ours, check
from sims.studies.study import OPEN

FIGURES = ("tables", "fig1a", "fig4b", "fig11b")


@pytest.fixture(scope="module")
def cells():
    return profile("published").cells()


@pytest.fixture(scope="module")
def data(cells, tmp_path_factory):
    """Three seeds of untied at B = 32, with the names and outcomes that runs of run A have."""
    runs = build(
        ("untied",),
        (32,),
        rate=lambda stage, size, seed: 2.0 + 0.01 * seed,
        peak=lambda stage, size, seed, loss: 0.1 + 0.01 * seed,
    )
    names = {f"untied-32-{c.seed}": c.run_id for c in cells[Cell("untied", 32)]}

    def named(table):
        return table.assign(run_id=table["run_id"].map(names))

    (lr, _, tokens, steps), *_ = RUN_A["untied"]
    ends = named(runs.runs).assign(ended="target", step=steps, lr=lr)
    ends = ends.assign(tokens=1e6 * (tokens + 0.1 * (ends["seed"] - 1)))
    runs = replace(runs, runs=ends, rows=named(runs.rows), spectra=named(runs.spectra))
    folder = tmp_path_factory.mktemp("runs")
    return FigureData(
        runs, runs, runs, comparable=True, scanned=False, folder=folder, vocab=1024, scans=False
    )


@pytest.fixture(scope="module")
def checks(data):
    return all_checks(sections(FIGURES, data), data)


def test_a_figure_is_compared_where_its_cells_are_there_and_only_there(data, checks):
    assert data.cells == {Cell("untied", 32)}
    by_key = {c.published.key: c for c in checks}
    assert set(by_key) == set(PUBLISHED)
    for key, found in by_key.items():
        whole = set(needed(key)) <= data.cells
        assert (found.verdict != NOT_RUN) == whole, key
        assert whole or found.reason == f"no run of {', '.join(data.missing(key))}"
    assert [key for key, c in by_key.items() if c.verdict not in WITHOUT] == ["tokens untied 32"]
    assert by_key["tokens untied 32"].verdict == AGREES
    assert tally(checks) == f"1 agrees, {len(PUBLISHED) - 1} not run yet"


def test_runs_of_run_a_are_not_taken_for_those_of_run_b(data):
    """Without a run to loss 2.5 every run stands for both, and a statement about run B would be judged by run A."""
    assert data.missing("early muon") == [f"muon:{size}:B" for size in (32, 64, 128, 256, 512)]
    assert Cell("untied", 32, "B") not in data.cells
    assert Cell("untied", 32, "B") in replace(data, scans=True).cells


def test_a_mean_over_fewer_batch_sizes_than_published_gets_no_verdict(data):
    ours = Ours(0.13, 0.12, 0.14, 3)
    assert check("h_peak untied 500", ours, "f", True, data.missing("h_peak untied 500")).verdict == NOT_RUN
    # The same number would agree: what it is compared with is another mean.
    assert check("h_peak untied 500", ours, "f", True).verdict == AGREES
    assert replace(data, comparable=False).missing("h_peak untied 500") == []


@pytest.mark.slow
def test_findings_take_no_side_until_all_cells_of_their_figure_are_there(data):
    """H_peak of one cell rises above its null, which is not what was published of the mean over three."""
    (partial,) = sections(("fig4b",), data)
    (whole,) = sections(("fig4b",), replace(data, comparable=False))
    assert [f.stance for f in whole.findings] == [SUPPORTS]
    assert [f.stance for f in partial.findings] == [OPEN]
    assert [f.text for f in partial.findings] == [f.text for f in whole.findings]
    every = frozenset(Cell(stage, size) for stage in STAGES for size in SIZES)
    full = replace(data)
    full.__dict__["cells"] = every
    assert [f.stance for f in sections(("fig4b",), full)[0].findings] == [SUPPORTS]


def test_each_cell_with_its_outcome_and_both_intervals(data, cells, checks):
    rows = {str(r["cell"]): r for r in cell_table(data, cells, checks).to_dict("records")}
    assert list(rows) == [str(cell) for cell in cells]
    row = rows.pop("untied:32")
    assert (row["there"], row["runs"], row["published"]) == (3, 5, RUN_A["untied"][0][2])
    assert row["ours"] == pytest.approx(RUN_A["untied"][0][2])
    # One further seed: the interval of the mean, wider by √(n + 1).
    assert (row["next_high"] - row["ours"]) / (row["high"] - row["ours"]) == pytest.approx(2, rel=0.05)
    assert row["next_low"] < row["low"] < row["high"] < row["next_high"]
    for other in rows.values():
        assert other["there"] == 0
        assert all(math.isnan(other[name]) for name in ("published", "ours", "next_low", "steps", "seconds"))
    assert math.isnan(rows["muon:64:B"]["published_steps"])


@pytest.mark.slow
def test_the_page_says_what_is_missing_and_how_to_go_on(data, checks, tmp_path):
    section = cells_section(data, checks)
    assert section.text.startswith(f"1 of {len(PUBLISHED)} published figures can be compared.")
    assert "1 has runs and 0 have all of them, 3 of 402 runs" in section.text
    assert "--profile published --cells untied:32 untied:128 untied:512" in section.text
    write(sections(("tables",), data), data, tmp_path, "speclens reproduce all", "published", TITLE)
    text = (tmp_path / "reproduction.md").read_text()
    assert f"Published figures: 1 agrees, {len(PUBLISHED) - 1} not run yet." in text
    assert "not comparable at this size" not in text
    assert "no run of untied:128, untied:512" in text
    assert (tmp_path / "reproduction" / "cells.csv").exists()


def test_one_seed_is_compared_with_nothing(data, checks):
    (only,) = [c for c in checks if c.verdict not in WITHOUT]
    assert check(
        "tokens untied 32", replace(only.ours, low=math.nan, high=math.nan, seeds=1), "f", True
    ).verdict == (CANNOT_TELL)


def test_verdicts_are_counted_in_the_words_of_a_sentence():
    checks = [SimpleNamespace(verdict=v) for v in (AGREES, AGREES, CANNOT_TELL, DISAGREES)]
    assert tally(checks) == "1 disagrees, 2 agree, 1 cannot be told"
    assert _lead(checks).endswith("compared with, 2 agree, 1 disagrees and 1 cannot be told from seeds.")
    assert _lead(checks[:1]).endswith("compared with, 1 agrees, 0 disagree and 0 cannot be told from seeds.")
