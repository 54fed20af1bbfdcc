"""A sweep meets a disk that is really full, processes that are stopped, and a second driver; nothing is lost.

The forty runs of the drill, with real processes and, where this user may mount one, a real file system of few bytes.
"""

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import psutil
import pytest
from drill import compare, evaluations, start_driver, undisturbed, workers_of

pytestmark = pytest.mark.slow

PATIENCE = 240.0


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    out = tmp_path_factory.mktemp("faults") / "undisturbed"
    undisturbed(out)
    return out


@contextmanager
def small_disk(path, size):
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this user cannot mount a file system: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def until(condition, driver):
    """Wait; the driver must not end meanwhile."""
    patience = time.monotonic() + PATIENCE
    while not condition():
        assert driver.poll() is None, "the driver has ended"
        assert time.monotonic() < patience
        time.sleep(0.02)


def fill(path):
    """Write until no byte is left."""
    with open(path, "wb", buffering=0) as file:
        while True:
            status = os.statvfs(path.parent)
            file.write(bytes(min(1 << 20, max(1, status.f_bavail * status.f_frsize))))


def test_a_full_disk_that_is_freed(tmp_path, calm):
    with small_disk(tmp_path / "disk", "64m") as disk:
        out, ballast = disk / "sweep", disk / "ballast"
        driver = start_driver(out)
        until(lambda: evaluations(out) > 100, driver)
        # Someone else fills the disk while the sweep writes.
        with pytest.raises(OSError, match="No space left"):
            fill(ballast)
        assert driver.wait(timeout=PATIENCE) == 1
        said = out.with_suffix(".log").read_text()
        assert "Traceback" not in said
        ballast.unlink()
        again = start_driver(out)
        assert again.wait(timeout=PATIENCE) == 0
        assert compare(out, calm) == []


def test_processes_that_are_stopped_for_a_while(tmp_path, calm):
    """Stopped and continued: first the workers, then the driver, then all of them."""
    out = tmp_path / "sweep"
    driver = start_driver(out)
    for at, whom in ((50, "workers"), (200, "driver"), (400, "all")):
        until(lambda at=at: evaluations(out) > at and workers_of(driver.pid), driver)
        stopped = [p.pid for p in workers_of(driver.pid)] if whom != "driver" else []
        stopped += [driver.pid] if whom != "workers" else []
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert driver.wait(timeout=PATIENCE) == 0
    assert compare(out, calm) == []


def test_a_second_driver_is_refused_and_harms_nothing(tmp_path, calm):
    out = tmp_path / "sweep"
    first = start_driver(out)
    until(lambda: evaluations(out) > 50, first)
    second = start_driver(out)
    assert second.wait(timeout=PATIENCE) != 0
    assert "is already working in" in out.with_suffix(".log").read_text()
    assert first.wait(timeout=PATIENCE) == 0
    assert compare(out, calm) == []


def test_a_worker_that_is_stopped_while_its_driver_dies(tmp_path, calm):
    """The new driver waits for the run that the stopped worker still holds, and completes all others."""
    out = tmp_path / "sweep"
    driver = start_driver(out)
    until(lambda: evaluations(out) > 100 and workers_of(driver.pid), driver)
    stopped = workers_of(driver.pid)[0]
    stopped.suspend()
    driver.kill()
    driver.wait()
    again = start_driver(out)
    try:
        until(lambda: evaluations(out) > 400, again)
    finally:
        with suppress(psutil.NoSuchProcess):
            stopped.resume()
    status = again.wait(timeout=PATIENCE)
    if status:
        # It waited longer than a worker may hold a run: the same command completes the rest.
        assert start_driver(out).wait(timeout=PATIENCE) == 0
    assert compare(out, calm) == []
