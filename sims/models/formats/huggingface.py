"""Folders of Hugging Face models: GPT-2, GPT-NeoX (Pythia), OLMo and OLMo 2. Needs the extra `hf`.

Only local folders are read, and code in them is never run. A folder is one checkpoint; a run is a folder of such
folders (``step1000``, ``checkpoint-500``, …), or the folder of a model in the library's cache, whose revisions are
named ``step1000``, ….

Layouts: documentation of the models in huggingface.co/docs/transformers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions, counted_tokens
from sims.models.formats import hf_files
from sims.models.formats.format import Format, LoadedModule
from sims.models.formats.hf_files import CONFIG, read_json
from sims.models.layout import Layout, Projection
from sims.models.reading import CheckpointSource, some, whole_number
from sims.models.state import plain_state
from sims.models.subject import EMBED, FINAL, HEAD
from sims.system.extras import require
from toymodel.errors import CheckpointError

# Rotary frequencies that older versions kept as buffers; newer ones compute them from the configuration.
_FREQUENCIES = re.compile(r"\.inv_freq$")
_SCALE = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class HuggingFace:
    """Folders with a config.json."""

    looks_like = f"folders of Hugging Face (with a {CONFIG})"

    def recognises(self, source: CheckpointSource) -> bool:
        """Return whether a folder has a model's configuration, or is that of a model with one revision in a cache."""
        return (hf_files.folder_of(source.path) / CONFIG).is_file()

    def inspect(self, source: CheckpointSource, options: CheckpointOptions) -> CheckpointInfo:
        """Read step and tokens from trainer_state.json, else from the folder's name, else from the options.

        A revision in a cache has the names of its refs. Tokens in a name ("step1000-tokens4B") are rounded, so
        `CheckpointOptions.tokens_per_step` takes precedence.

        Raises:
            CheckpointError: damaged JSON, an architecture without an adapter, weights that are not all there, or two
                steps.
        """
        path = hf_files.folder_of(source.path)
        kind = _model_type(path)
        hf_files.weight_files(path)
        state = read_json(path / "trainer_state.json") if (path / "trainer_state.json").is_file() else {}
        step = whole_number(state, "global_step")
        if step is None:
            named = hf_files.step_of(path)
            step = options.step if named is None else named
        counted = whole_number(state, "num_input_tokens_seen") or counted_tokens(
            step, options.tokens_per_step
        )
        names = hf_files.names_of(path)
        if counted is None and (
            named := next((m for n in names if (m := re.search(r"tokens[_-]?(\d+)([KMBT]?)", n))), None)
        ):
            counted = int(named[1]) * _SCALE[named[2]]
        return CheckpointInfo(path, f"Hugging Face {kind}", step, counted)

    def load(self, source: CheckpointSource, options: CheckpointOptions) -> LoadedModule:
        """Load the model with `transformers`, from tensors that are read here.

        Raises:
            CheckpointError: as `inspect`; tensors missing, unreadable, too many or of other shapes than the
                configuration says.
            MissingExtraError: transformers is not installed.
        """
        path = hf_files.folder_of(source.path)
        kind = _model_type(path)
        hf_files.weight_files(path)
        transformers = require("transformers", "hf")
        model = _built(transformers, path)
        model.config.use_cache = False
        layout = _LAYOUTS[kind](model)
        facts = {
            "head": "its own" if HEAD in layout.matrices else "tied",
            "transformers": transformers.__version__,
        }
        return LoadedModule(model, layout, facts)

    def checkpoints(self, folder: Path) -> list[Path]:
        """List the folders with a model's configuration; of a model in a cache, its revisions."""
        inside = hf_files.revisions(folder) or folder.iterdir()
        return [path for path in inside if self.recognises(CheckpointSource(path))]


def _built(transformers: Any, path: Path) -> Any:
    """Return the model of `transformers` with every weight of the folder in it, and no other."""
    state = plain_state(hf_files.read_state(path), path)
    frequencies = {name: tensor for name, tensor in state.items() if _FREQUENCIES.search(name)}
    state = {name: tensor for name, tensor in state.items() if name not in frequencies}
    # The library initialises missing weights at random and only warns: its loading report is checked instead, and
    # what it warns of is an error here.
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        config = transformers.AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
        # Faster kernels of the same attention, such as flash_attention_2, are for half precision on a GPU.
        if config._attn_implementation != "eager":
            config._attn_implementation = "sdpa"
        architecture = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        _check_size(architecture, config, state, path)
        model, report = architecture.from_pretrained(
            None,
            config=config,
            state_dict=dict(state),
            dtype=torch.float32,
            output_loading_info=True,
            # Reported, like what is missing, and refused below by name.
            ignore_mismatched_sizes=True,
        )
        _check_report(report, path)
        # What only a forward pass shows: numbers of heads or probabilities that cannot be.
        with torch.no_grad():
            model.eval()(torch.zeros(1, min(2, max(1, config.max_position_embeddings)), dtype=torch.int64))
    except CheckpointError:
        raise
    except Exception as error:
        # Of configurations that contradict themselves the library raises whatever it stumbles over.
        lines = str(error).strip().splitlines() or [""]
        raise CheckpointError(
            f"{path} cannot be loaded ({type(error).__name__}: {lines[0]}); its {CONFIG} contradicts itself or its "
            "weights: copy the folder again from where it came from"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    _check_frequencies(model, frequencies, path)
    return model


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
        CheckpointError: none, or one without an adapter; weights that are quantised or completed by those of an
            adapter; code of its own.
    """
    config = read_json(path / CONFIG)
    kind = str(config.get("model_type"))
    by_hand = "load it with its own code and name its sites (sims.models.module)"
    if kind not in _LAYOUTS:
        raise CheckpointError(
            f"{path} is a model of type {kind!r}; there are adapters for {', '.join(_LAYOUTS)}: {by_hand}"
        )
    if config.get("quantization_config"):
        said = config["quantization_config"]
        method = said.get("quant_method") if isinstance(said, Mapping) else said
        raise CheckpointError(
            f"{path} holds quantised weights (quantization_config: {method}), which are not those that were trained; "
            "give the checkpoint before quantisation, or dequantise it and save it without quantization_config"
        )
    if config.get("auto_map"):
        raise CheckpointError(
            f"{path} names code of its own (auto_map: {config['auto_map']}), which is not run; {by_hand}, or take "
            f"auto_map out of {CONFIG} if it is the {kind} of transformers"
        )
    if config.get("add_cross_attention"):
        raise CheckpointError(
            f"{path} has cross-attention to an encoder, which no text here feeds; {by_hand}"
        )
    if (path / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{path} holds the weights of an adapter (adapter_config.json) beside those of the model; merge them "
            "(merge_and_unload) and save the model, or take the adapter's files away"
        )
    return kind


def _check_size(architecture: Any, config: Any, state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a configuration far larger than its weights, whose missing tensors would be drawn, and fill the memory.

    Raises:
        CheckpointError: more layers than tensors, or more than twice as many parameters.
    """
    asked, there = config.num_hidden_layers, sum(tensor.numel() for tensor in state.values())
    what = "layers"
    if asked <= len(state):
        with torch.device("meta"):
            asked, what = sum(p.numel() for p in architecture(config).parameters()), "parameters"
    if asked > (2 * there if what == "parameters" else len(state)):
        raise CheckpointError(
            f"{path} lacks most of what its configuration asks for: {asked:,} {what}, and the files hold {there:,} "
            f"parameters in {len(state)} tensors; its {CONFIG} is of another model"
        )


def _check_report(report: Mapping[str, Any], path: Path) -> None:
    missing = sorted(map(str, report.get("missing_keys") or ()))
    if missing:
        raise CheckpointError(
            f"{path} lacks {some(missing)}, which its configuration asks for; it is cut or mixed up"
        )
    if wrong := sorted(str(entry[0]) for entry in report.get("mismatched_keys") or ()):
        raise CheckpointError(f"{path}: sizes do not fit its configuration: {some(wrong)}")
    if unknown := sorted(map(str, report.get("unexpected_keys") or ())):
        raise CheckpointError(
            f"{path} has tensors that its configuration does not know: {some(unknown)}; it is of another architecture, "
            "or mixed up"
        )


def _check_frequencies(model: Any, frequencies: Mapping[str, Tensor], path: Path) -> None:
    """Refuse stored rotary frequencies other than those that the model computes."""
    own = [buffer for name, buffer in model.named_buffers() if _FREQUENCIES.search(f".{name}")]
    for name, given in frequencies.items():
        if not any(
            given.shape == b.shape and torch.allclose(given.float(), b.float(), rtol=1e-2) for b in own
        ):
            raise CheckpointError(
                f"{path}: the rotary frequencies {name} are not those of its configuration; it is mixed up"
            )


FORMAT: Format = HuggingFace()
