"""Measure what stored models lose with their blocks, and compare the rules that choose blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from sims.analysis.removal import Blocks, RemovalCosts, cost_table
from sims.analysis.removal_rules import choose, countable, interior_sets, rule_scores
from sims.analysis.set_ranks import Model
from sims.measure.cache import Tables, cached, file_digest
from sims.measure.removal import block_influence, removal_costs
from sims.models.transformer import TransformerSubject
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder
from sims.runs.tensors import load_tensors
from sims.studies.lifecycle.curves import curves, summary
from sims.studies.lifecycle.measured import LifeData
from sims.system.errors import MeasureError
from sims.text.corpus import Corpus, vocabulary_of
from sims.text.shards import TokenSequences, shard_files
from toymodel.config import RunConfig, canonical_hash
from toymodel.data import dataset

# Of `_measured`; raise it when the numbers change.
VERSION = 1
# Sequences over which costs are compared.
SEQUENCES = 64
# At most this share of the blocks is removed: beyond, every rule breaks the model.
SHARE = 0.5
LEAST_BLOCKS = 4


@dataclass(frozen=True, eq=False)
class Removals:
    """Hold the last models of runs, what they lose with sets of blocks, and the sets that rules choose.

    Attributes:
        models: by run.
        influence: of each block, by run.
        cells: cell of each run.
        notes: which runs were left out, and why.
    """

    models: Mapping[str, Model]
    influence: Mapping[str, np.ndarray]
    cells: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def of(self, cells: Sequence[str]) -> list[Model]:
        """Return the models of some cells."""
        return [model for run, model in self.models.items() if self.cells[run] in cells]

    def importance(self, cell: str) -> np.ndarray:
        """Return the cost of each block alone, (seeds, layers), in nats."""
        return np.array([model.costs.importance for model in self.of([cell])])

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Return the cost of the set of each rule: cell, run, and the columns of `cost_table`."""
        parts = [
            cost_table(*model).assign(cell=self.cells[run], run=run) for run, model in self.models.items()
        ]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def every(self) -> pd.DataFrame:
        """Return the quantiles of the costs of all sets of interior blocks: cell, n, low (5 %), middle, high (95 %)."""
        rows = []
        for cell in dict.fromkeys(self.cells.values()):
            models = self.of([cell])
            for n in _counts(models[0].costs.blocks):
                own = [m.costs.cost(blocks) for m in models for blocks in interior_sets(m.costs.blocks, n)]
                low, middle, high = np.quantile(own, [0.05, 0.5, 0.95])
                rows.append({"cell": cell, "n": n, "low": low, "middle": middle, "high": high})
        return pd.DataFrame(rows)


def removals(data: LifeData, console: Console, text: Path | None = None) -> Removals:
    """Measure the last stored model of every run; what has been measured before is read.

    Args:
        data: the runs.
        console: shows the progress.
        text: folder of token shards, for language models; without it they are left out.

    Raises:
        MeasureError: shards of another vocabulary than the models.
        StoreError: no shards.
    """
    left_out: dict[str, str] = {}
    ready: list[tuple[str, RunFolder, RunConfig | LmConfig]] = []
    for run in data.runs["run"]:
        folder = RunFolder(data.folders[run])
        if (reason := _unfit(folder, text)) is None:
            spec = folder.spec
            assert isinstance(spec, RunConfig | LmConfig)
            ready.append((run, folder, spec))
        else:
            left_out[run] = reason
    notes = tuple(f"No blocks were removed from {run}: {reason}." for run, reason in left_out.items())
    found: dict[str, tuple[RemovalCosts, np.ndarray]] = {}
    shown = track(ready, "removing blocks", console=console, disable=not console.is_terminal)
    for run, folder, spec in shown:
        found[run] = _costs(folder, spec, text)
    cells = dict(zip(data.runs["run"], data.runs["cell"], strict=True))
    models = {run: _model(data, found, run, cells) for run in found}
    influence = {run: own for run, (_, own) in found.items()}
    return Removals(models, influence, {run: cells[run] for run in found}, notes)


def _unfit(folder: RunFolder, text: Path | None) -> str | None:
    spec = folder.spec if (folder.path / "run.json").exists() else None
    if not isinstance(spec, RunConfig | LmConfig):
        return "it was not trained by this package"
    if not folder.checkpoints():
        return "no weights are stored"
    if isinstance(spec, LmConfig) and text is None:
        return "its text is not named (--data)"
    step = int(folder.checkpoints()[-1].stem.rpartition("-")[2])
    if step < folder.outcome["step"]:
        return f"its last weights are of step {step}, and it ended at {folder.outcome['step']}"
    if (
        text is not None
        and isinstance(spec, LmConfig)
        and spec.data not in ("", Corpus(text, spec.length).digest)
    ):
        return f"it was trained on another text than {text}"
    blocks = spec.sizes.layers
    return None if blocks >= LEAST_BLOCKS else f"{blocks} blocks; {LEAST_BLOCKS} are needed"


def _counts(blocks: Sequence[int]) -> list[int]:
    most = min(int(SHARE * len(blocks)), len(blocks) - 2)
    return [n for n in range(1, most + 1) if countable(len(blocks), n)]


def _model(
    data: LifeData, found: Mapping[str, tuple[RemovalCosts, np.ndarray]], run: str, cells: Mapping[str, str]
) -> Model:
    """Return the costs of a run, and what every rule removes of it."""
    costs, influence = found[run]
    own = data.runs[data.runs["run"] == run].iloc[0]
    table = curves(data, own["cell"], "excess_alpha_half")
    place = table.seeds.index(int(own["seed"]))
    norms = curves(data, own["cell"], "trace").last
    others = [r for r in found if cells[r] == own["cell"] and r != run]
    scores = rule_scores(
        alpha=summary(table.last)[place],
        influence=influence,
        norm=np.sum([v[place] for v in norms.values()], axis=0),
        importance=costs.importance,
        elsewhere=[found[r][0].importance for r in others],
    )
    return Model(costs, choose(costs.blocks, _counts(costs.blocks), scores))


def _costs(
    folder: RunFolder, spec: RunConfig | LmConfig, text: Path | None
) -> tuple[RemovalCosts, np.ndarray]:
    """Return what the last model of a run loses without blocks, and the influence of each of its blocks."""
    file = folder.checkpoints()[-1]
    sequences = _sequences(spec, text)
    digest = hashlib.sha256(sequences.numpy().tobytes()).hexdigest()

    def measure() -> Tables:
        step, weights = load_tensors(file, spec)
        return _measured(TransformerSubject.of_weights(spec, weights, step), sequences)

    source = [file_digest(file), canonical_hash(spec), digest, SHARE]
    tables = cached(folder.path, "removal", VERSION, source, measure)
    losses = {_set_of(r["blocks"]): _numbers(r) for r in tables["losses"]}
    base = losses.pop(())
    blocks = tuple(r["block"] for r in tables["influence"])
    costs = RemovalCosts(blocks, spec.sizes.vocab, base, tuple(losses), np.array(list(losses.values())))
    return costs, np.array([r["influence"] for r in tables["influence"]])


def _measured(subject: TransformerSubject, sequences: Tensor) -> Tables:
    influence = block_influence(subject, sequences)
    blocks = tuple(int(b) for b in influence["block"])
    costs = removal_costs(subject, sequences, dict.fromkeys(_sets(blocks)))
    rows = [((), costs.base), *zip(costs.sets, costs.losses, strict=True)]
    return {
        "losses": [
            {"blocks": ",".join(map(str, own)), **{f"l{i}": float(v) for i, v in enumerate(values)}}
            for own, values in rows
        ],
        "influence": [
            {"block": int(r["block"]), "influence": float(r["influence"])}
            for r in influence.to_dict("records")
        ],
    }


def _sets(blocks: Blocks) -> Iterator[Blocks]:
    """Yield each block alone, all sets of interior blocks, and the last blocks."""
    yield from ((block,) for block in blocks)
    for n in _counts(blocks):
        yield from interior_sets(blocks, n)
        yield blocks[-n:]


def _sequences(spec: RunConfig | LmConfig, text: Path | None) -> Tensor:
    """Return validation sequences (n, T+1)."""
    if isinstance(spec, RunConfig):
        return torch.as_tensor(np.array(dataset(spec.task).val.tokens[:SEQUENCES])).long()
    assert text is not None
    vocabulary = vocabulary_of(text)
    if vocabulary > spec.sizes.vocab:
        raise MeasureError(
            f"the text of {text} has {vocabulary} tokens and {spec.run_id} knows {spec.sizes.vocab}; name the shards "
            "that it was trained on by --data"
        )
    sequences = TokenSequences(shard_files(text, "val"), spec.length, vocabulary)
    if len(sequences) < 2:
        raise MeasureError(
            f"{text} holds {len(sequences)} validation sequences of {spec.length}; give more text"
        )
    return sequences.take(range(min(SEQUENCES, len(sequences))))


def _set_of(text: Any) -> Blocks:
    return tuple(int(b) for b in str(text).split(",") if b)


def _numbers(record: Mapping[str, Any]) -> np.ndarray:
    return np.array([record[f"l{i}"] for i in range(len(record) - 1)])
