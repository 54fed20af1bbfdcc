"""Every public function of spectra against inputs that no one means, and inputs that only look unusual.

`corpus` makes hostile versions of an array and says of each which float64 numbers it holds, if any; `entries` says how
each public function is called, with an independent value of its example; `judge` compares an outcome with the rule:
the value of those numbers within tolerance, or an InputError, and never NaN that says "ok".
"""

from .alignment_entries import ALIGNMENT_ENTRIES
from .edge_entries import EDGE_ENTRIES
from .entries import ENTRIES as OWN_ENTRIES
from .entries import HOLDERS
from .judge import Count, judge

ENTRIES = {**OWN_ENTRIES, **EDGE_ENTRIES, **ALIGNMENT_ENTRIES}

__all__ = ["ALIGNMENT_ENTRIES", "EDGE_ENTRIES", "ENTRIES", "HOLDERS", "OWN_ENTRIES", "Count", "judge"]
