"""Estimators on a CUDA device against the host."""

import numpy as np
import pytest
import torch

from spectra import covariance_spectrum

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("n", [300, 40])
def test_a_covariance_spectrum_equals_the_hosts(n):
    scales = np.arange(1, 65) ** -0.5
    x = (50.0 + np.random.default_rng(8).standard_normal((n, 64))) * scales
    got = covariance_spectrum(torch.tensor(x, device="cuda"))
    np.testing.assert_allclose(got.values, covariance_spectrum(x).values, rtol=1e-9, atol=1e-13)
