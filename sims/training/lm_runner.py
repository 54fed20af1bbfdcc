"""Train, measure and store one language-model run on one or several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sims.measure.lm import LmMeasurementData, check_text
from sims.measure.lm_prepare import Text
from sims.measure.observers import observers
from sims.measure.registry import measured_versions, schedules
from sims.measure.training_batches import of_corpus
from sims.measure.updates import check_updates
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.system.errors import StoreError
from sims.system.files import read_object
from sims.system.process_group import SINGLE, ProcessGroup
from sims.system.provenance import provenance
from sims.text.corpus import Corpus, changed
from sims.training.defaults import STORE_SECONDS
from sims.training.drive import Left, Terms, drive
from sims.training.execution import Execution, fitting
from sims.training.failures import explained
from sims.training.measuring import LmMeasurement
from sims.training.recorder import Recorder
from sims.training.throughput import Throughput, flops_per_token, measured_rate
from sims.training.trackers.registry import Trackers
from sims.training.trainer import Trainer, train
from toymodel.config import as_dict


@dataclass(frozen=True)
class Unmeasured:
    """Mark a run as not measured while training.

    It is the (empty) measurement configuration in run.json; the checkpoints can be measured afterwards.
    """


@dataclass(frozen=True)
class LmSetup:
    """Set where and how language models train; identities do not depend on it.

    Args:
        data: folder of token shards.
        device: "cpu" or "cuda", which is the current GPU of the process.
        micro_batch: sequences that a device takes at once; 0 takes the tier's, or the most below it that divide the
            process's share of a step.
        recompute, compile: see `Execution`.
        measuring: measurements at the checkpoints, on the validation shards; None measures nothing. Their loss is left
            out (0 tokens), because the evaluation of a checkpoint provides it.
        peak: operations per second of one device, for the MFU; None measures it.
    """

    data: Path
    device: str = "cpu"
    micro_batch: int = 0
    recompute: bool = False
    compile: bool = False
    measuring: LmMeasureConfig | None = None
    peak: float | None = None

    @property
    def measure(self) -> LmMeasureConfig | Unmeasured:
        """Return the measurement configuration for run.json."""
        return Unmeasured() if self.measuring is None else self.measuring

    def execution(self, config: LmConfig, group: ProcessGroup = SINGLE) -> Execution:
        """Return how a run is computed by a group of processes.

        Raises:
            ConfigError: a step is not a whole number of micro-batches.
        """
        size = group.size
        micro = self.micro_batch or fitting(config.batch_size, size, config.shape.micro_batch)
        execution = Execution(self._device(), micro, self.recompute, self.compile)
        execution.rounds(config, size)
        return execution

    def corpus(self, config: LmConfig) -> Corpus:
        """Open the text of a run.

        Raises:
            StoreError: shards are missing or damaged, or hold no sequence of this length.
        """
        return Corpus(self.data, config.length, config.seed)

    def throughput(self, config: LmConfig, group: ProcessGroup = SINGLE) -> Throughput:
        """Return an empty average of the throughput of a run."""
        half = config.precision == "bfloat16"
        rate = self.peak or measured_rate(self._device(), torch.bfloat16 if half else torch.float32)
        return Throughput(config.tokens_per_step, flops_per_token(config.transformer()), group.size * rate)

    def measurement_data(self, config: LmConfig) -> LmMeasurementData | None:
        """Prepare the data of measurements; None where nothing is measured.

        Raises:
            MeasureError: the validation shards have too few sequences, or a family is not in the vocabulary.
        """
        if self.measuring is None:
            return None
        schedules(self.measuring)
        check_updates(self.measuring, config)
        text = Text.of(self.data, "val", families=bool(self.measuring.families))
        return text.measurement_data(self.measuring, self.device, config.vocabulary)

    def _device(self) -> torch.device:
        # A process that only drives workers may have no GPU.
        if self.device == "cuda" and torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device(self.device)


def train_run(
    config: LmConfig,
    folder: RunFolder,
    setup: LmSetup,
    *,
    trackers: Trackers | None = None,
    group: ProcessGroup = SINGLE,
    until: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    store_every: float = STORE_SECONDS,
) -> Left:
    """Train one run until it ends, pauses or is stopped.

    Every process of the group calls this function.

    Args:
        config: the run, with the digest of its shards.
        folder: folder of the run; only the first process writes to it.
        setup: where and how it trains.
        trackers: trackers to report to.
        group: processes that share every step.
        until: pause at the first regular evaluation at or after this step; None trains to the end.
        stopped: called after every step; True in any process stores the state and stops all of them.
        store_every: seconds between stored states.

    Raises:
        StoreError: the folder or the shards have changed, or the disk is full.
        CheckpointError: the stored state is damaged.
        MeasureError: a measurement is not possible for this model.
        EngineError: out of memory, or a process was lost; the message names the remedy.
    """
    corpus, execution = setup.corpus(config), setup.execution(config, group)
    recorders: list[Recorder] = []
    with ExitStack() as stack:
        group.lead(lambda: stack.enter_context(_opened(config, folder, corpus, setup, group)))
        # The process that held the folder before may have completed the run.
        if group.agree(group.first and folder.done):
            return "ended"
        if group.first:
            folder.retry()
        stack.enter_context(explained(execution, group, lambda: recorders[0].stored or 0 if recorders else 0))
        trainer = Trainer(config, execution, corpus, group)
        terms = Terms(until, stopped, store_every, group)
        recorder = _recorder(trainer, folder, setup, terms, trackers)
        recorders.append(recorder)
        again = _restore(folder, config, trainer, recorder)
        if not again and terms.reached(trainer.step, config.eval_every):
            return "stopped"
        snapshots = train(trainer, setup.throughput(config, group), recorder.observers, again)
        return drive(([(recorder, snapshot)] for snapshot in snapshots), terms, config.eval_every)


def _recorder(
    trainer: Trainer, folder: RunFolder, setup: LmSetup, terms: Terms, trackers: Trackers | None
) -> Recorder:
    """Return the recorder of a run, after checking its measurements."""
    config, group = trainer.config, terms.group
    data = setup.measurement_data(config)
    if data is not None:
        check_text(data.config, trainer.subject(), data.families)
    return Recorder(
        folder,
        config,
        LmMeasurement(config, data, group),
        trackers.started(config.run_id, as_dict(config)) if trackers and group.first else None,
        group=group,
        stopped=terms.stopped,
        observers=observers(setup.measure, config, data, group, of_corpus(trainer.corpus)),
        # Sentences that both splits share are not counted for text.
        facts={"validation_overlap": None},
    )


def _restore(folder: RunFolder, config: LmConfig, trainer: Trainer, recorder: Recorder) -> bool:
    """Continue from the stored state, if there is one.

    Returns:
        Whether this step has to be evaluated again.
    """
    # Only the first process deletes parts of later steps, and only it needs the seconds.
    found = folder.resume(config) if recorder.group.first else None
    file = folder.path / "state.safetensors"
    if not file.exists():
        return False
    step: int
    tensors: dict[str, Tensor]
    step, tensors = (found.step, dict(found.tensors)) if found else load_tensors(file, config)
    if found:
        recorder.seconds.update(found.seconds)
    again = recorder.restore(tensors, step)
    trainer.restore(tensors, step)
    return again


@contextmanager
def _opened(
    config: LmConfig, folder: RunFolder, corpus: Corpus, setup: LmSetup, group: ProcessGroup
) -> Iterator[None]:
    """Claim and lock the folder of a run."""
    check_shards(folder, corpus)
    origin = {**provenance(setup.device), "ranks": group.size, "shards": corpus.facts}
    folder.start(config, setup.measure, origin, measured_versions(setup.measure))
    with folder.locked():
        yield


def check_shards(folder: RunFolder, corpus: Corpus) -> None:
    """Refuse to continue a run whose shards have changed.

    Raises:
        StoreError: a shard has changed; the message names it.
    """
    known = folder.path / "provenance.json"
    if known.exists() and (folder.path / "run.json").exists():
        difference = changed(read_object(known).get("shards", []), corpus.facts)
        if difference:
            raise StoreError(
                f"the shards that {folder.path} was trained on have changed: {difference}; put the old ones back, or "
                "begin a new run with another --out"
            )
