"""What one training run of a language model is: frozen, validated, and with one canonical hash."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sims.runs.tiers import Tier, tier
from sims.text.shards import GPT2_VOCABULARY
from toymodel.config import NewtonSchulz, canonical_hash
from toymodel.errors import ConfigError
from toymodel.sizes import Sizes
from toymodel.stages import stage
from toymodel.stages.baseline import TiedHead
from toymodel.transformer import Transformer

Precision = Literal["bfloat16", "float32"]

# A tied N(0, 1) embedding would start with logits near its width, and as many nats; GPT-2's own starts with 0.02.
TIED_STD = 0.02


@dataclass(frozen=True)
class LmConfig:
    """One run; how it is spread over devices is no part of it.

    Args:
        tier: name of a size (see `TIERS`).
        stage: name of a stage of the toy (see `toymodel.stages`).
        vocabulary: tokens of the tokeniser; the model's own is the next multiple of 128.
        length: inputs a sequence.
        batch_size: sequences a step.
        steps: optimiser steps of the whole run.
        lr: base learning rate; Muon matrices use 50 times it in the stages that name Muon.
        warmup, warmdown: shares of the steps over which the learning rate rises from 0, and falls to 0 in the end, both
            linearly; it is constant between. Zero for none, as in the toy.
        seed: of the initialisation and of the order of the data.
        weight_decay: decoupled decay of the AdamW group; None takes the stage's own.
        newton_schulz: arithmetic of Muon's orthogonalisation.
        precision: of matrix products and activations; parameters and optimiser states are float32 either way.
        eval_every: steps between evaluations.
        eval_tokens: validation tokens an evaluation, the first ones of their shards.
        target_loss: a run whose validation loss is at or below it ends; None trains all steps.
        checkpoints: shares of the run after which weights are kept, and measured.
        data: SHA-256 of what the shards hold (see `Corpus.digest`). It is no part of the run's name, so that a run
            whose shards have changed is found, and refused.
        tokens_per_step: batch_size · length.
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
    tokens_per_step: int = field(init=False)

    def __post_init__(self) -> None:
        stage(self.stage)
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
        **given: Any,
    ) -> LmConfig:
        """A run of a tier: what is given, and the tier's own for what is not.

        Args:
            name: of the tier.
            stage, vocabulary, length: as above.
            batch_tokens: target tokens a step, whole sequences.
            tokens: of the whole run; its last step may go a little beyond.
            given: further fields; those that are None keep their default.

        Raises:
            ConfigError: as of the class; or batch_tokens is no multiple of the length.
        """
        own = tier(name)
        length = own.length if length is None else length
        batch_tokens = own.batch_tokens if batch_tokens is None else batch_tokens
        if length < 1 or batch_tokens < length or batch_tokens % length:
            near = max(1, round(batch_tokens / length)) * length if length > 0 else own.length
            raise ConfigError(
                f"batch_tokens {batch_tokens} is no multiple of the length {length}; a step takes whole sequences: "
                f"take {near}"
            )
        fields: dict[str, Any] = {name: getattr(own, name) for name in ("lr", "eval_every", "eval_tokens")}
        fields |= {field: value for field, value in given.items() if value is not None}
        steps = -(-(own.tokens if tokens is None else tokens) // batch_tokens)
        return cls(name, stage, vocabulary, length, batch_tokens // length, steps, **fields)

    @property
    def shape(self) -> Tier:
        """The tier."""
        return tier(self.tier)

    @property
    def sizes(self) -> Sizes:
        """Everything that fixes a shape of the transformer."""
        return self.shape.sizes(self.vocabulary, self.length)

    @property
    def embed_std(self) -> float:
        """Standard deviation of the token embedding at the start."""
        return TIED_STD if isinstance(stage(self.stage).head, TiedHead) else 1.0

    def transformer(self, recompute: bool = False) -> Transformer:
        """The architecture."""
        return Transformer(stage(self.stage), self.sizes, embed_std=self.embed_std, recompute=recompute)

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """Steps after which weights are kept, ascending."""
        return tuple(sorted({round(share * self.steps) for share in self.checkpoints}))

    @property
    def run_id(self) -> str:
        """A readable name and the first 10 digits of the canonical hash."""
        batch = f"{self.tier}-{self.stage}-b{self.batch_size}-lr{self.lr:.3g}-s{self.seed}"
        return f"{batch}-{canonical_hash(replace(self, data=''))[:10]}"

    def lr_scale(self, step: int) -> float:
        """Factor of the learning rate in the update after that many steps, in (0, 1]."""
        rising, falling = self.warmup * self.steps, self.warmdown * self.steps
        up = (step + 1) / rising if step + 1 < rising else 1.0
        down = (self.steps - step) / falling if self.steps - step < falling else 1.0
        return min(up, down)


def lm_config(data: dict[str, Any]) -> LmConfig:
    """The configuration that JSON holds; unknown or missing fields are an error."""
    try:
        fields = {name: value for name, value in data.items() if name != "tokens_per_step"}
        return LmConfig(**{**fields, "checkpoints": tuple(data["checkpoints"])})
    except (TypeError, KeyError) as error:
        raise ConfigError(
            f"not a language-model run of this version: {error}; it was written by another version or by hand"
        ) from error
