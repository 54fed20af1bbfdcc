"""Watch the spectra of a model while somebody else's loop trains it."""

from __future__ import annotations

import atexit
import math
import sys
import uuid
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sims.measure.rows import MeasurementRows
from sims.measure.updates import UPDATES
from sims.measure.watched import WatchedData, loss_of, measure_watched
from sims.models.layout import check_module
from sims.models.probe import Probe, SampleLosses, first_batch
from sims.models.undisturbed import undisturbed
from sims.models.watched import WatchedSubject
from sims.monitor.alarm import ControlAlarm
from sims.monitor.described import (
    Now,
    check_settings,
    follow_momenta,
    jumped,
    not_told,
    plain_number,
    run_of,
    several,
    step_number,
    update_observer,
)
from sims.monitor.outputs import Outputs, Target
from sims.monitor.plan import LookPlan
from sims.runs.kinds import foreign_run
from sims.runs.lm_measure_config import RunMetadata
from sims.runs.watched_config import WatchedConfig
from sims.system.errors import MeasureError
from sims.system.process_group import present_group
from spectra import InputError
from toymodel.config import as_dict

if TYPE_CHECKING:
    import pandas as pd

    from sims.runs.store import RunFolder


class Monitor:
    """Measure a model every few steps while it trains.

        with Monitor(model, batch, every=100, to="runs", optimizer=optimizer) as monitor:
            for x, y in loader:
                ...
                optimizer.step()
                monitor.step()

    At the start, after every `every` steps and at the end it takes the spectra of the activations, of the per-sample
    gradients, of the weights and of the last updates, each summary with its value for noise of the same shape; with a
    budget first after `every` steps, and then where it can be afforded. Rows and spectra are those of `speclens train`:
    the folder is read by `speclens ls`, `report`, `compare` and `reproduce`.

    Training is not changed: modes, random numbers, gradients and buffers are put back, hooks are removed after every
    look, and what goes wrong in a look is recorded (`notes`) and does not end the training.

    Args:
        model: any module, also compiled (torch.compile), or wrapped by DistributedDataParallel: then every process
            makes a monitor and calls `step`; they share the work on the probe of the first, which writes the results.
        probe: what the model is measured on: a batch, a function that returns one (called at every look), or a data
            loader (samples evenly spread over its data); see `sims.models.probe.Probe`. None measures weights and
            updates only.
        every: steps between looks.
        to: where the results go: a folder of runs, "tensorboard", "wandb" or "trackio", a function of (step, numbers by
            name), or several of these. None keeps them in memory.
        optimizer: the optimiser, or several: the null of the update spectra depends on its momentum.
        layers: names or patterns of modules or matrices ("*.attn.*"); by default the blocks of a transformer, or all
            layers with weights.
        losses: function of (model, batch) that returns the (n,) losses of the samples; by default cross-entropy or
            squared error (see `Probe`).
        budget: largest share of the wall time that looking may take, such as 0.05: looks are then further apart.
        tokens_per_step: tokens of a training step, for the axis of tokens; without it each step counts as one.
        steps: length of the training, for displays.
        run: name of the run, and stage, batch size, learning rate and seed, by which runs are compared.
        measure: further settings.
        state: what `state_dict` returned in an earlier process: the run continues, in the same folder. For a model
            that was trained before without a monitor {"step": n}: a run of its own, which begins after n steps.
        alarm: goes off where a row is beyond what control runs show (see `ControlAlarm`): a note, and a warning.

    Raises:
        MeasureError: the probe or the layers cannot be measured, or a setting is out of range.
        StoreError: the folder cannot be written, or holds another run of this name.
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Any = None,
        *,
        every: int = 100,
        to: Target | Iterable[Target] | None = "runs",
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
        layers: str | Sequence[str] = (),
        losses: SampleLosses | None = None,
        budget: float | None = None,
        tokens_per_step: int | None = None,
        steps: int = 0,
        run: RunMetadata | None = None,
        measure: WatchedConfig | None = None,
        state: Mapping[str, Any] | None = None,
        alarm: ControlAlarm | None = None,
    ) -> None:
        check_module(model)
        stride = 1 if measure is None else measure.update_stride
        check_settings(every, budget, tokens_per_step, state, stride, steps)
        self._plan = LookPlan(int(every), budget)
        layers = (layers,) if isinstance(layers, str) else tuple(layers)
        measure, labels = measure or WatchedConfig(), run or RunMetadata()
        self._optimizers = optimizers = several(optimizer)
        self._group = present_group()
        self._probe, self._losses = probe, losses
        batch = self._batch(model)
        shared = measure.at_once if batch is None else math.ceil(batch.samples / self._group.size)
        at_once = min(measure.at_once, shared)
        self.config = replace(measure, layers=layers or measure.layers, at_once=at_once)
        self._subject = WatchedSubject.of(model, batch, self.config.layers, at_once)
        self._tokens_per_step = int(tokens_per_step or 1)
        self._updates, without = None, ""
        if self._group.first:
            self._updates, without = update_observer(self._subject.model, optimizers, self.config, self._plan)
        left = (f"{name} left out: {why}" for name, why in self._subject.left_out.items())
        notes = (*left, *self._subject.parts.notes, not_told(labels, tokens_per_step), without)
        self._notes = [note for note in notes if note]
        self._step, self._looked, self._last_loss = 0, -1, None
        self._jump = ""
        self._recent: MeasurementRows | None = None
        self._diverged, self._alarm = "", alarm
        # Of a state without a run only the number of steps is known.
        continued = state if state is not None and "run" in state else None
        if continued is not None:
            self._load(continued)
        elif state is not None:
            self._step = step_number(state["step"])
            self._looked = self._step - 1
            self._plan.begin(self._step)
        self._outputs = self._open(to, labels, int(steps), optimizers, continued)
        self._outputs.forget_after(self._step)
        self._plan.ready()
        self._closed = False
        # A script that ends without `close` still has its last look; the model is not kept alive for that.
        closing = weakref.WeakMethod(self._close_at_exit)
        self._at_exit = atexit.register(lambda: (closing() or (lambda: None))())
        if continued is None:
            self._guarded(self._offer)

    def step(self, step: int | None = None, loss: float | Tensor | None = None) -> None:
        """Tell the monitor that the optimiser has made a step; call it after every one.

        Args:
            step: number of steps so far, where the loop counts them; by default one more than at the last call. A
                number that was told before is passed over.
            loss: training loss in nats, recorded where the model is looked at.

        Raises:
            MeasureError: a step that counts nothing, such as the loss without its name.
        """
        step = self._step + 1 if step is None else step_number(step)
        if self._closed or step <= self._step:
            return
        if step > self._step + 1:
            self._jump = jumped(step, self._step)
        # Without the graph behind it, which would be kept until the next step.
        self._step, self._last_loss = step, loss.detach() if isinstance(loss, Tensor) else loss
        self._guarded(self._offer)

    def look(self) -> None:
        """Measure the model now, whatever the schedule says."""
        if not self._closed and self._looked < self._step:
            self._guarded(self._look)

    def close(self) -> None:
        """Look for the last time (where the budget allows it), and complete the folder; later calls do nothing."""
        if self._closed:
            return
        self._guarded(self._last_look)
        self._closed = True
        atexit.unregister(self._at_exit)
        if self._group.first:
            self._guarded(lambda: self._outputs.finish(self._outcome()))

    def _last_look(self) -> None:
        wanted = self._looked < self._step and not self._diverged
        if wanted and self._group.first_says(self._plan.affordable()):
            self._look()

    def _close_at_exit(self) -> None:
        """Close, and record the exception that has ended the process, where there is one."""
        self._ended_by(getattr(sys, "last_value", None))
        self.close()

    def _ended_by(self, error: BaseException | None) -> None:
        if error is not None and not self._closed:
            self.note(f"training ended after step {self._step} by {type(error).__name__}: {error}")
            # Other processes may not be there any more, and the model may be in any state.
            self._looked = self._step

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended_by(error)
        self.close()

    def __del__(self) -> None:
        # Dropped without `close`: the folder is completed with what there is, and nothing is measured any more.
        if not getattr(self, "_closed", True):
            self._looked = self._step
            self.close()

    @property
    def folder(self) -> RunFolder | None:
        """Return the folder of the run; None where nothing is written to one."""
        return self._outputs.folder

    @property
    def notes(self) -> list[str]:
        """Return what was left out or went wrong, in sentences."""
        return list(self._notes)

    def note(self, sentence: str) -> None:
        """Add a sentence to `notes`, which are stored with the results."""
        self._notes.append(sentence)

    @property
    def overhead(self) -> float:
        """Return the share of the wall time so far that the monitor has taken."""
        return self._plan.share

    def frame(self) -> pd.DataFrame:
        """Return all rows so far as a table (columns of `sims.runs.layout.ROWS`)."""
        return self._outputs.frame()

    def state_dict(self) -> dict[str, Any]:
        """Return what a later process needs to continue this run, as tensors and plain values.

        Save it with the checkpoint of the model, and pass it as `state` to the next monitor.
        """
        updates = {} if self._updates is None else self._updates.state_dict()
        return {
            "run": as_dict(self._outputs.run),
            "step": self._step,
            "looked": self._looked,
            "plan": self._plan.state_dict(),
            "updates": updates,
            **({} if self._alarm is None else {"alarm": self._alarm.state_dict()}),
        }

    def __repr__(self) -> str:
        where = f" → {self.folder.path}" if self.folder else ""
        return (
            f"Monitor({type(self._subject.model).__name__}, step {self._step}, last look {self._looked}, "
            f"{self.overhead:.1%} of the time{where})"
        )

    def _batch(self, model: nn.Module) -> Probe | None:
        """Return the probe as it is now; None without one."""
        if self._probe is None:
            return None
        with undisturbed(model):
            # The processes divide the work on one batch: that of the first.
            batch = self._group.from_first(lambda: first_batch(self._probe))
        if not callable(self._probe):
            self._probe = batch
        return Probe(batch, self._losses)

    def _open(
        self,
        to: Target | Iterable[Target] | None,
        labels: RunMetadata,
        steps: int,
        optimizers: Sequence[torch.optim.Optimizer],
        state: Mapping[str, Any] | None,
    ) -> Outputs:
        if state is None:
            own_id = uuid.uuid4().hex[:12]
            described = run_of(self._subject, labels, optimizers, steps, self._tokens_per_step, own_id)
        else:
            # As it began: a schedule has changed the learning rate since.
            described = foreign_run(dict(state["run"]))
        data = WatchedData(self.config, self._subject)
        versions = {m.name: m.version for group in data.groups() for m in group}
        if self._updates is not None:
            versions[UPDATES.name] = UPDATES.version
        first = self._group.first
        device = str(self._subject.device)
        return Outputs(to if first else None, described, self.config, device, versions, state is not None)

    def _load(self, state: Mapping[str, Any]) -> None:
        self._step, self._looked = int(state["step"]), int(state["looked"])
        self._plan.load_state_dict(state["plan"], self._step)
        if self._alarm is not None and "alarm" in state:
            self._alarm.load_state_dict(state["alarm"])
        try:
            if self._updates is not None and state["updates"]:
                self._updates.load_state_dict(state["updates"])
        except (KeyError, InputError) as error:
            raise MeasureError(
                f"state holds updates of other parameters or windows ({error}); pass the state of this model's monitor"
            ) from error

    def _offer(self) -> None:
        """Give the step to the window of updates, and look if it is time."""
        if self._updates is not None and self._updates.due(self._step):
            with self._plan.timed():
                if self._plan.due(self._step, self._step - 1):
                    follow_momenta(self._updates, self._subject.model, self._optimizers)
                self._updates.look(Now(self._subject.model, self._step, self._tokens))
        if self._step < self._plan.next or self._diverged:
            return
        if self._group.first_says(self._plan.affordable()):
            self._guarded(self._look)
        self._plan.next = self._group.first_says(self._plan.after(self._step))

    def _look(self) -> None:
        """Measure the model, and write what was found."""
        began, before = self._plan.clock(), self._plan.spent
        with self._plan.timed():
            sheet, failed = measure_watched(self._group.together(self._present), self.config, self._group)
            self._looked = self._step
            for name, why in failed.items():
                self._note(f"step {self._step}: {name} could not be measured: {why}")
            self._diverged = next((r["reason"] for r in sheet.rows if r["status"] == "diverged"), "")
            if self._updates is not None:
                windows = self._updates.flush()
                for found in windows:
                    sheet.rows += found.rows
                    sheet.spectra += found.spectra
                if self._jump and not windows:
                    self._note(self._jump)
                self._jump = ""
            if self._last_loss is not None:
                self._guarded(
                    lambda: sheet.row("train_loss", "loss", "training", plain_number(self._last_loss))
                )
            self._recent = sheet
            if self._group.first:
                self._outputs.keep(sheet)
                self._guarded(lambda: self._sound(sheet))
                self._outputs.progress(self._position())
        self._plan.looked(max(self._plan.clock() - began, self._plan.spent - before))

    def _sound(self, sheet: MeasurementRows) -> None:
        if self._alarm is not None and (told := self._alarm.look(sheet)):
            self._note(told)

    def _present(self) -> WatchedSubject:
        """Return the model as it is now, with the present batch of the probe."""
        probe = self._batch(self._subject.model) if callable(self._probe) else self._subject.probe
        return replace(self._subject, probe=probe, step=self._step, tokens=self._tokens)

    @property
    def _tokens(self) -> int:
        return self._step * self._tokens_per_step

    def _position(self) -> dict[str, Any]:
        loss = None if self._recent is None else loss_of(self._recent)
        return {"step": self._step, "val_loss": loss, "notes": self._notes, "seconds": self._plan.seconds}

    def _outcome(self) -> dict[str, Any]:
        return {
            "ended": "diverged" if self._diverged else "finished",
            "tokens": self._tokens,
            "validation_overlap": None,
            **self._position(),
            **({"reason": self._diverged} if self._diverged else {}),
            "notes": "; ".join([*self._notes, self._plan.told]),
        }

    def _guarded(self, work: Callable[[], object]) -> None:
        """Do something whose failure must not reach the training."""
        try:
            work()
        except Exception as error:
            self._note(f"step {self._step}: {type(error).__name__}: {error}")

    def _note(self, sentence: str) -> None:
        """Keep a sentence and warn of it; of several that differ in their step only the first."""
        if sentence.partition(": ")[2] not in {note.partition(": ")[2] for note in self._notes}:
            self.note(sentence)
            warnings.warn(f"monitor: {sentence}; training goes on", RuntimeWarning, stacklevel=2)
