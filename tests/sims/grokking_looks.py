"""Looks of made-up runs: some grok, controls memorise only, and signals that know more or less about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

STEPS = 50 * np.arange(1, 61)


def by(table: pd.DataFrame, *columns: str) -> dict[Any, dict[Any, Any]]:
    """Return the rows of a table by the values of one column, or of several."""
    records = table.to_dict("records")
    return {key[0] if len(key := tuple(r[c] for c in columns)) == 1 else key: r for r in records}


def run(
    name: str,
    group: str = "add",
    control: str = "",
    *,
    t_mem: float = 300.0,
    t_90: float | None = None,
    steps: np.ndarray = STEPS,
    **signals: Any,
) -> pd.DataFrame:
    """Return the looks of one run: training is memorised at t_mem, and test accuracy passes 0.9 at t_90, if ever."""
    test = np.full(len(steps), 0.02) if t_90 is None else np.where(steps >= t_90, 0.95, 0.02)
    looks = {"run": name, "group": group, "control": control, "step": steps}
    return pd.DataFrame({**looks, "train": np.where(steps >= t_mem, 1.0, 0.5), "test": test, **signals})


def many(
    generator: np.random.Generator, *, grok: int, controls: dict[str, int], effect: float, rise: float = 0.0
) -> pd.DataFrame:
    """Return runs whose signal is larger by `effect` throughout, and by `rise` from 600 steps before t_0.9 on.

    `noise` knows nothing, `loss` is a baseline that tells the classes apart a little.
    """
    parts = []
    for kind, count in {"": grok, **controls}.items():
        for i in range(count):
            t_90 = float(generator.integers(30, 50) * 50) if kind == "" else None
            own = 1.0 if kind == "" else 0.0
            signal = effect * own + generator.standard_normal(len(STEPS)) * 0.3 + generator.standard_normal()
            if t_90 is not None:
                signal = signal + rise * (t_90 - 600 <= STEPS)
            parts.append(
                run(
                    f"{kind or 'run'} {i}", ("add", "mul")[i % 2], kind, t_90=t_90, signal=signal,
                    noise=generator.standard_normal(len(STEPS)), loss=0.5 * own + generator.standard_normal(),
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)
