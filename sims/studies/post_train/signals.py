"""Tell before post-training what preferences and rewards have to learn from, and refuse what trains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sims.pages.number import counted
from sims.studies.post_train.orders import LEAST_ORDER, MOST_ORDER
from sims.system.errors import MeasureError
from toymodel.posttrain.continued import Signal

# Share of right samples before post-training between which rewards tell samples of a prompt apart often.
FROM, TO = 0.05, 0.5


def check_signals(signals: Mapping[str, Signal], order: int | None) -> list[str]:
    """Return notes on shares of right samples that are far from a half.

    Args:
        signals: of runs by their names.
        order: n of the n-grams by which language models are right; None for toys.

    Raises:
        MeasureError: a run of which no pair counts, or no prompt has right and wrong samples: DPO or RLVR would train
            nothing.

    >>> found = Signal(pairs=80, counted=9, samples=100, right=90, prompts=25, mixed=8)
    >>> check_signals({"one": found}, order=3)[0][-24:]
    'raise --order (it is 3).'
    """
    notes = []
    for run, own in signals.items():
        if not own.counted:
            raise MeasureError(
                f"0 of {counted(own.pairs, 'pair')} of {run} count: every token that it draws in place of the next one "
                f"is possible, so that DPO would train nothing; {_remedy(order, stricter=True)}"
            )
        if not own.mixed:
            raise MeasureError(
                f"{own.right} of {counted(own.samples, 'sample')} of {run} before post-training are right, and 0 of "
                f"{counted(own.prompts, 'prompt')} have right and wrong ones; RLVR compares samples of one prompt, or "
                f"it trains nothing: {_remedy(order, stricter=own.share > TO)}"
            )
        if not FROM <= own.share <= TO:
            notes.append(
                f"Before post-training {100 * own.share:.1f} % of samples of {run} are right, and {100 * FROM:g} to "
                f"{100 * TO:g} % are best for rewards; {_remedy(order, stricter=own.share > TO)}."
            )
    return notes


def _remedy(order: int | None, stricter: bool) -> str:
    if order is None:
        return f"take runs that were trained {'for fewer' if stricter else 'for more'} steps"
    if order == (MOST_ORDER if stricter else LEAST_ORDER):
        return f"take runs that were trained {'for fewer' if stricter else 'for more'} tokens (--order is {order})"
    return f"{'raise' if stricter else 'lower'} --order (it is {order})"


def told_signals(signals: Sequence[Signal]) -> str:
    """Write what the runs of a page have to learn from, with the range over runs.

    >>> told_signals([Signal(80, 8, 100, 40, 25, 9), Signal(80, 12, 100, 45, 25, 10)])[:68]
    'Before post-training 40.0 to 45.0 % of 100 samples of training promp'
    """
    if not signals:
        return ""
    shares = sorted(100 * own.share for own in signals)
    pairs, mixed = (sorted(getattr(own, name) for own in signals) for name in ("counted", "mixed"))
    return (
        f"Before post-training {_range(*(f'{x:.1f}' for x in (shares[0], shares[-1])))} % of {signals[0].samples:,} "
        f"samples of training prompts are right ({_range(f'{mixed[0]:,}', f'{mixed[-1]:,}')} of "
        f"{counted(signals[0].prompts, 'prompt')} have right and wrong ones), and "
        f"{_range(f'{pairs[0]:,}', f'{pairs[-1]:,}')} of {counted(signals[0].pairs, 'pair')} of DPO count."
    )


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
