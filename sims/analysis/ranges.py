"""The values that each quantity can take: one table for the intervals of all tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from theory.ranges import CORRELATION, POSITIVE, REAL, SHARE, Range

__all__ = [
    "CORRELATION",
    "DIVERGENCE",
    "EXCESS",
    "GAIN",
    "ONE_SIDE",
    "ONE_SIDED",
    "POSITIVE",
    "RANGES",
    "REAL",
    "SHARE",
    "Range",
]

# One side of a conjugate pair of frequencies, of an odd modulus.
ONE_SIDE = Range(0.0, 0.5)
# A gain D_before/D_after − 1 of tokens or of throughput.
GAIN = Range(-1.0)
# A share above its null, over 1 − null or not; corrected for noise, so that it is 0 without structure and may be less.
EXCESS = Range(high=1.0, cut=True)
# Jensen–Shannon divergence in nats.
DIVERGENCE = Range(0.0, math.log(2))

# Quantities that count it.
ONE_SIDED = ("H_peak", "h_peak", "h_peak_top", "h_peak_end", "PC1 peak mass", "component_peak_mass")

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
    # Of an even modulus, or one that is not known (see `summaries.range_in`).
    **dict.fromkeys(ONE_SIDED, SHARE),
    "h_s": SHARE,
    "H_S": SHARE,
    "H_S task": SHARE,
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
