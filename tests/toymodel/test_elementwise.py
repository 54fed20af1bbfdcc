"""Written-out derivatives against autograd's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from toymodel.elementwise import blend, rms_norm, rotate, squared_relu


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


@pytest.mark.parametrize("transposed", [False, True])
def test_a_blend_weighs_two_tensors_member_by_member(transposed):
    generator = torch.Generator().manual_seed(2)
    x, z = (torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    x = (x.transpose(1, 2) if transposed else x.transpose(1, 2).contiguous()).requires_grad_()
    z = z.transpose(1, 2).requires_grad_()
    weights = torch.randn(2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    plain = torch.stack([w[0] * a + w[1] * b for w, a, b in zip(weights, x, z, strict=True)])
    torch.testing.assert_close(blend(weights, x, z), plain)
    assert gradcheck(blend, (weights, x, z))
    assert gradcheck(lambda w, y: blend(w, y, y), (weights, x))


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
