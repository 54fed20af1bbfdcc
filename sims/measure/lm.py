"""Measuring a language model on text: tens of millions of tokens in one pass, gradients within a budget of memory.

The rows and spectra are those of the toy, so that every analysis takes them as they are. Work is divided among ranks
and goes on where it was stopped: what is gathered so far is a dictionary of tensors that a `Keeper` stores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sims.measure.lm_families import Encode, Family, check_families, families, measure_families
from sims.measure.lm_gradients import Blocks, gradient_grams, plan_blocks
from sims.measure.measure import FINAL, measure_weights, pooled
from sims.measure.rows import MeasurementRows
from sims.measure.summarise import summarise
from sims.models.subject import Subject
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.measure_config import DEPTH_WINDOWS, Window
from sims.system.errors import MeasureError
from sims.system.process_group import ProcessGroup
from sims.system.signals import Interrupted
from sims.text.shards import GPT2_VOCABULARY, TokenSequences
from spectra import Estimate, Moments, gram_spectrum

# Blocks of a twelve-block model whose activations are measured (arXiv 2605.05683); others are spaced as evenly.
D12_BLOCKS = (0, 3, 6, 9, 11)
DEEP = 36
LOSS = "loss"
GRADIENT_WINDOWS: tuple[Window, ...] = ((1, 10), (10, 40))
# A kill loses this much at most, beside what a single forward pass or pair of blocks takes.
KEEP_SECONDS = 60.0


class Progress(Protocol):
    """Told where a measurement stands."""

    def __call__(self, part: str, done: int, total: int, /) -> None:
        """So many pieces of this rank's work on one part are done."""
        ...


class Keeper(Protocol):
    """Keeps what a measurement has gathered, for the same measurement to go on from."""

    def load(self) -> dict[str, Tensor]:
        """What was kept last; empty where nothing was."""
        ...

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Replace what was kept, whole or not at all."""
        ...


@dataclass(frozen=True, eq=False)
class LmMeasurementData:
    """The fixed text that every checkpoint of a run is measured with, prepared once.

    Args:
        config: what is measured.
        data: all sequences.
        which: numbers of the sequences behind the activation spectra, in the order they are taken.
        gradient: numbers of the sequences behind the gradient spectra, the first of the same draw.
        families: cyclic families of tokens.
        device: where the tokens are put.
    """

    config: LmMeasureConfig
    data: TokenSequences
    which: np.ndarray
    gradient: np.ndarray
    families: tuple[Family, ...]
    device: str = "cpu"

    def take(self, which: np.ndarray) -> Tensor:
        """(n, T+1) tokens of these sequences, on the device."""
        return self.data.take(which).to(self.device)

    @property
    def batches(self) -> list[np.ndarray]:
        """Numbers of the sequences of each forward pass."""
        size = self.config.batch_sequences
        return [self.which[start : start + size] for start in range(0, len(self.which), size)]


def prepare_text(
    config: LmMeasureConfig,
    shards: Sequence[Path],
    encode: Encode | None = None,
    device: str = "cpu",
    vocabulary: int = GPT2_VOCABULARY,
) -> LmMeasurementData:
    """The sequences and families that a run is measured with.

    Args:
        config: what is measured.
        shards: files of tokens (`sims.text.shards.shard_files`).
        encode: tokens of a text, in the vocabulary of the shards; needed for families.
        device: where it is measured.
        vocabulary: number of tokens of that vocabulary, or of the model where it has fewer.

    Raises:
        MeasureError: more tokens than there are, or families that the vocabulary does not have.
        StoreError: a shard is missing, damaged or of another vocabulary.
    """
    chosen = families(config.families, encode)
    data = TokenSequences(shards, config.length, vocabulary)
    config.check(len(data))
    order = np.random.default_rng(config.data_seed).permutation(len(data))
    return LmMeasurementData(
        config, data, order[: config.sequences], order[: config.gradient_sequences], chosen, device
    )


def depth(subject: Subject) -> int:
    """Number of blocks of a model."""
    return sum(site.startswith("blocks.") for site in subject.sites)


def measured_sites(config: LmMeasureConfig, subject: Subject) -> tuple[str, ...]:
    """Where the activations of this model are taken; the final state is always among them.

    Raises:
        MeasureError: a site that it does not have.
    """
    if config.sites is None:
        layers = depth(subject)
        blocks = D12_BLOCKS if layers == 12 else sorted({round(k * (layers - 1) / 4) for k in range(5)})
        return (*(f"blocks.{b}" for b in blocks if layers), FINAL)
    unknown = [site for site in config.sites if site not in subject.sites]
    if unknown:
        raise MeasureError(f"unknown sites {', '.join(unknown)}; this model has {', '.join(subject.sites)}")
    return tuple(dict.fromkeys((*config.sites, FINAL)))


def measured_windows(config: LmMeasureConfig, subject: Subject) -> tuple[Window, ...]:
    """Rank windows of the activation exponents: those asked for, or those of the model's tier.

    A window of the tier that does not fit is stored as not fitted, with the reason.

    Raises:
        MeasureError: a window asked for that does not fit.
    """
    if config.windows is None:
        return (*DEPTH_WINDOWS["any"], *DEPTH_WINDOWS["d36" if depth(subject) >= DEEP else "d12"])
    rank = min(config.samples - 1, subject.head.shape[1])
    for lo, hi in config.windows:
        if hi > rank:
            raise MeasureError(
                f"window {lo}–{hi} does not fit: {config.samples} centred samples of this model have rank {rank} at "
                "most; end the window earlier, or measure more tokens of a wider model"
            )
    return config.windows


def measured_gradients(config: LmMeasureConfig, subject: Subject) -> list[str]:
    """Names of the matrices whose per-sample gradients are measured.

    Raises:
        MeasureError: no matrix has one of the endings.
    """
    if not config.gradient_sequences:
        return []
    found = [name for name in subject.matrices if name.endswith(config.gradient_matrices)]
    if not found:
        raise MeasureError(
            f"no matrix ends in {', '.join(config.gradient_matrices)}; this model has {', '.join(subject.matrices)}"
        )
    return found


def check_text(config: LmMeasureConfig, subject: Subject, chosen: Sequence[Family] = ()) -> None:
    """Refuse what cannot be measured of this model, before any work starts.

    Raises:
        MeasureError: sites, windows, matrices or families that it does not have, or sequences longer than it takes.
    """
    config.length_for(subject.longest)
    measured_sites(config, subject)
    measured_windows(config, subject)
    measured_gradients(config, subject)
    check_families(subject, chosen)


def measure_text(
    subject: Subject,
    instruments: LmMeasurementData,
    progress: Progress | None = None,
    ranks: ProcessGroup | None = None,
    keeper: Keeper | None = None,
    keep_seconds: float = KEEP_SECONDS,
    stopped: Callable[[], bool] | None = None,
) -> MeasurementRows:
    """All that the configuration asks for: loss, activations, gradients, weights, families.

    Args:
        subject: the model; every rank has its own copy.
        instruments: of `prepare_text`.
        progress: told after every forward pass and pair of blocks.
        ranks: this process among those that share the work; every rank calls this function.
        keeper: of this rank; what it has kept of this very measurement is gone on from, to the same bits on a CPU.
        keep_seconds: time between two calls of the keeper.
        stopped: asked after every piece of work where one rank has a keeper; True keeps everything and leaves.

    Returns:
        The sheet, on the first rank; an empty one on the others.

    Raises:
        MeasureError: as of `check_text`, or gradients that do not fit into the budget.
        Left: it was told to stop.
    """
    ranks = ranks or ProcessGroup()
    check_text(instruments.config, subject, instruments.families)
    work = _Work(subject, instruments, ranks, progress, keeper, keep_seconds)
    if keeper is not None and ranks.size == 1:
        # One of several ranks that left would leave the others waiting.
        work.stopped = stopped
    work.activations()
    work.gradients()
    sheet = MeasurementRows(subject.step, subject.tokens)
    moments = {name: own.copy().all_reduce() for name, own in work.moments.items()}
    grams = {name: ranks.sum(gram) for name, gram in work.grams.items()}
    if ranks.first:
        _activation_rows(sheet, subject, instruments.config, moments)
        _gradient_rows(sheet, subject, grams)
        measure_weights(sheet, subject)
        measure_families(sheet, subject, instruments.families, instruments.config.top_k)
    return sheet


class _Work:
    """What one rank has gathered of one model."""

    def __init__(
        self,
        subject: Subject,
        instruments: LmMeasurementData,
        ranks: ProcessGroup,
        progress: Progress | None,
        keeper: Keeper | None,
        keep_seconds: float,
    ) -> None:
        self.subject, self.instruments, self.ranks = subject, instruments, ranks
        self.progress, self.keeper, self.keep_seconds = progress, keeper, keep_seconds
        self.kept_at = time.monotonic()
        self.stopped: Callable[[], bool] | None = None
        self.sites = measured_sites(instruments.config, subject)
        self.matrices = measured_gradients(instruments.config, subject)
        saved = keeper.load() if keeper is not None else {}
        self.batches, self.pairs, self.held = (int(saved.get(n, 0)) for n in ("batches", "pairs", "held"))
        self.moments = {name: _moments(saved, name, instruments.device) for name in (*self.sites, LOSS)}
        # What does not fit is refused before the pass over the tokens.
        self.blocks = self._plan() if self.matrices else None
        if self.blocks is not None and self.held != self.blocks.held:
            # Pairs of other blocks, or none: they are of no use.
            self.pairs, self.held = 0, self.blocks.held
        m = len(instruments.gradient)
        empty = torch.zeros(m, m, dtype=torch.float64)
        self.grams = {name: saved[f"gram.{name}"] if self.pairs else empty.clone() for name in self.matrices}

    def _plan(self) -> Blocks:
        memory = self.instruments.config.memory
        return plan_blocks(self.subject, self._gradient_sequences(), self.matrices, memory)

    def _gradient_sequences(self) -> Tensor:
        return self.instruments.take(self.instruments.gradient)

    def activations(self) -> None:
        """The one pass over the tokens: moments at every site, and the losses of the first batches."""
        config = self.instruments.config
        batches = self.instruments.batches
        own = self.ranks.share(len(batches))
        lossy = -(-config.loss_tokens // config.length)
        for k in range(self.batches, len(own)):
            sequences = self.instruments.take(batches[own[k]])
            # Which of the sequences count for the loss does not depend on who takes them.
            counted = max(0, min(len(sequences), lossy - own[k] * config.batch_sequences))
            start = 0
            for seen in self.subject.activations(sequences, self.sites):
                for site, x in seen.items():
                    self.moments[site].update(pooled(x, config.pooling))
                states = seen[FINAL][: max(0, counted - start)]
                if len(states):
                    self._lose(states, sequences[start : start + len(states), 1:])
                start += len(seen[FINAL])
            self.batches = k + 1
            self._done("activations", k + 1, len(own))

    def _lose(self, states: Tensor, targets: Tensor) -> None:
        # One sequence's logits at a time: those of a whole batch would take gigabytes.
        losses = [self.subject.head_losses(x, y) for x, y in zip(states, targets.long(), strict=True)]
        self.moments[LOSS].update(torch.stack(losses).double().mean(dim=1, keepdim=True))

    def gradients(self) -> None:
        """The Gram matrices of the per-sample gradients, within the budget of memory."""
        if self.blocks is None:
            return
        sequences = self._gradient_sequences()
        steps = gradient_grams(
            self.subject, sequences, self.matrices, self.blocks, self.ranks, self.grams, self.pairs
        )
        for done, total in steps:
            self.pairs = done
            self._done("gradients", done, total)

    def _done(self, part: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(part, done, total)
        due = time.monotonic() - self.kept_at >= self.keep_seconds
        leave = self.stopped is not None and self.stopped()
        if self.keeper is not None and (due or leave or done == total):
            self.keeper.keep(self._state())
            self.kept_at = time.monotonic()
        if leave:
            raise Interrupted

    def _state(self) -> dict[str, Tensor]:
        state = {name: torch.tensor(getattr(self, name)) for name in ("batches", "pairs", "held")}
        for name, own in self.moments.items():
            state |= {f"moments.{name}.{part}": t for part, t in own.state_dict().items()}
        if self.pairs:
            state |= {f"gram.{name}": gram for name, gram in self.grams.items()}
        return state


def _moments(saved: Mapping[str, Tensor], name: str, device: str) -> Moments:
    parts = {part: saved.get(f"moments.{name}.{part}") for part in ("count", "mean", "m2")}
    if any(value is None for value in parts.values()):
        return Moments()
    return Moments.from_state_dict(
        {part: value.to(device) for part, value in parts.items() if value is not None}
    )


def _activation_rows(
    sheet: MeasurementRows, subject: Subject, config: LmMeasureConfig, moments: dict[str, Moments]
) -> None:
    losses = moments.pop(LOSS)
    if losses.count:
        sheet.row("val_loss", LOSS, "validation", _mean_loss(losses))
    windows = measured_windows(config, subject)
    for site, own in moments.items():
        summarise(sheet, "activation", site, own.spectrum(), windows)


def _mean_loss(losses: Moments) -> Estimate:
    """The mean over sequences, ± 1.96 standard errors of it: what other text of this kind would give."""
    assert losses.mean is not None
    value = float(losses.mean[0])
    if losses.count < 2:
        return Estimate(value)
    half = 1.96 * float(np.sqrt(losses.covariance()[0, 0] / losses.count))
    return Estimate(value, value - half, value + half)


def _gradient_rows(sheet: MeasurementRows, subject: Subject, grams: Mapping[str, Tensor]) -> None:
    for name, gram in grams.items():
        if not bool(gram.any()):
            zero = Estimate.not_fitted("every per-sample gradient of it is zero here")
            sheet.row("rankme", "gradient", name, zero)
            continue
        windows = [(lo, hi) for lo, hi in GRADIENT_WINDOWS if hi <= len(gram)]
        summarise(sheet, "gradient", name, gram_spectrum(gram, subject.matrices[name].numel()), windows)
