"""Runs small enough that a test may train and measure them."""

from dataclasses import replace

import pytest
from tiny_runs import MEASURE, RUN

from sims import cli


@pytest.fixture
def tiny_run():
    """tiny_run(stage=…, seed=…, …): a RunConfig of a second or less."""
    return lambda **changes: replace(RUN, **changes)


@pytest.fixture
def tiny_measure():
    """tiny_measure(every=…, …): a MeasureConfig that fits it."""
    return lambda **changes: replace(MEASURE, **changes)


@pytest.fixture
def told(capsys):
    """told(words…): the exit status of a command, its output and its errors."""

    def run(*words):
        status = cli.main([str(word) for word in words])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run
