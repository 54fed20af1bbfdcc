"""Define the measurements of a language model, and its run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from sims.runs.measure_config import Pooling, check_directions, check_schedules
from sims.runs.rank_windows import Window, check_windows
from sims.runs.step_settings import check_step_settings
from sims.system.errors import MeasureError
from toymodel.config import OMIT_DEFAULT
from toymodel.limits import check_numbers, plain_numbers

# Held-out positions have so many tokens of context in their sequence, themselves included.
NGRAM_CONTEXT = 4
FEWEST_POSITIONS = 20
FAMILIES = ("digits", "numbers", "weekdays", "months")


def positions_in(length: int) -> int:
    """Return how many positions of a sequence of a length can be drawn: those with enough context.

    >>> positions_in(128), positions_in(3)
    (125, 0)
    """
    return max(length - NGRAM_CONTEXT + 1, 0)


@dataclass(frozen=True)
class LmOptions:
    """Set the measurements of a language model.

    A value of None depends on the model and the text (see `settled`).

    Args:
        tokens: tokens of the activation spectra, in whole sequences drawn from all of the data; by default
            10,000,000, or all available ones.
        length: inputs per sequence; by default 1,024, or the largest number that the model takes.
        batch: tokens that go through the model at once.
        loss_tokens: largest number of these tokens that the validation loss uses; 0 leaves it out.
        sites: sites of the activations; None takes the final state and five blocks (0, 3, 6, 9, 11 of twelve blocks,
            evenly spaced ones otherwise).
        windows: rank windows (first, last) of the exponents; None takes those of the model's tier
            (`sims.runs.rank_windows.DEPTH_WINDOWS`): twelve blocks, or thirty-six and more.
        pooling: the samples of an activation spectrum: every token, the last token of each sequence, or the mean over
            each sequence.
        gradient_sequences: samples M of the per-sample gradient spectra; 0 leaves them out. By default 512, or all
            available sequences.
        gradient_matrices: name endings of the matrices whose gradients are measured (W_O, MLP out, Q, V).
        memory: GB (1e9 bytes) that gradients may take in addition to the model: captured factors of two blocks of
            sequences, the graph of one backward pass, the Gram matrices.
        families: cyclic families of tokens whose embedding and head rows are probed for concentration: presets
            (digits, numbers, weekdays, months) or name=token,token,… in the order of the cycle. By default the presets
            in the vocabulary.
        top_k: conjugate pairs in the top-k set of H_S.
        data_seed: seed of the draw of sequences.
        updates: steps between measured windows of parameter updates while training; 0 leaves them out.
        update_window: updates in such a window.
        update_windows: several such numbers, for example 5 10 20, all measured; empty takes update_window alone.
        update_stride: training steps of one update, from one snapshot of the weights to the next; updates must be a
            multiple of it.
        update_groups: which parameters go into one window: those of each optimiser, all, trunk (the blocks), attention
            (q, k, v and o), embedding (tables of tokens and positions), one matrix (matrix:blocks.0.attn.q), or several
            of these.
        update_sketch: numbers kept of each update, of which inner products are estimated; 0 keeps all of them.
        update_memory: GB (1e9 bytes) that the windows of a run may take.
        update_draws: simulated windows of each null of noise; the smallest p-value is 1/(1 + draws).
        update_nulls: simulate them only for windows that end at a multiple of this many updates; 1 for all windows.
        update_decay: split each measured update into what weight decay did and the rest; every step of it is then
            looked at.
        defect: steps between measurements of the commutator defect of two training batches; 0 leaves it out.
        defect_pairs: pairs of batches at each of them.
        defect_sequences: sequences of such a batch; 0 takes as many as a training step has.
        defect_rate: learning rate of the finite steps that are compared with their limit.
        tails: with the spectra of weights, also their exponents by rank, by Hill and by FARMS, the spectra of matrices
            with the gains of the norms before them, and of the products W_qᵀW_k and W_oW_v of every attention head,
            and distances from the initial weights.
        geometry: with the spectra of activations, also α-ReQ, RankMe of the singular values and without the first
            directions, and the share of the mean state.
        directions: sequences on which losses and accuracies are measured with only the first principal directions of
            the final state, and without them; half of them give the directions. 0 leaves it out.
        ngrams: at held-out positions, how the predictions agree with the n-grams of the training shards, which lie in
            the same folder.
        ngram_positions: so many positions, drawn from the measured tokens; by default 1,600, or all of them.
        schedules: measurements that are taken between training steps instead of at the checkpoints, as name=every:
            "weights=25" after every 25 steps, "weights=25+28/decade" also at 28 steps of each factor of ten.
    """

    tokens: int | None = None
    length: int | None = None
    batch: int = 16_384
    loss_tokens: int = 1_048_576
    sites: tuple[str, ...] | None = None
    windows: tuple[Window, ...] | None = None
    pooling: Pooling = "token"
    gradient_sequences: int | None = None
    gradient_matrices: tuple[str, ...] = ("attn.q", "attn.v", "attn.o", "mlp.proj")
    memory: float = 8.0
    families: tuple[str, ...] | None = None
    top_k: int = 3
    data_seed: int = 0
    # Left out of run.json at their defaults: runs stored without them are still the same runs.
    updates: int = field(default=0, metadata=OMIT_DEFAULT)
    update_window: int = field(default=10, metadata=OMIT_DEFAULT)
    update_windows: tuple[int, ...] = field(default=(), metadata=OMIT_DEFAULT)
    update_stride: int = field(default=1, metadata=OMIT_DEFAULT)
    update_groups: tuple[str, ...] = field(default=("optimiser",), metadata=OMIT_DEFAULT)
    update_sketch: int = field(default=0, metadata=OMIT_DEFAULT)
    update_memory: float = field(default=4.0, metadata=OMIT_DEFAULT)
    update_draws: int = field(default=999, metadata=OMIT_DEFAULT)
    update_nulls: int = field(default=1, metadata=OMIT_DEFAULT)
    update_decay: bool = field(default=False, metadata=OMIT_DEFAULT)
    defect: int = field(default=0, metadata=OMIT_DEFAULT)
    defect_pairs: int = field(default=5, metadata=OMIT_DEFAULT)
    defect_sequences: int = field(default=0, metadata=OMIT_DEFAULT)
    defect_rate: float = field(default=1e-3, metadata=OMIT_DEFAULT)
    tails: bool = field(default=False, metadata=OMIT_DEFAULT)
    geometry: bool = field(default=False, metadata=OMIT_DEFAULT)
    directions: int = field(default=0, metadata=OMIT_DEFAULT)
    ngrams: bool = field(default=False, metadata=OMIT_DEFAULT)
    ngram_positions: int | None = field(default=None, metadata=OMIT_DEFAULT)
    schedules: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)

    def length_for(self, longest: int | None) -> int:
        """Return the inputs per sequence for a model.

        Args:
            longest: largest number of inputs that the model takes; None for no limit.

        Raises:
            MeasureError: the model takes fewer inputs than requested.
        """
        if self.length is None:
            return min(n for n in (LmMeasureConfig.length, longest) if n is not None)
        if longest is not None and self.length > longest:
            raise MeasureError(
                f"length is {self.length} and this model takes {longest} inputs at most; lower it to {longest}"
            )
        return self.length

    def settled(self, length: int, available: int, families: tuple[str, ...]) -> LmMeasureConfig:
        """Return these measurements with all values set.

        Args:
            length: inputs per sequence, from `length_for`.
            available: number of sequences of this length in the data.
            families: families measured by default.

        Raises:
            MeasureError: a value is out of range (see `LmMeasureConfig`).
        """
        default = LmMeasureConfig
        defaults = {
            "length": length,
            "tokens": min(default.tokens, available * length),
            "gradient_sequences": min(default.gradient_sequences, available),
            "families": families,
            "ngram_positions": self._positions(length, available),
        }
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return LmMeasureConfig(**given | {n: v for n, v in defaults.items() if given[n] is None})

    def _positions(self, length: int, available: int) -> int:
        """Return how many held-out positions are drawn by default."""
        if not self.ngrams:
            return LmMeasureConfig.ngram_positions
        sequences = available if self.tokens is None else min(available, self.tokens // length)
        return min(LmMeasureConfig.ngram_positions, sequences * positions_in(length))


@dataclass(frozen=True)
class LmMeasureConfig(LmOptions):
    """Set all measurements of a language model at one checkpoint.

    Args:
        tokens: tokens of the activation spectra, in whole sequences drawn from all of the data.
        length: inputs per sequence.
        gradient_sequences: samples M of the per-sample gradient spectra; 0 leaves them out.
        families: cyclic families of tokens whose embedding and head rows are probed for concentration: presets
            (digits, numbers, weekdays, months) or name=token,token,… in the order of the cycle.
        ngram_positions: held-out positions where `ngrams` is set.

    Raises:
        MeasureError: a value is out of range; the message names it.
    """

    tokens: int = 10_000_000
    length: int = 1_024
    gradient_sequences: int = 512
    families: tuple[str, ...] = FAMILIES
    ngram_positions: int = field(default=1_600, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        plain_numbers(self, MeasureError)
        check_numbers(self, MeasureError)
        for name in ("length", "batch", "top_k"):
            if getattr(self, name) < 1:
                raise MeasureError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("loss_tokens", "gradient_sequences", "data_seed", "updates"):
            if getattr(self, name) < 0:
                raise MeasureError(f"{name} is {getattr(self, name)}; it must be 0 or positive")
        if self.tokens < 2 * self.length:
            raise MeasureError(
                f"tokens is {self.tokens}, less than two sequences of {self.length}; a spectrum needs more "
                "tokens, or shorter sequences (length)"
            )
        if self.batch < self.length:
            raise MeasureError(
                f"batch is {self.batch} tokens, less than one sequence of {self.length}; raise it"
            )
        check_directions(self.directions)
        if self.directions > self.sequences:
            raise MeasureError(
                f"directions is {self.directions} and tokens asks for {self.sequences} sequences, whose first ones are "
                "taken; lower it, or raise tokens"
            )
        check_step_settings(self)
        if self.gradient_sequences == 1:
            raise MeasureError(
                "gradient_sequences is 1; a spectrum across samples needs 2 or more, or 0 for none"
            )
        if self.gradient_sequences and not self.gradient_matrices:
            raise MeasureError(
                "gradient_matrices is empty; name endings such as attn.o, or set gradient_sequences to 0"
            )
        if not self.memory > 0:
            raise MeasureError(f"memory is {self.memory} GB; it must be positive")
        if self.ngram_positions < FEWEST_POSITIONS:
            raise MeasureError(
                f"ngram_positions is {self.ngram_positions}; it must be at least {FEWEST_POSITIONS}: give more, "
                f"or measure more tokens, in sequences of {NGRAM_CONTEXT} and more"
            )
        if self.ngram_positions != type(self).ngram_positions and not self.ngrams:
            raise MeasureError(
                f"ngram_positions is {self.ngram_positions}, and ngrams is not set; add ngrams, or leave it out"
            )
        if self.pooling not in ("last", "mean", "token"):
            raise MeasureError(f"pooling is {self.pooling!r}; choose 'token', 'last' or 'mean'")
        check_schedules(self.schedules)
        check_windows(self.windows or ())

    @property
    def sequences(self) -> int:
        """Return the number of whole sequences in `tokens`."""
        return self.tokens // self.length

    @property
    def samples(self) -> int:
        """Return the number of samples of an activation spectrum."""
        return self.sequences * self.length if self.pooling == "token" else self.sequences

    @property
    def batch_sequences(self) -> int:
        """Return the number of sequences that go through the model at once."""
        return self.batch // self.length

    def check(self, available: int) -> None:
        """Refuse measurements that need more data than there are.

        Args:
            available: number of sequences of this length in the data.

        Raises:
            MeasureError: fewer sequences than requested.
        """
        for name, wanted in (("tokens", self.sequences), ("gradient_sequences", self.gradient_sequences)):
            if wanted > available:
                most = available * (self.length if name == "tokens" else 1)
                raise MeasureError(
                    f"{name} asks for {wanted} sequences of {self.length} tokens and the data hold "
                    f"{available}; lower it to {most}, shorten the sequences (length), or give more shards"
                )
        most = self.sequences * positions_in(self.length)
        if self.ngrams and self.ngram_positions > most:
            raise MeasureError(
                f"ngram_positions is {self.ngram_positions}, and the {self.sequences} measured sequences have {most} "
                f"positions with {NGRAM_CONTEXT} tokens of context; lower it, or measure more tokens"
            )


@dataclass(frozen=True)
class RunMetadata:
    """Name values of a run that its checkpoints do not record.

    Checkpoints of this package record all of them.

    Args:
        name: name of the run and of its folder; by default that of the checkpoint or of the folder of checkpoints.
        stage: stage that the run belongs to in an experiment; by default the kind of checkpoint.
        batch_size: sequences per step; by default the tokens per step divided by the measured length.
        lr: learning rate.
        seed: seed of the training; by default 0.

    Raises:
        MeasureError: a value is out of range or of another type; the message names it.
    """

    name: str | None = None
    stage: str | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        plain_numbers(self, MeasureError)
        if self.name is not None and re.fullmatch(r"[\w.+-]*[\w+-]", self.name) is None:
            raise MeasureError(
                f"name is {self.name!r}; it becomes a folder: use letters, digits, '.', '_', '+' and '-'"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise MeasureError(f"batch_size is {self.batch_size}; it must be at least 1")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise MeasureError(f"lr is {self.lr}; it must be a positive number")
        if self.seed is not None and self.seed < 0:
            raise MeasureError(f"seed is {self.seed}; it must be 0 or positive")


@dataclass(frozen=True)
class LmRun:
    """Describe a language-model run whose checkpoints are measured (a `RunSpec`).

    Args:
        name: of the run and of its folder.
        stage, batch_size, lr, seed: place in an experiment, with the same meaning as for a toy run; batch_size in
            sequences, lr None where no record names it.
        steps: optimiser steps at the last checkpoint.
        tokens_per_step: target tokens per step.
        model: kind of checkpoint, sizes, and logit_bias where its logits have a bias of `train lm`.
        checkpoints: (step, name, bytes) of each checkpoint.
        data: SHA-256 of the text that it is measured on.
    """

    name: str
    stage: str
    batch_size: int
    lr: float | None
    seed: int
    steps: int
    tokens_per_step: int
    model: dict[str, Any] = field(default_factory=dict)
    checkpoints: tuple[tuple[int, str, int], ...] = ()
    data: str = ""

    @property
    def run_id(self) -> str:
        """Return the name of its folder."""
        return self.name
