"""What is handed in and out: numbers of an Estimate and a Spectrum, and refusals that name what came."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch

from spectra import (
    Estimate,
    InputError,
    Spectrum,
    capture_factors,
    covariance_spectrum,
    hill,
    rankme,
    weight_spectrum,
)


def test_an_estimate_is_a_number_and_a_spectrum_its_values():
    assert float(Estimate(1.5)) == 1.5
    assert math.isnan(float(Estimate.not_fitted("too few values")))
    spectrum = Spectrum([1.0, 4.0], "singular")
    array = np.asarray(spectrum)
    assert (array.dtype, array.tolist()) == (np.float64, [4.0, 1.0])
    assert np.array(spectrum, dtype=np.float32).dtype == np.float32
    assert np.log(spectrum).tolist() == np.log([4.0, 1.0]).tolist()
    copy = np.array(spectrum)
    copy[0] = 9.0
    assert spectrum.values[0] == 4.0


@pytest.mark.parametrize("status", ["ok", "flagged"])
def test_nan_is_never_an_estimate(status):
    with pytest.raises(InputError, match="not_fitted"):
        Estimate(math.nan, status=status, reason="?")
    with pytest.raises(InputError, match="both ends"):
        Estimate(1.0, low=0.0)
    with pytest.raises(InputError, match="status"):
        Estimate(1.0, status="good")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="give the lower end first"):
        Estimate(1.0, 3.0, 2.0)
    for odd in (None, "a", 1j, [1.0, 2.0]):
        with pytest.raises(InputError, match="pass one real number"):
            Estimate(odd)
        with pytest.raises(InputError, match="pass one real number"):
            Estimate(1.0, odd, odd)


def test_energies_beyond_float64_are_refused():
    for top in (1e200, 1e-200):
        spectrum = Spectrum([top, top / 2], "singular")
        assert rankme(spectrum) == pytest.approx(rankme(Spectrum([1.0, 0.5], "singular")))
        for reader in (lambda s: s.energies, lambda s: s.trace, hill):
            with pytest.raises(InputError, match="float64 cannot hold its energy"):
                reader(spectrum)
    with pytest.raises(InputError, match="trace"):
        _ = Spectrum([1.7e308, 1.7e308]).trace
    assert Spectrum([1e308, 1.0]).trace == 1e308


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.ma.masked_array(np.eye(3), mask=np.eye(3)), "masked"),
        ([np.ma.masked_array([1.0, 2.0], mask=[True, False]), [1.0, 2.0]], "masked"),
        (scipy.sparse.eye_array(3), "sparse dia_array; pass its toarray"),
        (torch.eye(3).to_sparse(), "sparse tensor of shape .3, 3. .sparse_coo.; pass its to_dense"),
        (torch.eye(3, device="meta"), "meta device"),
        (torch.nn.Linear(2, 2).state_dict(), "an OrderedDict of 2 entries"),
        ((row for row in np.eye(3)), "a generator"),
        ([[1.0, 2.0], [3.0]], "a list that is no array"),
        (np.eye(3) * 1j, "complex128; pass real"),
        ("activations.npy", "'activations.npy'"),
        (None, "None"),
    ],
)
@pytest.mark.parametrize("function", [covariance_spectrum, weight_spectrum, rankme])
def test_what_came_is_named(function, value, named):
    with pytest.raises(InputError, match=named):
        function(value)


def test_a_weight_that_is_not_finite_is_named_and_counted():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[0, 1] = math.nan
    with (
        pytest.raises(InputError, match=r"the weight of module '1' has 1 NaN or Inf of 8"),
        capture_factors(model, ["1"]),
    ):
        model(torch.ones(2, 3))
