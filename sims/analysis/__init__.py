"""Functions from tables to a table. No figure and no report computes a statistic of its own."""

from sims.analysis.cells import best_rates, crossing, keep, loss_levels, tokens_to
from sims.analysis.concentration import concentration_at_losses, concentration_changes, trajectories
from sims.analysis.intervals import seed_intervals
from sims.analysis.matched import batch_divergence, matched_spectra
from sims.analysis.noise_scale import noise_scale
from sims.analysis.paired import compare_stages
from sims.analysis.phases import phases
from sims.analysis.prediction import early_exponents, early_prediction, token_inefficiency
from sims.analysis.runs import Runs, load
from sims.analysis.segmentation import Segmentation, segment
from sims.analysis.stages import concentration_summary, link_to_activations, outcome_table, stage_differences
from sims.analysis.tails import matched_exponents, tail_by_batch, tail_trend
from sims.analysis.taxonomy import Thresholds, mechanism_label, outcome_label, taxonomy
from sims.analysis.transitions import gain_link, gains_by_seed, transition_gains

__all__ = [
    "Runs",
    "Segmentation",
    "Thresholds",
    "batch_divergence",
    "best_rates",
    "compare_stages",
    "concentration_at_losses",
    "concentration_changes",
    "concentration_summary",
    "crossing",
    "early_exponents",
    "early_prediction",
    "gain_link",
    "gains_by_seed",
    "keep",
    "link_to_activations",
    "load",
    "loss_levels",
    "matched_exponents",
    "matched_spectra",
    "mechanism_label",
    "noise_scale",
    "outcome_label",
    "outcome_table",
    "phases",
    "seed_intervals",
    "segment",
    "stage_differences",
    "tail_by_batch",
    "tail_trend",
    "taxonomy",
    "token_inefficiency",
    "tokens_to",
    "trajectories",
    "transition_gains",
]
