"""Contract of the toy subject: every stage of the chain can be measured, and what is measured is what it computes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sims.measure.engine import measure
from sims.measure.toy import prepare
from sims.models.transformer import TransformerSubject
from sims.pages.style import colour
from spectra import stacked_gradient_spectrum
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.stages import CHAIN
from toymodel.transformer import matrices

STEP = 4


@pytest.fixture(params=CHAIN)
def trained(request, tiny_run):
    """A run of two layers and its subject while the windows of its 40 steps still open."""
    run = tiny_run()
    config = replace(run, stage=request.param, model=replace(run.model, layers=2), steps=40, lr=0.02)
    ensemble = Ensemble([config])
    ensemble.advance(STEP)
    return config, ensemble, TransformerSubject.of_weights(config, ensemble.weights(0), STEP)


def test_losses_are_those_of_training(trained):
    config, ensemble, subject = trained
    sequences = torch.tensor(dataset(config.task).val.tokens[: config.eval_size])
    torch.testing.assert_close(subject.losses(sequences).mean(), ensemble.evaluate()[0])
    (batch,) = subject.activations(sequences, subject.sites)
    assert list(batch) == ["embed", "blocks.0", "blocks.1", "final"]
    of_states = subject.head_losses(batch["final"][:, -1], sequences[:, -1].long())
    torch.testing.assert_close(of_states, subject.losses(sequences)[:, -1])
    # The short way to the last position gives the same states.
    torch.testing.assert_close(subject.last_states(sequences), batch["final"][:, -1])


def test_gradient_factors_are_autograd_sample_by_sample(trained):
    config, _, subject = trained
    sequences = torch.tensor(dataset(config.task).val.tokens[:4])
    names = [n for n in subject.matrices if "blocks" in n]
    factors = subject.gradient_factors(sequences, names)
    params = {k: p.clone().requires_grad_() for k, p in subject.params.items()}
    stacked = {n: [] for n in names}
    for sequence in sequences:
        loss = subject.transformer.losses(params, sequence[None, None].long()).sum()
        grads = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        for n, g in matrices(grads).items():
            if n in stacked:
                stacked[n].append(g[0].flatten())
    assert len(names) == 12
    for n in names:
        explicit = torch.linalg.svdvals(torch.stack(stacked[n]).double()).numpy()
        got = stacked_gradient_spectrum(factors[n])
        assert (got.n, got.d) == (4, subject.matrices[n].numel())
        np.testing.assert_allclose(got.values, explicit, rtol=1e-4, atol=1e-5 * explicit[0])


def test_a_measurement_is_complete(trained, tiny_measure):
    config, _, subject = trained
    instruments = prepare(tiny_measure(causal_sequences=8), config, dataset(config.task))
    rows = pd.DataFrame(measure(subject, instruments).rows)
    assert rows["value"].notna().all()
    assert (rows["status"] != "not fitted").all()
    weights = rows[rows["object"] == "weight"]
    assert set(weights["site"]) == subject.matrices.keys()
    assert set(rows["object"]) >= {"activation", "gradient", "weight", "probe"}


def test_every_stage_has_a_colour_of_its_own():
    assert len({colour(name) for name in CHAIN}) == len(CHAIN)
