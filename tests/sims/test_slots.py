"""Shares of the variance of scores between slots and blocks, beside those of noise; FARMS beside plain exponents."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.analysis.slots import slot_table, variance_shares
from sims.prune.noise_scores import noise_scores
from sims.system.errors import MeasureError

SLOTS = ("attn.q", "attn.o", "mlp.fc")
SHAPES = {f"blocks.{b}.{s}": (96, 24) if s == "mlp.fc" else (24, 24) for b in range(4) for s in SLOTS}


def table(values):
    """(blocks, slots) as rows."""
    names = [f"blocks.{b}.{SLOTS[s]}" for b in range(len(values)) for s in range(len(SLOTS))]
    return pd.DataFrame({"name": names, "score": np.ravel(values)})


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(-5, 5), st.floats(0.1, 10))
def test_shares_are_those_of_a_two_way_analysis(seed, shift, scale):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(5, 3))
    found = variance_shares(table(values))
    # The rest is the interaction: what is left once the means of rows and columns are removed.
    inner = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    assert found["slots"] + found["blocks"] + inner.var() / values.var() == pytest.approx(1)
    moved = variance_shares(table(scale * values + shift))
    assert moved == pytest.approx(found)
    # A shift of one slot in every block is variance between slots alone.
    pure = variance_shares(table(np.tile([0.0, 1.0, 3.0], (5, 1))))
    assert pure == pytest.approx({"slots": 1, "blocks": 0})


def test_equal_scores_have_no_shares():
    assert all(np.isnan(share) for share in variance_shares(table(np.ones((2, 3)))).values())


def test_shapes_alone_put_plain_exponents_of_noise_apart_and_those_of_farms_not():
    rows = {}
    for by in ("alpha", "farms"):
        drawn = noise_scores(by, SHAPES, draws=6)
        assert [list(own) for own in drawn] == [list(SHAPES)] * 6
        assert len({own["blocks.0.attn.q"] for own in drawn}) == 6
        rows[by] = [
            {"model": "m", "by": by, "draw": i, "name": n, "score": v}
            for i, own in enumerate(drawn)
            for n, v in own.items()
        ]
    noise = pd.DataFrame([*rows["alpha"], *rows["farms"]])
    scores = noise[noise["draw"] == 0].drop(columns="draw")
    found = slot_table(scores, noise)
    alpha, farms = found[found["part"] == "slots"].to_dict("records")
    assert alpha["noise_low"] > 0.5
    assert farms["noise"] < 0.5
    assert alpha["models"] == 1
    with pytest.raises(MeasureError, match="no level of noise of the score 'depth'"):
        noise_scores("depth", SHAPES)


def test_an_interval_of_shares_ends_at_0_and_1():
    """Of two models one has nearly all of its variance between slots, and the other three quarters."""
    apart = np.tile([0.0, 1.0, 3.0], (4, 1))
    noise = np.random.default_rng(0).normal(size=(4, 3))
    parts = [
        table(apart + size * noise).assign(model=model, by="alpha")
        for model, size in (("a", 0.01), ("b", 0.7))
    ]
    scores = pd.concat(parts, ignore_index=True)
    found = slot_table(scores, scores.assign(draw=0))
    assert ((found["low"] >= 0) & (found["low"] < found["share"]) & (found["high"] <= 1)).all()


def test_methods_and_sparsities_count_once_and_models_give_the_interval():
    rng = np.random.default_rng(1)
    parts = []
    for model in "abc":
        own = table(rng.normal(size=(4, 3)) + np.array([0, 0, 4])).assign(model=model, by="alpha")
        parts += [own.assign(method=method) for method in ("wanda", "sparsegpt")]
    scores = pd.concat(parts, ignore_index=True)
    noise = pd.concat([own.assign(draw=0) for own in parts], ignore_index=True)
    found = slot_table(scores, noise).set_index("part")
    once = [variance_shares(own)["slots"] for own in parts[::2]]
    assert found.loc["slots", "share"] == pytest.approx(np.mean(once))
    assert found.loc["slots", "models"] == 3
    assert found.loc["slots", "low"] < found.loc["slots", "share"] < found.loc["slots", "high"]
    assert found.loc["slots", "noise"] == pytest.approx(found.loc["slots", "share"])
    assert slot_table(scores, pd.DataFrame()).empty
