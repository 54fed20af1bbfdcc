"""Named sets of runs of a study: of toys, and of language models at a published size, which need a GPU.

A profile is registered by `@STUDY.profile` under its name (see `sims.studies.study`); the command that takes
`--profile` shows it or trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from sims.measure.lm_prepare import Text, settle
from sims.measure.updates import window_bytes
from sims.pages.answer import Answer
from sims.pages.number import counted
from sims.runs.lm_config import LmConfig, Precision
from sims.runs.lm_measure_config import LmMeasureConfig, LmOptions
from sims.runs.measure_config import MeasureConfig
from sims.sweep.lm_work import LmWork
from sims.sweep.named_runs import check_named, show_named, train_named
from sims.sweep.options import LocalOptions
from sims.sweep.progress import duration
from sims.sweep.show_lm import announce, say, show_plan
from sims.sweep.sweep_run import SweepRun, run_all
from sims.system.errors import QueryError
from sims.system.given import given, refuse
from sims.system.process_group import SINGLE
from sims.text.corpus import vocabulary_of
from sims.text.shards import GPT2_VOCABULARY
from sims.training.lm_runner import LmSetup
from sims.training.throughput import measured_rate
from sims.training.toy_runner import chosen_device
from toymodel.config import RunConfig

ProfileName = Literal["quick", "full"]
# Shards that a plan is shown for where none are named.
UNNAMED = Path("shards")


@dataclass(frozen=True)
class ToyProfile:
    """Describe toy runs of a study.

    Args:
        configs: from seeds to the runs.
        measuring: what is measured of each.
        label: purpose of a folder of them; a folder of another purpose is refused.
    """

    configs: Callable[[Sequence[int]], Sequence[RunConfig]]
    measuring: MeasureConfig
    label: Mapping[str, Any]

    def show(
        self,
        seeds: Sequence[int],
        data: Path | None,
        options: LocalOptions,
        console: Console,
        answer: Answer | None,
    ) -> None:
        """Print the runs and how long they take on this machine; toys need no text (`data`)."""
        show_named(self.configs(seeds), self.measuring, options, console, answer)

    def train(
        self, seeds: Sequence[int], data: Path | None, options: LocalOptions, out: Path, console: Console
    ) -> dict[str, str]:
        """Train every run that is not complete; return {run id: error} of those that failed."""
        return train_named(self.configs(seeds), self.measuring, options, out, self.label, console)

    def check(self, seeds: Sequence[int], options: LocalOptions, out: Path) -> None:
        """Refuse what `train` would refuse, where runs of another profile train before these."""
        check_named(self.configs(seeds), self.measuring, options, out, self.label)


@dataclass(frozen=True)
class LmProfile:
    """Describe runs of language models of a study, for a GPU.

    Args:
        configs: from seeds, the size of the vocabulary and the precision to the runs.
        measuring: what is measured of each while it trains.
        label: purpose of a folder of them; a folder of another purpose is refused.
    """

    configs: Callable[[Sequence[int], int, Precision], Sequence[LmConfig]]
    measuring: LmOptions
    label: Mapping[str, Any]

    def show(
        self,
        seeds: Sequence[int],
        data: Path | None,
        options: LocalOptions,
        console: Console,
        answer: Answer | None,
    ) -> None:
        """Print the runs, their memory, and a lower bound of their time on this machine; nothing is written.

        Args:
            seeds: of the runs.
            data: token shards, whose vocabulary the models have; None takes that of GPT-2.
            options: where they would train.
            console: where to print.
            answer: gets the runs, step_bytes and window_bytes (memory), seconds_at_least and needs_gpu in place of it.
        """
        device, configs = self._checked(seeds, data, options)
        work = LmWork(LmSetup(data or UNNAMED, device), trackers=options.track)
        show_plan(configs, work, SINGLE, answer)
        windows, seconds = self._window_bytes(configs), self.seconds(configs, device)
        if answer is not None:
            answer |= {"window_bytes": windows, "seconds_at_least": seconds, "needs_gpu": device == "cpu"}
            return
        if windows:
            console.print(f"windows of updates take up to {windows / 1e9:.1f} GB besides")
        console.print(_told(configs, seconds, device), soft_wrap=True, highlight=False)

    def train(
        self, seeds: Sequence[int], data: Path | None, options: LocalOptions, out: Path, console: Console
    ) -> dict[str, str]:
        """Train every run that is not complete; return {run id: error} of those that failed.

        Raises:
            QueryError: no text, or no GPU and `--device cpu` not given; the message says how long a CPU takes.
        """
        if data is None:
            raise QueryError(
                "this profile trains language models: name the folder of their token shards by --data (`speclens "
                "data` makes one), or take --profile quick"
            )
        device, configs = self._checked(seeds, data, options)
        seconds = self.seconds(configs, device)
        if device == "cpu" and options.device is None:
            raise QueryError(
                f"{_told(configs, seconds, device)}; take a machine with one, --profile quick, or --device cpu to "
                "train on this processor all the same"
            )
        measuring, lowered = self._settled(configs[0], data)
        work = LmWork(LmSetup(data.resolve(), device, measuring=measuring), trackers=options.track)
        work.ready(configs)

        def tell() -> None:
            for note in lowered:
                say(note)
            announce(configs, work, SINGLE)
            say(_told(configs, seconds, device))

        sweep = SweepRun(work.with_data(configs), work, out, self.label, options.workers, retry_failed=True)
        return run_all(sweep, console, tell)

    def seconds(self, configs: Sequence[LmConfig], device: str) -> float:
        """Return the seconds that the steps of all runs take at least: their matrix products at the device's rate."""
        work = LmWork(LmSetup(UNNAMED, device))
        dtype = torch.bfloat16 if configs[0].precision == "bfloat16" and device != "cpu" else torch.float32
        return sum(work.cost(config) for config in configs) / measured_rate(torch.device(device), dtype)

    def _checked(
        self, seeds: Sequence[int], data: Path | None, options: LocalOptions
    ) -> tuple[str, list[LmConfig]]:
        """Return the device and the runs."""
        refuse(given(options, ("graphs", "summary_workers")), "only for toys; leave it out of --profile full")
        device = chosen_device(options.device)
        half = options.device != "cpu" and (device == "cpu" or torch.cuda.is_bf16_supported())
        vocabulary = GPT2_VOCABULARY if data is None else vocabulary_of(data)
        return device, list(self.configs(seeds, vocabulary, "bfloat16" if half else "float32"))

    def _settled(self, config: LmConfig, data: Path) -> tuple[LmMeasureConfig, list[str]]:
        text = Text.of(data, "val", families=False)
        return settle(self.measuring, text, config.length, config.sizes.vocab)

    def _window_bytes(self, configs: Sequence[LmConfig]) -> int:
        return max(window_bytes(self.measuring, config) for config in configs)


def _told(configs: Sequence[LmConfig], seconds: float, device: str) -> str:
    """Return how long runs take at least, and that they need a GPU where there is none."""
    runs, least = counted(len(configs), "run"), duration(seconds)
    if device == "cpu":
        return (
            f"{runs} of this size need a GPU: on this processor their steps alone would take at least {least}"
        )
    return f"{runs}: their steps take at least {least} on this GPU; evaluations and measurements come on top"
