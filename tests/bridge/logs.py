"""A training log of its own file."""

from pathlib import Path

from sims.studies.speedruns.log import TrainingLog, read_log


def the_log(path: Path, tokens_per_step: int | None = None) -> TrainingLog:
    """Read a file that holds one log."""
    (log,) = read_log(path, tokens_per_step)
    return log
