"""Read and compare the run.json of a run: its configuration and measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sims.runs.layout import FORMAT, READABLE, TEXT
from sims.runs.spec import RunSpec
from sims.system.errors import StoreError
from toymodel.config import RunConfig, as_dict


def identity(config: RunSpec, measure: Any) -> dict[str, Any]:
    """Return what run.json holds."""
    kind = {} if isinstance(config, RunConfig) else {"kind": TEXT}
    return {"format": FORMAT, **kind, "train": as_dict(config), "measure": as_dict(measure)}


def check_identity(file: Path, found: Any) -> dict[str, Any]:
    """Return the content of a run.json of any readable format; `format` is the one that it has.

    Raises:
        StoreError: not a run.json, or of a format that is not readable.
    """
    version = found.get("format") if isinstance(found, dict) else None
    if version not in READABLE:
        raise StoreError(
            f"{file} has format {version!r}, this version reads {' and '.join(map(str, READABLE))}; read it with the "
            "version named in its provenance.json, or choose another --out"
        )
    return found


def differences(found: Any, wanted: Any) -> str:
    """Name the first fields in which two configurations differ."""
    flat_found, flat_wanted = _flatten(found), _flatten(wanted)
    names = [n for n in {**flat_found, **flat_wanted} if flat_found.get(n) != flat_wanted.get(n)]
    shown = [f"{n} is {flat_found.get(n)!r} there, {flat_wanted.get(n)!r} here" for n in names[:3]]
    return "; ".join(shown + ([f"{len(names) - 3} more"] if len(names) > 3 else []))


def _flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else key))
    return flat
