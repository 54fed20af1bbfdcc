"""Prepare what a language model is measured with: sequences of text and cyclic families of tokens.

The rows and spectra are those of the toy, so that every analysis takes them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from sims.measure.band_states import Probe
from sims.measure.measurement import Need
from sims.measure.ngram_laws import HeldOut, Training, draw_positions, held_out
from sims.measure.registry import LM_OFFERS
from sims.measure.token_families import Encode, Family, check_families, families
from sims.models.subject import Subject
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.rank_windows import DEPTH_WINDOWS, Window
from sims.system.errors import MeasureError
from sims.text.shards import GPT2_VOCABULARY, TokenSequences
from toymodel.sequences import Sequences
from toymodel.transformer import FINAL

# Blocks of a twelve-block model whose activations are measured (arXiv 2605.05683); others are spaced as evenly.
D12_BLOCKS = (0, 3, 6, 9, 11)
DEEP = 36


@dataclass(frozen=True, eq=False)
class LmMeasurementData:
    """Fixed inputs of one language-model run (a `sims.measure.measurement.Data`).

    Args:
        config: what is measured.
        data: all sequences.
        which: indices of the sequences used for the activation spectra, in the order they are taken.
        gradient: indices of the sequences used for the gradient spectra, the first of the same draw.
        families: cyclic families of tokens.
        device: where the tokens are put.
        training: text whose n-grams are counted; None where there is none.
    """

    config: LmMeasureConfig
    data: Sequences
    which: np.ndarray
    gradient: np.ndarray
    families: tuple[Family, ...]
    device: str = "cpu"
    probes: tuple[Probe, ...] = ()
    last_apart: bool = False
    training: Training | None = None

    @property
    def offers(self) -> frozenset[Need]:
        """Everything that a language model has; families and n-grams where there are some."""
        missing: set[Need] = set() if self.families else {"families"}
        return LM_OFFERS - (missing if self.training else missing | {"text"})

    @cached_property
    def held_out(self) -> HeldOut:
        """Positions of the measured sequences, and the laws of n-grams of the training text there."""
        assert self.training is not None
        config = self.config
        drawn = draw_positions(len(self.which), config.length, config.ngram_positions, config.data_seed)
        return held_out(self.data.take(self.which[drawn[0]]).numpy(), *drawn, self.training)

    def take(self, which: np.ndarray) -> Tensor:
        """Return the (n, T+1) tokens of these sequences, on the device."""
        return self.data.take(which).to(self.device)

    def batches(self, last: bool) -> Sequence[slice]:
        """Return batches of as many sequences as go through the model at once."""
        size = self.config.batch_sequences
        return [slice(start, start + size) for start in range(0, len(self.which), size)]

    def tokens(self, batch: slice) -> Tensor:
        """Return the (b, T+1) tokens of a batch."""
        return self.take(self.which[batch])

    def gradient_sequences(self) -> Tensor:
        """Return the (M, T+1) tokens behind the per-sample gradients."""
        return self.take(self.gradient)

    @property
    def memory(self) -> float:
        """Memory in GB for per-sample gradients."""
        return self.config.memory

    def check(self, subject: Subject) -> None:
        """Raise a MeasureError for what cannot be measured of this model."""
        check_text(self.config, subject, self.families)

    def sites(self, subject: Subject) -> tuple[str, ...]:
        """Return the sites of the activation spectra, the final state among them."""
        return measured_sites(self.config, subject)

    def windows(self, subject: Subject, width: int) -> tuple[Window, ...]:
        """Return the rank windows, the same at every site."""
        return measured_windows(self.config, subject)

    def gradient_matrices(self, subject: Subject) -> list[str]:
        """Return the matrices with one of the endings of the configuration."""
        return measured_gradients(self.config, subject)


def prepare_text(
    config: LmMeasureConfig,
    shards: Sequence[Path],
    encode: Encode | None = None,
    device: str = "cpu",
    vocabulary: int = GPT2_VOCABULARY,
    training: Training | None = None,
) -> LmMeasurementData:
    """Draw the sequences and find the families that a run is measured with.

    Args:
        config: what is measured.
        shards: files of tokens (`sims.text.shards.shard_files`).
        encode: tokens of a text, in the vocabulary of the shards; needed for families.
        device: where it is measured.
        vocabulary: number of tokens of that vocabulary, or of the model where it has fewer.
        training: text whose n-grams are counted, which does not hold the measured one; needed for n-grams.

    Raises:
        MeasureError: more tokens than there are, families that the vocabulary does not have, or no training text.
        StoreError: a shard is missing, damaged or of another vocabulary.
    """
    chosen = families(config.families, encode)
    data = TokenSequences(shards, config.length, vocabulary)
    config.check(len(data))
    if config.ngrams and training is None:
        raise MeasureError("ngrams are counted in a training text, and there is none; give its shards")
    order = np.random.default_rng(config.data_seed).permutation(len(data))
    return LmMeasurementData(
        config,
        data,
        order[: config.sequences],
        order[: config.gradient_sequences],
        chosen,
        device,
        training=training if config.ngrams else None,
    )


def depth(subject: Subject) -> int:
    """Return the number of blocks of a model."""
    return sum(site.startswith("blocks.") for site in subject.sites)


def measured_sites(config: LmMeasureConfig, subject: Subject) -> tuple[str, ...]:
    """Return the sites of the activations of this model; the final state is always among them.

    Raises:
        MeasureError: it does not have one of the given sites.
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
    """Return the rank windows of the activation exponents: the given ones, or those of the model's tier.

    A window of the tier that does not fit gives a row "not fitted" with the reason.

    Raises:
        MeasureError: a given window does not fit.
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
    """Return the names of the matrices whose per-sample gradients are measured.

    Raises:
        MeasureError: no matrix has one of the endings.
    """
    if not config.gradient_sequences:
        return []
    known = subject.with_gradients
    found = [name for name in known if name.endswith(config.gradient_matrices)]
    unknown = [e for e in config.gradient_matrices if not any(name.endswith(e) for name in known)]
    # The usual ones are measured as far as the model has them.
    if not found or (unknown and config.gradient_matrices != LmMeasureConfig.gradient_matrices):
        raise MeasureError(
            f"no matrix with per-sample gradients ends in {', '.join(unknown)}; this model has {', '.join(known)}"
        )
    return found


def check_text(config: LmMeasureConfig, subject: Subject, chosen: Sequence[Family] = ()) -> None:
    """Raise an error for what cannot be measured of this model, before any work starts.

    Raises:
        MeasureError: sites, windows, matrices or families that it does not have, or sequences longer than it takes.
    """
    config.length_for(subject.longest)
    measured_sites(config, subject)
    measured_windows(config, subject)
    measured_gradients(config, subject)
    check_families(subject, chosen)
