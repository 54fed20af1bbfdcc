"""The registry of studies, and what every registered figure does with stages and batch sizes that nobody knows."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from constructed import build
from matplotlib.colors import to_hex

import sims.studies
from sims import cli
from sims.pages.page import Finding, Section
from sims.pages.style import COLOURS, colour, panels, styled
from sims.studies.bands.figures import band_figure, planning_figure, position_figure, training_figure
from sims.studies.carry_over.figures import families_figure
from sims.studies.carry_over.sections import Sides
from sims.studies.overview.figures import causal_figure
from sims.studies.overview.study import PAGE as REPORT
from sims.studies.paper.figure_data import FigureData
from sims.studies.paper.figures.transitions import optimiser_figure
from sims.studies.paper.study import PAGE as REPRODUCTION
from sims.studies.study import STUDIES, Study, added, figures, profiles, sections
from sims.studies.theory.figures import outcomes
from sims.system.errors import MeasureError

MADE_UP = "made_up"
STAGES = ("rope", MADE_UP, "untied")
SIZES = (7, 48, 300)
# Figures of checkpoints, which constructed runs do not have; of several sites; of two named stages; without a picture.
NOT_DRAWN = {
    *("bands", "sequence", "seeds", "robustness", "layers", "tables", "fig7"),
    *(
        "differences",
        "summaries",
        "causal",
        "taxonomy",
        "seed-stability",
        "early-by-layer",
        "families",
        "answers",
    ),
}


@pytest.fixture(scope="module")
def runs():
    """Runs of a stage that is in no chain, at batch sizes that no table has."""

    def seeded(stage, size, seed):
        return 0.05 * np.sin(7 * stage + 3 * np.log2(size) + 5 * seed)

    made = build(
        STAGES,
        SIZES,
        rate=lambda stage, size, seed: 1.0 + 0.3 * stage + seeded(stage, size, seed),
        alpha=lambda stage, size, seed, loss: 1.5 + 0.2 * stage + seeded(stage, size, seed),
        gradient=lambda stage, size, seed, loss: 1.0 + 0.1 * stage + seeded(stage, size, seed),
        peak=lambda stage, size, seed, loss: 0.1 + 0.05 * stage * (4 - loss),
        rankme=lambda stage, size, seed, loss: 9 + stage + 3 * abs(loss - 3.4),
    )
    share = made.rows[made.rows["quantity"] == "rankme"].assign(quantity="top_share", value=0.5)
    share = share[share["object"] == "activation"]
    return replace(made, rows=pd.concat([made.rows, share], ignore_index=True))


@pytest.fixture(scope="module")
def data(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("none")
    return {
        REPRODUCTION: FigureData(runs, runs, runs, comparable=False, scanned=False, folder=folder, vocab=64),
        REPORT: runs,
        "carry-over": Sides(runs, runs, folder, folder),
    }


def shown(figure):
    """The texts and the colours of all artists of a figure."""
    texts, colours = set(), set()
    for artist in figure.findobj():
        if hasattr(artist, "get_text"):
            texts.add(artist.get_text())
        for name in ("get_color", "get_facecolor", "get_edgecolor"):
            try:
                value = getattr(artist, name)()
                values = [value] if isinstance(value, str) or np.ndim(value) < 2 else list(value)
                colours |= {to_hex(v) for v in values if len(v)}
            except (AttributeError, TypeError, ValueError):
                continue
    return " ".join(texts), colours


def is_shown(figure, stage=MADE_UP):
    texts, colours = shown(figure)
    return bool(re.search(rf"\b{stage}\b", texts)) and colour(stage).lower() in colours


class TestAnyStage:
    @pytest.mark.parametrize(
        "page",
        [REPORT, *(pytest.param(page, marks=pytest.mark.slow) for page in (REPRODUCTION, "carry-over"))],
    )
    def test_every_figure_draws_a_stage_without_a_colour(self, data, page):
        assert MADE_UP not in COLOURS
        made = {s.name: s for s in sections(page, data[page])}
        drawn = {name: s.figure for name, s in made.items() if s.figure is not None and name not in NOT_DRAWN}
        assert set(drawn) == set(made) - NOT_DRAWN, {
            n: made[n].text for n in set(made) - NOT_DRAWN - set(drawn)
        }
        for name, figure in drawn.items():
            assert is_shown(figure), name

    def test_figure_4b_has_it_in_its_legend(self, data):
        section = figures(REPRODUCTION)["fig4b"].section(data[REPRODUCTION])
        assert [t.get_text() for t in section.figure.legends[0].get_texts()] == ["rope", "untied", MADE_UP]
        assert {row[1] for row in section.table.rows} == set(STAGES)

    def test_band_figures_draw_it(self):
        cells = [{"stage": stage, "band": "31:20", "c": 31, "kind": "inside"} for stage in STAGES]
        values = ("h_s", "h_s_low", "h_s_high", "h_s_null", "h_peak", "h_peak_low", "h_peak_high")
        bands = pd.DataFrame(cells).assign(**dict.fromkeys((*values, "h_peak_null_high"), 0.3))
        assert is_shown(band_figure(bands))
        numbers = dict.fromkeys(("mean", "min", "max", "null_high"), 0.2)
        summary = pd.DataFrame(
            {"quantity": q, "regime": "clean", "fraction": f, "position": 7, **cell, **numbers}
            for cell in cells
            for f in (0.5, 1.0)
            for q in ("H_S", "H_peak")
        )
        assert is_shown(training_figure(summary))
        assert is_shown(position_figure(summary[summary["fraction"] == 1.0]))
        target = {"quantity": "H_S", "target": f"rope → {MADE_UP}", "difference": True, "kind": "all"}
        shares = {f"{source} share": 0.25 for source in ("seed", "band", "seed x band", "probe sample")}
        curves = [{"new_bands": new, "bands": b, "seeds": 9.0} for new in (True, False) for b in (2, 9)]
        curves = pd.DataFrame(curves).assign(quantity="H_S", target=f"rope → {MADE_UP}")
        assert is_shown(planning_figure(pd.DataFrame([{**target, **shares}]), curves))

    def test_figures_of_other_measurements_draw_it(self):
        cells = [{"run_id": s, "stage": s, "site": site} for s in STAGES for site in ("final", "embed")]
        effects = pd.DataFrame(cells).assign(quantity="causal_drop", value=0.2, null=0.1)
        assert is_shown(causal_figure(effects))
        rows = pd.DataFrame(cells).assign(detail="weekdays", tokens=1e6, value=0.3, null_high=0.2)
        assert is_shown(families_figure(rows))
        rankme = rows.assign(batch_size=48, step=1, loss=[3.5, 3.4, 3.3, 3.2, 3.1, 3.0], null=9.0)
        numbers = {"difference": 0.5, "low": 0.1, "high": 0.9, "window": "", "detail": ""}
        what = {"object": "weight", "site": "blocks.0.attn.o", "quantity": "rankme", "verdict": "up"}
        assert is_shown(optimiser_figure(rankme, pd.DataFrame([{**what, **numbers}])))

    def test_theory_figures_draw_it(self, runs):
        rows = runs.values("rankme", "activation")
        assert is_shown(outcomes.scatter(rows, "null", "value", "x", "y"))
        assert is_shown(outcomes.trajectories(rows, "tokens", "value", "site", "x", "y"))


class TestRegistry:
    def made_up(self):
        study = Study("made-up", REPRODUCTION)

        @study.figure("fig99", "Figure 99: made up", order=55, rank=0)
        def fig99(data):
            return Section(
                text="What is asked.",
                figure=drawn(),
                findings=(Finding("It came out."),),
                tables={"fig99": frame()},
            )

        @study.figure("fig100", "Figure 100: never made", order=56)
        def fig100(data):
            raise MeasureError("nothing was measured")

        return study

    def test_a_figure_is_one_function_with_a_decorator(self, data):
        with added(self.made_up()):
            names = list(figures(REPRODUCTION))
            assert names[names.index("fig4b") + 1 :][:2] == ["fig99", "fig100"]
            made, missing = sections(REPRODUCTION, data[REPRODUCTION], ["fig100", "fig99"])
        assert (made.name, made.title) == ("fig99", "Figure 99: made up")
        assert made.findings[0].figure == "fig99"
        assert missing.text == "Not made from these runs: nothing was measured."
        assert "fig99" not in figures(REPRODUCTION)

    def test_a_study_appears_in_the_choices_and_on_the_page(self, runs, tmp_path, capsys, monkeypatch):
        data = FigureData(runs, runs, runs, False, False, tmp_path, vocab=64)
        monkeypatch.setattr("sims.studies.paper.terminal.gather", lambda folder: data)
        monkeypatch.setenv("COLUMNS", "200")
        call = ["reproduce", "fig99", "fig100", "--runs", str(tmp_path), "--out", str(tmp_path)]
        assert cli.main(call) == 2
        assert "figure 'fig99' does not exist; choose from " in capsys.readouterr().err
        with added(self.made_up()):
            assert cli.main(["reproduce", "fig98", "--runs", str(tmp_path)]) == 2
            assert "fig4b, fig99, fig100" in capsys.readouterr().err
            assert cli.main(call) == 0
        text = (tmp_path / "reproduction.md").read_text()
        assert "1. It came out. (figure 99)" in text
        assert text.index("It came out.") < text.index("## Figure 99: made up")
        assert "Not made from these runs: nothing was measured." in text
        assert {p.name for p in (tmp_path / "reproduction").iterdir()} >= {
            "fig99.svg",
            "fig99.png",
            "fig99.csv",
        }

    def test_a_section_of_the_report_likewise(self, data):
        study = Study("made-up", REPORT)
        study.figure("new", "A new section", order=1)(lambda runs: Section(text=f"{len(runs.runs)} runs"))
        with added(study):
            first = sections(REPORT, data[REPORT])[0]
        assert (first.title, first.text) == ("A new section", "27 runs")

    def test_names_are_taken_once(self):
        study = self.made_up()
        with pytest.raises(ValueError, match="has a figure 'fig99' already"):
            study.figure("fig99", "Again", order=1)(lambda data: Section())
        other = Study("other", REPRODUCTION)
        other.figure("fig4b", "Again", order=1)(lambda data: Section())
        with added(other), pytest.raises(ValueError, match=r"two studies .* 'fig4b'"):
            figures(REPRODUCTION)

    def test_every_figure_has_a_place_of_its_own(self):
        for page in (REPRODUCTION, REPORT, "carry-over"):
            found = figures(page).values()
            assert len({f.order for f in found}) == len(found) > 5
        ranks = [f.rank for f in figures(REPRODUCTION).values()]
        assert sorted(ranks) == list(range(1, len(ranks) + 1))

    def test_profiles_know_their_figures(self):
        assert list(profiles(REPRODUCTION)) == ["quick", "chain", "published", "extended"]
        for make in profiles(REPRODUCTION).values():
            assert set(make().figures) <= set(figures(REPRODUCTION))

    def test_every_listed_study_is_a_folder(self):
        folder = Path(sims.studies.__file__).parent
        assert {p.parent.name for p in folder.glob("*/study.py")} == set(STUDIES)


@styled
def drawn():
    figure, axes = panels(1, 1)
    axes[0, 0].plot([1, 2], [2, 1])
    return figure


def frame():
    return pd.DataFrame({"x": [1.0]})
