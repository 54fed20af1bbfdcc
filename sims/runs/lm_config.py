"""Define one training run of a language model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from sims.runs.tiers import Tier, tier
from sims.text.shards import GPT2_VOCABULARY
from toymodel.config import OMIT_DEFAULT, NewtonSchulz, canonical_hash
from toymodel.errors import ConfigError
from toymodel.intervention import NONE, Intervention
from toymodel.limits import check_numbers, plain_numbers
from toymodel.rates import ONE_RATE, Rates
from toymodel.sizes import Sizes
from toymodel.stages import CHAIN, stage
from toymodel.stages.baseline import TiedHead

if TYPE_CHECKING:
    from toymodel.transformer import Transformer

Precision = Literal["bfloat16", "float32"]

# A tied N(0, 1) embedding would start with logits as large as its width, and a loss of as many nats; GPT-2 takes 0.02.
TIED_STD = 0.02
MOST_LOOKS = 100_000


@dataclass(frozen=True)
class LmConfig:
    """Describe one run; devices and processes are not part of it.

    Args:
        tier: name of a model size (see `TIERS`).
        stage: name of a stage (see `toymodel.stages`).
        vocabulary: tokens of the tokeniser; the model's vocabulary is the next multiple of 128.
        length: inputs per sequence.
        batch_size: sequences per step.
        steps: optimiser steps of the whole run.
        lr: base learning rate; Muon matrices use 50 times this rate in the stages with Muon.
        warmup, warmdown: shares of the steps in which the learning rate rises linearly from 0, and at the end falls
            linearly to 0; it is constant between them. 0 for none, as in the toy.
        seed: of the initialisation and the order of the data.
        weight_decay: decoupled decay of the AdamW group; None takes the default of the stage.
        newton_schulz: arithmetic of Muon's orthogonalisation.
        precision: of matrix products and activations; parameters and optimiser states are always float32.
        eval_every: steps between evaluations.
        eval_tokens: validation tokens per evaluation, the first ones of their shards.
        target_loss: the run ends when its validation loss, in nats, is at or below it; None trains all steps.
        checkpoints: shares of the run after which weights are stored and measured.
        data: SHA-256 of the content of the shards (see `Corpus.digest`). It is not part of the run's name, so that a
            run whose shards have changed is found, and refused.
        logit_bias: add a learned number b_w to the logit of every token w (see `toymodel.transformer.Transformer`).
        intervention: what is changed in some updates on purpose (see `toymodel.Intervention`); by default nothing.
        rates: how the learning rates of matrices differ (see `toymodel.rates.Rates`); by default one rate.
        tokens_per_step: batch_size · length; not an argument.

    Raises:
        ConfigError: a value is out of range; the message names it.
    """

    tier: str
    stage: str
    vocabulary: int
    length: int
    batch_size: int
    steps: int
    lr: float = 6e-4
    warmup: float = 0.03
    warmdown: float = 0.2
    seed: int = 0
    weight_decay: float | None = None
    newton_schulz: NewtonSchulz = "bfloat16"
    precision: Precision = "bfloat16"
    eval_every: int = 125
    eval_tokens: int = 10_485_760
    target_loss: float | None = None
    checkpoints: tuple[float, ...] = (0.0, 0.01, 0.03, 0.1, 0.2, 0.5, 1.0)
    data: str = ""
    logit_bias: bool = field(default=False, metadata=OMIT_DEFAULT)
    intervention: Intervention = field(default=NONE, metadata=OMIT_DEFAULT)
    rates: Rates = field(default=ONE_RATE, metadata=OMIT_DEFAULT)
    tokens_per_step: int = field(init=False)

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_numbers(self)
        if stage(self.stage).network != "transformer":
            raise ConfigError(
                f"stage {self.stage} is no transformer; language models take {', '.join(CHAIN)}"
            )
        tier(self.tier)
        for name in ("length", "batch_size", "steps", "eval_every", "eval_tokens", "vocabulary"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr is {self.lr}; it must be a positive number")
        if min(self.warmup, self.warmdown) < 0 or self.warmup + self.warmdown > 1:
            raise ConfigError(
                f"warmup {self.warmup} and warmdown {self.warmdown} are shares of one run; they must not be negative, "
                "nor above 1 together"
            )
        if self.target_loss is not None and not self.target_loss > 0:
            raise ConfigError(f"target_loss is {self.target_loss}; a loss in nats is positive")
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"weight_decay is {self.weight_decay}; it must be 0 or positive")
        for name, known in (
            ("newton_schulz", ("bfloat16", "float32", "exact")),
            ("precision", ("bfloat16", "float32")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(known)}")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or positive")
        if any(not 0 <= share <= 1 for share in self.checkpoints):
            raise ConfigError(f"checkpoints {self.checkpoints} are shares of the run; each must lie in 0 … 1")
        self.rates.check(self.shape.layers, self.stage)
        decay = stage(self.stage).routing.weight_decay if self.weight_decay is None else self.weight_decay
        self.intervention.check(self.steps, decay)
        object.__setattr__(self, "tokens_per_step", self.batch_size * self.length)

    @classmethod
    def of_tier(
        cls,
        name: str,
        stage: str,
        vocabulary: int = GPT2_VOCABULARY,
        *,
        length: int | None = None,
        batch_tokens: int | None = None,
        tokens: int | None = None,
        looks: int | None = None,
        **given: Any,
    ) -> LmConfig:
        """Return a run of a tier, with its defaults for missing values.

        Args:
            name: name of the tier.
            stage, vocabulary, length: fields of the class.
            batch_tokens: target tokens per step, in whole sequences.
            tokens: target tokens of the whole run, rounded up to whole steps.
            looks: in place of `checkpoints`, the start and so many steps at equal distances in ln step, from the first
                to the last; those that round to one step count once.
            given: further fields; those that are None keep their default.

        Raises:
            ConfigError: a value is out of range, batch_tokens is not a multiple of the length, or both looks and
                checkpoints are given.
        """
        defaults = tier(name)
        length = defaults.length if length is None else length
        batch_tokens = defaults.batch_tokens if batch_tokens is None else batch_tokens
        if length < 1:
            raise ConfigError(f"length is {length}; it must be at least 1, such as {defaults.length}")
        if batch_tokens < length or batch_tokens % length:
            near = max(1, round(batch_tokens / length)) * length
            raise ConfigError(
                f"batch_tokens {batch_tokens} is no multiple of the length {length}; a step takes whole sequences: "
                f"take {near}"
            )
        fields: dict[str, Any] = {
            name: getattr(defaults, name) for name in ("lr", "eval_every", "eval_tokens")
        }
        fields |= {field: value for field, value in given.items() if value is not None}
        if tokens is not None and tokens < 1:
            raise ConfigError(f"tokens is {tokens}; a run has at least 1, rounded up to whole steps")
        steps = -(-(defaults.tokens if tokens is None else tokens) // batch_tokens)
        if looks is not None:
            if "checkpoints" in fields:
                raise ConfigError(
                    "looks and checkpoints both choose the steps that are stored; give one of them"
                )
            fields["checkpoints"] = _log_spaced(looks, steps)
        return cls(name, stage, vocabulary, length, batch_tokens // length, steps, **fields)

    @property
    def shape(self) -> Tier:
        """Return the tier."""
        return tier(self.tier)

    @property
    def sizes(self) -> Sizes:
        """Return the sizes that determine all shapes of the transformer."""
        return self.shape.sizes(self.vocabulary, self.length)

    @property
    def embed_std(self) -> float:
        """Return the initial standard deviation of the token embedding."""
        return TIED_STD if isinstance(stage(self.stage).head, TiedHead) else 1.0

    def transformer(self, recompute: bool = False) -> Transformer:
        """Return the architecture.

        Args:
            recompute: run blocks a second time in the backward pass instead of storing their activations.
        """
        from toymodel.transformer import Transformer

        return Transformer(
            stage(self.stage),
            self.sizes,
            embed_std=self.embed_std,
            recompute=recompute,
            logit_bias=self.logit_bias,
        )

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """Return the steps after which weights are stored, ascending."""
        return tuple(sorted({round(share * self.steps) for share in self.checkpoints}))

    @property
    def run_id(self) -> str:
        """Return a readable name with 10 digits of the canonical hash."""
        batch = f"{self.tier}-{self.stage}-b{self.batch_size}-lr{self.lr:.3g}-s{self.seed}"
        return f"{batch}-{canonical_hash(replace(self, data=''))[:10]}"

    def lr_scale(self, step: int) -> float:
        """Return the learning-rate factor in (0, 1].

        Args:
            step: number of updates before the one that it applies to.
        """
        rising, falling = self.warmup * self.steps, self.warmdown * self.steps
        up = (step + 1) / rising if step + 1 < rising else 1.0
        down = (self.steps - step) / falling if self.steps - step < falling else 1.0
        return min(up, down)


def _log_spaced(looks: int, steps: int) -> tuple[float, ...]:
    """Return the shares of a run of so many steps after which it is looked at, its start included."""
    if looks < 2:
        raise ConfigError(f"looks is {looks}; the first and the last step are two, so give 2 or more")
    if looks > MOST_LOOKS:
        raise ConfigError(
            f"looks is {looks}; so many weights are stored by no run: give at most {MOST_LOOKS:,}"
        )
    chosen = {round(steps ** (i / (looks - 1))) for i in range(looks)}
    return tuple(step / steps for step in sorted({0, *chosen}))


def lm_config(data: dict[str, Any]) -> LmConfig:
    """Build a configuration from the JSON of `run.json`.

    Raises:
        ConfigError: a field is unknown or missing, or a value is out of range.
    """
    try:
        fields = {name: value for name, value in data.items() if name != "tokens_per_step"}
        if "rates" in fields:
            fields["rates"] = Rates(**fields["rates"])
        if "intervention" in fields:
            fields["intervention"] = Intervention(**fields["intervention"])
        return LmConfig(**{**fields, "checkpoints": tuple(data["checkpoints"])})
    except (TypeError, KeyError) as error:
        raise ConfigError(
            f"not a language-model run of this version: {error}; it was written by another version or by hand"
        ) from error
