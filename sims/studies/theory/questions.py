"""The questions of the theory to trained models: one file a family, one line each in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable

from sims.studies.theory.batch_tail import batch_tail
from sims.studies.theory.checkpoint_tables import CheckpointTables
from sims.studies.theory.head_bound import head_bound
from sims.studies.theory.hitting import hitting
from sims.studies.theory.noise import noise
from sims.studies.theory.null_start import null_start
from sims.studies.theory.outcome import Outcome
from sims.studies.theory.overshoot import overshoot
from sims.studies.theory.position import position
from sims.studies.theory.predictive import predictive
from sims.studies.theory.tails import tails
from sims.studies.theory.tying import direct_path, initial_loss

FAMILIES: tuple[Callable[[CheckpointTables], tuple[Outcome, ...]], ...] = (
    head_bound,
    null_start,
    overshoot,
    tails,
    batch_tail,
    hitting,
    initial_loss,
    direct_path,
    position,
    noise,
    predictive,
)


def answer(evidence: CheckpointTables) -> list[Outcome]:
    """Answer every question, in the order of the claims."""
    return [outcome for family in FAMILIES for outcome in family(evidence)]
