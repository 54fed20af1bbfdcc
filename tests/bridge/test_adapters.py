"""The contract of `sims.models.subject.Subject`, over every adapter that needs no further package."""

from functools import partial

import pytest
import torch
from contract import CHECKS, Case
from formats import (
    CHAIN,
    HEADS,
    LAYERS,
    gradients,
    modded_logits,
    modded_state,
    nanogpt_checkpoint,
    nanogpt_logits,
    nanogpt_state,
)
from formats import sequences as drawn

from sims.models import transformer
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import load
from sims.models.transformer import TransformerSubject
from toymodel import TaskConfig
from toymodel.config import ModelConfig, RunConfig
from toymodel.ensemble import Ensemble
from toymodel.transformer import Transformer, matrices


def of_state(subject, state, logits, tied):
    """The case of a state and the plain forward pass of its format."""
    return Case(
        subject,
        drawn(),
        lambda tokens: logits(state, tokens),
        lambda sequence: gradients(logits, state, sequence),
        LAYERS,
        tied,
    )


def nanogpt(folder, bias=True):
    path = folder / "ckpt.pt"
    torch.save(nanogpt_checkpoint(bias), path)
    return of_state(load(path), nanogpt_state(bias), nanogpt_logits, tied=True)


def modded(folder, stage):
    state = modded_state(stage)
    path = folder / "state_step000250.pt"
    torch.save({"step": 250, "code": "", "model": state, "optimizers": []}, path)
    tied = stage not in ("untied", "value_mix", "unet")
    return of_state(load(path, CheckpointOptions(heads=HEADS)), state, partial(modded_logits, stage), tied)


def toy(folder, stage="untied"):
    config = RunConfig(
        stage=stage,
        task=TaskConfig(vocab=24, length=8, train=400, val=64, test=8),
        model=ModelConfig(d_model=16, heads=2, layers=2),
        batch_size=8,
        lr=0.02,
        steps=4,
        eval_size=16,
    )
    ensemble = Ensemble([config])
    ensemble.advance(4)
    subject = TransformerSubject.of_weights(config, ensemble.weights(0), 4)
    model, params = subject.transformer, subject.params

    def logits(tokens):
        return model.logits(params, model.hidden(params, tokens[None]))[0]

    def by_autograd(sequence):
        leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
        model.losses(leaves, sequence[None]).sum().backward()
        return {n: g[0] for n, g in matrices({n: p.grad for n, p in leaves.items()}).items()}

    return Case(subject, drawn(vocab=24), logits, by_autograd, 2, tied="head" not in params)


MAKERS = {
    "toy": toy,
    "toy with positions": lambda folder: toy(folder, "baseline"),
    "toy with tables of values": lambda folder: toy(folder, "value_embed"),
    "nanoGPT": nanogpt,
    "nanoGPT without biases": lambda folder: nanogpt(folder, bias=False),
    **{f"modded {stage}": lambda folder, stage=stage: modded(folder, stage) for stage in CHAIN},
}


@pytest.fixture(scope="module", params=MAKERS)
def case(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("case"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(case, check):
    check(case)


def test_logits_of_the_toy_exist_for_a_few_sequences_at_once(tmp_path, monkeypatch):
    subject, tokens = toy(tmp_path).subject, drawn(vocab=24)
    losses, log_probs = subject.losses(tokens), subject.log_probs(tokens)
    positions, sizes = tokens.shape[1] - 1, []
    logits = Transformer.logits
    monkeypatch.setattr(transformer, "LOGITS", 2 * positions * 24)
    monkeypatch.setattr(
        Transformer, "logits", lambda self, params, h: sizes.append(h.shape[1]) or logits(self, params, h)
    )
    torch.testing.assert_close(subject.losses(tokens), losses)
    torch.testing.assert_close(subject.log_probs(tokens), log_probs)
    assert sizes == [2, 2, 2] * 2
