"""Folders of runs that nobody planned for: a result that holds, or status 2 and one line; nothing is lost."""

import ast
import errno
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from listed import finished, unsealed

import sims
from sims import cli
from sims.analysis.caveats import caveats
from sims.analysis.cells import usable
from sims.analysis.runs import load
from sims.measure.rows import MeasurementRows
from sims.runs.folders import listing
from sims.runs.layout import TEXT, TOY
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.runs.sql import connect
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError, StoreError
from toymodel.config import RunConfig


@pytest.fixture
def told(capsys):
    """told(words…): the exit status of a command, its output and its errors."""

    def run(*words):
        status = cli.main([str(word) for word in words])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def rewritten(run, name, change):
    """Write a table again with a change, as another program does; the run then has no digests."""
    file = run / f"{name}.parquet"
    change(pd.read_parquet(file)).to_parquet(file)
    unsealed(run)


def language_model(out, seed=0, losses=(4.0,), ended="finished", **fields):
    """A measured run of a language model; a loss a step."""
    config = LmRun(f"lm-{seed}", "rope", 8, lr=None, seed=seed, steps=6, tokens_per_step=1000, **fields)
    run = RunFolder(out / config.run_id)
    run.start(config, LmMeasureConfig(), {})
    for step, loss in enumerate(losses or (math.nan,)):
        sheet = MeasurementRows(step, step * 1000)
        if losses:
            sheet.row("val_loss", "loss", "validation", loss)
        run.keep_part(step, sheet.rows, sheet.spectra)
    last = losses[-1] if losses else math.nan
    run.finish({"ended": ended, "step": 6, "tokens": 6000, "val_loss": last, "seconds": {"training": 1.0}})
    return run


def test_a_table_that_pandas_wrote_is_read_where_the_values_are_those_of_the_format(tmp_path, told):
    run = finished(tmp_path, RunConfig()).path
    before = RunFolder(run).rows()
    rewritten(run, "rows", lambda rows: rows)
    pd.testing.assert_frame_equal(RunFolder(run).rows(), before)
    rewritten(run, "rows", lambda rows: rows.iloc[:0])
    for words in (("compare", tmp_path), ("show", run), ("report", tmp_path)):
        assert told(*words)[0] == 0
    rewritten(run, "rows", lambda rows: rows.assign(value="high"))
    for words in (
        ("compare", tmp_path),
        ("show", run),
        ("export", tmp_path, "--to", tmp_path / "x.csv", "--table", "rows"),
    ):
        status, _, said = told(*words)
        assert status == 2
        assert "has value of type" in said.splitlines()[-1]


def test_links_that_lead_nowhere_hide_no_run(tmp_path):
    finished(tmp_path, RunConfig())
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert list(listing(tmp_path)["status"]) == ["done"]


@pytest.mark.parametrize("file", ["rows.parquet", "run.json", "done.json", "new.csv"])
def test_an_export_does_not_replace_files_of_a_run(tmp_path, told, file):
    run = finished(tmp_path, RunConfig()).path
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    status, _, said = told("export", tmp_path, "--to", run / file)
    assert (status, len(said.splitlines())) == (2, 1)
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_an_export_does_not_replace_the_record_of_a_sweep(tmp_path, told):
    finished(tmp_path, RunConfig())
    assert told("export", tmp_path, "--to", tmp_path / "campaign.json")[0] == 2
    assert not (tmp_path / "campaign.json").exists()


def test_labels_from_a_damaged_configuration_are_not_shown(tmp_path, told):
    """One changed character of run.json gives every row of the run another stage."""
    run = finished(tmp_path, RunConfig(stage="rope")).path
    file = run / "run.json"
    file.write_text(file.read_text().replace('"rope"', '"muon"'))
    for words in (("show", run), ("export", tmp_path, "--to", tmp_path / "x.csv", "--table", "rows")):
        status, shown, said = told(*words)
        assert (status, shown) == (2, "")
        assert "run.json cannot be read (its SHA-256" in said
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("content", ["null", "[]", "7", '"x"'])
def test_a_provenance_that_is_no_record_is_shown_as_none(tmp_path, told, content):
    run = finished(tmp_path, RunConfig()).path
    (run / "provenance.json").write_text(content)
    assert told("show", run)[0] == 0


def test_two_kinds_of_runs_stand_side_by_side_and_are_compared_apart(tmp_path, told):
    toy, text = tmp_path / "toy", tmp_path / "text"
    for seed in (0, 1):
        finished(toy, RunConfig(seed=seed))
        language_model(text, seed)
    status, shown, _ = told("compare", toy, text)
    assert status == 0
    assert "baseline" in shown
    assert len(load(toy, TOY).runs) == len(load(text, TEXT).runs) == 2
    for folders in ((toy, toy), (text, text), (text, toy)):
        status, _, said = told("carry-over", *folders, "--out", tmp_path / "page.html")
        assert (status, len(said.splitlines())) == (2, 1)
        assert "each kind in one of its own" in said
    language_model(toy)
    with pytest.raises(StoreError, match=r"holds runs of language models or watched models \(lm-0\)"):
        load(toy, TOY)


def test_seeds_of_watched_models_form_one_cell(tmp_path, told):
    """Their names, and the ids that tell them apart, are no settings."""
    for seed in (0, 1, 2):
        language_model(tmp_path, seed, losses=(4.0 + seed,), model={"kind": "watched", "id": f"i{seed}"})
    status, shown, _ = told("compare", tmp_path, "--json")
    found = json.loads(shown)
    assert status == 0
    assert found["fields"] == []
    assert [cell["runs"] for cell in found["cells"]] == [3]
    assert len(json.loads(told("compare", tmp_path, "--json", "--each")[1])["cells"]) == 3


def test_runs_of_which_nothing_could_be_measured_are_shown_as_diverged(tmp_path, told):
    language_model(tmp_path, losses=(), ended="diverged")
    for command in ("compare", "report"):
        status, shown, _ = told(command, tmp_path)
        assert status == 0
        assert "1, 1 diverged" in shown


@pytest.mark.parametrize(
    ("losses", "ended"), [((4.0, math.nan), "diverged"), ((3.0,), "target")], ids=["diverged", "at once"]
)
def test_runs_that_never_learned_have_a_report_or_a_reason(tmp_path, told, losses, ended):
    for seed in (0, 1):
        finished(tmp_path, replace(RunConfig(), seed=seed), losses, ended)
    status, shown, _ = told("report", tmp_path)
    assert status == 0
    assert ("all of these runs diverged" in shown) == (ended == "diverged")


def test_a_batch_size_that_is_not_there_is_told_those_that_are(tmp_path, told):
    run = finished(tmp_path, RunConfig())
    assert told("bands", tmp_path)[2] == (
        f"speclens: {tmp_path} holds no complete run with checkpoints; make some with `speclens demo`\n"
    )
    (run.path / "checkpoints" / "step-000000000.safetensors").touch()
    assert "but at 32; name one of them" in told("bands", tmp_path, "--batch-size", "7")[2]


@pytest.mark.parametrize("value", ["3", "'x'", "'99999'"])
def test_a_condition_on_a_time_that_is_none_is_refused_in_one_line(tmp_path, told, value):
    finished(tmp_path, RunConfig())
    status, _, said = told("ls", tmp_path, "--where", f"when > {value}")
    assert (status, len(said.splitlines())) == (2, 1)
    assert "write times as" in said


def test_the_table_of_windows_has_an_ending_before_it_is_computed(tmp_path, told):
    status, shown, said = told("windows", tmp_path / "nowhere", "--out", tmp_path / "windows.txt")
    assert (status, shown) == (2, "")
    assert "ends in '.txt'" in said


@pytest.mark.parametrize(
    "words",
    [
        ("robustness", "runs", "--sequences", "0"),
        ("robustness", "runs", "--out", "file"),
        ("bands", "runs", "--out", "file/below"),
        ("theory", "--seed", "-1"),
        ("theory", "--out", "file"),
        ("theory", "--out", "file/page.html"),
        ("train", "lm", "--data", "runs", "--micro-batch", "0"),
        ("train", "lm", "--data", "runs", "--micro-batch", "-3"),
    ],
    ids=" ".join,
)
def test_what_cannot_come_out_is_refused_before_the_work(tmp_path, monkeypatch, told, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").write_text("kept")
    status, shown, said = told(*words)
    assert (status, shown, len(said.splitlines())) == (2, "", 1)
    assert any(
        rule in said for rule in ("must be at least", "must lie in", "must be 0 or positive", "a file")
    )
    assert (tmp_path / "file").read_text() == "kept"


def test_two_runs_of_one_seed_are_named_and_none_is_chosen(tmp_path, capsys):
    """They differ in a field that labels do not show: no analysis may take one of them without a word."""
    for seed, steps in ((0, 20), (1, 20), (0, 40)):
        finished(tmp_path, RunConfig(stage="muon", seed=seed, steps=steps))
    runs = load(tmp_path)
    with pytest.raises(MeasureError, match=r"muon at B = 32 has 2 runs of seed 0 \(muon-.*, muon-"):
        usable(runs)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "2 runs of seed 0" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{}", "[]", "null", '"done"', '{"ended": "finished"}'])
@pytest.mark.parametrize("words", [("report",), ("compare",), ("export", "--to", "x.csv", "--table", "rows")])
def test_an_outcome_that_says_nothing_is_one_line(tmp_path, monkeypatch, told, content, words):
    """KeyError 'ended'."""
    monkeypatch.chdir(tmp_path)
    run = finished(tmp_path / "runs", RunConfig()).path
    (run / "done.json").write_text(content)
    status, _, said = told(words[0], "runs", *words[1:])
    assert status == 2
    assert "done.json" in said or "complete" in said


@pytest.mark.parametrize("content", ["null", "[]", "3", '"train"', "{"])
def test_a_record_of_a_sweep_that_is_none_is_one_line(tmp_path, told, content):
    """TypeError: 'NoneType' object is not iterable."""
    (tmp_path / "campaign.json").write_text(content)
    status, _, said = told("train", "small", "--out", tmp_path, "--steps", 2)
    assert status == 2
    assert "campaign.json" in said
    assert not list(tmp_path.glob("*/"))


def test_a_name_that_is_not_utf_8_is_named(tmp_path, told):
    """UnicodeEncodeError in compare and report."""
    run = finished(tmp_path, RunConfig()).path
    run.rename(tmp_path / "bad\udcff")
    for words in (("compare", tmp_path), ("report", tmp_path)):
        status, _, said = told(*words)
        assert status == 2
        assert "not UTF-8" in said


def test_the_folder_of_one_run_is_told_from_a_folder_of_runs(tmp_path, told):
    run = finished(tmp_path, RunConfig()).path
    (run / "checkpoints").mkdir(exist_ok=True)
    for words in (("ls", run), ("report", run), ("reproduce", "all", "--runs", run)):
        status, _, said = told(*words)
        assert status == 2
        assert "is the folder of one run" in said
    status, _, said = told("measure", tmp_path)
    assert status == 2
    assert "is not a run folder (it has no run.json)" in said


def test_nothing_can_be_written_where_all_is_refused(tmp_path, monkeypatch, told):
    """On a read-only file system the removal of a temporary file that was never made was a traceback."""
    finished(tmp_path / "runs", RunConfig())

    def refused(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("sims.system.files.open", refused, raising=False)
    monkeypatch.setattr("pathlib.Path.unlink", refused)
    status, _, said = told("export", tmp_path / "runs", "--to", tmp_path / "x.csv")
    assert status == 2
    assert "x.csv cannot be written (Read-only file system)" in said


def test_a_folder_that_takes_nothing_is_refused_before_the_work(tmp_path, monkeypatch, told):
    monkeypatch.setattr("os.access", lambda *_: False)
    status, out, said = told("theory", "T1", "--out", tmp_path / "t.html")
    assert (status, out) == (2, "")
    assert said == f"speclens: {tmp_path} is not writable; choose another --out or change its permissions\n"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("bands runs", "choose another --out or change its permissions"),
        ("demo --out runs/a/b", "choose another --out or change its permissions"),
        ("train small --steps 1 --out runs", "choose another --out or change its permissions"),
        ("export runs --to runs/x.csv", "choose another --to or change its permissions"),
        # Beside the runs is where this page lies.
        ("report runs", "change its permissions"),
    ],
)
def test_the_remedy_of_a_place_is_the_option_that_names_it(tmp_path, monkeypatch, told, line, remedy):
    finished(tmp_path / "runs", RunConfig())
    monkeypatch.chdir(tmp_path)

    def refused(path, *_, **__):
        raise OSError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("sims.system.files.open", refused, raising=False)
    status, out, said = told(*line.split())
    assert (status, out) == (2, "")
    assert said.splitlines()[-1].endswith(f"; {remedy}")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    # Before anything is read: none and lm do not exist.
    for words in (
        *("demo --out file", "demo --out file/below", "carry-over none lm --out file/page.html"),
        "reproduce all --runs none --out file",
    ):
        status, _, said = told(*words.split())
        assert (status, said.partition(" lies below, ")[2]) == (2, "a file; choose another --out\n")


@pytest.mark.parametrize(
    "line",
    [
        "report",
        "ls",
        "bands",
        "robustness",
        "compare",
        "theory --against",
        "reproduce all --runs",
        "windows",
        "carry-over",
    ],
)
def test_a_folder_that_is_not_there_is_told_so(tmp_path, monkeypatch, told, line):
    monkeypatch.chdir(tmp_path)
    status, _, said = told(*line.split(), "nosuch", *["nosuch"] * (line == "carry-over"))
    assert status == 2
    assert re.search(r"nosuch (does not exist|cannot be listed \(No such file or directory\)); give ", said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "show",
        "report",
        "look",
        "inspect",
        "compare",
        "data",
        "windows",
        "train lm --data",
        "demo --config",
        "ls",
    ],
)
def test_a_name_that_no_file_can_have_is_one_short_line(tmp_path, monkeypatch, told, line):
    monkeypatch.chdir(tmp_path)
    status, _, said = told(*line.split(), "x" * 5000 + ".yaml")
    assert (status, len(said.splitlines())) == (2, 1)
    assert re.search(r"… \(5,\d{3} characters\)", said)
    assert "File name too long" in said
    assert len(said) < 200


def test_a_path_below_a_folder_that_may_not_be_entered_is_one_line(monkeypatch, told):
    def denied(arguments):
        raise PermissionError(errno.EACCES, "Permission denied", arguments[-1])

    # Of root nothing is kept.
    monkeypatch.setattr(cli, "parse", denied)
    status, _, said = told("ls", "closed/runs")
    remedy = "change its permissions, or give another path"
    assert said == f"speclens: closed/runs cannot be reached (Permission denied); {remedy}\n"
    assert status == 2


def test_one_of_a_thing_is_written_so(tmp_path, monkeypatch, told):
    """No count of one stands before a plural, and no noun in the plural before a single name."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    runs = tmp_path / "runs"
    finished(runs, RunConfig(seed=0))
    finished(runs, RunConfig(seed=1), losses=(4.0, 9.0, math.inf), ended="diverged")
    tiny = "--task.vocab 24 --task.length 8 --task.train 64 --model.d-model 8 --model.heads 2 --steps 1 --measure.bands"
    tiny += (
        " --measure.windows 1 5 --measure.training-bands 0 --seeds 0 --batch-sizes 32 --lrs 1 --stages muon"
    )
    pages = [
        told("ls", runs, "--limit", 1),
        told("export", runs, "--to", tmp_path / "x.csv", "--where", "seed == 0"),
        told("compare", runs),
        told("sweep", "small", *tiny.split(), "--dry-run"),
    ]
    assert [status for status, _, _ in pages] == [0] * 4
    assert "1 run diverged, " in " ".join(caveats(load(runs)))
    words = "run|seed|stage|group|row|batch size|worker|checkpoint|cell|learning rate"
    texts = [re.sub(r"\x1b\[[\d;]*m", "", out + said) for _, out, said in pages]
    for text in (*texts, *caveats(load(runs))):
        assert not re.search(rf"\b(1|one) ({words})s\b", text)
        assert not re.search(rf"\b1 ({words}) (are|were|have|do|take)\b", text)
    assert "1 row in " in texts[1]
    assert "1 run in 1 group, " in texts[3]


def test_a_folder_whose_name_has_wildcards_is_queried_alone(tmp_path):
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")
    for name in ("r*", "r1", "r[1]"):
        finished(tmp_path / name, RunConfig(seed=1))
    counts = [
        connect(tmp_path / name).execute("SELECT count(*) FROM rows").fetchone()
        for name in ("r*", "r1", "r[1]")
    ]
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("name", ["runs [old]", "a[/b]", "[red]", "a [link=x]"])
def test_brackets_in_the_name_of_a_folder_are_no_markup(tmp_path, monkeypatch, name):
    """What a command prints last is where its page lies, also as rich would read it."""
    from io import StringIO

    from rich.console import Console

    from sims.measure.remeasure import show_last
    from sims.studies.overview import finish

    monkeypatch.setattr(finish, "report_runs", lambda out: (None, []))
    monkeypatch.setattr(finish, "nothing_to_report", lambda runs: None)
    monkeypatch.setattr(finish, "print_summary", lambda runs, notes, console: None)
    monkeypatch.setattr(finish, "write_report", lambda out, runs, notes: out / "report.html")
    console = Console(file=StringIO(), width=200)
    assert finish.finish(tmp_path / name, {}, console) == 0
    show_last(tmp_path / name, language_model(tmp_path, losses=(4.0,)).rows(), console)
    said = console.file.getvalue()
    assert f"report: {tmp_path / name}/report.html\n" in said
    assert f"1 row in {tmp_path / name}\n" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "bench --out nodir/b.json",
            "nodir/b.json would lie in nodir, which is no folder; choose another --out or",
        ),
        ("bench --out there", "there is a folder; choose another --out"),
        ("windows nowhere --figure nodir/x.svg", "choose another --figure or make that first"),
        ("windows nowhere --figure x.pdf", "x.pdf ends in '.pdf'"),
        ("windows nowhere --out nodir/x.csv --figure x.svg", "choose another --out or make that first"),
        ("export there --to nodir/x.csv", "choose another --to or make that first"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, told, words, says):
    """The option of that file is named, and not another one for files that was left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    monkeypatch.setattr("sims.bench.benchmark.run_benchmarks", lambda quick: pytest.fail("it has run"))
    status, out, said = told(*words.split())
    assert (status, out) == (2, "")
    assert says in said


def test_a_damaged_run_is_not_left_out_without_a_word(tmp_path, told):
    for seed in range(3):
        language_model(tmp_path, seed)
    rows = tmp_path / listing(tmp_path)["run_id"][1] / "rows.parquet"
    rows.write_bytes(rows.read_bytes()[:-5])
    status, _, said = told("compare", tmp_path)
    assert status == 0
    assert f"note: {rows.parent.name} is damaged and left out: rows.parquet cannot be read" in said
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install duckdb")
    with pytest.raises(StoreError, match=f"{rows.parent} cannot be read: rows.parquet .*; restore it"):
        connect(tmp_path)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ((), "; make some with `speclens demo --out"),
        (("config.json", "model.safetensors"), ", but config.json, model.safetensors; give a folder that"),
        (
            ("rope/run.json",),
            r" \(1 begun: `speclens ls .*` shows them\); the command that began them continues",
        ),
    ],
)
def test_a_folder_without_a_complete_run_is_told_by_what_it_holds(tmp_path, there, told):
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(StoreError, match="holds no complete run" + told):
        load(tmp_path)


def test_messages_recommend_commands_that_exist():
    texts = [
        node.value
        for file in Path(sims.__file__).parent.rglob("*.py")
        if "speclens " in (source := file.read_text())
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    told = [text for text in texts if re.search(r"speclens (train|sweep) ", text)]
    assert len(told) > 5
    assert not [text for text in told if re.search(r"speclens (train|sweep) -", text)]
