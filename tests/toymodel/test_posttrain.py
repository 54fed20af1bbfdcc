"""Post-training: losses against exact gradients, what is possible against the exact law, training that repeats."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.formulas.law import WalkLaw
from toymodel import ModelConfig, ModularArithmetic, RunConfig, TaskConfig
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError
from toymodel.posttrain.config import KINDS, PostTraining
from toymodel.posttrain.continued import as_params, draw_pairs
from toymodel.posttrain.losses import dpo_losses, leave_one_out, masked_mean, reinforce_losses
from toymodel.posttrain.sampling import picked_log_probs, sample_continuations, token_log_probs
from toymodel.posttrain.training import ContinuedWalks, network_at_end, objective, post_train
from toymodel.tasks.modular_walk_laws import possible_walks

TASK = TaskConfig(vocab=13, length=8, train=96, val=16, test=8)
RUN = RunConfig("rope", task=TASK, model=ModelConfig(16, 2, 1), batch_size=8, lr=3e-3, steps=30, eval_size=16)
SMALL = {"steps": 2, "batch_size": 8, "samples": 4, "length": 1, "pairs": 16}


@pytest.fixture(scope="module")
def weights():
    ensemble = Ensemble([RUN])
    ensemble.advance(RUN.steps)
    return ensemble.weights(0)


def gaussian(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.floats(0.01, 5.0))
def test_dpo_is_ln_2_at_the_reference_with_slope_half_beta(seed, beta):
    logs = [x.requires_grad_() for x in gaussian(seed, 2, 4)]
    losses = dpo_losses(logs[0], logs[1], logs[0].detach(), logs[1].detach(), beta)
    torch.testing.assert_close(losses, torch.full((4,), math.log(2)).double())
    right, wrong = torch.autograd.grad(losses.sum(), logs)
    torch.testing.assert_close(right, torch.full((4,), -beta / 2).double())
    torch.testing.assert_close(wrong, -right)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.floats(0.05, 3.0))
def test_the_gradient_of_dpo_is_that_of_finite_differences(seed, beta):
    logits, before = gaussian(seed, 7), gaussian(seed + 1, 7).log_softmax(-1)

    def loss(z):
        own = z.log_softmax(-1)
        return dpo_losses(own[2], own[5], before[2], before[5], beta)

    (slope,) = torch.autograd.grad(loss(logits.requires_grad_()), logits)
    step = 1e-6
    for i, unit in enumerate(torch.eye(7).double()):
        change = (loss(logits.detach() + step * unit) - loss(logits.detach() - step * unit)) / (2 * step)
        assert float(slope[i]) == pytest.approx(float(change), abs=1e-7)
    # Only the difference of the two counts, whatever normalises them.
    assert float(slope.sum()) == pytest.approx(0, abs=1e-12)
    assert float(slope[2]) < 0 < float(slope[5])


def test_what_the_reference_prefers_does_not_change_the_optimum_only_the_distance():
    # A larger beta needs a smaller move for the same loss.
    near, far = (
        dpo_losses(torch.tensor(b), torch.tensor(0.0), torch.tensor(0.0), torch.tensor(0.0), 1 / b)
        for b in (0.5, 4.0)
    )
    torch.testing.assert_close(near, far)


@pytest.mark.parametrize("samples", [2, 3])
def test_the_gradient_of_reinforce_is_unbiased_by_exact_enumeration(samples):
    # Two tokens of a vocabulary of three, every set of samples with its chance.
    logits = gaussian(4, 2, 3).requires_grad_()
    reward = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 1, 0]]).double()
    answers = list(itertools.product(range(3), repeat=2))

    def log_prob(answer):
        own = logits.log_softmax(-1)
        return own[0, answer[0]] + own[1, answer[1]]

    expected_reward = torch.stack([log_prob(a).exp() * reward[a] for a in answers]).sum()
    (exact,) = torch.autograd.grad(-expected_reward, logits)
    mean, biased = torch.zeros_like(logits), torch.zeros_like(logits)
    for drawn in itertools.product(answers, repeat=samples):
        logs, rewards = torch.stack([log_prob(a) for a in drawn]), torch.stack([reward[a] for a in drawn])
        chance = logs.sum().exp().detach()
        mean += chance * torch.autograd.grad(reinforce_losses(logs, rewards), logits, retain_graph=True)[0]
        plain = -((rewards - rewards.mean()) * logs).mean()
        biased += chance * torch.autograd.grad(plain, logits)[0]
    torch.testing.assert_close(mean, exact)
    # With the mean of all as the baseline it is smaller by 1 − 1/S.
    torch.testing.assert_close(biased, exact * (1 - 1 / samples))


@settings(max_examples=50)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=9))
def test_advantages_are_against_the_other_samples(rewards):
    own = torch.tensor(rewards, dtype=torch.float64)
    expected = [r - (sum(rewards) - r) / (len(rewards) - 1) for r in rewards]
    torch.testing.assert_close(leave_one_out(own), torch.tensor(expected, dtype=torch.float64))
    assert not leave_one_out(torch.ones(len(rewards))).any()


def test_means_of_masks():
    assert float(masked_mean(torch.tensor([3.0, math.inf]), torch.tensor([True, False]))) == 3
    assert float(masked_mean(torch.tensor([3.0]), torch.tensor([False]))) == 0


LAWS = st.fixed_dictionaries(
    {
        "vocab": st.integers(6, 14),
        "modulus_min": st.integers(3, 6),
        "step_fraction": st.sampled_from([0.0, 0.125, 0.4]),
        "noncoprime": st.sampled_from([0.0, 0.3, 1.0]),
    }
)


@settings(max_examples=60)
@given(LAWS, st.integers(2, 5), st.integers(0, 10_000))
def test_what_is_possible_is_what_the_exact_law_gives_a_chance(settings_, length, seed):
    task = TaskConfig(length=8, train=64, val=8, test=8, **settings_)
    law, draws = WalkLaw(**settings_), np.random.default_rng(seed)
    walks = dataset(task).train.tokens[:20, :length].astype(int)
    assert possible_walks(task, walks).all()
    changed = walks.copy()
    changed[np.arange(20), draws.integers(0, length, 20)] = draws.integers(0, task.vocab, 20)
    rows = np.concatenate([changed, draws.integers(0, task.vocab, (20, length))])

    def has_chance(row):
        try:
            return bool(np.isfinite(law.losses(row[None])).all())
        except ValueError:
            return False

    # The first token alone has a chance wherever it lies.
    assert possible_walks(task, rows).tolist() == [has_chance(row) for row in rows]


def test_mixtures_and_noise_allow_everything():
    with pytest.raises(ConfigError, match="components_max is 2"):
        possible_walks(TaskConfig(vocab=16, components_max=2), np.zeros((1, 3), int))
    assert possible_walks(TASK, np.arange(13)[:, None]).all()


def test_samples_follow_the_law_of_the_network(weights):
    network, params = network_at_end(RUN), as_params(weights)
    prompts = torch.tensor([[1, 4]])
    found = sample_continuations(network, params, prompts, 4_000, 2, torch.Generator().manual_seed(0))
    assert found.shape == (1, 4_000, 4)
    assert (found[..., :2] == prompts).all()
    with torch.no_grad():
        law = token_log_probs(network, params, torch.tensor([[1, 4, 0]]))[0, -1].exp()
    shares = torch.bincount(found[0, :, 2], minlength=13) / 4_000
    assert ((shares - law).abs() < 5 * (law * (1 - law) / 4_000).sqrt() + 1e-3).all()
    again = sample_continuations(network, params, prompts, 4_000, 2, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


def test_picked_log_probs_are_losses(weights):
    network, params = network_at_end(RUN), as_params(weights)
    sequences = torch.tensor(dataset(TASK).val.tokens).long()
    with torch.no_grad():
        found = picked_log_probs(network, params, sequences)
        torch.testing.assert_close(-found.mean(), network.losses(params, sequences[None])[0])


def test_pairs_have_wrong_tokens_that_no_walk_has(weights):
    network, params = network_at_end(RUN), as_params(weights)
    sequences = torch.tensor(dataset(TASK).train.tokens[:12]).long()
    walks = ContinuedWalks(RUN, TASK)
    pairs = draw_pairs(walks, params, sequences, torch.Generator().manual_seed(1))
    assert (pairs.wrong != sequences[:, 1:]).all()
    assert not pairs.counted[:, 0].any()
    assert pairs.counted.any()
    law = WalkLaw(13)
    for row, t in torch.nonzero(pairs.counted).tolist():
        chances = law.next_tokens(sequences[row : row + 1, : t + 1].numpy())[0]
        assert chances[int(pairs.wrong[row, t])] == 0 < chances[int(sequences[row, t + 1])]
    torch.testing.assert_close(pairs.right_before, picked_log_probs(network, params, sequences).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_and_repeats_to_the_last_bit(kind, weights):
    seen = []
    own = PostTraining(kind, **SMALL)
    one = post_train(RUN, weights, own, (5, 2), lambda t, loss: seen.append((t, loss)))
    two = post_train(RUN, weights, own, (5, 2))
    assert one.keys() == weights.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], weights[name]) for name in one)
    assert [t for t, _ in seen] == [1, 2]
    other = post_train(RUN, weights, PostTraining(kind, **SMALL, seed=1), (5, 2))
    assert any(not torch.equal(one[name], other[name]) for name in one)
    if kind == "dpo":
        assert seen[0][1] == pytest.approx(math.log(2), abs=1e-5)


def test_preferences_and_narrow_data_do_what_they_ask_for(weights):
    more = {"steps": 60, "length": 5, "batch_size": 32, "lr": 2e-3, "pairs": 64}
    dpo, sft = (PostTraining(kind, **more) for kind in ("dpo", "sft"))
    after = {s.kind: post_train(RUN, weights, s, (5, 2)) for s in (dpo, sft)}
    for own in (dpo, sft):
        # Both losses fall on the data of their kind.
        with torch.no_grad():
            before = float(objective(RUN, weights, own, (5, 2))(as_params(weights)))
            later = objective(RUN, weights, own, (5, 2))(as_params(after[own.kind]))
        assert float(later) < before - 0.1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "ppo"}, "choose from plain"),
        ({"samples": 1}, "at least 2 samples"),
        ({"batch_size": 9}, "multiple"),
        ({"lr": 0.0}, "lr is 0"),
        ({"beta": -1.0}, "beta is -1"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"clip": math.nan}, "clip is nan"),
    ],
)
def test_settings_without_meaning_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        PostTraining(**{"kind": "plain", **SMALL, **changes})


@pytest.mark.parametrize(
    ("run", "own", "band", "says"),
    [
        (RUN, {"kind": "sft"}, None, "needs the band"),
        (RUN, {"kind": "sft"}, (12, 8), "does not fit|vocab"),
        (RUN, {"kind": "rlvr", "length": 7}, None, "longer than the 9 tokens"),
        (RunConfig("rope", task=ModularArithmetic()), {"kind": "plain"}, None, "modular_walks only"),
        (RunConfig("rope", task=TaskConfig(noise=1.0)), {"kind": "rlvr"}, None, "noise 1.0"),
    ],
)
def test_runs_that_cannot_go_on_are_refused(run, own, band, says, weights):
    with pytest.raises(ConfigError, match=says):
        post_train(run, weights, PostTraining(**{**SMALL, **own}), band)


def test_a_bad_baseline_is_refused():
    with pytest.raises(ConfigError, match="2 or more"):
        leave_one_out(torch.ones(3, 1))
