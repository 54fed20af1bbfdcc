"""Define the measurements of a toy run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from sims.runs.rank_windows import Window, check_windows, fitting_windows
from sims.runs.step_settings import check_step_settings, check_steps
from sims.system.errors import MeasureError
from toymodel.config import OMIT_DEFAULT, RunConfig
from toymodel.limits import check_numbers, plain_numbers
from toymodel.observe import Schedule
from toymodel.stages import stage
from toymodel.task import Task
from toymodel.tasks.modular_walk_probes import PUBLISHED_BANDS
from toymodel.tasks.modular_walks import ModularWalks

Pooling = Literal["last", "mean", "token"]
Band = tuple[int, int]


# Sequences of activation spectra where the validation split may be small.
_FEW = 256
# Contexts for each dimension of the states; half of them are fitted. With fewer, chance alone is below a share of −1.
CONTEXTS_PER_DIMENSION = 4
# Sequences of which one half gives principal directions, and the other losses with an interval.
LEAST_DIRECTION_SEQUENCES = 4
# Linear maps of a block, by the ending of the matrix's name: those with per-sample gradients.
LINEAR = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc", "mlp.proj")
# A message names the blocks of a model of fewer.
MOST_BLOCKS = 1_000
# More fit into no memory.
MOST_SEQUENCES = 10**7


@dataclass(frozen=True)
class MeasureConfig:
    """Set the measurements of one toy run.

    Args:
        every: steps between measurements, which are taken at evaluations: at those whose step is a multiple of it, and
            at the start and the end.
        early: number of first evaluations after the start that are measured as well. Losses fall fastest there, and
            runs are compared at losses that all of them passed after their first measurement.
        sequences: validation sequences of an activation spectrum (published: 1,024).
        pooling: the samples of an activation spectrum: the last position of each sequence, the mean over its
            positions, or every token.
        sites: sites of the activations; "final" is the normalised state that the head reads.
        windows: rank windows (first, last) of the exponents; None takes those of 1–10, 10–40 and 50–min(200, d) that
            fit in the width d.
        gradient_sequences: samples M of the per-sample gradient spectra; 0 leaves them out.
        gradient_matrices: name endings of the matrices whose gradients are measured (published: W_O, MLP out, Q, V).
        bands: probe bands (modulus, offset) that are measured on every run, even if training does not contain them.
        training_bands: number of training bands of odd modulus, the most frequent first, that are probed as well.
        training_band_min: smallest modulus of those; small bands have a large null.
        probe_sequences: sequences per probe band.
        top_k: conjugate pairs in the top-k set of H_S.
        causal_sequences: probe sequences of the causal keep/drop test; 0 leaves it out.
        checkpoints: store weights at every measurement, so that a run can be measured again.
        updates: steps between measured windows of parameter updates; 0 leaves them out.
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
        accuracy: steps between measurements of accuracy, exact match and loss on validation and training sequences; 0
            leaves them out.
        positions: measure the validation loss above its exact floor at every position.
        predictive: contexts on which the states are compared with the exact law of the next token; 0 leaves it out.
        tails: with the spectra of weights, also their exponents by rank, by Hill and by FARMS, the spectra of matrices
            with the gains of the norms before them, and of the products W_qᵀW_k and W_oW_v of every attention head,
            and distances from the initial weights.
        geometry: with the spectra of activations, also α-ReQ, RankMe of the singular values and without the first
            directions, and the share of the mean state.
        directions: sequences on which losses and accuracies are measured with only the first principal directions of
            the final state, and without them; half of them give the directions. 0 leaves it out.
        schedules: measurements that are taken between training steps instead of with the others, as name=every:
            "weights=25" after every 25 steps, "weights=25+28/decade" also at 28 steps of each factor of ten.

    Raises:
        MeasureError: a value is out of range; the message names it.
    """

    every: int = 250
    early: int = 0
    sequences: int = 1_024
    pooling: Pooling = "last"
    sites: tuple[str, ...] = ("final",)
    windows: tuple[Window, ...] | None = None
    gradient_sequences: int = 64
    gradient_matrices: tuple[str, ...] = ("attn.q", "attn.v", "attn.o", "mlp.proj")
    bands: tuple[Band, ...] = PUBLISHED_BANDS
    training_bands: int = 2
    training_band_min: int = 17
    probe_sequences: int = 12_000
    top_k: int = 3
    causal_sequences: int = 512
    checkpoints: bool = True
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
    accuracy: int = field(default=0, metadata=OMIT_DEFAULT)
    positions: bool = field(default=False, metadata=OMIT_DEFAULT)
    predictive: int = field(default=0, metadata=OMIT_DEFAULT)
    tails: bool = field(default=False, metadata=OMIT_DEFAULT)
    geometry: bool = field(default=False, metadata=OMIT_DEFAULT)
    directions: int = field(default=0, metadata=OMIT_DEFAULT)
    schedules: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        plain_numbers(self, MeasureError)
        check_numbers(self, MeasureError)
        for name in ("every", "sequences", "probe_sequences", "top_k"):
            if getattr(self, name) < 1:
                raise MeasureError(f"measure.{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "early",
            "gradient_sequences",
            "training_bands",
            "causal_sequences",
            "updates",
            "accuracy",
            "predictive",
        ):
            if getattr(self, name) < 0:
                raise MeasureError(
                    f"measure.{name} is {getattr(self, name)}; it must be 0 (leave out) or positive"
                )
        for name in ("probe_sequences", "predictive"):
            if getattr(self, name) > MOST_SEQUENCES:
                raise MeasureError(
                    f"measure.{name} is {getattr(self, name)}; it must be at most {MOST_SEQUENCES:,}"
                )
        if self.training_band_min < 1:
            raise MeasureError(
                f"measure.training_band_min is {self.training_band_min}; it must be at least 1"
            )
        if self.gradient_sequences == 1:
            raise MeasureError(
                "measure.gradient_sequences is 1; a spectrum across samples needs 2 or more, or 0 for none"
            )
        check_directions(self.directions, "measure.")
        check_step_settings(self, "measure.")
        if self.pooling not in ("last", "mean", "token"):
            raise MeasureError(f"measure.pooling is {self.pooling!r}; choose 'last', 'mean' or 'token'")
        check_schedules(self.schedules)
        check_windows(self.windows or ())

    def exponent_windows(self, width: int) -> tuple[Window, ...]:
        """Return the rank windows for activations of this width."""
        return fitting_windows(width) if self.windows is None else self.windows

    def check(self, run: RunConfig) -> None:
        """Refuse measurements that are not possible for this run.

        Raises:
            MeasureError: too many sequences, a window above the rank, more causal than probe sequences, bands of a task
                without them, a band outside the vocabulary, or too few probe sequences for its states.
        """
        available = run.task.val
        for name in ("sequences", "gradient_sequences", "directions"):
            if getattr(self, name) > available:
                raise MeasureError(
                    f"measure.{name} is {getattr(self, name)} but the validation split has {available} sequences; "
                    "lower it, or make that split larger"
                )
        width = run.model.d_model
        samples = self.sequences if self.pooling != "token" else self.sequences * run.task.length
        rank = min(samples - 1, width)
        for lo, hi in self.exponent_windows(width):
            if hi > rank:
                raise MeasureError(
                    f"window {lo}–{hi} does not fit: {samples} centred samples of width {width} have rank {rank} "
                    "at most; end the window earlier, or measure more sequences of a wider model"
                )
        own = stage(run.stage)
        sites = own.sites(run.model.layers) if run.model.layers < MOST_BLOCKS else ()
        if unknown := [s for s in self.sites if sites and s not in sites]:
            raise MeasureError(f"measure.sites has {', '.join(unknown)}; this model has {', '.join(sites)}")
        if own.network == "mlp" and self.pooling != "last":
            raise MeasureError(
                f"measure.pooling is {self.pooling!r}, and stage {own.name} has one state a sequence; take 'last'"
            )
        if 0 < self.predictive < CONTEXTS_PER_DIMENSION * width:
            raise MeasureError(
                f"measure.predictive is {self.predictive}, and states of width {width} need "
                f"{CONTEXTS_PER_DIMENSION * width} contexts or more; raise it, or set it to 0"
            )
        self._check_gradients(run)
        self._check_steps(run)
        if self.causal_sequences > self.probe_sequences:
            raise MeasureError(
                f"measure.causal_sequences {self.causal_sequences} is above measure.probe_sequences "
                f"{self.probe_sequences}; the causal test uses a part of the probe"
            )
        if (self.bands or self.training_bands) and not isinstance(run.task, ModularWalks):
            raise MeasureError(
                f"the task is {run.task.kind}, and probe bands exist for {ModularWalks.kind} only; leave measure.bands "
                "empty and set measure.training_bands to 0 (`for_task` does)"
            )
        self._check_training_bands(run)
        self._check_bands(run)

    def _check_bands(self, run: RunConfig) -> None:
        """Refuse bands that do not lie in the vocabulary, or that the probe is too small for."""
        # By default bands with fewer pairs are measured without a top-k set.
        if self.top_k > max(MeasureConfig.top_k, (run.task.vocab - 1) // 2):
            raise MeasureError(
                f"measure.top_k is {self.top_k}, and a band of a vocabulary of {run.task.vocab} has at most "
                f"{(run.task.vocab - 1) // 2} conjugate pairs; lower it below that"
            )
        for c, o in self.bands:
            if c < 3:
                raise MeasureError(
                    f"band {c}:{o} has a modulus below 3, and no frequencies to compare; raise it"
                )
            if o < 0 or c + o > run.task.vocab:
                raise MeasureError(
                    f"band {c}:{o} does not lie in a vocabulary of {run.task.vocab}; choose an offset ≥ 0, and "
                    "modulus + offset ≤ vocab"
                )
            if self.probe_sequences < 10 * c:
                raise MeasureError(
                    f"{self.probe_sequences} probe sequences leave fewer than 10 for each of the {c} states of band "
                    f"{c}:{o}; raise measure.probe_sequences to {10 * max(c for c, _ in self.bands)}, or leave the "
                    "bands of larger moduli out of measure.bands"
                )

    def _check_gradients(self, run: RunConfig) -> None:
        """Refuse endings that no matrix with per-sample gradients has, and no ending at all."""
        if not self.gradient_sequences or run.model.layers >= MOST_BLOCKS:
            return
        if not self.gradient_matrices:
            raise MeasureError(
                "measure.gradient_matrices is empty; name endings such as attn.o, or set measure.gradient_sequences "
                "to 0"
            )
        names = [f"blocks.{layer}.{part}" for layer in range(run.model.layers) for part in LINEAR]
        fits = {e: any(n.endswith(e) for n in names) for e in self.gradient_matrices}
        # Tables have no per-sample gradients, and an empty text ends every name.
        if unknown := [e for e, fit in fits.items() if not fit or "embed".endswith(e) or "head".endswith(e)]:
            raise MeasureError(
                f"measure.gradient_matrices has {', '.join(map(repr, unknown))}, in which no matrix with per-sample "
                f"gradients ends; this model has {', '.join(LINEAR)} in blocks.0 … blocks.{run.model.layers - 1}"
            )

    def _check_steps(self, run: RunConfig) -> None:
        """Refuse measurements between training steps that the run is too short for."""
        check_steps(self, run.steps, "measure.")
        late = [entry for entry in self.schedules if (schedule_entry(entry)[1].every or 1) > run.steps]
        if late:
            raise MeasureError(
                f"measure.schedules has {late[0]}, but the run has {run.steps} steps; lower it, or leave it out"
            )

    def _check_training_bands(self, run: RunConfig) -> None:
        """Refuse more training bands than the vocabulary has room for."""
        vocab, least = run.task.vocab, max(self.training_band_min, 3)
        # Odd moduli c from the first one to vocab, each at the offsets 0 … vocab − c.
        first = least + 1 - least % 2
        moduli = max(0, (vocab - first) // 2 + 1)
        room = moduli * (vocab + 2 - first - moduli)
        if self.training_bands > room:
            raise MeasureError(
                f"measure.training_bands is {self.training_bands}, and a vocabulary of {vocab} has {room} bands of odd "
                f"modulus from {least} on; lower it or measure.training_band_min"
            )


if TYPE_CHECKING:
    MeasureChanges = MeasureConfig
else:
    # The same fields, None where nothing is said of them.
    MeasureChanges = make_dataclass(
        "MeasureChanges",
        [(f.name, get_type_hints(MeasureConfig)[f.name] | None, None) for f in fields(MeasureConfig)],
        namespace={"__doc__": MeasureConfig.__doc__},
        frozen=True,
    )


def changed(config: MeasureConfig, changes: MeasureChanges) -> MeasureConfig:
    """Return a configuration with other values of the fields that the changes name.

    Raises:
        MeasureError: a value is out of range.
    """
    named = {f.name: getattr(changes, f.name) for f in fields(changes)}
    return replace(config, **{name: value for name, value in named.items() if value is not None})


def for_task(config: MeasureConfig, task: Task) -> MeasureConfig:
    """Return the measurements of a configuration that a task allows, at a size that fits a small table.

    Tasks other than modular walks have no bands. Their losses count some of the targets, which leaves out per-sample
    gradients, and a table of all pairs may have few validation sequences: activations are of 256 at most.
    """
    if isinstance(task, ModularWalks):
        return config
    return replace(
        config, bands=(), training_bands=0, gradient_sequences=0, sequences=min(config.sequences, _FEW)
    )


def check_directions(sequences: int, prefix: str = "") -> None:
    """Refuse a number of sequences that has no two halves with an interval.

    Raises:
        MeasureError: naming it.
    """
    if sequences and sequences < LEAST_DIRECTION_SEQUENCES:
        raise MeasureError(
            f"{prefix}directions is {sequences}; one half gives the directions and the other the losses: pass at least "
            f"{LEAST_DIRECTION_SEQUENCES} sequences, or 0 for none"
        )


def schedule_entry(entry: str) -> tuple[str, Schedule]:
    """Return the name and the steps of an entry such as "weights=25" or "weights=25+28/decade".

    Raises:
        MeasureError: it is not of this form.

    >>> schedule_entry("weights=25+28/decade")
    ('weights', Schedule(every=25, steps=(), per_decade=28))
    """
    found = re.fullmatch(r"([^=]+)=(\d{1,12})(?:\+(\d{1,6})/decade)?", entry)
    numbers = [int(n) for n in found.groups()[1:] if n is not None] if found else []
    if found is None or not all(numbers):
        raise MeasureError(
            f"schedules has {entry!r}; write name=steps, such as weights=25, or weights=25+28/decade for more early"
        )
    return found[1], Schedule(every=numbers[0], per_decade=numbers[1] if len(numbers) > 1 else None)


def check_schedules(entries: tuple[str, ...]) -> None:
    """Refuse entries that are not name=steps, or name a measurement twice.

    Raises:
        MeasureError: naming the entry.
    """
    names = [schedule_entry(entry)[0] for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise MeasureError(f"schedules names {name!r} twice; give each measurement one schedule")


def measure_config(data: dict[str, Any]) -> MeasureConfig:
    """Build a configuration from the JSON of `run.json`.

    Raises:
        MeasureError: a field is unknown, or a value is out of range.
    """
    pairs = {name: _pairs(data[name]) for name in ("windows", "bands") if name in data}
    lists = ("sites", "gradient_matrices", "schedules", "update_windows", "update_groups")
    names = {name: tuple(data[name]) for name in lists if name in data}
    try:
        return MeasureConfig(**{**data, **pairs, **names})
    except TypeError as error:
        raise MeasureError(f"not a measurement configuration of this version: {error}") from error


def _pairs(value: Any) -> tuple[tuple[int, int], ...] | None:
    return None if value is None else tuple((int(a), int(b)) for a, b in value)
