"""Killed workers and drivers leave no trace in a sweep's numbers."""

import random
import shutil

import pytest
from drill import compare, disturb, drill_configs, undisturbed

from sims.runs.store import RunFolder


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    out = tmp_path_factory.mktemp("drill") / "undisturbed"
    undisturbed(out)
    return out


@pytest.mark.slow
def test_forty_runs_survive_the_deaths_of_workers_and_drivers(tmp_path, calm):
    assert len(drill_configs()) == 40
    struck = disturb(tmp_path / "killed", random.Random(9), 10, lambda line: None)
    assert struck == {"worker": 8, "driver": 2}
    assert compare(tmp_path / "killed", calm) == []


@pytest.mark.slow
def test_the_comparison_sees_what_it_should(tmp_path, calm):
    shutil.copytree(calm, tmp_path / "a")
    assert compare(tmp_path / "a", calm) == []
    first, second, third = (RunFolder(tmp_path / "a" / c.run_id) for c in drill_configs()[:3])
    (first.path / "done.json").unlink()
    (second.path / ".tmp-1-rows.parquet").write_bytes(b"half")
    (second.path / "run.json").unlink()
    (third.path / "rows.parquet").write_bytes(
        (calm / drill_configs()[4].run_id / "rows.parquet").read_bytes()
    )
    faults = "\n".join(compare(tmp_path / "a", calm))
    assert f"{first.path.name} is not complete" in faults
    assert f"{third.path.name}: rows differ" in faults
    assert "1 runs lost" in faults
    assert "left behind" in faults
