"""Commands that train other tasks than modular walks: options, files of options, runs, listing and report."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import RUN as WALKS

from sims import cli
from sims.analysis.runs import load
from sims.runs.config_file import CONFIG, config_text
from sims.runs.folders import listing
from sims.runs.lm_config import LmConfig
from sims.runs.measure_config import MeasureConfig, for_task
from sims.sweep.estimate import estimate
from sims.sweep.grid import Grid
from sims.sweep.presets import SMALL_MEASURE
from sims.training.toy_runner import run_group
from toymodel import ModularArithmetic, TaskConfig
from toymodel.errors import ConfigError

ARITHMETIC = "--task.kind modular_arithmetic"
TASK = ModularArithmetic(p=11)
RUN = replace(WALKS, stage="baseline", task=TASK, eval_size=None, clip=1.0, beta2=0.98, weight_decay=1.0)
MEASURE = MeasureConfig(
    every=6, sequences=60, windows=((1, 10),), gradient_sequences=0, bands=(), training_bands=0, updates=6
)


def typed(line):
    return cli.parse(line.split()).preset


@pytest.mark.parametrize("preset", ["train small", "train published", "sweep small", "sweep published"])
def test_a_preset_starts_from_the_chosen_task(preset):
    made = typed(f"{preset} {ARITHMETIC} --task.p 47 --task.labels random --measure.every 7")
    usual = typed(f"{preset} --measure.every 7")
    assert made.run == replace(usual.run, task=ModularArithmetic(p=47, labels="random"), eval_size=None)
    assert made.measure == replace(
        usual.measure, bands=(), training_bands=0, gradient_sequences=0, sequences=256
    )
    assert typed(f"{preset} --task.kind modular_walks") == typed(preset)


def test_measurements_of_modular_walks_stay():
    assert for_task(SMALL_MEASURE, TaskConfig()) is SMALL_MEASURE


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--task.kind sums", "--task.kind is 'sums'; the tasks are modular_walks, modular_arithmetic"),
        ("--task.kind", "--task.kind is ''"),
        (f"{ARITHMETIC} --task.vocab 5", "has no option --task.vocab"),
        (f"{ARITHMETIC} --task.train 5", "has no option --task.train"),
        ("--task.p 5", "has no option --task.p"),
        (f"{ARITHMETIC} --task.p 9", "p is 9; pass a prime number"),
        (f"{ARITHMETIC} --task.op div", "task.op is 'div'; it takes one of add"),
    ],
)
def test_what_a_task_does_not_have_is_refused(line, message, capsys):
    assert cli.main(["train", "small", *line.split()]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_help_lists_the_settings_of_the_task_and_nothing_that_it_computes(capsys):
    with pytest.raises(SystemExit):
        cli.parse(f"train small {ARITHMETIC} --help".split())
    shown = capsys.readouterr().out
    assert "--task.p INT" in shown
    assert "--task.labels {true,random}" in shown
    assert not any(f"--task.{name}" in shown for name in ("vocab", "length", "train", "val", "test "))


tasks = st.builds(
    ModularArithmetic,
    p=st.sampled_from([5, 7, 11]),
    op=st.sampled_from(["add", "sub", "mul", "x2+y2", "x2+xy+y2", "x3+xy"]),
    fraction=st.floats(0.3, 0.7),
    labels=st.sampled_from(["true", "random"]),
    seed=st.integers(0, 2**63 - 1),
)


@settings(max_examples=5, deadline=None)
@given(
    tasks, st.none() | st.floats(0, 0.5, width=32, allow_subnormal=False), st.none() | st.floats(1e-3, 1e3)
)
def test_a_file_of_options_names_its_task(tmp_path_factory, task, beta2, clip):
    run = replace(RUN, task=task, batch_size=4, beta2=beta2, clip=clip)
    file = tmp_path_factory.getbasetemp() / "arithmetic.yaml"
    file.write_text(config_text(run, MEASURE) or "", encoding="utf-8")
    made = typed(f"train small --config {file}")
    assert (made.run, made.measure, made.run.run_id) == (run, MEASURE, run.run_id)


@pytest.mark.slow
def test_a_run_is_paused_listed_continued_and_reported(tmp_path, capsys):
    runs = [RUN, replace(RUN, seed=1)]
    assert run_group(runs, MEASURE, tmp_path, until=6) == {}
    table = listing(tmp_path)
    assert list(table["status"]) == ["waiting"] * 2
    assert list(table["tokens"]) == [6 * RUN.batch_size * 2] * 2
    assert run_group(runs, MEASURE, tmp_path) == {}
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "report: " in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()
    # Another folder, from the file of the first.
    file = tmp_path / runs[0].run_id / CONFIG
    line = f"train published --config {file} --out {tmp_path / 'again'} --workers 1"
    assert cli.main(line.split()) == 0
    first, again = (f / runs[0].run_id / "rows.parquet" for f in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.slow
def test_a_run_of_the_small_network_is_measured_reported_and_read_back(tmp_path, capsys):
    line = f"train small {ARITHMETIC} --task.p 23 --stage mlp --steps 12 --batch-size 64 --eval-every 6 --workers 1"
    line += " --measure.every 6 --measure.updates 11 --measure.update-groups all trunk"
    line += " --measure.accuracy 3 --measure.defect 6 --measure.defect-pairs 1"
    line += f" --measure.sites embed hidden final --seeds 0 1 --out {tmp_path}"
    assert cli.main(line.split()) == 0
    assert "report: " in capsys.readouterr().out
    rows = load(tmp_path).rows
    last = rows[rows["step"] == 12]
    assert set(last["site"][last["object"] == "weight"]) == {"embed", "first", "second", "head"}
    assert set(last["site"][last["object"] == "activation"]) == {"embed", "hidden", "final"}
    updates = rows[rows["object"] == "update"]
    assert set(updates["site"]) >= {"all", "trunk"}
    assert np.isfinite(updates["value"]).all()
    assert np.isfinite(rows["value"][rows["status"] == "ok"]).all()
    assert (rows["status"] == "ok").mean() > 0.5
    run = next(tmp_path.glob("mlp-*"))
    assert cli.main(["look", str(run), "--out", str(tmp_path / "look")]) == 0
    # Measurements between steps are left out, unless they are asked for.
    assert cli.main(["measure", str(run)]) == 0
    assert cli.main(["measure", str(run), "--measure.accuracy", "3"]) == 2
    assert "accuracy can be measured only between the steps of a training run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("dyck_depth --task.pairs 5 --task.val 70", marks=pytest.mark.slow),
        pytest.param("scan --task.train 100", marks=pytest.mark.slow),
        "shuffled_walks --task.vocab 32 --task.train 200 --task.val 70 --task.length 8",
    ],
)
def test_tasks_of_sequences_are_trained_measured_and_reported(tmp_path, capsys, task):
    line = f"train small --task.kind {task} --steps 4 --batch-size 16 --eval-every 2 --measure.every 4 --workers 1"
    line += f" --model.d-model 16 --model.heads 2 --measure.sequences 64 --out {tmp_path}"
    assert cli.main(line.split()) == 0
    assert "report: " in capsys.readouterr().out
    rows = load(tmp_path).rows
    assert {"loss", "activation", "weight"} <= set(rows["object"])
    assert np.isfinite(rows["value"][rows["status"] == "ok"]).all()
    assert list(listing(tmp_path)["status"]) == ["done"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--stage mlp",
            "stage mlp predicts the last target of a sequence only, and modular_walks counts others",
        ),
        (
            f"{ARITHMETIC} --task.p 23 --stage mlp --measure.sites blocks.0",
            "this model has embed, hidden, final",
        ),
        (
            f"{ARITHMETIC} --task.p 23 --stage mlp --measure.updates 50 --measure.update-groups attention",
            "update_groups has 'attention', and stage mlp has no such parameters",
        ),
        (
            f"{ARITHMETIC} --task.p 23 --stage mlp --measure.pooling mean",
            "stage mlp has one state a sequence",
        ),
    ],
)
def test_what_the_small_network_cannot_do_is_refused_before_it_trains(tmp_path, capsys, line, message):
    assert cli.main(["train", "small", *line.split(), "--out", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--task.kind dyck_depth --task.pairs 2 --task.train 500",
            "strings outside training; raise pairs or lower train",
        ),
        (f"{ARITHMETIC} --measure.predictive 256", "the exact law is that of modular_walks only"),
        (f"{ARITHMETIC} --measure.positions", "the exact law is that of modular_walks only"),
        (f"{ARITHMETIC} --measure.gradient-sequences 8", "set measure.gradient_sequences to 0"),
        (
            "--task.kind shuffled_walks --measure.predictive 256",
            "the exact law is that of modular_walks only",
        ),
        ("--task.kind shuffled_walks --task.vocab 3", "vocab is 3 but the smallest modulus is 5"),
    ],
)
def test_what_a_task_does_not_allow_is_refused_before_a_folder_is_made(tmp_path, capsys, line, message):
    assert cli.main(["train", "small", *line.split(), "--out", str(tmp_path / "runs")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_analyses_of_modular_walks_refuse_runs_of_other_tasks(tmp_path, capsys):
    steps, measuring = replace(RUN, steps=6, eval_every=6), replace(MEASURE, updates=0)
    runs = [replace(steps, stage=name, seed=seed) for name in ("baseline", "rope") for seed in (0, 1)]
    assert run_group(runs, measuring, tmp_path) == {}
    for command, message in (
        ("theory --against", "has the task modular_arithmetic and stage baseline; the claims are about"),
        ("robustness", "the loss of the task modular_arithmetic does not count every target"),
        ("bands", "bands (c, o) exist for modular_walks only"),
    ):
        assert cli.main([*command.split(), str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
    other = tmp_path / "other"
    assert run_group([replace(steps, stage="mlp")], measuring, other) == {}
    assert cli.main(["theory", "--against", str(other)]) == 2
    assert "and stage mlp; the claims are about transformers of the chain" in capsys.readouterr().err


def test_runs_with_and_without_a_setting_differ_in_it(tmp_path):
    steps, measuring = replace(RUN, steps=6, eval_every=6, clip=None), replace(MEASURE, updates=0)
    # Other seeds, so that the setting alone tells them apart.
    others = [replace(steps, seed=2, clip=0.1), replace(steps, seed=3, weight_decay=None)]
    assert run_group([steps], measuring, tmp_path) == {}
    for other in others:
        assert run_group([other], measuring, tmp_path) == {}
    assert set(load(tmp_path).differing) == {"clip", "weight_decay"}


def test_language_models_are_transformers():
    with pytest.raises(ConfigError, match="stage mlp is no transformer; language models take baseline, rope"):
        LmConfig("tiny", "mlp", 50_257, 16, 4, 10, 1e-3)


def test_a_sweep_varies_settings_of_a_task_and_is_estimated():
    base = typed(f"sweep small {ARITHMETIC} --task.p 11 --steps 20").run
    grid = Grid(base, ["baseline"], [16], [0], {}, lrs=[1e-3], vary={"task.op": ["add", "mul"]})
    configs = grid.configs()
    assert [c.task.op for c in configs] == ["add", "mul"]
    assert estimate([configs[:1], configs[1:]], "cpu").timed == 2
    with pytest.raises(ConfigError, match="has no field 'vocab'; it has p, op, fraction, labels, seed"):
        Grid(base, ["baseline"], [16], [0], {}, lrs=[1e-3], vary={"task.vocab": ["7"]}).configs()
