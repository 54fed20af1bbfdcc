"""Published toy figures as data: what was reported, where, and for which setting. Nothing here was measured by us.

Source of all: Liu, Paquette, Sous, arXiv 2605.05683, and its public toy tables. Every one is of a single seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SIZES = (32, 128, 512)
STEPS = (500, 1_000, 1_500)
# Optimiser steps from one published measurement to the next.
MEASURED_EVERY = 250
TARGET_A, TARGET_B = 2.0, 2.5
BUDGET_A = 5_000
STAGES = ("baseline", "rope", "muon", "untied")
TRANSITIONS = (("baseline", "rope"), ("rope", "muon"), ("muon", "untied"))

# Run A by stage: at each of SIZES the learning rate, final validation loss (nats), million tokens and steps.
RUN_A: dict[str, tuple[tuple[float, float, float, int], ...]] = {
    "baseline": (
        (6e-4, 3.763, 10.24, 5_000),
        (1.697e-3, 3.141, 40.96, 5_000),
        (3.394e-3, 2.187, 163.84, 5_000),
    ),
    "rope": ((6e-4, 3.515, 10.24, 5_000), (2.4e-3, 2.632, 40.96, 5_000), (6.787e-3, 1.994, 121.57, 3_710)),
    "muon": ((4.24e-4, 2.091, 10.24, 5_000), (1.697e-3, 1.993, 15.56, 1_900), (2.4e-3, 1.984, 36.04, 1_100)),
    "untied": ((6e-4, 1.994, 3.748, 1_830), (1.2e-3, 1.974, 4.424, 540), (1.697e-3, 1.991, 8.192, 250)),
}
# Of each of TRANSITIONS: token gain, Jensen–Shannon divergence at matched loss (nats), ΔH_peak at STEPS.
_TRANSITIONS = (
    (0.578, 0.0063, (0.0080, 0.0093, 0.0183)),
    (2.476, 0.0176, (0.0100, 0.0200, 0.0386)),
    (1.898, 0.1617, (0.1065, 0.1655, 0.1222)),
)
# By stage, at STEPS: H_peak, and the peak mass of the first principal component.
_CONCENTRATION = {
    "baseline": ((0.0219, 0.0357, 0.0531), (0.0505, 0.0574, 0.1035)),
    "rope": ((0.0299, 0.0449, 0.0714), (0.0664, 0.0838, 0.1467)),
    "muon": ((0.0399, 0.0649, 0.0662), (0.0819, 0.1026, 0.1255)),
    "untied": ((0.1324, 0.1880, 0.1487), (0.2290, 0.3136, 0.3398)),
}
_PAIRS = ((32, 512), (32, 128), (128, 512))
_PAIR_JS = {"baseline": (0.0162, 0.0055, 0.0043), "rope": (0.0261, 0.0171, 0.0087)}


@dataclass(frozen=True)
class Published:
    """One published number, or one published direction.

    Attributes:
        key: how an analysis names it.
        source: the table or figure.
        statement: what it is, in words.
        value: the number; NaN for a direction.
        digits: decimals that were printed.
        sign: +1 or −1 for a direction (of our statistic of the same key), 0 for a number.
        change: whether the number is a change, so that 0 would mean "nothing happened".
        association: whether it is the size of a rank correlation.
    """

    key: str
    source: str
    statement: str
    value: float = float("nan")
    digits: int = 3
    sign: int = 0
    change: bool = False
    association: bool = False


def arrow(before: str, after: str) -> str:
    """Write a transition: "rope → muon"."""
    return f"{before} → {after}"


def _run_a() -> Iterator[Published]:
    for stage, cells in RUN_A.items():
        for size, (_, loss, tokens, steps) in zip(SIZES, cells, strict=True):
            where = f"{stage}, B = {size}"
            if steps == BUDGET_A:
                yield Published(
                    f"final loss {stage} {size}",
                    "run A",
                    f"validation loss after {BUDGET_A} steps, {where} (nats)",
                    loss,
                )
            else:
                digits = 3 if tokens < 10 else 2
                yield Published(
                    f"tokens {stage} {size}",
                    "run A",
                    f"million tokens to loss {TARGET_A:g}, {where}",
                    tokens,
                    digits,
                )


def _transitions() -> Iterator[Published]:
    for (before, after), (gain, js, peaks) in zip(TRANSITIONS, _TRANSITIONS, strict=True):
        name = arrow(before, after)
        yield Published(f"gain {name}", "run A", f"token gain at equal loss, {name}", gain, 3, change=True)
        yield Published(
            f"js {name}", "run A", f"JS of activation spectra at equal loss, {name} (nats)", js, 4
        )
        for step, value in zip(STEPS, peaks, strict=True):
            yield Published(
                f"dh {name} {step}", "run A", f"ΔH_peak at step {step}, {name}", value, 4, change=True
            )
    for stage, both in _CONCENTRATION.items():
        for quantity, what, values in zip(
            ("h_peak", "pc1"), ("H_peak", "peak mass of PC1"), both, strict=True
        ):
            for step, value in zip(STEPS, values, strict=True):
                yield Published(
                    f"{quantity} {stage} {step}", "run A", f"{what} at step {step}, {stage}", value, 4
                )


def _pairs() -> Iterator[Published]:
    for stage, values in _PAIR_JS.items():
        for (small, large), value in zip(_PAIRS, values, strict=True):
            statement = f"JS at equal loss between B = {small} and {large}, {stage} (nats)"
            yield Published(f"batch js {stage} {small} {large}", "figure 9", statement, value, 4)


def _associations() -> Iterator[Published]:
    yield Published(
        "early muon",
        "figure 4a",
        "|ρ| of α(10–40) at 20 % of training with token inefficiency, muon",
        1.0,
        2,
        association=True,
    )
    yield Published(
        "link",
        "run A",
        # Its code names a ratio of final test losses tok_gain.
        f"|ρ| of ΔH_peak at step {STEPS[0]} with the gain in final test loss (8 cells)",
        0.83,
        2,
        association=True,
    )


def _directions() -> Iterator[Published]:
    for before, after in TRANSITIONS:
        name = arrow(before, after)
        yield Published(f"gain sign {name}", "figure 11b", f"{name} needs fewer tokens to equal loss", sign=1)
        yield Published(f"dh sign {name}", "figure 11b", f"{name} raises H_peak", sign=1)
        yield Published(
            f"js sign {name}",
            "run A",
            f"{name} moves the activation spectrum at equal loss by more than a change of seed does",
            sign=1,
        )
    for stage in STAGES:
        yield Published(
            f"excess {stage}",
            "figure 1a",
            f"at equal loss the smallest and the largest batch have different activation spectra, {stage}",
            sign=1,
        )
    yield Published(
        "tail untied",
        "figure 11a",
        "at equal loss smaller batches have steeper tails (α falls with B), untied",
        sign=-1,
    )
    yield Published("above untied", "figure 4b", "H_peak stands above its null over training, untied", sign=1)


PUBLISHED: dict[str, Published] = {
    p.key: p for part in (_run_a, _transitions, _pairs, _associations, _directions) for p in part()
}
