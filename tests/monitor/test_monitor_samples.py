"""Samples that a model mixes, and experts that only some of them reach: named, and never measured as something else."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sims import look
from sims.models.probe import Probe
from sims.monitor import Monitor
from sims.system.errors import MeasureError


class Experts(nn.Module):
    """A top-1 mixture of experts that runs each expert on its own samples alone."""

    def __init__(self, first_pair_together):
        super().__init__()
        self.router = nn.Linear(6, 3)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.head = nn.Linear(6, 3)
        self.together = first_pair_together

    def forward(self, x):
        chosen = self.router(x).argmax(-1)
        if self.together:
            chosen[:2] = 0
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            if (here := chosen == k).any():
                out[here] = expert(x[here])
        return self.head(x + out)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.filterwarnings("ignore:monitor:RuntimeWarning")
def test_experts_cost_their_own_rows_alone(together):
    torch.manual_seed(0)
    x, y = torch.randn(24, 6), torch.randint(3, (24,))
    with Monitor(Experts(together), (x, y), to=None) as monitor:
        pass
    rows = monitor.frame()
    sites = {kind: set(own["site"]) for kind, own in rows.groupby("object")}
    assert sites["activation"] == {"router", "head"}
    assert sites["gradient"] == {"head"} | sites["gradient"] & {"router"}
    assert sites["loss"] == {"validation"}
    assert any("experts.0" in note for note in monitor.notes)
    assert not any("RuntimeError" in note for note in monitor.notes)


class TokenExperts(Experts):
    """The same experts on tokens, which are flattened before the router."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1)).view(*x.shape[:2], -1)


@pytest.mark.filterwarnings("ignore:monitor:RuntimeWarning")
def test_a_note_on_experts_of_tokens_does_not_grow_with_their_number():
    torch.manual_seed(0)
    x, y = torch.randn(24, 15, 6), torch.randint(3, (24, 15))
    with Monitor(TokenExperts(False), (x, y), to=None) as monitor:
        pass
    about = [note for note in monitor.notes if "flattened" in note]
    assert len(about) == 1
    assert all(f"experts.{k}" in about[0] for k in range(3))


class ChosenExperts(nn.Module):
    """The sign of the first number of a token chooses its expert."""

    def __init__(self):
        super().__init__()
        self.own = nn.Linear(6, 6)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        tokens = self.own(x).flatten(0, 1)
        second = x.flatten(0, 1)[:, 0] > 0
        found = torch.empty_like(tokens)
        found[second], found[~second] = self.experts[1](tokens[second]), self.experts[0](tokens[~second])
        return self.head(found.view_as(x))


@pytest.mark.filterwarnings("ignore:monitor:RuntimeWarning")
def test_an_expert_of_as_many_tokens_as_samples_has_no_gradients_of_samples():
    # Tokens of the second expert by sample: 1 in the samples that are tried first, 8 in all 8 samples.
    counts = [1, 1, 3, 3, 0, 0, 0, 0]
    torch.manual_seed(0)
    x, y = torch.randn(8, 4, 6), torch.randint(3, (8, 4))
    x[..., 0] = torch.tensor([[1.0 if t < n else -1.0 for t in range(4)] for n in counts])
    with Monitor(ChosenExperts(), (x, y), to=None) as monitor:
        pass
    rows = monitor.frame()
    for kind in ("activation", "gradient"):
        sites = set(rows.loc[rows["object"] == kind, "site"])
        assert {"own", "head"} <= sites
        assert not any("experts" in site for site in sites)
    assert any("experts.1" in note and "router" in note for note in monitor.notes)


class Recurrent(nn.Module):
    """nn.LSTM takes time on its first axis unless it is told otherwise."""

    def __init__(self, batch_first):
        super().__init__()
        self.cell = nn.LSTM(4, 5, batch_first=batch_first)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0])


@pytest.mark.parametrize("batch_first", [True, False])
def test_samples_that_a_model_mixes_are_told(batch_first):
    torch.manual_seed(0)
    x, y = torch.randn(7, 12, 4), torch.randint(3, (7, 12))
    monitor = Monitor(Recurrent(batch_first), (x, y), to=None)
    monitor.close()
    measured = set(monitor.frame()["object"])
    told = " ".join(monitor.notes)
    assert ("gradient" in measured) == batch_first == ("without batch_first=True" not in told)
    assert ("the states of cell, head change with the other samples" in told) != batch_first
    assert ("change with" in " ".join(look(Recurrent(batch_first), (x, y)).notes)) != batch_first


@pytest.mark.parametrize("noisy", [nn.Dropout(0.5), nn.BatchNorm1d(6), nn.LayerNorm(6), nn.GroupNorm(2, 6)])
def test_layers_that_treat_each_sample_by_itself_are_not_told(noisy):
    model = nn.Sequential(nn.Linear(6, 6), noisy, nn.Linear(6, 3))
    assert Monitor(model, (torch.randn(9, 6), torch.randint(3, (9,))), to=None)._subject.parts.notes == ()


def test_statistics_of_the_batch_are_told():
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3))
    monitor = Monitor(model, (torch.randn(9, 6), torch.randint(3, (9,))), to=None)
    assert any("the states of 2 change with" in note for note in monitor.notes)
    assert "gradient" not in set(monitor.frame()["object"])


class Noisy(nn.Module):
    """Random numbers of its own in each pass, also in eval mode, as of a variational autoencoder."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(F.dropout(x) + torch.randn_like(x))


def test_random_numbers_are_no_dependence_and_stay_as_they_were():
    model, batch = Noisy(), (torch.randn(9, 6), torch.randint(3, (9,)))
    before = torch.get_rng_state()
    monitor = Monitor(model, batch, to=None)
    assert torch.equal(before, torch.get_rng_state())
    assert "gradient" in set(monitor.frame()["object"])


@pytest.mark.parametrize(
    ("y", "word"),
    [
        (torch.tensor([[0.0], [1.0]]).repeat(4, 1), "classes 0 and 1"),
        (torch.full((8, 1), 0.25), ""),
    ],
)
def test_classes_that_are_floats_are_told(y, word):
    monitor = Monitor(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 1)), (torch.randn(8, 6), y), to=None)
    assert [word in note for note in monitor.notes if "targets are floats" in note] == [True] * bool(word)


def test_a_model_of_vectors_alone_is_refused_by_their_names():
    with pytest.raises(MeasureError, match=r"no weight matrix \(not matrices: weight \(one row or column"):
        Monitor(nn.Linear(6, 1), torch.randn(8, 6), to=None)


def test_shares_of_classes_are_told():
    y = torch.rand(8, 3).softmax(-1)
    monitor = Monitor(nn.Sequential(nn.Linear(6, 3)), (torch.randn(8, 6), y), to=None)
    assert any("look like probabilities" in note for note in monitor.notes)


def test_targets_that_do_not_count_have_no_part_in_the_loss():
    """Also where the logits of class 0 are infinite there, as of tokens that are never to come."""

    class Masked(nn.Linear):
        def forward(self, x):
            return super().forward(x).index_fill(-1, torch.tensor([0]), -torch.inf)

    torch.manual_seed(0)
    model, x, y = Masked(6, 4), torch.randn(5, 3, 6), torch.randint(1, 4, (5, 3))
    y[1, 1:] = -100
    probe = Probe((x, y))
    losses = probe.losses(model, probe.part(0, 5, torch.device("cpu")))
    expected = [F.cross_entropy(model(x[i])[y[i] >= 0], y[i][y[i] >= 0]) for i in range(5)]
    torch.testing.assert_close(losses, torch.stack(expected))
    losses.sum().backward()
    assert bool(model.weight.grad.isfinite().all())


def test_states_of_a_layer_with_a_computed_weight_are_those_of_the_layer():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 3))
    rows = Monitor(model, (torch.randn(9, 6), torch.randint(3, (9,))), to=None).frame()
    assert set(rows.loc[rows["object"] == "activation", "site"]) == {"0", "2"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": "100"}, "steps is '100'"),
        ({"steps": -1}, "steps is -1"),
        ({"tokens_per_step": "4"}, "tokens_per_step is '4'"),
        ({"tokens_per_step": 2.5}, "tokens_per_step is 2.5"),
        ({"budget": "0.1"}, "budget is '0.1'"),
        ({"to": {"a": print}}, "to is {'a'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, words):
    with pytest.raises(MeasureError, match=words):
        Monitor(nn.Linear(4, 4), torch.randn(8, 4), **({"to": None} | options))


def test_whole_numbers_of_numpy_and_torch_are_taken(tmp_path):
    settings = {"every": np.int64(1), "steps": torch.tensor(2), "tokens_per_step": np.int32(3)}
    monitor = Monitor(nn.Linear(4, 4), torch.randn(8, 4), to=tmp_path, **settings)
    for _ in range(2):
        monitor.step()
    monitor.close()
    folder = monitor.folder
    assert folder is not None
    assert (folder.outcome["step"], folder.outcome["tokens"]) == (2, 6)
    json.dumps(monitor.state_dict()["plan"])
