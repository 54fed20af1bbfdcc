"""Write the pruned model of a checkpoint in the format of the checkpoint, so that whatever reads one reads the other.

Only the numbers of pruned matrices change; everything else of a file, and the other files of a folder that describe the
model, are copied. Weights keep the type of the file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sims.models.checkpoint_info import CheckpointInfo
from sims.models.checkpoints import read
from sims.models.cuts import Cut, whole_matrix
from sims.models.formats.hf_files import weight_files
from sims.models.formats.own import LoadedTransformer
from sims.models.on_disk import model_state
from sims.models.reading import SAFETENSORS, opened, read_torch
from sims.models.stored import stored_weights
from sims.models.subject import Subject
from sims.models.transformer import TransformerSubject
from sims.runs.layout import WRITER
from sims.runs.lm_config import LmConfig
from sims.runs.tensors import write_tensors
from sims.system.errors import MeasureError
from sims.system.files import TEMPORARY, make_folder, write_atomic
from toymodel.config import RunConfig

# What is copied beside the weights of a folder.
_DESCRIBING = (".json", ".txt", ".model", ".jinja")
Cuts = Mapping[str, tuple[Cut, ...]]


def written_path(info: CheckpointInfo, folder: Path, name: str) -> Path:
    """Return where the pruned model of a checkpoint is written: a file or a folder, as the checkpoint is one.

    The step is part of the name, where it is known: formats that record none are read by it.
    """
    step = "" if info.step is None else f"-step{info.step}"
    return folder / f"{name}{step}{'' if info.path.is_dir() else info.path.suffix}"


def write_pruned(info: CheckpointInfo, before: Subject, pruned: Subject, names: list[str], to: Path) -> None:
    """Write a pruned model atomically.

    Args:
        info: the checkpoint that was pruned.
        before, pruned: its model, and that without some weights.
        names: the matrices that were pruned.
        to: of `written_path`; what is there is replaced, folders are not.

    Raises:
        MeasureError: a matrix that the file does not hold as the model has it.
        StoreError: it cannot be written.
    """
    make_folder(to.parent)
    if info.kind == WRITER:
        _write_own(info.path, pruned, to)
        return
    old, new = before.matrices, pruned.matrices
    values = {name: (old[name], new[name]) for name in names}
    places = _places(info.path)
    if missing := [name for name in names if not any(c.name == name for own in places.values() for c in own)]:
        raise MeasureError(
            f"{info.path} holds no matrix {', '.join(missing[:4])} under a known name; its pruned model is not written"
        )
    if info.path.is_file():
        _write_file(info.path, places, values, to)
        return
    if to.exists():
        return
    building = to.with_name(f"{TEMPORARY}{os.getpid()}-{to.name}")
    shutil.rmtree(building, ignore_errors=True)
    try:
        make_folder(building)
        files = weight_files(info.path)
        for file in files:
            _write_file(file, places, values, building / file.name)
        for file in sorted(info.path.iterdir()):
            if file.is_file() and file.suffix in _DESCRIBING:
                write_atomic(building / file.name, lambda out, file=file: out.write(file.read_bytes()))
        os.replace(building, to)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_own(path: Path, pruned: Subject, to: Path) -> None:
    loaded = read(path)
    assert isinstance(loaded, LoadedTransformer)
    assert isinstance(loaded.config, RunConfig | LmConfig)
    assert isinstance(pruned, TransformerSubject)
    write_tensors(to, loaded.config, loaded.step, {name: p[0] for name, p in pruned.params.items()})


def _places(path: Path) -> Cuts:
    """Return tensor → the matrices in it, of all files of a checkpoint."""
    return {place.source: place.parts for place in stored_weights(path).places}


def _write_file(path: Path, places: Cuts, values: Mapping[str, tuple[Tensor, Tensor]], to: Path) -> None:
    if path.suffix == SAFETENSORS:
        with opened(path) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _put(path, tensors, places, values)
        data = save(tensors, metadata)
        write_atomic(to, lambda out: out.write(data))
        return
    content = read_torch(path)
    # The mapped file is private to this process: its tensors are changed in memory alone.
    _put(path, model_state(content, path), places, values)
    write_atomic(to, lambda out: torch.save(content, out))


def _put(
    path: Path, tensors: Mapping[str, Tensor], places: Cuts, values: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Replace the matrices within the tensors of a file."""
    for source, parts in places.items():
        for cut in parts:
            if source not in tensors or cut.name not in values:
                continue
            old, new = values[cut.name]
            if not torch.equal(cut.of(tensors[source]).float(), old.cpu()):
                raise MeasureError(
                    f"{path}: {source} is not {cut.name} of the model to the last bit; its pruned model is not written"
                )
            whole = whole_matrix(tensors[source], cut.index, cut.turned)
            whole[slice(None) if cut.rows is None else cut.rows] = new.to(whole)
