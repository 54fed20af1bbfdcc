"""Runs of a stage that are missing, of other data, or ended elsewhere are told, and change no number of the others."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sims.studies.bands import measured as bands
from sims.studies.bands import tables
from sims.studies.bands.sections import concentrated
from sims.studies.lifecycle.sections import film
from sims.studies.markov import measured as markov
from sims.system.errors import MeasureError
from toymodel import TaskConfig
from toymodel.config import RunConfig

STAGES, SEEDS = ("rope", "muon", "untied"), (0, 1, 2)


def run(stage="rope", seed=0, step=100, task_seed=0):
    config = RunConfig(stage, task=TaskConfig(seed=task_seed), seed=seed, steps=100)
    return SimpleNamespace(path=Path(f"{stage}-{seed}-{task_seed}"), outcome={"step": step}), config


def asked(study, runs, monkeypatch):
    monkeypatch.setattr(study, "chosen_runs", lambda *_: runs)
    if study is bands:
        bands.band_report(Path("nowhere"), bands.BandPlan(), Console())
    markov.runs_with_looks(Path("nowhere"), markov.MarkovPlan())


@pytest.mark.parametrize("study", [bands, markov])
def test_seeds_that_ended_at_other_steps_are_refused(study, monkeypatch):
    runs = [run("rope", 0), run("rope", 1), run("muon", 0, step=80), run("muon", 1, step=60)]
    told = "muon-0-0 and muon-1-0 are both of stage muon, and ended at steps 80 and 60"
    with pytest.raises(MeasureError, match=told):
        asked(study, runs, monkeypatch)


@pytest.mark.parametrize("study", [bands, markov])
def test_runs_on_other_data_are_refused(study, monkeypatch):
    told = "rope-0-0 and rope-0-1 have different tasks; .* another task.seed"
    with pytest.raises(MeasureError, match=told):
        asked(study, [run(), run(task_seed=1)], monkeypatch)


def measured(stages, missing=()):
    """Records of `measure_bands` at the last look of stages with seeds, bands and samples."""
    rows = []
    for i, stage in enumerate(stages):
        for seed in SEEDS:
            for band in range(4):
                for sample in range(2):
                    rng = np.random.default_rng([i, seed, band, sample])
                    value = i + seed + rng.standard_normal()
                    rows.append(
                        {"stage": stage, "seed": seed, "step": 10, "fraction": 1.0, "position": 7}
                        | {"band": f"23:{band}", "c": 23, "known": band % 2, "sample": sample}
                        | {"kind": "inside" if band % 2 else "outside", "regime": "clean"}
                        | {"h_s_excess": value, "h_peak_excess": value, "noise_share": 0.1}
                    )
    found = pd.DataFrame(rows)
    return found[[(s, k) not in missing for s, k in zip(found["stage"], found["seed"], strict=True)]]


def test_a_missing_run_leaves_its_stage_to_the_other_seeds():
    every, lacking = measured(STAGES), measured(STAGES, {("muon", 2)})
    found = tables.decomposition(lacking)
    two = tables.decomposition(every[every["seed"] < 2])
    whole = tables.decomposition(every)
    assert len(found) == len(whole)
    about = found["target"].str.contains("muon")
    pd.testing.assert_frame_equal(found[about], two[about])
    pd.testing.assert_frame_equal(found[~about], whole[~about])
    assert set(tables.planning(found)["target"]) == {"rope → muon", "muon → untied"}


def test_a_seed_that_noise_hides_is_not_left_out_for_that():
    lacking = measured(STAGES)
    lacking.loc[(lacking["stage"] == "muon") & (lacking["seed"] == 2), "noise_share"] = 0.9
    assert set(tables.decomposition(lacking)["target"]) == {"rope", "untied"}


def test_every_stage_is_read_at_its_own_end():
    row = {
        "quantity": "H_S",
        "regime": "clean",
        "kind": "inside",
        "position": 7,
        "n": 3,
        "low": 0.1,
        "high": 0.3,
    }
    ends = pd.DataFrame(
        [{**row, "stage": "rope", "fraction": 1.0}, {**row, "stage": "muon", "fraction": 0.8}]
    )
    assert "H_S in rope (bands inside training), H_S in muon" in concentrated(ends)


def test_a_picture_of_spectra_is_a_mean_over_all_seeds_or_none():
    looks = [(seed, step) for seed in SEEDS for step in (0, 10, 20, 30) if step < 30 or seed == 2]
    rows = [{"seed": s, "step": t, "type": "q", "block": 0, "stable_rank": 1.0 + s} for s, t in looks]
    data = SimpleNamespace(of=lambda _: pd.DataFrame(rows), types=lambda _: ["q"])
    found = film(SimpleNamespace(data=data), "cell")
    assert found["step"].tolist() == [0, 10, 20]
    assert found["value"].tolist() == [2.0] * 3
