"""Every number of a command either describes a run or is refused at once: exit status 2, a message, and no folder."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims import cli
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.measure_config import MeasureConfig
from sims.system.errors import MeasureError
from sims.training.toy_memory import check_memory, least_bytes
from toymodel.config import ModelConfig, RunConfig
from toymodel.errors import ConfigError

BAD = [
    ("--target-loss", "nan"),
    ("--target-loss", "inf"),
    ("--lr", "nan"),
    ("--lr", "-1"),
    ("--workers", "-1"),
    ("--workers", "0"),
    ("--seeds",),
    ("--seeds", str(2**70)),
    ("--seeds", "-1"),
    ("--seed", str(2**70)),
    ("--steps", "1" + "0" * 4000),
    ("--steps", "0"),
    ("--batch-size", str(10**30)),
    ("--model.d-model", "10000000"),
    ("--model.layers", "1000000000000"),
    ("--task.train", "1000000000000"),
    ("--measure.sites", "nowhere"),
    ("--measure.sites", "blocks.7"),
    ("--measure.every", str(2**70)),
    ("--measure.top-k", "-1"),
]


@pytest.mark.parametrize("options", BAD, ids=lambda o: " ".join(o)[:40])
def test_a_bad_option_is_refused_before_a_folder_is_made(tmp_path, capsys, options):
    out = tmp_path / "runs"
    try:
        status = cli.main(["train", "small", "--out", str(out), *options])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert not out.exists()
    told = capsys.readouterr().err
    assert told
    assert "Traceback" not in told


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 2**63, 10**400, float("nan")]))


def accepted(kind, error, **values):
    """Whether a configuration takes these values; if not it says why in its own words."""
    try:
        kind(**values)
    except error as refused:
        return not str(refused)
    return True


def representable(value):
    return -(2**63) <= value < 2**63 if isinstance(value, int) else math.isfinite(value)


@settings(max_examples=100)
@given(
    st.sampled_from(["batch_size", "lr", "steps", "seed", "weight_decay", "eval_every", "target_loss"]),
    NUMBERS,
)
def test_a_configuration_holds_only_numbers_that_files_and_tensors_take(name, value):
    assert not accepted(RunConfig, ConfigError, **{name: value}) or representable(value)


@settings(max_examples=100)
@given(st.sampled_from(["top_k", "updates", "update_window", "gradient_sequences"]), NUMBERS)
def test_measurements_likewise(name, value):
    for kind in (MeasureConfig, LmMeasureConfig):
        assert not accepted(kind, MeasureError, **{name: value}) or representable(value)


def test_a_run_that_fits_no_memory_is_told_its_size_and_the_limit():
    config = RunConfig(model=ModelConfig(d_model=10_000_000))
    with pytest.raises(ConfigError, match=r"needs at least [\d,.]+ GB .* has [\d,.]+ GB"):
        check_memory([config], "cpu")
    check_memory([RunConfig()], "cpu")
    assert least_bytes(RunConfig()) < 100e6
