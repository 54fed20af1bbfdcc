"""Define the sizes of the language models that are trained here."""

from __future__ import annotations

from dataclasses import dataclass

from toymodel.errors import ConfigError
from toymodel.sizes import Sizes

# Kernels work on whole tiles: vocabularies are padded with tokens that never occur (GPT-2: 50,257 to 50,304).
VOCABULARY_TILE = 128


@dataclass(frozen=True)
class Tier:
    """Describe a model size and the defaults of its runs.

    Args:
        layers, heads, width: of the transformer; the MLP is four times as wide.
        length: inputs per sequence.
        batch_tokens: target tokens per step.
        tokens: target tokens of a run: about twenty per parameter, fewer for the tier that a CPU can train.
        micro_batch: sequences that one device takes at once.
        eval_every: steps between evaluations.
        eval_tokens: validation tokens per evaluation.
        lr: base learning rate.
    """

    layers: int
    heads: int
    width: int
    length: int = 1_024
    batch_tokens: int = 524_288
    tokens: int = 0
    micro_batch: int = 8
    eval_every: int = 125
    eval_tokens: int = 10_485_760
    lr: float = 6e-4

    def sizes(self, vocabulary: int, length: int | None = None) -> Sizes:
        """Return the sizes of the transformer.

        Args:
            vocabulary: tokens of the tokeniser, padded here to whole tiles.
            length: inputs per sequence; None takes the tier's.
        """
        padded = -(-vocabulary // VOCABULARY_TILE) * VOCABULARY_TILE
        return Sizes(padded, length or self.length, self.width, self.heads, self.layers, 4 * self.width)


TIERS: dict[str, Tier] = {
    "tiny": Tier(4, 4, 64, 128, 4_096, 800_000, 32, 25, 32_768, 3e-3),
    # The same with narrower states, for questions of the bottleneck between them and the vocabulary.
    "narrow8": Tier(4, 4, 8, 128, 4_096, 800_000, 32, 25, 32_768, 3e-3),
    "narrow16": Tier(4, 4, 16, 128, 4_096, 800_000, 32, 25, 32_768, 3e-3),
    "narrow32": Tier(4, 4, 32, 128, 4_096, 800_000, 32, 25, 32_768, 3e-3),
    # And with more blocks, for questions of depth.
    "tiny6": Tier(6, 4, 64, 128, 4_096, 800_000, 32, 25, 32_768, 3e-3),
    "tiny8": Tier(8, 4, 64, 128, 4_096, 800_000, 32, 25, 32_768, 3e-3),
    "tiny10": Tier(10, 4, 64, 128, 4_096, 800_000, 32, 25, 32_768, 3e-3),
    "tiny12": Tier(12, 4, 64, 128, 4_096, 800_000, 32, 25, 32_768, 3e-3),
    # Of published studies: 51 million parameters, and the widest of 285.
    "d8": Tier(8, 16, 512, tokens=1_000_000_000, micro_batch=64),
    "d12": Tier(12, 6, 768, tokens=2_500_000_000, micro_batch=64),
    "d24": Tier(24, 16, 1_024, tokens=7_000_000_000, micro_batch=32),
    "d24x960": Tier(24, 15, 960, tokens=6_000_000_000, micro_batch=32),
    "d36": Tier(36, 20, 1_280, tokens=15_000_000_000, micro_batch=16),
    "d48": Tier(48, 25, 1_600, tokens=31_000_000_000, micro_batch=8),
}


def tier(name: str) -> Tier:
    """Return the tier of a name.

    Raises:
        ConfigError: no such tier; the message names the known ones.
    """
    if name not in TIERS:
        raise ConfigError(f"unknown tier {name!r}; the tiers are {', '.join(TIERS)}")
    return TIERS[name]
