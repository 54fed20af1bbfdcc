"""Each example trains to the same losses, bit for bit, when the lines of the monitor are taken out of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from sims.runs.store import run_folders

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 60
OURS = re.compile(r"sims\.monitor|\bmonitor\.|\bMonitor(Callback)?\(")


def trained(source, runs):
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(source, "example", "exec"), names)
    return names["train"](str(runs), steps=STEPS)


@pytest.mark.parametrize("name", ["plain_loop", "huggingface_trainer", "lightning_trainer"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_example_trains_as_without_its_at_most_three_lines(name, tmp_path):
    source = (EXAMPLES / f"{name}.py").read_text()
    ours = [line for line in source.splitlines() if OURS.search(line)]
    assert 1 <= len(ours) <= 3
    without = "\n".join(line for line in source.splitlines() if line not in ours)
    losses = trained(source, tmp_path)
    assert len(losses) == STEPS
    assert losses == trained(without, tmp_path / "none")
    (folder,) = run_folders(tmp_path)
    assert folder.done
    assert not (tmp_path / "none").exists()
    rows = folder.rows()
    assert set(rows["object"]) == {"loss", "activation", "gradient", "weight", "update", "normalised_update"}
    assert set(rows["step"]) >= {0, 50}
