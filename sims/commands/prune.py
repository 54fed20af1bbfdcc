"""`speclens prune`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sims.models.checkpoint_info import CheckpointOptions
from sims.prune.score_names import base_of
from sims.system.command_options import ConfigFile
from sims.system.errors import QueryError
from sims.system.files import check_folder

Method = Literal["magnitude", "wanda", "sparsegpt"]
MOST_SPARSITY, MOST_SEQUENCES, MOST_SHUFFLES = 0.99, 10**6, 1_000


@dataclass(frozen=True)
class Prune:
    """Prune models by magnitude, Wanda or SparseGPT, and compare ways to share the zeros between layers.

    Every way (--by) sets equally many weights to zero: the same for all layers (uniform), more where the exponent of a
    layer's spectrum is higher (alpha, farms), or in later ones (depth); and controls that a rule has to beat: its
    numbers reversed or shuffled, and the order of what the pruning of each layer alone was measured to cost
    (sensitivity). How far ratios spread is chosen on one text, the loss measured on another, in nats per token. RUNS
    are run folders, folders of runs, or checkpoints of other projects, as `speclens inspect` reads them. Embedding and
    head are not pruned. Results are stored in --out; after an interruption the same command continues.

    Examples:
        speclens prune lm-runs --data shards
        speclens prune lm-runs --data shards --method sparsegpt --sparsity 0.5 0.6 0.7 --by uniform farms depth
        speclens prune lm-runs --data shards --by farms reversed-farms shuffled-farms sensitivity --unit matrix
        speclens prune gpt2 --data shards --method sparsegpt --by uniform farms --length 512 --checkpoints
        speclens prune demo/untied-b32-…
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, folders of runs, checkpoints, or folders of the checkpoints of one training run (its last one)."""
    data: Path | None = None
    """Folder of token shards, for language models; toy runs have their own task."""
    method: tuple[Method, ...] = ("wanda",)
    """What says which weights of a matrix become zero: magnitude, wanda (weights times inputs), sparsegpt (which also
    corrects the weights that stay)."""
    sparsity: tuple[float, ...] = (0.5, 0.6)
    """Shares of zeros among the weights of all pruned matrices, up to 0.99."""
    by: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SCORE …")] = (
        "uniform",
        "alpha",
        "farms",
        "depth",
        "reversed-farms",
    )
    """What says how many weights each layer loses: uniform (always compared with), alpha, alpha-z, farms, farms-z,
    depth, sensitivity. Of all others reversed-NAME and shuffled-NAME are controls, and depth-shuffled-NAME, which keeps
    what a score owes to depth."""
    unit: Literal["block", "matrix"] = "block"
    """One ratio for all matrices of a block, as was published, or one for each matrix."""
    epsilons: tuple[float, ...] = (0.1, 0.2, 0.3)
    """Spreads of the ratios to choose from: ratios run from S(1 − ε) to S(1 + ε) before they are scaled."""
    shuffles: int = 10
    """Draws of each shuffled score."""
    calibration: int = 64
    """Sequences that give the inputs of the matrices, of the training part."""
    selection: int = 64
    """Sequences that choose ε, of the validation part."""
    test: int = 256
    """Sequences of the reported loss, of the validation part."""
    length: int | None = None
    """Tokens of a sequence; by default, and at most, the longest input of the model, or 2,048."""
    out: Path = Path("pruned")
    """Folder for results, the page and pruned models."""
    checkpoints: bool = False
    """Write each pruned model to OUT/<model>/, in the format of its checkpoint, which `speclens inspect`, `look` and
    `measure` read."""
    checkpoint: Annotated[CheckpointOptions, tyro.conf.arg(name="")] = field(
        default_factory=CheckpointOptions
    )
    device: str | None = None
    """cpu, cuda or cuda:N; by default the GPU if there is one."""
    json: bool = False
    """One JSON object on stdout in place of tables; notes go to stderr."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        if not self.runs:
            raise QueryError("no models are named; give run folders, folders of runs, or checkpoints")
        for name in ("method", "sparsity", "by", "epsilons"):
            if not getattr(self, name):
                raise QueryError(f"--{name} is empty; give at least one value")
            if len(set(values := getattr(self, name))) < len(values):
                raise QueryError(f"--{name} is {' '.join(map(str, values))}; name every value once")
        if self.by == ("uniform",):
            raise QueryError("--by is uniform, which the others are compared with; add one, such as farms")
        if wrong := [s for s in self.sparsity if not 0 < s <= MOST_SPARSITY]:
            raise QueryError(
                f"--sparsity has {wrong[0]:g}; it is a share of zeros, above 0 and at most {MOST_SPARSITY}"
            )
        if wrong := [e for e in self.epsilons if not 0 < e < 1]:
            raise QueryError(
                f"--epsilons has {wrong[0]:g}; a spread of ratios lies above 0 (which is uniform) and below 1"
            )
        limits = {"shuffles": (1, MOST_SHUFFLES), "calibration": (1, MOST_SEQUENCES)}
        limits |= {
            "selection": (1, MOST_SEQUENCES),
            "test": (2, MOST_SEQUENCES),
            "length": (1, MOST_SEQUENCES),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise QueryError(f"--{name} is {value}; it must lie in {least} … {most:,}")
        for name in self.by:
            base_of(name)
        check_folder(self.out / "page")

    def run(self) -> int:
        """Prune, measure, print and write the page; return 0."""
        from rich.console import Console
        from rich.progress import track

        from sims.pages.answer import answering
        from sims.pages.terminal import print_notes, print_place, rich_table
        from sims.studies.pruning.answers import PruneAnswers, lead, summary_table
        from sims.studies.pruning.measured import measure_all
        from sims.studies.pruning.models import check_data, prune_models, texts_of
        from sims.studies.pruning.page import TITLE, TONES, write_pruning
        from sims.training.toy_runner import chosen_device

        console, notes, device = Console(), list[str](), chosen_device(self.device)
        with answering(self.json) as answer:
            models = list(prune_models(self.runs, self.checkpoint, device, notes))
            check_data(models, self.data)

            def shown(work: Sequence[Any]) -> Iterator[Any]:
                told = ""
                for model, cell in track(work, "pruning", console=console, disable=not console.is_terminal):
                    if model.name != told and not console.is_terminal:
                        # A log has a line a model in place of a bar.
                        console.print(f"pruning {model.name}", highlight=False, soft_wrap=True, markup=False)
                    told = model.name
                    yield model, cell

            data = measure_all(
                models,
                lambda model, subject: texts_of(model, subject, self.data, self._sizes()),
                self._setting(),
                self.out,
                self.checkpoints,
                shown,
            )
            answers = PruneAnswers(data)
            page = write_pruning(answers, self.runs, self.out / "page", notes, device)
            if answer is None:
                console.print(rich_table(TITLE, summary_table(answers), TONES))
                console.print(lead(answers), highlight=False)
            else:
                answer |= {
                    "summary": answers.summary,
                    "models": answers.models,
                    "shuffles": answers.shuffles,
                    "correlations": answers.correlations,
                    "slots": answers.slots,
                    "against_plain": answers.against_plain,
                    "written": data.written,
                    "notes": notes,
                    "page": page,
                }
            print_notes(notes, console)
            if data.written:
                written = f"pruned models: {data.written[0].parent.parent}"
                console.print(written, highlight=False, soft_wrap=True, markup=False)
            print_place(page, console)
        return 0

    def _sizes(self) -> Any:
        from sims.studies.pruning.models import Sizes

        return Sizes(self.calibration, self.selection, self.test, self.length)

    def _setting(self) -> Any:
        from sims.studies.pruning.measured import Setting

        return Setting(self.method, self.sparsity, self.by, self.unit, self.epsilons, self.shuffles)
