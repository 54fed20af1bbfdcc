"""Moments of activations by hooks: the same numbers as by hand, and a model that is left as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from spectra import InputError, capture_moments, covariance_spectrum


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def hooks(network):
    return sum(len(m._forward_hooks) for m in network.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_streamed_moments_are_those_of_all_outputs(dtype):
    network = model().to(dtype)
    batches = torch.randn(6, 4, 5).to(dtype).split(2)
    hidden = torch.cat([network[1](network[0](batch)) for batch in batches])
    with capture_moments(network, ["1", "2"]) as moments:
        outputs = [network(batch) for batch in batches]
    assert all(torch.equal(output, network(batch)) for output, batch in zip(outputs, batches, strict=True))
    assert outputs[0].requires_grad
    own = covariance_spectrum(hidden.flatten(0, 1))
    np.testing.assert_allclose(moments["1"].spectrum().values, own.values, rtol=1e-9)
    assert (moments["1"].count, moments["2"].dim) == (24, 3)


def test_rows_choose_what_is_measured():
    network = nn.GRU(5, 4, batch_first=True)
    x = torch.randn(8, 6, 5)
    with capture_moments(network, [""], rows=lambda output: output[0][:, -1]) as moments, torch.no_grad():
        states, _ = network(x)
    assert moments[""].count == 8
    np.testing.assert_allclose(
        moments[""].spectrum().values, covariance_spectrum(states[:, -1]).values, rtol=1e-9, atol=1e-18
    )
    with pytest.raises(InputError, match="gives a tuple"), capture_moments(network, [""]):
        network(x)
    assert hooks(network) == 0


def test_hooks_are_gone_after_an_exception_and_foreign_ones_stay():
    network = model()
    seen = []
    network[0].register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(RuntimeError), capture_moments(network, ["0", "2"]):
        network(torch.ones(2, 9))
    with pytest.raises(InputError, match=r"output of module '0'.*NaN"), capture_moments(network, ["0"]):
        network(torch.full((2, 5), torch.nan))
    assert hooks(network) == 1
    network(torch.ones(2, 5))
    assert len(seen) == 2


def test_refusals_and_modules_that_are_not_called():
    for names in (["nowhere"], []):
        with pytest.raises(InputError, match="no modules"), capture_moments(model(), names):
            pass
    with capture_moments(model(), ["0"]) as moments:
        pass
    with pytest.raises(InputError, match="0 row"):
        moments["0"].spectrum()
