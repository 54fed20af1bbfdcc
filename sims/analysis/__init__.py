"""Functions from tables to a table. No figure and no report computes a statistic of its own."""

from sims.analysis.intervals import seed_intervals
from sims.analysis.matched import batch_divergence, crossing, matched_spectra
from sims.analysis.runs import Runs, load
from sims.analysis.stages import concentration_summary, link_to_activations, outcome_table, stage_differences

__all__ = [
    "Runs",
    "batch_divergence",
    "concentration_summary",
    "crossing",
    "link_to_activations",
    "load",
    "matched_spectra",
    "outcome_table",
    "seed_intervals",
    "stage_differences",
]
