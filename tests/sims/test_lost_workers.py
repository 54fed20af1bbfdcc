"""Workers whose place dask gives up, since their restart takes long or fails, are started anew."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import dask

# Its settings have to be there before ours: dask takes back what a context has added.
import distributed  # noqa: F401
import pytest

from sims.sweep import engine as engines
from sims.system.errors import EngineError


def test_jobs_end_though_all_workers_lose_their_place(monkeypatch, tmp_path):
    monkeypatch.setattr(engines, "TEND_SECONDS", 0.2)
    monkeypatch.setattr(engines, "stop_on_signals", Never)
    killed = tmp_path / "killed"

    def job():
        (tmp_path / f"begun-{os.getpid()}").touch()
        while not killed.exists():
            time.sleep(0.02)
        return {}

    # Dask waits 15 s for a worker to come back; here it gives the place up at once.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "0ms"}),
        engines.local_cluster(2) as cluster,
    ):
        places = cluster.local.cluster.workers
        first = list(places.values())

        def watch():
            if not killed.exists() and len(list(tmp_path.glob("begun-*"))) == 2:
                for place in first:
                    os.kill(place.pid, signal.SIGKILL)
                killed.touch()

        ended = []
        running = threading.Thread(target=lambda: ended.append(cluster.run([job] * 4, watch)), daemon=True)
        running.start()
        running.join(300)
        assert ended == [{}]
        # Whenever one looks: the places of the beginning are gone for good.
        assert not set(first) & set(places.values())


class Never:
    def __enter__(self):
        return lambda: False

    def __exit__(self, *error):
        return None


class Places:
    """A cluster whose workers never come."""

    def __init__(self):
        self.workers = {0: SimpleNamespace(status=SimpleNamespace(name="running"), close=lambda: None)}
        self.asked, self.loop = [], SimpleNamespace(add_callback=lambda call, *more: call(*more))

    def scale(self, wanted):
        self.asked.append((wanted, dict(self.workers)))


def test_a_sweep_without_any_worker_is_given_up(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(engines.time, "monotonic", lambda: now[0])
    places = Places()
    local = engines.LocalWorkers(places, 1)
    client = SimpleNamespace(ncores=dict)
    while now[0] < engines.PATIENCE_SECONDS:
        now[0] += 1.0
        local.tend(client)
    # One that does not start is first waited for, and then replaced.
    assert places.asked[0] == (1, places.asked[0][1])
    assert places.asked[0][1]
    assert not places.asked[-1][1]
    now[0] += 2 * engines.TEND_SECONDS
    with pytest.raises(EngineError, match=r"no worker process could be started for 15 minutes.*--workers 1"):
        local.tend(client)


def test_a_full_cluster_is_left_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(engines.time, "monotonic", lambda: now[0])
    places = Places()
    local = engines.LocalWorkers(places, 1)
    for _ in range(50):
        now[0] += 10.0
        local.tend(SimpleNamespace(ncores=lambda: {"one": 1}))
    assert places.asked == []
