"""A stored checkpoint without numbers is named by every study that measures again, and the others are measured."""

import shutil

import pytest
import torch
from rich.console import Console

from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors, write_tensors
from sims.studies.bands.measured import BandPlan, band_report, measure_bands
from sims.studies.lifecycle.sources import sources
from sims.studies.robustness.measured import RobustnessPlan, robustness_report
from sims.studies.stored import chosen_runs, run_notes
from sims.studies.theory.checkpoint_tables import gather
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from toymodel import TaskConfig

TASK = TaskConfig(vocab=80, length=8, train=2_000, val=64, test=16)
QUIET = Console(quiet=True)


def spoil(folder, file):
    config, _ = RunFolder(folder).configs()
    step, tensors = load_tensors(file, config)
    tensors = dict(tensors)
    tensors["blocks.0.mlp.fc"] = tensors["blocks.0.mlp.fc"].clone()
    tensors["blocks.0.mlp.fc"].view(-1)[3] = torch.nan
    write_tensors(file, config, step, tensors)


@pytest.fixture
def runs(tmp_path, tiny_run, tiny_measure):
    """Two stages of three seeds; the last checkpoint of one run has a NaN."""
    measure = tiny_measure(gradient_sequences=0, causal_sequences=0, training_bands=0)
    for stage in ("rope", "untied"):
        for seed in range(3):
            assert not run_group([tiny_run(stage=stage, seed=seed, task=TASK)], measure, tmp_path)
    (folder,) = tmp_path.glob("untied-*-s1-*")
    spoil(folder, RunFolder(folder).checkpoints()[-1])
    return tmp_path


def named():
    return pytest.warns(
        UserWarning, match=r"step-000000012\.safetensors: blocks\.0\.mlp\.fc has 1 NaN of 512; the run"
    )


@pytest.mark.slow
def test_studies_name_it_and_go_on(runs):
    plan = BandPlan(bands=4, positions=(0,), fractions=(0.5, 1.0), mixed_per_state=8)
    with named():
        report = band_report(runs, plan, QUIET)
    found = report.measured.groupby(["stage", "seed"])["step"].unique().map(sorted)
    assert found["untied", 1] == [6]
    assert all(steps == [6, 12] for run, steps in found.items() if run != ("untied", 1))
    assert not report.tables["summary"].empty
    with named():
        report = robustness_report(
            runs, RobustnessPlan(sequences=64, fewer=(32,), window=(2, 6), windows=()), QUIET
        )
    values = report.tables["values"]
    assert set(values["unit"]) == {0, 2}
    with named():
        tables = gather(runs, QUIET)
    spoilt = tables.bounds[(tables.bounds["stage"] == "untied") & (tables.bounds["seed"] == 1)]
    assert 12 not in set(spoilt["step"])
    assert {0, 6} <= set(spoilt["step"])


@pytest.mark.filterwarnings("ignore")
def test_where_none_is_left_it_is_said(runs):
    for folder in runs.glob("untied-*"):
        files = RunFolder(folder).checkpoints()
        for file in files:
            spoil(folder, file)
    with pytest.raises(MeasureError, match=r"have 1 stage\(s\) \(rope\); a conclusion compares at least two"):
        robustness_report(runs, RobustnessPlan(sequences=64, fewer=(32,), window=(2, 6), windows=()), QUIET)
    for folder in runs.glob("rope-*"):
        for file in RunFolder(folder).checkpoints():
            spoil(folder, file)
    with pytest.raises(MeasureError, match=r"no checkpoint of .* has finite weights"):
        measure_bands(runs, BandPlan(bands=4, positions=(0,), mixed_per_state=8), QUIET)


def test_a_run_that_diverged_is_compared_with_nothing_and_named(tmp_path, tiny_run, tiny_measure):
    """Its last checkpoint, and its last look, are of an early step; the others would be cut to it."""
    good, bad = tiny_run(stage="rope", task=TASK), tiny_run(stage="rope", task=TASK, seed=1, lr=2e38)
    measure = tiny_measure(gradient_sequences=0, causal_sequences=0, training_bands=0)
    assert not run_group([good, bad], measure, tmp_path)
    assert RunFolder(tmp_path / bad.run_id).checkpoints()
    assert [config for _, config in chosen_runs(tmp_path, None)] == [good]
    assert [source.spec for source in sources([tmp_path], tmp_path, QUIET)] == [good]
    (note,) = run_notes(tmp_path)
    assert note == f"Diverged or pruned, and compared with nothing: {bad.run_id} (diverged)."
    shutil.rmtree(tmp_path / good.run_id)
    with pytest.raises(
        MeasureError, match=r"no complete run with checkpoints that ended regularly \(1 other\)"
    ):
        chosen_runs(tmp_path, None)
