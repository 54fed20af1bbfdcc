"""The study of learning rates by layer: claims of planted effects, their commands, and the page."""

import json
import shlex
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from planted_rates import (
    answers_of,
    base,
    losses,
    made_of,
    measure_of,
    outcomes,
)
from tiny_runs import RUN

from sims import cli
from sims.analysis.rates import (
    missing_runs,
    spread_changes,
    spreads,
)
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.studies import claims as words
from sims.studies.rates import measured, preset
from sims.studies.rates.measured import noise_spread
from sims.studies.rates.missing import commands
from sims.studies.rates.page import lead, write_rates
from sims.studies.rates.published import _credit, _loss, _needs, claims
from sims.studies.rates.sections import summary_table
from toymodel.rates import Rates


@pytest.fixture(autouse=True)
def few_models(monkeypatch):
    monkeypatch.setattr(measured, "NOISE_MODELS", 8)


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
            answers.data.specs[run], LmMeasureConfig(loss_tokens=0) if lm else measure_of(), {}
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
