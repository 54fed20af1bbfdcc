"""`speclens reproduce --runs` of language models: their page, the figure of layers, and what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
from made_up import STAGES, sheets, text_runs, toy_runs, write

from sims import cli
from sims.analysis.layers import exponents_at_shares, exponents_by_layer, layer_ends
from sims.analysis.runs import load
from sims.measure.rows import MeasurementRows
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.studies.paper.figure_data import gather
from sims.studies.paper.page import LANGUAGE_TITLE
from sims.studies.paper.sections import every, sections
from sims.studies.paper.study import PAGE
from sims.studies.study import OPEN, figures
from toymodel.errors import ConfigError

SITES = ("blocks.0", "blocks.1", "final")
TARGETS = figures(PAGE)
LEFT_OUT = [name for name, figure in TARGETS.items() if figure.refused]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of two stages, three batch sizes and three seeds, measured at three sites."""
    out = tmp_path_factory.mktemp("lm-runs")
    return text_runs(out, sizes=(4, 8, 16), gain=1.1, lr=1e-3, sites=SITES, steps=10)


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """The folder of the whole page, and its sections by name."""
    out, found = tmp_path_factory.mktemp("lm-figures"), []

    def kept(names, material):
        found.extend(sections(names, material))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sims.studies.paper.terminal.sections", kept)
        assert cli.main(["reproduce", "all", "--runs", str(folder), "--out", str(out)]) == 0
    return out, {s.name: s for s in found}


@pytest.fixture(scope="module")
def page(made):
    return made[0]


@pytest.fixture(scope="module")
def material(folder):
    return gather(folder)


def losses(steps=6, gain=1.0):
    """What a run leaves of which nothing else was measured."""
    for step in range(steps + 1):
        sheet = MeasurementRows(step, step * 8_000)
        sheet.row("val_loss", "loss", "validation", 6 - 0.5 * step * gain)
        yield sheet


def trained(tier="tiny", seed=0, stage="rope"):
    return LmConfig(tier, stage, vocabulary=1_000, length=128, batch_size=8, steps=6, seed=seed)


class TestPage:
    def test_every_figure_is_made(self, made):
        _, found = made
        assert set(found) == set(TARGETS) - set(LEFT_OUT)
        assert {name for name, s in found.items() if s.figure is None} == {"tables"}
        assert not any(s.text.startswith("Not made") for s in found.values())

    def test_nothing_published_stands_on_it(self, made):
        page, found = made
        text = (page / "reproduction.md").read_text()
        assert text.startswith(f"# {LANGUAGE_TITLE}")
        for word in ("Published beside ours", "with the paper", "against the paper", "as published", "(open"):
            assert word not in text
        assert not (page / "reproduction" / "verdicts.csv").exists()
        for section in found.values():
            assert section.checks == ()
            assert {f.stance for f in section.findings} <= {OPEN}

    def test_it_says_what_the_runs_are_and_what_is_left_out(self, page):
        text = (page / "reproduction.md").read_text()
        assert "18 runs of language models" in text
        assert "B = 4 (4,000 tokens a step), B = 8 (8,000 tokens a step)" in text
        assert "tokens, which are not independent within a sequence" in text
        closing = text[text.index("## Not made of language models") :]
        assert all(name in closing for name in LEFT_OUT)
        assert "no such state" in closing

    def test_files_lie_beside_it(self, page):
        drawn = {p.stem for p in (page / "reproduction").glob("*.svg")}
        assert drawn == {"at-a-glance"} | set(TARGETS) - set(LEFT_OUT) - {"tables"}
        html = (page / "reproduction.html").read_text()
        assert html.count("<figure") == len(drawn)
        assert not re.search(r'src="|<link|<script|@import|url\((?!#)', html)

    def test_every_stage_is_told_of(self, made):
        """The toy's findings are on the published stage alone."""
        _, found = made
        for name in ("fig4a", "fig11a"):
            assert all(stage in found[name].findings[0].text for stage in STAGES)
        gains = found["tables"].tables["tables-gains"]
        # The second stage is a tenth faster to every loss.
        assert gains["proximal"].item() == pytest.approx(0.1, abs=0.03)
        assert "1 of 1 transition saves tokens" in found["tables"].findings[0].text


class TestLayers:
    def test_values_are_those_that_were_measured(self, folder):
        runs = load(folder)
        found, raw = exponents_at_shares(runs, shares=(0.3, 0.5)), exponents_by_layer(runs)
        for share, step in ((0.3, 3), (0.5, 5)):
            ours = found[found["share"] == share].set_index(["run_id", "site"])["value"].sort_index()
            theirs = raw[raw["step"] == step].set_index(["run_id", "site"])["value"].sort_index()
            pd.testing.assert_series_equal(ours, theirs)

    def test_shares_before_the_first_measurement_have_no_value(self, folder):
        found = exponents_at_shares(load(folder), shares=(0.05, 0.1, 1.0))
        assert sorted(found["share"].unique()) == [0.1, 1.0]
        ends = layer_ends(found)
        assert len(ends) == len(STAGES) * len(SITES) * 3
        assert set(ends["first_share"]) == {0.1}
        own = found[(found["stage"] == "rope") & (found["site"] == "final") & (found["seed"] == 1)]
        (row,) = ends[(ends["stage"] == "rope") & (ends["site"] == "final") & (ends["seed"] == 1)].to_dict(
            "records"
        )
        assert row["last"] == pytest.approx(own.loc[own["share"] == 1.0, "value"].mean())

    def test_deeper_is_steeper_as_it_was_made(self, made):
        section = made[1]["layers"]
        depth, early = section.findings
        ends = layer_ends(section.tables["layers-exponents"]).groupby("site")["last"].mean()
        assert ends["final"] - ends["blocks.0"] == pytest.approx(0.1, abs=0.03)
        assert ", steeper in rope (" in depth.text
        assert "3 batch sizes" in early.text
        # A stage and site a row, with the early prediction beside it.
        assert len(section.table.rows) == len(STAGES) * len(SITES)
        assert section.table.columns[-3:] == ("ρ at 20%", "p", "q")
        assert set(section.tables) == {"layers-exponents", "layers-early-prediction"}

    def test_two_batch_sizes_have_no_prediction_and_say_so(self, tmp_path):
        (section,) = sections(("layers",), gather(text_runs(tmp_path, sizes=(4, 8), sites=SITES)))
        assert section.figure is not None
        assert "needs ≥ 3 batch sizes" in section.text
        assert section.table.columns[-1] == "change"

    def test_one_seed_has_the_figure_and_no_finding(self, tmp_path):
        (section,) = sections(("layers",), gather(text_runs(tmp_path, seeds=(0,), sites=SITES)))
        assert section.figure is not None
        assert section.findings == ()

    @pytest.mark.slow
    def test_toys_measured_at_several_sites_have_it_and_others_say_why_not(self, tmp_path):
        several = gather(toy_runs(tmp_path / "several", sites=SITES))
        assert several.language is None
        assert "layers" in every(several)
        assert sections(("layers",), several)[0].figure is not None
        one = gather(toy_runs(tmp_path / "one"))
        assert set(every(one)) == set(TARGETS) - {"layers", "data"}
        assert "measured at final alone" in sections(("layers",), one)[0].text

    def test_other_rank_windows_take_the_place_of_the_published_one(self, tmp_path):
        material = gather(text_runs(tmp_path, sizes=(4, 8), sites=SITES, window=(20, 45)))
        found = {s.name: s for s in sections(("layers", "fig11a"), material)}
        assert "α(20–45)" in found["layers"].text
        assert "α(20–45)" in found["fig11a"].findings[0].text


class TestAsked:
    def test_a_single_figure(self, folder, tmp_path, capsys):
        assert cli.main(["reproduce", "layers", "--runs", str(folder), "--out", str(tmp_path)]) == 0
        assert {p.stem for p in (tmp_path / "reproduction").glob("*.svg")} == {"at-a-glance", "layers"}
        assert "published" not in capsys.readouterr().out

    def test_what_only_the_toy_has_is_refused(self, folder, material, tmp_path, capsys):
        out = tmp_path / "figures"
        assert cli.main(["reproduce", "fig4b", "--runs", str(folder), "--out", str(out)]) == 2
        assert "fig4b cannot be made of language models" in capsys.readouterr().err
        assert not out.exists()
        with pytest.raises(ConfigError, match="measured again on probe bands"):
            sections(("robustness", "fig1a"), material)


class TestFolders:
    def test_a_rate_that_nothing_says_is_a_dash(self, tmp_path):
        (section,) = sections(("tables",), gather(text_runs(tmp_path, stages=("rope",), gain=1.0)))
        (row,) = section.table.rows
        assert row[2] == "–"
        # One cell alone: every seed reaches the highest of their last losses.
        assert np.isfinite(section.tables["tables-outcomes"]["to_common"].item())

    def test_both_kinds_in_one_folder_are_refused(self, tmp_path, capsys):
        text_runs(toy_runs(tmp_path, seeds=(0,)), seeds=(0,))
        assert cli.main(["reproduce", "all", "--runs", str(tmp_path), "--out", str(tmp_path / "page")]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "4 toy runs and 2 runs of language models" in error
        assert "carry-over TOY LM" in error

    def test_several_sizes_are_refused(self, tmp_path, capsys):
        for config in (trained("tiny"), trained("d12")):
            write(tmp_path, config, LmMeasureConfig(), losses())
        assert cli.main(["reproduce", "all", "--runs", str(tmp_path), "--out", str(tmp_path / "page")]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "language models of 2 sizes (12 blocks, 768 wide; 4 blocks, 64 wide)" in error
        assert "move each size into a folder of its own" in error

    def test_other_differences_are_a_warning(self, tmp_path):
        for seed, data in ((0, "one text"), (1, "another")):
            config = LmRun(f"rope-{seed}", "rope", 8, None, seed, 6, 8_000, data=data)
            write(tmp_path, config, LmMeasureConfig(), sheets("rope", 8, seed, 1.0, {}))
        (warning,) = [w for w in gather(tmp_path).language.warnings if "differ" in w]
        assert "seed: data." in warning

    def test_losses_alone_give_their_tables_and_the_rest_says_why_not(self, tmp_path):
        for stage, gain in (("rope", 1.0), ("muon", 1.2)):
            for seed in (0, 1):
                write(tmp_path, trained(stage=stage, seed=seed), LmMeasureConfig(), losses(gain=gain))
        material = gather(tmp_path)
        assert material.language.model == (
            "tier tiny, 4 blocks, 64 wide, vocabulary 1,000, sequences of 128 tokens"
        )
        found = {s.name: s for s in sections(every(material), material)}
        made = found.pop("tables")
        assert made.tables["tables-gains"]["proximal"].item() == pytest.approx(0.2)
        assert "Stages are not compared any further: no activation spectrum at 'final'" in made.text
        for section in found.values():
            assert section.text.startswith("Not made from these runs: "), section.name

    def test_runs_without_measurements_beside_others_are_left_out(self, tmp_path):
        text_runs(tmp_path, stages=("rope",), sizes=(4, 8), seeds=(0, 1))
        write(tmp_path, LmRun("bare", "rope", 8, None, 2, 6, 8_000), LmMeasureConfig(), losses())
        material = gather(tmp_path)
        assert set(material.a.runs["seed"]) == {0, 1}
        assert any("losses alone" in w and "bare" in w for w in material.language.warnings)
        (section,) = sections(("fig9",), material)
        assert np.isfinite(section.tables["fig9-divergence"]["js"]).all()
