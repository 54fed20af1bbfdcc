"""`speclens measure`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_type_hints

import tyro

from sims.models.checkpoint_info import CheckpointOptions
from sims.runs.lm_measure_config import LmOptions, RunMetadata
from sims.runs.measure_config import MeasureChanges, MeasureConfig
from sims.system.command_options import ConfigFile
from sims.system.files import check_folder
from sims.system.given import given, refuse

if TYPE_CHECKING:
    from sims.pages.answer import Answer

    Changes = MeasureChanges
else:
    # What is true or false is typed as in `train`; None is what is not typed.
    Changes = make_dataclass(
        "Changes",
        [
            (f.name, tyro.conf.DisallowNone[bool | None], None)
            for f in fields(MeasureConfig)
            if get_type_hints(MeasureConfig)[f.name] is bool
        ],
        bases=(MeasureChanges,),
        namespace={"__doc__": MeasureConfig.__doc__},
        frozen=True,
    )


@dataclass(frozen=True)
class Measure:
    """Measure the stored checkpoints of a toy run, or those of a language model on text (--data).

    Without --data, RUN is the folder of a toy run: its checkpoints are measured again with the settings of the run, but
    for those that --measure.* names, into RUN/measured-<hash of the settings>/. The results of the training run are not
    changed.

    With --data, RUN is a checkpoint of a language model, or a folder of its checkpoints. Each one is measured in one
    pass over the tokens: covariances of the activations at several blocks and before the head, the loss, per-sample
    gradients of W_O, MLP out, Q and V within --memory, spectra of all weight matrices, and the concentration of token
    families in the embedding and the head. Results are written to OUT/<name>, a run folder that `speclens ls`, `show`
    and `carry-over` read. After an interruption, the same command continues, also within a pass. torchrun shares the
    work between processes or machines.

    Examples:
        speclens measure demo/untied-b32-… --measure.pooling token
        speclens measure runs/rope-b32-… --measure.bands 97 200 31 20 --measure.sites final blocks.0
        speclens measure out/ckpt.pt --data shards
        speclens measure logs/run --data shards --stage muon --seed 1 --heads 6 --tokens-per-step 524288
        speclens measure pythia --data shards --tokens 2000000 --families weekdays 'vowels=a,e,i,o,u'
        torchrun --nproc-per-node 8 -m sims.cli measure logs/run --data shards --memory 60
    """

    run_path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a toy run; with --data, a checkpoint or a folder of checkpoints."""
    measure: Changes = field(default_factory=Changes)
    """Toy runs: what to measure otherwise than the run was measured; what is not named stays as it was."""
    data: Path | None = None
    """Language models: a token shard, or a folder of shards, in the vocabulary of the model."""
    split: Literal["val", "train", "all"] = "val"
    """Language models: which shards of the folder."""
    out: Path = Path("lm-runs")
    """Language models: folder of runs."""
    metadata: Annotated[RunMetadata, tyro.conf.arg(name="")] = field(default_factory=RunMetadata)
    checkpoint: Annotated[CheckpointOptions, tyro.conf.arg(name="")] = field(
        default_factory=CheckpointOptions
    )
    options: Annotated[LmOptions, tyro.conf.arg(name="")] = field(default_factory=LmOptions)
    vocabulary: Path | None = None
    """Language models: folder with the encoder.json and vocab.bpe of the shards, if not GPT-2's; for the families."""
    track: tuple[str, ...] = ()
    """Language models: trackers that get the numbers of every checkpoint: tensorboard, wandb, trackio."""
    device: str | None = None
    """cpu, cuda or cuda:N; by default the GPU if there is one."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        if self.data is None:
            found = [*given(self, ("split", "out", "vocabulary", "track")), *given(self.metadata)]
            found += [*given(self.checkpoint), *given(self.options)]
            refuse(
                found,
                "only for language models; name their token shards with --data, or leave these options out",
            )
        else:
            refuse(
                given(self.measure, prefix="measure."),
                "only for toy runs; leave out either these options or --data",
            )
            check_folder(self.out)
        if self.track:
            from sims.training.trackers.registry import check

            check(self.track)

    def run(self) -> int:
        """Measure and print the last checkpoint; return 0."""
        from sims.pages.answer import answering

        with answering(self.json) as answer:
            if self.data is None:
                self._toy(answer)
            else:
                self._language_model(self.data, answer)
        return 0

    def _toy(self, answer: Answer | None) -> None:
        from rich.console import Console

        from sims.measure.remeasure import remeasure, show_last
        from sims.training.toy_runner import chosen_device

        console = Console()
        path, rows = remeasure(self.run_path, self.measure, chosen_device(self.device), console)
        show_last(path, rows, console, answer)

    def _language_model(self, data: Path, answer: Answer | None) -> None:
        from sims.measure.lm_terminal import Shards, measure_run, show_last
        from sims.system.process_group import torchrun_group
        from sims.training.toy_runner import chosen_device

        device = chosen_device(self.device)
        shards = Shards(data, "" if self.split == "all" else self.split, self.vocabulary)
        with torchrun_group(device) as group:
            options = (self.options, self.metadata, self.checkpoint)
            folder = measure_run(self.run_path, self.out, shards, *options, device, group)
        if group.first:
            show_last(folder, answer)
            if self.track:
                from sims.training.trackers.stored import report

                report(folder, self.track)
