"""States of the GPT-2 shape as the modded-nanogpt records write them, up to U-Net skips, and bare ones like them.

A file is ``{"step", "model", "optimizers", …}`` or the state alone; no file says its architecture, so it is recognised
by its keys:

    transformer.wpe           learned positions, and with gains layer norms and GELU by tanh (record 1: llm.c);
                              without gains RMS norms and squared ReLU
    attn.c_attn, no wpe       records 2–4: rotary embedding, RMS norms (ε 1e-6), exact GELU, what attention adds scaled
                              by 1/√(2·layers), tied
    attn.c_q, c_k, c_v        records 5–7: rotary embedding on RMS-normalised q and k, squared ReLU, tied
    lm_head unlike wte        record 8 on: untied, RMS norm after the embedding
    lambdas, attn.lamb        records 9–10: shortcuts from the embedding, values mixed with the first block's, logits
                              within ±30
    skip_weights              record 11: U-Net skips

The optimiser does not show in a model's state. Nor do the attention windows of records 12 and 13, which have the keys
of record 11: such a file is refused if it contains its code, and measured with full causal attention if not.

Format: github.com/KellerJordan/modded-nanogpt, logs of the records.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims.models.checkpoint_info import (
    CheckpointInfo,
    CheckpointOptions,
    check_heads,
    check_recorded,
    counted_tokens,
    step_in,
)
from sims.models.formats.format import Format, LoadedModule
from sims.models.gpt import (
    Architecture,
    biases_in,
    check_axes,
    gpt_of,
    inverse_frequencies,
    is_tied,
    layers_in,
)
from sims.models.reading import CheckpointSource, checkpoint_files, whole_number
from sims.models.state import plain_state, unwrapped
from sims.system.plain import some
from toymodel.errors import CheckpointError

SOFTCAP = 30.0

# Tensors that sizes are read from, with their axes.
_AXES = {
    "transformer.wte.weight": 2,
    "transformer.wpe.weight": 2,
    "transformer.h.0.mlp.c_fc.weight": 2,
    "transformer.h.0.attn.c_attn.weight": 2,
    "skip_weights": 1,
}
_ROTARY = re.compile(r"\.attn\.rotary\.inv_freq$")


class Modded:
    """Training states and bare states with keys transformer.wte and transformer.h."""

    looks_like = "states of the GPT-2 shape (transformer.wte, transformer.h)"

    def recognises(self, source: CheckpointSource) -> bool:
        """Return whether a training state, or a bare one, has a transformer of the GPT-2 shape."""
        state = source.content.get("model")
        return isinstance(state, Mapping) and any(
            "transformer.wte.weight" in unwrapped(name) for name in state
        )

    def inspect(self, source: CheckpointSource, options: CheckpointOptions) -> CheckpointInfo:
        """Read the step from the file, else from its name (`step_in`), else from the options."""
        data, path = source.content, source.path
        recorded = (whole_number(data, "step"), step_in(path.name), options.step)
        step = next((n for n in recorded if n is not None), None)
        code = _code(data)
        batch, length = _number(code, "batch_size"), _number(code, "sequence_length")
        a_step = batch * length if batch is not None and length is not None else options.tokens_per_step
        return CheckpointInfo(path, "GPT-2-shaped state", step, counted_tokens(step, a_step))

    def load(self, source: CheckpointSource, options: CheckpointOptions) -> LoadedModule:
        """Load the model.

        Raises:
            CheckpointError: an architecture that is not listed above, tensors that do not fit together, or an unknown
                number of heads.
        """
        data, path = source.content, source.path
        code = _code(data)
        if "flex_attention" in code:
            raise CheckpointError(
                f"{path} comes from code with windowed attention (flex_attention), which is none of the shapes up to "
                "U-Net skips; build the model with its own code and name its sites (sims.models.module)"
            )
        state = plain_state(data["model"], path)
        rotary = {name: tensor for name, tensor in state.items() if _ROTARY.search(name)}
        state = {name: tensor for name, tensor in state.items() if name not in rotary}
        check_axes(state, _AXES, path)
        frequencies = _frequencies(rotary, path)
        heads = _heads(state, frequencies, code, options, path)
        check_recorded(options, {"heads": heads}, path)
        arch = _recognised(state, path, heads, options)
        if rotary and arch.length is not None:
            raise CheckpointError(
                f"{path} has both learned and rotary positions (transformer.wpe.weight, {some(list(rotary))}), which "
                "no record has; build the model with its own code and name its sites (sims.models.module)"
            )
        facts = {
            "heads": arch.heads,
            "positions": "rotary" if arch.length is None else "learned",
            "activation": arch.activation,
            "head": "tied" if arch.tied else "its own",
            "extras": ", ".join(_extras(arch)) or "none",
        }
        return LoadedModule(gpt_of(arch, state, path), arch.layout(), facts)

    def checkpoints(self, folder: Path) -> list[Path]:
        """List torch and safetensors files."""
        return checkpoint_files(folder)


def _recognised(
    state: Mapping[str, Tensor], path: Path, heads: int, options: CheckpointOptions
) -> Architecture:
    """Return the architecture that the keys show; `gpt_of` checks whether the rest fits."""
    layers = layers_in(state, path)
    vocab, width = state["transformer.wte.weight"].shape
    inner = state.get("transformer.h.0.mlp.c_fc.weight")
    positions = state.get("transformer.wpe.weight")
    fused = state.get("transformer.h.0.attn.c_attn.weight")
    if fused is not None and len(fused) == width:
        raise CheckpointError(
            f"{path} keeps its matrices the other way round, as Hugging Face's GPT-2 does; give the folder with its "
            "config.json"
        )
    learned, gain = positions is not None, "transformer.h.0.ln_1.weight" in state
    skips = len(state["skip_weights"]) if "skip_weights" in state else 0
    if 2 * skips not in (0, layers):
        raise CheckpointError(
            f"{path} has {skips} skip weights for {layers} blocks; U-Net skips are one for two"
        )
    tied = is_tied(state)
    shortcut = "transformer.h.0.lambdas" in state
    if shortcut and "lm_head.weight" not in state:
        raise CheckpointError(
            f"{path} lacks lm_head.weight, and records with shortcuts from the embedding have a head of their own; it "
            "is cut, or of another architecture"
        )
    records_2_to_4 = fused is not None and not learned
    own = "gelu" if records_2_to_4 else "gelu_tanh" if gain else "relu2"
    return Architecture(
        vocab=vocab,
        width=width,
        layers=layers,
        heads=check_heads(heads, width, path, rotary=not learned),
        mlp=4 * width if inner is None else len(inner),
        activation=options.activation or own,
        biases=biases_in(state, gain and fused is not None, path),
        length=None if positions is None else len(positions),
        gain=gain and learned,
        epsilon=1e-6 if records_2_to_4 else None,
        fused=fused is not None,
        qk_norm=not learned and fused is None,
        attention_share=(2 * layers) ** -0.5 if records_2_to_4 else 1.0,
        tied=tied,
        embedding_norm=not tied and not learned,
        shortcut=shortcut,
        value_mix="transformer.h.0.attn.lamb" in state,
        skips=skips,
        softcap=SOFTCAP if shortcut else None,
    )


def _heads(
    state: Mapping[str, Tensor], frequencies: Tensor | None, code: str, options: CheckpointOptions, path: Path
) -> int:
    """Return the number of heads: from the rotary table, else from the code in the file, else from the options."""
    width = state["transformer.wte.weight"].shape[1] if "transformer.wte.weight" in state else 0
    if frequencies is not None:
        heads, rest = divmod(width, 2 * len(frequencies))
        if rest:
            raise CheckpointError(
                f"{path} rotates {2 * len(frequencies)} columns a head, which do not divide a width of {width}; it is "
                "damaged, or of another architecture"
            )
        return heads
    if width and _number(code, "n_embd") == width and (heads := _number(code, "n_head")) is not None:
        return heads
    if options.heads is not None:
        return options.heads
    raise CheckpointError(
        f"{path} does not say how many attention heads it has, and no shape shows it; pass heads (at "
        "a width of 768 the early records have 12, the later ones 6)"
    )


def _frequencies(rotary: Mapping[str, Tensor], path: Path) -> Tensor | None:
    """Return the rotary frequencies, the same in all blocks; None where none are stored.

    Raises:
        CheckpointError: one is not of base 10,000, or not as long as the others.
    """
    first = next(iter(rotary.values()), None)
    for name, own in rotary.items():
        assert first is not None
        fits = own.ndim == 1 and own.shape == first.shape
        if not fits or not torch.allclose(own.float(), inverse_frequencies(2 * len(own)), rtol=1e-2):
            raise CheckpointError(
                f"{path}: its rotary frequencies ({name}) are not those of base 10,000; build the model with its own "
                "code and name its sites (sims.models.module)"
            )
    return first


def _extras(arch: Architecture) -> list[str]:
    parts = {
        "norm after the embedding": arch.embedding_norm,
        "normalised q and k": arch.qk_norm,
        "shortcuts from the embedding": arch.shortcut,
        "value mix": arch.value_mix,
        "U-Net skips": arch.skips,
        f"logits within ±{arch.softcap}": arch.softcap,
    }
    return [name for name, there in parts.items() if there]


def _code(data: Mapping[str, Any]) -> str:
    code = data.get("code")
    return code if isinstance(code, str) else ""


def _number(code: str, name: str) -> int | None:
    """Return the default of a field ``name : int = 8*64`` in the training code of a file, which is never run."""
    found = re.search(rf"^\s*{name}\s*:\s*int\s*=\s*(\d+(?:\s*\*\s*\d+)*)\s*(?:#|$)", code, re.MULTILINE)
    return math.prod(int(part) for part in found[1].split("*")) if found else None


FORMAT: Format = Modded()
