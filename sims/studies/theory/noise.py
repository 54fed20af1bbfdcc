"""T12: is a measured exponent more than what noise of the same shape reads?"""

from __future__ import annotations

from dataclasses import replace

from sims.studies.theory.checkpoint_tables import CheckpointTables, ended
from sims.studies.theory.figures import outcomes as figures
from sims.studies.theory.outcome import Outcome, Question
from theory.predictions import PREDICTIONS


def noise(evidence: CheckpointTables) -> tuple[Outcome, ...]:
    """Make one outcome each for activations, gradients and weights: the share of α above its null, after step 0."""
    prediction = PREDICTIONS["above-noise"]
    found = []
    for object_ in ("activation", "gradient", "weight"):
        question = Question(prediction, f"≥ {prediction.limit:g}", of=object_)
        rows = ended(evidence.runs, evidence.runs.values("alpha", object_))
        rows = rows[(rows["step"] > 0) & rows["null"].notna()]
        rows = rows.assign(
            above=(rows["value"] > rows["null"]).astype(float), ratio=rows["value"] / rows["null"]
        )
        if rows.empty:
            found.append(question.untestable("no fitted exponent of this kind after step 0"))
            continue
        figure = figures.scatter(rows, "null", "value", "α of noise", "α measured", identity=True)
        outcome = question.over_seeds(rows, "above", figure)
        by_window = rows.groupby("window")["above"].mean()
        told = ", ".join(f"{w}: {s:.0%}" for w, s in by_window.items())
        told += f"; median α/null {rows['ratio'].median():.2f}"
        found.append(replace(outcome, reason=f"{outcome.reason}; by window {told}"))
    return tuple(found)
