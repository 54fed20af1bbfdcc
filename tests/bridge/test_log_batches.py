"""Tokens of optimiser steps, from the training script that a log begins with; nothing of it is executed."""

import ast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import the_log

from sims.studies.speedruns.batches import Batches, source_batches
from sims.studies.speedruns.folder import read_logs
from sims.studies.speedruns.source import Source, literal
from sims.studies.speedruns.tables import record_gains, record_table

WORLD = 'world_size = int(os.environ["WORLD_SIZE"])\n'
GENERATOR = "def distributed_data_generator(filename_pattern: str, {}):\n    yield 1\n"


def hyperparameters(*lines):
    return (
        "@dataclass\nclass Hyperparameters:\n"
        + "".join(f"    {line}\n" for line in lines)
        + "args = Hyperparameters()\n"
    )


def loader(parameters, arguments):
    return (
        GENERATOR.format(parameters)
        + f"train_loader = distributed_data_generator(args.train_files, {arguments})\n"
    )


@pytest.mark.parametrize(
    ("script", "cards", "tokens"),
    [
        (hyperparameters("batch_size : int = 8*64 # sequences", "sequence_length : int = 1024"), 0, 524288),
        (
            hyperparameters("batch_size = 8*64*1024 # tokens", "seq_len = 64*1024")
            + loader("batch_size: int, rank, world_size", "args.batch_size, rank, world_size"),
            0,
            524288,
        ),
        (hyperparameters("batch_size = 512", "seq_len = 1024"), 0, 524288),
        (
            hyperparameters("train_batch_size: int = 2048 * 24 * 8", "train_max_seq_len: int = 128 * 16"),
            8,
            393216,
        ),
        (hyperparameters("train_seq_len = 48*1024", "val_seq_len = 4*64*1024"), 8, 393216),
        (
            hyperparameters("seq_len = 48*1024")
            + WORLD
            + "assert world_size == 8 # 8xH100\n"
            + loader("batch_size: int, rank", "world_size * args.seq_len, rank"),
            4,
            393216,
        ),
        (
            hyperparameters("seq_len = 48*1024")
            + WORLD
            + "train_batch_size = world_size * args.seq_len\n"
            + loader("batch_size: int, rank", "train_batch_size, rank"),
            8,
            393216,
        ),
        # However many devices there are, they make up for it by accumulation.
        (
            hyperparameters("train_seq_len = 48*1024")
            + WORLD
            + "grad_accum_steps = 8 // world_size\n"
            + loader("seq_len: int, grad_accum_steps: int", "args.train_seq_len, grad_accum_steps"),
            0,
            393216,
        ),
        (
            hyperparameters("train_seq_len = 48*1024") + WORLD + "grad_accum_steps = 8 // world_size\n",
            0,
            393216,
        ),
        ("batch_size = 8 * 64 * 1024\nmbs = 64\n", 1, 524288),
        ("import x\nbatch_size = 1 << 19\n", 0, 524288),
        ("batch_size = 2**19\n" + loader("batch_size: int, seq_len=1024", "batch_size"), 0, 524288),
        (hyperparameters("batch_size = 8*TOKENS").replace("@data", "TOKENS = int(65536)\n@data"), 0, 524288),
    ],
)
def test_the_ways_to_say_it(script, cards, tokens):
    found = source_batches(script, cards)
    assert found.constant == tokens, found
    assert found.found


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (hyperparameters("train_seq_len = 48*1024"), "train_seq_len 49152"),
        (hyperparameters("batch_size = 512"), "batch_size 512"),
        (
            'batch_size = int(os.environ.get("BATCH_SIZE", "8"))\nseq_len = 1024\nbatches = 3\n',
            "batch_size = int(os.environ",
        ),
        (
            hyperparameters("train_bs_schedule: tuple = (131072, 262144)", "train_bs_extension: int = 1"),
            "train_bs_schedule",
        ),
        (hyperparameters("batch_size = -8*64", "sequence_length = 1024"), "batch_size -512"),
        (hyperparameters("batch_size = 9**9**9**9", "sequence_length = 1024"), "sequence_length 1024"),
        ("x = " + "(" * 5000 + ")" * 5000, ""),
        ("batch_size = " + "9" * 5000, ""),
        ("class Hyperparameters:\n    batch_size : int = 8*", ""),
        ("", ""),
    ],
)
def test_what_cannot_be_told_is_shown(script, said):
    found = source_batches(script, 0)
    assert found.sizes == ()
    assert said in found.found
    assert np.isnan(found.tokens(np.array([0, 5]))).all()


STAGES = """TRAINING_STAGES = [
    TrainingStage(duration=1/3, batch_size=8 * 2048 * 8, lr_mul=1.0),
    TrainingStage(duration=1/3, batch_size=16 * 2048 * 8, lr_mul=(16/8)**0.6),
    TrainingStage(duration=1/3, batch_size=24 * 2048 * 8, window_sizes=(5, 11)),
    TrainingStage(batch_size=24 * 2048 * 8),
]
"""
STEPS = ("num_scheduled_iterations: int = 1000", "num_extension_iterations: int = 40")


@pytest.mark.parametrize(
    ("script", "size"),
    [
        (
            hyperparameters(
                *STEPS,
                "train_bs_schedule: tuple = (131072, 2*131072, 3*131072)",
                "train_bs_extension = 393216",
            ),
            # As the script does it.
            lambda step: 131072 * (1 + int(3 * (step / 1000))) if step < 1000 else 393216,
        ),
        (
            hyperparameters(*STEPS) + STAGES,
            lambda step: 131072 * (1 + (step >= round(1000 / 3)) + (step >= round(2000 / 3))),
        ),
    ],
    ids=["tuple", "stages"],
)
def test_schedules_are_summed_over_the_steps(tmp_path, script, size):
    total = [0]
    for step in range(1040):
        total.append(total[-1] + size(step))
    found = source_batches(script, 8)
    assert (found.total, found.constant) == (1040, None)
    np.testing.assert_array_equal(found.tokens(np.arange(1041)), total)
    path = tmp_path / "a.log"
    lines = [
        f"step:{s}/1040 val_loss:{9 - s / 200} train_time:{s}s step_avg:1000ms\n"
        for s in (0, 500, 1000, 1040)
    ]
    path.write_text("import torch\n" + script + "=" * 100 + "\n" + "".join(lines))
    log = the_log(path)
    assert log.points["tokens"].tolist() == [total[s] for s in (0, 500, 1000, 1040)]
    row = record_table(read_logs(tmp_path), 4.0).iloc[0]
    assert row["tokens_per_second"] == pytest.approx(total[1040] / 1040, rel=1e-6)
    assert row["tokens_to_target"] == total[1000]
    # A log of another length was not made by this schedule.
    path.write_text(path.read_text().replace("/1040", "/1500"))
    log = the_log(path)
    assert log.points["tokens"].isna().all()
    assert "has 1040 steps, and the log 1500" in log.header.batches.found
    assert the_log(path, 1000).points["tokens"].iloc[-1] == 1_040_000


def test_nothing_of_a_log_is_executed(tmp_path):
    victim = tmp_path / "victim"
    script = (
        f"batch_size = open({str(victim)!r}, 'w').write('x') or 524288\nseq_len = __import__('os').getpid()\n"
    )
    assert source_batches(script, 8).sizes == ()
    assert not victim.exists()


@given(st.text(alphabet="0123456789+-*/%<>() .e", max_size=30))
@settings(max_examples=300, deadline=None)
def test_arithmetic_is_pythons_or_none(text):
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return
    found = literal(node)
    assert found is None or isinstance(found, int | float | str | tuple)
    if isinstance(found, int | float) and "**" not in text and "<" not in text:
        assert found == eval(text.strip())


def test_a_later_python_or_a_cut_does_not_hide_the_rest():
    script = (
        "x = f'{'a' + 'b'}'\ndef f(:\n    pass\n"
        + hyperparameters("batch_size = 4*8192", "lr = 1e-3")
        + "y = ("
    )
    assert Source.of(script).settings == {"batch_size": 32768, "lr": 1e-3}
    assert source_batches(script, 0).constant == 32768


def curve(ms):
    losses = {0: 10.0, 100: 5.0, 200: 3.5, 300: 3.2}
    return "".join(
        f"step:{s}/300 val_loss:{v:.4f} train_time:{s * ms}ms step_avg:{ms:.2f}ms\n"
        for s, v in losses.items()
    )


def test_steps_stand_for_tokens_where_batches_are_set_alike(tmp_path):
    rule = "=" * 100 + "\n"
    for name, script, ms in (
        ("a", "train_seq_len = 4096\n", 100),
        ("b", "train_seq_len = 4096\n", 80),
        ("c", "", 40),
    ):
        (tmp_path / f"{name}.txt").write_text("import os\n" + script + rule + curve(ms))
    table = record_table(read_logs(tmp_path))
    assert table["file"].tolist() == ["a.txt", "b.txt", "c.txt"]
    assert "tokens a step are not known (found: train_seq_len 4096)" in table["reason"].iloc[0]
    gains = record_gains(read_logs(tmp_path))
    assert gains["throughput_gain"].tolist() == [pytest.approx(0.25), pytest.approx(np.nan, nan_ok=True)]
    assert (gains["token_gain"].iloc[0], gains["proximal"].iloc[0], gains["outcome"].iloc[0]) == (
        0,
        0,
        "throughput",
    )
    assert "batches are set alike (train_seq_len 4096): gains are of steps" in gains["reason"].iloc[0]
    assert gains["outcome"].iloc[1] == "cannot tell"


def test_the_work_of_gains_grows_with_the_files(tmp_path, monkeypatch):
    """Each run's curve is taken from the points once, however many transitions ask for it."""
    for i in range(60):
        (tmp_path / f"{i}.log").write_text(curve(100 + i))
    logs = read_logs(tmp_path, 1000)
    sliced = []
    plain = pd.DataFrame.__getitem__
    monkeypatch.setattr(
        pd.DataFrame, "__getitem__", lambda self, key: (sliced.append(len(self)), plain(self, key))[1]
    )
    assert len(record_gains(logs)) == 59
    assert sum(n > 60 for n in sliced) < 10


def test_an_index_with_a_slip_is_refused_and_unlisted_logs_come_after_it(tmp_path):
    for name in ("a.log", "b.log", "c.log"):
        (tmp_path / name).write_text(curve(100))
    (tmp_path / "index.csv").write_text("record,run,log\n1,0,a.log\n20,0,b.log\n")
    assert read_logs(tmp_path).runs["record"].tolist() == [1, 20, 21]
    (tmp_path / "index.csv").write_text("record,run,log\n1,0,a.log\n20000000000,0,b.log\n")
    with pytest.raises(Exception, match="number them in a row"):
        read_logs(tmp_path)
    assert Batches.of(None, "").sizes == Batches.of(0, "").sizes == Batches.of(1.5, "").sizes == ()
