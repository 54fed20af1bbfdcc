"""The values that each quantity can take: one table for the intervals of all tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from theory.ranges import CORRELATION, POSITIVE, REAL, SHARE, Range

__all__ = ["CORRELATION", "DIVERGENCE", "EXCESS", "GAIN", "POSITIVE", "RANGES", "REAL", "SHARE", "Range"]

# A gain D_before/D_after − 1 of tokens or of throughput.
GAIN = Range(-1.0)
# A share above its null, over 1 − null or not; corrected for noise, so that it is 0 without structure and may be less.
EXCESS = Range(high=1.0, cut=True)
# Jensen–Shannon divergence in nats.
DIVERGENCE = Range(0.0, math.log(2))

# Of everything but the summaries of a spectrum, which have theirs in `sims.analysis.summaries.SUMMARIES`.
RANGES: Mapping[str, Range] = {
    "val_loss": POSITIVE,
    "loss": POSITIVE,
    # A sample of losses can lie below the exact mean.
    "above_floor": REAL,
    "tokens": POSITIVE,
    "million_tokens": POSITIVE,
    "tokens_to_common": POSITIVE,
    "to_common": POSITIVE,
    "h_peak": SHARE,
    "H_peak": SHARE,
    "h_peak_top": SHARE,
    "h_peak_end": SHARE,
    "h_s": SHARE,
    "H_S": SHARE,
    "H_S task": SHARE,
    "component_peak_mass": SHARE,
    "PC1 peak mass": SHARE,
    "gain": GAIN,
    "proximal": GAIN,
    "throughput": GAIN,
    "js": DIVERGENCE,
    "rho": CORRELATION,
    "ngram_correlation": CORRELATION,
    "ngram_frequency_correlation": CORRELATION,
    "ngram_divergence": POSITIVE,
    "ngram_accuracy": SHARE,
    "ngram_share": SHARE,
    "ngram_length_share": SHARE,
    "initial_distance": POSITIVE,
}
