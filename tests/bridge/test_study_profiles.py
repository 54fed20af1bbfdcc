"""Profiles of studies: the full ones are shown, refused without a GPU, and train where they are made small."""

import json
from typing import get_args

import pandas as pd
import pytest
from training_runs import VOCABULARY, make_shards

from sims import cli
from sims.measure.updates import window_bytes
from sims.runs.store import run_folders
from sims.studies.claims import VERDICTS
from sims.studies.edge import preset as edge
from sims.studies.grokking import preset as grokking
from sims.studies.lifecycle import preset as lifecycle
from sims.studies.profile import LmProfile, ProfileName
from sims.studies.study import profiles
from sims.sweep.progress import duration
from sims.training.throughput import flops_per_token

RATE = 1e9
SMALL = {
    lifecycle: {"TIERS": ("tiny",), "FULL_STEPS": 30, "FULL_TOKENS": 512, "LOOKS": "weights=3"},
    edge: {"TIERS": ("tiny",), "LENGTH": 16, "SEQUENCES": 4, "FULL_STRIDE": 1, "FULL_STEPS": 26},
}


@pytest.fixture
def small(monkeypatch):
    """Full profiles at the smallest sizes; a device of a known rate."""
    for module, values in SMALL.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("sims.studies.profile.measured_rate", lambda device, dtype: RATE)


@pytest.mark.parametrize("page", ["edge", "lifecycle", "grokking"])
def test_the_choices_are_those_of_the_registry(page):
    assert tuple(profiles(page)) == get_args(ProfileName)


@pytest.mark.parametrize(
    ("name", "module", "runs"),
    [pytest.param("lifecycle", lifecycle, 2, marks=pytest.mark.slow), ("edge", edge, 1)],
)
def test_a_plan_tells_runs_memory_and_time(name, module, runs, small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([name, "--profile", "full", "--seeds", "1", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    configs = module.full_configs([0], 50_257, "bfloat16")
    assert [run["run_id"] for run in found["runs"]] == [c.run_id for c in configs]
    assert len(configs) == runs
    assert {c.precision for c in configs} == {"bfloat16"}
    operations = sum(c.steps * c.tokens_per_step * flops_per_token(c.transformer()) for c in configs)
    assert found["seconds_at_least"] == pytest.approx(operations / RATE)
    assert found["step_bytes"] > 16 * max(c.transformer().parameter_count() for c in configs)
    assert found["needs_gpu"]
    measuring = module.full().measuring
    assert found["window_bytes"] == max(window_bytes(measuring, c) for c in configs)
    assert (found["window_bytes"] > 0) == (name == "edge")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["lifecycle", "edge"])
def test_without_a_gpu_a_full_profile_is_refused_with_its_time(name, small, tmp_path, capsys, monkeypatch):
    make_shards(tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    for words, told in (
        (["--data", "shards"], ("need a GPU", "at least", "--device cpu")),
        ([], ("--data", "speclens data")),
        (["--data", "shards", "--graphs", "off"], ("--graphs", "only for toys")),
    ):
        assert cli.main([name, "--profile", "full", *words]) == 2
        error = capsys.readouterr().err
        assert all(part in error for part in told), error
    assert [p.name for p in tmp_path.iterdir()] == ["shards"]


def test_a_long_time_is_told_in_days():
    assert [duration(s) for s in (71 * 3_600, 72 * 3_600, 3e9)] == ["71.0 h", "3 days", "34,722 days"]


@pytest.mark.slow
def test_small_full_profiles_train_and_answer(small, tmp_path, capsys, monkeypatch):
    make_shards(tmp_path / "shards", train=8_000, val=80_000)
    monkeypatch.chdir(tmp_path)
    for name, seeds, runs in (("lifecycle", 1, 2), ("edge", 2, 2)):
        words = [name, "--profile", "full", "--data", "shards", "--seeds", str(seeds)]
        assert cli.main([*words, "--device", "cpu", "--workers", "1", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["failed"] == {}
        assert {claim["outcome"] for claim in found["claims"]} <= set(VERDICTS)
        folders = run_folders(tmp_path / f"{name}-full")
        assert len(folders) == runs
        assert all(f.done for f in folders)
        trained = [f.identity()["train"] for f in folders]
        assert {(t["vocabulary"], t["precision"]) for t in trained} == {(VOCABULARY, "float32")}
        assert (tmp_path / f"{name}-full" / "page" / "index.html").exists()


def test_published_sizes_and_two_schedules():
    runs = lifecycle.full_configs([0], 50_257, "bfloat16")
    assert {c.shape.layers for c in runs} == {8, 12, 24}
    for tier in lifecycle.TIERS:
        rates = [c.lr_scale(c.steps - 1) for c in runs if c.tier == tier]
        # A constant one, and one that has fallen.
        assert rates[0] == 1.0
        assert rates[1] < 0.01
    counts = [c.transformer().parameter_count() / 1e6 for c in edge.full_configs([0], 50_257, "bfloat16")]
    assert [round(n) for n in counts] == [51, 124]
    assert isinstance(profiles("edge")["full"](), LmProfile)
    # Windows fit into the memory that is set for them.
    measuring = edge.full().measuring
    for config in edge.full_configs([0], 50_257, "bfloat16"):
        assert 0 < window_bytes(measuring, config) <= 1e9 * measuring.update_memory


def test_every_network_of_the_full_profile_has_eight_controls_of_each_type():
    for network, profile in grokking.full().items():
        configs = profile.configs(range(8))
        counts = pd.Series([grokking.control_of(c) for c in configs]).value_counts()
        assert set(counts.index) == {grokking.MEANT, *grokking.CONTROLS}, network
        assert (counts >= 8).all(), network
        assert len({c.run_id for c in configs}) == len(configs)
        profile.measuring.check(configs[0])
    assert grokking.full()["mlp"].configs([0]) == grokking.grokking_configs([0], "mlp")


def test_the_full_profile_of_grokking_shows_every_network(capsys, monkeypatch):
    estimate = type("Estimate", (), {"seconds": 100.0})
    monkeypatch.setattr("sims.sweep.show.estimate", lambda groups, device: estimate())
    monkeypatch.setattr("sims.sweep.show.looking", lambda configs, measuring, device: 10.0)
    assert cli.main(["grokking", "--profile", "full", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["networks"]
    assert {name: len(part["runs"]) for name, part in found.items()} == {
        name: 8 * preset.settings for name, preset in grokking.FULL_NETWORKS.items()
    }
    assert cli.main(["grokking", "--profile", "full", "--network", "rope", "--dry-run", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["networks"]) == ["rope"]


def test_a_profile_is_for_training(tmp_path, capsys):
    for words in (["edge", "--runs", "x"], ["grokking", "--runs", "x"], ["lifecycle", "x"]):
        assert cli.main([*words, "--profile", "full"]) == 2
        assert "leave out" in capsys.readouterr().err
    assert cli.main(["edge", "--data", "x"]) == 2
    assert "--profile full" in capsys.readouterr().err
