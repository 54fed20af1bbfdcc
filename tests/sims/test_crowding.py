"""The time that a command foretells counts the processes that already use the cores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sims.sweep import show
from sims.system import machine
from toymodel.config import RunConfig

loads = st.floats(0, 100)
counts = st.integers(1, 64)


@given(counts, loads, counts)
def test_workers_share_what_the_machine_has(workers, load, total):
    factor = machine.crowding(workers, load, total)
    # Together they are no slower than one of them, and use no more cores than there are.
    assert 1.0 <= factor <= workers * (1 + 1e-12)
    assert workers / factor * min(1.0, total / (load + 1)) <= total * (1 + 1e-12)
    assert machine.crowding(workers + 1, load, total) >= factor * (1 - 1e-12)
    if load + workers <= total:
        assert factor == 1.0


def test_the_time_of_a_plan_is_longer_where_other_processes_work(monkeypatch):
    said = {}
    for load in (0.0, 6.0):
        monkeypatch.setattr(machine.os, "getloadavg", lambda load=load: (load, load, load))
        monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
        monkeypatch.setattr(show, "_estimated", lambda *_: show.Estimate(100.0, 1, 1))
        answer = {}
        show.show_plan([RunConfig()], "cpu", 2, None, Console(quiet=True), answer)
        said[load] = answer["seconds"]
    assert said[0.0] == pytest.approx(50)
    # One of seven processes, then two of eight, on two cores.
    assert said[6.0] == pytest.approx(50 * (2 / 7) / (2 / 8))
