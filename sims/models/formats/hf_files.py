"""Files of a Hugging Face model: its folder or its place in the library's cache, and its weights in one or more files.

The cache keeps a model as ``models--org--name/snapshots/<commit>``, and in ``refs/<revision>`` the commit of each
revision that was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sims.models.checkpoint_info import step_in
from sims.models.reading import SAFETENSORS, read_safetensors, read_torch, whole_number
from sims.system.plain import some
from toymodel.errors import CheckpointError

CONFIG, TRAINER = "config.json", "trainer_state.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def folder_of(path: Path) -> Path:
    """Return the folder with the files: the path itself, or the only revision of a model in a cache."""
    inside = revisions(path)
    return inside[0] if len(inside) == 1 else path


def revisions(path: Path) -> list[Path]:
    """Return the revisions of a model in a cache: those with a step in their names, else main, else all.

    Raises:
        CheckpointError: a ref names a revision that is not there.
    """
    if not (path / "snapshots").is_dir():
        return []
    refs = _refs(path)
    stepped = {commit for name, commit in refs.items() if step_in(name) is not None}
    chosen = stepped or {commit for name, commit in refs.items() if name == "main"}
    for name, commit in refs.items():
        if commit in chosen and not (path / "snapshots" / commit).is_dir():
            raise CheckpointError(
                f"{path}: the revision {name} is the snapshot {commit}, which is not there; download it again"
            )
    return sorted(
        p for p in (path / "snapshots").iterdir() if p.is_dir() and (not chosen or p.name in chosen)
    )


def is_model(path: Path) -> bool:
    """Return whether a folder holds a model: its configuration, or weights under the names of the library."""
    names = (CONFIG, "adapter_config.json", *_WEIGHTS, *(f"{name}.index.json" for name in _WEIGHTS))
    return any((path / name).is_file() for name in names)


def checked_config(path: Path) -> dict[str, Any]:
    """Read the configuration of a folder; without one it is empty.

    Raises:
        CheckpointError: weights that are quantised, or those of an adapter.
    """
    config = read_json(path / CONFIG) if (path / CONFIG).is_file() else {}
    text = config.get("text_config")
    for said in (config, text if isinstance(text, Mapping) else {}):
        # "quantization" is the entry of MLX.
        keys = ("quantization_config", "compression_config", "quantization")
        if key := next((key for key in keys if said.get(key)), ""):
            given = said[key]
            method = given.get("quant_method", given) if isinstance(given, Mapping) else given
            raise CheckpointError(
                f"{path} holds quantised weights ({key}: {method}), which are not those that were "
                f"trained; give the checkpoint before quantisation, or dequantise it and take {key} out"
            )
    if (path / "adapter_config.json").is_file():
        alone = "" if config else " and no model"
        raise CheckpointError(
            f"{path} holds the weights of an adapter (adapter_config.json){alone}; merge them into its model "
            "(merge_and_unload) and save that, take the adapter's files away, or look at the file of the adapter alone "
            "(adapter_model.safetensors)"
        )
    return config


def recorded_step(path: Path) -> int | None:
    """Return the step in trainer_state.json, else the one in the names of the folder, else None.

    Raises:
        CheckpointError: damaged JSON, or names that tell two steps.
    """
    state = read_json(path / TRAINER) if (path / TRAINER).is_file() else {}
    step = whole_number(state, "global_step")
    return step_of(path) if step is None else step


def names_of(path: Path) -> list[str]:
    """Return the names that may tell the step of a folder: its own, or the refs of a revision in a cache."""
    path = path.absolute()
    if path.parent.name != "snapshots":
        return [path.name]
    return [name for name, commit in _refs(path.parent.parent).items() if commit == path.name]


def step_of(path: Path) -> int | None:
    """Return the step in the names of a folder, or None.

    Raises:
        CheckpointError: the names tell two steps.
    """
    found = {name: step for name in names_of(path) if (step := step_in(name)) is not None}
    if len(set(found.values())) > 1:
        raise CheckpointError(
            f"{path} is the snapshot of {' and of '.join(found)}, so that their weights are the same; delete the refs "
            "that are wrong"
        )
    return next(iter(found.values()), None)


def _refs(path: Path) -> dict[str, str]:
    """Return revision → commit."""
    files = [p for p in sorted((path / "refs").rglob("*")) if p.is_file()]
    return {p.relative_to(path / "refs").as_posix(): p.read_text(errors="replace").strip() for p in files}


def weight_files(path: Path) -> dict[Path, list[str] | None]:
    """Return the files of weights of a folder, which all exist, and the tensors that an index expects in each.

    Raises:
        CheckpointError: no weights, one file beside an index of several, a damaged index, or missing shards.
    """
    for name in _WEIGHTS:
        index, whole = path / f"{name}.index.json", path / name
        if index.is_file() and whole.is_file():
            raise CheckpointError(
                f"{path} has both {name} and {index.name}, so that which weights count is not known; take one away"
            )
        if whole.is_file():
            return {whole: None}
        if index.is_file():
            return _indexed(index)
    inside = [p.name for p in sorted(path.glob("*.safetensors"))]
    beside = f"; {some(inside)} have other names and no index" if inside else ""
    raise CheckpointError(
        f"{path} has a {CONFIG} but no weights ({' or '.join(_WEIGHTS)}, or an index of shards){beside}; fetch them "
        "beside it"
    )


def _indexed(index: Path) -> dict[Path, list[str] | None]:
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, Mapping) or not placed:
        raise CheckpointError(
            f"{index} has no weight_map, which names the shard of each tensor; fetch it again"
        )
    expected: dict[Path, list[str] | None] = {}
    for name, shard in placed.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise CheckpointError(
                f"{index} places {name} in {shard!r}, which is no file beside it; fetch it again"
            )
        expected.setdefault(index.parent / shard, []).append(name)  # pyright: ignore[reportOptionalMemberAccess]
    if missing := [file.name for file in sorted(expected) if not file.is_file()]:
        raise CheckpointError(
            f"{index.parent} lacks {some(missing)} of {len(expected)} shards; fetch the rest of the folder"
        )
    return expected


def read_state(path: Path) -> dict[str, Any]:
    """Read the tensors of all files of weights.

    Raises:
        CheckpointError: as `weight_files`; a file that cannot be read, or that holds other tensors than its index says.
    """
    state: dict[str, Any] = {}
    for file, expected in weight_files(path).items():
        own = read_safetensors(file)[1] if file.suffix == SAFETENSORS else read_torch(file, verify=True)
        check_index(file, own, expected)
        state |= own
    return state


def check_index(file: Path, names: Iterable[Any], expected: list[str] | None) -> None:
    """Refuse a shard that holds other tensors than its index says.

    Raises:
        CheckpointError: the message names the tensors.
    """
    if expected is not None and (odd := sorted(set(map(str, names)) ^ set(expected))):
        side = "lacks" if odd[0] in expected else "also holds"
        raise CheckpointError(
            f"{file} {side} {some(odd)}, other than its index says; the shards are of two models: fetch them again"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); copy it again from where it came from"
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, not an object; copy it again")
    return data
