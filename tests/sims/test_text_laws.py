"""Laws of the next token of a text against plain code, and a draft head on a chain whose surplus is known."""

import numpy as np
import pytest
import torch
from torch import nn

from sims.measure.draft import draft_rows
from sims.measure.metric import metric_rows
from sims.measure.rows import MeasurementRows
from sims.measure.text_laws import (
    CountedLaw,
    Operator,
    TeacherLaw,
    choose_contexts,
    compare_laws,
    final_states,
    random_weights,
)
from sims.measure.text_predictive import (
    buckets,
    leading,
    over_sequences,
    predictive_rows,
    share_interval,
    state_shares,
)
from sims.models.layout import Layout, Projection
from sims.models.module import ModuleSubject
from sims.text.ngram import NgramLaw
from spectra.alignment import explained_share, linear_cka, subspace_overlap
from theory.formulas.markov import entropy_gap_bound, fisher_metric, shannon_entropy, total_variation

V, LENGTH = 6, 12


class Pairs(nn.Module):
    """A model whose state is the last two tokens, one-hot: ln q = α of the last + β of the one before − norm."""

    def __init__(self, logits):
        super().__init__()
        self.tokens = nn.Embedding(V, V)
        self.tokens.weight.data = torch.eye(V)
        self.norm = nn.Identity()
        self.head = nn.Linear(2 * V, V, bias=False)
        self.head.weight.data = torch.as_tensor(logits, dtype=torch.float32)

    def forward(self, x):
        own = self.tokens(x)
        before = torch.cat([torch.zeros_like(own[:, :1]), own[:, :-1]], dim=1)
        return self.head(self.norm(torch.cat([own, before], dim=2)))


def subject_of(logits):
    layout = Layout(
        sites={"embed": "tokens", "final": "norm"},
        matrices={"embed": Projection("tokens"), "head": Projection("head")},
        head="head",
    )
    return ModuleSubject.of(Pairs(logits), layout, step=0)


LOGITS = np.random.default_rng(0).normal(size=(V, 2 * V)) * np.repeat([1.0, 2.0], V)
SUBJECT = subject_of(LOGITS)


def chain():
    """Return P(next | last, one before), (V, V, V)."""
    logits = LOGITS[:, :V].T[:, None] + LOGITS[:, V:].T[None]
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)


def draw(n, seed):
    """Draw sequences (n, LENGTH + 1) of the chain, after steps that forget how it began."""
    rng, sums = np.random.default_rng(seed), chain().cumsum(axis=2)
    found = rng.integers(0, V, (n, 2))
    for _ in range(LENGTH + 30):
        own = sums[found[:, -1], found[:, -2]]
        found = np.hstack([found, (rng.random((n, 1)) > own).sum(axis=1, keepdims=True).clip(max=V - 1)])
    return found[:, -LENGTH - 1 :]


def quiet(*_):
    pass


class TestLaws:
    SEQUENCES = torch.as_tensor(draw(20, seed=1))

    @pytest.mark.parametrize("chances", [2**22, 7 * V])
    def test_numbers_are_those_of_all_chances_at_once(self, monkeypatch, chances):
        monkeypatch.setattr("sims.measure.text_laws.CHANCES", chances)
        counts = NgramLaw.of(draw(30, seed=2), V, 3)
        q = SUBJECT.log_probs(self.SEQUENCES).double().exp().numpy()
        q /= q.sum(axis=2, keepdims=True)
        teacher = subject_of(LOGITS[:, ::-1].copy())
        for law in (CountedLaw("trigram", counts), TeacherLaw("teacher", teacher, V)):
            if law.name == "teacher":
                p = teacher.log_probs(self.SEQUENCES).double().exp().numpy()
            else:
                rows = self.SEQUENCES.numpy()
                first = counts.next_tokens(rows[:, :1])
                later = [counts.next_tokens(rows[:, k - 1 : k + 1]) for k in range(1, LENGTH)]
                p = np.stack([first, *later], axis=1)
            chosen = np.array([5, 200, 3, 100])
            found = compare_laws(SUBJECT, law, self.SEQUENCES, V, chosen)
            np.testing.assert_allclose(found.divergence, (p * np.log(p / q)).sum(axis=2), atol=1e-6)
            np.testing.assert_allclose(found.gap, shannon_entropy(q) - shannon_entropy(p), atol=1e-6)
            np.testing.assert_allclose(found.bound, entropy_gap_bound(total_variation(p, q), V), atol=1e-5)
            own = np.take_along_axis(p, self.SEQUENCES[:, 1:, None].numpy(), axis=2)[..., 0]
            np.testing.assert_allclose(found.loss, -np.log(own), atol=1e-5)
            np.testing.assert_allclose(found.roots, np.sqrt(p.reshape(-1, V)[chosen]), atol=1e-6)

    def test_contexts_are_different_and_their_halves_come_from_different_sequences(self):
        chosen = choose_contexts(self.SEQUENCES, 100)
        rows, positions = np.divmod(chosen, LENGTH)
        assert len(chosen) == 100
        assert not set(rows[::2]) & set(rows[1::2])
        prefixes = [tuple(self.SEQUENCES[r, : k + 1].tolist()) for r, k in zip(rows, positions, strict=True)]
        for half in (prefixes[::2], prefixes[1::2]):
            assert len(set(half)) == len(half)
        states = final_states(SUBJECT, self.SEQUENCES, chosen)
        want = torch.cat([b["final"].flatten(0, 1) for b in SUBJECT.activations(self.SEQUENCES, ("final",))])
        np.testing.assert_array_equal(states, want[chosen].numpy())

    def test_rows_of_positions_are_means_over_them(self):
        law = CountedLaw("trigram", NgramLaw.of(draw(30, seed=2), V, 3))
        sheet = MeasurementRows(0, None)
        predictive_rows(sheet, SUBJECT, [law], self.SEQUENCES, V, quiet)
        own = {(row["quantity"], row["detail"]): row["value"] for row in sheet.rows}
        found = compare_laws(SUBJECT, law, self.SEQUENCES, V, np.array([0]))
        for name, part in (
            ("", slice(None)),
            (": positions 1–1", slice(1)),
            (": positions 5–8", slice(4, 8)),
        ):
            for quantity, values in (("kl_divergence", found.divergence), ("law_loss", found.loss)):
                assert own[quantity, f"trigram{name}"] == pytest.approx(values[:, part].mean(), rel=1e-9)
            gap = own["entropy_gap", f"trigram{name}"]
            assert gap == pytest.approx(abs(found.gap[:, part].mean()), rel=1e-9)

    def test_random_weights_keep_shapes_and_size(self):
        other = random_weights(SUBJECT)
        for name, own in SUBJECT.matrices.items():
            assert not torch.equal(own, other.matrices[name])
            assert other.matrices[name].std() == pytest.approx(own.square().mean().sqrt(), rel=0.5)

    @pytest.mark.parametrize("width", [9, 60])
    def test_an_operator_stands_for_all_columns(self, monkeypatch, width):
        monkeypatch.setattr("sims.measure.text_laws.COLUMNS", 7)
        rng = np.random.default_rng(3)
        n = 48
        p = rng.dirichlet(np.full(width, 0.4), n)
        roots, states = np.sqrt(p).astype(np.float32), rng.normal(size=(n, 3)) + 5 * p[:, :3]
        at = Operator.of(roots, np.arange(n) // 6, np.zeros(n), rng.permutation(n))
        centred = roots.astype(float) - roots.astype(float).mean(axis=0)
        values = np.linalg.svd(centred, compute_uv=False) ** 2 / n
        count = len(at.eigenvalues)
        np.testing.assert_allclose(at.eigenvalues, values[:count], rtol=1e-9)
        np.testing.assert_allclose(at.roots @ at.roots.T, centred @ centred.T, atol=1e-9)
        for u, value in zip(at.eigenfunctions.T, at.eigenvalues, strict=True):
            np.testing.assert_allclose(centred @ (centred.T @ u) / n, value * u, atol=1e-9)
        found = state_shares(at, states)
        fitted = leading(states, roots)
        assert found["bc"][0].value == pytest.approx(explained_share(fitted, roots), abs=1e-9)
        assert found["linear"][0].value == pytest.approx(
            explained_share(fitted, roots.astype(float) ** 2), abs=1e-9
        )
        null = leading(states, roots[at.order])
        assert found["bc"][1] == pytest.approx(explained_share(null, roots[at.order]), abs=1e-9)
        assert found["cka"][0] == pytest.approx(linear_cka(states, roots), abs=1e-9)
        with pytest.raises(Exception, match="rank 3"):
            subspace_overlap(states, roots, 8)
        assert np.isnan(found["overlap"][0])

    def test_states_or_laws_that_do_not_vary_have_no_share(self):
        still = subject_of(np.zeros((V, 2 * V)))
        still.model.tokens.weight.data.zero_()
        sheet = MeasurementRows(0, None)
        flat = TeacherLaw("flat", subject_of(np.zeros((V, 2 * V))), V)
        counted = CountedLaw("bigram", NgramLaw.of(draw(20, seed=4), V, 2))
        predictive_rows(sheet, still, [flat, counted], self.SEQUENCES, V, quiet)
        rows = {(row["quantity"], row["detail"]): row for row in sheet.rows}
        assert "laws do not vary" in rows["alignment_bc", "flat"]["reason"]
        assert "states do not vary" in rows["alignment_bc", "bigram"]["reason"]
        assert rows["kl_divergence", "flat"]["value"] == pytest.approx(0, abs=1e-9)
        assert not [row for row in sheet.rows if np.isnan(row["value"]) and row["status"] == "ok"]

    @pytest.mark.parametrize("varying", [0, 1, 2, 3])
    def test_laws_that_differ_in_one_context(self, varying):
        roots = np.full((40, V), V**-0.5, np.float32)
        roots[varying] = np.eye(V)[0]
        states = np.random.default_rng(0).normal(size=(40, 3))
        found = state_shares(Operator.of(roots, np.arange(40), np.zeros(40), np.arange(40)[::-1]), states)
        assert isinstance(found["bc"][0], float) == (varying % 2 == 0)
        assert np.isfinite(found["cka"][0])

    def test_intervals_of_shares_are_over_the_sequences_that_are_scored(self):
        # Contexts in odd places are scored: of many sequences, where those that are fitted are of one.
        rng = np.random.default_rng(0)
        roots, states = rng.random((40, V)).astype(np.float32), rng.normal(size=(40, 3))
        many = np.where(np.arange(40) % 2, np.arange(40), 0)
        for sequences, some in ((many, True), (np.roll(many, 1), False)):
            found = state_shares(Operator.of(roots, sequences, np.zeros(40), np.arange(40)), states)
            assert isinstance(found["bc"][0], float) != some

    def test_intervals_of_shares_cover_as_often_as_they_say(self):
        # Sequences of five contexts that share most of their noise; the share of all sequences is 1 − 1/4.
        rng, covered, repeats = np.random.default_rng(0), 0, 400
        for _ in range(repeats):
            common, own = rng.normal(size=(30, 1)), rng.normal(size=(30, 5))
            left = (0.9 * common + 0.19**0.5 * own).reshape(-1, 1)
            distance = left + 3**0.5 * rng.normal(size=left.shape)
            found = share_interval(left, distance, np.repeat(np.arange(30), 5))
            covered += found.low <= 0.75 <= found.high
        assert 0.9 < covered / repeats < 0.98
        assert share_interval(left, distance, np.zeros(150)) == found.value

    def test_means_and_intervals_are_over_sequences(self):
        values = np.random.default_rng(0).normal(size=(30, 4))
        found = over_sequences(values)
        assert found.value == pytest.approx(values.mean())
        assert found.high - found.value == pytest.approx(
            2.045 * values.mean(axis=1).std(ddof=1) / 30**0.5, rel=1e-3
        )
        assert over_sequences(values * np.nan).status == "not fitted"
        assert [(b.start, b.stop) for b in buckets(1)] == [(0, 1)]


class TestMetric:
    STATES = final_states(SUBJECT, TestLaws.SEQUENCES, choose_contexts(TestLaws.SEQUENCES, 40))

    def test_its_spectrum_is_that_of_the_mean_over_states(self):
        sheet, other = MeasurementRows(0, None), random_weights(SUBJECT)
        metric_rows(sheet, SUBJECT, self.STATES, other, self.STATES)
        head = SUBJECT.head.double().numpy()
        mean = np.mean([fisher_metric(head, h) for h in self.STATES], axis=0)
        (spectrum,) = sheet.spectra
        np.testing.assert_allclose(spectrum["values"], np.linalg.eigvalsh(mean)[::-1], atol=1e-9)
        rows = {row["quantity"]: row for row in sheet.rows}
        assert 1 < rows["rankme"]["value"] < V
        assert rows["rankme"]["null"] > 1

    def test_predictions_that_the_head_alone_does_not_make_have_none(self):
        sheet, model = MeasurementRows(0, None), Pairs(LOGITS)
        model.head.bias = nn.Parameter(torch.arange(V).float())
        biased = ModuleSubject.of(model, SUBJECT.layout, step=0)
        metric_rows(sheet, biased, self.STATES, biased, self.STATES)
        assert [row["status"] for row in sheet.rows] == ["not fitted"]
        assert "the head has a bias" in sheet.rows[0]["reason"]
        metric_rows(sheet, SUBJECT, self.STATES * np.nan, SUBJECT, self.STATES)
        assert "not finite" in sheet.rows[1]["reason"]


@pytest.fixture(scope="module")
def drafted():
    sheet = MeasurementRows(0, None)
    base = NgramLaw.of(draw(4000, seed=5), V, 2)
    draft_rows(sheet, SUBJECT, base, torch.as_tensor(draw(400, seed=6)), quiet)
    return {(row["quantity"], row["detail"]): row for row in sheet.rows}


class TestDraft:
    def test_a_linear_draft_finds_all_of_the_surplus_of_an_additive_chain(self, drafted):
        tokens, law = draw(20_000, seed=7), chain()
        last, before = tokens[:, -1], tokens[:, -2]
        share = np.zeros((V, V))
        np.add.at(share, (last, before), 1 / len(tokens))
        given_last = (share[..., None] * law).sum(axis=1) / share.sum(axis=1)[:, None]
        # I(H; W'' | W') of the state h = (w, …) and the tokens w', w'' after it.
        surplus = (share[..., None] * law * np.log(law / given_last[:, None])).sum()
        assert surplus > 0.3
        found = drafted["surplus", ""]
        assert found["low"] - 0.02 < surplus < found["high"] + 0.02
        assert abs(found["null"]) < 0.01
        assert drafted["gain", "state"]["value"] == pytest.approx(drafted["gain", "model"]["value"], abs=0.02)

    def test_its_tokens_are_accepted_and_those_of_the_nulls_less(self, drafted):
        accepted = {
            reads: drafted["acceptance", reads]["value"]
            for reads in ("state", "next token", "permuted state")
        }
        assert accepted["state"] > 0.93
        assert accepted["next token"] < 0.8
        assert accepted["permuted state"] == pytest.approx(accepted["next token"], abs=0.01)
        assert drafted["acceptance", "state"]["null"] == pytest.approx(accepted["next token"])
        # What the next token adds to bigrams of much text is what their counts lack.
        assert abs(drafted["gain", "next token"]["value"]) < 0.005

    def test_states_that_vary_by_rounding_alone_say_nothing(self):
        model = Pairs(LOGITS)
        model.tokens.weight.data = 0.1 + 1e-8 * torch.eye(V)
        still = ModuleSubject.of(model, SUBJECT.layout, step=0)
        sheet = MeasurementRows(0, None)
        base = NgramLaw.of(draw(2000, seed=5), V, 2)
        draft_rows(sheet, still, base, torch.as_tensor(draw(100, seed=6)), quiet)
        (surplus,) = [row for row in sheet.rows if row["quantity"] == "surplus"]
        assert surplus["value"] < 0.002

    def test_states_that_say_nothing_gain_exactly_nothing(self):
        sheet = MeasurementRows(0, None)
        base = NgramLaw.of(draw(30, seed=5), V, 2)
        draft_rows(sheet, subject_of(np.zeros((V, 2 * V))), base, torch.as_tensor(draw(12, seed=6)), quiet)
        rows = {(row["quantity"], row["detail"]): row for row in sheet.rows}
        for name in (("gain", "state"), ("surplus", "")):
            assert rows[name]["value"] == rows[name]["low"] == rows[name]["high"] == 0
