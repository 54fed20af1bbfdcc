"""Laws of the ratio to a bound that must hold everywhere."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sims.analysis.bounds import worst_ratio

NUMBER = st.floats(-10, 10)


@given(st.lists(st.tuples(NUMBER, st.floats(0.01, 10)), min_size=1, max_size=20), st.floats(0.1, 100))
def test_the_ratio_is_at_most_1_exactly_where_every_bound_holds_and_has_no_unit(pairs, scale):
    numbers, bounds = np.array(pairs).T
    worst, missing = worst_ratio(numbers, bounds)
    assert missing == 0
    assert (worst <= 1) == all(abs(n) / b <= 1 for n, b in pairs)
    assert np.isclose(worst_ratio(scale * numbers, scale * bounds)[0], worst)


@given(st.lists(st.floats(-0.4, 0.4), min_size=1, max_size=9), st.sampled_from([math.nan, math.inf]))
def test_what_is_missing_is_counted_and_a_bound_of_0_allows_0_alone(numbers, lost):
    bounds = np.ones(len(numbers))
    assert worst_ratio([*numbers, lost], [*bounds, 1.0]) == (worst_ratio(numbers, bounds)[0], 1)
    assert worst_ratio([*numbers, 1e-8], [*bounds, 0.0])[0] == math.inf
    assert worst_ratio([*numbers, 1e-12], [*bounds, 0.0]) == worst_ratio(numbers, bounds)
    assert math.isnan(worst_ratio([lost], [1.0])[0])
