"""Pages of runs that lack something: a window, a stage, a seed, a checkpoint, a width, families, gradients."""

import pytest
from made_up import text_runs, toy_runs

from sims import cli
from sims.runs.lm_measure_config import LmMeasureConfig, LmRun
from sims.runs.store import RunFolder

SHAPES = {
    "usual": {},
    "other window": {"window": (5, 20)},
    "one stage": {"stages": ("muon",)},
    "one run": {"stages": ("muon",), "seeds": (0,)},
    "one checkpoint": {"stages": ("muon",), "seeds": (0,), "steps": 0},
    "the start and one more": {"steps": 1},
    "several sites, another window": {"sites": ("blocks.0", "final"), "window": (5, 20)},
}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_runs(tmp_path_factory.mktemp("toy"), sizes=(32,), seeds=(0, 1))


# The other shapes differ in one thing each, and take seconds each.
QUICK = ("one checkpoint",)


@pytest.mark.parametrize(
    "shape", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SHAPES]
)
def test_the_pages_of_language_models(toy, tmp_path, shape, undrawn, capsys):
    text = text_runs(tmp_path / "text", **SHAPES[shape])
    for command in (
        ["carry-over", str(toy), str(text), "--out", str(tmp_path / "page.html")],
        ["reproduce", "all", "--runs", str(text), "--out", str(tmp_path / "figures")],
        ["compare", str(text)],
    ):
        assert cli.main(command) in (0, 2), command
        assert "Traceback" not in capsys.readouterr().err


def test_a_checkpoint_of_which_losses_alone_are_known(toy, tmp_path, undrawn):
    run = LmRun("alone", "gpt", 8, None, 0, 6, 8_000)
    folder = RunFolder(tmp_path / "text" / run.run_id)
    folder.start(run, LmMeasureConfig(), {})
    folder.finish({"ended": "finished", "step": 6, "tokens": 48_000, "val_loss": None, "seconds": {}})
    for command in (
        ["carry-over", str(toy), str(tmp_path / "text"), "--out", str(tmp_path / "page.html")],
        ["reproduce", "all", "--runs", str(tmp_path / "text"), "--out", str(tmp_path / "figures")],
        ["compare", str(tmp_path / "text")],
    ):
        assert cli.main(command) in (0, 2), command
