"""Check complete runs before anything is made of them, tell them apart by configuration, and say how they were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sims.pages.number import counted, verb
from sims.runs.folders import look
from sims.runs.identity import differences
from sims.runs.kinds import run_spec
from sims.runs.layout import TEXT, TOY
from sims.runs.lm_measure_config import LmRun
from sims.runs.measure_config import measure_config
from sims.runs.spec import RunSpec
from sims.runs.status import COMPLETE
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError, StoreError
from sims.system.plain import some
from toymodel.config import as_dict, canonical_hash
from toymodel.errors import ConfigError

# Fields of a provenance record that have fields of their own.
NESTED = ("versions", "git")


@dataclass(frozen=True)
class Distinct:
    """Hold runs of different configurations.

    Attributes:
        folders: one a configuration.
        copies: folders whose configuration another one has, with that one; they do not count.
    """

    folders: tuple[RunFolder, ...]
    copies: Mapping[str, str]


def distinct(folders: Sequence[RunFolder]) -> Distinct:
    """Keep one folder of each configuration, so that no run counts as two seeds.

    The name of a folder does not matter; of several the one with the name of the run is kept, else the first.

    Args:
        folders: complete runs.

    Raises:
        StoreError: a run is damaged, or its configuration is not valid in this version.
    """
    found: dict[str, list[tuple[bool, RunFolder]]] = {}
    for folder in folders:
        spec = checked(folder)
        found.setdefault(_configuration(spec), []).append((folder.path.name == spec.run_id, folder))
    kept, copies = [], {}
    for group in found.values():
        chosen = next((folder for named_so, folder in group if named_so), group[0][1])
        same = [folder for _, folder in group]
        kept.append(chosen)
        copies |= {_shown(f, same): _shown(chosen, same) for f in same if f is not chosen}
    one = set(kept)
    return Distinct(tuple(f for f in folders if f in one), copies)


def checked(folder: RunFolder) -> RunSpec:
    """Return the run of a complete folder, after looking at every small file that a page reads.

    Raises:
        StoreError: one is damaged or of another version; the message names the folder and the fault.
    """
    seen = look(str(folder.path))
    if seen["status"] not in COMPLETE:
        raise StoreError(
            f"{folder.path} cannot be read: {seen['reason']}; restore it, or move it out of the folder of runs"
        )
    found = folder.identity()
    try:
        spec = run_spec(found.get("kind", TOY), found["train"])
        if found.get("kind") != TEXT:
            measure_config(found["measure"])
    except (ConfigError, MeasureError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{folder.path / 'run.json'}: {error}; it was edited, or written by another version: restore it, or move "
            "the run out of the folder"
        ) from error
    if as_dict(spec) != found["train"]:
        raise StoreError(
            f"{folder.path / 'run.json'} does not hold a whole configuration "
            f"({differences(found['train'], as_dict(spec))}); restore it, or move the run out of the folder"
        )
    return spec


def made_by(folders: Sequence[RunFolder]) -> tuple[str, ...]:
    """Return sentences about runs that were not made alike: versions, source, processor; or not known to be."""
    records = {folder.path.name: dict(_record(folder)) for folder in folders}
    known = {name: record for name, record in records.items() if record}
    notes = []
    what = dict.fromkeys(field for record in known.values() for field in record)
    differing = []
    for field in what:
        counts = Counter(record.get(field, "not recorded") for record in known.values())
        if len(counts) > 1:
            values = ", ".join(f"{value} ({count} run{'s' * (count > 1)})" for value, count in counts.items())
            differing.append(f"{field} {values}")
    if differing:
        notes.append(
            f"The runs were not made alike, so that differences between them may be of their making: "
            f"{'; '.join(differing)}."
        )
    unknown = [name for name in records if name not in known]
    if unknown:
        notes.append(
            f"{len(unknown)} of {counted(len(records), 'run')} {verb(len(unknown), 'does', 'do')} not record with "
            f"which versions and where they were made (provenance.json): {some(unknown, 5)}."
        )
    return tuple(notes)


def provenance_of(folder: RunFolder) -> Mapping[str, Any]:
    """Return the provenance of a run; empty where it is missing or damaged, as its numbers do not depend on it."""
    try:
        origin = folder.provenance
    except StoreError:
        return {}
    if not isinstance(origin, Mapping):
        return {}
    return {
        name: v for name, v in origin.items() if name not in NESTED or v is None or isinstance(v, Mapping)
    }


def copied(copies: Mapping[str, str]) -> list[str]:
    """Return a sentence about runs that stand in several folders; none where there are none."""
    if not copies:
        return []
    pairs = [f"{copy} (as {original})" for copy, original in copies.items()]
    return [
        f"{len(copies)} folder{'s' * (len(copies) > 1)} of runs that count already "
        f"{'are' if len(copies) > 1 else 'is'} left out, as runs are told apart by configuration and not by name: "
        f"{some(pairs, 5)}."
    ]


def _configuration(spec: RunSpec) -> str:
    """Return what tells a run apart: not its name, nor the text that checkpoints of others were measured on."""
    return canonical_hash(replace(spec, name="", data="") if isinstance(spec, LmRun) else spec)


def _shown(folder: RunFolder, among: Sequence[RunFolder]) -> str:
    """Return the name of a folder, with its path where another one has the same."""
    same = [f for f in among if f.path.name == folder.path.name]
    return folder.path.name if len(same) == 1 else str(folder.path)


def _record(folder: RunFolder) -> Iterator[tuple[str, str]]:
    """Yield what is known of how a run was made; nothing where its provenance is missing or damaged."""
    origin = provenance_of(folder)
    versions, git = origin.get("versions") or {}, origin.get("git") or {}
    if not versions:
        return
    yield from ((str(name), str(version)) for name, version in versions.items())
    yield "Python", str(origin.get("python", "not recorded"))
    yield (
        "source",
        str(git.get("commit", "not recorded"))[:12] + (" with changes" if git.get("dirty") else ""),
    )
    yield "processor", str(origin.get("device_name", "not recorded"))
