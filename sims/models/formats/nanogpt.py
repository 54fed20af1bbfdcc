"""Checkpoints of nanoGPT: ``ckpt.pt`` with keys model, model_args, iter_num, best_val_loss, config.

Learned positions, layer norms with gain, one fused (3·width, width) matrix for q, k and v, exact GELU, a tied head. A
head unlike the embedding is one of its own, as forks of nanoGPT have it. Old versions had GELU by tanh: set
`CheckpointOptions.activation`.

Format: github.com/karpathy/nanoGPT, train.py and model.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sims.models.checkpoint_info import (
    CheckpointInfo,
    CheckpointOptions,
    check_heads,
    check_recorded,
    counted_tokens,
)
from sims.models.formats.format import Format, LoadedModule
from sims.models.gpt import Architecture, biases_in, check_sizes, gpt_of, is_tied, layers_in
from sims.models.reading import CheckpointSource, checkpoint_files, real_number, whole_number
from sims.models.state import plain_state
from sims.system.plain import some
from toymodel.errors import CheckpointError

_SIZES = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")
# Their product in the configuration is the tokens of one step, over all processes.
_TOKENS_A_STEP = ("gradient_accumulation_steps", "batch_size", "block_size")


class NanoGpt:
    """Files with the keys model and model_args."""

    looks_like = "nanoGPT's (model, model_args)"

    def recognises(self, source: CheckpointSource) -> bool:
        """Return whether a file has nanoGPT's keys."""
        return {"model", "model_args"} <= source.content.keys()

    def inspect(self, source: CheckpointSource, options: CheckpointOptions) -> CheckpointInfo:
        """Read the step, and the tokens of a step from the configuration in the file."""
        data = source.content
        step = whole_number(data, "iter_num")
        step = options.step if step is None else step
        config = data.get("config")
        own = (
            [whole_number(config, name) for name in _TOKENS_A_STEP] if isinstance(config, Mapping) else [None]
        )
        a_step = math.prod(n for n in own if n is not None) if None not in own else options.tokens_per_step
        return CheckpointInfo(source.path, "nanoGPT", step, counted_tokens(step, a_step))

    def load(self, source: CheckpointSource, options: CheckpointOptions) -> LoadedModule:
        """Load the model.

        Raises:
            CheckpointError: sizes missing in model_args, or tensors that do not fit them.
        """
        data, path = source.content, source.path
        args = data["model_args"]
        sizes = {name: whole_number(args, name) for name in _SIZES} if isinstance(args, Mapping) else {}
        if missing := [name for name in _SIZES if sizes.get(name) is None]:
            raise CheckpointError(
                f"{path}: model_args lacks {', '.join(missing)}; a nanoGPT checkpoint says {', '.join(_SIZES)}"
            )
        layers, heads, width, length, vocab = (int(sizes[name] or 0) for name in _SIZES)
        state = plain_state(data["model"], path)
        if (found := layers_in(state, path)) != layers:
            raise CheckpointError(
                f"{path} has {found} blocks where model_args says {layers}; it is cut or mixed up"
            )
        expected = {"transformer.wte.weight": (vocab, width), "transformer.wpe.weight": (length, width)}
        check_sizes(state, expected, path)
        biases = biases_in(state, True, path)
        if isinstance(said := args.get("bias"), bool) and said != bool(biases):
            raise CheckpointError(
                f"{path} has {'no' if said else 'the'} biases {'' if said else some(sorted(biases))} where model_args "
                f"says bias = {said}; it is cut or mixed up"
            )
        arch = Architecture(
            vocab=vocab,
            width=width,
            layers=layers,
            heads=check_heads(heads, width, path, rotary=False),
            mlp=4 * width,
            activation=options.activation or "gelu",
            biases=biases,
            length=length,
            gain=True,
            fused=True,
            tied=is_tied(state),
        )
        check_recorded(options, {"heads": heads}, path)
        head = "tied" if arch.tied else "its own"
        facts: dict[str, Any] = {"heads": heads, "activation": arch.activation, "head": head}
        if (loss := real_number(data, "best_val_loss")) is not None:
            facts["best validation loss"] = f"{loss:.4f}"
        return LoadedModule(gpt_of(arch, state, path), arch.layout(), facts)

    def checkpoints(self, folder: Path) -> list[Path]:
        """List torch and safetensors files."""
        return checkpoint_files(folder)


FORMAT: Format = NanoGpt()
