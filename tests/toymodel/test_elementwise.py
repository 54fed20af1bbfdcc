"""Written-out derivatives against autograd's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from toymodel.elementwise import rms_norm, rotate, squared_relu


def angles():
    angle = torch.arange(15, dtype=torch.float64).view(5, 3)
    return angle.cos(), angle.sin()


@pytest.mark.parametrize("transposed", [False, True])
def test_values_and_gradients(transposed):
    x = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (x.transpose(1, 2) if transposed else x.transpose(1, 2).contiguous()).requires_grad_()
    cos, sin = angles()
    first, second = x.chunk(2, -1)
    turned = torch.cat([first * cos - second * sin, first * sin + second * cos], -1)
    torch.testing.assert_close(rotate(x, cos, sin), turned)
    torch.testing.assert_close(rms_norm(x), F.rms_norm(x, (6,)))
    torch.testing.assert_close(squared_relu(x), F.relu(x) ** 2)
    assert gradcheck(rms_norm, x)
    assert gradcheck(squared_relu, x)
    assert gradcheck(lambda y: rotate(y, cos, sin), x)


def test_a_zero_row_stays_zero_with_a_finite_gradient():
    x = torch.zeros(1, 4, requires_grad=True)
    y = rms_norm(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert not y.any()
    assert torch.isfinite(gradient).all()


def test_inputs_are_not_changed():
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    before = x.detach().clone()
    cos, sin = (a[:3] for a in angles())
    for f in (rms_norm, squared_relu, lambda y: rotate(y, cos, sin)):
        g = torch.ones_like(x)
        torch.autograd.grad(f(x), x, g)
        assert torch.equal(x, before)
        assert torch.equal(g, torch.ones_like(x))
