"""Second derivatives of every stage, and values and first derivatives that stay what they are."""

import pytest
import torch

from toymodel.derivatives import plainly, twice_differentiable
from toymodel.network import network_of
from toymodel.sizes import Sizes
from toymodel.stages import BESIDE, CHAIN, stage

SIZES = Sizes(vocab=13, length=6, d=8, heads=2, layers=2, mlp=16)


def network(name):
    """Return a network of random weights, its losses of one batch as a function of them, and the weights."""
    transformer = network_of(stage(name), SIZES).at(1, 2)
    generator = torch.Generator().manual_seed(0)
    specs = transformer.specs()
    values = [0.5 * torch.randn(1, *s.shape, generator=generator, dtype=torch.float64) for s in specs]
    sequences = torch.randint(13, (1, 3, 7), generator=generator)
    mask = torch.rand(1, 3, 6, generator=generator) < 0.7

    def loss(values, mask: torch.Tensor | None = mask):
        return transformer.losses(
            {s.name: v for s, v in zip(specs, values, strict=True)}, sequences, mask=mask
        )[0]

    return loss, [v.requires_grad_() for v in values]


@pytest.mark.parametrize("name", [*CHAIN, *BESIDE])
def test_values_and_gradients_stay_and_get_derivatives(name):
    loss, values = network(name)
    for mask in (None, torch.ones(1, 3, 6, dtype=torch.bool)):
        usual = loss(values, mask)
        gradients = torch.autograd.grad(usual, values)
        with twice_differentiable():
            plain = loss(values, mask)
        assert float(plain.detach()) == pytest.approx(float(usual.detach()), rel=1e-12)
        again = torch.autograd.grad(plain, values)
        for one, other in zip(gradients, again, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*CHAIN, *BESIDE])
def test_products_with_the_hessian_are_differences_of_gradients(name):
    loss, values = network(name)
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in values]
    with twice_differentiable():
        slopes = torch.autograd.grad(loss(values), values, create_graph=True)
    along = torch.stack([(s * d).sum() for s, d in zip(slopes, direction, strict=True)]).sum()
    product = torch.autograd.grad(along, values)
    step, ends = 1e-6, []
    for sign in (1, -1):
        moved = [
            (v.detach() + sign * step * d).requires_grad_() for v, d in zip(values, direction, strict=True)
        ]
        ends.append(torch.autograd.grad(loss(moved), moved))
    for exact, above, below in zip(product, *ends, strict=True):
        torch.testing.assert_close(exact, (above - below) / (2 * step), rtol=1e-4, atol=1e-6)


def test_the_usual_derivatives_come_back():
    found = []

    def failing():
        with twice_differentiable():
            found.append(plainly())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert found == [True]
    assert not plainly()
