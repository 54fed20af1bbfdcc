"""Controllers: multipliers act as learning rates, member by member, and survive a checkpoint bitwise."""

from dataclasses import replace

import pytest
import torch
from trajectories import assert_same_state, trajectory

from toymodel import CheckpointError, ConfigError, Ensemble, train
from toymodel.config import as_dict, run_config
from toymodel.controllers import Controller
from toymodel.data import dataset
from toymodel.feed import INDEX_BLOCK, batch_indices
from toymodel.optim import AdamW, Muon
from toymodel.rates import Rates
from toymodel.transformer import matrices

CHOSEN = {"embed": 0.5, "blocks.0.attn.k": 4.0, "blocks.1.attn.v": 0.25, "blocks.1.mlp.fc": 0.0, "head": 2.0}


class Fixed(Controller):
    """Chooses once, before the first update."""

    def due(self, step):
        return step == 0

    def choose(self, view):
        return {name: m for name, m in CHOSEN.items() if name in self.matrices}


class Norms(Controller):
    """Every third step: the growth of each matrix since the last choice, and how often it has chosen."""

    def __init__(self, rates, sizes, steps):
        super().__init__(rates, sizes, steps)
        self.count, self.before = torch.zeros(()), torch.ones(len(sizes))

    def due(self, step):
        return step % 3 == 0

    def choose(self, view):
        weights = matrices({name: w[None] for name, w in view.weights().items()})
        norms = torch.stack([weights[name].norm() for name in self.matrices])
        growth, self.before, self.count = norms / (self.before + 1), norms, self.count + 1
        values = (growth / (growth + self.count)).tolist()
        return dict(zip(self.matrices, values, strict=True))

    def state_dict(self):
        return {"count": self.count, "before": self.before}

    def load_state_dict(self, state):
        self.count, self.before = state["count"], state["before"]


# Which scores a run names does not matter to the controllers of this file.
OWN = Rates("depth")


def run(configs, controller=Norms):
    return trajectory(Ensemble(configs, controller=controller))


def plain_rates(config, ensemble):
    """The learning rate of every matrix of the first member, written out."""
    hidden = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc", "mlp.proj")
    muon = "muon" if ensemble.transformer.stage.routing.muon else ""
    rates = {}
    for name in matrices(ensemble.params):
        base = 50 * config.lr if muon and name.endswith(hidden) else config.lr
        rates[name] = base * CHOSEN.get(name, 1.0)
    return rates


@pytest.mark.parametrize("stage", ["baseline", "untied"])
def test_multipliers_act_as_learning_rates_of_their_matrices(stage, tiny, double):
    """Against a plain loop with one optimiser for each matrix; baseline is AdamW throughout, untied mostly Muon."""
    config = tiny(stage=stage, rates=OWN, newton_schulz="exact", weight_decay=0.3, lr=1e-2)
    ensemble = Ensemble([config], controller=Fixed)
    rates, routing = plain_rates(config, ensemble), ensemble.transformer.stage.routing
    params = {name: p.detach().clone().requires_grad_() for name, p in ensemble.params.items()}
    tokens = torch.tensor(dataset(config.task).train.tokens).long()
    optimisers = {}
    ensemble.advance(4)
    for step in range(4):
        batch = tokens[torch.from_numpy(batch_indices(config, step // INDEX_BLOCK)[step])][None]
        transformer = ensemble.transformer.at(step, config.steps)
        named = dict(
            zip(
                params,
                torch.autograd.grad(transformer.losses(params, batch).sum(), list(params.values())),
                strict=True,
            )
        )
        for name, matrix in matrices({n: p.detach() for n, p in params.items()}).items():
            grad = matrices(named)[name].reshape(-1)
            theta = matrix.reshape(-1).clone()
            uses_muon = bool(routing.muon) and name.startswith("blocks")
            if name not in optimisers:
                rate, shape = torch.tensor([rates[name]]), tuple(matrix.shape)
                optimisers[name] = (
                    Muon(theta, [(slice(0, theta.numel()), shape)], rate, routing.momentum, 5, "exact")
                    if uses_muon
                    else AdamW(theta, rate.view(()), torch.tensor(0.3), routing.betas, routing.eps)
                )
            optimiser = optimisers[name]
            optimiser.theta = theta
            optimiser.step(grad) if uses_muon else optimiser.step(grad, step + 1)
            matrix.copy_(theta.view_as(matrix))
    ours = matrices({n: p.detach() for n, p in ensemble.params.items()})
    for name, matrix in matrices({n: p.detach() for n, p in params.items()}).items():
        torch.testing.assert_close(ours[name], matrix, rtol=1e-9, atol=1e-12)
    start = Ensemble([config], controller=Fixed).params["blocks.1.mlp.fc"]
    assert torch.equal(ours["blocks.1.mlp.fc"], start)
    unchanged = Ensemble([replace(config, rates=Rates())])
    unchanged.advance(4)
    assert not torch.allclose(unchanged.params["embed"], ensemble.params["embed"])


@pytest.mark.parametrize("stage", ["rope", "muon", "value_embed"])
def test_controlled_members_do_not_depend_on_their_company(stage, tiny):
    base = tiny(stage=stage, rates=OWN)
    configs = [base, replace(base, seed=1, lr=1e-3, weight_decay=0.2), replace(base, seed=2)]
    rows, states = run(configs)
    for config in configs:
        alone_rows, alone = run([config])
        assert repr(alone_rows[config.run_id]) == repr(rows[config.run_id])
        assert_same_state(alone[config.run_id], states[config.run_id])
    multipliers = [states[c.run_id]["multiplier/blocks.0.attn.q"] for c in configs]
    assert len({float(m) for m in multipliers}) == 3


@pytest.mark.parametrize("stop", [0, 4, 8])
def test_a_resumed_controller_continues_exactly(stop, tiny):
    base = tiny(stage="muon", rates=OWN)
    configs = [base, replace(base, seed=1)]
    rows, states = run(configs)
    ensemble = Ensemble(configs, controller=Norms)
    for snapshot in train(ensemble):
        if snapshot.step == stop:
            break
    saved = [ensemble.state(k) for k in range(2)]
    assert float(saved[0]["controller/count"]) == -(-stop // 3)
    resumed = Ensemble.from_states(configs[::-1], saved[::-1], stop, controller=Norms)
    for snapshot in train(resumed):
        for k, config in enumerate(snapshot.configs):
            row = (snapshot.step, snapshot.train_losses[k], snapshot.val_losses[k])
            assert repr(row) in map(repr, rows[config.run_id])
    for k, config in enumerate(configs[::-1]):
        assert_same_state(resumed.state(k), states[config.run_id])


def test_controllers_follow_their_member_when_others_leave(tiny):
    base = tiny(stage="muon", rates=OWN)
    configs = [replace(base, lr=2e38), replace(base, seed=1)]
    rows, states = run(configs)
    alone_rows, alone = run(configs[1:])
    assert len(rows[configs[0].run_id]) == 2
    assert rows[configs[1].run_id][1:] == alone_rows[configs[1].run_id][1:]
    assert_same_state(states[configs[1].run_id], alone[configs[1].run_id])


def test_uniform_is_no_controller(tiny):
    ensemble = Ensemble([tiny(stage="muon")])
    assert ensemble.trainable.controllers == []
    assert ensemble.view(0).rates() == {}
    assert not any(key.startswith(("multiplier", "controller")) for key in ensemble.state(0))


def test_rates_enter_the_identity_unless_they_are_uniform(tiny):
    assert not {"rates", "controller"} & set(as_dict(tiny()))
    controlled = tiny(rates=Rates("farms", map="sigmoid"))
    assert as_dict(controlled)["rates"]["map"] == "sigmoid"
    assert run_config(as_dict(controlled)) == controlled
    assert controlled.run_id != tiny().run_id


def test_rates_need_somebody_who_computes_scores(tiny):
    with pytest.raises(
        ConfigError, match=r"rates.by is 'farms', and toymodel computes no scores.*controller="
    ):
        Ensemble([tiny(rates=Rates("farms"))])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"blocks.0.attn.qkv": 1.0},
            r"'blocks.0.attn.qkv', which is no matrix of the model; the matrices are embed",
        ),
        ({"embed": -0.5}, r"multiplier -0\.5 for embed; it must be a finite number"),
        ({"embed": float("nan")}, "multiplier nan for embed"),
        ({"embed": float("inf")}, "multiplier inf for embed"),
    ],
)
def test_impossible_multipliers_are_refused(chosen, message, tiny, monkeypatch):
    monkeypatch.setattr(Fixed, "choose", lambda self, view: chosen)
    with pytest.raises(ConfigError, match=message):
        Ensemble([tiny(rates=OWN)], controller=Fixed).advance(1)


def test_a_state_without_its_controller_is_refused(tiny):
    plain, controlled = tiny(stage="muon"), tiny(stage="muon", rates=OWN)
    with pytest.raises(CheckpointError, match="multiplier/"):
        Ensemble.from_states([controlled], [Ensemble([plain]).state(0)], 4, controller=Norms)
    with pytest.raises(CheckpointError, match="controller/"):
        Ensemble.from_states([plain], [Ensemble([controlled], controller=Norms).state(0)], 4)
