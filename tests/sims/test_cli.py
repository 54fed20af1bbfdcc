"""The command line as a user meets it."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest

from sims import cli
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder, run_folders
from sims.sweep import demo as demo_experiment
from sims.sweep.estimate import looks
from sims.sweep.plan import plan
from toymodel import TaskConfig
from toymodel.config import ModelConfig
from toymodel.errors import ConfigError
from toymodel.stages import STAGES

OPTIONS = {
    "--task.vocab": "24",
    "--task.length": "8",
    "--task.train": "400",
    "--task.val": "64",
    "--model.d-model": "16",
    "--model.heads": "2",
    "--steps": "12",
    "--eval-every": "3",
    "--eval-size": "32",
    "--batch-size": "8",
    "--measure.every": "6",
    "--measure.sequences": "64",
    "--measure.windows": "1 10",
    "--measure.bands": "17 5",
    "--measure.training-bands": "0",
    "--measure.probe-sequences": "240",
    "--measure.causal-sequences": "16",
    "--workers": "2",
}
TINY = ["train", "small", *(word for name, value in OPTIONS.items() for word in (name, *value.split()))]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    assert cli.main([*TINY, "--seeds", "0", "1", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_train_ends_with_a_self_contained_report(folder):
    assert len(run_folders(folder)) == 2
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 6
    # Nothing is fetched: no script, no style sheet, no image; links that a reader follows are not loaded.
    loaded = re.sub(r'<a [^>]*href="https://[^"]*"', "<a", page)
    assert not re.search(
        r"<script|<link|<img|src=|https?://(?!www\.w3\.org|purl\.org|creativecommons\.org)", loaded
    )
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for used in re.findall(r'href="#([^"]+)"', page):
        assert used in ids


@pytest.mark.slow
def test_every_run_holds_a_file_that_makes_it_again_and_is_read_without_it(folder, tmp_path, capsys):
    first = run_folders(folder)[0]
    for given in (first.path / "config.yaml", first.path):
        again = cli.parse(["train", "published", "--config", str(given)]).preset
        assert (again.run, again.measure) == first.configs()
    run = tmp_path / "runs" / first.path.name
    shutil.copytree(first.path, run)
    (run / "config.yaml").unlink()
    assert cli.main(["ls", str(run.parent), "--verify"]) == 0
    assert "\tdone\t" in capsys.readouterr().out
    assert cli.parse(["train", "small", "--config", str(run)]).preset.run == first.configs()[0]
    (run / "run.json").write_bytes((first.path / "run.json").read_bytes().replace(b"12", b"13"))
    assert cli.main(["train", "small", "--config", str(run)]) == 2
    assert "it was damaged or edited" in capsys.readouterr().err


def test_evaluations_and_measurements_of_a_plan_are_those_of_the_run(folder):
    run = run_folders(folder)[0]
    rows, (config, measuring) = run.rows(), run.configs()
    found = (rows["quantity"] == "val_loss").sum(), rows.loc[rows["quantity"] == "rankme", "step"].nunique()
    assert looks(config, measuring) == found == (5, 3)


@pytest.mark.slow
def test_a_report_is_the_same_file_each_time(folder):
    before = (folder / "report.html").read_bytes()
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-m", "sims.cli", "report", str(folder)], check=True, env=environment)
    assert (folder / "report.html").read_bytes() == before


def test_the_same_command_does_nothing_twice(folder, tmp_path, undrawn, capsys):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("rows.parquet")}
    assert cli.main([*TINY, "--seeds", "0", "1", "--out", str(copy)]) == 0
    assert "2 of 2 runs are already complete" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("rows.parquet")} == before


def test_runs_that_differ_in_more_than_a_report_compares_stand_side_by_side(folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "report.html").unlink()
    grid = ["--stages", "untied", "--batch-sizes", "8", "--seeds", "0", "--vary", "task.noise=0.3,0.5"]
    swept = [
        "sweep",
        "small",
        *(w for n, v in OPTIONS.items() if n != "--batch-size" for w in (n, *v.split())),
        *grid,
    ]
    for command, out in (([*TINY, "--task.noise", "0.3"], copy), (swept, tmp_path / "swept")):
        assert cli.main([*command, "--out", str(out)]) == 0
        told = capsys.readouterr().out
        assert "no report: these runs also differ in task.noise" in told
        assert "0.3" in told
        assert not (out / "report.html").exists()


def test_trackers_follow_the_runs_of_train(tmp_path, undrawn):
    pytest.importorskip("tensorboard", reason="the tracker needs the extra tensorboard")
    assert cli.main([*TINY, "--workers", "1", "--track", "tensorboard", "--out", str(tmp_path)]) == 0
    assert list((tmp_path / "trackers" / "tensorboard").rglob("events.*"))


def test_a_language_model_is_not_measured_as_a_toy(tmp_path, capsys):
    (tmp_path / "run.json").write_text('{"format": 2, "kind": "text", "train": {}, "measure": {}}')
    assert cli.main(["measure", str(tmp_path)]) == 2
    assert "`speclens measure --data" in capsys.readouterr().err


def test_measure_again(folder, capsys):
    run = run_folders(folder)[0].path
    options = ["--measure.pooling", "token", "--measure.sequences", "16", "--measure.windows", "1", "10"]
    options += [
        "--measure.bands",
        "17",
        "5",
        "--measure.training-bands",
        "0",
        "--measure.probe-sequences",
        "240",
    ]
    options += ["--measure.causal-sequences", "0", "--measure.gradient-sequences", "0"]
    assert cli.main(["measure", str(run), *options]) == 0
    assert "rankme" in capsys.readouterr().out
    assert len(list(run.glob("measured-*/rows.parquet"))) == 1


def test_report_again(folder, tmp_path, undrawn, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "report.html").unlink()
    assert cli.main(["report", str(copy)]) == 0
    assert (copy / "report.html").exists()
    assert "final loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TINY, "--stage", "ropes"], "the stages are baseline, rope, muon, untied"),
        ([*TINY, "--batch-size", "401"], "400 training sequences"),
        ([*TINY, "--measure.windows", "1", "40"], "does not fit"),
        ([*TINY, "--measure.bands", "97", "200"], "vocabulary of 24"),
        (["report", "/nowhere"], "/nowhere does not exist; give a folder of runs"),
        (["measure", "/nowhere"], "does not exist"),
        (["demo", "--seeds", "0"], "--seeds is 0"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("speclens: ")
    assert len(error.strip().splitlines()) == 1
    assert not any(tmp_path.rglob("run.json"))


def test_a_folder_of_another_campaign_is_refused(folder, capsys):
    assert cli.main(["demo", "--out", str(folder)]) == 2
    assert "another campaign" in capsys.readouterr().err


def test_two_drivers_do_not_share_a_folder(tmp_path, capsys):
    from sims.sweep.lease import driving

    with driving(tmp_path):
        assert cli.main([*TINY, "--out", str(tmp_path)]) == 2
    assert "is already working in" in capsys.readouterr().err


def test_a_truncated_checkpoint_is_named(folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    run = run_folders(copy)[0]
    checkpoint = run.checkpoints()[1]
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    options = ["--measure.bands", "17", "5", "--measure.sequences", "64", "--measure.windows", "1", "10"]
    options += [
        "--measure.training-bands",
        "0",
        "--measure.probe-sequences",
        "240",
        "--measure.causal-sequences",
        "0",
    ]
    assert cli.main(["measure", str(run.path), *options]) == 2
    assert "truncated or damaged" in capsys.readouterr().err


def test_a_failing_run_is_named_and_the_others_finish(folder, tmp_path, undrawn, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    broken = run_folders(copy)[0]
    (broken.path / "done.json").unlink()
    (broken.path / "state.safetensors").write_bytes(b"not a state")
    assert cli.main([*TINY, "--seeds", "0", "1", "2", "--out", str(copy)]) == 1
    shown = capsys.readouterr().out
    assert "failed: " in shown
    assert "truncated or damaged" in shown
    assert sum(f.done for f in run_folders(copy)) == 2
    assert "1 run is not complete" in shown


def test_interrupt_says_how_to_go_on_and_loses_nothing(tmp_path):
    # Long enough that the interrupt falls into training on any machine; the second call ends early by target.
    long = [a if a != "12" else "100000" for a in TINY]
    command = [sys.executable, "-m", "sims.cli", *long, "--out", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("*/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on" in error
    assert "Traceback" not in error
    (run,) = run_folders(tmp_path)
    assert not run.done
    assert not list(run.path.glob("*.parquet"))
    assert RunFolder(run.path).configs()[0].steps == 100000
    made = json.loads((run.path / "provenance.json").read_text())
    assert made["command"] == shlex.join(["speclens", *command[3:]])


@pytest.mark.parametrize(
    "command", ["", "demo", "train", "train small", "measure", "report", "theory", "bench"]
)
def test_every_command_has_help_with_examples(command, capsys):
    command = command.split()
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "speclens" in shown
    if len(command) == 1:
        assert "Examples:" in shown


def test_demo_end_to_end_at_a_tiny_size(tmp_path, monkeypatch, all_undrawn, capsys):
    tiny = replace(
        demo_experiment.SMALL,
        task=TaskConfig(vocab=24, length=8, train=300, val=64, test=16),
        model=ModelConfig(d_model=16, heads=2, layers=1),
        eval_size=24,
    )
    monkeypatch.setattr(demo_experiment, "SMALL", tiny)
    monkeypatch.setattr(demo_experiment, "BATCH_SIZE", 4)
    monkeypatch.setattr(demo_experiment, "STEPS", 30)
    small = MeasureConfig(
        every=6,
        sequences=64,
        windows=((1, 10),),
        gradient_sequences=8,
        bands=((17, 5),),
        training_bands=0,
        probe_sequences=240,
        causal_sequences=16,
    )
    monkeypatch.setattr("sims.sweep.demo.demo_measurements", lambda: small)
    monkeypatch.setattr("sims.sweep.demo.EVALUATION", 24)
    line = ["demo", "--out", str(tmp_path / "demo"), "--seeds", "3", "--workers", "2"]
    assert cli.main([*line, "--dry-run"]) == 0
    assert "12 runs take about " in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert cli.main(line) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("12 runs take about ")
    assert all(stage in shown for stage in ("baseline", "rope", "muon", "untied"))
    assert re.search(r"comparisons are decided \((2 to )?3 seeds\)", " ".join(shown.split()))
    assert len(run_folders(tmp_path / "demo")) == 12
    assert (tmp_path / "demo" / "report.html").stat().st_size > 50_000
    # The same command goes on, with more seeds as well; a folder of another preset is refused before any work.
    with all_undrawn():
        assert cli.main([*line[:4], "4", *line[5:]]) == 0
    assert "12 of 16 runs are already complete" in capsys.readouterr().out
    monkeypatch.setattr(demo_experiment, "LABEL", {"campaign": "demo"})
    assert cli.main(line) == 2
    told = capsys.readouterr().err
    assert "preset" in told
    assert "choose another --out" in told


def test_the_plan_groups_by_shape_and_starts_with_the_longest():
    other = [replace(config, batch_size=128) for config in demo_experiment.demo_configs((0, 1, 2))]
    configs = [*demo_experiment.demo_configs((0, 1, 2)), *other]
    groups = plan(configs, "cuda")
    assert sum(len(g) for g in groups) == len(configs) == 24
    assert all(len({(c.stage, c.batch_size) for c in g}) == 1 for g in groups)
    assert all(len(g) == 1 for g in plan(configs, "cpu"))
    assert groups[0][0].batch_size == 128
    assert plan([*configs, *configs], "cuda") == groups


def test_the_demo_has_the_seeds_that_its_statements_need():
    configs = demo_experiment.demo_configs(range(demo_experiment.SEEDS))
    seeds = {name: [c.seed for c in configs if c.stage == name] for name in STAGES}
    assert all(own == list(range(8)) for own in seeds.values())
    # Those on which the preset was chosen are not among them.
    assert not {100, 101, 102, 103} & {c.seed for c in configs}
    measuring = demo_experiment.demo_measurements()
    for config in configs:
        measuring.check(config)
        assert measuring.every % config.eval_every == 0
    with pytest.raises(ConfigError):
        demo_experiment.demo_config("unknown", 0)


def test_measuring_again_keeps_the_settings_of_the_run_but_for_those_named(folder, tmp_path, capsys):
    path = run_folders(folder)[0].path
    run = shutil.copytree(path, tmp_path / "run", ignore=shutil.ignore_patterns("measured-*"))
    assert cli.main(["measure", str(run), "--measure.gradient-sequences", "8"]) == 0
    (again,) = run.glob("measured-*")
    before = json.loads((run / "run.json").read_text())["measure"]
    after = json.loads((again / "measure.json").read_text())
    assert {name for name in {**before, **after} if before.get(name) != after.get(name)} == {
        "gradient_sequences"
    }
    shutil.rmtree(again)
    assert cli.main(["measure", str(run)]) == 0
    (again,) = run.glob("measured-*")
    rows, own = pd.read_parquet(again / "rows.parquet"), RunFolder(run).rows()
    losses = [t[t["quantity"] == "val_loss"].set_index("step")["value"] for t in (rows, own)]
    assert set(rows["band"]) == set(own["band"])
    assert losses[0].to_numpy() == pytest.approx(losses[1].loc[losses[0].index].to_numpy(), rel=1e-5)
