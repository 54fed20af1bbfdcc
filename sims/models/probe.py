"""What a model of any kind is fed while it is measured: a batch, and the loss of each of its samples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from sims.system.errors import MeasureError

# (model, batch) → (n,) losses, one for each sample.
SampleLosses = Callable[[nn.Module, Any], Tensor]
# Names of the second argument of a forward pass that takes the targets as well, as in nanoGPT.
_TARGETS = ("targets", "target", "labels", "y")
# A language model of transformers predicts the token after each position; others the label at each position.
_NEXT_TOKEN = ("ForCausalLM", "LMHeadModel")
# Samples of a loader, where its batches are not larger.
LOADED = 64


class Probe:
    """Hold a batch of samples that a model is measured on.

    Args:
        batch: what the model takes, the sample on the first axis of every tensor:

            - a tensor of integers (n, T+1): tokens; the model is given the first T of each row and predicts the next;
            - a pair (x, y): the model is given x; y are classes or tokens (integers; negative ones do not count) or
              values (floats, squared error);
            - a mapping, as of Hugging Face: the model is given all of it but "labels" (those too, if it has an encoder
              and a decoder); labels of a language model, and those that repeat "input_ids", are of the next token;
            - any other tensor: without targets, so that there are no losses.
        losses: maps the model and a batch to the (n,) losses of its samples, where none of these rules is right; each
            must depend on its own sample only.

    Raises:
        MeasureError: no tensors, tensors of different numbers of samples, fewer than two samples, or padding.
    """

    def __init__(self, batch: Any, losses: SampleLosses | None = None) -> None:
        self.batch, self.given = batch, losses
        self.samples = _samples(batch)
        if (
            isinstance(batch, Mapping)
            and "attention_mask" in batch
            and not bool(batch["attention_mask"].all())
        ):
            raise MeasureError(
                "the probe is padded (its attention_mask has zeros), and states of padding would be measured: cut the "
                "sequences to one length"
            )

    @property
    def has_losses(self) -> bool:
        """Return whether the losses of the samples are defined (the model may still not give what they need)."""
        if self.given is not None or isinstance(self.batch, Mapping):
            return True
        return isinstance(self.batch, tuple | list) or _is_tokens(self.batch)

    def part(self, start: int, stop: int, device: torch.device) -> Any:
        """Return the samples start..stop, on a device."""
        return _map(self.batch, lambda tensor: tensor[start:stop].to(device))

    def chosen(self, samples: Sequence[int], device: torch.device) -> Any:
        """Return some samples, on a device."""
        return _map(self.batch, lambda tensor: tensor[list(samples)].to(device))

    @property
    def doubt(self) -> str:
        """Return a sentence where targets look like classes and have the loss of values; "" otherwise."""
        y = self.batch[1] if isinstance(self.batch, tuple | list) else None
        if self.given is not None or not isinstance(y, Tensor) or not y.is_floating_point():
            return ""
        shares = (
            y.ndim > 1 and y.shape[-1] > 1 and bool((y >= 0).all() and (y.sum(-1) - 1).abs().max() < 1e-3)
        )
        if not shares and not bool(((y == 0) | (y == 1)).all()):
            return ""
        return (
            f"the targets are floats that look like {'probabilities' if shares else 'classes 0 and 1'}, and their loss "
            "is the squared error; another loss, such as a cross-entropy, is passed as losses="
        )

    def losses(self, model: nn.Module, part: Any) -> Tensor:
        """Run the model, and return the (n,) losses of the samples of a part.

        Raises:
            MeasureError: the output of the model is not what the rules of `Probe` need.
        """
        found = self._default(model, part) if self.given is None else self.given(model, part)
        count = _samples(part, least=1)
        if not isinstance(found, Tensor) or found.shape != (count,):
            kind = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise MeasureError(
                f"losses of {count} samples are {kind}; return one for each sample, a tensor ({count},)"
            )
        return found

    def run(self, model: nn.Module, part: Any) -> Any:
        """Run the model on a part without losses; with losses of the caller's own, those decide how it is run."""
        if self.given is not None:
            return self.given(model, part)
        if isinstance(part, Mapping):
            # A model with an encoder makes the inputs of its decoder from them.
            kept = part if _has_encoder(model) else {k: v for k, v in part.items() if k != "labels"}
            return model(**kept)
        if isinstance(part, tuple | list):
            x, y = part
            return model(x, y) if _takes_targets(model) else model(x)
        return model(part[:, :-1] if _is_tokens(part) else part)

    def _default(self, model: nn.Module, part: Any) -> Tensor:
        scores = _scores(self.run(model, part))
        if isinstance(part, Mapping):
            return _of_mapping(model, part, scores)
        if isinstance(part, tuple | list):
            x, y = part
            if isinstance(y, Tensor) and _repeat(x, y):
                raise MeasureError(
                    "the targets of the probe are its inputs; pass tokens (n, T+1), or (tokens[:, :-1], tokens[:, 1:])"
                )
            return _of_targets(scores, y)
        if not _is_tokens(part):
            raise MeasureError("the probe has no targets; pass a pair (x, y), or losses=")
        return _of_targets(scores, part[:, 1:])


def first_batch(source: Any) -> Any:
    """Return the batch that is meant: samples of a loader's data, what a function returns, or the batch itself."""
    if callable(source) and not isinstance(source, nn.Module):
        return source()
    if isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset):
        # Not through the sampler, whose own random numbers belong to the training; from all over the data, which may be
        # sorted.
        there = len(source.dataset)  # pyright: ignore[reportArgumentType]
        if not there:
            raise MeasureError(
                "the data of the probe's loader are empty; pass a loader of two samples or more"
            )
        if source.batch_size is None and source.batch_sampler is None:
            # It does not make batches: each item is one.
            return source.collate_fn(source.dataset[0])
        count = min(max(source.batch_size or 0, LOADED), there)
        return source.collate_fn([source.dataset[k * there // count] for k in range(count)])
    if isinstance(source, Tensor | Mapping | tuple | list) or not isinstance(source, Iterable):
        return source
    return next(iter(source), None)


def _is_tokens(batch: Any) -> bool:
    return isinstance(batch, Tensor) and batch.ndim == 2 and not batch.is_floating_point()


def _takes_targets(model: nn.Module) -> bool:
    names = list(inspect.signature(model.forward).parameters)
    return len(names) > 1 and names[1] in _TARGETS


def _map(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {name: _map(value, change) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_map(value, change) for value in batch)
    return batch


def _tensors(batch: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _map(batch, keep)
    return found


def _samples(batch: Any, least: int = 2) -> int:
    """Return the number of samples of a batch, or refuse it."""
    if isinstance(batch, tuple | list) and len(batch) != 2:
        raise MeasureError(
            f"the probe is a {type(batch).__name__} of {len(batch)}; pass a pair (x, y), a tensor, a mapping of "
            "arguments, or any batch together with losses="
        )
    tensors = _tensors(batch)
    if not tensors:
        raise MeasureError(
            f"the probe is a {type(batch).__name__} without tensors; pass tensors with the sample on their first axis "
            "(torch.as_tensor makes one of an array)"
        )
    sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors}
    if len(sizes) != 1:
        raise MeasureError(
            f"the probe is a {type(batch).__name__} with tensors of {', '.join(map(str, sorted(sizes)))} "
            "samples; pass a batch whose tensors have the sample on their first axis"
        )
    (samples,) = sizes
    if samples < least:
        raise MeasureError(
            f"the probe has {samples} samples; a spectrum across samples needs at least {least}"
        )
    return samples


def _scores(output: Any) -> Tensor:
    """Return the logits or values that a model computes."""
    found = output["logits"] if isinstance(output, Mapping) and "logits" in output else output
    if not isinstance(output, Mapping) and hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, tuple | list) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        raise MeasureError(
            f"the model returns a {type(output).__name__} without logits; say what the loss of each sample is (losses=)"
        )
    return found


def _of_mapping(model: nn.Module, part: Mapping[str, Any], logits: Tensor) -> Tensor:
    causal = type(model).__name__.endswith(_NEXT_TOKEN)
    labels = part.get("labels", part.get("input_ids") if causal else None)
    if labels is None:
        raise MeasureError(f'the probe of a {type(model).__name__} has no "labels"; give them, or losses=')
    # Labels that repeat the input, as language models of any name take them, are of the next token too.
    causal = causal or (
        "input_ids" in part and not _has_encoder(model) and _repeat(part["input_ids"], labels)
    )
    return _of_targets(logits[:, :-1], labels[:, 1:]) if causal else _of_targets(logits, labels)


def _has_encoder(model: nn.Module) -> bool:
    """Return whether a model of transformers reads one text and writes another, whose labels are at their positions."""
    return hasattr(model, "prepare_decoder_input_ids_from_labels")


def _repeat(x: Any, y: Tensor) -> bool:
    """Return whether integer targets are the inputs themselves, wherever they count."""
    tokens = isinstance(x, Tensor) and not (x.is_floating_point() or y.is_floating_point())
    return tokens and x.shape == y.shape and y.ndim > 1 and bool(((x == y) | (y < 0)).all())


def _of_targets(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss (n,) of each sample: cross-entropy in nats of integers, squared error of floats."""
    if targets.is_floating_point():
        if scores.shape != targets.shape:
            raise MeasureError(
                f"the model returns shape {tuple(scores.shape)} for targets {tuple(targets.shape)}; squared errors "
                "need equal shapes; another loss is passed as losses="
            )
        return (
            (scores - targets).square().flatten(1).mean(dim=1)
            if scores.ndim > 1
            else (scores - targets).square()
        )
    if scores.shape[:-1] != targets.shape:
        raise MeasureError(
            f"the model returns logits {tuple(scores.shape)} for targets {tuple(targets.shape)}; cross-entropies need "
            "one row of logits for each target; another loss is passed as losses="
        )
    counted = targets >= 0
    # A type without a sign has no −1.
    classes = targets.long().clamp_min(-1).flatten()
    try:
        # 0 where a target does not count, also where the logits there are infinite.
        flat = F.cross_entropy(scores.flatten(0, -2).float(), classes, ignore_index=-1, reduction="none")
    except IndexError as error:
        raise MeasureError(
            f"the targets of the probe reach {int(targets.max())}, and the model has logits for 0 to "
            f"{scores.shape[-1] - 1}; targets that do not count are negative"
        ) from error
    each = flat.view(len(targets), -1)
    count = counted.view(len(targets), -1).sum(dim=1)
    if bool((count == 0).any()):
        raise MeasureError(
            f"{int((count == 0).sum())} of {len(count)} samples of the probe have no target that counts (all are "
            "negative), so that they have no loss; take others"
        )
    return each.sum(dim=1) / count
