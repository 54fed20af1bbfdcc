"""List the measurements, and choose those that a configuration asks for."""

from __future__ import annotations

from typing import Any

from sims.measure.accuracy import ACCURACY
from sims.measure.activations import ACTIVATIONS
from sims.measure.causal import CAUSAL
from sims.measure.defect import DEFECT
from sims.measure.directions import DIRECTIONS
from sims.measure.families import FAMILIES
from sims.measure.gradients import GRADIENTS
from sims.measure.loss import LOSS
from sims.measure.measurement import Measurement, Need
from sims.measure.ngrams import NGRAMS
from sims.measure.positions import POSITIONS
from sims.measure.predictive import PREDICTIVE
from sims.measure.probe_bands import PROBE_BANDS
from sims.measure.tables import TABLES
from sims.measure.updates import UPDATES
from sims.measure.weights import WEIGHTS
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.measure_config import MeasureConfig, schedule_entry
from sims.system.errors import MeasureError
from toymodel.observe import Schedule

# In the order of their rows.
REGISTRY: tuple[Measurement, ...] = (
    LOSS,
    ACTIVATIONS,
    GRADIENTS,
    WEIGHTS,
    FAMILIES,
    PROBE_BANDS,
    CAUSAL,
    TABLES,
    POSITIONS,
    PREDICTIVE,
    DIRECTIONS,
    NGRAMS,
    UPDATES,
    DEFECT,
    ACCURACY,
)

TOY_OFFERS: frozenset[Need] = frozenset(
    {"activations", "gradients", "matrices", "bands", "law", "updates", "training", "accuracy"}
)
LM_OFFERS: frozenset[Need] = frozenset(
    {"activations", "losses", "gradients", "matrices", "families", "updates", "training", "text"}
)


def wanted(config: Any) -> tuple[Measurement, ...]:
    """Return the measurements of a run, in the order of their rows.

    Args:
        config: a `MeasureConfig` or `LmMeasureConfig`; of any other class (an unmeasured run), none.
    """
    if isinstance(config, MeasureConfig):
        offers = TOY_OFFERS
    elif isinstance(config, LmMeasureConfig):
        offers = LM_OFFERS
    else:
        return ()
    return tuple(m for m in REGISTRY if m.needs <= offers and m.wanted(config))


def measured_versions(config: Any) -> dict[str, int]:
    """Return the version of each measurement of a run by its name; arguments as `wanted`."""
    return {measurement.name: measurement.version for measurement in wanted(config)}


def schedules(config: Any) -> dict[str, Schedule]:
    """Return the schedule of each measurement that is taken on its own one, by name.

    Raises:
        MeasureError: `schedules` names a measurement that this run does not have, or one with a schedule of its own.
    """
    given = getattr(config, "schedules", ())
    usual = {m.name: m for m in wanted(config)}
    found = {}
    for entry in given:
        name, schedule = schedule_entry(entry)
        if name not in usual or usual[name].observer is not None:
            names = ", ".join(n for n, m in usual.items() if m.observer is None)
            raise MeasureError(f"schedules names {name!r}, which is not measured here; choose from {names}")
        found[name] = schedule
    return found


def regular(config: Any) -> tuple[Measurement, ...]:
    """Return the measurements that are taken together, at the measuring points of the run."""
    own = schedules(config)
    return tuple(m for m in wanted(config) if m.begin is not None and m.name not in own)


def between_steps(config: Any) -> list[str]:
    """Return the settings by which the measurements between training steps are wanted; each is 0 where it is not."""
    return [m.name for m in REGISTRY if m.observer is not None and hasattr(config, m.name)]


def check_stored(config: Any) -> None:
    """Raise a MeasureError for measurements that stored checkpoints do not allow."""
    if getattr(config, "schedules", ()):
        raise MeasureError(
            f"schedules ({', '.join(config.schedules)}) apply while a run trains; leave them out for stored checkpoints"
        )
    between = [m.name for m in wanted(config) if m.observer is not None]
    if between:
        raise MeasureError(
            f"{', '.join(between)} can be measured only between the steps of a training run, not from stored "
            "checkpoints; set it to 0, and train with it"
        )


def markdown_table() -> str:
    """Return the table of docs/measurements.md."""
    lines = ["| measurement | is | of | when | null |", "|---|---|---|---|---|"]
    for m in REGISTRY:
        kinds = [
            name for name, offers in (("toy", TOY_OFFERS), ("language model", LM_OFFERS)) if m.needs <= offers
        ]
        when = "where the run is measured" if m.schedule is None else "between steps, on its own schedule"
        lines.append(
            f"| `{m.name}` | {m.meaning} | {', '.join(kinds)} | {when} | {'yes' if m.null else '–'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())
