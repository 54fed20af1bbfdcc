"""Every number of a command either describes a run or is refused at once: exit status 2, a message, and no folder."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims import cli
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.measure_config import MeasureConfig
from sims.studies.bands.measured import BandPlan
from sims.system.errors import MeasureError
from sims.training.toy_memory import check_memory, least_bytes
from toymodel.config import ModelConfig, RunConfig
from toymodel.errors import ConfigError
from toymodel.intervention import Intervention
from toymodel.tasks import ModularWalks

BAD = [
    ("--target-loss", "nan"),
    ("--target-loss", "inf"),
    ("--target-loss", "0"),
    ("--target-loss", "-1"),
    ("--lr", "nan"),
    ("--lr", "-1"),
    ("--lr", "1e-46"),
    ("--lr", "1e39"),
    ("--task.components-max", "1000000000"),
    ("--measure.probe-sequences", "1000000000000"),
    ("--measure.update-draws", "1000000000000"),
    ("--measure.defect-pairs", "1000000000000"),
    ("--weight-decay", "1e-46"),
    ("--clip", "1e-46"),
    ("--task.noise", "1e-46"),
    ("--rates.by", "farms", "--rates.low", "1e-46"),
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
    ("--measure.gradient-matrices", "nowhere"),
    ("--measure.gradient-matrices", "attn.q", "nowhere"),
    ("--measure.gradient-matrices", "head"),
    ("--measure.gradient-matrices", ""),
    ("--measure.gradient-matrices",),
    ("--measure.training-bands", "500"),
    ("--measure.top-k", "999999999"),
    ("--workers", "100000"),
    ("--workers", str(2**70)),
    ("--summary-workers", "100000"),
    ("--measure.every", str(2**70)),
    ("--measure.top-k", "-1"),
    ("--measure.training-bands", "1000"),
    ("--measure.training-band-min", "-5"),
    ("--measure.training-bands", "2", "--measure.training-band-min", "100000"),
    ("--measure.updates", "1000000"),
    ("--measure.updates", "10", "--measure.update-window", "1000000"),
    ("--measure.schedules", "weights=100000000"),
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
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    # And no other number becomes 0 in the arithmetic of a run.
    return math.isfinite(np.float32(value)) and (value == 0) == (np.float32(value) == 0)


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
    changed = RunConfig(intervention=Intervention("edge", window=10))
    large = replace(config, intervention=Intervention("edge", window=10))
    with pytest.raises(ConfigError, match=r"on 10 updates, needs .* lower .*, intervention\.window, task"):
        check_memory([large], "cpu")
    with pytest.raises(ConfigError, match=r"batch_size, task\.vocab, .* or task\.test"):
        check_memory([config], "cpu")
    # Ten updates, the weights after them, and ten directions of twice the size, of each of 393,216 parameters and more.
    assert least_bytes(changed) - least_bytes(RunConfig()) == 124 * 393_216


@pytest.mark.parametrize(
    ("band", "said"),
    [
        ((2, 0), "modulus below 3"),
        ((3, -1), "choose an offset ≥ 0"),
        ((40, 30), r"modulus \+ offset ≤ vocab"),
    ],
)
def test_a_band_without_frequencies_and_one_outside_the_vocabulary_are_told_apart(band, said):
    run = RunConfig(task=ModularWalks(vocab=64, modulus_min=2))
    with pytest.raises(MeasureError, match=said):
        MeasureConfig(bands=(band,), training_bands=0).check(run)


NUMERIC = {
    "records .": ["--target", "--token-gain", "--throughput-gain"],
    "windows .": ["--lengths", "--ranks", "--vocabulary"],
    "demo": ["--seeds"],
    "sweep small --dry-run": [
        "--batch-sizes",
        "--lrs",
        "--base-lr",
        "--lr-factors",
        "--halving",
        "--target-loss",
    ],
    "train small": ["--target-loss", "--lr", "--eval-every", "--store-every", "--measure.sequences"],
    "train lm --data .": ["--target-loss", "--lr", "--peak-tflops", "--store-every", "--micro-batch"],
    "train lm --data . --intervention.kind edge": ["--intervention.start", "--intervention.factor"],
    "bands .": ["--bands", "--samples", "--per-state", "--fractions"],
    "robustness .": ["--sequences"],
    "markov": ["--seeds", "--contexts"],
    "edge": ["--seeds"],
    "reproduce fig4b": ["--hours"],
    "grokking": ["--seeds"],
    "grokking --causal": ["--seeds"],
    "train small --rates farms": ["--rates.low", "--rates.high", "--rates.every"],
    "train small --intervention.kind edge": ["--intervention.start", "--intervention.factor"],
    "lifecycle": ["--seeds"],
    "rates": ["--seeds", "--steps", "--shuffles"],
    "post-train": ["--seeds", "--steps", "--lr"],
    "post-train --runs . --data .": ["--order"],
    "phases . --data .": ["--length", "--sequences", "--tokens-per-step"],
    "prune .": ["--sparsity", "--epsilons", "--shuffles", "--test", "--calibration"],
    "ls .": ["--limit"],
    "inspect .": ["--heads", "--tokens-per-step"],
    "data . --source shards --null shuffled": ["--seed"],
}


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(command, option) for command, options in NUMERIC.items() for option in options]),
    st.sampled_from(["nan", "-inf", "-1", "-0.5", "1e400", "-" + "9" * 400]),
)
def test_no_command_takes_a_number_that_is_none_or_below_all(tmp_path_factory, which, value):
    """Whatever the command: status 2 and one message before any work, and nothing left behind."""
    command, option = which
    out = tmp_path_factory.mktemp("refused")
    line = [str(out) if part == "." else part for part in command.split()]
    line += (
        []
        if command.split()[0] in ("records", "windows", "ls", "inspect", "bands", "robustness")
        else ["--out", str(out / "o")]
    )
    try:
        status = cli.main([*line, option, value])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "records . --tokens-per-step",
        "windows . --most-tokens",
        "ls . --limit",
        "inspect . --heads",
        "sweep small --dry-run --workers",
        "theory T1 --workers",
        "theory T1 --seed",
        "robustness . --sequences",
        "bands . --samples",
    ],
)
@pytest.mark.parametrize("value", [2**63, 10**40])
def test_no_command_takes_a_whole_number_beyond_64_bits(tmp_path, monkeypatch, capsys, line, value):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*line.split(), str(value)]) == 2
    option = line.split()[-1]
    assert option in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["0", "-3"])
def test_windows_take_some_tokens(tmp_path, capsys, value):
    assert cli.main(["windows", str(tmp_path), "--most-tokens", value]) == 2
    assert f"--most-tokens has {value}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("markov --contexts 100000000000", "--contexts is 100000000000; it must lie in 1 … 1,000,000"),
        (
            "robustness runs --sequences 10000000000",
            "--sequences is 10000000000; it must lie in 32 … 1,000,000",
        ),
        ("train lm --data . --length 0", "length is 0; it must be at least 1, such as 128"),
        ("sweep small --vary model.layers=1.5", "'1.5' is not a value of it; it takes whole numbers"),
    ],
)
def test_numbers_out_of_range_are_refused_by_their_rule(tmp_path, monkeypatch, capsys, line, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["samples", "per_state", "mixed_per_state"])
def test_samples_that_no_memory_holds_are_refused(name):
    with pytest.raises(MeasureError, match=f"{name} is 100000000000; it must be at most"):
        BandPlan(**{name: 10**11})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("records logs --format json", "--format: only for the files of --out"),
        ("theory T1 --against demo --profile full", "--profile: not used with --against"),
        ("theory T1 --against demo --seed 3", "--seed: not used with --against"),
        ("theory T1 --against demo --workers 2", "--workers: not used with --against"),
        ("ls runs --descending", "--descending: only for the order of --sort"),
        ("sweep small --lrs 1e-3 --base-lr 1e-3", "--lrs gives the learning rates"),
        ("sweep small --lrs 1e-3 --lr-factors 1 2", "--lrs gives the learning rates"),
        ("data texts --packages python3-doc", "--packages: only for --source debian"),
        ("reproduce all --runs demo --profile published", "--profile: only for training"),
        ("reproduce all --runs demo --cells untied:32", "--cells: only for training"),
        ("train lm --data shards --measuring.top-k 5", "--measuring.top-k: only for runs that are measured"),
        ("measure run --tokens 100", "--tokens: only for language models"),
        ("measure run --data shards --measure.top-k 5", "--measure.top-k: only for toy runs"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, monkeypatch, capsys, line, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
