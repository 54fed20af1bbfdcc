"""Logs as JSON lines, and files that hold the logs of several runs: each is read as if it had a file of its own."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import the_log
from test_log_lines import EVALUATED, assert_whole, log_lines, read, table, text_of
from test_records import SOURCE, llmc_log, llmc_output, modded, nanogpt

from sims import cli
from sims.studies.speedruns.folder import read_logs
from sims.studies.speedruns.log import read_log
from sims.studies.speedruns.tables import record_table

RULE = "=" * 100 + "\n"


def as_json(line, change=lambda values: values):
    """A modded-nanogpt line as an object, its times as numbers with the unit in the name."""
    values = {}
    for name, value in (part.split(":") for part in line.split()):
        if name == "step":
            step, planned = value.split("/")
            values |= {"step": int(step), "num_steps": int(planned)}
        elif value.endswith("ms"):
            values[f"{name}_ms"] = float(value[:-2])
        else:
            values[name] = float(value)
    return json.dumps(change(values))


def renamed(**names):
    return lambda values: {names.get(k, k): v for k, v in values.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda line: as_json(line),
        lambda line: as_json(
            line, lambda v: {"time": 17.0, "lr": 0.1, "text": "step:1/2", "note": None, **v}
        ),
        lambda line: as_json(line, lambda v: dict(reversed(v.items()))),
        lambda line: as_json(line, renamed(step="iter", val_loss="val/loss", train_time_ms="elapsed_ms")),
        lambda line: as_json(
            line, lambda v: {"step": v.pop("step"), "val": {"loss": v.pop("val_loss", None)}, **v}
        ),
        lambda line: as_json(
            line, lambda v: {"split": "val" if "val_loss" in v else "train", **renamed(val_loss="loss")(v)}
        ),
        lambda line: as_json(line, lambda v: {**v, "step": f"{v['step']}/{v.pop('num_steps')}"}),
        lambda line: as_json(line, lambda v: {**v, "step": float(v["step"])}),
        lambda line: as_json(
            line, lambda v: {**v, "train_time": f"{v.pop('train_time_ms')} ms", "_step": v["step"] * 3}
        ),
        lambda line: f"[rank0]: {as_json(line)}",
        lambda line: f"2025-01-16 12:00:01,123 - INFO - {as_json(line)}",
        lambda line: f"  {as_json(line)},",
    ],
)
def test_json_lines_are_read(tmp_path, change):
    log = read(tmp_path, text_of(map(change, log_lines())))
    assert log.format == "JSON lines"
    assert_whole(log)


def test_json_lines_whose_times_have_no_unit_have_no_times(tmp_path):
    text = text_of(
        as_json(line, renamed(train_time_ms="train_time", step_avg_ms="step_avg")) for line in log_lines()
    )
    log = read(tmp_path, text)
    assert (log.status, log.reason) == ("partial", "times without a unit are left out")
    assert tuple(table(log)["step"]) == EVALUATED
    assert table(log)["seconds"].isna().all()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"val_loss": 3.9107', '"val_loss": 3.9107, "val_loss": 3.9107', "1 damaged line"),
        ('"val_loss": 3.9107', '"val_loss": true', "1 damaged line"),
        ('"val_loss": 3.9107', '"val_loss": [3.9107]', "1 damaged line"),
        ('"val_loss": 3.9107', '"val_loss": "3.91.07"', "1 damaged line"),
        ('"val_loss": 3.9107', '"val_loss": -3.9107', "1 damaged line"),
        ('"val_loss": 3.9107', '"val_loss": 3.91', ""),
        ('"val_loss": 3.9107', '"val_loss": 3.9107, "loss": 1.0', ""),
        ('"val_loss": 3.9107', '"val_loss": NaN', "diverged: the loss is not finite at step 250"),
        ('"step": 250, "num_steps": 390, "val', '"step": 250.5, "num_steps": 390, "val', "1 damaged line"),
        ('"step": 250, "num_steps": 390, "val', '"step": 950, "num_steps": 390, "val', "1 damaged line"),
        ('"step": 250, "num_steps": 390, "val', '"step" 250, "num_steps": 390, "val', "1 damaged line"),
        ('"val_loss": 3.9107', f'"val_loss": 3.9107, "deep": {"[" * 4000}', "1 damaged line"),
    ],
)
def test_damage_of_json_lines_is_said(tmp_path, old, new, said):
    text = text_of(map(as_json, log_lines()))
    assert old in text or '"step" 250' in new
    log = read(tmp_path, text.replace(old, new))
    assert said in log.reason
    assert log.status == ("partial" if said else "whole")


@pytest.mark.parametrize("length", [1, 2, 3, 20, 60, 74, 75, 76])
def test_json_that_is_cut_in_its_last_line_says_so(tmp_path, length):
    log = read(tmp_path, text_of(map(as_json, log_lines()))[:-length])
    assert log.status == ("whole" if length == 1 else "partial")


def test_json_beside_lines_of_a_program_says_the_same_again(tmp_path):
    log = read(tmp_path, text_of(x for line in log_lines() for x in (line, as_json(line))))
    assert log.format == "modded-nanogpt"
    assert_whole(log)


@pytest.mark.parametrize("blank", ["\t", "\t\t", " \t", "\u00a0", "\u2009", "\u3000"])
@pytest.mark.parametrize("text", [modded(), llmc_log(), llmc_output(), nanogpt()])
def test_blanks_of_any_width_separate_fields(tmp_path, text, blank):
    """All blanks of the lines, and those before a unit."""
    (tmp_path / "plain.log").write_text(text)
    lines = [
        line if "│" in line or "=" in line or "iteration" in line else line.replace(" ", blank)
        for line in text.split("\n")
    ]
    (tmp_path / "blank.log").write_text("\n".join(lines), encoding="utf-8")
    plain, other = the_log(tmp_path / "plain.log"), the_log(tmp_path / "blank.log")
    pd.testing.assert_frame_equal(plain.points.drop(columns="tokens"), other.points.drop(columns="tokens"))
    assert (other.status, other.format) == (plain.status, plain.format)


@pytest.mark.parametrize("blank", ["", " ", "  ", "\t"])
@pytest.mark.parametrize("text", [modded(), llmc_output(), nanogpt()])
def test_a_unit_may_stand_apart_from_its_number(tmp_path, text, blank):
    (tmp_path / "plain.log").write_text(text)
    (tmp_path / "apart.log").write_text(re.sub(r"(?<=\d) ?ms\b", f"{blank}ms", text))
    plain, apart = the_log(tmp_path / "plain.log"), the_log(tmp_path / "apart.log")
    assert np.isfinite(plain.points["seconds"].iloc[-1])
    pd.testing.assert_frame_equal(plain.points, apart.points)
    assert (apart.status, apart.reason) == ("whole", "")


def test_a_number_in_two_parts_is_damage(tmp_path):
    for blank in (" ", "\t"):
        log = read(tmp_path, text_of(log_lines()).replace("val_loss:3.9107", f"val_loss:3.{blank}9107"))
        assert "1 damaged line(s)" in log.reason


def varied(text, number):
    """A log with another loss at step 100."""
    return text.replace("5.0", f"5.{number}")


@pytest.mark.parametrize(
    "text",
    [
        modded(),
        modded(prelude=SOURCE + "val_loss = 0.0\n" + RULE + "nvidia-smi\n" + RULE),
        modded(prelude=RULE + SOURCE + RULE),
        llmc_log(),
        llmc_output(),
        nanogpt(),
        text_of(map(as_json, modded().splitlines()[:1] + modded().splitlines()[2:])),
    ],
    ids=["modded", "with its script", "script between rules", "main.log", "llm.c", "nanoGPT", "JSON"],
)
@given(count=st.integers(2, 4), order=st.randoms(use_true_random=False))
@settings(max_examples=5, deadline=None)
def test_a_file_of_several_logs_is_read_as_each_of_them(tmp_path_factory, text, count, order):
    """The law: a file of logs one after the other gives what the logs give, named file#1, file#2 and so on."""
    folder = tmp_path_factory.mktemp("runs")
    texts = [varied(text, number) for number in order.sample(range(10), count)]
    (folder / "all.log").write_text("".join(texts))
    logs = read_logs(folder)
    assert logs.runs["file"].tolist() == [f"all.log#{i + 1}" for i in range(count)]
    assert logs.runs["name"].tolist() == [f"all#{i + 1}" for i in range(count)]
    assert logs.runs["record"].tolist() == list(range(1, count + 1))
    (folder / "all.log").unlink()
    for i, own in enumerate(texts):
        (folder / f"{i}.log").write_text(own)
    apart = read_logs(folder)
    columns = ["format", "status", "reason", "planned", "timing", "tokens_per_step", "hardware", "settings"]
    pd.testing.assert_frame_equal(apart.runs[columns], logs.runs[columns])
    pd.testing.assert_frame_equal(apart.points.drop(columns="name"), logs.points.drop(columns="name"))


def test_runs_of_a_file_that_is_cut_or_repeats_itself(tmp_path):
    path = tmp_path / "a.log"
    other, longer = varied(modded(), 7), modded(planned=800)
    path.write_text(modded() + other + modded((0, 100), (10.8, 5.0)))
    assert [log.status for log in read_log(path)] == ["whole", "whole", "partial"]
    assert "ends at step 100 of 400" in read_log(path)[-1].reason
    # A run of another length; the same run twice, which is one run; damage keeps the numbers of its lines.
    path.write_text(modded() + longer)
    assert [(log.planned, log.status) for log in read_log(path)] == [(400, "whole"), (800, "partial")]
    path.write_text(modded() + other + modded())
    assert [log.reason for log in read_log(path)] == ["its 6 step(s) stand there twice", ""]
    path.write_text(modded() + other.replace("val_loss:4.0", "val_loss:4.0step:"))
    assert [log.reason for log in read_log(path)] == ["", "1 damaged line(s) left out (line 10)"]
    path.write_text(modded().replace("step:400/400 val_loss:3.2", "step:400/400 val_loss:x") + other)
    assert [log.status for log in read_log(path)] == ["partial"]
    # Without planned steps a shorter run is one that was left.
    path.write_text("s:0 tel:9.0\ns:9 tel:5.0\n" + llmc_log())
    assert [log.reason for log in read_log(path)] == [
        "ends at step 9, where another run of the file ends at step 400",
        "",
    ]


def test_thousands_of_runs_in_a_file_cost_little(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("".join(f"s:0 tel:{9 + i / 1e4}\ns:1 tel:3.0\n" for i in range(3000)))
    assert len(read_log(path)) == 3000


def test_an_index_gives_further_logs_of_a_file_the_next_runs_of_its_record(tmp_path, capsys):
    (tmp_path / "a.log").write_text(modded() + varied(modded(), 7) + varied(modded(), 3))
    (tmp_path / "b.log").write_text(varied(modded(), 5))
    (tmp_path / "c.log").write_text(varied(modded(), 5) + varied(modded(), 6))
    (tmp_path / "index.csv").write_text("record,run,log\n1,0,a.log\n1,1,b.log\n")
    runs = read_logs(tmp_path).runs
    assert runs[["file", "record", "run"]].to_numpy().tolist() == [
        ["a.log#1", 1, 0],
        ["a.log#2", 1, 2],
        ["a.log#3", 1, 3],
        ["b.log", 1, 1],
        ["c.log#1", 2, 0],
        ["c.log#2", 3, 0],
    ]
    assert record_table(read_logs(tmp_path))["file"].tolist() == ["a.log#1", "c.log#1", "c.log#2"]
    assert cli.main(["records", str(tmp_path)]) == 0
    assert "c.log#2" in capsys.readouterr().out
