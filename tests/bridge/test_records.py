"""Training logs: every format comes out as the same tables, and what is wrong with a file is said, never dropped."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from logs import the_log

from sims import cli
from sims.studies.speedruns.folder import read_logs
from sims.studies.speedruns.log import POINTS
from sims.studies.speedruns.tables import record_gains, record_table, run_spread
from sims.system.errors import StoreError

SHARED = Path(__file__).parents[3] / "shared" / "nanogpt_records"
STEPS = (0, 100, 200, 300, 400)
LOSSES = (10.8, 5.0, 4.0, 3.5, 3.2)

SOURCE = """import torch
@dataclass
class Hyperparameters:
    input_bin : str = 'data/*.bin'
    batch_size : int = 8*64 # sequences
    sequence_length : int = 1024
    num_iterations : int = 400
    learning_rate : float = 0.0036
    log_dir : str = os.path.join('a', 'b')
"""
CARD = "|   {}  NVIDIA H100 80GB HBM3          On  |   00000000:19:00.0 Off |                    0 |\n"


def modded(steps=STEPS, losses=LOSSES, planned=400, ms=150.0, prelude=""):
    lines = [
        f"step:{s}/{planned} val_loss:{v:.4f} train_time:{max(s - 10, 0) * ms:.0f}ms "
        f"step_avg:{'nan' if s == 0 else f'{ms:.2f}'}ms"
        for s, v in zip(steps, losses, strict=True)
    ]
    lines.insert(1, f"step:1/{planned} train_loss:10.1 train_time:90ms step_avg:nanms")
    return prelude + "\n".join(lines) + "\n"


def llmc_log():
    lines = ["s:0 eval:0.2470"]
    for s, v in zip(STEPS, LOSSES, strict=True):
        lines += [f"s:{s} tel:{v:.4f}", f"s:{s} trl:{v + 0.1:.4f} lr:0.000600 norm:0.50"]
    return "\n".join(lines) + "\n"


def llmc_output():
    head = (
        "| device                | NVIDIA A100-SXM4-80GB                              |\n"
        "| total batch size      | 524288                                             |\n"
        "| learning rate (LR)    | 6.000000e-04                                       |\n"
    )
    lines = [f"val loss {LOSSES[0]:.6f}"]
    for s, v in zip(STEPS[1:], LOSSES[1:], strict=True):
        lines += [
            f"step {s:4d}/400 | loss {v + 0.1:7.6f} (+nanz)| norm 1.2000 (+0.10z)| lr 6.00e-04 | 2500.00 ms | "
            "41.2% bf16 MFU | 209715 tok/s",
            f"val loss {v:.6f}",
        ]
    return head + "\n".join(lines) + "\n"


def nanogpt():
    lines = [
        "Overriding config with config/train.py:",
        "batch_size = 12",
        "learning_rate = 6e-4 # the largest",
        "Overriding: compile = False",
        "tokens per iteration will be: 491,520",
    ]
    for s, v in zip(STEPS, LOSSES, strict=True):
        ms = 90000.0 if s == 0 else 250.0
        lines += [
            f"step {s}: train loss {v - 0.1:.4f}, val loss {v:.4f}",
            f"iter {s}: loss {v:.4f}, time {ms:.2f}ms, mfu -100.00%",
        ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "name", "tokens", "step_ms", "timing"),
    [
        (modded(prelude=SOURCE + "=" * 100 + "\n"), "modded-nanogpt", 524288, 150.0, "logged"),
        (llmc_log(), "llm.c main.log", None, math.nan, ""),
        (llmc_output(), "llm.c output", 524288, 2500.0, "median step"),
        (nanogpt(), "nanoGPT", 491520, 250.0, "median step"),
    ],
    ids=["modded", "main.log", "llm.c", "nanoGPT"],
)
def test_every_format_comes_out_as_the_same_table(tmp_path, text, name, tokens, step_ms, timing):
    path = tmp_path / "a.log"
    path.write_text(text)
    log = the_log(path)
    assert (log.format, log.status, log.reason, log.timing) == (name, "whole", "", timing)
    assert log.header.tokens_per_step == tokens
    assert tuple(log.points.columns) == POINTS
    curve = log.points[log.points["val_loss"].notna()]
    assert tuple(curve["step"]) == STEPS
    assert tuple(curve["val_loss"]) == LOSSES
    np.testing.assert_array_equal(curve["tokens"], np.array(STEPS) * (tokens or math.nan))
    last = log.points.iloc[-1]
    np.testing.assert_equal(last["step_avg_ms"], step_ms)
    untimed = 10 if timing == "logged" else 0
    np.testing.assert_allclose(last["seconds"], (400 - untimed) * step_ms / 1e3)
    # Tokens given from elsewhere serve where the log is silent, and are checked where it is not.
    given = the_log(path, 1000)
    if tokens is None:
        assert given.points["tokens"].iloc[-1] == 400 * 1000
    else:
        assert given.status == "refused"
        assert f"{tokens} tokens, but 1000" in given.reason


def test_what_stands_beside_the_lines(tmp_path):
    path = tmp_path / "a.log"
    path.write_text(modded(prelude=SOURCE + "=" * 100 + "\n" + "".join(CARD.format(i) for i in range(8))))
    header = the_log(path).header
    assert header.hardware == "8 × NVIDIA H100 80GB HBM3"
    # What would have to be executed is left out.
    assert header.settings == {
        "input_bin": "data/*.bin",
        "batch_size": 512,
        "sequence_length": 1024,
        "num_iterations": 400,
        "learning_rate": 0.0036,
    }
    path.write_text(modded(prelude="class Hyperparameters:\n    batch_size : int = 8*\n" + "=" * 100 + "\n"))
    assert the_log(path).header.settings == {}
    path.write_text(llmc_output())
    assert the_log(path).header.settings["learning rate (LR)"] == 6e-4
    assert the_log(path).header.hardware == "NVIDIA A100-SXM4-80GB"
    path.write_text(nanogpt())
    assert the_log(path).header.settings == {"batch_size": 12, "learning_rate": 6e-4, "compile": False}


def test_both_losses_of_a_step_are_in_its_row(tmp_path):
    for name, text, beside in (("a", llmc_log(), 0.1), ("b", llmc_output(), 0.1), ("c", nanogpt(), -0.1)):
        (tmp_path / name).write_text(text)
        row = the_log(tmp_path / name).points.set_index("step").loc[300]
        # nanoGPT names two training losses of a step: the evaluation's, over many batches, counts.
        np.testing.assert_allclose([row["val_loss"], row["train_loss"]], [3.5, 3.5 + beside])


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("", "refused", "is empty"),
        (" \n", "refused", "is empty"),
        ("once upon a time\n", "refused", "no line of a training log"),
        ("step:1/2\0", "refused", "not text"),
        (modded() + nanogpt(), "refused", "mixes logs of several programs"),
        (modded() + modded(), "whole", "its 6 step(s) stand there twice"),
        ("step:100/400 val_lo", "refused", "no whole line"),
        (modded(STEPS[:3], LOSSES[:3]), "partial", "ends at step 200 of 400"),
        (modded()[:-9], "partial", "1 damaged line(s) left out (line 6); ends at step 300 of 400"),
        (modded().replace("val_loss:4.0000 ", "val_loss:4.0step:"), "partial", "1 damaged line(s)"),
        (
            modded(losses=(10.8, 5.0, math.nan, math.nan, math.nan)),
            "partial",
            "not finite at step 200 and later",
        ),
        (llmc_log().rstrip("\n")[:-25], "partial", "last line does not end"),
        ("s:1 trl:3.0\n", "partial", "no validation loss"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, status, said):
    path = tmp_path / "a.log"
    path.write_text(text)
    log = the_log(path)
    assert log.status == status
    assert said in log.reason
    assert log.points.empty == (status == "refused")


def test_a_cut_number_is_not_taken_for_a_loss(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("s:0 tel:10.8\ns:100 tel:3.4\ns:200 tel:3.2567"[:-3])
    assert the_log(path).points["val_loss"].tolist() == [10.8, 3.4]


def indexed(folder, entries):
    """A folder with an index: entries of (record, run, text or None where the log is not there)."""
    rows = []
    for record, run, text in entries:
        name = f"record{record}_{run}.log"
        if text is not None:
            (folder / name).write_text(text)
        rows.append({"record": record, "run": run, "log": name, "date": "2024", "change": f"change {record}"})
    pd.DataFrame(rows).assign(tokens_per_step=1000).to_csv(folder / "index.csv", index=False)


@pytest.fixture
def records(tmp_path):
    """Records 1 to 6: 1 has no times, 3 is not listed, 4 has three runs, 5 is cut early, 6 is listed and not there."""
    faster = tuple(s // 2 for s in STEPS)
    runs = [(4, run, modded(faster, np.array(LOSSES) + d, 200, 150.3)) for run, d in ((1, 0.02), (2, -0.01))]
    indexed(
        tmp_path,
        [
            (1, 0, "".join(f"s:{s} tel:{v}\n" for s, v in zip(STEPS, LOSSES, strict=True))),
            (2, 0, modded()),
            (4, 0, modded(faster, LOSSES, 200, ms=150.0)),
            *runs,
            (5, 0, modded(faster[:3], LOSSES[:3], 200, ms=100.0)),
            (6, 0, None),
        ],
    )
    (tmp_path / "README.md").write_text("Record 1 was another program.")
    return tmp_path


def test_records_are_rows_with_their_gaps(records):
    table = record_table(read_logs(records), 3.35).set_index("record")
    assert list(table.index) == [1, 2, 3, 4, 5, 6]
    # 3.35 lies half way between 3.5 at step 300 and 3.2 at step 400, of 1000 tokens each.
    assert table.loc[2, "tokens_to_target"] == pytest.approx(350_000)
    assert table.loc[2, "bracket"] == 100_000
    assert table.loc[2, "seconds_to_target"] == pytest.approx(0.15 * 340)
    assert table.loc[2, "tokens_per_second"] == pytest.approx(1000 / 0.15)
    assert table.loc[1, "tokens_to_target"] == pytest.approx(350_000)
    assert table.loc[1, "reason"] == "no times"
    assert math.isnan(table.loc[1, "tokens_per_second"])
    assert (table.loc[3, "status"], table.loc[3, "reason"]) == ("missing", "no log")
    assert table.loc[5, "status"] == "partial"
    assert "ends at step 100 of 200; never reaches 3.35" in table.loc[5, "reason"]
    assert (table.loc[6, "status"], table.loc[6, "reason"]) == (
        "missing",
        "index.csv lists it, but it is not there",
    )


def test_logs_of_a_loss_that_never_falls_have_no_gain_over_quantiles(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.log").write_text(modded(losses=(4.0,) * 5))
    (row,) = record_gains(read_logs(tmp_path, 1_000), 3.35).to_dict("records")
    assert math.isnan(row["proximal"])
    assert row["throughput_gain"] == 0


def test_gains_and_outcomes_of_transitions(records):
    gains = record_gains(read_logs(records), 3.35).set_index(["before", "after"])
    assert list(gains.index) == [(1, 2), (2, 3), (2, 4), (3, 4), (4, 5), (5, 6)]
    there = gains.loc[(2, 4)]
    assert there["token_gain"] == pytest.approx(1.0)
    assert there["proximal"] == pytest.approx(1.0)
    assert there["throughput_gain"] == pytest.approx(0.0)
    assert (there["outcome"], there["reason"]) == ("learning", "across record 3")
    assert gains.loc[(1, 2), "token_gain"] == pytest.approx(0.0)
    assert gains.loc[(1, 2), "outcome"] == "cannot tell"
    assert gains.loc[(1, 2), "reason"] == "record 1: no times"
    assert gains.loc[(2, 3), "reason"] == "record 3: no log"
    assert math.isnan(gains.loc[(4, 5), "token_gain"])
    assert gains.loc[(4, 5), "throughput_gain"] == pytest.approx(0.5)
    assert math.isnan(gains.loc[(5, 6), "proximal"])


def test_the_interval_is_the_spread_between_runs(records):
    logs = read_logs(records)
    spread = run_spread(logs)
    assert (spread.freedom, spread.records) == (2, (4,))
    # By hand: the runs to the loss that all of them reached, 3.22, between step 150 and step 200.
    steps = [150 + 50 * (v - 3.22) / 0.3 for v in (3.5, 3.52, 3.49)]
    assert spread.tokens == pytest.approx(np.std(np.log(steps), ddof=1))
    assert spread.throughput == pytest.approx(np.std(np.log([150, 150.3, 150.3]), ddof=1))
    row = record_gains(logs, 3.35).set_index(["before", "after"]).loc[(2, 4)]
    half = (
        4.302652729749464 * math.sqrt(2) * spread.tokens
    )  # Student's t at 97.5 % with two degrees of freedom
    assert row["token_gain_low"] == pytest.approx(2 * math.exp(-half) - 1)
    assert row["token_gain_high"] == pytest.approx(2 * math.exp(half) - 1)
    assert row["settled"] == "learning"
    # A run at another speed is another machine or other code, and says nothing about seeds.
    (records / "record4_2.log").write_text(modded(STEPS, LOSSES, 400, ms=170.0))
    assert run_spread(read_logs(records)).freedom == 0
    assert set(record_gains(read_logs(records), 3.35)["settled"]) == {"cannot tell"}


def test_a_folder_without_an_index_has_a_record_a_file(tmp_path):
    for name in ("run10.log", "run2.txt", "run1.out"):
        (tmp_path / name).write_text(modded())
    (tmp_path / "picture.png").write_bytes(b"x")
    (tmp_path / "other.log").write_text("nothing of the kind")
    logs = read_logs(tmp_path, 1000)
    assert logs.runs["file"].tolist() == ["other.log", "run1.out", "run2.txt", "run10.log"]
    assert logs.runs["status"].tolist() == ["refused", "whole", "whole", "whole"]
    assert logs.points["tokens"].max() == 400_000
    assert "tokens a step are not known" in record_table(read_logs(tmp_path))["reason"].iloc[1]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("record,run\n1,0\n", "no column log"),
        ("record,run,log\nx,0,a.log\n", "whole numbers"),
        ("record,run,log\n1,0,a.log\n1,0,b.log\n", "record and run 1 0 twice"),
        ("record,run,log\n1,0,a.log\n2,0,a.log\n", "twice"),
        ("record,run,log\n1,0,../a.log\n", "without a path"),
        ("record,run,log,tokens_per_step\n1,0,a.log,0\n", "outside 1"),
        ("record,run,log,tokens_per_step\n1,0,a.log,9999999999999999\n", "outside 1"),
        ("", "cannot be read as a table"),
    ],
)
def test_an_index_that_cannot_be_used_is_refused(tmp_path, index, said):
    (tmp_path / "a.log").write_text(modded())
    (tmp_path / "index.csv").write_text(index)
    with pytest.raises(StoreError, match=said):
        read_logs(tmp_path)


def test_folders_with_little_in_them(tmp_path, capsys):
    """One record, or none that can be read: tables and figure come out all the same."""
    for number, text in enumerate(("nothing of the kind", modded())):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.log").write_text(text)
        assert cli.main(["bridge", "records", str(folder), "--figure", str(folder / "a.png")]) == 0
        assert (folder / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "no line of a training log" in capsys.readouterr().out
    (tmp_path / "2").mkdir()
    indexed(tmp_path / "2", [(1, 1, modded()), (2, 0, modded())])
    assert "no run 0" in record_table(read_logs(tmp_path / "2"))["reason"].iloc[0]


def test_folders_that_hold_no_logs(tmp_path):
    with pytest.raises(StoreError, match="holds no training log"):
        read_logs(tmp_path)
    with pytest.raises(StoreError, match="not a folder"):
        read_logs(tmp_path / "gone")
    with pytest.raises(StoreError, match="must lie in 1"):
        read_logs(tmp_path, 0)


def test_the_command_prints_and_writes_the_tables(records, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["bridge", "records", str(records), "--target", "3.35", "--out", str(out)]
    assert cli.main([*call, "--figure", str(tmp_path / "a.svg")]) == 0
    said = capsys.readouterr().out
    assert "record 3: no log" in said
    assert "Record 1 was another program." in said
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    for ending, read in (("json", pd.read_json), ("parquet", pd.read_parquet), ("csv", pd.read_csv)):
        assert cli.main([*call, "--format", ending]) == 0
        table = read(out / f"records.{ending}")
        assert table["record"].tolist() == [1, 2, 3, 4, 5, 6]
        assert table["tokens_to_target"].iloc[1] == pytest.approx(350_000)
        assert len(read(out / f"transitions.{ending}")) == 6
    runs = pd.read_csv(out / "runs.csv")
    assert json.loads(runs["settings"].iloc[1]) == {}
    assert cli.main([*call[:3], "--figure", str(tmp_path / "a.pdf")]) == 2
    assert "an .svg or .png file" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the published logs are not at {SHARED}")
def test_the_published_logs():
    logs = read_logs(SHARED)
    assert set(logs.runs["status"]) == {"whole"}
    table = record_table(logs).set_index("record")
    assert list(table.index) == list(range(1, 21))
    assert table.index[table["status"] == "missing"].tolist() == [3]
    assert table.index[table["reason"] == "no times"].tolist() == [1, 2]
    # Read off the log by eye: 3.2820 at step 1375, 3.2785 at step 1393, of 524,288 tokens each.
    assert table.loc[20, "tokens_to_target"] == pytest.approx(524288 * (1375 + 18 * 0.0020 / 0.0035))
    gains = record_gains(logs).set_index(["before", "after"])
    assert gains.loc[(7, 8), "outcome"] == gains.loc[(7, 8), "settled"] == "learning"
    # The two that changed the execution alone.
    assert set(gains.loc[[(5, 6), (6, 7)], "settled"]) == {"throughput"}
    assert gains.loc[(2, 3), "reason"].endswith("record 3: no log")
    assert run_spread(logs).records == (13, 14, 15, 16)
