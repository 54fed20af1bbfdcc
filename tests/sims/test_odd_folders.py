"""Folders of runs that nobody planned for: a result that holds, or status 2 and one line; nothing is lost."""

import math
from dataclasses import replace

import pandas as pd
import pytest
from listed import finished, unsealed

from sims import cli
from sims.analysis.cells import usable
from sims.analysis.runs import load
from sims.measure.rows import MeasurementRows
from sims.runs.folders import listing
from sims.runs.layout import TEXT, TOY
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
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


def language_model(out, seed=0, losses=(4.0,), ended="finished"):
    """A measured run of a language model; a loss a step."""
    config = LmRun(f"lm-{seed}", "rope", 8, lr=None, seed=seed, steps=6, tokens_per_step=1000)
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
    with pytest.raises(StoreError, match=r"holds runs of language models \(lm-0\)"):
        load(toy, TOY)


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
    assert "must be at least" in said or "must be 0 or positive" in said or "a file" in said
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
