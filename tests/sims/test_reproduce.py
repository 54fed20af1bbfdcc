"""The published figures as data, the rules of the verdicts, and the page that sets ours beside them."""

import math
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from constructed import build

from sims import cli
from sims.analysis.cells import keep
from sims.pages.markdown import markdown
from sims.pages.page import Cells, Content, Finding, Page, Section
from sims.pages.table import Table
from sims.runs.measure_config import MeasureConfig
from sims.studies.bands.measured import BandPlan
from sims.studies.paper.figure_data import AGAINST, SUPPORTS, FigureData, _with_target, gather, is_published
from sims.studies.paper.numbers import _outcomes
from sims.studies.paper.page import CHAIN_TITLE, COLUMNS, five, verdict_table, write
from sims.studies.paper.profiles import DATA_SEEDS, EVALUATIONS, MEASUREMENTS, QUICK_BUDGETS, Profile, profile
from sims.studies.paper.published import BUDGET_A, PUBLISHED, RUN_A, SIZES
from sims.studies.paper.sections import sections
from sims.studies.paper.study import PAGE
from sims.studies.paper.verdicts import AGREES, CANNOT_TELL, DISAGREES, NOT_COMPARABLE, Ours, check
from sims.studies.study import OPEN, figures
from sims.sweep.grid import Grid
from sims.training.toy_runner import run_group
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig
from toymodel.errors import ConfigError

TARGETS = figures(PAGE)
# Made from stored checkpoints, which constructed runs do not have.
REMEASURED = ("bands", "sequence", "seeds", "robustness")
# Made of runs that were measured at several sites, or on several sets of data, which those of `quick` are not.
ELSEWHERE = ("layers", "data")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Constructed runs of three stages, three batch sizes and three seeds, in which later stages learn faster."""

    def seeded(stage, size, seed):
        return 0.05 * np.sin(7 * stage + 3 * np.log2(size) + 5 * seed)

    runs = build(
        ("rope", "muon", "untied"),
        (16, 64, 128),
        rate=lambda stage, size, seed: 1.0 + 0.3 * stage + seeded(stage, size, seed),
        alpha=lambda stage, size, seed, loss: 1.5 + 0.2 * stage + seeded(stage, size, seed),
        gradient=lambda stage, size, seed, loss: 1.0 + 0.1 * stage + seeded(stage, size, seed),
        peak=lambda stage, size, seed, loss: 0.1 + 0.05 * stage * (4 - loss) + seeded(stage, size, seed) / 9,
        rankme=lambda stage, size, seed, loss: 9 + stage + 3 * abs(loss - 3.4) + seeded(stage, size, seed),
    )
    runs = replace(runs, runs=runs.runs.assign(validation_overlap=0.2))
    folder = tmp_path_factory.mktemp("no-checkpoints")
    return FigureData(runs, runs, runs, comparable=False, scanned=False, folder=folder, vocab=64)


@pytest.fixture(scope="module")
def made(material, tmp_path_factory):
    """The page of those runs, and its sections."""
    out = tmp_path_factory.mktemp("page")
    found = sections(list(TARGETS), material)
    return write(found, material, out, "speclens reproduce all --profile quick", "quick"), found


@pytest.fixture(scope="module")
def remeasured(tmp_path_factory):
    """The sections made from checkpoints, of four small trained runs, and their folder."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base = RunConfig(
        task=TaskConfig(vocab=64, length=8, train=400, val=1_024, test=16),
        model=ModelConfig(d_model=64, heads=2, layers=1),
        batch_size=8,
        lr=3e-3,
        steps=12,
        eval_every=6,
        eval_size=32,
    )
    measure = MeasureConfig(
        every=6, bands=(), training_bands=0, gradient_sequences=0, causal_sequences=0, sequences=128
    )
    for stage, seed in product(("rope", "untied"), (0, 1)):
        assert not run_group([replace(base, stage=stage, seed=seed)], measure, folder)
    with pytest.MonkeyPatch.context() as patch:
        plan = BandPlan(bands=4, positions=(0,), fractions=(0.5, 1.0), mixed_per_state=8)
        patch.setattr("sims.studies.bands.sections.PAGE_BANDS", plan)
        material = gather(folder)
        found = sections(REMEASURED, material)
        write(found, material, folder, "speclens reproduce bands", "other runs", CHAIN_TITLE)
    return folder, {s.name: s for s in found}


class TestPublished:
    def test_run_a_hangs_together(self):
        for stage, cells in RUN_A.items():
            for size, (lr, loss, tokens, steps) in zip(SIZES, cells, strict=True):
                assert 0 < lr < 0.01
                assert (loss <= 2.0) == (steps < BUDGET_A), (stage, size)
                # Tokens are steps × batch × 64, printed to two decimals of a million or more.
                assert tokens == pytest.approx(steps * size * 64 / 1e6, abs=0.006), (stage, size)

    def test_changes_follow_from_the_values_where_every_batch_size_gets_there(self):
        value = {key: p.value for key, p in PUBLISHED.items()}
        for before, after in (("baseline", "rope"), ("rope", "muon")):
            for step in (500, 1_000):
                change = value[f"h_peak {after} {step}"] - value[f"h_peak {before} {step}"]
                if (before, after, step) != ("baseline", "rope", 1_000):
                    assert value[f"dh {before} → {after} {step}"] == pytest.approx(change, abs=2e-4)

    def test_every_entry_is_a_number_a_direction_or_an_association(self):
        for p in PUBLISHED.values():
            assert p.source
            assert p.statement
            assert math.isnan(p.value) == (p.sign != 0)
            if not p.sign:
                assert float(f"{p.value:.{p.digits}f}") == p.value


class TestVerdicts:
    GAIN, LOSS, SIGN, RHO = (
        "gain rope → muon",
        "final loss baseline 32",
        "gain sign rope → muon",
        "early muon",
    )

    def judged(self, key, *ours, comparable=True, **more):
        return check(key, Ours(*ours, **more), "figure", comparable).verdict

    def test_a_number_inside_what_one_more_seed_would_give_agrees(self):
        # Three seeds: one further seed falls within twice the interval of the mean.
        assert self.judged(self.LOSS, 3.70, 3.66, 3.74, 3) == AGREES
        assert self.judged(self.LOSS, 3.60, 3.55, 3.65, 3) == DISAGREES
        assert self.judged(self.LOSS, 3.60, 3.50, 3.70, 3) == AGREES

    def test_rounding_of_the_printed_value_is_allowed_for(self):
        assert self.judged(self.LOSS, 3.7626, 3.76255, 3.76265, 3) == AGREES
        assert self.judged(self.LOSS, 3.7620, 3.76195, 3.76205, 3) == DISAGREES

    def test_a_change_whose_interval_holds_zero_does_not_agree(self):
        assert self.judged(self.GAIN, 2.4, 1.9, 2.9, 3) == AGREES
        assert self.judged(self.GAIN, 2.0, -0.5, 4.5, 3) == CANNOT_TELL
        assert self.judged(self.GAIN, 0.1, -0.1, 0.3, 3) == DISAGREES

    def test_one_seed_cannot_tell(self):
        assert self.judged(self.LOSS, 3.763) == CANNOT_TELL
        assert self.judged(self.SIGN, 1.0) == CANNOT_TELL

    def test_seeds_without_a_value_are_not_said_to_be_too_few(self):
        for key in (self.LOSS, self.SIGN):
            none = check(key, Ours(math.nan, seeds=3, note="B = 32: no losses in common"), "f", True)
            assert (none.verdict, none.reason) == (CANNOT_TELL, "no value; B = 32: no losses in common")
            assert check(key, Ours(1.0), "f", True).reason == "no interval: too few seeds"

    def test_another_size_gives_numbers_no_verdict_but_directions_one(self):
        assert self.judged(self.LOSS, 1.0, 0.9, 1.1, 3, comparable=False) == NOT_COMPARABLE
        assert self.judged(self.SIGN, 1.0, 0.9, 1.1, 3, comparable=False) == AGREES
        assert self.judged(self.SIGN, -1.0, -1.1, -0.9, 3, comparable=False) == DISAGREES
        assert self.judged(self.SIGN, 0.1, -0.1, 0.3, 3, comparable=False) == CANNOT_TELL

    def test_a_falling_direction_is_read_the_other_way_round(self):
        assert self.judged("tail untied", -0.1, -0.2, -0.05, 3, p=0.01, p_min=0.001) == AGREES
        assert self.judged("tail untied", 0.1, 0.05, 0.2, 3, p=0.01, p_min=0.001) == DISAGREES
        assert self.judged("tail untied", -0.1, -0.2, -0.05, 3, p=0.25, p_min=0.25) == CANNOT_TELL

    def test_an_association_needs_a_test_that_could_have_failed(self):
        assert self.judged(self.RHO, 1.0, 1.0, 1.0, 3, p=1 / 3, p_min=1 / 3) == CANNOT_TELL
        assert self.judged(self.RHO, 1.0, 0.9, 1.0, 3, p=1 / 60, p_min=1 / 60) == AGREES
        assert self.judged(self.RHO, 0.5, 0.3, 0.7, 3, p=0.4, p_min=1 / 60) == DISAGREES
        assert self.judged(self.RHO, 0.7, 0.3, 1.0, 3, p=0.2, p_min=1 / 60) == CANNOT_TELL

    def test_rare_disagreement_where_nothing_differs(self):
        """A number drawn from the same law as ours is refused at about the stated 5 %."""
        generator = np.random.default_rng(0)
        refused = 0
        for _ in range(2_000):
            ours = generator.normal(3.763, 0.1, 3)
            half = 4.302653 * ours.std(ddof=1) / math.sqrt(3)
            mean = ours.mean()
            shift = generator.normal(0, 0.1)
            refused += (
                self.judged(self.LOSS, mean - shift, mean - shift - half, mean - shift + half, 3) == DISAGREES
            )
        assert 0.035 < refused / 2_000 < 0.065


def test_a_target_that_only_runs_on_other_data_have_leaves_all_runs():
    runs = build(("rope",), (32,), points=2)
    first, *others = runs.runs["run_id"]
    configs = {first: RunConfig(target_loss=2.0), **dict.fromkeys(others, RunConfig(target_loss=2.5))}
    assert len(_with_target(runs, configs, 2.5).runs) == 2
    assert list(_with_target(keep(runs, [first]), configs, 2.5).runs["run_id"]) == [first]


class TestFindings:
    def test_five_begin_with_those_against_the_paper_and_name_each_figure_once(self):
        found = [
            Finding(f"{k}", SUPPORTS, f) for k, f in enumerate(("fig11b", "fig4b", "fig1a", "fig4a", "fig7"))
        ]
        found += [
            Finding("again", SUPPORTS, "fig11b"),
            Finding("against", AGAINST, "fig18"),
            Finding("x", OPEN, "fig3"),
        ]
        chosen = five(found)
        assert [f.figure for f in chosen] == ["fig18", "fig11b", "fig4b", "fig1a", "fig4a"]
        assert len({f.figure for f in five(found)}) == 5

    def test_few_figures_give_their_second_findings(self):
        found = [Finding("a", OPEN, "fig11b"), Finding("b", SUPPORTS, "fig11b")]
        assert [f.text for f in five(found)] == ["a", "b"]

    def test_seeds_that_ended_elsewhere_than_the_published_run_are_told(self, material):
        """Published is the loss of muon at B = 32 after all steps, and at B = 128 the tokens to the target."""
        runs = build(("muon",), (32, 128), points=3)
        ended = np.where(runs.runs["seed"] == 0, "target", "finished")
        mixed = replace(material, a=replace(runs, runs=runs.runs.assign(ended=ended)))
        notes = {c.published.key: c.ours.note for c in _outcomes(mixed)}
        assert notes == {
            "final loss muon 32": "1 of 3 seeds reached a loss of 2 and ended there",
            "tokens muon 128": "2 of 3 seeds did not reach the loss",
        }

    def test_without_fitted_exponents_early_prediction_has_no_numbers(self, material):
        rows = material.b.rows
        lost = (rows["quantity"] == "alpha") & (rows["seed"] == 0) & (rows["step"] > 1)
        (section,) = sections(["fig4a"], replace(material, b=replace(material.b, rows=rows[~lost])))
        assert [f.text for f in section.findings] == [
            "The published early predictor was not fitted here, nor another exponent in every run of a stage: early "
            "prediction is not tested."
        ]

    def test_nothing_of_one_seed_and_of_a_stage_without_bands_is_written_as_nan(self, material):
        runs = build(("rope", "muon"), (32, 128), (0,), points=4, rate=lambda stage, size, seed: 1 + stage)
        bandless = (runs.rows["object"] == "probe") & (runs.rows["stage"] == "muon")
        for own in (runs, replace(runs, rows=runs.rows[~bandless])):
            for section in sections(["fig7", "fig9", "fig11b", "tables"], replace(material, a=own, b=own)):
                assert not section.text.startswith("Not made")
                cells = [text for row in section.table.rows for text in row]
                reasons = [c.reason for c in section.checks]
                told = [section.text, *cells, *reasons, *(f.text for f in section.findings)]
                assert not [text for text in told if re.search(r"\bnan\b", text)]

    def test_stages_without_a_loss_in_common_are_said_to_be_so(self, material):
        """The later stage is measured first where the earlier one never gets."""
        runs = build(
            ("rope", "muon"),
            (16, 64),
            rate=lambda stage, size, seed: 0.3 + 3 * stage,
            gradient=lambda stage, size, seed, loss: 1.0 + 0.01 * seed,
        )
        apart = replace(material, a=runs, b=runs, everything=runs)
        found = {s.name: s for s in sections(["fig3", "fig7", "fig11b"], apart)}
        assert "share no range of losses" in found["fig7"].text
        for name in ("fig3", "fig11b"):
            (row,) = found[name].table.rows
            assert found[name].table.columns[-1] == "missing because"
            assert "B = 16: the runs share no range of losses" in row[-1]
        assert found["fig3"].table.rows[0][1:4] == ("cannot tell", "cannot tell", "–")
        assert {c.verdict for s in found.values() for c in s.checks} == {CANNOT_TELL}
        assert not [f for f in found["fig11b"].findings if "clock" in f.text]


class TestProfiles:
    def test_quick_is_a_demo_sized_grid_within_its_budget(self):
        quick = profile("quick")
        configs = quick.configs(quick.figures)
        assert len(configs) == 4 * len(QUICK_BUDGETS) * 3
        assert sum(c.steps * c.tokens_per_step for c in configs) < 30e6
        for config in configs:
            quick.measuring.check(config)
            measured = math.lcm(config.eval_every, quick.measuring.every)
            assert config.steps == MEASUREMENTS * measured == EVALUATIONS * config.eval_every
            assert not is_published(config)

    def test_the_chain_goes_on_where_the_core_ends(self):
        chain = profile("chain")
        configs = chain.configs(chain.figures)
        stages = list(dict.fromkeys(c.stage for c in configs))
        assert (stages[0], stages[-1], len(stages)) == ("untied", "attn_scale", 11)
        assert {c.seed for c in configs} == {0, 1, 2}
        # Its first stage is the last one of the quick runs, run for run.
        assert {c for c in configs if c.stage == "untied"} <= set(profile("quick").configs(["tables"]))
        with pytest.raises(ConfigError, match="chain do not allow fig4a"):
            chain.configs(["fig4a"])

    def test_published_runs_are_those_of_the_tables(self):
        published = profile("published")
        configs = published.configs(published.figures)
        a = [c for c in configs if c.target_loss == 2.0]
        assert len(a) == 4 * 3 * 5 + 2 * 3 * len(DATA_SEEDS)
        assert sum(c.task.seed == 0 for c in a) == 4 * 3 * 5
        assert {(c.stage, c.batch_size, c.lr) for c in a} == {
            (stage, size, cell[0])
            for stage, cells in RUN_A.items()
            for size, cell in zip(SIZES, cells, strict=True)
        }
        b = [c for c in configs if c.target_loss == 2.5]
        assert {c.steps * c.batch_size for c in b} == {40_000 * 32}
        assert {c.batch_size for c in b} == {32, 64, 128, 256, 512}
        assert all(is_published(c) for c in configs)
        assert len(profile("extended").configs(["fig4a"])) > len(b)

    def test_a_figure_trains_only_what_it_needs(self):
        assert set(profile("quick").figures) == set(TARGETS) - set(ELSEWHERE)
        published = profile("published")
        assert {c.stage for c in published.configs(["fig7"])} == {"rope", "muon"}
        assert {(c.stage, c.target_loss) for c in published.configs(["fig11a"])} == {("untied", 2.5)}

    def test_a_run_of_another_size_is_not_published(self):
        assert not is_published(RunConfig(steps=100))
        assert is_published(RunConfig(stage="muon", target_loss=2.0))


class TestPage:
    def test_every_figure_is_made_or_says_why_not(self, made):
        _, found = made
        assert [s.name for s in found] == list(TARGETS)
        missing = {s.name: s.text for s in found if s.figure is None}
        assert set(missing) == {"tables", *REMEASURED, *ELSEWHERE}, missing
        assert "activations were measured at final alone" in missing["layers"]
        assert all("no complete run with checkpoints" in missing[name] for name in REMEASURED)

    def test_the_page_stands_alone(self, made):
        page, _ = made
        text = page.read_text()
        # And the picture at the head.
        assert text.count("<figure") == 1 + len(TARGETS) - 1 - len(REMEASURED) - len(ELSEWHERE)
        # Nothing is loaded; only links lead elsewhere.
        assert not re.search(r'src="|<link|<script|@import|url\((?!#)', text)
        assert not re.search(r'<(?!a )[^>]*href="(?!#|data:)', text)
        assert "Published beside ours" in text

    def test_figures_tables_and_markdown_lie_beside_it(self, made):
        page, found = made
        folder = page.parent / "reproduction"
        for section in found:
            for name, table in section.tables.items():
                assert len(pd.read_csv(folder / f"{name}.csv")) == len(table)
            if section.figure is not None:
                assert (folder / f"{section.name}.svg").read_text().startswith("<?xml")
                assert (folder / f"{section.name}.png").stat().st_size > 5_000
        text = (page.parent / "reproduction.md").read_text()
        for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
            assert (page.parent / link).exists()
        assert "speclens reproduce all --profile quick" in text

    def test_small_runs_give_no_number_a_verdict(self, made):
        _, found = made
        for c in (c for s in found for c in s.checks):
            if not c.published.sign and not c.published.association:
                assert c.verdict == NOT_COMPARABLE

    def test_three_batch_sizes_are_said_to_be_too_few(self, made):
        _, found = made
        section = next(s for s in found if s.name == "fig4a")
        assert "no outcome can be significant" in section.text
        assert all(c.verdict == CANNOT_TELL for c in section.checks)
        assert section.findings[0].stance == OPEN

    def test_disagreements_stand_first(self):
        checks = [
            check("gain sign rope → muon", Ours(1, 0.9, 1.1, 3), "f", True),
            check("gain sign muon → untied", Ours(-1, -1.1, -0.9, 3), "f", True),
        ]
        place = COLUMNS.index("verdict")
        assert [row[place] for row in verdict_table(checks).rows] == [DISAGREES, AGREES]

    def test_a_bar_in_a_cell_does_not_break_a_markdown_table(self):
        cells = Cells(Table(("|ρ|", "b"), (("|x|", "1"),)))
        page = Page(title="t", findings=["f"])
        text = markdown(
            Content(page=page, glance=[], sections=[(Section(title="s"), [cells])], words=[], links=[])
        )
        assert "1. f" in text
        for line in text.splitlines():
            if line.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", line)) == 3


@pytest.mark.slow
class TestRemeasured:
    def test_each_has_its_figure_table_and_csv(self, remeasured):
        folder, made = remeasured
        assert set(made) == set(REMEASURED)
        for section in made.values():
            assert section.figure is not None, section.text
            assert section.table.rows
            assert section.tables
            assert (folder / "reproduction" / f"{section.name}.svg").exists()

    def test_the_tables_are_those_of_the_analyses(self, remeasured):
        _, made = remeasured
        training = made["bands"].tables["bands-training"]
        assert len(made["bands"].table.rows) == len(training)
        row, shown = training.iloc[0], made["bands"].table.rows[0]
        assert shown[:3] == (row["quantity"], row["stage"], row["kind"])
        assert shown[3] == f"{row['first']:.3f}"
        counts = made["robustness"].tables["robustness-tally"]
        assert [r[2:5] for r in made["robustness"].table.rows] == [
            tuple(map(str, v)) for v in counts[["stays", "moves", "cannot tell"]].to_numpy()
        ]

    def test_a_page_of_its_own_sets_nothing_published_beside(self, remeasured):
        folder, _ = remeasured
        text = (folder / "reproduction.md").read_text()
        assert text.startswith(f"# {CHAIN_TITLE}")
        assert "Published beside ours" not in text


class TestCommand:
    def test_runs_are_trained_once_and_then_only_analysed(
        self, tiny_run, tiny_measure, tmp_path, capsys, monkeypatch
    ):
        grid = Grid(tiny_run(), ("rope", "muon"), (8,), (0, 1), base_lrs={}, lrs=(1e-2,))
        tiny = Profile("quick", (grid,), (grid,), tiny_measure(causal_sequences=0, early=1))
        monkeypatch.setattr("sims.studies.paper.profiles.profile", lambda name: tiny)
        arguments = ["reproduce", "fig4b", "--workers", "1", "--out", str(tmp_path)]
        assert cli.main(arguments) == 0
        assert {p.stem for p in (tmp_path / "reproduction").glob("*.svg")} == {"at-a-glance", "fig4b"}
        assert "published beside ours" in capsys.readouterr().out
        assert cli.main(arguments) == 0
        assert "4 of 4 runs are already complete" in capsys.readouterr().out
        elsewhere = tmp_path / "elsewhere"
        assert cli.main(["reproduce", "fig4b", "--runs", str(tmp_path), "--out", str(elsewhere)]) == 0
        assert [p.name for p in elsewhere.glob("*")] != []
        assert not list(elsewhere.glob("muon-*"))

    def test_a_dry_run_trains_nothing(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr("sims.sweep.estimate.ESTIMATE_SECONDS", 0.0)
        out = tmp_path / "new"
        assert cli.main(["reproduce", "fig11a", "--dry-run", "--out", str(out)]) == 0
        assert not out.exists()
        assert "9 runs" in capsys.readouterr().out

    def test_an_empty_folder_is_a_clear_error(self, tmp_path, capsys):
        assert cli.main(["reproduce", "fig7", "--runs", str(tmp_path)]) == 2
        assert "no complete run" in capsys.readouterr().err
