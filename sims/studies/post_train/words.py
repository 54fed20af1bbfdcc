"""What the page says of the data of toys and of language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sims.pages.number import counted
from sims.runs.lm_config import LmConfig
from sims.studies.post_train.sources import Config, Plan, bands_of
from sims.training.post_training import HELD_OUT, Chosen, TextOptions, texts_of
from toymodel.posttrain.config import PostTraining
from toymodel.posttrain.training import Band


@dataclass(frozen=True)
class Words:
    """Hold what a reader must know of the data.

    Attributes:
        right: when a continuation is right.
        narrow: what the narrow data are, and what the losses are of.
        losses: titles of the losses by name; the last one tells what is forgotten.
    """

    right: str
    narrow: str
    losses: Mapping[str, str]


def words_of(config: Config, like: PostTraining, plan: Plan, text: TextOptions | None) -> Words:
    """Return what the page says of the data of a run."""
    if isinstance(config, LmConfig):
        assert text is not None
        return _text_words(config, like, plan, text)
    return toy_words(*bands_of(config), like)


def toy_words(narrow: Band, rare: Sequence[Band], like: PostTraining) -> Words:
    """Return what the page says of modular walks.

    Args:
        narrow: band (modulus, offset) of the narrow data.
        rare: bands that training has fewest sequences of.
        like: has the lengths of prompts and continuations.
    """
    told = ", ".join(f"{c}:{o}" for c, o in rare)
    return Words(
        right=f"A continuation of {like.length} tokens is right if some walk of the task has it after the "
        f"{like.prompt} tokens of the prompt.",
        narrow=f"SFT has sequences of the band {narrow[0]}:{narrow[1]} (modulus:offset) alone, the most frequent one. "
        "The loss of the narrow band is that of sequences which SFT has trained on, as the band has few. The rare "
        f"bands are {told}, those that training before had fewest sequences of, if any.",
        losses={"val_loss": "validation loss", "narrow_loss": "narrow band", "rare_loss": "rare bands"},
    )


def _text_words(config: LmConfig, like: PostTraining, plan: Plan, text: TextOptions) -> Words:
    own = texts_of(config, text)
    narrow, held_out, rest = (counted(len(rows), "sequence") for rows in (own.narrow, own.held_out, own.rest))
    if own.chosen is not None:
        trained, left_out = (_share(part) for part in own.chosen)
        chosen = (
            f"SFT has {narrow} of documents of one kind alone: those furthest along the first principal direction of "
            f"the square roots of the shares of tokens in documents ({trained} of the training "
            f"text). The loss of the narrow text is that of the last {100 * HELD_OUT:g} % of each of these "
            f"documents ({held_out}), which SFT does not train on; the other text is the validation documents "
            f"({rest}) but those furthest along that direction ({left_out} of the validation text)."
        )
    else:
        assert text.narrow is not None
        chosen = (
            f"SFT has {narrow} of the training shards of {text.narrow.name} alone. The loss of the narrow text is that "
            f"of its validation shards ({held_out}), that of the other text of the validation shards of the runs "
            f"({rest})."
        )
    return Words(
        right=f"A continuation of {like.length} tokens is right if each {text.order}-gram that ends in it, also those "
        f"that begin in the {like.prompt} tokens of the prompt, occurs in the training text. Prompts begin validation "
        "sequences, which nothing has trained on.",
        narrow=f"{chosen} Losses are means over {plan.band_sequences} sequences or as many as there are, evenly spread "
        f"over them, the validation loss over {plan.sequences}.",
        losses={"val_loss": "validation loss", "narrow_loss": "narrow text", "rest_loss": "other text"},
    )


def _share(part: Chosen) -> str:
    return f"{part.documents:,} of {counted(part.every, 'document')}, {100 * part.share:.1f} %"
