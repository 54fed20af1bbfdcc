"""A run of a language model from where it stands to its end: stopped, killed, diverged, on a full disk."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from training_runs import after, last_weights, make_shards, run_of, same, small_config

from sims.runs.lm_measure_config import LmMeasureConfig
from sims.system.errors import MeasureError, StoreError
from sims.training.divergence import SPIKE, WINDOW, DivergenceMonitor
from sims.training.lm_runner import train_run
from sims.training.trackers.registry import Trackers, named
from sims.training.trainer import Trainer
from toymodel.controllers import Controller
from toymodel.errors import ConfigError
from toymodel.rates import Rates


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("lm") / "shards")


def test_a_run_that_rises_is_noticed_and_one_that_is_noisy_is_not():
    noisy = DivergenceMonitor()
    generator = np.random.default_rng(0)
    assert not any(noisy.see(4.0 + 0.3 * x) for x in generator.standard_normal(500))
    assert noisy.see(20.0) is None
    rising = DivergenceMonitor()
    said = [rising.see(4.0 if i < 40 else 4.0 + 2 * SPIKE) for i in range(60)]
    assert said.index(next(s for s in said if s)) < 40 + WINDOW
    assert "rose to" in next(s for s in said if s)
    for bad in (math.nan, math.inf):
        assert str(bad) in (DivergenceMonitor().see(bad) or "")
    restored = DivergenceMonitor()
    restored.restore(rising.state())
    assert (restored.best, restored.recent) == (rising.best, rising.recent)


def test_a_stopped_run_goes_on_to_the_same_bits(shards, tmp_path):
    config = small_config("flex_window")
    whole = run_of(config, shards, tmp_path / "whole")
    assert whole.go() == "finished"
    # Once between two evaluations, and once where weights are kept.
    for calls, step in ((4, 3), (2, 5)):
        run = run_of(config, shards, tmp_path / "parts", after(calls))
        assert run.go() == "stopped"
        assert run.state[0] == step
    run = run_of(config, shards, tmp_path / "parts")
    assert run.go() == "finished"
    assert same(*(last_weights(r.folder, r.config)[1] for r in (whole, run)))
    columns = ["step", "tokens", "quantity", "object", "site", "value"]
    assert run.folder.rows()[columns].equals(whole.folder.rows()[columns])
    losses = whole.folder.rows().query("quantity == 'val_loss'")
    assert losses["step"].tolist() == sorted({0, 4, 8, *config.checkpoint_steps})
    assert losses["value"].iloc[-1] < losses["value"].iloc[0]
    assert [p.name for p in run.folder.checkpoints()] == [
        f"step-{step:09d}.safetensors" for step in config.checkpoint_steps
    ]


def test_what_was_done_after_the_stored_state_is_done_again(shards, tmp_path):
    """As after a kill: parts of later steps are there, and the state is an older one."""
    config = small_config()
    whole = run_of(config, shards, tmp_path / "whole")
    whole.go()
    run = run_of(config, shards, tmp_path / "parts", after(3))
    run.go()
    state = (run.folder.path / "state.safetensors").read_bytes()
    run_of(config, shards, tmp_path / "parts", after(4)).go()
    (run.folder.path / "state.safetensors").write_bytes(state)
    run_of(config, shards, tmp_path / "parts").go()
    columns = ["step", "quantity", "value"]
    assert run.folder.rows()[columns].equals(whole.folder.rows()[columns])


def test_windows_of_updates_are_measured_between_steps_and_resumed(shards, tmp_path):
    config = small_config("muon", checkpoints=(1.0,))
    measuring = LmMeasureConfig(
        tokens=320, length=16, batch=128, gradient_sequences=0, families=(), updates=4
    )
    measuring = replace(measuring, loss_tokens=0, update_window=3)
    whole = run_of(config, shards, tmp_path / "whole", measuring=measuring)
    assert whole.go() == "finished"
    # Within the second window.
    run = run_of(config, shards, tmp_path / "parts", after(8), measuring=measuring)
    assert run.go() == "stopped"
    assert run.state[0] == 7
    run = run_of(config, shards, tmp_path / "parts", measuring=measuring)
    assert run.go() == "finished"
    rows = whole.folder.rows()
    assert set(rows.query("quantity == 'edge_k'")["step"]) == {4, 8}
    assert run.folder.rows().equals(rows)
    assert run.folder.spectra().equals(whole.folder.spectra())
    # Nothing else notices.
    plain = run_of(config, shards, tmp_path / "plain", measuring=replace(measuring, updates=0))
    plain.go()
    others = rows.query("object not in ('update', 'normalised_update')").reset_index(drop=True)
    assert plain.folder.rows().equals(others)


@pytest.mark.slow
def test_strides_decay_and_the_defect_of_a_language_model_are_resumed(shards, tmp_path):
    config = small_config("muon", checkpoints=(1.0,), weight_decay=0.1)
    measuring = LmMeasureConfig(
        tokens=320, length=16, batch=128, gradient_sequences=0, families=(), updates=4
    )
    measuring = replace(
        measuring,
        loss_tokens=0,
        update_windows=(2, 3),
        update_stride=2,
        update_groups=("all", "attention", "matrix:blocks.0.attn.v"),
        update_decay=True,
        defect=5,
        defect_pairs=2,
        defect_sequences=3,
    )
    whole = run_of(config, shards, tmp_path / "whole", measuring=measuring)
    assert whole.go() == "finished"
    run = run_of(config, shards, tmp_path / "parts", after(8), measuring=measuring)
    assert run.go() == "stopped"
    assert run.state[0] == 7
    assert run_of(config, shards, tmp_path / "parts", measuring=measuring).go() == "finished"
    rows = whole.folder.rows()
    assert run.folder.rows().equals(rows)
    assert set(rows.query("quantity == 'defect'")["step"]) == {0, 5, 10}
    assert (rows.query("quantity == 'defect'")["status"] == "ok").all()
    edges = rows.query("quantity == 'edge_k' and object == 'update'")
    assert set(zip(edges["step"], edges["window"], strict=True)) == {(4, "2"), (8, "2"), (8, "3")}
    assert set(edges["site"]) == set(measuring.update_groups)
    # The learning rate falls at the end, and the decay with it.
    decay = rows.query("quantity == 'decay_norm' and site == 'all'")["value"]
    assert (decay > 0).all()
    plain = run_of(config, shards, tmp_path / "plain", measuring=replace(measuring, updates=0, defect=0))
    plain.go()
    losses = [table.query("object == 'loss'")["value"].tolist() for table in (rows, plain.folder.rows())]
    assert losses[0] == losses[1]
    with pytest.raises(MeasureError, match="defect is 50, but the run has 10 steps"):
        run_of(config, shards, tmp_path / "long", measuring=replace(measuring, defect=50)).go()


@pytest.mark.parametrize("store_every", [pytest.param(0.0, marks=pytest.mark.slow), 1e9])
def test_rows_between_steps_survive_states_stored_before_and_after_measuring(store_every, shards, tmp_path):
    config = small_config("muon", checkpoints=(0.0, 0.5, 1.0))
    measuring = LmMeasureConfig(
        tokens=320, length=16, batch=128, gradient_sequences=0, families=(), updates=1
    )
    measuring = replace(measuring, loss_tokens=0, update_window=3, schedules=("weights=1",))
    whole = run_of(config, shards, tmp_path / "whole", measuring=measuring)
    assert whole.go() == "finished"
    rows = whole.folder.rows()
    assert set(rows.query("object == 'weight'")["step"]) == set(range(11))
    assert set(rows.query("quantity == 'edge_k'")["step"]) == set(range(3, 11))
    order = ["step", "object", "quantity", "site", "window", "detail"]
    for calls in (1, 2, 5, 8):
        stopped = run_of(
            config, shards, tmp_path / f"{calls}", after(calls), store_every=store_every, measuring=measuring
        )
        assert stopped.go() == "stopped"
        run = run_of(config, shards, tmp_path / f"{calls}", store_every=store_every, measuring=measuring)
        assert run.go() == "finished"
        ours, theirs = (table.sort_values(order, ignore_index=True) for table in (run.folder.rows(), rows))
        assert ours.equals(theirs)


class Listener:
    """A tracker that keeps what it is told."""

    def __init__(self, told):
        self.told = told

    def started(self, run_id, config):
        self.told.append(("started", run_id, config["tier"]))

    def logged(self, step, numbers):
        self.told.append(("logged", step, numbers))

    def ended(self, outcome):
        self.told.append(("ended", outcome["ended"], outcome["step"]))


def test_trackers_follow_a_language_model_as_they_follow_the_toy(shards, tmp_path):
    config, told = small_config(), []
    run = run_of(config, shards, tmp_path)
    makers: dict[str, Any] = {"listener": lambda: Listener(told)}
    trackers = Trackers(makers)
    assert train_run(run.config, run.folder, run.setup, trackers=trackers) == "ended"
    assert told[0] == ("started", config.run_id, "tiny")
    assert told[-1] == ("ended", "finished", 10)
    losses = run.folder.rows().query("quantity == 'val_loss'").set_index("step")["value"].to_dict()
    assert {step: numbers["loss/validation/val_loss"] for _, step, numbers in told[1:-1]} == losses


def test_trackers_see_rows_between_steps_under_their_own_step(shards, tmp_path):
    measuring = LmMeasureConfig(
        tokens=320, length=16, batch=128, gradient_sequences=0, families=(), updates=1
    )
    measuring = replace(measuring, loss_tokens=0, update_window=3, schedules=("weights=2",))
    told = []
    run = run_of(small_config("muon", checkpoints=(0.5, 1.0)), shards, tmp_path, measuring=measuring)
    makers: dict[str, Any] = {"listener": lambda: Listener(told)}
    trackers = Trackers(makers)
    assert train_run(run.config, run.folder, run.setup, trackers=trackers) == "ended"
    seen = {(step, name): value for _, step, numbers in told[1:-1] for name, value in numbers.items()}
    rows = run.folder.rows().dropna(subset=["value"])
    records: Any = rows.to_dict("records")
    stored = {(row["step"], *named([row])): row["value"] for row in records}
    assert {step for step, name in seen if name.startswith("weight")} == {0, 2, 4, 6, 8, 10}
    assert seen == stored
    steps = [step for _, step, _ in told[1:-1]]
    assert steps == sorted(set(steps))


class Shrinking(Controller):
    """Lowers the rate of one Muon and one AdamW matrix more and more."""

    def __init__(self, rates, sizes, steps, group):
        super().__init__(rates, sizes, steps)
        assert group.size == 1
        self.count = torch.zeros(())

    def due(self, step):
        return step % 2 == 0

    def choose(self, view: Any) -> dict[str, float]:
        assert view.weights()["embed"].ndim == 2
        self.count = self.count + 1
        return dict.fromkeys(("blocks.1.mlp.fc", "embed"), float(1 / (1 + self.count)))

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_controller_of_learning_rates_is_resumed_too(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("sims.training.trainer.layerwise", Shrinking)
    config = small_config("untied", rates=Rates("depth"))
    assert config.run_id != small_config("untied").run_id
    whole, plain = (run_of(c, shards, tmp_path / "whole") for c in (config, small_config("untied")))
    assert (whole.go(), plain.go()) == ("finished", "finished")
    # After an odd step: the choice of the step before holds.
    assert run_of(config, shards, tmp_path / "parts", after(4)).go() == "stopped"
    run = run_of(config, shards, tmp_path / "parts")
    assert run.go() == "finished"
    kept = [last_weights(r.folder, r.config)[1] for r in (whole, run, plain)]
    assert same(kept[0], kept[1])
    assert not torch.equal(kept[0]["embed"], kept[2]["embed"])
    with pytest.raises(ConfigError, match=r"rates.by is 'none'; rates are uniform, or by alpha"):
        small_config(rates=Rates("none"))


@pytest.mark.parametrize(
    ("stage", "stops"), [pytest.param("rope", (3, 6), marks=pytest.mark.slow), ("untied", (3,))]
)
def test_rates_by_spectra_are_resumed_and_recorded(stage, stops, shards, tmp_path):
    """Of AdamW throughout, and of Muon."""
    config = small_config(stage, rates=Rates("farms", every=4, low=0.2, high=1.8))
    whole = run_of(config, shards, tmp_path / "whole")
    assert whole.go() == "finished"
    # Between two choices, and a step before one.
    for calls in stops:
        assert run_of(config, shards, tmp_path / f"parts{calls}", after(calls)).go() == "stopped"
        run = run_of(config, shards, tmp_path / f"parts{calls}")
        assert run.go() == "finished"
        assert same(*(last_weights(r.folder, r.config)[1] for r in (whole, run)))
        one, other = (r.folder.rows().query("object == 'rate'").reset_index(drop=True) for r in (whole, run))
        pd.testing.assert_frame_equal(one, other)
    rows = whole.folder.rows()
    chosen = rows[rows["quantity"] == "lr_multiplier"]
    assert sorted(set(chosen["step"])) == list(range(1, config.steps + 1, 4))
    assert set(chosen["detail"]) == {"farms"}
    # Of the first step q, k, v and fc have exponents; the projections are zero.
    first = chosen[chosen["step"] == 1].set_index("site")["value"]
    assert (first[[site for site in first.index if site.endswith(("attn.o", "mlp.proj"))]] == 1).all()
    assert first.nunique() > 8


def test_a_run_ends_at_its_target_with_weights(shards, tmp_path):
    config = small_config(tokens=12_800, target_loss=3.5, lr=5e-3)
    run = run_of(config, shards, tmp_path)
    assert run.go() == "target"
    outcome = run.folder.outcome
    assert outcome["val_loss"] <= 3.5 < math.log(128)
    assert outcome["step"] < config.steps
    assert last_weights(run.folder, run.config)[0] == outcome["step"]


def test_a_run_that_diverges_keeps_its_last_stored_weights(shards, tmp_path, monkeypatch):
    config = small_config("rope", tokens=12_800, checkpoints=())
    run = run_of(config, shards, tmp_path, after(6))
    assert run.go() == "stopped"
    good = {name[6:]: tensor for name, tensor in run.state[1].items() if name.startswith("param/")}
    run = run_of(config, shards, tmp_path)
    gradients = Trainer.gradients
    monkeypatch.setattr(Trainer, "gradients", lambda self: gradients(self) if self.step < 9 else math.nan)
    assert run.go() == "diverged"
    outcome = run.folder.outcome
    assert (outcome["ended"], outcome["step"]) == ("diverged", 9)
    assert "loss is nan" in outcome["reason"]
    step, kept = last_weights(run.folder, run.config)
    assert step == 5
    assert same(kept, good)


def test_a_validation_loss_that_is_no_number_ends_the_run_as_diverged(shards, tmp_path, monkeypatch):
    evaluate = Trainer.evaluate
    monkeypatch.setattr(Trainer, "evaluate", lambda self: evaluate(self) if self.step < 8 else math.nan)
    run = run_of(small_config(), shards, tmp_path, store_every=0.0)
    assert run.go() == "diverged"
    assert "validation loss is nan" in run.folder.outcome["reason"]
    assert run.folder.rows()["value"].notna().all()
    assert last_weights(run.folder, run.config)[0] == 7


def test_changed_shards_are_refused_by_name(tmp_path):
    shards = make_shards(tmp_path / "shards")
    config = small_config()
    run_of(config, shards, tmp_path / "out", after(2)).go()
    make_shards(shards, seed=1)
    # The digest of the run that is there already.
    run = run_of(config, shards, tmp_path / "out")
    with pytest.raises(StoreError, match=r"text_train_000001.bin had .* SHA-256 .*, and has .*; put the old"):
        run.go()
    (shards / "text_train_000002.bin").unlink()
    with pytest.raises(StoreError, match=r"text_train_000002.bin is missing"):
        run_of(config, shards, tmp_path / "out").go()


def test_a_full_disk_leaves_the_last_state(shards, tmp_path, monkeypatch):
    config = small_config()
    run = run_of(config, shards, tmp_path, after(3))
    run.go()
    before = (run.folder.path / "state.safetensors").read_bytes()
    run = run_of(config, shards, tmp_path, store_every=0.0)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"no space left.*same command again"):
        run.go()
    monkeypatch.undo()
    assert (run.folder.path / "state.safetensors").read_bytes() == before
    whole = run_of(config, shards, tmp_path / "whole")
    whole.go()
    again = run_of(config, shards, tmp_path)
    again.go()
    assert same(*(last_weights(r.folder, r.config)[1] for r in (whole, again)))


def test_a_damaged_state_is_named(shards, tmp_path):
    config = small_config()
    run = run_of(config, shards, tmp_path, after(3))
    run.go()
    file = run.folder.path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"state.safetensors cannot be read.*delete it"):
        run_of(config, shards, tmp_path).go()
