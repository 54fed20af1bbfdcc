"""Models with finite weights and losses whose gradients are none: the run has diverged, and did not fail."""

import numpy as np
import pytest
from training_runs import HERE, SIZES, make_shards

from sims import cli
from sims.runs.store import run_folders


@pytest.mark.parametrize("lr", [pytest.param("1e6", marks=pytest.mark.slow), "1e20"])
def test_a_model_without_gradients_ends_its_run_as_diverged(tmp_path, capsys, lr):
    shards = make_shards(tmp_path / "shards")
    sizes = [
        *SIZES.replace("2e-3", lr).split(),
        "--measuring.tokens",
        "320",
        "--measuring.gradient-sequences",
        "4",
    ]
    call = [
        "train",
        "lm",
        "--data",
        str(shards),
        "--tier",
        "tiny",
        "--stage",
        "untied",
        "--out",
        str(tmp_path / "runs"),
    ]
    assert cli.main([*call, *sizes, *HERE, "--measure"]) == 0
    assert "diverged: step" in capsys.readouterr().err
    (folder,) = run_folders(tmp_path / "runs")
    assert folder.done
    assert folder.outcome["ended"] == "diverged"
    assert "output gradients d have" in folder.outcome["reason"]
    rows = folder.rows()
    assert np.isfinite(rows["value"][rows["status"] == "ok"]).all()
    # What was recorded before and at that step is there, each number once.
    losses = rows[rows["quantity"] == "val_loss"]
    assert losses["step"].tolist() == sorted(set(losses["step"]))
    assert losses["step"].max() == folder.outcome["step"]
    # The same command again has nothing to do.
    assert cli.main([*call, *sizes, *HERE, "--measure"]) == 0
    assert len(list(run_folders(tmp_path / "runs"))) == 1
