"""Training logs of other projects, read into the same two tables whoever wrote them."""

from sims.bridge.logs.folder import TrainingLogs, read_logs
from sims.bridge.logs.formats import FORMATS, Format
from sims.bridge.logs.log import POINTS, TrainingLog, read_log

__all__ = ["FORMATS", "POINTS", "Format", "TrainingLog", "TrainingLogs", "read_log", "read_logs"]
