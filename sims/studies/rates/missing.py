"""Write the commands that train the runs which the rules lack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import pandas as pd

from sims.runs.layout import CAMPAIGN
from sims.runs.lm_config import LmConfig
from sims.runs.store import RunFolder
from sims.studies.rates.measured import RatesData
from sims.studies.rates.preset import NAME, SCORE
from sims.system.command_options import opposite
from sims.system.files import read_object
from toymodel.rates import ONE_RATE, SHUFFLED, UNIFORM, Rates, base_of


def commands(data: RatesData, missing: pd.DataFrame) -> pd.DataFrame:
    """Return the commands that train missing runs.

    Args:
        data: the existing runs.
        missing: cell, arm, draw, lr, seed.

    Returns:
        One row a command: cell, arms, runs (how many it trains), command.
    """
    rows = []
    for cell, own in missing.groupby("cell", sort=False):
        found = pd.DataFrame(list(_commands(data, str(cell), own)))
        for command, same in found.groupby("command", sort=False):
            arms = ", ".join(dict.fromkeys(same["arm"]))
            rows.append({"cell": cell, "arms": arms, "runs": int(same["runs"].sum()), "command": command})
    return pd.DataFrame(rows, columns=["cell", "arms", "runs", "command"])


def _commands(data: RatesData, cell: str, missing: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the command of every arm and draw of a cell, base rates with the same missing seeds together."""
    for (arm, draw), own in missing.groupby(["arm", "draw"], sort=False):
        pattern = _pattern(data, cell, str(arm))
        together: dict[tuple[int, ...], list[float]] = {}
        for lr, at in own.groupby("lr"):
            together.setdefault(tuple(at["seed"]), []).append(float(str(lr)))
        for seeds, rates in together.items():
            several = isinstance(data.specs[pattern.path.name], LmConfig)
            for chosen in [rates] if several else [[lr] for lr in rates]:
                text = _command(data, pattern, (str(arm), int(str(draw))), chosen, seeds)
                yield {"arm": arm, "runs": len(chosen) * len(seeds), "command": text}


def _pattern(data: RatesData, cell: str, arm: str) -> RunFolder:
    """Return the run whose other settings the missing ones have: one of one rate for uniform, else one with a map."""
    runs = data.of(cell)["run"].tolist()
    uniform = [run for run in runs if data.specs[run].rates.uniform]
    unequal = [run for run in runs if run not in uniform]
    plain = [run for run in unequal if not data.specs[run].rates.by.startswith(SHUFFLED)]
    order = [*uniform, *plain, *unequal] if arm == UNIFORM else [*plain, *unequal, *uniform]
    return data.folders[order[0]]


def _command(
    data: RatesData, pattern: RunFolder, arm: tuple[str, int], rates: Sequence[float], seeds: Sequence[int]
) -> str:
    spec, out = data.specs[pattern.path.name], pattern.path.parent
    campaign = read_object(out / CAMPAIGN) if (out / CAMPAIGN).exists() else {}
    if campaign.get("campaign") == NAME:
        # Nothing else may train into this folder.
        number = max(5, *(s + 1 for s in seeds), *(int(s) + 1 for s in data.losses["seed"]))
        sizes = f"--profile {campaign['profile']} --steps {campaign['steps']} --stage {spec.stage} --seeds {number}"
        score = base_of(arm[0])
        shuffled = f" --shuffled {score}" if arm[0].startswith(SHUFFLED) and score != SCORE else ""
        return f"speclens rates {sizes}{shuffled} --out {out}"
    program = "speclens train lm --data SHARDS" if isinstance(spec, LmConfig) else "speclens train published"
    listed = " ".join(f"{lr:g}" for lr in rates)
    told = " ".join(map(str, seeds))
    group = _group(spec.rates, *arm)
    return f"{program} --config {pattern.path} {group} --lr {listed} --seeds {told} --out {out}"


def _group(rates: Rates, arm: str, draw: int) -> str:
    """Write all options of the group: those left out would be read from the file, where another arm may refuse them.

    Args:
        rates: of the run whose map the new ones have.
        arm, draw: of the new runs.
    """
    own = ONE_RATE if arm == UNIFORM else replace(rates, by=arm, seed=draw if arm.startswith(SHUFFLED) else 0)
    words = [f"--rates {own.by} --rates.seed {own.seed}"]
    for spec in fields(own):
        value, name = getattr(own, spec.name), spec.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--rates.{name if value else opposite(name)}")
        elif spec.name not in ("by", "seed"):
            words.append(f"--rates.{name} {value}")
    return " ".join(words)
