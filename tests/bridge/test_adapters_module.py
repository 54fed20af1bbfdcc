"""Any module as a subject, by naming its sites."""

import pytest
import torch
from formats import VOCAB, WIDTH
from formats import sequences as drawn
from torch import nn

from sims.models import module
from sims.models.layout import Layout, Projection
from sims.models.module import ModuleSubject
from sims.system.errors import MeasureError


class Foreign(nn.Module):
    """Somebody's model: blocks of torch's own, a head with a bias, dropout, bfloat16 or not."""

    def __init__(self, tied=False):
        super().__init__()
        self.table = nn.Embedding(VOCAB, WIDTH)
        self.first, self.second = (
            nn.Sequential(nn.Linear(WIDTH, 24), nn.Tanh(), nn.Linear(24, WIDTH)) for _ in "ab"
        )
        self.drop = nn.Dropout(0.5)
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, VOCAB)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, tokens):
        x = self.drop(self.table(tokens))
        x = x + self.first(x).cumsum(1)
        return self.out(self.norm(x + self.second(x)))


FOREIGN = Layout(
    sites={"embed": "drop", "middle": "first", "final": "norm"},
    matrices={"embed": Projection("table"), "up": Projection("first.0"), "down": Projection("second.2")},
    head="out",
)


def test_any_module_by_naming_its_sites():
    torch.manual_seed(0)
    model = Foreign().train()
    subject = ModuleSubject.of(model, FOREIGN, step=3)
    assert (subject.step, subject.tokens, subject.sites) == (3, None, ("embed", "middle", "final"))
    # The model is as it was; what is measured has no dropout.
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    model.eval()
    batch = drawn()
    expected = nn.functional.cross_entropy(
        model(batch[:, :-1]).transpose(1, 2), batch[:, 1:], reduction="none"
    )
    torch.testing.assert_close(subject.losses(batch), expected.detach())
    factors = subject.gradient_factors(batch, ["up", "down"])
    for m, sequence in enumerate(batch):
        model.zero_grad()
        nn.functional.cross_entropy(model(sequence[None, :-1])[0], sequence[1:]).backward()
        for name, parameter in (("up", model.first[0].weight), ("down", model.second[2].weight)):
            own = torch.einsum("to,ti->oi", factors[name].d[m], factors[name].a[m])
            torch.testing.assert_close(own, parameter.grad, atol=1e-6, rtol=1e-4)
    assert sum(len(m._forward_hooks) for m in model.modules()) == 0


def test_a_tied_weight_changes_in_both_places():
    torch.manual_seed(0)
    subject = ModuleSubject.of(Foreign(tied=True), FOREIGN, step=0)
    changed = subject.with_matrix("embed", torch.zeros(VOCAB, WIDTH))
    assert not changed.head.any()
    assert subject.head.any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"head": "nowhere"}, "no modules nowhere"),
        ({"head": "norm"}, "must be an nn.Linear"),
        ({"sites": {"embed": "drop"}}, "names the site 'final'"),
        ({"matrices": {"up": Projection("first.0")}}, "the matrix 'embed'"),
        ({"matrices": {"embed": Projection("norm")}}, "no 2-D weight"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(change, says):
    layout = Layout(**{"sites": FOREIGN.sites, "matrices": FOREIGN.matrices, "head": "out", **change})
    with pytest.raises(MeasureError, match=says):
        ModuleSubject.of(Foreign(), layout, step=0)


def test_how_much_goes_through_at_once_does_not_matter(monkeypatch):
    torch.manual_seed(0)
    subject = ModuleSubject.of(Foreign(), FOREIGN, step=0)
    losses, states = subject.losses(drawn(n=7)), subject.last_states(drawn(n=7))
    monkeypatch.setattr(module, "BATCH_POSITIONS", 25)
    monkeypatch.setattr(module, "HEAD_ROWS", 5)
    assert [len(batch["final"]) for batch in subject.activations(drawn(n=7), ("final",))] == [2, 2, 2, 1]
    torch.testing.assert_close(subject.losses(drawn(n=7)), losses)
    torch.testing.assert_close(subject.last_states(drawn(n=7)), states)


def test_data_that_are_not_for_this_model_are_refused():
    layout = Layout(FOREIGN.sites, FOREIGN.matrices, "out", length=6)
    subject = ModuleSubject.of(Foreign(), layout, step=0)
    for wrong, says in (
        (drawn(length=5, vocab=40), "of another vocabulary"),
        (drawn(length=9), "longer than the 6 positions"),
        (drawn(length=1), "must be"),
        (torch.rand(3, 5), "integers"),
    ):
        with pytest.raises(MeasureError, match=says):
            subject.losses(wrong)


def test_modules_whose_output_is_not_the_site_are_refused():
    class Again(Foreign):
        def forward(self, tokens):
            return super().forward(tokens) + self.out(self.norm(self.table(tokens)))

    class Skips(Foreign):
        def forward(self, tokens):
            return self.out(self.norm(self.table(tokens)))

    class Overwrites(Foreign):
        def forward(self, tokens):
            x = self.drop(self.table(tokens))
            x += self.first(x)
            return self.out(self.norm(x))

    with pytest.raises(MeasureError, match="overwrites the outputs at embed in place"):
        list(ModuleSubject.of(Overwrites(), FOREIGN, step=0).activations(drawn(), ("embed", "final")))
    with pytest.raises(MeasureError, match="final is called twice"):
        ModuleSubject.of(Again(), FOREIGN, step=0).losses(drawn())
    subject = ModuleSubject.of(Skips(), FOREIGN, step=0)
    with pytest.raises(MeasureError, match="middle are not called"):
        list(subject.activations(drawn(), ("middle",)))
    assert sum(len(m._forward_hooks) for m in subject.model.modules()) == 0


def test_log_probs_are_the_same_in_small_batches(monkeypatch):
    torch.manual_seed(0)
    subject = ModuleSubject.of(Foreign(), FOREIGN, step=0)
    whole = subject.log_probs(drawn(n=7))
    expected = subject.model(drawn(n=7)[:, :-1]).log_softmax(-1)
    torch.testing.assert_close(whole, expected)
    monkeypatch.setattr(module, "BATCH_POSITIONS", 25)
    monkeypatch.setattr(module, "HEAD_ROWS", 5)
    torch.testing.assert_close(subject.log_probs(drawn(n=7)), whole)


def test_inputs_of_matrices_are_activations():
    torch.manual_seed(0)
    subject = ModuleSubject.of(Foreign(), FOREIGN, step=0)
    assert dict(subject.input_sites) == {"up": "up.in", "down": "down.in"}
    (seen,) = subject.activations(drawn(), ("up.in", "middle", "embed"))
    assert torch.equal(seen["up.in"], seen["embed"])
    hidden = torch.tanh(seen["up.in"] @ subject.matrices["up"].T + subject.model.first[0].bias)
    torch.testing.assert_close(subject.model.first[2](hidden), seen["middle"])


def test_matrices_of_one_input_site_that_read_different_inputs_are_refused():
    matrices = {
        "embed": Projection("table"),
        "attn.q": Projection("first.0"),
        "attn.k": Projection("second.0"),
    }
    subject = ModuleSubject.of(Foreign(), Layout(FOREIGN.sites, matrices, "out"), step=0)
    assert subject.input_sites["attn.q"] == subject.input_sites["attn.k"] == "attn.in"
    with pytest.raises(
        MeasureError, match=r"second.0 does not read what the other matrices of the site attn.in"
    ):
        list(subject.activations(drawn(), ("attn.in",)))
    assert sum(len(m._forward_hooks) for m in subject.model.modules()) == 0


def test_a_matrix_that_does_not_read_every_position_has_no_input_activation():
    class Pooled(Foreign):
        def forward(self, tokens):
            x = self.table(tokens)
            x = x + self.first(x) + self.second(x.mean(1))[:, None]
            return self.out(self.norm(self.drop(x)))

    subject = ModuleSubject.of(
        Pooled(), Layout(FOREIGN.sites, {**FOREIGN.matrices, "down": Projection("second.0")}, "out"), 0
    )
    with pytest.raises(MeasureError, match=r"input of module second.0 has shape \(6, 16\)"):
        list(subject.activations(drawn(), ("down.in",)))


def test_a_site_with_the_name_of_an_input_is_refused():
    layout = Layout({**FOREIGN.sites, "up.in": "drop"}, FOREIGN.matrices, "out")
    with pytest.raises(MeasureError, match=r"sites up.in have the names of the inputs of matrices"):
        ModuleSubject.of(Foreign(), layout, step=0)
