"""The defect of two losses: against whole Hessians, by finite steps, and where the published arithmetic is rounding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra import commutator_defect
from spectra.errors import InputError
from spectra.reference import defects as slow


def quadratic(matrix):
    return lambda p: p[0].flatten() @ matrix.to(p[0].dtype) @ p[0].flatten() / 2


def symmetric(size, generator):
    square = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return square + square.T


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(0, 99), st.floats(1e-4, 1e-1))
def test_quadratic_losses(size, seed, rate):
    """D₀ = ‖BAθ − ABθ‖/(‖Aθ‖‖Bθ‖), and steps of any size give the same, since gradients are linear."""
    generator = torch.Generator().manual_seed(seed)
    a, b = symmetric(size, generator), symmetric(size, generator)
    theta = torch.randn(size, generator=generator, dtype=torch.float64)
    found = commutator_defect(quadratic(a), quadratic(b), theta, rate=rate)
    g_a, g_b = a @ theta, b @ theta
    exact = float((b @ g_a - a @ g_b).norm() / g_a.norm() / g_b.norm())
    assert found.exact == pytest.approx(exact, rel=1e-10, abs=1e-13)
    assert found.finite == pytest.approx(exact, rel=1e-6, abs=1e-9)
    assert found.norms == pytest.approx((float(g_a.norm()), float(g_b.norm())))
    assert found.cosine == pytest.approx(float(g_a @ g_b / g_a.norm() / g_b.norm()))
    assert "quadratic range" not in found.reason


def gelu_losses():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(6, 4, generator=generator), torch.randn(3, 6, generator=generator)]
    batches = [
        (torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator))
        for _ in range(2)
    ]

    def loss(x, y):
        def of(parameters):
            hidden = torch.nn.functional.gelu(x.to(parameters[0].dtype) @ parameters[0].T)
            return torch.nn.functional.cross_entropy(hidden @ parameters[1].T, y)

        return of

    return weights, [loss(*batch) for batch in batches]


def test_a_network_by_finite_steps_and_by_whole_hessians():
    weights, losses = gelu_losses()
    found = commutator_defect(*losses, weights, rate=1e-4)
    assert max(found.norms) * 1e-4 < 1e-3
    assert found.finite == pytest.approx(found.exact, rel=0.01)
    flat = torch.cat([w.flatten() for w in weights]).double()

    def of_flat(loss):
        return lambda p: loss([p[0][:24].reshape(6, 4), p[0][24:].reshape(3, 6)])

    assert found.exact == pytest.approx(slow.defect(*(of_flat(loss) for loss in losses), flat), rel=1e-10)


@settings(max_examples=15)
@given(st.integers(0, 99), st.floats(0.01, 100.0))
def test_neither_the_order_nor_the_scale_of_the_losses_matters(seed, factor):
    generator = torch.Generator().manual_seed(seed)
    a, b = symmetric(4, generator), symmetric(4, generator)
    theta = torch.randn(4, generator=generator, dtype=torch.float64)
    one = commutator_defect(quadratic(a), quadratic(b), theta)
    for losses in ((b, a), (factor * a, b), (factor * a, factor * b)):
        found = commutator_defect(*(quadratic(matrix) for matrix in losses), theta)
        assert found.exact == pytest.approx(one.exact, rel=1e-10)
    # The defect is an inverse length: of the point and its steps twice as far away, half.
    far = commutator_defect(quadratic(a), quadratic(b), 2 * theta)
    assert far.exact == pytest.approx(one.exact / 2, rel=1e-10)


def test_positions_in_float32_measure_rounding_where_gradients_are_small():
    """Numbers θ near 1 and ‖g‖ = 0.07: steps of 1e-4 are a few spacings long, those of 1e-7 vanish."""
    generator = torch.Generator().manual_seed(0)
    a, b = symmetric(200, generator) / 30, symmetric(200, generator) / 30
    theta = 1 + torch.rand(200, generator=generator, dtype=torch.float64)
    centre = theta - 0.1 * torch.randn(200, generator=generator, dtype=torch.float64) / math.sqrt(200)

    def near(matrix):
        return lambda p: quadratic(matrix)([p[0] - centre.to(p[0].dtype)])

    found, lost = (commutator_defect(near(a), near(b), theta, rate=rate) for rate in (1e-4, 1e-7))
    assert (found.status, lost.status, lost.published) == ("flagged", "flagged", 0.0)
    assert "rounding" in found.reason
    assert found.published > 20 * found.exact
    assert found.finite == pytest.approx(found.exact, rel=1e-6)
    # Large steps of the same losses are measured by all three.
    plain = commutator_defect(quadratic(a), quadratic(b), 100 * theta, rate=0.1)
    assert (plain.status, plain.published) == ("ok", pytest.approx(plain.exact, rel=0.01))


def test_steps_across_a_kink_are_flagged():
    def kinked(p):
        return torch.relu(p[0] - 1.0).square().sum() + p[0].square().sum() + p[0][0] * p[0][1]

    found = commutator_defect(
        kinked, lambda p: p[0] ** 2 @ torch.tensor([1.0, 3.0]).to(p[0]), torch.tensor([1.2, 1.1]), rate=0.2
    )
    assert "kinks" in found.reason


def test_losses_that_commute_have_no_defect_and_no_flag_for_their_rounding():
    diagonal = [
        torch.diag(torch.tensor(values, dtype=torch.float64)) for values in ([1.0, 2.0, 3.0], [0.3, 0.7, 0.1])
    ]
    turn = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )[0]
    a, b = (turn @ d @ turn.T for d in diagonal)
    found = commutator_defect(quadratic(a), quadratic(b), torch.tensor([1.0, 2.0, 3.0]))
    assert found.exact < 1e-14
    assert "kinks" not in found.reason
    linear = commutator_defect(quadratic(a), lambda p: p[0].sum(), torch.tensor([1.0, 2.0, 3.0]))
    assert linear.exact > 0
    assert linear.finite == pytest.approx(linear.exact)


def test_the_parameters_are_not_changed_and_need_no_gradient():
    weights, losses = gelu_losses()
    before = [w.clone() for w in weights]
    with torch.no_grad():
        found = commutator_defect(*losses, weights)
    with torch.inference_mode():
        assert commutator_defect(*losses, [w.double() for w in weights]).exact == found.exact
    assert found.exact > 0
    assert all(torch.equal(w, kept) and w.grad is None for w, kept in zip(weights, before, strict=True))


ONES = torch.ones(2)
SQUARE = quadratic(torch.eye(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: commutator_defect(SQUARE, SQUARE, ONES, rate=0.0), "rate is 0"),
        (lambda: commutator_defect(SQUARE, lambda p: torch.tensor(1.0), ONES), "the second loss returned"),
        (lambda: commutator_defect(lambda p: p[0], SQUARE, ONES), "the first loss returned"),
        (lambda: commutator_defect(lambda p: 0 * p[0].sum(), SQUARE, ONES), "gradient of the first loss is zero"),
        (lambda: commutator_defect(lambda p: (p[0] - 2).log().sum(), SQUARE, 2 * ONES), "NaN or Inf"),
        (lambda: commutator_defect(SQUARE, SQUARE, []), "no entries"),
        (lambda: commutator_defect(SQUARE, SQUARE, {"w": ONES}), "a list of them"),
        (lambda: commutator_defect(SQUARE, SQUARE, np.array([1.0, np.nan])), "parameter 0 has NaN"),
    ],
)  # fmt: skip
def test_what_has_no_defect_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.slow
def test_a_network_after_a_thousand_steps_of_modular_addition():
    """The published arithmetic is rounding (η = 1e-3, batches of 512) once the training loss is small."""
    torch.manual_seed(0)
    p, width = 47, 64
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    train = pairs[torch.randperm(p * p)[: p * p // 2]]
    module = torch.nn.ModuleDict(
        {
            "tokens": torch.nn.Embedding(p, width),
            "body": torch.nn.Sequential(
                *(
                    torch.nn.Linear(2 * width, 128),
                    torch.nn.ReLU(),
                    torch.nn.Linear(128, 64),
                    torch.nn.ReLU(),
                ),
                torch.nn.Linear(64, p),
            ),
        }
    )
    names = [name for name, _ in module.named_parameters()]

    def loss(batch):
        def of(parameters):
            own = dict(zip(names, parameters, strict=True))
            body = {name.removeprefix("body."): own[name] for name in names if name.startswith("body.")}
            states = own["tokens.weight"][batch].flatten(1)
            logits = torch.func.functional_call(module["body"], body, states)
            return torch.nn.functional.cross_entropy(logits, batch.sum(1) % p)

        return of

    def drawn():
        return train[torch.randint(len(train), (512,))]

    weights = list(module.parameters())
    optimiser = torch.optim.AdamW(weights, lr=3e-3, weight_decay=1.0, betas=(0.9, 0.98))
    for _ in range(1000):
        optimiser.zero_grad()
        loss(drawn())(weights).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
    found = [commutator_defect(loss(drawn()), loss(drawn()), weights) for _ in range(5)]
    assert all("rounding" in one.reason for one in found)
    # The median of five pairs, as published.
    assert np.median([one.published for one in found]) > 20 * np.median([one.exact for one in found])
