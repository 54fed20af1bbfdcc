"""Store the intermediate results of a long measurement in the folder of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sims.runs.spec import RunSpec
from sims.runs.store import RunFolder
from sims.runs.tensors import read_tensors, write_tensors
from sims.system.process_group import ProcessGroup


@dataclass(frozen=True)
class MeasurementCheckpoint:
    """Store the intermediate results of one measurement on one process.

    Args:
        folder: folder of the run.
        config: the run.
        step: step of the model that is measured.
        group: processes that share the measurement.
    """

    folder: RunFolder
    config: RunSpec
    step: int
    group: ProcessGroup

    @property
    def _file(self) -> Path:
        return self.folder.path / f"partial-{self.group.rank}-of-{self.group.size}.safetensors"

    def load(self) -> dict[str, Tensor]:
        """Return the tensors stored last for this step, or {}."""
        if not self._file.exists():
            return {}
        metadata, tensors = read_tensors(self._file, self.config)
        return tensors if int(metadata["step"]) == self.step else {}

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Store tensors by name, replacing earlier ones."""
        write_tensors(self._file, self.config, self.step, state)
