"""Toy runs that ask for compiled code: trained by right code, or failed with the reason before the first step."""

from dataclasses import replace

import pytest
import torch
from tiny_runs import MEASURE, RUN

from sims.runs.store import RunFolder
from sims.training.toy_runner import run_group
from toymodel import compiled, elementwise

pytestmark = pytest.mark.usefixtures("compiled_anew")

CONFIGS = [replace(RUN, compile=True, seed=seed) for seed in range(2)]


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


def test_compiled_runs_train_and_are_runs_of_their_own(tmp_path):
    assert not run_group(CONFIGS, MEASURE, tmp_path)
    assert not run_group([RUN], MEASURE, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    own, plain = (RunFolder(tmp_path / c.run_id).outcome["val_loss"] for c in (CONFIGS[0], RUN))
    assert own == pytest.approx(plain, rel=1e-4)


@pytest.mark.slow
def test_all_members_of_an_ensemble_fail_with_the_reason_at_once(tmp_path, monkeypatch):
    calls = []

    def broken(x):
        calls.append(len(x))
        return elementwise.squared_relu(x.detach() if torch.compiler.is_compiling() else x)

    monkeypatch.setattr("toymodel.transformer.squared_relu", broken)
    failed = run_group(CONFIGS, MEASURE, tmp_path)
    assert failed.keys() == {c.run_id for c in CONFIGS}
    assert all("mlp.fc is 1 of its size" in reason for reason in failed.values())
    # No member was tried alone: the same code would train it.
    assert set(calls) == {2}
    for config in CONFIGS:
        folder = RunFolder(tmp_path / config.run_id)
        assert folder.failed
        assert not folder.done
        assert not folder.checkpoints()
