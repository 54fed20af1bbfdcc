"""Folders of Hugging Face models: every decoder of transformers that `layout_of` understands. Needs the extra `hf`.

Only local folders are read, and code in them is never run. A folder is one checkpoint; a run is a folder of such
folders (``step1000``, ``checkpoint-500``, …), or the folder of a model in the library's cache, whose revisions are
named ``step1000``, ….
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sims.models.checkpoint_info import CheckpointInfo, CheckpointOptions, check_recorded, counted_tokens
from sims.models.formats import hf_files
from sims.models.formats.format import Format, LoadedModule
from sims.models.formats.hf_files import CONFIG, read_json
from sims.models.parts import layout_of
from sims.models.reading import CheckpointSource, whole_number
from sims.models.state import plain_state
from sims.models.subject import HEAD
from sims.system.errors import MeasureError, first_line
from sims.system.extras import require
from sims.system.files import visible
from sims.system.plain import some
from toymodel.errors import CheckpointError

# Rotary frequencies that older versions kept as buffers; newer ones compute them from the configuration.
_FREQUENCIES = re.compile(r"\.inv_freq$")
_BY_HAND = "load it with its own code and name its sites (sims.models.module)"
# Fields of the activation, and its names in this package.
_ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")
_OPTION = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}
_TOKENS = re.compile(r"tokens[_-]?(\d{1,18}(?:\.\d{1,9})?)([KMBT]?)(?![\dA-Za-z])")
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
        state = read_json(path / hf_files.TRAINER) if (path / hf_files.TRAINER).is_file() else {}
        step = hf_files.recorded_step(path)
        step = options.step if step is None else step
        counted = whole_number(state, "num_input_tokens_seen") or counted_tokens(
            step, options.tokens_per_step
        )
        names = hf_files.names_of(path)
        if counted is None and (named := next((m for n in names if (m := _TOKENS.search(n))), None)):
            counted = round(float(named[1]) * _SCALE[named[2]])
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
        if kind not in transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise CheckpointError(
                f"{path} is a model of type {kind!r}, and transformers {transformers.__version__} has no decoder of "
                f"this type; {_BY_HAND}, or look at its weights alone (sims.models.stored)"
            )
        model = _built(transformers, path)
        check_recorded(options, _recorded(model.config), path)
        model.config.use_cache = False
        _turn(model)
        try:
            layout = layout_of(model)
        except MeasureError as error:
            raise CheckpointError(f"{path}: {error}") from error
        facts = {
            "head": "its own" if HEAD in layout.matrices else "tied",
            "transformers": transformers.__version__,
        }
        return LoadedModule(model, layout, facts)

    def checkpoints(self, folder: Path) -> list[Path]:
        """List the folders with a model's configuration; of a model in a cache, its revisions."""
        inside = hf_files.revisions(folder) or visible(folder)
        return [path for path in inside if self.recognises(CheckpointSource(path))]


def _recorded(config: Any) -> dict[str, Any]:
    """Return heads and activation of a configuration, by the names of `CheckpointOptions`."""
    named = next((v for n in _ACTIVATIONS if isinstance(v := getattr(config, n, None), str)), None)
    return {
        "heads": getattr(config, "num_attention_heads", None),
        "activation": _OPTION.get(named, named) if named else None,
    }


def _built(transformers: Any, path: Path) -> Any:
    """Return the model of `transformers` with every weight of the folder in it, and no other."""
    state = plain_state(hf_files.read_state(path), path)
    frequencies = {name: tensor for name, tensor in state.items() if _FREQUENCIES.search(name)}
    state = {name: tensor for name, tensor in state.items() if name not in frequencies}
    try:
        # The library initialises missing weights at random and only warns: its loading report is checked instead, and
        # what it warns of is an error here.
        with _silent(transformers.utils.logging):
            config = transformers.AutoConfig.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=False
            )
            architecture = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            # Faster kernels of the same attention, such as flash_attention_2, are for half precision on a GPU.
            if config._attn_implementation != "eager":
                config._attn_implementation = "sdpa" if architecture._supports_sdpa else "eager"
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
                model.eval()(
                    torch.zeros(
                        1, min(2, max(1, getattr(config, "max_position_embeddings", 2))), dtype=torch.int64
                    )
                )
    except CheckpointError:
        raise
    except Exception as error:
        # Of configurations that contradict themselves the library raises whatever it stumbles over.
        raise CheckpointError(
            f"{path} cannot be loaded ({first_line(error)}); its {CONFIG} contradicts itself or its "
            "weights: copy the folder again from where it came from"
        ) from error
    _check_frequencies(model, frequencies, path)
    return model


@contextmanager
def _silent(library: Any) -> Iterator[None]:
    """Keep warnings and progress bars of transformers from the terminal; its settings are then as before."""
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()


def _turn(model: Any) -> None:
    """Replace modules that keep their weight as (in, out), as those of GPT-2, by linear ones."""
    for owner in list(model.modules()):
        for name, module in list(owner.named_children()):
            if type(module).__name__ == "Conv1D":
                setattr(owner, name, _turned(module))


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
    config = hf_files.checked_config(path)
    kind = str(config.get("model_type"))
    if not isinstance(config.get("model_type"), str):
        raise CheckpointError(
            f"{path} is a model of type {kind!r}; its {CONFIG} must name the model_type: copy the folder again"
        )
    if config.get("auto_map"):
        raise CheckpointError(
            f"{path} names code of its own (auto_map: {config['auto_map']}), which is not run; {_BY_HAND}, or take "
            f"auto_map out of {CONFIG} if it is the {kind} of transformers"
        )
    if config.get("add_cross_attention"):
        raise CheckpointError(
            f"{path} has cross-attention to an encoder, which no text here feeds; {_BY_HAND}"
        )
    return kind


def _check_size(architecture: Any, config: Any, state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a configuration far larger than its weights, whose missing tensors would be drawn, and fill the memory.

    Raises:
        CheckpointError: more layers than tensors, or more than twice as many parameters.
    """
    asked, there = (
        config.get_text_config().num_hidden_layers,
        sum(tensor.numel() for tensor in state.values()),
    )
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
