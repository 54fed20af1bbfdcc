"""The study of phases of the geometry: planted answers, its page, and the command on tiny runs and checkpoints."""

import ast
import inspect
import json
import math
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.analysis import geometry, segmentation
from sims.analysis.geometry import label_phases
from sims.analysis.runs import Runs
from sims.runs.layout import ROWS, SPECTRA, WRITER
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.store import RunFolder, run_folders
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN, VERDICTS, claim_table
from sims.studies.phases import labels
from sims.studies.phases.answers import PhaseAnswers
from sims.studies.phases.labels import StoredLabels
from sims.studies.phases.measured import PhaseData, phase_data
from sims.studies.phases.page import lead, write_phases
from sims.studies.phases.published import claims
from sims.studies.phases.settings import LANGUAGE, Setting, null_texts, setting_of
from sims.studies.phases.sources import StateOptions, checkpoint_metadata, measured_folders
from sims.studies.phases.study import PAGE
from sims.studies.study import sections
from sims.system.errors import MeasureError
from sims.text.shards import write_shard
from sims.training.toy_runner import run_group
from toymodel.config import ModelConfig

LOOKS = np.geomspace(4e3, 2e6, 21)
SHARE = np.linspace(0, 1, 21)
RISE = 2.5 * np.clip(SHARE - 0.2, 0, 0.4)
WE = 3.5 - 6 * np.minimum(SHARE, 0.2) + RISE
WEC = WE - 1.2 * np.maximum(SHARE - 0.6, 0)
BASE = Setting(
    LANGUAGE, "rope", 4, 64, 1024, 32, 3e-3, 540, 16, 0, "text", bias=False, pooling="last", states=768
)


def planted(sets, seeds=3, noise=0.01, draws=39):
    """Return answers to sets of runs: name → setting, and (looks,) of ln RankMe, of it without k directions (0: with
    the mean state) and of the mean share.
    """
    rows, runs = [], []
    label: dict[str, Any] = {}
    for number, (cell, (_, curve, without, share)) in enumerate(sets.items()):
        for seed in range(seeds):
            generator = np.random.default_rng([number, seed])
            label = {"run_id": f"{cell}-{seed}", "stage": cell, "batch_size": 32, "lr": 3e-3, "seed": seed}
            runs.append({**label, "ended": "finished", "step": 540, "tokens": LOOKS[-1], "val_loss": 3.0})

            def add(quantity, values, label=label, generator=generator, **which):
                start = {"step": 0, "tokens": 0.0, "value": values[0]}
                for step, (tokens, value) in enumerate(zip(LOOKS, values, strict=True), 1):
                    noisy = value * math.exp(noise * generator.standard_normal())
                    rows.append({**label, "quantity": quantity, "object": "activation", "site": "final",
                                 "step": step, "tokens": tokens, "value": noisy, "status": "ok", **which})  # fmt: skip
                rows.append({**rows[-1], **start})

            add("rankme", np.exp(curve), null=60.0)
            add("alpha_req", 4 - curve, detail="width")
            add("mean_share", np.array(share))
            for k, own in without.items():
                add(
                    "rankme_without" if k else "rankme_uncentred", np.exp(own), detail=f"top {k}" if k else ""
                )
    table = pd.DataFrame(rows).reindex(columns=[*label, *(c for c in ROWS.names if c not in label)])
    configs = {run["run_id"]: {"logit_bias": sets[run["stage"]][0].bias} for run in runs}
    found = Runs(
        pd.DataFrame(runs), table, pd.DataFrame(columns=["run_id", *SPECTRA.names]), (), configs=configs
    )
    settings = {cell: setting for cell, (setting, *_) in sets.items()}
    return PhaseAnswers(PhaseData(found, settings, {}), draws=draws)


def outcomes(answers):
    return {(c.claim, c.runs): c.outcome for c in claims(answers)}


def of(found, text):
    (outcome,) = {outcome for (claim, _), outcome in found.items() if claim.startswith(text)}
    return outcome


GATHERS = np.interp(SHARE, [0, 0.2, 0.6, 1], [0.2, 0.9, 0.4, 0.3])


def test_the_published_phases_are_shown_where_they_are_planted():
    answers = planted({"rope": (BASE, WEC, {1: WEC, 8: WE, 32: WE, 0: WE}, GATHERS)})
    found = outcomes(answers)
    assert answers.words["rope"].word == "WEC"
    assert of(found, "States go through W, E and C") == SHOWN
    # RankMe rises by a factor e, between 2 and 3.
    assert of(found, "RankMe grows") == SHOWN
    factor = answers.factor("rope", "E")
    assert factor is not None
    assert factor.value == pytest.approx(math.e, rel=0.1)
    assert of(found, "Training ends in compression") == SHOWN
    assert of(found, "C is there without the first 1 direction") == SHOWN
    assert of(found, "C is there without the first 8 directions") == NOT_SHOWN
    assert of(found, "C is there with the mean state") == NOT_SHOWN
    assert of(found, "In W the states gather") == SHOWN
    # What needs other runs is open, and says which.
    for text in ("W is there without a ramp", "W ends at the same", "C needs fewer", "A bias", "Null runs"):
        assert of(found, text) == OPEN
    assert all(
        "train" in c.reason or "null run" in c.reason for c in claims(answers) if c.runs == "no such runs"
    )


def test_narrow_states_have_no_spectrum_without_most_of_their_directions():
    answers = planted({"narrow": (replace(BASE, width=8), WEC, {1: WEC}, GATHERS)})
    reasons = {c.claim: c.reason for c in claims(answers)}
    assert "fewer than two are left" in reasons["C is there without the first 8 directions"]
    assert "fewer than two" not in reasons["C is there without the first 1 direction"]
    assert "not measured" in reasons["C is there with the mean state"]


def test_two_phases_are_not_three_and_one_seed_decides_nothing():
    sets = {"rope": (BASE, WE, {8: WE}, 1.1 - GATHERS)}
    found = outcomes(planted(sets))
    assert of(found, "States go through W, E and C") == NOT_SHOWN
    assert of(found, "Training ends in compression") == NOT_SHOWN
    assert of(found, "In W the states gather") == NOT_SHOWN
    assert of(found, "C is there without the first 8 directions") == OPEN
    small = outcomes(planted({"rope": (BASE, 3 + 0.3 * (WE - 3), {8: WE}, GATHERS)}))
    assert of(small, "RankMe grows") == NOT_SHOWN
    assert set(outcomes(planted(sets, seeds=2)).values()) == {OPEN}


def test_what_holms_correction_takes_away_is_not_claimed():
    # With 39 bootstrap curves the smallest p-value is 1/40, three times which is too much.
    sets = {
        name: (replace(BASE, lr=lr), WEC, {8: WE}, GATHERS) for name, lr in zip("abc", (1, 2, 3), strict=True)
    }
    answers = planted(sets)
    assert {own.word for own in answers.words.values()} == {"W?"}
    found = outcomes(answers)
    for text in (
        "States go",
        "Training ends",
        "RankMe grows",
        "In W the states",
        "C is there without the first 8",
    ):
        assert of(found, text) == OPEN


def test_letters_on_rankme_alone_decide_claims_on_c_only():
    def alone(sets):
        answers = planted(sets)
        rows = answers.data.runs.rows
        runs = replace(answers.data.runs, rows=rows[rows["quantity"] != "alpha_req"].reset_index(drop=True))
        return PhaseAnswers(replace(answers.data, runs=runs), draws=39)

    answers = alone({"none": (replace(BASE, warmup=0), WEC, {8: WEC}, GATHERS),
                     "long": (replace(BASE, warmup=64), WEC, {8: WEC}, GATHERS)})  # fmt: skip
    assert {own.word for own in answers.words.values()} == {"WEC"}
    found = outcomes(answers)
    for text in ("RankMe grows", "In W the states gather", "W ends at the same tokens", "Training ends"):
        assert of(found, text) == OPEN
        assert any("RankMe only" in c.reason for c in claims(answers) if c.claim.startswith(text))
    assert of(found, "C is there without the first 8 directions") == SHOWN


def test_a_phase_is_all_of_its_pieces():
    curve = 3.5 + np.interp(SHARE, [0, 0.2, 0.4, 0.6, 0.8, 1], [0, -1.2, -0.4, -0.4, 0.5, 0.5])
    share = np.interp(SHARE, [0, 0.2, 0.4, 0.6, 0.8, 1], [0.2, 0.9, 0.9, 0.9, 0.4, 0.4])
    answers = planted({"rope": (BASE, curve, {}, share)})
    labels_ = [own.label for own in answers.words["rope"].phases]
    assert labels_[:4] == ["W", "E", "flat", "E"]
    change = answers.factor("rope", "E")
    assert change is not None
    assert change.value == pytest.approx(math.exp(1.7), rel=0.1)
    phase = answers.phase("rope", "E")
    assert phase is not None
    assert phase.move == pytest.approx(1.7, abs=0.1)
    assert phase.slope == pytest.approx(phase.move / math.log(phase.end / phase.start))
    shares = answers.mean_share("rope")
    assert shares is not None
    assert shares[1].value == pytest.approx(-0.5, abs=0.1)


def test_sets_on_null_texts_are_not_compared_with_each_other():
    null = replace(BASE, text="null", null="shuffled text")
    sets = {
        "a": null,
        "b": replace(null, bias=True),
        "c": replace(null, width=32),
        "d": replace(null, warmup=0),
    }
    answers = planted({name: (own, WE, {}, GATHERS) for name, own in sets.items()})
    assert answers.ramps == answers.widths == answers.biases == []
    wide = planted({"rope": (BASE, WE, {}, GATHERS), "wide": (replace(BASE, width=1024), WE, {}, GATHERS)})
    assert wide.widths == [["rope", "wide"]]


def later(shift):
    """Return the curve WE with its first turn a factor later."""
    share = SHARE - shift * math.log(2) / math.log(LOOKS[-1] / LOOKS[0])
    return 3.5 - 6 * np.minimum(share, 0.2) + 2.5 * np.clip(share - 0.2, 0, 0.4)


def test_ramps_are_told_by_their_configuration():
    def of_ramps(curve):
        first = (replace(BASE, warmup=0), WE, {}, GATHERS)
        return outcomes(planted({"none": first, "long": (replace(BASE, warmup=64), curve, {}, GATHERS)}))

    # Two that fall to their last look end W nowhere.
    fall = 5.0 - 1.5 * SHARE
    ending = planted({"none": (replace(BASE, warmup=0), fall, {}, GATHERS),
                      "long": (replace(BASE, warmup=64), fall, {}, GATHERS)})  # fmt: skip
    assert {own.word for own in ending.words.values()} == {"W"}
    assert of(outcomes(ending), "W ends at the same tokens") == OPEN
    assert np.isnan(ending.minimum_times("none")).all()
    assert ending.spacing("none", list(ending.minimum_times("none"))) == 1
    same, moved = of_ramps(WE), of_ramps(later(2))
    assert of(same, "W is there without a ramp") == SHOWN
    assert of(same, "W ends at the same tokens") == SHOWN
    assert of(moved, "W ends at the same tokens") == NOT_SHOWN
    assert ("W ends at the same tokens whatever the ramp", "long over none") in same


@pytest.mark.slow
def test_widths_and_biases_are_told_by_their_configuration():
    wide, bias = replace(BASE, width=1024), replace(BASE, bias=True)

    def found(curve):
        return planted({"rope": (BASE, WEC, {}, GATHERS), "wide": (wide, curve, {}, GATHERS),
                        "bias": (bias, curve, {}, 0.5 * GATHERS)}, draws=79)  # fmt: skip

    as_published, other = found(WE), found(WEC)
    for answers, outcome in ((as_published, SHOWN), (other, NOT_SHOWN)):
        own = outcomes(answers)
        assert of(own, "C needs fewer directions than tokens") == outcome
        assert of(own, "Fewer directions than tokens bring C") == SHOWN
        assert of(own, "A bias on the logits takes C away") == outcome
        assert of(own, "Without a bias of the logits the mean state has a larger share") == SHOWN
        assert of(own, "Null runs have no third phase") == outcome
        # A width of the vocabulary is a null, and no set that the published phases are asked of.
        assert ("States go through W, E and C", "wide") not in own
    # Where there is no third phase, nothing can take it away.
    none = outcomes(planted({"rope": (BASE, WE, {}, GATHERS), "wide": (wide, WE, {}, GATHERS),
                             "bias": (bias, WE, {}, GATHERS)}, draws=79))  # fmt: skip
    assert of(none, "C needs fewer directions than tokens") == of(none, "A bias on the logits") == OPEN
    assert of(none, "Fewer directions than tokens bring C") == NOT_SHOWN
    (word,) = [c for c in claims(as_published) if c.claim.startswith("States go") and c.runs == "rope"]
    assert word.against == "wide: WE"
    (section,) = [s for s in sections(PAGE, as_published) if s.name == "width"]
    assert section.figure is not None
    assert section.table is not None
    assert [row[:3] for row in section.table.rows] == [("rope", "d = 64", "WEC"), ("wide", "d = 1024", "WE")]


def test_labels_are_kept_and_read_again(tmp_path, monkeypatch):
    noise = 0.01 * np.random.default_rng(0).standard_normal((2, 3, len(LOOKS)))
    curves = np.exp(WEC + noise[0]), 4 - WEC + noise[1]
    stored = StoredLabels(tmp_path)
    first = stored(LOOKS, *curves, draws=39)
    with monkeypatch.context() as patch:
        patch.setattr(labels, "label_phases", lambda *_, **__: pytest.fail("labelled again"))
        again = stored(LOOKS, *curves, draws=39)
    wanted = label_phases(LOOKS, *curves, draws=39)
    for found in (first, again):
        assert repr(found) == repr(wanted)
    flat = stored(LOOKS, np.full(len(LOOKS), 9.0), draws=39)
    assert repr(flat) == repr(stored(LOOKS, np.full(len(LOOKS), 9.0), draws=39))
    assert flat.word == "flat"
    few = stored(LOOKS[:5], curves[0][:, :5], draws=39)
    assert few.status == "not fitted"
    assert len(list((tmp_path / "measured").iterdir())) == 3


def test_changed_rules_label_again(tmp_path, monkeypatch):
    """Whatever of this package decides labels is among the files whose change makes them again."""
    imported = set()
    for module in (geometry, segmentation):
        tree = ast.parse(inspect.getsource(module))
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    # Errors and words for people decide nothing.
    rules = {name for name in imported if name.startswith(("sims.analysis", "theory"))}
    assert {module.__name__ for module in labels.RULES} == rules | {"sims.analysis.geometry"}
    stored = StoredLabels(tmp_path)
    for digest in ("one", "other", "one"):
        labels._rules.cache_clear()
        monkeypatch.setattr(labels, "sha256", lambda path, own=digest: own if path.stem == "decision" else "")
        stored(LOOKS, np.exp(np.tile(WE, (1, 1))), draws=9)
    labels._rules.cache_clear()
    assert len(list((tmp_path / "measured").iterdir())) == 2


def test_groups_that_begin_with_one_set_are_all_shown():
    two = replace(BASE, steps=270, lr=1e-3)
    sets = {"rope": BASE, "wide": replace(BASE, width=128), "slow": two, "wider": replace(two, width=256)}
    answers = planted({cell: (own, WE, {}, GATHERS) for cell, own in sets.items()})
    # A set may be in several groups, and begin them.
    answers.__dict__["widths"] = [["rope", "wide"], ["rope", "wider"], ["slow", "wider"]]
    (section,) = [s for s in sections(PAGE, answers) if s.name == "width"]
    assert section.table is not None
    assert [row[0] for row in section.table.rows] == ["rope", "wide", "rope", "wider", "slow", "wider"]
    assert section.figure is not None
    titles = [ax.get_title(loc="left") for ax in section.figure.axes if ax.get_visible()]
    assert titles == ["rope, wide", "rope, wider", "slow"]
    assert "up to the tokens that all sets of a group reach" in section.caption


def test_sets_of_two_lengths_are_compared_as_far_as_both_go():
    # Twice as long, and with a third phase only after the end of the other.
    long = replace(BASE, steps=1080, bias=False)
    answers = planted({"long": (long, WEC, {}, GATHERS), "bias": (replace(BASE, bias=True), WE, {}, GATHERS)})
    rows = answers.data.runs.rows
    rows = rows[(rows["stage"] == "long") | (rows["tokens"] <= LOOKS[12])]
    answers = PhaseAnswers(replace(answers.data, runs=replace(answers.data.runs, rows=rows)), draws=39)
    assert answers.biases == [["long", "bias"]]
    assert answers.words["long"].word == "WEC"
    words = answers.compared(["long", "bias"])
    assert {cell: own.points for cell, own in words.items()} == {"long": 13, "bias": 13}
    assert "C" not in words["long"].word
    # Under a rate that falls, or with a partner of one length, they are not.
    falling = {cell: replace(own, warmdown=10) for cell, own in answers.data.settings.items()}
    assert not replace(answers.data, settings=falling).alike("bias")
    more = {**answers.data.settings, "short": replace(BASE, bias=False)}
    assert replace(answers.data, settings=more).alike("bias") == [["short", "bias"]]
    # A group that another one holds is not a second comparison.
    ramps = {"none": replace(BASE, warmup=0), "some": replace(BASE, warmup=64), "long": long}
    assert replace(answers.data, settings=ramps).alike("warmup") == [["none", "long", "some"]]


def test_what_carries_a_phase_is_told_from_spectra_and_n_grams(trained):
    answers = planted({"rope": (BASE, WEC, {}, GATHERS)})
    own = outcomes(answers)
    assert of(own, "Long n-grams are memorised in E") == of(own, "One group of ranks adds more to E") == OPEN
    # Frequencies are learned at the least RankMe, pairs later, long contexts in E.
    peaks = {"1-gram": 4, "2-gram": 8, "3-gram": 9, "5-gram": 10, "∞-gram": 10}
    rows = answers.data.runs.rows
    mean = rows[rows["quantity"] == "mean_share"]
    parts = [rows]
    for law, top in peaks.items():
        at = mean["step"].to_numpy() - 1
        value = 0.9 - 0.02 * np.abs(at - top) + 0.001 * np.random.default_rng(top).standard_normal(len(at))
        parts.append(mean.assign(quantity="ngram_correlation", object="ngram", detail=law, value=value))
    runs = replace(answers.data.runs, rows=pd.concat(parts, ignore_index=True))
    answers = PhaseAnswers(replace(answers.data, runs=runs), draws=39)
    own = outcomes(answers)
    assert of(own, "Long n-grams are memorised in E") == SHOWN
    assert of(own, "W ends when frequencies of tokens are learned") == SHOWN
    assert of(own, "Pairs of tokens are learned after") == SHOWN
    assert of(own, "E ends when long n-grams are memorised") == NOT_SHOWN
    (section,) = [s for s in sections(PAGE, answers) if s.name == "memorisation"]
    assert section.table is not None
    # Long contexts that are still being learned at the end have no peak, and that is the reason.
    rising = runs.rows["detail"] == "∞-gram"
    rows = runs.rows.assign(value=runs.rows["value"].where(~rising, runs.rows["step"] / 100))
    answers = PhaseAnswers(replace(answers.data, runs=replace(runs, rows=rows)), draws=39)
    (claim,) = [c for c in claims(answers) if c.claim.startswith("E ends when long n-grams")]
    assert claim.outcome == OPEN
    assert "still rising" in claim.reason
    assert [row[1] for row in section.table.rows] == list(peaks)
    answers = PhaseAnswers(phase_data(run_folders(trained), "here"), draws=39)
    (section,) = [s for s in sections(PAGE, answers) if s.name == "ranks"]
    last = section.tables["ranks-steps"].sort_values("tokens").groupby(["cell", "seed", "of"])["value"].last()
    for cell in answers.data.cells:
        curve = answers.rankme(cell).trained
        change = np.log(curve.values[:, -1] / curve.values[:, 0])
        assert last[cell].groupby("seed").sum().to_numpy() == pytest.approx(change, abs=1e-6)


def test_looks_are_those_of_the_mean_and_times_those_of_each_seed():
    answers = planted({"rope": (BASE, WEC, {}, GATHERS)})
    curve = answers.rankme("rope")
    assert curve.values.shape == (3, 22)
    assert curve.tokens[0] == 0
    assert curve.trained.values.shape == (3, 21)
    least, most = answers.extremes("rope")
    assert least.end == pytest.approx(LOOKS[4], rel=0.3)
    assert most.end == pytest.approx(LOOKS[12], rel=0.3)
    assert least.low < least.value < least.high < most.low
    for time, row in zip(answers.minimum_times("rope"), curve.trained.values, strict=True):
        assert row[time == LOOKS] == row[:12].min()
    assert answers.spacing("rope", [LOOKS[5]]) == pytest.approx(LOOKS[1] / LOOKS[0])


def test_a_page_without_what_it_needs_says_so(tmp_path):
    answers = planted({"rope": (BASE, WEC, {}, GATHERS)})
    page = write_phases(answers, [tmp_path], tmp_path / "page", ["a note"])
    text = page.read_text()
    assert "a note" in text
    assert "nan" not in text.lower()
    assert lead(answers).startswith("rope: WEC (the published word, 3 seeds).")
    made = {s.name: s.text for s in sections(PAGE, answers)}
    assert "needs --measure.geometry" in made["without"]
    assert {"ramp", "width", "bias", "nulls"}.isdisjoint(made)
    assert {p.name for p in page.parent.iterdir()} >= {"words.svg", "phases.csv", "rankme.csv", "tables.md"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Tiny runs of two widths with a look at each of twelve steps."""
    out = tmp_path_factory.mktemp("phases") / "runs"
    measure = replace(MEASURE, every=12, geometry=True, gradient_sequences=0, bands=(), training_bands=0,
                      causal_sequences=0, schedules=("activations=1",))  # fmt: skip
    for width in (16, 24):
        for seed in range(3):
            config = replace(RUN, model=ModelConfig(width, 2, 1), seed=seed)
            assert not run_group([config], measure, out)
    return out


def run_cli(capsys, *arguments):
    code = cli.main(list(arguments))
    return code, capsys.readouterr()


def test_the_command_on_runs_that_are_there(trained, tmp_path, capsys, undrawn):
    code, streams = run_cli(capsys, "phases", str(trained), "--out", str(tmp_path / "page"))
    assert code == 0
    assert "what limits it" in streams.out
    assert "verdict" in streams.out
    assert (tmp_path / "page" / "index.html").exists()
    words = pd.read_csv(tmp_path / "page" / "words.csv")
    assert len(words) == 2 * 3 + 2
    # The wider one has as many directions as there are tokens.
    assert set(words["stage"]) == {"untied, d 16", "untied, d 24"}
    found = pd.read_csv(tmp_path / "page" / "claims.csv")
    assert set(found["outcome"]) <= set(VERDICTS)
    assert set(found.loc[found["claim"].str.startswith("Null runs"), "runs"]) == {"untied, d 24"}


def test_every_claim_names_its_null(trained):
    table = claim_table(claims(PhaseAnswers(phase_data(run_folders(trained), "here"), draws=39)))
    assert not table.isna().any().any()
    assert (table[["published", "against", "here", "reason"]] != "").all().all()
    assert set(table["outcome"]) <= set(VERDICTS)


def test_runs_of_one_set_that_differ_are_refused_and_others_are_left_out(trained, tmp_path):
    folders = run_folders(trained)
    again = phase_data([*folders, RunFolder(folders[0].path)], "here")
    assert "the same run as" in again.notes[0]
    assert len(again.runs.runs) == 6
    measure = replace(MEASURE, every=12, gradient_sequences=0, bands=(), training_bands=0, causal_sequences=0)
    plain = replace(RUN, model=ModelConfig(16, 2, 1), seed=5)
    assert not run_group([plain], measure, tmp_path / "plain")
    with pytest.raises(MeasureError, match="measured differently"):
        phase_data([*folders, *run_folders(tmp_path / "plain")], "here")
    other = replace(RUN, model=ModelConfig(16, 2, 1), seed=6, weight_decay=0.5)
    assert not run_group(
        [other], replace(measure, geometry=True, schedules=("activations=1",)), tmp_path / "other"
    )
    with pytest.raises(MeasureError, match="differ in weight_decay"):
        phase_data([*folders, *run_folders(tmp_path / "other")], "here")


def test_null_texts_are_told_by_the_digests_of_their_shards(tmp_path):
    text, null = tmp_path / "text", tmp_path / "null"
    for folder, record in ((text, {}), (null, {"null": {"kind": "shuffled", "seed": 0}})):
        folder.mkdir()
        (folder / "data.json").write_text(json.dumps({"shards": [{"sha256": folder.name}], **record}))
    texts = null_texts([text, null])
    settings = {}
    for seed, name in enumerate(("text", "null", "other")):
        folder = RunFolder(tmp_path / f"run-{seed}")
        config = LmConfig(
            "tiny", "rope", 257, 16, 4, 100, warmup=0.1, warmdown=0.2, data=name, logit_bias=name == "text"
        )
        folder.start(config, LmMeasureConfig(tokens=64, length=16, batch=16), {"shards": [{"sha256": name}]})
        settings[name] = setting_of(folder, texts)
    assert settings["null"].null == "shuffled text"
    assert settings["text"].null == settings["other"].null == ""
    assert settings["null"].is_null
    own = settings["text"]
    assert (own.kind, own.layers, own.width, own.vocabulary) == (LANGUAGE, 4, 64, 257)
    assert (own.warmup, own.warmdown, own.bias, own.states) == (10, 20, True, 64)
    with pytest.raises(MeasureError, match=r"has no data\.json"):
        null_texts([tmp_path])


def test_sets_that_differ_in_one_setting_differ_in_nothing_else(tmp_path):
    def rest(config, measure):
        folder = RunFolder(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        folder.start(config, measure, {})
        return setting_of(folder)

    text = LmConfig("tiny", "rope", 257, 16, 4, 100, warmup=0.1, warmdown=0.0, data="x")
    measure = LmMeasureConfig(tokens=64, length=16, batch=16)
    own = rest(text, measure)
    # What is told by another setting, or says nothing of the training.
    for change in ({"tier": "narrow8"}, {"warmup": 0.0}, {"logit_bias": True}, {"seed": 3}, {"eval_every": 7},
                   {"checkpoints": (0.0, 1.0)}, {"steps": 200}):  # fmt: skip
        assert rest(replace(text, **change), measure).rest == own.rest, change
    for change in ({"weight_decay": 0.5}, {"length": 32}, {"precision": "float32"}, {"newton_schulz": "exact"},
                   {"target_loss": 3.0}):  # fmt: skip
        assert rest(replace(text, **change), measure).rest != own.rest, change
    toy = rest(RUN, MEASURE)
    assert (
        rest(replace(RUN, model=replace(RUN.model, d_model=4 * RUN.model.d_model)), MEASURE).rest == toy.rest
    )
    for change in ({"beta2": 0.98}, {"clip": 1.0}, {"model": replace(RUN.model, mlp_ratio=3)},
                   {"task": replace(RUN.task, length=RUN.task.length + 1)}):  # fmt: skip
        assert rest(replace(RUN, **change), MEASURE).rest != toy.rest, change
    wide = rest(replace(text, tier="narrow8", weight_decay=0.5), measure)
    settings = {"a": own, "b": wide, "c": rest(replace(text, tier="narrow16"), measure)}
    empty = Runs(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), ())
    assert PhaseData(empty, settings, {}).alike("width") == [["c", "a"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-here"], "nothing-here"),
        (["runs", "--length", "64"], "only for checkpoints"),
        (["runs", "--data", "x", "--length", "1"], "--length is 1"),
        (["runs", "--data", "x", "--sequences", "2"], "--sequences is 2"),
        (["runs", "--data", "x", "--tokens-per-step", "0"], "--tokens-per-step is 0"),
    ],
)
def test_what_the_command_refuses(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, streams = run_cli(capsys, "phases", *arguments)
    assert code == 2
    assert message in streams.err
    assert not list(tmp_path.rglob("index.html"))


def checkpoints_of(folder, config, model, steps):
    """Store a model at some steps, moved between them."""
    torch.manual_seed(0)
    for step in steps:
        model.save_pretrained(folder / step)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter += 0.05 * torch.outer(
                        torch.randn(len(parameter)), torch.randn(parameter.shape[1])
                    )


def test_folders_of_public_checkpoints_on_a_text(tmp_path, capsys, undrawn):
    transformers = pytest.importorskip("transformers")
    shards = tmp_path / "shards"
    shards.mkdir()
    generator = np.random.default_rng(0)
    for split in ("train_000001", "val_000000"):
        write_shard(shards / f"text_{split}.bin", generator.integers(0, 64, 3_000))
    (shards / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": 64}}))
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32, "max_position_embeddings": 32}  # fmt: skip
    torch.manual_seed(0)
    pythia = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes))
    # Steps in no order: they are put into theirs.
    checkpoints_of(
        tmp_path / "pythia-seed2", None, pythia, [f"step{n}" for n in (0, 16, 1, 2, 4, 8, 32, 64, 128, 256)]
    )
    olmo = transformers.OlmoForCausalLM(transformers.OlmoConfig(**sizes, pad_token_id=0))
    checkpoints_of(tmp_path / "olmo", None, olmo, [f"step{1000 * n}-tokens{4 * n}B" for n in (1, 2, 5)])
    names = [str(tmp_path / name) for name in ("pythia-seed2", "olmo")]
    line = (
        "phases",
        *names,
        "--data",
        str(shards),
        "--length",
        "16",
        "--out",
        str(tmp_path / "page"),
        "--json",
    )
    code, streams = run_cli(capsys, *line)
    assert code == 0, streams.err
    found = json.loads(streams.out)
    folders = {f.path.name: f for f in run_folders(tmp_path / "page" / "checkpoints")}
    assert set(folders) == {"pythia-seed2", "olmo"}
    assert folders["pythia-seed2"].spec.seed == 2
    steps = folders["pythia-seed2"].rows().query("quantity == 'rankme' and site == 'final'")["step"]
    assert list(steps) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert any("Tokens of pythia-seed2 are steps" in note for note in found["notes"])
    tokens = folders["olmo"].rows().query("quantity == 'rankme' and site == 'final'")["tokens"]
    assert list(tokens) == [4e9, 8e9, 20e9]
    words = {w["set"]: w for w in found["words"] if w["of"] == "seeds"}
    # Nine looks are labelled, three are too few.
    assert words["pythia"]["status"] != "not fitted"
    assert words["olmo"]["status"] == "not fitted"
    # A second call reads what was measured.
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "page" / "checkpoints").rglob("*.parquet")}
    options = StateOptions(shards, length=16)
    measured_folders([tmp_path / "pythia-seed2", tmp_path / "olmo"], tmp_path / "page", options)
    assert kept == {p: p.stat().st_mtime_ns for p in (tmp_path / "page" / "checkpoints").rglob("*.parquet")}
    code, streams = run_cli(capsys, "phases", names[0])
    assert code == 2
    assert "whose states need a text" in streams.err
    # Another training run in a folder of one name is refused, before the first is measured.
    shutil.copytree(
        tmp_path / "olmo" / "step1000-tokens4B", tmp_path / "other" / "olmo" / "step1000-tokens4B"
    )
    shutil.copytree(tmp_path / "olmo", tmp_path / "olmo-base")
    with pytest.raises(MeasureError, match="have one name"):
        measured_folders(
            [tmp_path / name for name in ("olmo-base", "olmo", "other/olmo")], tmp_path / "new", options
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "stage", "seed"),
    [
        ("pythia-70m", "pythia-70m", None),
        ("pythia-70m-seed3", "pythia-70m", 3),
        ("pythia-70m_seed_12", "pythia-70m", 12),
        ("pythia-70m-deduped-seed1", "pythia-70m-deduped", 1),
        # Another model in the name of which a seed stands.
        ("pythia-seed2-v0", "pythia-seed2-v0", None),
    ],
)
def test_names_of_folders_tell_sets_and_seeds(name, stage, seed):
    found = checkpoint_metadata(name, "Hugging Face gpt_neox")
    assert (found.name, found.stage, found.seed) == (name, stage, seed)
    # Checkpoints of this package know their stage.
    assert checkpoint_metadata(name, WRITER).stage is None
