"""torch.compile keeps derivatives: gradients of compiled code against those of eager code, parameter by parameter.

The back end is ``aot_eager``: it takes the code apart as every back end does, derivatives included, and generates none.
"""

import importlib
import math
import pkgutil

import pytest
import torch

import sims
import spectra
import toymodel
from toymodel.cross_entropy import _HeadCrossEntropy, head_cross_entropy
from toymodel.elementwise import (
    _Blend,
    _RmsNorm,
    _Rotate,
    _SquaredRelu,
    blend,
    rms_norm,
    rotate,
    squared_relu,
)
from toymodel.stages import CHAIN, stage
from toymodel.transformer import Transformer

pytestmark = pytest.mark.usefixtures("compiled_anew")

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def _normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _rotate(x):
    angles = torch.arange(12, dtype=x.dtype).view(4, 3)
    return rotate(x, angles.cos(), angles.sin())


def _blend(x):
    return blend(x[:, 0, :2], x, x.flip(1))


def _losses(x, **more):
    targets = torch.arange(8).view(2, 4) % 5
    return head_cross_entropy(x, x.cos().repeat(1, 2, 1)[:, :5], targets, **more)


def _capped_losses(x):
    return _losses(x, cap=3.0)


def _biased_losses(x):
    return _losses(x, cap=3.0, bias=x.sin().repeat(1, 2, 1)[:, :5, 0])


def _masked_losses(x):
    return _losses(x, mask=torch.arange(8).view(2, 4) % 3 > 0)


# For every derivative of our own, functions of x (2, 4, 6) that use it as the model does.
CASES = {
    _RmsNorm: [rms_norm],
    _SquaredRelu: [squared_relu],
    _Rotate: [_rotate],
    _Blend: [_blend],
    _HeadCrossEntropy: [_losses, _capped_losses, _masked_losses, _biased_losses],
}


def _derivatives_of_our_own():
    """Return all subclasses of autograd.Function that our packages define."""
    for package in (spectra, toymodel, sims):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, waiting = set(), [torch.autograd.Function]
    while waiting:
        waiting += (children := waiting.pop().__subclasses__())
        found |= {
            c for c in children if c.__module__.split(".")[0] in ("spectra", "toymodel", "theory", "sims")
        }
    return found


def test_every_derivative_of_our_own_has_a_case():
    assert _derivatives_of_our_own() == set(CASES)


def assert_same_gradients(function, inputs, dtype):
    """Compare value and gradients, to half of the digits: a compiler rounds elsewhere, and sums that cancel show it."""
    tolerance = math.sqrt(torch.finfo(dtype).eps)
    results = []
    for run in (function, torch.compile(function, backend="aot_eager", fullgraph=True)):
        own = [x.detach().clone().requires_grad_() for x in inputs]
        value = run(*own)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), own)))
    for eager, compiled in zip(*results, strict=True):
        assert eager.norm() > 0
        error = (compiled.double() - eager.double()).norm() / eager.double().norm()
        assert error < tolerance


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "function", [f for cases in CASES.values() for f in cases], ids=lambda f: f.__name__.strip("_")
)
def test_derivatives_of_our_own_survive_the_compiler(function, dtype):
    # Something before, whose gradient passes through the derivative, and something after, that is not a plain sum.
    def around(matrix, x):
        return function(torch.matmul(x, matrix)).square()

    assert_same_gradients(around, [_normal(6, 6).to(dtype), _normal(2, 4, 6, seed=1).to(dtype)], dtype)


# The stages of the paper in float32, and the last one, which has the parts of all; the first one in every dtype.
# The others with -m slow: every derivative of our own is compiled above in every dtype.
STAGES_AND_DTYPES = [
    pytest.param(
        name,
        dtype,
        marks=[] if dtype == torch.float32 and name in ("untied", "attn_scale") else pytest.mark.slow,
        id=f"{name}-{dtype}",
    )
    for name in CHAIN
    for dtype in DTYPES
]


@pytest.mark.parametrize(("name", "dtype"), STAGES_AND_DTYPES)
def test_losses_of_every_stage_have_the_same_gradients_compiled(name, dtype, tiny):
    # At 6 % of the steps the opening window shows 4 positions.
    transformer = Transformer(stage(name), tiny().sizes, 0.06)
    # Half precision is that of autocast, whose parameters are in float32.
    half = dtype == torch.bfloat16
    own = torch.float32 if half else dtype
    params = {
        s.name: (_normal(2, *s.shape, seed=i) / math.sqrt(s.shape[-1])).to(own)
        for i, s in enumerate(transformer.specs())
    }
    sequences = torch.randint(23, (2, 3, 10), generator=torch.Generator().manual_seed(1))

    def losses(*values):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return transformer.losses(dict(zip(params, values, strict=True)), sequences)

    assert_same_gradients(losses, list(params.values()), dtype)
