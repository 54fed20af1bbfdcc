"""A learned bias of the logits: what it changes and leaves alone, and that all that reads a head knows it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from training_runs import after, arguments, last_weights, learner_of, make_shards, run_of, same, small_config

from sims import cli
from sims.analysis.intercept import intercepts
from sims.analysis.runs import load as load_runs
from sims.models.checkpoints import load
from sims.models.transformer import TransformerSubject
from sims.runs.lm_config import lm_config
from sims.runs.store import run_folders
from sims.training.memory import step_memory
from toymodel.config import as_dict
from toymodel.cross_entropy import CHUNK, head_cross_entropy
from toymodel.derivatives import twice_differentiable
from toymodel.trainable import Trainable
from toymodel.transformer import LOGIT_BIAS


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("lm") / "shards")


def biased(stage="untied", **given):
    return small_config(stage, logit_bias=True, **given)


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("cap", [None, 15.0])
@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_and_its_gradients_are_those_of_torch(cap, masked):
    n = CHUNK + 3
    parts = [p.requires_grad_() for p in (normal(2, n, 6), normal(2, 11, 6, seed=1), normal(2, 11, seed=2))]
    hidden, weight, bias = parts
    targets = torch.randint(11, (2, n), generator=torch.Generator().manual_seed(3))
    mask = torch.rand(2, n, generator=torch.Generator().manual_seed(4)) < 0.5 if masked else None
    ours = head_cross_entropy(hidden, weight, targets, cap, mask, bias)
    logits = hidden @ weight.transpose(1, 2) + bias[:, None]
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, n)
    theirs = each.mean(1) if mask is None else (each * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(ours, theirs)
    scale = torch.tensor([1.0, -2.5], dtype=torch.float64)
    found, expected = (torch.autograd.grad((loss * scale).sum(), parts) for loss in (ours, theirs))
    torch.testing.assert_close(found, expected)
    with twice_differentiable():
        torch.testing.assert_close(head_cross_entropy(hidden, weight, targets, cap, mask, bias), ours)


def test_a_frozen_hidden_state_and_head_leave_the_gradient_of_the_bias():
    targets = torch.tensor([[0, 0, 2]])
    bias = torch.zeros(1, 4, requires_grad=True)
    loss = head_cross_entropy(torch.ones(1, 3, 2), torch.zeros(1, 4, 2), targets, bias=bias)
    (grad,) = torch.autograd.grad(loss.sum(), bias)
    # Chances less the frequencies of the targets.
    torch.testing.assert_close(grad, torch.tensor([[0.25 - 2 / 3, 0.25, 0.25 - 1 / 3, 0.25]]))


def test_run_ids_without_a_bias_stay_and_with_one_differ():
    plain = small_config()
    assert "logit_bias" not in as_dict(plain)
    assert biased().run_id != plain.run_id
    assert lm_config(as_dict(biased())) == biased()


@pytest.mark.parametrize("stage", ["baseline", "untied", "softcap"])
def test_a_bias_starts_without_effect_and_adds_one_vector(stage, shards):
    ways = [learner_of(config, shards) for config in (small_config(stage), biased(stage))]
    (before, with_bias), losses = ways, [learner.gradients() for learner in ways]
    assert losses[0] == losses[1]
    grads = [
        {name: value.grad for name, value in zip(way.model.names, way.model.values, strict=True)}
        for way in ways
    ]
    assert grads[1].keys() - grads[0].keys() == {LOGIT_BIAS}
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])
    assert grads[1][LOGIT_BIAS].abs().max() > 1e-3
    more = with_bias.transformer.parameter_count() - before.transformer.parameter_count()
    assert more == with_bias.config.sizes.vocab


@pytest.mark.parametrize("stage", ["baseline", "untied", "softcap"])
def test_losses_states_and_probabilities_of_a_subject_have_the_bias(stage, shards):
    learner = learner_of(biased(stage), shards)
    weights = {name: p + 0.1 * torch.randn(p.shape) for name, p in learner.weights().items()}
    subject = TransformerSubject.of_weights(learner.config, weights, 3)
    sequences = learner.corpus.val.take(range(6))
    losses = subject.losses(sequences)
    of_training = subject.transformer.losses(subject.params, sequences[None])
    torch.testing.assert_close(losses.mean(), of_training[0])
    torch.testing.assert_close(
        subject.head_losses(subject.last_states(sequences), sequences[:, -1]), losses[:, -1]
    )
    log_p = subject.log_probs(sequences).gather(2, sequences[:, 1:, None])[..., 0]
    torch.testing.assert_close(-log_p, losses)
    assert LOGIT_BIAS not in subject.matrices
    if stage != "softcap":
        assert subject.without_blocks([0]).losses(sequences).isfinite().all()
    unbiased = replace(subject, params={**subject.params, LOGIT_BIAS: torch.zeros(1, len(subject.head))})
    assert (unbiased.losses(sequences) - losses).abs().max() > 0.01


def test_the_bias_does_not_decay():
    config = biased("muon", weight_decay=0.5)
    trainable = Trainable(config.transformer(), torch.tensor([0.1]), [config.weight_decay], "float32")
    trainable.initialise([0])
    with torch.no_grad():
        trainable.params[LOGIT_BIAS].fill_(2.0)
    before = trainable.weights([0])[0]
    nothing = (torch.zeros_like(trainable.adamw_bank.vector), torch.zeros_like(trainable.muon_bank.vector))
    trainable.step(nothing, 1)
    after_step = trainable.weights([0])[0]
    assert torch.equal(after_step[LOGIT_BIAS], before[LOGIT_BIAS])
    torch.testing.assert_close(after_step["embed"], 0.95 * before["embed"])
    shares = trainable.decay_of(0)
    assert float(shares[LOGIT_BIAS].abs().max()) == 0.0
    assert float(shares["embed"].mean()) == pytest.approx(0.05)


def test_in_half_precision_the_bias_is_added_in_full(shards):
    learner = learner_of(biased(precision="bfloat16"), shards)
    with torch.no_grad():
        learner.trainable.params[LOGIT_BIAS].copy_(1.0 + 1e-4 * torch.arange(128.0))
    loss = learner.gradients()
    # The head is 0 at the start: the logits are the bias alone, which bfloat16 would round to 1.
    targets = learner.corpus.batch(0, learner.config.batch_size, slice(None))[:, 1:].flatten()
    expected = F.cross_entropy((1.0 + 1e-4 * torch.arange(128.0)).expand(len(targets), -1), targets)
    assert loss == pytest.approx(float(expected), abs=1e-6)


def test_memory_counts_the_bias_its_gradient_and_its_moments():
    config = small_config("rope", length=32)
    plain, more = (step_memory(replace(config, logit_bias=b), 8, False).resident for b in (False, True))
    # And the factor of its learning rate.
    assert more - plain == 4 * (4 * config.sizes.vocab + 1)


def test_a_stopped_run_goes_on_to_the_same_bits_and_its_checkpoints_are_read(shards, tmp_path):
    whole = run_of(biased("rope"), shards, tmp_path / "whole")
    assert whole.go() == "finished"
    parts = run_of(biased("rope"), shards, tmp_path / "parts", stopped=after(4))
    assert parts.go() == "stopped"
    assert run_of(biased("rope"), shards, tmp_path / "parts").go() == "finished"
    (_, one), (_, other) = (last_weights(run.folder, run.config) for run in (whole, parts))
    assert same(one, other)
    assert one[LOGIT_BIAS].abs().max() > 0
    subject = load(whole.folder.checkpoints()[-1])
    val = whole.setup.corpus(whole.config).val
    rows = whole.folder.rows().query("quantity == 'val_loss'").sort_values("step")
    sequences = val.take(range(20))
    assert float(subject.losses(sequences).mean()) == pytest.approx(rows["value"].iloc[-1], rel=1e-5)


@pytest.mark.slow
def test_the_command_trains_and_measures_runs_with_a_bias_beside_those_without(shards, tmp_path):
    measuring = ("--measure", "--measuring.tokens", "512", "--measuring.batch", "128")
    for more in ((), ("--logit-bias", *measuring)):
        assert cli.main(arguments(shards, tmp_path / "out", "--stage", "rope", *more)) == 0
    folders = {
        as_dict(folder.spec).get("logit_bias", False): folder for folder in run_folders(tmp_path / "out")
    }
    assert set(folders) == {False, True}
    rows = folders[True].rows()
    assert (rows.query("quantity == 'rankme' and object == 'activation'")["status"] == "ok").any()
    # Measured again from its checkpoints it is still known to have a bias.
    for folder in folders.values():
        again = [
            "measure",
            str(folder.path),
            "--data",
            str(shards),
            "--out",
            str(tmp_path / "again"),
            "--families",
        ]
        again += [
            "--tokens",
            "512",
            "--batch",
            "128",
            "--gradient-sequences",
            "0",
            "--geometry",
            "--device",
            "cpu",
        ]
        assert cli.main(again) == 0
    found = intercepts(load_runs(tmp_path / "again"))
    assert found.runs.groupby("logit_bias")["run_id"].nunique().tolist() == [1, 1]
    assert {v.outcome for v in found.verdicts["rope", 8]} == {"not resolved"}
