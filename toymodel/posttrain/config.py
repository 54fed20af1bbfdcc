"""Settings of one post-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from toymodel.errors import ConfigError
from toymodel.limits import check_numbers, plain_numbers
from toymodel.posttrain.losses import check_beta

Kind = Literal["plain", "sft", "dpo", "rlvr"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class PostTraining:
    """Describe how a trained run goes on; all kinds have the same steps, learning rate and fresh moments of AdamW.

    Args:
        kind: "plain", more of the same sequences; "sft", narrow data (of the toy: sequences of one band); "dpo", pairs
            of the true next token and one that is impossible, drawn from the run before; "rlvr", REINFORCE with reward
            1 for a continuation that is possible.
        steps: updates.
        batch_size: sequences of an update; of rlvr samples, batch_size / samples prompts of them.
        lr: learning rate.
        beta: tie of dpo to the run before.
        pairs: training sequences from which dpo has its pairs.
        samples: continuations of a prompt in an update of rlvr.
        prompt: tokens of a prompt.
        length: tokens of a continuation.
        clip: largest norm of a gradient.
        seed: of batches and samples.

    Raises:
        ConfigError: a value outside its range.

    >>> PostTraining("dpo").steps
    200
    """

    kind: Kind
    steps: int = 200
    batch_size: int = 64
    lr: float = 5e-4
    beta: float = 0.1
    pairs: int = 512
    samples: int = 8
    prompt: int = 3
    length: int = 8
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        plain_numbers(self)
        check_numbers(self)
        if self.kind not in KINDS:
            raise ConfigError(f"kind is {self.kind!r}; choose from {', '.join(KINDS)}")
        for name in ("steps", "batch_size", "pairs", "prompt", "length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.samples < 2 or self.batch_size % self.samples:
            raise ConfigError(
                f"samples is {self.samples} and batch_size {self.batch_size}; a prompt needs at least 2 samples, and "
                "batch_size must be a multiple of them"
            )
        for name in ("lr", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be a positive number")
        check_beta(self.beta)
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or positive")

    def check_length(self, length: int) -> None:
        """Refuse prompts and continuations that are longer than sequences of so many inputs.

        Raises:
            ConfigError: naming both.
        """
        if self.prompt + self.length > length + 1:
            raise ConfigError(
                f"prompt {self.prompt} and length {self.length} are longer than the {length + 1} tokens of a "
                "sequence; lower them"
            )
