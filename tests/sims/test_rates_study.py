"""The study of learning rates by spectra: rules on made losses, runs that are read, the command and its page."""

import json
import shlex
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.analysis.pruning import COSTS, OPEN, SAVES
from sims.analysis.rates import (
    against_controls,
    against_uniform,
    best_rate,
    by_rate,
    missing_runs,
    shuffle_ranks,
    spread_changes,
    spreads,
)
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.store import RunFolder
from sims.studies import claims as words
from sims.studies.rates import measured, preset
from sims.studies.rates.answers import RatesAnswers
from sims.studies.rates.measured import RatesData, matrix_rows, noise_spread, rates_data
from sims.studies.rates.missing import commands
from sims.studies.rates.page import lead, write_rates
from sims.studies.rates.published import _credit, _loss, _needs, claims
from sims.studies.rates.sections import summary_table
from sims.system.errors import MeasureError
from sims.training.rates import layerwise
from sims.training.toy_runner import run_group
from toymodel import Ensemble, ModelConfig
from toymodel.config import RunConfig
from toymodel.rates import Rates

ARMS = ("uniform", "alpha", "farms", "depth", "reversed-farms")
RATES = (0.5, 1.0, 2.0)
# Losses of the three base rates, and what seeds share and do not share.
SETS = 300
CURVE, SHARED, OWN = (0.03, 0.0, 0.03), 0.015, 0.012


def losses(effects=(), seeds=5, draws: int | range = 0, seed=0, curve=CURVE, arms=ARMS, own=OWN):
    """Losses of one cell: 2 plus a curve over base rates, an effect of the arm, noise of the seed and of the run."""
    generator = np.random.default_rng(seed)
    shared = SHARED * generator.standard_normal(seeds)
    numbers = range(draws) if isinstance(draws, int) else draws
    names = [(arm, 0) for arm in arms] + [("shuffled-farms", k) for k in numbers]
    rows = [
        {
            "cell": "rope", "arm": arm, "draw": k, "lr": lr, "seed": s, "run": f"{arm}-{k}-{lr}-{s}",
            "loss": 2 + more + dict(effects).get(arm, 0.0) + shared[s] + own * generator.standard_normal(),
        }
        for (arm, k), (lr, more), s in product(names, zip(RATES, curve, strict=True), range(seeds))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def farms_row(table) -> dict[str, Any]:
    """The comparison of farms with uniform."""
    (row,) = (r for r in against_uniform(table).to_dict("records") if r["arm"] == "farms")
    return {str(name): value for name, value in row.items()}


def verdicts(table):
    return dict(zip(table["arm"], table["verdict"], strict=True))


@pytest.mark.slow
def test_without_an_effect_at_most_one_set_of_arms_in_twenty_has_one_that_saves():
    # Curved and flat grids: in a flat one each arm has the luckiest of three rates.
    for curve, size in ((CURVE, 60), ((0.0, 0.0, 0.0), 60)):
        saving = sum(
            SAVES in set(against_uniform(losses(seed=i, curve=curve))["verdict"]) for i in range(size)
        )
        assert saving <= stats.binom.ppf(0.99, size, 0.05)


@pytest.mark.slow
def test_an_effect_of_three_deviations_of_a_pair_saves_with_five_seeds():
    effect = 3 * OWN * 2**0.5
    found = [verdicts(against_uniform(losses({"farms": -effect}, seed=i)))["farms"] for i in range(10)]
    # Its power is 0.92 with four arms: fewer than 6 of 10 have a chance of 0.1 %.
    assert found.count(SAVES) >= 6
    turned = [verdicts(against_uniform(losses({"farms": effect}, seed=i)))["farms"] for i in range(10)]
    assert turned.count(COSTS) >= 6
    assert SAVES not in turned


def test_every_arm_has_its_own_best_rate_and_pairs_are_of_one_seed():
    table = losses({"farms": -0.05}, own=0.0)
    at = (table["arm"] == "farms") & (table["lr"] == 2.0)
    table.loc[at, "loss"] -= 0.2
    row = farms_row(table)
    assert (row["lr"], row["base_lr"], row["edge"], row["base_edge"]) == (2.0, 1.0, "highest", "")
    # Seeds differ by 0.015, and pairs by rounding alone: an interval without width decides nothing.
    assert row["delta"] == pytest.approx(0.03 - 0.25)
    assert row["high"] - row["low"] < 1e-12
    assert row["verdict"] == OPEN
    shifted = table.assign(loss=table["loss"] + 0.01 * table["seed"] * (table["arm"] == "farms"))
    assert verdicts(against_uniform(shifted))["farms"] == SAVES
    assert best_rate(by_rate(table, "uniform", RATES)) == (1.0, "")
    assert best_rate(by_rate(table, "uniform", [2.0])) == (2.0, "only")


def test_arms_lack_a_verdict_with_four_seeds_with_a_rate_missing_and_where_all_runs_diverge():
    effects = {"farms": -1.0}
    assert verdicts(against_uniform(losses(effects)))["farms"] == SAVES
    four = against_uniform(losses(effects, seeds=4)).set_index("arm").loc["farms"]
    assert (four["verdict"], four["reason"][:9]) == (OPEN, "4 of 5 se")
    table = losses(effects)
    lacking = table[~((table["arm"] == "farms") & (table["lr"] == 0.5) & (table["seed"] == 2))]
    own = against_uniform(lacking).set_index("arm").loc["farms"]
    assert (own["seeds"], own["verdict"]) == (4, OPEN)
    table.loc[table["arm"] == "farms", "loss"] = np.inf
    found = against_uniform(table).set_index("arm").loc["farms"]
    assert (found["verdict"], found["reason"]) == (OPEN, "runs of farms diverged at every rate")
    assert (found["edge"], np.isnan(found["lr"]), found["base_lr"]) == ("", True, 1.0)
    table.loc[table["arm"] == "uniform", "loss"] = np.inf
    found = against_uniform(table).set_index("arm")["reason"]
    assert found["farms"] == "runs of farms and of uniform diverged at every rate"
    assert found["alpha"] == "runs of uniform diverged at every rate"
    # One rate that diverges is not the best one.
    table = losses(effects)
    table.loc[(table["arm"] == "farms") & (table["lr"] == 1.0), "loss"] = np.inf
    assert against_uniform(table).set_index("arm").loc["farms", "lr"] != 1.0


def test_p_is_corrected_for_the_number_of_arms():
    table = against_uniform(losses())
    ordered = table.sort_values("p")
    assert (ordered["p_holm"] >= ordered["p"]).all()
    assert ordered["p_holm"].iloc[0] == pytest.approx(min(1.0, 4 * ordered["p"].iloc[0]))


def test_a_score_is_ranked_among_its_own_shuffles():
    (best,) = shuffle_ranks(losses({"farms": -1.0}, draws=10)).to_dict("records")
    assert (best["as_good"], best["draws"], best["p"]) == (0, 10, pytest.approx(1 / 11))
    (alike,) = shuffle_ranks(losses({"farms": 1.0}, draws=10)).to_dict("records")
    assert (alike["as_good"], alike["p"]) == (10, 1.0)


@pytest.mark.slow
def test_without_an_effect_every_rank_is_as_probable_as_another():
    ranks = [
        shuffle_ranks(losses(draws=3, seed=i, arms=("uniform", "farms")))["as_good"].iloc[0]
        for i in range(60)
    ]
    assert stats.chisquare(np.bincount(ranks, minlength=4)).pvalue > 0.001


def test_controls_are_compared_with_the_score_itself():
    found = against_controls(losses({"farms": -0.5, "depth": -0.5, "reversed-farms": 0.5}))
    rows = found.set_index(["arm", "base"])["delta"]
    assert abs(rows["farms", "depth"]) < 0.1
    assert rows["farms", "reversed-farms"] == pytest.approx(-1, abs=0.1)
    assert ("alpha", "reversed-alpha") not in rows


def test_missing_runs_are_named():
    table = losses(draws=10, arms=("uniform", "farms"))
    assert missing_runs(table).empty
    gone = table[~((table["draw"] == 3) & (table["lr"] == 2.0) & (table["seed"] == 4))]
    assert missing_runs(gone).to_dict("records") == [
        {"cell": "rope", "arm": "shuffled-farms", "draw": 3, "lr": 2.0, "seed": 4}
    ]
    few = missing_runs(losses(seeds=3, draws=10, arms=("uniform", "farms")))
    assert set(few["seed"]) == {3, 4}
    assert len(few) == 12 * 3 * 2
    without = missing_runs(losses(arms=("farms",), draws=10))
    assert set(without["arm"]) == {"uniform"}


def test_missing_shuffles_are_counted_by_what_is_there():
    assert missing_runs(losses(draws=range(1, 11), arms=("uniform", "farms"))).empty
    assert missing_runs(losses(draws=range(12), arms=("uniform", "farms"))).empty
    few = missing_runs(losses(draws=range(2, 9), arms=("uniform", "farms")))
    assert set(zip(few["arm"], few["draw"], strict=True)) == {("shuffled-farms", k) for k in (0, 1, 9)}
    # Of a shuffle alone the score is missing too.
    alone = missing_runs(losses(draws=range(3, 4), arms=("uniform",)))
    assert set(alone.loc[alone["arm"] == "farms", "lr"]) == set(RATES)
    assert sorted(set(alone.loc[alone["arm"] == "shuffled-farms", "draw"])) == [0, 1, 2, *range(4, 10)]
    # What shuffles have at other rates the others need too.
    table = losses(draws=10, arms=("uniform", "farms"))
    table.loc[(table["arm"] == "shuffled-farms") & (table["lr"] == 2.0), "lr"] = 4.0
    assert {(r["arm"][:8], r["lr"]) for r in missing_runs(table).to_dict("records")} == {
        ("uniform", 4.0), ("farms", 4.0), ("shuffled", 2.0)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("moved", "counts", "told"),
    [
        ({}, (3, 0), ""),
        (dict(zip(RATES, (50.0, 100.0, 200.0), strict=True)), (0, 3), "at none of its base rates"),
        ({0.5: 50.0}, (2, 1), "shuffles have 2 of 3 rates and 1 rate that the score lacks, so that"),
        ("more", (3, 1), "shuffles have 1 rate that the score lacks, so that"),
    ],
)
def test_a_score_is_credited_only_by_shuffles_at_its_own_base_rates(moved, counts, told, tmp_path):
    table = losses({"farms": -0.5}, draws=10, arms=("uniform", "farms"))
    drawn = table["arm"] == "shuffled-farms"
    if moved == "more":
        # Better than the score where the score has not been.
        more = table[drawn & (table["lr"] == 2.0)].assign(lr=4.0, loss=0.1)
        table = pd.concat([table, more.assign(run=more["run"] + "-more")], ignore_index=True)
    else:
        table.loc[drawn, "lr"] = table.loc[drawn, "lr"].replace(moved)
    (row,) = shuffle_ranks(table).to_dict("records")
    assert (row["rates"], row["other"]) == counts
    assert np.isnan(row["p"]) == (counts[0] == 0)
    answers = answers_of(table, base(), tmp_path)
    credit = _credit(answers, "rope", "farms")
    assert credit.outcome == (words.OPEN if told else words.SHOWN)
    assert answers.credited("rope", "farms") == (not told)
    assert told in credit.reason
    assert "nan" not in f"{credit.here} {credit.reason} {credit.published}"


def made_of(effects=(), draws=10, spread=(), lm=False, seeds=5, rates_of_draws=RATES, tmp="runs", **more):
    """Answers from made losses, and exponents whose spread over matrices is 1 plus a number of the arm."""
    table = losses(effects, draws=draws, seeds=seeds, **more)
    table = table[~table["arm"].str.startswith("shuffled") | table["lr"].isin(rates_of_draws)]
    answers = answers_of(table, LmConfig("tiny", "rope", 300, 16, 2, 5) if lm else base(), tmp)
    answers.__dict__["matrices"] = matrices_of(table, dict(spread))
    return answers


def answers_of(table, like, tmp, **settings):
    specs = {
        r["run"]: replace(
            like,
            lr=r["lr"],
            seed=r["seed"],
            rates=Rates(r["arm"], seed=r["draw"], **settings if r["arm"] != "uniform" else {}),
        )
        for r in table.to_dict("records")
    }
    folders = {run: RunFolder(Path(tmp) / run) for run in specs}
    return RatesAnswers(RatesData(table.reset_index(drop=True), folders, specs, ("a note",)))


def matrices_of(table, spread):
    generator = np.random.default_rng(0)
    rows = []
    for r in table[(table["lr"] == 1.0) & ~table["arm"].str.startswith("shuffled")].to_dict("records"):
        sd = 1 + spread.get(r["arm"], 0.0) + 0.02 * generator.standard_normal()
        for step, (i, kind) in product((0, 5), enumerate(("attn.q", "attn.o", "mlp.fc", "mlp.proj"))):
            value = 3 + sd * (-1, 1, -1, 1)[i] * (0.5 if step == 0 else 1)
            rows.append(
                {
                    **{name: r[name] for name in ("cell", "arm", "lr", "seed", "run")},
                    "step": step, "matrix": f"blocks.{i // 2}.{kind}", "block": i // 2, "rows": 8, "columns": 8,
                    "hill": value, "farms": value, "multiplier": 1 + 0.1 * i,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def outcomes(answers):
    return {claim.claim: claim.outcome for claim in claims(answers)}


LOSS, ORDER = (
    "Learning rates by farms lower the loss",
    "It is the order of the exponents that does it (farms)",
)
EVEN = "Exponents are more even over matrices after training with rates by farms"


@pytest.mark.slow
def test_a_score_is_credited_only_where_it_saves_and_beats_its_shuffles():
    arms = ("uniform", "farms")
    made = partial(made_of, arms=arms)
    found = outcomes(made({"farms": -0.5}, spread={"farms": -0.5}))
    assert (found[LOSS], found[ORDER], found[EVEN]) == (words.SHOWN, words.SHOWN, words.SHOWN)
    found = outcomes(made({"farms": -0.5, "shuffled-farms": -0.6}, spread={"farms": 0.5}))
    assert (found[LOSS], found[ORDER], found[EVEN]) == (words.SHOWN, words.NOT_SHOWN, words.NOT_SHOWN)
    found = outcomes(made({"farms": 0.5}))
    assert (found[LOSS], found[ORDER], found[EVEN]) == (words.NOT_SHOWN, words.NOT_SHOWN, words.OPEN)
    # Better than all shuffles, but it is not shown to save.
    found = outcomes(made({"shuffled-farms": 0.5}))
    assert (found[LOSS], found[ORDER]) == (words.OPEN, words.OPEN)
    for few in (made({"farms": -0.5}, draws=9), made({"farms": -0.5}, rates_of_draws=(1.0,))):
        assert outcomes(few)[ORDER] == words.OPEN
    # Shuffles with fewer rates can refute it.
    refuted = made({"farms": -0.5, "shuffled-farms": -0.6}, rates_of_draws=(1.0,))
    assert outcomes(refuted)[ORDER] == words.NOT_SHOWN
    assert set(outcomes(made({"farms": -0.5}, seeds=4)).values()) == {words.OPEN}


def test_what_is_missing_has_the_command_that_trains_it(tmp_path):
    toy = made_of(draws=0, tmp=tmp_path)
    found = {claim.claim: claim.reason for claim in claims(toy)}
    assert "speclens train published --config" in found[ORDER]
    commands = "\n".join(toy.missing["command"])
    assert "--rates shuffled-farms --rates.seed 3 --rates.map linear --rates.low 0.5" in commands
    assert "--rates.first-last --lr 0.5 --seeds 0 1 2 3 4" in commands
    lm = "\n".join(made_of(draws=0, lm=True, tmp=tmp_path).missing["command"])
    assert "speclens train lm --data SHARDS --config" in lm
    assert "--rates shuffled-alpha --rates.seed 9 --rates.map linear" in lm
    assert "--lr 0.5 1 2 --seeds 0 1 2 3 4" in lm
    (tmp_path / "campaign.json").write_text(json.dumps(preset.label("quick", 40)))
    own = made_of(draws=0, seeds=4, tmp=tmp_path).missing
    assert set(own["command"]) == {
        f"speclens rates --profile quick --steps 40 --stage rope --seeds 5{more} --out {tmp_path}"
        for more in ("", " --shuffled alpha")
    }


@pytest.mark.parametrize(
    ("lm", "arms", "draws", "settings"),
    [
        (False, ("farms",), 0, {"low": 0.2, "every": 3, "first_last": False}),
        (False, (), range(3, 4), {}),
        pytest.param(True, ("farms",), 0, {"low": 0.2}, marks=pytest.mark.slow),
        pytest.param(
            False, ("uniform", "depth"), range(3, 4), {"map": "sigmoid", "tau": 3.0}, marks=pytest.mark.slow
        ),
    ],
)
def test_commands_of_missing_runs_train_them(tmp_path, lm, arms, draws, settings):
    toy = replace(base(), model=replace(RUN.model, layers=3))
    like = LmConfig("tiny", "rope", 300, 16, 2, 5) if lm else toy
    table = losses(draws=draws, arms=arms, seeds=2)
    table = table[table["lr"] == 1.0]
    answers = answers_of(table, like, tmp_path, **settings)
    missing = missing_runs(table, draws=2)
    lines = commands(answers.data, missing)["command"]
    for run in sorted(set(lines.str.extract(r"--config \S+/(\S+)")[0])):
        answers.data.folders[run].start(
            answers.data.specs[run], LmMeasureConfig() if lm else measure_of(), {}
        )
    asked = set()
    for line in lines:
        command = cli.parse(shlex.split(line)[1:]).preset
        asked.add(command.settings.rates if lm else command.run.rates)
        assert command.out == tmp_path
    assert asked == {
        Rates(arm, seed=draw, **(settings if arm != "uniform" else {}))
        for arm, draw in zip(missing["arm"], missing["draw"].tolist(), strict=True)
    }


def test_a_claim_names_the_command_of_its_own_arm(tmp_path):
    table = losses(draws=10, arms=("uniform", "alpha", "farms"))
    answers = answers_of(table[~((table["arm"] == "alpha") & (table["seed"] == 4))], base(), tmp_path)
    # Only alpha and its shuffles lack runs.
    assert "train with: speclens train published" in _needs(answers, "rope", "alpha")
    assert "--rates alpha " in _needs(answers, "rope", "alpha")
    assert _needs(answers, "rope", "farms") == ""


def test_missing_and_diverged_arms_are_written_without_nan(tmp_path):
    without = answers_of(losses(arms=("farms",)), base(), tmp_path)
    table = losses(arms=("uniform", "farms"))
    table.loc[table["arm"] == "farms", "loss"] = np.inf
    for answers in (without, answers_of(table, base(), tmp_path)):
        (row,) = summary_table(answers).rows
        texts = [
            *row,
            lead(answers),
            _loss(answers, "rope", "farms").here,
            _credit(answers, "rope", "farms").here,
        ]
        assert not [text for text in texts if "nan" in str(text) or "inf" in str(text)]
        assert row[3] == "–"
    assert row[5] == "∞"


@pytest.mark.slow
def test_the_page_has_all_claims_and_figures(tmp_path, undrawn):
    answers = made_of({"farms": -0.5, "depth": -0.5}, spread={"farms": -0.5})
    page = write_rates(answers, [tmp_path], tmp_path / "page", ["a note"])
    text = page.read_text(encoding="utf-8")
    assert lead(answers).startswith(
        "Learning rates by spectra lower the loss in 1 of 2 comparisons: farms on rope"
    )
    assert "better than its 10 shuffles" in lead(answers)
    assert "Of the controls save: depth on rope." in lead(answers)
    for claim in claims(answers):
        assert claim.claim in text
    for name in ("a note", "cannot be told", "Gaussian"):
        assert name in text
    names = {path.name for path in page.parent.iterdir()}
    assert {
        "arms.csv",
        "base-rates.csv",
        "shuffles.csv",
        "multipliers.csv",
        "spreads.csv",
        "missing.csv",
    } <= names
    assert lead(made_of(arms=("uniform",), draws=0)).startswith("Only runs of one rate")


def test_spreads_are_paired_over_seeds():
    answers = made_of(spread={"farms": -0.25})
    (row,) = answers.changes.query("arm == 'farms' and when == 'end' and quantity == 'farms'").to_dict(
        "records"
    )
    assert row["mean"] == pytest.approx(-0.25 * 2 / 3**0.5, abs=0.05)
    assert row["high"] < 0
    table = spreads(pd.DataFrame([
        {"cell": "a", "arm": "uniform", "seed": 0, "when": "end", "quantity": "hill", "matrix": f"m{b}",
         "block": b, "value": v}
        for b, v in enumerate([1.0, 2.0, 4.0, np.nan])
    ]))  # fmt: skip
    assert table["sd"].iloc[0] == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert (table["rho"].iloc[0], table["matrices"].iloc[0]) == (pytest.approx(1.0), 3)
    assert spread_changes(table).empty


def test_gaussian_matrices_spread_by_their_shapes_and_by_chance():
    equal = noise_spread(tuple((f"blocks.{i}.attn.q", 16, 16) for i in range(6)), "hill")
    unequal = noise_spread(tuple((f"blocks.{i}.attn.q", 16, 16 if i % 2 else 64) for i in range(6)), "hill")
    assert 0 < equal[1] < equal[0] < equal[2] < unequal[0]


def base():
    return replace(RUN, stage="rope", model=ModelConfig(d_model=16, heads=2, layers=2), steps=4, eval_every=4)


def measure_of():
    return replace(MEASURE, bands=(), training_bands=0, causal_sequences=0, gradient_sequences=0)


@pytest.fixture(autouse=True)
def few_models(monkeypatch):
    monkeypatch.setattr(measured, "NOISE_MODELS", 8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("rates")
    for by in ("uniform", "farms"):
        configs = [
            replace(base(), seed=seed, lr=lr, rates=Rates(by)) for seed in (0, 1) for lr in (1e-3, 2e-3)
        ]
        assert not run_group(configs, measure_of(), out)
    return out


def test_arms_rates_and_seeds_are_read_from_the_configurations(runs):
    data = rates_data([runs])
    assert data.cells == ["rope"]
    assert set(zip(data.losses["arm"], data.losses["lr"], data.losses["seed"], strict=True)) == set(
        product(("uniform", "farms"), (1e-3, 2e-3), (0, 1))
    )
    one = data.losses.iloc[0]
    assert one["loss"] == data.folders[one["run"]].outcome["val_loss"]
    assert rates_data([data.folders[one["run"]].path]).losses["run"].tolist() == [one["run"]]


def test_multipliers_are_those_that_the_controller_chooses(runs):
    data = rates_data([runs])
    run = data.losses.loc[data.losses["arm"] == "farms", "run"].iloc[0]
    table = measured.exponents(data, [run])
    first = table[table["step"] == 0].set_index("matrix")["multiplier"]
    config = data.specs[run]
    assert isinstance(config, RunConfig)
    ensemble = Ensemble([config], controller=layerwise)
    (controller,) = ensemble.trainable.controllers
    chosen = controller.choose(ensemble.view(0))
    assert {name: first[name] for name in chosen} == pytest.approx(dict(chosen), rel=1e-5)
    assert first.nunique() > 1
    # Of zeros at the start.
    assert first["blocks.0.attn.o"] == 1
    assert table.loc[(table["step"] == 0) & (table["matrix"] == "blocks.0.attn.o"), "hill"].isna().all()
    bad = {name: weight * float("nan") for name, weight in ensemble.weights(0).items()}
    assert list(matrix_rows(0, bad, Rates())) == []


def test_unlike_runs_are_refused(runs, tmp_path):
    assert not run_group([replace(base(), steps=5)], measure_of(), tmp_path / "steps")
    with pytest.raises(MeasureError, match="differ in steps"):
        rates_data([runs, tmp_path / "steps"])
    assert not run_group([replace(base(), rates=Rates("depth", low=0.1))], measure_of(), tmp_path / "low")
    with pytest.raises(MeasureError, match=r"differ in rates\.low"):
        rates_data([runs, tmp_path / "low"])
    other = replace(base(), lr=4e-3, task=replace(base().task, seed=7), rates=Rates("farms"))
    assert not run_group([other], measure_of(), tmp_path / "data")
    with pytest.raises(MeasureError, match=r"differ in task\.seed: their losses are of other data"):
        rates_data([runs, tmp_path / "data"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MeasureError, match="no run that was trained to its end"):
        rates_data([tmp_path / "empty"])


def test_language_models_on_other_data_are_refused():
    one = LmConfig("tiny", "rope", 300, 16, 2, 5, data="a")
    specs = {"one": one, "other": replace(one, data="b", rates=Rates("farms"))}
    table = pd.DataFrame([{**measured._row(spec), "run": run} for run, spec in specs.items()])
    with pytest.raises(MeasureError, match="differ in data"):
        measured._require_alike(table, specs)
    measured._require_alike(table, {**specs, "other": replace(specs["other"], data="a")})


def test_the_command_answers_of_runs_that_are_there(runs, tmp_path, capsys, undrawn):
    assert cli.main(["rates", str(runs), "--out", str(tmp_path / "page"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {claim["outcome"] for claim in found["claims"]} == {words.OPEN}
    assert [row["verdict"] for row in found["summary"]] == [OPEN]
    assert sum(row["runs"] for row in found["missing"]) == 2 * 2 * 3 + 10 * 2 * 5
    assert (tmp_path / "page" / "index.html").exists()


@pytest.mark.slow
def test_the_command_trains_what_is_missing_and_goes_on(tmp_path, capsys, monkeypatch, undrawn):
    small = preset.Profile(base().task, base().model, 4, steps=3)
    monkeypatch.setitem(preset.PROFILES, "quick", small)
    monkeypatch.setattr(preset, "ARMS", ("uniform", "farms"))
    monkeypatch.setattr(preset, "rates_measurements", lambda *_: replace(measure_of(), every=3))
    line = [
        "rates",
        "--seeds",
        "1",
        "--shuffles",
        "1",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert cli.main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["failed"]
    folders = sorted((tmp_path / "out").glob("*/done.json"))
    assert len(folders) == 9
    before = [path.stat().st_mtime_ns for path in folders]
    gone = folders[0].parent
    for file in sorted(gone.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    gone.rmdir()
    assert cli.main(line) == 0
    after = [path.stat().st_mtime_ns for path in folders]
    assert after[1:] == before[1:]
    assert after[0] != before[0]
    assert cli.main([*line[:-1], "--steps", "2"]) != 0
    assert "another" in capsys.readouterr().err


def test_the_preset_pairs_everything_but_the_multipliers():
    configs = preset.rates_configs()
    assert len({config.run_id for config in configs}) == 225
    alike = {replace(config, rates=Rates(), lr=1.0, seed=0) for config in configs}
    assert len(alike) == 1
    assert len(preset.rates_configs(("rope", "muon"), range(2), shuffles=0)) == 2 * 2 * 3 * 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds is 0"),
        (["--shuffles", "-1"], "--shuffles is -1"),
        (["--steps", "0"], "--steps is 0"),
        (["--stage", "rope", "rope"], "name each stage once"),
        (["FOLDER", "--seeds", "3", "--dry-run"], "leave out --seeds, --dry-run"),
    ],
)
def test_bad_options_are_refused(tmp_path, capsys, words, message):
    given = [str(tmp_path) if word == "FOLDER" else word for word in words]
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(cli.main(["rates", *given]))
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
