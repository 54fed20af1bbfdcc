"""Weight matrices of a file or folder without building the model, one tensor in memory at a time.

Read are folders of Hugging Face (also shards, and the library's cache), nanoGPT, modded-nanogpt, files and run
folders of this package, and any safetensors or torch file with the state of a model. No vocabulary, step or
architecture is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sims.models.checkpoint_info import step_in
from sims.models.cuts import Cut, Family, cuts
from sims.models.formats import hf_files
from sims.models.names import block_list, embedding, short, standard_name
from sims.models.on_disk import Form, TensorsOnDisk
from sims.models.reading import SAFETENSORS, TORCH_ENDINGS, whole_number
from sims.models.state import not_weights, unwrapped
from sims.models.subject import EMBED, HEAD
from sims.runs.layout import WRITER
from sims.runs.tensors import check_digest
from sims.system.files import visible
from sims.system.plain import some
from toymodel.errors import CheckpointError

# Tensors that quantisation leaves beside or in place of a weight.
_QUANTISED = {
    "GPTQ or AWQ": re.compile(r"\.(qweight|qzeros)$"),
    "bitsandbytes": re.compile(r"\.(SCB|absmax|quant_map|quant_state\.\w+)$"),
    "MXFP4": re.compile(r"_(blocks|scales)$"),
    "scaled": re.compile(r"\.(weight_scale|weight_scale_inv|weight_packed)$"),
}
# Ending of the name of one file of several.
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Packed numbers of few bits, as of MLX; int32 and int64 are indices as well.
_NARROW = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.uint32)


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """One weight matrix of a checkpoint.

    Args:
        name: standard name ("blocks.0.attn.q"), or its own where it has none.
        source: name of its tensor in the file.
        tensor: (out, in), in the type of the file.
    """

    name: str
    source: str
    tensor: Tensor


@dataclass(frozen=True, eq=False)
class _Place:
    file: TensorsOnDisk
    source: str
    parts: tuple[Cut, ...]


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """The weight matrices of a checkpoint; iterate to read them, one tensor at a time.

    Args:
        path: file or folder that holds them.
        kind: what it is: "Hugging Face llama", "nanoGPT", "safetensors", …
        step: optimiser steps, if it says so.
        skipped: tensor of two or more axes → why it is no matrix.
        places: where the matrices are.
    """

    path: Path
    kind: str
    step: int | None
    skipped: Mapping[str, str]
    places: tuple[_Place, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the matrices, in the order of the files."""
        return tuple(cut.name for place in self.places for cut in place.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the file."""
        further = tuple(
            f"{file.path.name} also holds weights under {some(list(file.unread))}, which were not read; save them to a "
            "file of their own to measure them"
            for file in {place.file.path: place.file for place in self.places}.values()
            if file.unread
        )
        if self.path.is_dir() or not (shard := _SHARD.search(self.path.stem)):
            return further
        return (
            *further,
            f"{self.path.name} is shard {int(shard[1])} of {int(shard[2])}; the other matrices of the model are in the "
            "others: name their folder, with the index of the shards, to read all",
        )

    def __iter__(self) -> Iterator[StoredMatrix]:
        for place in self.places:
            tensor = place.file[place.source]
            if why := not_weights(tensor):
                raise CheckpointError(
                    f"{place.file.path}: {place.source} is {why}; save the weights as dense numbers"
                )
            for cut in place.parts:
                yield StoredMatrix(cut.name, place.source, cut.of(tensor))

    def __len__(self) -> int:
        return len(self.names)

    def matching(self, patterns: Sequence[str]) -> StoredWeights:
        """Return the matrices whose names (long or short), or tensors' names, fit a pattern (``*``, ``?``, ``[…]``).

        Raises:
            CheckpointError: a pattern fits none.
        """
        fitting: set[str] = set()
        for pattern in patterns:
            own = {
                cut.name
                for place in self.places
                for cut in place.parts
                if any(_fits(name, pattern) for name in (cut.name, short(cut.name), place.source))
            }
            if not own:
                raise CheckpointError(
                    f"{pattern!r} names no matrix of {self.path}; there are {some(list(self.names), 12)}"
                )
            fitting |= own
        kept = (
            replace(place, parts=tuple(cut for cut in place.parts if cut.name in fitting))
            for place in self.places
        )
        return replace(self, places=tuple(place for place in kept if place.parts))


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def stored_weights(path: Path | str) -> StoredWeights:
    """Find the weight matrices of a file or folder; numbers are read when they are asked for.

    Raises:
        CheckpointError: nothing there, damaged, cut, quantised, an adapter, or the state of an optimiser alone.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if path.is_file():
        return _of_file(path)
    if (path / "run.json").is_file():
        return _of_run(path)
    folder = hf_files.folder_of(path)
    if hf_files.is_model(folder):
        return _of_hugging_face(folder)
    return stored_weights(_last(path))


def _of_file(path: Path) -> StoredWeights:
    if path.suffix not in (SAFETENSORS, *TORCH_ENDINGS):
        endings = ", ".join((SAFETENSORS, *TORCH_ENDINGS))
        raise CheckpointError(f"{path} ends in {path.suffix or 'nothing'}; files of weights end in {endings}")
    file = TensorsOnDisk(path)
    data = file.metadata
    step = _recorded(data)
    if file.metadata.get("writer") == WRITER:
        check_digest(path, dict(file.metadata), file)
        return _weights(path, WRITER, int(data["step"]), [file], Family())
    if "model_args" in data:
        return _weights(path, "nanoGPT", step, [file], Family.of(data["model_args"]))
    modded = any("transformer.wte.weight" in unwrapped(name) for name in file)
    kind = "GPT-2-shaped state" if modded else path.suffix.removeprefix(".")
    kind = kind if modded or path.suffix == SAFETENSORS else "state of torch"
    if step is None:
        step = step_in(path.name)
    return _weights(path, kind, step, [file], Family())


def _recorded(data: Mapping[str, Any]) -> int | None:
    """Return the step that the content of a file records."""
    known = (whole_number(data, key) for key in ("iter_num", "step", "global_step"))
    return next((step for step in known if step is not None), None)


def _step_of_file(path: Path) -> int | None:
    """Return the step in the name of a file, or in its content."""
    try:
        named = step_in(path.name)
        return _recorded(TensorsOnDisk(path, verify=False).metadata) if named is None else named
    except CheckpointError:
        return None


def _of_run(path: Path) -> StoredWeights:
    files = visible(path / "checkpoints", f"*{SAFETENSORS}")
    if not files:
        raise CheckpointError(
            f"{path} is a run without checkpoints; train it with some, or name a file of weights"
        )
    return _of_file(max(files, key=_step_of))


def _step_of(path: Path) -> int:
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else -1


def _of_hugging_face(folder: Path) -> StoredWeights:
    config = hf_files.checked_config(folder)
    files = []
    for path, expected in hf_files.weight_files(folder).items():
        file = TensorsOnDisk(path)
        hf_files.check_index(path, file, expected)
        files.append(file)
    kind = f"Hugging Face {config.get('model_type') or 'files without a configuration'}"
    return _weights(folder, kind, hf_files.recorded_step(folder), files, Family.of(config))


def _last(path: Path) -> Path:
    """Return the last checkpoint of a folder of several."""
    inside = hf_files.revisions(path) or visible(path)
    models = [p for p in inside if p.is_dir() and hf_files.is_model(p)]
    files = [p for p in inside if p.is_file() and p.suffix in (SAFETENSORS, ".pt", ".pth", ".ckpt")]
    found = models or files
    if not found:
        if runs := [p.name for p in inside if (p / "run.json").is_file()]:
            raise CheckpointError(f"{path} is a folder of runs; name one of them: {some(runs)}")
        raise CheckpointError(
            f"{path} holds no weights that are read: a folder with a {hf_files.CONFIG}, a run, or files that end in "
            f"{', '.join((SAFETENSORS, *TORCH_ENDINGS))}"
        )
    if len(found) == 1:
        return found[0]
    if all(_SHARD.search(p.stem) for p in found):
        raise CheckpointError(
            f"{path} holds shards ({some([p.name for p in found])}) without the index that says which tensor is in "
            "which (….index.json); fetch it beside them, or name one shard"
        )
    steps = {p: hf_files.step_of(p) if p.is_dir() else _step_of_file(p) for p in found}
    if unplaced := [p.name for p, step in steps.items() if step is None]:
        raise CheckpointError(
            f"{path} holds {len(found)} checkpoints, and nothing says which is the last ({some(unplaced)}); name one"
        )
    return max(found, key=lambda p: steps[p] or 0)


def _weights(
    path: Path, kind: str, step: int | None, files: Sequence[TensorsOnDisk], family: Family
) -> StoredWeights:
    """Return the matrices of all files."""
    _refuse_quantised(path, {name: form for file in files for name, form in file.forms.items()})
    if not family.kind and any(
        _turned(name, form.shape) for file in files for name, form in file.forms.items()
    ):
        family = replace(family, kind="gpt2")
    skipped: dict[str, str] = {}
    places: list[_Place] = []
    taken: set[str] = set()
    tied = _tied(files)
    sources = [source for file in files for source in file.forms]
    known = any(standard_name(source).startswith("blocks.") for source in sources)
    blocks = None if known else block_list(sources)
    named = any(standard_name(source) == EMBED for source in sources)
    table = None if named else embedding(sources)
    for file in files:
        for source, form in file.forms.items():
            if len(form.shape) < 2:
                continue
            own = _best_name(source, file.aliases)
            parts = (
                f"the same numbers as {tied[source]}"
                if source in tied
                else f"of {str(form.dtype).removeprefix('torch.')}"
                if form.dtype not in _FLOATS
                else "empty"
                if 0 in form.shape
                else cuts(
                    unwrapped(own),
                    EMBED if source == table else standard_name(own, blocks),
                    form.shape,
                    family,
                )
            )
            if isinstance(parts, str):
                skipped[source] = parts
                continue
            if taken & {cut.name for cut in parts}:
                plain = unwrapped(source).removesuffix(".weight")
                parts = cuts(unwrapped(own), plain if plain not in taken else source, form.shape, family)
                assert not isinstance(parts, str)
            taken |= {cut.name for cut in parts}
            places.append(_Place(file, source, parts))
    if not places:
        raise CheckpointError(
            f"{path} holds no weight matrix; it has {some(list(skipped)) or 'vectors alone'}"
        )
    return StoredWeights(path, kind, step, skipped, tuple(places))


def _turned(source: str, shape: Sequence[int]) -> bool:
    """Return whether a tensor is the fused q, k, v of GPT-2 as transformers keeps it: (in, out), like all of its file.

    >>> _turned("h.0.attn.c_attn.weight", (8, 24)), _turned("h.0.attn.c_attn.weight", (24, 8))
    (True, False)
    """
    # Beside low-rank updates it is the weight of a base layer.
    own = source.removesuffix(".weight").removesuffix(".base_layer")
    return own.endswith("attn.c_attn") and len(shape) == 2 and shape[1] == 3 * shape[0]


def _best_name(source: str, aliases: Mapping[str, str]) -> str:
    """Return the name of a tensor; of a tied one, which a file keeps once, that of the embedding."""
    others = (name for name, kept in aliases.items() if kept == source)
    return next((name for name in others if standard_name(name) == EMBED), source)


def _tied(files: Sequence[TensorsOnDisk]) -> dict[str, str]:
    """Return tied weights → what they are tied to: of one place, or a head that is the embedding to the last bit."""
    found = {name: kept for file in files for name, kept in file.aliases.items() if name in file.forms}
    named = {
        standard_name(source): (file, source)
        for file in files
        for source in file.forms
        if source not in found and standard_name(source) in (EMBED, HEAD)
    }
    if len(named) < 2:
        return found
    (file, head), (other, embed) = named[HEAD], named[EMBED]
    form = file.forms[head]
    if form != other.forms[embed] or len(form.shape) != 2:
        return found
    rows = max(1, 2**22 // max(1, form.shape[1]))
    for start in range(0, form.shape[0], rows):
        a, b = file.rows(head, start, start + rows), other.rows(embed, start, start + rows)
        if not torch.equal(a, b):
            return found
    return {**found, head: embed}


def _refuse_quantised(path: Path, forms: Mapping[str, Form]) -> None:
    """Refuse tensors that quantisation made.

    Raises:
        CheckpointError: the message names the method as far as the tensors show it.
    """
    for method, pattern in _QUANTISED.items():
        # Floats named "…_scales" or "…_blocks" are parameters; MXFP4 keeps bytes.
        found = [name for name, form in forms.items() if pattern.search(name)]
        if found := [n for n in found if method != "MXFP4" or forms[n].dtype not in _FLOATS]:
            _quantised(path, method, found)
    narrow = [
        name
        for name, form in forms.items()
        if len(form.shape) > 1
        and (form.dtype in _NARROW or str(form.dtype).startswith(("F8", "torch.float8", "F4")))
        and not re.search(r"(bias|mask)$", name)
    ]
    if narrow:
        _quantised(path, str(forms[narrow[0]].dtype).removeprefix("torch."), narrow)


def _quantised(path: Path, method: str, names: list[str]) -> None:
    raise CheckpointError(
        f"{path} holds quantised weights ({method}: {some(names)}), which are not those that were trained; give the "
        "checkpoint before quantisation, or dequantise it and save it again"
    )
