"""The labels of a transition: by the evidence given, and on constructed runs."""

import math

import pytest
from constructed import build

from sims.analysis.taxonomy import Evidence, Thresholds, mechanism_label, outcome_label, taxonomy
from sims.system.errors import MeasureError


def about(value, half=0.01):
    return Evidence(value, value - half, value + half)


@pytest.mark.parametrize(
    ("token", "throughput", "label"),
    [
        (0.5, 0.0, "learning"),
        (0.0, 0.5, "throughput"),
        (0.5, 0.5, "joint"),
        (0.5, -0.5, "trade-off"),
        (-0.5, 0.5, "trade-off"),
        (0.0, 0.0, "neutral"),
        (-0.5, 0.0, "regression"),
        (0.05, 0.0, "cannot tell"),
        (0.5, -0.05, "cannot tell"),
    ],
)
def test_outcome_labels(token, throughput, label):
    assert outcome_label(about(token), about(throughput)) == label


def test_no_interval_no_label():
    single = Evidence(0.5, math.nan, math.nan)
    assert outcome_label(single, about(0.0)) == "cannot tell"
    assert mechanism_label(single, single, single, about(0.5)) == "cannot tell"


@pytest.mark.parametrize(
    ("activation", "gradient", "throughput", "label"),
    [
        (3.0, 0.0, 0.0, "activation-led"),
        (3.0, 1.5, 0.0, "activation-led"),
        (0.0, 3.0, 0.0, "gradient-led"),
        (1.5, 3.0, 0.0, "gradient-led"),
        (2.0, 2.2, 0.0, "mixed"),
        (0.0, 0.1, 0.5, "throughput-leaning"),
        (0.0, 0.1, 0.0, "none"),
        (0.0, 0.1, 0.05, "cannot tell"),
        (math.log(2), 0.0, 0.0, "cannot tell"),
        (2.0 + math.log(2), 2.0, 0.0, "cannot tell"),
    ],
)
def test_mechanism_labels(activation, gradient, throughput, label):
    lead = about(activation - gradient, 0.02)
    assert mechanism_label(about(activation), about(gradient), lead, about(throughput)) == label


def test_thresholds_are_used_and_checked():
    assert outcome_label(about(0.5), about(0.0), Thresholds(token_gain=0.6)) == "neutral"
    assert mechanism_label(about(3.0), about(0.0), about(3.0), about(0.0), Thresholds(moved=100.0)) == "none"
    with pytest.raises(MeasureError, match="token_gain is -1"):
        Thresholds(token_gain=-1)
    with pytest.raises(MeasureError, match="moved is"):
        Thresholds(moved=0.5)


def test_taxonomy_of_constructed_transitions():
    """To rope: faster learning with other activations. To muon: more tokens a second and other gradients."""

    def jitter(size, seed):
        return 0.004 * ((3 * seed + size) % 5)

    runs = build(
        # Seeds that agree to the last digit would show no spread, and decide nothing.
        rate=lambda stage, size, seed: (1.0, 2.0, 2.0)[stage] + 0.001 * ((seed + stage) % 3),
        speed=lambda stage, seed: (1_000.0, 1_000.0, 1_500.0)[stage] + (seed + stage) % 3,
        alpha=lambda stage, size, seed, loss: (1.0, 1.6, 1.6)[stage] + jitter(size, seed + stage),
        gradient=lambda stage, size, seed, loss: (1.0, 1.0, 1.6)[stage] + jitter(size, seed + stage),
        peak=lambda stage, size, seed, loss: 0.1 + 0.05 * (stage > 0),
        seeds=(0, 1, 2, 3),
    )
    first, second = taxonomy(runs).to_dict("records")
    assert (first["outcome"], first["mechanism"]) == ("learning", "activation-led")
    assert (second["outcome"], second["mechanism"]) == ("throughput", "gradient-led")
    assert (first["token_gain"], second["throughput_gain"], first["h_s"]) == pytest.approx(
        (1.0, 0.5, 0.1), rel=0.01
    )
    assert first["activation_js"] > 10 * first["activation_floor"]
    assert first["activation_low"] < first["activation"] < first["activation_high"]
    assert first["seeds"] == 4
    # A single seed has no interval, and so no label.
    single = taxonomy(build(gradient=lambda *_: 1.0, seeds=(0,)))
    assert set(single["outcome"]) == set(single["mechanism"]) == {"cannot tell"}
