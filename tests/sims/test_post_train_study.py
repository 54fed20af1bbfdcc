"""The study of post-training: claims on made numbers, what is measured of tiny runs, the command and its page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.analysis.pass_at_k import pass_at_k
from sims.runs.digests import sealed
from sims.runs.store import RunFolder
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN
from sims.studies.post_train import measured
from sims.studies.post_train.answers import PostAnswers
from sims.studies.post_train.measured import ARMS, KS, Item, PostData, items_of, measure_item, post_data
from sims.studies.post_train.page import write_post_train
from sims.studies.post_train.preset import base_configs
from sims.studies.post_train.published import EXPECTED, claims
from sims.studies.post_train.sources import Plan, bands_of
from sims.studies.post_train.words import toy_words
from sims.system.errors import MeasureError
from sims.system.files import write_json
from sims.training.toy_runner import run_group
from toymodel import ModelConfig, TaskConfig
from toymodel.data import dataset
from toymodel.posttrain.config import KINDS, PostTraining
from toymodel.posttrain.continued import Signal, train_further

QUANTITIES = [
    *("rankme", "rankme_without", "alpha_req", "accuracy", "keep_top_1", "drop_top_1", "val_loss"),
    *("narrow_loss", "rare_loss", *(f"pass@{k}" for k in KS), "distinct", "distinct_possible"),
]
SMALL = Plan(sequences=40, prompts=3, samples=256, band_sequences=8)
SETTINGS = tuple(PostTraining(k, steps=2, batch_size=8, samples=4, length=1, pairs=16) for k in KINDS)
WORDS = toy_words((7, 0), ((11, 3), (13, 2)), SETTINGS[0])


def data_of(runs, plan=SMALL):
    """Post-train and measure all runs of a folder."""
    notes: list[str] = []
    return post_data(items_of(runs, SETTINGS, plan, notes), SETTINGS, notes, 1, lambda *_: None)


def made(effects, seeds=6, noise=0.01, seed=0, quantities=QUANTITIES):
    """Answers from numbers that are 1 plus an effect (arm, quantity) plus noise, of the run and of the seed."""
    draws = np.random.default_rng(seed)
    shared = draws.standard_normal((seeds, len(quantities)))
    rows = [
        {
            "cell": "untied", "seed": s, "arm": arm, "quantity": q,
            "value": 2 + 0.2 * shared[s, i] + effects.get((arm, q), 0.0) + noise * draws.standard_normal(),
        }
        for s in range(seeds) for arm in ARMS for i, q in enumerate(quantities)
    ]  # fmt: skip
    return PostAnswers(PostData(pd.DataFrame(rows), SETTINGS, SMALL, WORDS))


AS_PUBLISHED = {(e.arm, e.quantity): 0.2 * e.sign for e in EXPECTED}


def test_effects_as_published_are_shown_and_the_opposite_is_not():
    assert [c.outcome for c in claims(made(AS_PUBLISHED))] == [SHOWN] * 5
    turned = {key: -value for key, value in AS_PUBLISHED.items()}
    assert [c.outcome for c in claims(made(turned))] == [NOT_SHOWN] * 5
    # One of five small effects: the interval alone would decide it.
    weak = [c for seed in range(4) for c in claims(made({("dpo", "rankme"): 0.018}, seed=seed))]
    assert any("after Holm" in c.reason and c.outcome == OPEN for c in weak)
    # What plain steps do as well is no effect of a kind.
    alike = {(arm, "rankme"): 0.2 for arm in ("plain", "sft")}
    assert next(iter(claims(made(alike)))).outcome != SHOWN
    few = list(claims(made(AS_PUBLISHED, seeds=3)))
    assert {c.outcome for c in few} == {OPEN}
    assert "3 seeds" in few[0].reason


@pytest.mark.slow
def test_noise_decides_few_claims():
    # 20 draws of 5 claims, of which Holm's correction decides any in one: more than 6 have a chance below 1 %.
    named = sorted({e.quantity for e in EXPECTED})
    found = [c.outcome for seed in range(20) for c in claims(made({}, seed=seed, quantities=named))]
    assert sum(outcome != OPEN for outcome in found) <= 6


def test_changes_are_paired_over_seeds_and_those_of_rankme_are_ratios():
    answers = made({})
    table = answers.data.table.set_index(["seed", "arm", "quantity"])["value"]
    logs = [np.log(table[s, "sft", "rankme"] / table[s, "plain", "rankme"]) for s in range(6)]
    own = answers.change("untied", "sft", "plain", "rankme")
    assert own["mean"] == pytest.approx(np.mean(logs))
    # Seeds differ by 0.2, which pairing takes away.
    assert own["high"] - own["low"] < 0.05
    losses = [table[s, "dpo", "val_loss"] - table[s, "before", "val_loss"] for s in range(6)]
    assert answers.change("untied", "dpo", "before", "val_loss")["mean"] == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("level", [0.02, 0.98])
def test_intervals_of_shares_stay_within_what_a_share_can_be(level):
    """Two seeds near 0 or 1: Student's interval of the plain mean would reach far beyond."""
    rows = [
        {"cell": "a", "seed": s, "arm": arm, "quantity": q, "value": abs(level - (0.01 + 0.005 * i) * s)}
        for i, arm in enumerate(ARMS)
        for q in ("pass@256", "accuracy")
        for s in (0, 1)
    ]
    answers = PostAnswers(PostData(pd.DataFrame(rows), SETTINGS, SMALL, WORDS))
    for table, least in ((answers.levels, 0), (answers.changes, -1)):
        assert ((least <= table["low"]) & (table["low"] <= table["high"]) & (table["high"] <= 1)).all()


def test_the_page_has_all_claims_and_numbers(tmp_path, undrawn):
    page = write_post_train(made(AS_PUBLISHED), tmp_path, tmp_path / "page", ["a note"])
    text = page.read_text(encoding="utf-8")
    for expected in EXPECTED:
        assert expected.claim in text
    assert "Of 5 published claims set against plain steps, 5 are shown" in text
    assert "a note" in text
    assert {"post-training.csv", "pass-at-k.csv"} <= {path.name for path in page.parent.iterdir()}


def base():
    task = TaskConfig(vocab=16, length=12, train=60, val=40, test=8)
    return replace(RUN, task=task, steps=6, eval_size=32)


def measure_of():
    return replace(
        MEASURE,
        sequences=40,
        windows=((1, 5),),
        bands=(),
        training_bands=0,
        causal_sequences=0,
        gradient_sequences=0,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("post")
    assert not run_group([replace(base(), seed=seed) for seed in (0, 1)], measure_of(), out)
    return out


def test_a_model_has_the_numbers_that_its_samples_give(runs, monkeypatch):
    (first, *_) = items_of(runs, SETTINGS, SMALL, [])
    assert first.arm == "before"
    seen: dict[str, Any] = {}

    def keep(right, samples, ks):
        seen["right"], seen["samples"] = right, samples
        return pass_at_k(right, samples, ks)

    monkeypatch.setattr(measured, "pass_at_k", keep)
    numbers = {row["quantity"]: row["value"] for row in measure_item(first)}
    assert set(numbers) == {*QUANTITIES, "keep_top_8", "drop_top_8"} - {"alpha_req"}
    assert seen["samples"] == 256
    assert numbers["pass@1"] == pytest.approx(seen["right"].mean() / 256)
    assert numbers["distinct_possible"] <= numbers["distinct"] <= 256
    monkeypatch.setattr(measured, "measure_model", lambda *_: pytest.fail("measured twice"))
    assert {row["quantity"]: row["value"] for row in measure_item(first)} == numbers


def test_bands_are_the_most_frequent_one_and_the_rarest_of_other_moduli(runs):
    config = RunFolder(items_of(runs, SETTINGS, SMALL, [])[0].folder).configs()[0]
    narrow, held = bands_of(config)
    latents = dataset(config.task).train.latents
    pairs = list(zip(latents.modulus[:, 0].tolist(), latents.offset[:, 0].tolist(), strict=True))
    odd = {band: pairs.count(band) for band in pairs if band[0] % 2 and band[0] >= 7}
    assert odd[narrow] == max(odd.values())
    assert held
    assert narrow not in held
    assert len({c for c, _ in held}) == len(held)
    for c, o in held:
        assert pairs.count((c, o)) == min(pairs.count((c, other)) for other in range(16 - c + 1))


def test_the_command_goes_on_where_it_stopped(runs, tmp_path, capsys, monkeypatch, undrawn):
    monkeypatch.setattr(measured, "Plan", lambda: SMALL)
    monkeypatch.setattr(measured, "settings_of", lambda *_: SETTINGS)
    line = ["post-train", "--runs", str(runs), "--out", str(tmp_path / "page"), "--workers", "1", "--json"]
    done = []

    def stopped(*args, **options):
        done.append(args[2].kind)
        if len(done) == 3:
            raise KeyboardInterrupt
        return train_further(*args, **options)

    monkeypatch.setattr(measured, "train_further", stopped)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        raise SystemExit(cli.main(line))
    capsys.readouterr()
    monkeypatch.setattr(
        measured, "train_further", lambda *a, **o: done.append(a[2].kind) or train_further(*a, **o)
    )
    assert cli.main(line) == 0
    # Two were stored, the third is done again.
    assert done == ["plain", "sft", "dpo", "dpo", "rlvr", *KINDS]
    found = json.loads(capsys.readouterr().out)
    assert [claim["outcome"] for claim in found["claims"]] == [OPEN] * 5
    assert {row["arm"] for row in found["levels"]} == set(ARMS)
    assert (tmp_path / "page" / "index.html").exists()


def test_what_cannot_be_post_trained_is_refused(runs, tmp_path, capsys):
    with pytest.raises(MeasureError, match="longer than the 13 tokens"):
        items_of(runs, (PostTraining("rlvr", length=11),), SMALL, [])
    assert cli.main(["post-train", "--runs", str(tmp_path)]) != 0
    for bad in (["--seeds", "0"], ["--steps", "0"], ["--lr", "2"], ["--runs", str(runs), "--seeds", "3"]):
        with pytest.raises(SystemExit):
            raise SystemExit(cli.main(["post-train", *bad]))
        assert capsys.readouterr().err


def test_items_name_their_kind_and_the_preset_its_runs():
    assert [Item(None, s, SETTINGS[0], SMALL).arm for s in SETTINGS] == list(KINDS)  # pyright: ignore
    assert len({c.run_id for c in base_configs(range(6))}) == 6


def copied_run(runs, out, outcome=None, **changed):
    """Copy the runs of a folder and train one more, or change how the copied first one ended."""
    shutil.copytree(runs, out)
    first = items_of(out, SETTINGS, SMALL, [])[0].folder
    if outcome:
        own = RunFolder(first)
        write_json(first / "done.json", sealed(first, {**own.outcome, **outcome}))
        return first
    config = replace(RunFolder(first).configs()[0], **changed)
    assert not run_group([config], measure_of(), out)
    return first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": TaskConfig(vocab=16, length=12, train=60, val=40, test=8, seed=1)}, "task seed .* task seed"),
        ({"stage": "rope", "model": ModelConfig(d_model=8, heads=2, layers=1)}, "of width .* of width"),
        ({"stage": "rope", "task": TaskConfig(vocab=16, length=12, train=80, val=40, test=8)}, "trained on"),
        ({"seed": 2, "weight_decay": 0.5}, "differ in weight_decay"),
    ],
)  # fmt: skip
def test_unlike_runs_are_refused_before_any_work(runs, tmp_path, changed, message, monkeypatch):
    copied_run(runs, tmp_path / "runs", **changed)
    monkeypatch.setattr(measured, "measure_item", lambda *_: pytest.fail("worked"))
    with pytest.raises(MeasureError, match=message):
        data_of(tmp_path / "runs")


def test_runs_that_did_not_end_and_those_of_other_batch_sizes_are_left_out_with_a_note(runs, tmp_path):
    for name, outcome, reason in (
        ("early", {"ended": "diverged"}, "ended at step 6 (diverged)"),
        ("later", {"step": 9}, "last weights are of step 6, and it ended at 9"),
    ):
        first = copied_run(runs, tmp_path / name, outcome=outcome)
        notes: list[str] = []
        found = items_of(tmp_path / name, SETTINGS, SMALL, notes)
        assert {item.folder.name for item in found}.isdisjoint({first.name})
        assert len(notes) == 1
        assert reason in notes[0]
        assert first.name in notes[0]
    copied_run(runs, tmp_path / "sizes", batch_size=16)
    notes = []
    assert len(items_of(tmp_path / "sizes", SETTINGS, SMALL, notes)) == 2 * len(ARMS)
    assert len(notes) == 1
    assert "batch size is 16" in notes[0]


def test_narrow_models_lack_what_does_not_fit_their_width(tmp_path, undrawn):
    config = replace(base(), model=ModelConfig(d_model=8, heads=2, layers=1))
    assert not run_group([config], measure_of(), tmp_path / "runs")
    data = data_of(tmp_path / "runs")
    assert set(data.table["quantity"]).isdisjoint({"rankme_without", "alpha_req"})
    assert np.isfinite(data.table["value"]).all()
    assert (data.plan.sequences, data.plan.prompts) == (40, 3)
    write_post_train(PostAnswers(data), tmp_path, tmp_path / "page", [])


def test_the_page_tells_how_many_prompts_there_were_and_lacks_numbers_that_are_absent(
    runs, tmp_path, monkeypatch, undrawn
):
    monkeypatch.setattr(
        measured, "measure_item", lambda item: [{"quantity": q, "value": 1.0} for q in QUANTITIES]
    )
    data = data_of(runs, Plan(samples=256))
    assert data.plan.prompts == 40
    own = data.table
    gone = (own["quantity"] == "rankme_without") & (own["arm"] == "sft")
    page = write_post_train(PostAnswers(replace(data, table=own[~gone])), tmp_path, tmp_path / "page", [])
    text = page.read_text(encoding="utf-8")
    assert "of 40 prompts" in text
    assert "rare bands" in text
    assert "held-out bands" not in text


def test_weights_that_diverge_are_told_from_numbers_that_are_absent(runs, tmp_path, monkeypatch):
    shutil.copytree(runs, tmp_path / "runs")
    items = items_of(tmp_path / "runs", SETTINGS, SMALL, [])
    monkeypatch.setattr(
        measured,
        "train_further",
        lambda model, weights, *_: {n: w * float("nan") for n, w in weights.items()},
    )
    with pytest.raises(MeasureError, match="diverged in post-training by plain; lower the learning rate"):
        measure_item(replace(items[1], settings=PostTraining("plain", steps=1)))


def test_a_run_from_which_nothing_is_learned_is_refused_before_the_next_is_asked(monkeypatch):
    asked = []

    def signal_of_item(item, settings):
        asked.append(item.folder.name)
        return Signal(pairs=9, counted=9, samples=512, right=0, prompts=64, mixed=0)

    monkeypatch.setattr(measured, "signal_item", signal_of_item)
    items = [Item(Path(name), None, SETTINGS[0], SMALL) for name in ("one", "two")]
    with pytest.raises(MeasureError, match="0 of 512 samples of one before post-training are right"):
        post_data(items, SETTINGS, [], 1, lambda *_: None)
    assert asked == ["one"]
