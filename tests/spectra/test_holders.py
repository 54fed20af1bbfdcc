"""Numbers keep their precision, and labels their gaps, in whatever holds them; states and results are checked."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from spectra import (
    Factors,
    InputError,
    Moments,
    UpdateWindow,
    clauset,
    covariance_spectrum,
    debiased_participation_ratio,
    jackknife,
    rank,
    sample_gradient_spectra,
    spectral_edge,
    stacked_gradient_spectrum,
    weight_spectrum,
)
from spectra.arrays import machine_epsilon
from spectra.testing import check_estimator

RNG = np.random.default_rng(0)
NARROW = (torch.float32, torch.float16, torch.bfloat16)
RANK7 = (RNG.standard_normal((200, 7)) @ RNG.standard_normal((7, 40))).astype(np.float32)


class Held:
    """An object that numpy can read, without a dtype of its own."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype=dtype)


HOLDERS = {
    "table": pd.DataFrame(RANK7),
    "table with a wide column": pd.DataFrame(RANK7).astype({0: float}),
    "array-like": Held(RANK7),
    "list of array-likes": [Held(row) for row in RANK7],
    "list of lists of float32": [list(row) for row in RANK7],
    "list of lists of tensors": [[torch.tensor(value) for value in row] for row in RANK7],
    "list that begins with plain numbers": [RANK7[0].tolist(), *RANK7[1:]],
    "list that begins with a wide row": [RANK7[0].astype(float), *RANK7[1:]],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_rounding_is_known_whatever_holds_the_numbers(holder):
    x = HOLDERS[holder]
    assert machine_epsilon(x) == np.finfo(np.float32).eps
    assert (
        rank(covariance_spectrum(x)) == rank(weight_spectrum(x)) == rank(Moments().update(x).spectrum()) == 7
    )


def test_a_row_may_be_a_series():
    moments = Moments().update(pd.Series([1.0, 2.0])).update(pd.Series([3.0, 2.0]))
    assert (moments.count, moments.mean.tolist()) == (2, [2.0, 2.0])


@pytest.mark.parametrize("dtype", NARROW)
def test_a_window_of_low_rank_has_no_value_after_its_edge(dtype):
    basis = RNG.standard_normal((3, 400))
    updates = [torch.tensor(RNG.standard_normal(3) @ basis).to(dtype) for _ in range(10)]
    edge = spectral_edge(updates, draws=20)
    assert (edge.k, edge.status) == (3, "flagged")
    assert "rounding" in edge.reason
    # The state carries it; noise is above it.
    window = UpdateWindow(10)
    for update in updates:
        window.push([update[:100], update[100:]])
    again = UpdateWindow(10)
    again.load_state_dict(window.state_dict())
    assert spectral_edge(again, draws=20).reason == edge.reason
    noise = [torch.tensor(RNG.standard_normal(400)).to(dtype) for _ in range(10)]
    assert spectral_edge(noise, draws=20).status == "ok"


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("shape", [(8, 20, 30), (5, 50, 9)])
def test_short_samples_have_the_rank_of_their_inputs(dtype, shape):
    positions, out, inner = shape
    a = torch.tensor(RNG.standard_normal((4, positions, 3)) @ RNG.standard_normal((3, inner))).to(dtype)
    d = torch.tensor(RNG.standard_normal((4, positions, out))).to(dtype)
    explicit = torch.einsum("mto,mti->moi", d.double(), a.double())
    own = sample_gradient_spectra(Factors(a, d))
    assert (np.count_nonzero(own, axis=1) == 3).all()
    np.testing.assert_allclose(
        own[:, :3], np.linalg.svd(explicit.numpy(), compute_uv=False)[:, :3], rtol=0.02
    )
    two = [Factors(a[:, :2], d[:, :2]), Factors(a[:, 2:], d[:, 2:])]
    np.testing.assert_allclose(sample_gradient_spectra(two), own, rtol=1e-9, atol=1e-12)


def test_eight_bit_floats_are_numbers():
    rows = torch.tensor(RNG.standard_normal((6, 4, 5))).to(torch.float8_e4m3fn)
    wide = rows.float()
    got, want = stacked_gradient_spectrum(rows), stacked_gradient_spectrum(wide)
    np.testing.assert_array_equal(got.values[:3], want.values[:3])
    window = UpdateWindow(2)
    window.push([rows, wide])
    assert window.gram[0, 0] == pytest.approx(2 * float(wide.double().square().sum()))


@pytest.mark.parametrize(
    "change",
    [
        None,
        {"count": "a"},
        {"count": 2.5},
        {"count": torch.tensor([2, 3])},
        {"mean": "ab"},
        {"mean": torch.ones(2) * 1j},
        {"m2": -torch.eye(2)},
        {"m2": torch.tensor([[1.0, 5.0], [0.0, 1.0]])},
        {"rounding": torch.tensor([-1.0, 2.0])},
    ],
)
def test_a_state_that_no_moments_have_is_refused(change):
    state = {"count": 2, "mean": torch.ones(2), "m2": torch.eye(2)}
    assert Moments.from_state_dict(state).count == 2
    with pytest.raises(InputError):
        Moments.from_state_dict(None if change is None else {**state, **change})


@pytest.mark.parametrize("precision", [None, 2.0**-8])
def test_moments_whose_squares_lost_digits_are_refused(precision):
    rows = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    with pytest.raises(InputError, match="cannot hold its energy"):
        Moments().update(rows * 1e-159, precision=precision).spectrum()
    assert Moments().update(rows * 1e-140).spectrum().values[0] == pytest.approx(6e-280, rel=1e-12)


@pytest.mark.parametrize(
    "labels",
    [
        np.ma.masked_array(np.arange(50), mask=np.arange(50) < 5),
        np.where(np.arange(50) < 20, np.nan, np.arange(50)),
        pd.Series([1.0, 2.0, np.nan, 4.0, 5.0] * 10),
        np.array(["2020-01-01", "NaT", "2020-01-02", "2020-01-03", "2020-01-04"] * 10, "datetime64[D]"),
    ],
)
def test_rows_without_a_label_are_no_group(labels):
    with pytest.raises(InputError, match="needs a label"):
        jackknife(np.arange(50.0), np.mean, groups=labels)


def test_a_cutoff_of_equal_or_rising_values_is_not_ok():
    for values in (1 + np.arange(40) * 2.0**-52, np.random.default_rng(0).random(300)):
        found = clauset(values, cutoff=True)
        assert found.status != "ok"
        assert found.status == "not fitted" or math.isfinite(found.details["ks"])


@pytest.mark.parametrize("assume", ["nothing", "gaussian"])
def test_rank_one_has_a_ratio_of_one(assume):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found = debiased_participation_ratio(
            np.outer(rng.standard_normal(40), rng.standard_normal(3)), assume
        )
        assert found.value == pytest.approx(1.0)
        assert found.value >= 1.0 or assume == "gaussian"
        assert "1 lies outside [1" not in found.reason


def test_a_ragged_result_is_named():
    report = check_estimator(lambda x: [[1], [2, 3]], "covariance spectrum", laws=["scale"], quiet=True)
    assert "numbers are expected" in report.failures[0].message
