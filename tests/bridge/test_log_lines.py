"""Lines of training logs: prefixes, units, encodings, ranks, resumed runs; what is damaged is said, not dropped."""

import gzip
import math
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from logs import the_log

from sims.studies.speedruns.folder import read_logs

EVALUATED = (0, 125, 250, 375, 390)
LOSSES = (10.8258, 4.6021, 3.9107, 3.4523, 3.2773)


def training(step, planned=390, unit="ms"):
    shown = f"{57.25 * step:.0f}ms" if unit == "ms" else f"{0.05725 * step:.3f}s"
    return f"step:{step}/{planned} train_time:{shown} step_avg:57.25ms"


def validation(step, loss, planned=390, extra="", unit="ms"):
    shown = f"{57.25 * step + 84:.0f}ms" if unit == "ms" else f"{0.05725 * step + 0.084:.3f}s"
    return f"step:{step}/{planned} val_loss:{loss:.4f}{extra} train_time:{shown} step_avg:57.37ms"


def log_lines(first=0, last=390, extra="", unit="ms"):
    """Lines of a run as it writes them: the training line of a step before its validation line."""
    losses = dict(zip(EVALUATED, LOSSES, strict=True))
    lines = []
    for step in range(first, last + 1):
        if step > first:
            lines.append(training(step, unit=unit))
        if step in losses:
            lines.append(validation(step, losses[step], extra=extra, unit=unit))
    return lines


def text_of(lines):
    return "\n".join(lines) + "\n"


def read(tmp_path, data, name="a.log"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return the_log(path)


def table(log):
    """The validation table of a log."""
    own = log.points[log.points["val_loss"].notna()]
    return own[["step", "val_loss", "seconds", "step_avg_ms"]].reset_index(drop=True)


def assert_whole(log, reason=""):
    assert (log.status, log.reason) == ("whole", reason)
    found = table(log)
    assert tuple(found["step"]) == EVALUATED
    assert tuple(found["val_loss"]) == LOSSES
    np.testing.assert_allclose(found["seconds"], [0.05725 * s + 0.084 for s in EVALUATED], atol=6e-4)
    assert set(found["step_avg_ms"]) == {57.37}


def test_the_validation_line_of_a_step_wins(tmp_path):
    lines = [
        "step:0/1390 val_loss:10.8258 train_time:0ms step_avg:0.02ms",
        "step:1390/1390 train_time:79656ms step_avg:57.31ms",
        "step:1390/1390 val_loss:3.2773 train_time:79740ms step_avg:57.37ms",
    ]
    for text in (lines, [lines[0], lines[2], lines[1]]):
        last = read(tmp_path, text_of(text)).points.iloc[-1]
        assert (last["val_loss"], last["seconds"], last["step_avg_ms"]) == (3.2773, 79.740, 57.37)


@pytest.mark.parametrize(
    ("shown", "seconds"),
    [
        ("22.870s", 22.87),
        ("79740ms", 79.74),
        ("5e5us", 0.5),
        ("2.5min", 150.0),
        ("1.5h", 5400.0),
        ("3µs", 3e-6),
    ],
)
def test_times_have_units(tmp_path, shown, seconds):
    first = "step:0/9 val_loss:10.8 train_time:0s step_avg:nanms\n"
    text = first + f"step:9/9 val_loss:3.2 train_time:{shown} step_avg:182.5us\n"
    log = read(tmp_path, text)
    assert log.status == "whole"
    assert log.points["seconds"].iloc[-1] == pytest.approx(seconds, rel=1e-15)
    assert log.points["step_avg_ms"].iloc[-1] == 0.1825


@pytest.mark.parametrize(
    "extra",
    [
        " val_bpb:1.1023",
        " val_avg_loss:4.4 val_ema_loss:nan",
        " handoff:none extrap_rel:1.000e-03",
        " lr=0.1, note:a",
    ],
)
def test_further_fields_are_no_damage(tmp_path, extra):
    assert_whole(read(tmp_path, text_of(log_lines(extra=extra))))
    assert_whole(read(tmp_path, text_of(line + extra for line in log_lines())))


@pytest.mark.parametrize(
    "change",
    [
        lambda line: f"[rank0]: {line}",
        lambda line: f"0: {line}",
        lambda line: f"2025-01-16 12:00:01,123 - INFO - {line}",
        lambda line: f"[2025-01-16T12:00:01Z] {line}",
        lambda line: f"2025-01-16 12:00:01.123 | INFO     | __main__:main:10 - {line}",
        lambda line: f"\x1b[32m{line}\x1b[0m",
        lambda line: f" 42%|####      | 42/100 [00:01<00:02, 21.00it/s]\r{line}",
        lambda line: f"12:00:01 PM {line}",
        lambda line: f"2025-01-16T12:00:01.123456Z {line}",
        lambda line: f"2025-01-16T12:00:01Z stdout F {line}",
        lambda line: f"trainer-1a {line}",
        lambda line: f"\x1b[1;36m(RayWorker pid=123)\x1b[0m {line}",
        lambda line: f"Jan 16 12:00:01 host python[123]: {line}",
        lambda line: f"{line}   ",
        lambda line: line.replace(" ", ", "),
        lambda line: line.replace(":", ": ").replace("step: ", "step:"),
        lambda line: " ".join([line.split()[0], *reversed(line.split()[1:])]),
        lambda line: " ".join(reversed(line.split())),
    ],
)
def test_what_stands_around_the_fields(tmp_path, change):
    lines = [change(line) for line in log_lines()]
    assert_whole(read(tmp_path, text_of(lines)))
    assert_whole(read(tmp_path, text_of(lines).replace("\n", "\r\n")))


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-32"),
        lambda text: b"\0" * 4096 + text.encode(),
        lambda text: text.encode().replace(b"\nstep:200", b"\n" + b"\0" * 512 + b"step:200"),
        lambda text: text.encode() + b"\0" * 4096,
        lambda text: text.encode().replace(b"\n", b"\nd\xe9j\xe0 vu \xff\n", 3),
    ],
    ids=[
        "bom",
        "utf-16",
        "utf-16-be",
        "utf-16 without a mark",
        "utf-32",
        "NUL first",
        "NUL",
        "NUL last",
        "latin",
    ],
)
def test_encodings(tmp_path, encode):
    assert_whole(read(tmp_path, encode(text_of(log_lines()))))


def test_a_block_of_nul_in_a_line_is_damage(tmp_path):
    text = text_of(log_lines()).replace("val_loss:4.6021", "val_loss:4.6\0\0\0\0")
    log = read(tmp_path, text)
    assert log.status == "partial"
    assert "1 damaged line(s) left out (line 127)" in log.reason
    assert tuple(table(log)["step"]) == (0, 250, 375, 390)


def test_a_resumed_log_goes_on_from_its_checkpoint(tmp_path):
    """The branch that the run left is gone, also where the later one evaluates at other steps."""
    first = [*log_lines(last=300), validation(290, 1.0)]
    log = read(
        tmp_path,
        text_of([*sorted(first, key=lambda x: int(x.split(":")[1].split("/")[0])), *log_lines(first=250)]),
    )
    assert log.status == "partial"
    assert "goes back from step 300 to step 250 at line 305: resumed from a checkpoint" in log.reason
    assert tuple(table(log)["step"]) == EVALUATED
    assert tuple(table(log)["val_loss"]) == LOSSES
    again = [line.replace("3.9107", "3.9000") for line in log_lines(first=250)]
    log = read(tmp_path, text_of(log_lines(last=300) + again))
    assert table(log).set_index("step").loc[250, "val_loss"] == 3.9


def test_a_clock_that_was_not_restored_gives_no_times(tmp_path):
    later = [
        line.replace(f"train_time:{line.split('train_time:')[1].split()[0]}", "train_time:3ms")
        for line in log_lines(first=250)
    ]
    log = read(tmp_path, text_of(log_lines(last=300) + later))
    assert "the clock starts again at step 250" in log.reason
    assert tuple(table(log)["step"]) == EVALUATED
    assert table(log)["seconds"].isna().tolist() == [False, False, True, True, True]


def test_a_log_that_begins_late_has_no_times_of_its_own(tmp_path):
    lines = [validation(250, 3.9).replace("train_time:14396ms", "train_time:0ms"), *log_lines(first=375)]
    log = read(tmp_path, text_of(lines))
    assert "begins at step 250 with the clock at 0" in log.reason
    assert table(log)["seconds"].isna().all()


def test_several_ranks_are_one_run(tmp_path):
    lines = log_lines()
    ranks = [f"[rank{r}]: {line}" for line in lines for r in range(4)]
    assert_whole(read(tmp_path, text_of(ranks)), "4 ranks wrote it, and the lines of rank 0 are taken")
    # Only one of them evaluates.
    ranks = [f"[rank{r}]: {line}" for line in lines for r in range(2) if r == 1 or "val_loss" not in line]
    assert_whole(read(tmp_path, text_of(ranks)), "2 ranks wrote it, and the lines of rank 1 are taken")
    twice = [line for line in lines for _ in range(2)]
    assert_whole(read(tmp_path, text_of(twice)), f"{len(lines)} line(s) stand there twice")


def test_a_run_that_started_again_is_its_last_start(tmp_path):
    log = read(tmp_path, text_of(log_lines(last=130) + [x.replace("4.6021", "4.5000") for x in log_lines()]))
    assert "goes back from step 130 to step 0" in log.reason
    assert tuple(table(log)["val_loss"]) == (LOSSES[0], 4.5, *LOSSES[2:])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("val_loss:3.9107", "val_loss:3.9107 val_loss:3.9107", "1 damaged line"),
        ("val_loss:3.9107", "val_loss:3.91\ufffd07", "1 damaged line"),
        ("val_loss:3.9107", "val_loss:3.91.07", "1 damaged line"),
        ("val_loss:3.9107", "val_loss:-3.9107", "1 damaged line"),
        ("val_loss:3.9107 ", "val_loss:3.91\n", "1 damaged line"),
        ("step:250/390 val", "step:2b0/390 val", "1 damaged line"),
        ("step:250/390 val", "step:-250/390 val", "1 damaged line"),
        ("step:250/390 val", "step:950/390 val", "1 damaged line"),
        ("step:250/390 val", "step:25000000000000000000000/390 val", "1 damaged line"),
        ("step:250/390 val", "Xstep:250/390 val", "1 damaged line"),
        ("\nstep:250/390 val", "step:250/390 val", "1 damaged line"),
        ("step:250/390 val", "step:240/390 val", "1 line(s) out of order"),
        ("step:250/390 val", "step:250/900 val", "some lines plan 900 steps"),
        ("val_loss:3.9107", "val_loss:1e400", "diverged: the loss is not finite at step 250"),
        ("val_loss:3.9107", "val_loss:-inf", "1 damaged line"),
        ("val_loss:3.9107", "val_loss:nan", "diverged: the loss is not finite at step 250"),
        ("train_time:14396ms", "train_time:14396m", "1 damaged line"),
        ("train_time:14396ms", "train_time:1e400ms", ""),
        ("train_time:14396ms", "train_time:14396", "without a unit"),
        ("train_time:14396ms", "train_time:4396ms", "the clock goes back (step 250)"),
        (
            "step:250/390 val",
            "step:125/390 val_loss:9.0 train_time:1ms step_avg:1ms\nstep:250/390 val",
            "out of order",
        ),
    ],
)
def test_damage_is_said(tmp_path, old, new, said):
    text = text_of(log_lines())
    assert old in text
    log = read(tmp_path, text.replace(old, new))
    assert said in log.reason
    assert log.status == ("partial" if said else "whole")


@pytest.mark.parametrize("length", range(1, 65))
def test_a_log_that_is_cut_in_its_last_line_says_so(tmp_path, length):
    """No cut gives a number that the log does not have."""
    text = text_of(log_lines())
    log = read(tmp_path, text[:-length])
    kept = table(log)
    full = dict(zip(EVALUATED, LOSSES, strict=True))
    assert all(full[step] == loss for step, loss in zip(kept["step"], kept["val_loss"], strict=True))
    assert log.status == ("whole" if length == 1 else "partial")


def test_other_beginnings_are_not_lines_of_the_run(tmp_path):
    lines = [*log_lines(), "tailavg step:390 tau:25 lambda:0.25 val_loss:3.1"]
    log = read(tmp_path, text_of(lines))
    assert tuple(table(log)["val_loss"]) == LOSSES
    assert f"1 damaged line(s) left out (line {len(lines)})" in log.reason


def test_the_source_in_a_log_is_not_read_as_lines(tmp_path):
    source = 'import torch\n"""\nstep:390/390 val_loss:1.0000 train_time:1ms step_avg:1.00ms\n"""\n# val_loss:3.28\n'
    rule = "=" * 100 + "\n"
    assert_whole(read(tmp_path, source + rule + text_of(log_lines())))
    assert_whole(read(tmp_path, rule + source + rule + text_of(log_lines())))


@pytest.mark.slow
def test_hostile_files_cost_little(tmp_path):
    """100 MB in one line, binary data, thousands of restarts, numbers of thousands of digits."""
    begin = time.process_time()
    text = text_of(log_lines())
    assert_whole(read(tmp_path, text + "x" * 10**8))
    log = read(tmp_path, "step:1/2 " + "val_loss:1 " * 10**6)
    assert (log.status, log.points.empty) == ("refused", True)
    assert read(tmp_path, np.random.default_rng(0).bytes(10**6)).status == "refused"
    restarts = [training(step % 2 + 100) for step in range(20_000)]
    assert read(tmp_path, text_of(restarts)).status == "partial"
    assert (
        read(tmp_path, f"tokens per iteration will be: {'9' * 5000}\niter 1: loss 3.0, time 1.0ms\n").status
        == "partial"
    )
    assert (
        read(tmp_path, f"step:{'9' * 5000}/{'9' * 5000} val_loss:3 train_time:1ms step_avg:1ms\n").status
        == "refused"
    )
    assert time.process_time() - begin < 30
    assert the_log(tmp_path).reason == "is not a file"


@given(
    st.binary(max_size=400)
    | st.text(alphabet="step:/val_lo0123. \n\r\0\x1bmsn=|", max_size=400).map(str.encode)
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    log = read(tmp_path_factory.mktemp("any"), data)
    assert log.status in ("whole", "partial", "refused")
    assert log.points.empty == (log.status == "refused")
    if log.status == "refused":
        assert log.reason


SHORT = [
    line for line in log_lines() if "val_loss" in line or int(line.split(":")[1].split("/")[0]) % 25 == 1
]
TRAINING = [i for i, line in enumerate(SHORT) if "val_loss" not in line]


@given(
    st.sampled_from(TRAINING),
    st.integers(0, 60),
    st.integers(0, 12),
    st.binary(max_size=12)
    | st.sampled_from([b"\n", b"\r", b"\0\0", b"step:", b"9", b"-", b"\xff", b"val_", b" step:250/390 "]),
)
@example(TRAINING[3], 60, 12, b"")
@settings(max_examples=250, deadline=None)
def test_a_change_of_other_lines_changes_no_validation_in_silence(tmp_path_factory, line, at, removed, put):
    """Bytes of one training line, its line end included, are removed, replaced or inserted."""
    lines = [(text + "\n").encode() for text in SHORT]
    own = lines[line]
    at = min(at, len(own))
    lines[line] = own[:at] + put + own[at + removed :]
    folder = tmp_path_factory.mktemp("changed")
    plain, log = read(folder, text_of(SHORT), "plain.log"), read(folder, b"".join(lines))
    assert plain.status == "whole"
    if log.status == "whole" and not log.reason:
        assert table(log).equals(table(plain))


def test_files_of_every_ending_below_the_folder_are_read(tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    for name in ("a.STDOUT", "b/a.log", "b/a.txt", "b/deep/a.out", ".git/a.log"):
        (tmp_path / name).write_text(text_of(log_lines()))
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    logs = read_logs(tmp_path, 1000)
    assert logs.runs["file"].tolist() == ["a.STDOUT", "b/a.log", "b/a.txt", "b/deep/a.out"]
    assert logs.runs["name"].is_unique
    assert all(len(logs.curve(name)) == len(EVALUATED) for name in logs.runs["name"])
    assert math.isclose(logs.points["tokens"].max(), 390_000)


def test_steps_and_times_in_groups_of_three_digits_are_read(tmp_path):
    """ "step:1,000/1,390" ended "at step 0 of 1"."""
    lines = [
        f"step:{s:,}/1,390 val_loss:{5 - s / 1000:.4f} train_time:{57 * s:,}ms step_avg:57.00ms"
        for s in (0, 1000, 1390)
    ]
    (tmp_path / "a.log").write_text("\n".join(lines) + "\n")
    log = the_log(tmp_path / "a.log")
    assert (log.status, log.reason) == ("whole", "")
    assert log.points["step"].tolist() == [0, 1000, 1390]
    assert log.points["seconds"].tolist() == [0.0, 57.0, 79.23]
    assert log.points["val_loss"].tolist() == [5.0, 4.0, 3.61]


def test_a_comma_in_a_loss_is_damage_and_no_thousands(tmp_path):
    lines = ["step:0/300 val_loss:10.8258 train_time:0ms", "step:300/300 val_loss:3,277 train_time:30,000ms"]
    (tmp_path / "a.log").write_text("\n".join(lines) + "\n")
    log = the_log(tmp_path / "a.log")
    assert log.points["val_loss"].tolist() == [10.8258]
    assert "1 damaged line(s) left out (line 2)" in log.reason


@pytest.mark.parametrize("name", ["a.log", "a.log.gz", "a.TXT.GZ"])
def test_a_compressed_log_is_named(tmp_path, name):
    """a.log.gz was passed over without a word, and a.log "is not text"."""
    (tmp_path / "b.log").write_text(text_of(log_lines()))
    (tmp_path / name).write_bytes(gzip.compress(text_of(log_lines()).encode()))
    runs = read_logs(tmp_path).runs.set_index("file")
    assert runs.loc["b.log", "status"] == "whole"
    assert (runs.loc[name, "status"], runs.loc[name, "reason"]) == (
        "refused",
        "is compressed (gzip); unpack it",
    )
