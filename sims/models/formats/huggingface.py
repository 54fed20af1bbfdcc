"""Folders of Hugging Face models: GPT-2, GPT-NeoX (Pythia), OLMo and OLMo 2. Needs the extra `hf`.

Only local folders are read, and code in them is never run. A folder is one checkpoint; a run is a folder of such
folders (``step1000``, ``checkpoint-500``, …).

Layouts: documentation of the models in huggingface.co/docs/transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions, counted_tokens
from sims.models.formats.format import Format, LoadedModule
from sims.models.layout import Layout, Projection
from sims.models.reading import CheckpointSource, read_torch, some
from sims.models.subject import EMBED, FINAL, HEAD
from sims.system.extras import require
from toymodel.errors import CheckpointError

CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SCALE = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class HuggingFace:
    """Folders with a config.json."""

    looks_like = f"folders of Hugging Face (with a {CONFIG})"

    def recognises(self, source: CheckpointSource) -> bool:
        """Return whether a folder has a model's configuration."""
        return (source.path / CONFIG).is_file()

    def inspect(self, source: CheckpointSource, options: CheckpointOptions) -> CheckpointInfo:
        """Read step and tokens from trainer_state.json, else from the folder's name, else from the options.

        Tokens in a name ("step1000-tokens4B") are rounded, so `CheckpointOptions.tokens_per_step` takes precedence.

        Raises:
            CheckpointError: damaged JSON, an architecture without an adapter, or weights that are not all there.
        """
        path = source.path
        kind = _model_type(path)
        _check_weights(path)
        state = _json(path / "trainer_state.json") if (path / "trainer_state.json").is_file() else {}
        named = re.search(r"(?:step|checkpoint)[_-]?(\d+)", path.name)
        step = state.get("global_step", int(named[1]) if named else options.step)
        counted = state.get("num_input_tokens_seen") or counted_tokens(step, options.tokens_per_step)
        if counted is None and (named := re.search(r"tokens[_-]?(\d+)([KMBT]?)", path.name)):
            counted = int(named[1]) * _SCALE[named[2]]
        return CheckpointInfo(path, f"Hugging Face {kind}", step, counted)

    def load(self, source: CheckpointSource, options: CheckpointOptions) -> LoadedModule:
        """Load the model with `transformers`.

        Raises:
            CheckpointError: as `inspect`; tensors missing, unreadable or of other shapes than the configuration says.
            MissingExtraError: transformers is not installed.
        """
        path = source.path
        kind = _model_type(path)
        for file in _check_weights(path):
            if file.suffix == ".bin":
                # Its error messages on pickles are clearer than the library's.
                read_torch(file)
        model, version = _pretrained(path)
        model.config.use_cache = False
        layout = _LAYOUTS[kind](model)
        facts = {
            "head": "its own" if HEAD in layout.matrices else "tied",
            "transformers": version,
        }
        return LoadedModule(model, layout, facts)

    def checkpoints(self, folder: Path) -> list[Path]:
        """List the folders with a model's configuration."""
        return [path for path in folder.iterdir() if self.recognises(CheckpointSource(path))]


def _pretrained(path: Path) -> tuple[Any, str]:
    """Load a model of `transformers` with every weight from the folder; return it and the library's version."""
    transformers = require("transformers", "hf")
    # The library initialises missing weights at random and only warns: its loading report is checked instead, and
    # what it warns of is an error here.
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            str(path),
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            # Reported, like what is missing, and refused below by name.
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{path} cannot be loaded: {lines[0]}; copy it again from where it came from"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    _check_report(report, path)
    return model, transformers.__version__


def _gpt2(model: Any) -> Layout:
    """Return the layout: q, k and v are consecutive rows, once the matrices are turned from (in, out) to (out, in)."""
    width = model.config.n_embd
    for layer in model.transformer.h:
        for owner, name in (
            (layer.attn, "c_attn"),
            (layer.attn, "c_proj"),
            (layer.mlp, "c_fc"),
            (layer.mlp, "c_proj"),
        ):
            setattr(owner, name, _turned(getattr(owner, name)))

    def block(layer: int) -> dict[str, Projection]:
        own = f"transformer.h.{layer}"
        qkv = {
            f"attn.{part}": Projection(f"{own}.attn.c_attn", slice(i * width, (i + 1) * width))
            for i, part in enumerate("qkv")
        }
        return qkv | {
            "attn.o": Projection(f"{own}.attn.c_proj"),
            "mlp.fc": Projection(f"{own}.mlp.c_fc"),
            "mlp.proj": Projection(f"{own}.mlp.c_proj"),
        }

    sites = ("transformer.drop", "transformer.h", "transformer.ln_f")
    return _layout(model, "transformer", sites, block, model.config.n_positions)


def _gpt_neox(model: Any) -> Layout:
    """Return the layout: q, k and v are fused, head by head."""
    heads = model.config.num_attention_heads
    of_part = torch.arange(3 * model.config.hidden_size).view(heads, 3, -1)

    def block(layer: int) -> dict[str, Projection]:
        own = f"gpt_neox.layers.{layer}"
        qkv = {
            f"attn.{part}": Projection(f"{own}.attention.query_key_value", of_part[:, i].flatten())
            for i, part in enumerate("qkv")
        }
        return qkv | {
            "attn.o": Projection(f"{own}.attention.dense"),
            "mlp.fc": Projection(f"{own}.mlp.dense_h_to_4h"),
            "mlp.proj": Projection(f"{own}.mlp.dense_4h_to_h"),
        }

    sites = ("gpt_neox.emb_dropout", "gpt_neox.layers", "gpt_neox.final_layer_norm")
    return _layout(model, "gpt_neox", sites, block, model.config.max_position_embeddings)


def _olmo(model: Any) -> Layout:
    """Return the layout: q, k and v are separate; the MLP has a gate next to fc (up) and proj (down)."""

    def block(layer: int) -> dict[str, Projection]:
        own = f"model.layers.{layer}"
        attention = {f"attn.{part}": Projection(f"{own}.self_attn.{part}_proj") for part in "qkvo"}
        return attention | {
            "mlp.gate": Projection(f"{own}.mlp.gate_proj"),
            "mlp.fc": Projection(f"{own}.mlp.up_proj"),
            "mlp.proj": Projection(f"{own}.mlp.down_proj"),
        }

    sites = ("model.embed_tokens", "model.layers", "model.norm")
    return _layout(model, "model", sites, block, model.config.max_position_embeddings)


_LAYOUTS: Mapping[str, Callable[[Any], Layout]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "olmo": _olmo,
    "olmo2": _olmo,
}


def _layout(
    model: Any,
    trunk: str,
    sites: tuple[str, str, str],
    block: Callable[[int], Mapping[str, Projection]],
    length: int,
) -> Layout:
    """Return the layout of a model whose embedding, list of blocks and last norm are the modules `sites`."""
    modules = {id(module): name for name, module in model.named_modules()}
    embedding, head = (modules[id(m)] for m in (model.get_input_embeddings(), model.get_output_embeddings()))
    start, blocks, end = sites
    layers = range(len(model.get_submodule(blocks)))
    matrices = {EMBED: Projection(embedding)}
    if model.get_submodule(head).weight is not model.get_submodule(embedding).weight:
        matrices[HEAD] = Projection(head)
    for layer in layers:
        matrices |= {f"blocks.{layer}.{name}": part for name, part in block(layer).items()}
    named = {EMBED: start, **{f"blocks.{layer}": f"{blocks}.{layer}" for layer in layers}, FINAL: end}
    return Layout(named, matrices, head, trunk, length=length)


def _turned(module: Any) -> nn.Linear:
    """Return the nn.Linear that equals a module with y = xW + b, W (in, out)."""
    inner, out = module.weight.shape
    linear = nn.Linear(inner, out, device="meta")
    linear.weight = nn.Parameter(module.weight.detach().T.contiguous())
    linear.bias = nn.Parameter(module.bias.detach())
    return linear


def _model_type(path: Path) -> str:
    """Return the architecture that config.json names.

    Raises:
        CheckpointError: none, or one without an adapter.
    """
    config = _json(path / CONFIG)
    kind = str(config.get("model_type"))
    if kind not in _LAYOUTS:
        raise CheckpointError(
            f"{path} is a model of type {kind!r}; there are adapters for {', '.join(_LAYOUTS)}. Load it with its own "
            "code and name its sites (sims.models.module)"
        )
    return kind


def _check_weights(path: Path) -> list[Path]:
    """Return the files of weights of a folder, which must all exist.

    Raises:
        CheckpointError: no weights, or missing shards.
    """
    for name in _WEIGHTS:
        index = path / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(_json(index).get("weight_map", {}).values()))
            if missing := [shard for shard in shards if not (path / shard).is_file()]:
                raise CheckpointError(
                    f"{path} lacks {some(missing)} of {len(shards)} shards; fetch the rest of the folder"
                )
            return [path / shard for shard in shards]
        if (path / name).is_file():
            return [path / name]
    raise CheckpointError(
        f"{path} has a {CONFIG} but no weights ({' or '.join(_WEIGHTS)}); fetch them beside it"
    )


def _check_report(report: Mapping[str, Any], path: Path) -> None:
    missing = sorted(map(str, report.get("missing_keys") or ()))
    if missing:
        raise CheckpointError(
            f"{path} lacks {some(missing)}, which its configuration asks for; it is cut or mixed up"
        )
    if wrong := sorted(str(entry[0]) for entry in report.get("mismatched_keys") or ()):
        raise CheckpointError(f"{path}: sizes do not fit its configuration: {some(wrong)}")


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); copy it again from where it came from"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not an object; copy it again")
    return data


FORMAT: Format = HuggingFace()
