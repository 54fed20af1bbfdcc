"""One thread a process (a second one makes small operations slower) and hypothesis profiles for the suite."""

import gc
import logging
import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from contextlib import contextmanager, suppress

import pytest
import torch

torch.set_num_threads(1)

# Thousands of collected tests live until the end: to search them for garbage again and again takes a tenth of the time.
gc.disable()

# A bare machine with a GPU, where only tests/gpu runs, has neither.
with suppress(ModuleNotFoundError):
    import matplotlib

    matplotlib.use("Agg")
with suppress(ModuleNotFoundError):
    from hypothesis import HealthCheck, settings

    _COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
    settings.register_profile("quick", max_examples=30, derandomize=True, **_COMMON)
    settings.register_profile("default", max_examples=100, derandomize=True, **_COMMON)
    settings.register_profile("slow", max_examples=2000, **_COMMON)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()


def _without_drawing(patch):
    from sims.pages.page import Picture

    def picture(figure, section, files):
        return Picture("<svg/>", section.caption, section.name)

    patch.setattr("sims.pages.write._drawn", picture)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages with all words and tables, whose figures are made but not drawn: drawing takes most of their time."""
    _without_drawing(monkeypatch)


@pytest.fixture(scope="session")
def all_undrawn():
    """The same within a context, for fixtures of modules."""

    @contextmanager
    def context():
        with pytest.MonkeyPatch.context() as patch:
            _without_drawing(patch)
            yield

    return context


@pytest.fixture
def compiled_anew(monkeypatch):
    """Nothing that an earlier test compiled is used again."""
    # The compiler writes a trace where a handler wants it, as that of pytest does; it takes longer than the compiling.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", True)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
