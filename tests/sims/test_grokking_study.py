"""The study of grokking: rules on looks with a known answer, its page, and the command on tiny runs."""

import json
import shutil
import time
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from grokking_looks import STEPS, run
from rich.console import Console

from sims import cli
from sims.analysis.alarms import GROKS
from sims.analysis.leads import LeadLaw
from sims.measure.accuracy import AccuracyObserver
from sims.runs.digests import FILES, OWN, sealed
from sims.runs.store import RunFolder, run_folders
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN
from sims.studies.grokking import page as grokking_page
from sims.studies.grokking.answers import CANDIDATES, DECIDED_AT, SIGNALS, Answers
from sims.studies.grokking.measured import COLUMNS, looks_of
from sims.studies.grokking.preset import (
    CONTROLS,
    MEANT,
    NETWORKS,
    control_of,
    grokking_configs,
    grokking_measurements,
)
from sims.studies.grokking.published import claims
from sims.studies.grokking.study import PAGE
from sims.studies.study import sections
from sims.sweep.estimate import looking
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from toymodel.config import ModelConfig, as_dict
from toymodel.intervention import Intervention
from toymodel.tasks.modular_arithmetic import ModularArithmetic


def looks(knows=("defect",), only_decay=("pc1",), each=9, seed=0):
    """Runs of three operations and all types of control.

    Signals of `knows` are larger in runs that grok, those of `only_decay` in all runs with weight decay; others are
    noise.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for kind in (MEANT, *CONTROLS):
        for i in range(each):
            late = float(generator.integers(28, 45) * 50) if kind == MEANT else None
            signals = {}
            for name in SIGNALS:
                high = (name in knows and kind == MEANT) or (name in only_decay and kind != CONTROLS[0])
                level = 1.5 * high + 0.3 * generator.standard_normal()
                values = level + 0.1 * generator.standard_normal(len(STEPS))
                signals[name] = np.exp(values) if SIGNALS[name].log else values
            parts.append(run(f"{kind} {i}", ("add", "mul", "x2+y2")[i % 3], kind, t_90=late, **signals))
    return pd.concat(parts, ignore_index=True).assign(seed=0)


@pytest.fixture(scope="module")
def answers():
    return Answers(looks(), draws=99, resamples=99)


@pytest.mark.slow
def test_a_signal_that_knows_is_shown_and_one_that_knows_of_decay_is_not(answers):
    outcome = {name: verdict.outcome for name, verdict in answers.verdicts.items()}
    assert outcome["defect"] == SHOWN
    assert outcome["pc1"] == OPEN
    assert all(name in answers.verdicts["pc1"].reason for name in CONTROLS[1:])
    assert CONTROLS[0] not in answers.verdicts["pc1"].reason
    assert [name for name, found in outcome.items() if found == SHOWN] == ["defect"]
    # It tells runs without decay apart all the same.
    at = answers.rocs[(answers.rocs["time"] == DECIDED_AT) & (answers.rocs["signal"] == "pc1")]
    assert at.set_index("control")["auc_others"][CONTROLS[0]] > 0.95


def test_few_runs_leave_every_question_open():
    found = Answers(looks(each=3), draws=99, resamples=99)
    assert {v.outcome for v in found.verdicts.values()} <= {OPEN, NOT_SHOWN}
    assert found.verdicts["defect"].outcome == OPEN
    assert "5 more" in found.verdicts["defect"].reason


def test_kinds_name_every_run(answers):
    assert answers.outcomes["kind"].value_counts().to_dict() == {GROKS: 9, **dict.fromkeys(CONTROLS, 9)}


@pytest.mark.slow
def test_a_control_that_generalises_is_compared_with_nothing():
    table = looks()
    name = f"{CONTROLS[3]} 0"
    table.loc[(table["run"] == name) & (table["step"] >= 1500), "test"] = 0.95
    found = Answers(table, draws=99, resamples=99)
    assert found.outcomes.set_index("run")["kind"][name] == f"{CONTROLS[3]}: groks"
    own = found.rocs[(found.rocs["control"] == CONTROLS[3]) & (found.rocs["time"] == DECIDED_AT)]
    assert set(own["negatives"] + own["left_out"]) <= {8, 9}


def test_claims_follow_the_alarm(answers):
    first, second, law, decline = claims(answers)
    assert decline.outcome == NOT_SHOWN
    assert first.here.startswith("0 of 9 runs")
    assert (first.outcome, second.outcome) == (NOT_SHOWN, NOT_SHOWN)
    assert "TP 0, FN 9, FP 0, TN 36" in second.here
    assert (law.outcome, law.here) == (OPEN, "0 runs have a lead, and a law needs 6")


def test_the_claim_on_leads_is_what_its_rule_decides(answers):
    """An exponent of a half, apart from those of trivial alarms, is a law; it is no faster growth."""
    law = LeadLaw(8, 0, 1.0, 0.5, 0.4, 0.6, 0.9, b_memorised=1.2, constant=100.0, b_constant=1.5)
    found = replace(answers)
    found.__dict__["laws"] = {"defect": law}
    claim = next(islice(claims(found), 2, None))
    assert claim.outcome == law.verdict.outcome == SHOWN
    assert claim.claim.startswith(law.verdict.claim)


@pytest.mark.slow
def test_signals_that_were_not_measured_are_left_out():
    found = Answers(looks().drop(columns=["defect", "g23"]), draws=99, resamples=99)
    assert set(found.candidates) == set(CANDIDATES) - {"defect", "g23"}
    assert list(claims(found)) == []
    made = {section.name: section for section in sections(PAGE, found)}
    assert "was not measured" in made["published"].text


def test_a_trivial_signal_needs_as_many_runs_as_the_others():
    def told(controls):
        row = {
            "time": DECIDED_AT,
            "signal": "train_loss",
            "direction": "larger",
            "status": "ok",
            "positives": 24,
        }
        row |= {"negatives": controls, "auc_others": 1.0, "others_low": 0.73, "others_high": 1.0}
        rocs = pd.DataFrame([{**row, "control": name} for name in (*CONTROLS, "all")])
        return list(
            grokking_page._trivial(SimpleNamespace(rocs=rocs, baselines=("train_loss", "weight_norm")))
        )

    assert told(controls=7) == []
    assert "training loss: smallest area 1.00, from 0.73" in told(controls=8)[0].text


def test_the_page_says_what_is_shown(answers, tmp_path, undrawn):
    page = grokking_page.write_grokking(answers, tmp_path, tmp_path / "page", ["a note"])
    text = page.read_text()
    for words in ("1 of 6 signals", "Commutator defect: shown", "a note", "Does anything warn"):
        assert words in text
    assert (tmp_path / "page" / "areas.csv").exists()
    console = Console(record=True, width=200)
    grokking_page.print_answers(answers, console)
    assert "commutator defect" in console.export_text()


def test_the_preset_has_eight_controls_of_each_type():
    configs = grokking_configs(range(4))
    counts = pd.Series([control_of(c) for c in configs]).value_counts()
    assert counts.to_dict() == {MEANT: 12, **dict.fromkeys(CONTROLS, 8)}
    assert len({c.run_id for c in configs}) == len(configs)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_all_types_of_control(network):
    configs, preset = grokking_configs([0], network), NETWORKS[network]
    assert {control_of(c) for c in configs} == {MEANT, *CONTROLS}
    assert len({c.run_id for c in configs}) == len(configs) == preset.settings
    assert {(c.steps, c.task.vocab, c.model.d_model) for c in configs} == {
        (preset.steps, preset.p, preset.width)
    }
    # Signals are read at times after memorisation, which accuracies and signals must be measured at.
    assert DECIDED_AT % preset.signals == 0
    assert preset.signals % preset.accuracy == 0
    grokking_measurements(network).check(configs[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of 60 steps, measured as the preset does but more often."""
    out = tmp_path_factory.mktemp("grokking")
    measuring = replace(
        grokking_measurements(),
        every=60,
        sequences=20,
        accuracy=5,
        updates=20,
        update_stride=2,
        defect=20,
        defect_pairs=2,
    )
    for config in grokking_configs([0])[:4:3]:
        small = replace(
            config, task=replace(config.task, p=11), model=ModelConfig(d_model=8), batch_size=16, steps=60
        )
        assert not run_group([small], measuring, out)
    return out


def test_every_column_is_read_from_the_rows_of_a_run(folder):
    table = looks_of(folder)
    assert set(COLUMNS) <= set(table)
    assert set(table["control"]) == {MEANT, CONTROLS[0]}
    assert table.groupby("run").size().tolist() == [13, 13]
    last = table[table["step"] == 60]
    assert np.isfinite(last[[c for c in COLUMNS if c != "decay_cosine"]].to_numpy(float)).all()
    # Without weight decay there is no part that it made.
    assert last.set_index("control")["decay_cosine"].isna().to_dict() == {MEANT: False, CONTROLS[0]: True}
    # Signals are read at their last look, and never counted twice by alarms.
    own = table[table["control"] == MEANT].set_index("step")["defect"]
    assert own.notna().to_dict() == {step: step % 20 == 0 for step in range(0, 61, 5)}
    kept = Answers(table).looks
    kept = np.exp(kept[kept["control"] == MEANT].set_index("step")["defect"])
    assert kept[45] == kept[55] == pytest.approx(own[40])


def test_a_signal_without_a_value_does_not_keep_an_older_one():
    """Measured at every second look; at one of them it is zero, which has no logarithm."""
    table = looks(each=3)
    looked = (table["step"] // 50) % 2 == 1
    table["defect"] = table["defect"].where(looked)
    table.loc[table["step"] == 350, "defect"] = 0.0
    kept = Answers(table).looks.set_index(["run", "step"])["defect"].unstack("step")
    assert kept[[50, 100, 250, 300, 450, 500]].notna().all(axis=None)
    assert kept[[350, 400]].isna().all(axis=None)
    assert (kept[300] == kept[250]).all()


def test_the_command_reads_runs_and_answers_in_json(folder, tmp_path, capsys, undrawn):
    assert cli.main(["grokking", "--runs", str(folder), "--out", str(tmp_path / "page"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["outcome"] for row in found["outcomes"]] == ["does not grok"] * 2
    assert {row["outcome"] for row in found["verdicts"]} == {OPEN}
    assert (tmp_path / "page" / "index.html").exists()


def test_a_run_that_diverged_is_no_control(tmp_path):
    config = grokking_configs([0])[3]
    small = replace(
        config, task=replace(config.task, p=11), model=ModelConfig(d_model=8), batch_size=16, steps=60
    )
    broken = replace(small, lr=1e30, clip=None, eval_every=20)
    measuring = replace(
        grokking_measurements(), every=60, sequences=20, accuracy=1, updates=0, update_decay=False, defect=0
    )
    assert not run_group([broken], measuring, tmp_path)
    found = Answers(looks_of(tmp_path)).outcomes
    assert found["outcome"].tolist() == ["diverged"]
    assert found["kind"].tolist() == [f"{CONTROLS[0]}: diverged"]


def _copied(folder, out):
    """Return a copy of a folder of runs."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("page"))
    return out, next(f.path for f in run_folders(out) if control_of(f.spec) == MEANT)


def _sealed(path, **outcome):
    """Give a run another outcome, and the digests of its files."""
    done = json.loads((path / "done.json").read_text())
    kept = {key: value for key, value in done.items() if key not in (FILES, OWN)}
    (path / "done.json").write_text(json.dumps(sealed(path, kept | outcome)))


def test_a_copy_of_a_run_does_not_count_and_a_pruned_one_is_no_control(folder, tmp_path):
    out, path = _copied(folder, tmp_path / "runs")
    shutil.copytree(path, out / "again")
    assert looks_of(out)["run"].nunique() == 2
    shutil.rmtree(out / "again")
    _sealed(path, ended="pruned")
    assert path.name not in set(looks_of(out)["run"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"task": ModularArithmetic(p=13)}, "task"),
        ({"task": ModularArithmetic(p=13, op="mul")}, "task"),
        ({"intervention": Intervention("decay", 10, None)}, "intervention"),
        ({"lr": 0.01, "weight_decay": 0.5}, "lr"),
    ],
)
def test_runs_of_several_settings_are_no_seeds_of_one(folder, tmp_path, change, named):
    """Another modulus, a run that was changed on purpose, another learning rate."""
    out, path = _copied(folder, tmp_path / "runs")
    other = replace(RunFolder(path).spec, seed=1, **change)
    changed = shutil.copytree(path, out / other.run_id)
    identity = json.loads((path / "run.json").read_text())
    (changed / "run.json").write_text(json.dumps(identity | {"train": as_dict(other)}))
    _sealed(changed)
    with pytest.raises(MeasureError, match=f"differ in .*{named}.*another folder"):
        looks_of(out)


def test_runs_of_another_kind_are_refused(tmp_path, folder, capsys):
    with pytest.raises(MeasureError, match="no complete run of modular_arithmetic"):
        looks_of(tmp_path)
    assert cli.main(["grokking", "--runs", str(folder), "--seeds", "2"]) == 2
    assert "leave out --seeds" in capsys.readouterr().err


def test_the_time_that_is_told_counts_what_is_measured_between_steps(monkeypatch):
    (config,) = grokking_configs([0])[:1]
    small = replace(
        config, task=replace(config.task, p=11), model=ModelConfig(d_model=8), batch_size=16, steps=500
    )
    measuring = replace(
        grokking_measurements(), every=500, sequences=20, updates=0, update_decay=False, defect=0
    )
    looked = []

    def look(observer, view):
        looked.append(view.step)
        time.sleep(0.005)

    monkeypatch.setattr(AccuracyObserver, "look", look)
    # A look keeps the weights of the step before it too: 2 of 25 steps.
    assert looking([small] * 3, measuring, "cpu") >= 3 * 2 * 20 * 0.005
    assert looked == [24, 25]
