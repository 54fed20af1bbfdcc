"""Prune models by every score at equal zeros, and measure their losses; what was measured is stored and read again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from sims.analysis.pruning import UNIFORM
from sims.measure.cache import Tables, cache_key, cached
from sims.models.subject import Subject
from sims.prune.allocation import Unit, allocate, block_means, block_of
from sims.prune.noise_scores import OF_NOISE, noise_scores
from sims.prune.prune import WITHOUT_INPUTS, Pruned, entries, prune, refuse_excess, zeros_of
from sims.prune.score_names import SENSITIVITY, base_of, is_drawn
from sims.prune.scores import Scores, Trial, base_scores, control
from sims.prune.writing import write_pruned, written_path
from sims.studies.pruning.models import PruneModel, Texts
from sims.system.errors import MeasureError

# Of what is stored; raise it when the numbers change.
VERSION = 2
TABLES = ("losses", "chosen", "selection", "matrices", "scores", "noise")
Record = dict[str, Any]
# A method, and how many zeros each matrix has.
Allocation = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Setting:
    """What is compared.

    Attributes:
        methods: of pruning.
        sparsities: shares of zeros.
        by: scores; uniform is always among them.
        unit: of which one ratio is chosen.
        epsilons: spreads of the ratios, of which the selection text chooses one for each model and allocation.
        shuffles: draws of each shuffled score.
    """

    methods: tuple[str, ...]
    sparsities: tuple[float, ...]
    by: tuple[str, ...]
    unit: Unit = "block"
    epsilons: tuple[float, ...] = (0.1, 0.2, 0.3)
    shuffles: int = 10

    @property
    def names(self) -> tuple[str, ...]:
        """The scores, uniform first, each once."""
        return tuple(dict.fromkeys((UNIFORM, *self.by)))


@dataclass(frozen=True)
class Cell:
    """One allocation of one model."""

    method: str
    sparsity: float
    by: str
    unit: Unit
    epsilons: tuple[float, ...]
    draws: int

    @property
    def label(self) -> str:
        """Its name in messages and, with a digest of what it depends on besides, of files."""
        return f"{self.method}-{self.sparsity:g}-{self.by}-{self.unit}"


@dataclass(frozen=True, eq=False)
class PruneData:
    """What was measured of all models.

    Attributes:
        setting: what was compared.
        tables: losses, chosen, selection, matrices, scores, noise (scores of Gaussian matrices), each with the columns
            model, method, sparsity, unit, by.
        base: model → mean loss without pruning on the test text, nats per token.
        written: the pruned models that were written.
    """

    setting: Setting
    tables: Mapping[str, pd.DataFrame]
    base: Mapping[str, float]
    written: tuple[Path, ...] = field(default=())


def cells_of(setting: Setting) -> Iterator[Cell]:
    """Yield the allocations of one model; those that need no other score first."""
    for method, sparsity, by in product(setting.methods, setting.sparsities, setting.names):
        epsilons = (0.0,) if by == UNIFORM else setting.epsilons
        draws = setting.shuffles if is_drawn(by) else 1
        yield Cell(method, sparsity, by, setting.unit, epsilons, draws)


def measure_all(
    models: Sequence[PruneModel],
    texts: Callable[[PruneModel, Subject], Texts],
    setting: Setting,
    out: Path,
    write: bool = False,
    shown: Callable[[Sequence[tuple[PruneModel, Cell]]], Iterator[tuple[PruneModel, Cell]]] = iter,
) -> PruneData:
    """Prune every model by every score, and measure the losses.

    Args:
        models: each is read when it is reached.
        texts: returns the three texts of a model.
        setting: what is compared.
        out: folder of what is stored.
        write: write the pruned model of every allocation (of shuffles the first) to out/<model>/.
        shown: shows the progress over the work.

    Raises:
        MeasureError: as `prune`, and before anything is pruned where a matrix has more zeros already than an allocation
            would give it; a loss that is not finite.
    """
    work = [(model, cell) for model in models for cell in cells_of(setting)]
    tables: dict[str, list[Record]] = {name: [] for name in TABLES}
    base: dict[str, float] = {}
    written: list[Path] = []
    own: _One | None = None
    for model, cell in shown(work):
        if own is None or own.model is not model:
            own = _One(model, texts, out)
            base[model.name] = own.base()
            own.check(setting)
        label = {"model": model.name, "method": cell.method, "sparsity": cell.sparsity}
        label |= {"unit": cell.unit, "by": cell.by}
        found = own.tables(cell)
        for name in TABLES:
            tables[name] += [{**label, **row} for row in found[name]]
        if write:
            written.append(own.write(cell, found["chosen"][0]["epsilon"]))
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    return PruneData(setting, frames, base, tuple(written))


@dataclass(frozen=True)
class _Tested:
    """What is measured of one allocation: test losses of all sequences, the share of zeros, one row a matrix."""

    losses: list[float]
    achieved: float
    matrices: list[Record]


class _One:
    """One model, its texts, and the scores that were computed of it."""

    def __init__(self, model: PruneModel, texts: Callable[[PruneModel, Subject], Texts], out: Path) -> None:
        self.model, self.subject, self.out = model, model.load(), out
        own = texts(model, self.subject)
        self.texts = own.to(self.subject.head.device)
        self._scores: dict[tuple[Any, ...], Scores] = {}
        # Shuffles often repeat an allocation: its losses are those that it had.
        self._selected: dict[Allocation, float] = {}
        self._tested: dict[Allocation, _Tested] = {}
        self._source = [model.digest, own.digest]

    def base(self) -> float:
        """Return the loss of the model without pruning."""

        def measure() -> Tables:
            return {"base": [{"loss": _mean(self.subject, self.texts.test)}]}

        return float(cached(self.out, "pruning-base", VERSION, self._source, measure)["base"][0]["loss"])

    def check(self, setting: Setting) -> None:
        """Refuse a model with more zeros already than an allocation would give it.

        What is shared by sensitivity is known only once that is measured, and is refused then.
        """
        held, sizes = zeros_of(self.subject), entries(self.subject)
        most = max(held[name] / sizes[name] for name in sizes)
        for cell in cells_of(setting):
            for epsilon, draw in product(cell.epsilons, range(cell.draws)):
                # No ratio is smaller than S(1 − ε)/(1 + ε), whatever the scores.
                if most > cell.sparsity * (1 - epsilon) / (1 + epsilon) and base_of(cell.by) != SENSITIVITY:
                    refuse_excess(held, self._counts(cell, epsilon, draw))

    def tables(self, cell: Cell) -> Tables:
        """Return what is measured of an allocation."""
        source = [*self._source, asdict(cell)]
        return cached(self.out, "pruning", VERSION, source, lambda: self._measure(cell))

    def write(self, cell: Cell, epsilon: float) -> Path:
        """Write the pruned model of an allocation, unless it is there."""
        # Not under the name of a model that other texts, spreads or weights gave.
        key = cache_key("pruned-model", VERSION, [*self._source, asdict(cell), epsilon])
        path = written_path(self.model.info, self.out / self.model.name, f"{cell.label}-{key[:8]}")
        if not path.exists():
            pruned = self._pruned(cell, epsilon, 0)
            names = list(entries(self.subject))
            write_pruned(self.model.info, self.subject, pruned.subject, names, path)
        return path

    def _measure(self, cell: Cell) -> Tables:
        found: Tables = {name: [] for name in TABLES}
        for draw in range(cell.draws):
            epsilon, tested, tried = self._choose(cell, draw)
            found["selection"] += [{"draw": draw, **row} for row in tried]
            found["losses"] += [{"draw": draw, "sequence": i, "loss": v} for i, v in enumerate(tested.losses)]
            found["chosen"].append({"draw": draw, "epsilon": epsilon, "achieved": tested.achieved})
            found["matrices"] += [{"draw": draw, **row} for row in tested.matrices]
        own = self._base_scores(cell)
        if cell.by == base_of(cell.by):
            by_unit = {block_of(n): s for n, s in block_means(own).items()} if cell.unit == "block" else own
            found["scores"] = [{"name": name, "score": score} for name, score in by_unit.items()]
        if cell.unit == "matrix" and cell.by in OF_NOISE:
            matrices = self.subject.matrices
            shapes = {name: (matrices[name].shape[0], matrices[name].shape[1]) for name in own}
            for draw, drawn in enumerate(noise_scores(cell.by, shapes)):
                found["noise"] += [{"draw": draw, "name": name, "score": s} for name, s in drawn.items()]
        return found

    def _choose(self, cell: Cell, draw: int) -> tuple[float, _Tested, list[Record]]:
        """Return the spread of the least loss on the selection text, what it measures, and all that were tried."""
        least, tried = math.inf, list[Record]()
        chosen: tuple[float, Allocation, Pruned | None] | None = None
        for epsilon in cell.epsilons:
            key: Allocation = (cell.method, tuple(self._counts(cell, epsilon, draw).values()))
            pruned = None
            if len(cell.epsilons) > 1:
                if key not in self._selected:
                    pruned = self._pruned(cell, epsilon, draw)
                    self._selected[key] = _mean(pruned.subject, self.texts.selection)
                loss = self._selected[key]
                tried.append({"epsilon": epsilon, "loss": loss})
                if not loss < least:
                    continue
                least = loss
            chosen = epsilon, key, pruned
        assert chosen is not None
        epsilon, key, pruned = chosen
        if key not in self._tested:
            self._tested[key] = self._test(cell, pruned or self._pruned(cell, epsilon, draw))
        return epsilon, self._tested[key], tried

    def _test(self, cell: Cell, pruned: Pruned) -> _Tested:
        losses = pruned.subject.losses(self.texts.test).double().mean(dim=1)
        if not bool(losses.isfinite().all()):
            raise MeasureError(f"{self.model.name}, {cell.label}: the loss is not finite; prune less")
        # NaN does not survive the store as a number: what was not measured has no entry.
        table = pruned.table.drop(columns="error") if pruned.table["error"].isna().all() else pruned.table
        rows = [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
        return _Tested(losses.cpu().tolist(), pruned.sparsity, rows)

    def _counts(self, cell: Cell, epsilon: float, draw: int) -> dict[str, int]:
        scores = control(cell.by, self._base_scores(cell), cell.unit, draw, str(self.model.digest))
        return allocate(scores, entries(self.subject), cell.sparsity, epsilon, cell.unit)

    def _pruned(self, cell: Cell, epsilon: float, draw: int) -> Pruned:
        # A pass over the text for every block, where the method does not look at it, would be for the errors alone.
        inputs = None if cell.method in WITHOUT_INPUTS else self.texts.calibration
        return prune(self.subject, self._counts(cell, epsilon, draw), cell.method, inputs)

    def _base_scores(self, cell: Cell) -> Scores:
        base = base_of(cell.by)
        # Only the score by sensitivity depends on how the model is pruned.
        key = (base, cell.method, cell.sparsity, cell.unit) if base == SENSITIVITY else (base,)
        if key not in self._scores:
            texts = self.texts
            trial = Trial(cell.method, cell.sparsity, cell.unit, texts.calibration, texts.selection)
            self._scores[key] = base_scores(base, self.subject, trial)
        return self._scores[key]


def _mean(subject: Subject, sequences: Any) -> float:
    found = float(subject.losses(sequences).double().mean())
    if not math.isfinite(found):
        raise MeasureError("the loss is not finite; prune less, or take a checkpoint before the run diverged")
    return found
