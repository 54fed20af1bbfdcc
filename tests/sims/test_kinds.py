"""Every kind of run is read back from its folder."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.runs.kinds import run_spec
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.runs.watched_config import WatchedConfig
from toymodel.config import RunConfig, canonical_hash, canonical_json
from toymodel.errors import CheckpointError, ConfigError
from toymodel.intervention import Intervention
from toymodel.posttrain.config import PostTraining
from toymodel.rates import Rates
from toymodel.tasks import ModularWalks

SPECS = (
    RunConfig(stage="untied", batch_size=8, seed=3),
    LmConfig.of_tier("tiny", "muon", 100, seed=2, precision="float32"),
    LmRun("pythia", "gpt", 8, None, 0, 512, 8_192, {"layers": 2}, ((0, "a.pt", 12), (512, "b.pt", 12)), "ab"),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_a_run_is_read_back_from_its_folder(spec, tmp_path):
    folder = RunFolder(tmp_path / spec.run_id)
    folder.start(spec, MeasureConfig(), {})
    assert folder.spec == spec
    assert (folder.spec.stage, folder.spec.steps, folder.spec.lr) == (spec.stage, spec.steps, spec.lr)


def test_what_is_no_run_is_refused():
    with pytest.raises(ConfigError, match="unknown kind of run 'cake'; the kinds are toy, text"):
        run_spec("cake", {})
    with pytest.raises(ConfigError, match="not a run of checkpoints of this version"):
        run_spec("text", {"name": "pythia"})
    with pytest.raises(ConfigError, match="not a language-model run of this version"):
        run_spec("text", {"tier": "tiny"})


WRITTEN = st.sampled_from([float, int, np.float64, np.float32, np.int64])


@given(WRITTEN, WRITTEN, WRITTEN, st.sampled_from([int, np.int64, np.int32]))
@settings(max_examples=60, deadline=None)
def test_equal_values_have_one_name_however_they_are_written(rate, decay, low, seed):
    """The name is a hash of the text of a configuration: 1, 1.0 and numpy's 1 are one rate, 0.0 and -0.0 one decay."""
    for spec in SPECS[:2]:
        rates, kicked = Rates("farms", low=1.0), Intervention("even", stop=60, factor=2.0)
        plain = replace(spec, lr=1.0, weight_decay=0.0, rates=rates, intervention=kicked, seed=4)
        written = replace(
            spec,
            lr=rate(1),
            weight_decay=-decay(0),
            rates=Rates("farms", low=low(1)),
            intervention=Intervention("even", stop=seed(60), factor=decay(2)),
            seed=seed(4),
        )
        assert written == plain
        assert canonical_json(written) == canonical_json(plain)
        assert written.run_id == plain.run_id


def test_checkpoints_that_were_stored_under_another_spelling_are_read(tmp_path, monkeypatch):
    spec = replace(SPECS[0], weight_decay=0)
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with monkeypatch.context() as earlier:
        earlier.setattr("sims.runs.tensors.canonical_json", lambda c: canonical_json(c).replace("0.0,", "0,"))
        earlier.setattr("sims.runs.tensors.canonical_hash", lambda _: "of another text")
        folder.keep_checkpoint(spec, 3, {"embed": torch.ones(2)})
    (path,) = folder.checkpoints()
    assert load_tensors(path, spec)[0] == 3
    with pytest.raises(CheckpointError, match="another configuration"):
        load_tensors(path, replace(spec, weight_decay=1))


def _forms(value):
    """Return the same number, or the same numbers, as others would write them."""
    if isinstance(value, tuple):
        numbers = np.asarray(value)
        if not value or numbers.dtype.kind not in "if":
            return []
        return [numbers.tolist(), *([tuple(numbers)] if numbers.ndim == 1 else [])]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return []
    whole = [int(value), np.int64(value)] if float(value).is_integer() else []
    return [*whole, np.float64(value), *([-0.0] if value == 0 else [])]


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        MeasureConfig(windows=((1, 10), (10, 40)), update_windows=(5, 10)),
        LmMeasureConfig(windows=((1, 10),)),
        WatchedConfig(windows=((1, 10),)),
        PostTraining("sft"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_every_setting_has_one_form(config):
    given = [(f.name, form) for f in fields(config) if f.init for form in _forms(getattr(config, f.name))]
    assert len(given) > 10
    for name, form in given:
        other = replace(config, **{name: form})
        assert other == config, name
        assert canonical_hash(other) == canonical_hash(config), (name, form)


def test_zeros_of_a_task_have_one_form():
    assert RunConfig(task=ModularWalks(noise=-0.0)).run_id == RunConfig(task=ModularWalks(noise=0.0)).run_id
