"""Watch the spectra of a model while somebody else's loop trains it."""

from sims.monitor.alarm import ControlAlarm, Watched
from sims.monitor.monitor import Monitor
from sims.monitor.outputs import complete_run
from sims.runs.lm_measure_config import RunMetadata
from sims.runs.watched_config import WatchedConfig

__all__ = ["ControlAlarm", "Monitor", "RunMetadata", "Watched", "WatchedConfig", "complete_run"]
