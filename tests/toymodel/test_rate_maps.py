"""Laws of the maps from scores to multipliers of learning rates, and what the settings refuse."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toymodel import ConfigError
from toymodel.config import ModelConfig, RunConfig
from toymodel.controllers import maps, multipliers
from toymodel.controllers.maps import mapped
from toymodel.rates import Rates

BLOCKS, PARTS = 4, {"attn.q": 16, "attn.o": 16, "mlp.fc": 64}
SIZES = {f"blocks.{b}.{part}": n + b for b in range(BLOCKS) for part, n in PARTS.items()}
MAPS = ("linear", "step", "sqrt", "log2", "sigmoid")


@st.composite
def scores(draw):
    values = draw(st.lists(st.floats(1.1, 12.0), min_size=len(SIZES), max_size=len(SIZES)))
    return dict(zip(SIZES, values, strict=True))


def reference(values, rates):
    """The formulas once more, by arrays."""
    a = np.asarray(values)
    if np.ptp(a) == 0:
        return np.ones(len(a))
    if rates.map == "linear":
        return np.interp(a, [a.min(), a.max()], [rates.low, rates.high])
    if rates.map == "step":
        return rates.low + (rates.high - rates.low) * np.argsort(np.argsort(a, kind="stable")) / len(a)
    if rates.map == "sigmoid":
        return 10 ** (rates.strength * (1 / (1 + np.exp(-rates.tau * (a - a.mean()))) - 0.5))
    powers = np.sqrt(a) if rates.map == "sqrt" else np.log2(a)
    return len(a) * powers / powers.sum()


@settings(max_examples=60, deadline=None)
@given(scores(), st.sampled_from(MAPS))
def test_maps_are_those_of_the_formulas(found, name):
    rates = Rates("alpha", map=name)
    np.testing.assert_allclose(
        mapped(list(found.values()), rates), reference(list(found.values()), rates), 1e-9
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (
            "step",
            lambda v, r: [r.low + (r.high - r.low) * i / (len(v) - 1) for i in np.argsort(np.argsort(v))],
        ),
        ("linear", lambda v, r: [r.high - (r.high - r.low) * (x - min(v)) / np.ptp(v) for x in v]),
        ("sqrt", lambda v, r: [math.sqrt(x) / sum(map(math.sqrt, v)) for x in v]),
        ("log2", lambda v, r: [len(v) * x / sum(v) for x in v]),
        ("sigmoid", lambda v, r: [10 ** (r.strength / (1 + math.exp(-r.tau * (x - np.mean(v))))) for x in v]),
    ],
)
def test_wrong_maps_are_found(name, wrong, monkeypatch):
    monkeypatch.setitem(maps._MAPS, name, wrong)
    rates, values = Rates("alpha", map=name), [2.0, 2.1, 2.4, 3.0]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(mapped(values, rates), reference(values, rates), 1e-9)


@settings(max_examples=60, deadline=None)
@given(scores(), st.floats(0.1, 10), st.floats(-50, 50), st.sampled_from(["matrix", "block"]))
def test_linear_rates_do_not_depend_on_unit_and_origin_of_the_score(found, factor, shift, unit):
    rates = Rates("alpha", unit=unit)
    moved = multipliers({name: factor * v + shift for name, v in found.items()}, SIZES, rates)
    spread = np.ptp(list((maps.block_means(found) if unit == "block" else found).values()))
    if spread > 1e-3:
        assert moved == pytest.approx(multipliers(found, SIZES, rates), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    scores(), st.sampled_from(MAPS), st.sampled_from(["matrix", "block"]), st.sampled_from(["", "shuffled-"])
)
def test_the_mean_over_all_weights_is_one(found, name, unit, control):
    values = multipliers(found, SIZES, Rates(f"{control}alpha", map=name, unit=unit))
    mean = math.fsum(SIZES[n] * v for n, v in values.items()) / sum(SIZES.values())
    assert abs(mean - 1) <= 1e-12
    # Plain means differ from it: weights count, and not matrices.
    assert list(values) == list(found)


def test_a_plain_mean_would_be_found():
    found = {name: 2.0 + i for i, name in enumerate(SIZES)}
    values = multipliers(found, SIZES, Rates("alpha"))
    assert abs(np.mean(list(values.values())) - 1) > 1e-3


@settings(max_examples=60, deadline=None)
@given(scores(), st.sampled_from(MAPS))
def test_a_higher_score_has_no_lower_rate_and_bounds_hold(found, name):
    rates = Rates("alpha", map=name, mean="free")
    values = multipliers(found, SIZES, rates)
    order = sorted(found, key=lambda n: found[n])
    assert all(values[a] <= values[b] * (1 + 1e-12) for a, b in pairwise(order))
    low, high = {"sigmoid": (10**-0.5, 10**0.5), "linear": (0.5, 1.5), "step": (0.5, 1.5)}.get(
        name, (0, math.inf)
    )
    assert all(low * (1 - 1e-12) <= v <= high * (1 + 1e-12) for v in values.values())
    if name == "step" and len(set(found.values())) > 1:
        assert max(values.values()) < 1.5


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("mean", ["one", "free"])
def test_equal_scores_give_exactly_one(name, mean):
    equal = dict.fromkeys(SIZES, 0.3)
    assert set(multipliers(equal, SIZES, Rates("alpha", map=name, mean=mean)).values()) == {1.0}
    # Also those that are equal but for rounding.
    rounded = {**equal, next(iter(SIZES)): 0.1 + 0.2}
    assert set(multipliers(rounded, SIZES, Rates("alpha", map=name, mean=mean)).values()) == {1.0}
    assert multipliers({}, {}, Rates("alpha", map=name, mean=mean)) == {}


@settings(max_examples=60, deadline=None)
@given(scores(), st.sampled_from(MAPS), st.sampled_from(["matrix", "block"]), st.integers(0, 99))
def test_a_shuffle_gives_the_same_multipliers_to_others(found, name, unit, seed):
    plain = Rates("alpha", map=name, unit=unit, mean="free")
    moved = multipliers(found, SIZES, replace(plain, by="shuffled-alpha", seed=seed))
    assert sorted(moved.values()) == sorted(multipliers(found, SIZES, plain).values())
    again = multipliers(found, SIZES, replace(plain, by="shuffled-alpha", seed=seed))
    assert moved == again


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(sorted(SIZES)), min_size=2), st.integers(0, 99))
def test_a_shuffle_has_one_order_whichever_matrices_have_a_score(present, seed):
    rates = Rates("shuffled-alpha", mean="free", seed=seed)
    plain = Rates("alpha", mean="free")
    every = {name: 2.0 + i for i, name in enumerate(SIZES)}
    source = _sources(every, rates, plain)
    some = {name: every[name] for name in every if name in present}
    own = _sources(some, rates, plain)
    assert sorted(own) == sorted(own.values())
    assert all(own[name] == source[name] for name in some if source[name] in some)
    # An order drawn anew for those with a score would be another one.
    assert multipliers(every, SIZES, rates) == multipliers(every, SIZES, rates, tuple(SIZES))


def _sources(found, rates, plain):
    """By matrix, the one whose multiplier it gets."""
    names = {value: name for name, value in multipliers(found, SIZES, plain).items()}
    return {n: names[v] for n, v in multipliers(found, SIZES, rates, tuple(SIZES)).items()}


def test_shuffles_differ_by_their_number():
    found = {name: 2.0 + i for i, name in enumerate(SIZES)}
    draws = {tuple(multipliers(found, SIZES, Rates("shuffled-alpha", seed=s)).values()) for s in range(10)}
    assert len(draws) == 10


@settings(max_examples=60, deadline=None)
@given(scores())
def test_reversed_linear_rates_add_up_to_low_and_high(found):
    plain = multipliers(found, SIZES, Rates("alpha", mean="free"))
    turned = multipliers(found, SIZES, Rates("reversed-alpha", mean="free"))
    for name in found:
        assert plain[name] + turned[name] == pytest.approx(2.0)
    order = sorted(found, key=lambda n: found[n])
    assert all(turned[a] >= turned[b] - 1e-12 for a, b in pairwise(order))
    if found[order[0]] < found[order[-1]]:
        assert [turned[order[0]], turned[order[-1]]] == pytest.approx([1.5, 0.5])


@settings(max_examples=40, deadline=None)
@given(scores(), st.floats(0.1, 3))
def test_blocks_share_one_rate_that_a_shift_of_one_kind_of_matrix_leaves(found, shift):
    rates = Rates("farms", unit="block")
    values = multipliers(found, SIZES, rates)
    for b in range(BLOCKS):
        assert len({v for n, v in values.items() if n.startswith(f"blocks.{b}.")}) == 1
    moved = multipliers({n: v + shift * n.endswith("mlp.fc") for n, v in found.items()}, SIZES, rates)
    if np.ptp(list(maps.block_means(found).values())) > 1e-3:
        assert moved == pytest.approx(values, rel=1e-9)
        by_matrix = [multipliers(f, SIZES, Rates("farms")) for f in (found, dict(moved))]
        assert by_matrix[0] != by_matrix[1]


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="leave out matrices without a finite one"):
        multipliers({"blocks.0.attn.q": math.nan}, SIZES, Rates("alpha"))


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        (
            {"by": "luck"},
            r"rates.by is 'luck'; rates are uniform, or by alpha, alpha-z, farms, farms-z, depth, and rev",
        ),
        ({"by": "reversed-uniform"}, "rates.by is 'reversed-uniform'"),
        ({"by": "farms", "map": "cubic"}, "rates.map is 'cubic'; choose linear, sqrt, log2, step, sigmoid"),
        ({"by": "farms", "unit": "layer"}, "rates.unit is 'layer'; choose matrix, block"),
        ({"by": "farms", "mean": "two"}, "rates.mean is 'two'; choose one, free"),
        ({"by": "farms", "low": -0.1}, "rates.low is -0.1"),
        ({"by": "farms", "low": 2.0}, "low is at most high: .* take rates.by reversed-farms"),
        ({"by": "farms", "low": 0.0, "high": 0.0}, "the highest is above 0"),
        ({"by": "farms", "every": 0}, "rates.every is 0; it must be at least 1, or left out"),
        ({"by": "farms", "map": "sigmoid", "tau": 0.0}, "tau is a positive number"),
        (
            {"by": "farms", "map": "sigmoid", "low": 0.7},
            "rates.low is 0.7, which the map sigmoid would not read",
        ),
        ({"by": "farms", "strength": 2.0}, "rates.strength is 2.0, which the map linear would not read"),
        ({"by": "farms", "seed": 3}, "rates.seed is 3, which rates that are not shuffled would not read"),
        ({"by": "shuffled-farms", "seed": -1}, "rates.seed is -1"),
        (
            {"unit": "block"},
            r"rates.unit is block, which one rate for all \(rates.by uniform\) would not read",
        ),
        ({"by": "depth", "map": "sqrt"}, "scores by depth may be zero or negative"),
        ({"by": "farms-z", "map": "log2"}, "or rates.by alpha or farms"),
        ({"low": 0.2}, "leave it out, or choose a rates.by other than uniform"),
        ({"seed": 3}, "leave it out, or choose a rates.by that is shuffled"),
        ({"by": "reversed-farms", "seed": 3}, "choose rates.by shuffled-farms"),
        ({"by": "farms", "map": "sqrt", "low": 0.2}, "the map sqrt would not read; .* another rates.map"),
        ({"by": 3}, "rates.by is 3; it must be a name"),
        ({"by": "farms", "every": 2.5}, "rates.every is 2.5; it must be a whole number, or left out"),
        ({"by": "farms", "every": True}, "rates.every is True"),
        ({"by": "shuffled-farms", "seed": 1.5}, "rates.seed is 1.5; it must be a whole number"),
        ({"by": "farms", "low": "a"}, "rates.low is 'a'; it must be a number"),
        ({"by": "farms", "high": False}, "rates.high is False"),
        ({"by": "farms", "first_last": 1}, "rates.first_last is 1; it must be true or false"),
    ],
)
def test_settings_without_sense_are_refused(given_, said):
    with pytest.raises(ConfigError, match=said):
        Rates(**given_)


def test_rates_that_would_do_nothing_in_a_run_are_refused():
    with pytest.raises(ConfigError, match="stage mlp has no blocks"):
        RunConfig(stage="mlp", rates=Rates("farms"))
    with pytest.raises(ConfigError, match="of 2 blocks 0 take part; at least 1 must"):
        RunConfig(rates=Rates("farms", first_last=False))
    with pytest.raises(ConfigError, match="of 3 blocks 1 take part; blocks are compared: at least 2"):
        RunConfig(model=ModelConfig(layers=3), rates=Rates("farms", unit="block", first_last=False))
    assert Rates("farms").period(5_000) == 50
    assert Rates("farms").period(20) == 1
