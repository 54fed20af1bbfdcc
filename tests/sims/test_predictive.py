"""States and predictions of toys against the exact law of the next token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import RUN

from sims.analysis.intervals import student
from sims.analysis.runs import load
from sims.measure import predictive
from sims.measure.contexts import draw_contexts
from sims.measure.registry import measured_versions
from sims.measure.toy import prepare
from sims.runs.store import RunFolder
from sims.studies.overview import tables
from sims.studies.overview.figures import alignment_figure
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from spectra.alignment import eigenfunction_shares, explained_share, predictive_embedding, subspace_overlap
from spectra.reference import alignment as slow
from theory.formulas.law import WalkLaw
from toymodel.data import dataset, sequence_keys

CONTEXTS = draw_contexts(RUN.task, dataset(RUN.task), 400)
LAST = CONTEXTS.positions[-1]
N, V = LAST.roots.shape
HEAD = np.random.default_rng(0).normal(size=(V, 6))


def states_of(width=6, seed=1):
    """Half of what states of this width hold is of the law."""
    rng = np.random.default_rng(seed)
    return LAST.roots @ rng.normal(size=(V, width)) + 0.2 * rng.normal(size=(N, width))


@pytest.mark.parametrize(("value", "half"), [(0.1, 0.05), (0.1, 0.3), (0.0, 0.0)])
def test_the_interval_of_a_divergence_holds_divergences_only(value, half):
    found = predictive._divergence(value, half)
    assert (found.low, found.high) == (max(value - half, 0.0), value + half)


@pytest.mark.parametrize(("value", "half"), [(np.nan, 0.1), (np.inf, np.nan), (0.1, np.nan)])
def test_a_divergence_that_is_no_number_is_not_fitted(value, half):
    assert predictive._divergence(value, half).status == "not fitted"


def test_contexts_are_distinct_not_in_training_and_have_their_exact_laws():
    keys = sequence_keys(CONTEXTS.sequences)
    assert len(set(keys)) == len(keys) == 400
    assert not set(keys) & set(sequence_keys(dataset(RUN.task).train.tokens))
    assert [at.tokens for at in CONTEXTS.positions] == [1, 2, 3, 4, 8]
    for at in CONTEXTS.positions:
        prefixes = CONTEXTS.sequences[:, : at.tokens]
        np.testing.assert_array_equal(at.laws, WalkLaw(24).next_tokens(prefixes))
        assert (
            len(np.unique(prefixes, axis=0))
            == len(at.distinct)
            == len(np.unique(prefixes[at.distinct], axis=0))
        )
        np.testing.assert_array_equal(at.last, prefixes[at.distinct, -1])
        centred = at.roots - at.roots.mean(axis=0)
        for value, u in zip(at.eigenvalues, at.eigenfunctions.T, strict=True):
            np.testing.assert_allclose(centred @ (centred.T @ u) / len(u), value * u, atol=1e-9)
    again = draw_contexts(RUN.task, dataset(RUN.task), 400)
    np.testing.assert_array_equal(again.sequences, CONTEXTS.sequences)


def test_shares_of_one_fit_are_those_of_separate_ones_and_of_their_definition():
    h, laws = states_of(), LAST.laws[LAST.distinct]
    found = predictive.state_numbers(LAST, h, HEAD)
    assert found["bc"] == pytest.approx(explained_share(h, LAST.roots), abs=1e-12)
    assert found["bc"] == pytest.approx(slow.explained_share(h, LAST.roots), abs=1e-6)
    assert found["linear"] == pytest.approx(slow.explained_share(h, laws), abs=1e-6)
    assert found["head"] == pytest.approx(slow.explained_share(h, laws @ HEAD), abs=1e-6)
    assert found["bc_null"] == pytest.approx(slow.explained_share(h, LAST.roots[LAST.order]), abs=1e-6)
    each = eigenfunction_shares(h, predictive_embedding(laws))
    rank = len(LAST.eigenvalues)
    np.testing.assert_allclose(LAST.eigenvalues, each.eigenvalues[:rank], rtol=1e-9)
    np.testing.assert_allclose(found["share"][:rank], each.shares[:rank], atol=1e-9)
    wide = states_of(width=12)
    found = predictive.state_numbers(LAST, wide, np.ones((V, 12)))
    leading = LAST.eigenfunctions[:, : predictive.OVERLAP]
    assert found["overlap"] == pytest.approx(
        slow.subspace_overlap(wide, leading, predictive.OVERLAP), abs=1e-9
    )


def test_the_best_states_hold_everything_and_permuted_ones_nothing():
    # After four tokens the fitted half has laws of every direction.
    fourth = CONTEXTS.positions[3]
    found = predictive.state_numbers(fourth, fourth.roots, np.eye(V))
    assert found["bc"] == pytest.approx(1, abs=1e-9)
    assert min(found["share"]) > 1 - 1e-9
    assert found["overlap"] == pytest.approx(1, abs=1e-9)
    few = predictive.state_numbers(LAST, states_of(), HEAD)
    assert few["bc"] > few["bc_null"] + 0.2
    assert all(abs(few[f"{name}_null"]) <= 0.1 for name in ("bc", "linear", "head"))
    # The last token alone does not fix a walk of eight tokens; after one token it is all there is.
    assert predictive.last_token_share(LAST.last, LAST.roots) < 0.5
    first = CONTEXTS.positions[0]
    everything = replace(first, last=np.array([0, 0, 1, 1]), roots=first.roots[[0, 0, 1, 1]])
    assert predictive.last_token_share(everything.last, everything.roots) == pytest.approx(1, abs=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**16), st.floats(-3, 3), st.floats(-100, 100))
def test_affine_maps_of_states_do_not_change_shares(seed, power, shift):
    h, rng = states_of(), np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    moved = (h * np.geomspace(1, 30, 6)) @ rotation * 10**power + shift
    before, after = (predictive.state_numbers(LAST, x, HEAD) for x in (h, moved))
    for name in ("bc", "linear", "head", "bc_null", "share"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-6, equal_nan=True)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**16), st.integers(1, 40), st.floats(-2, 1.5))
def test_the_gap_of_entropies_is_never_above_its_bound(seed, vocab, power):
    rng = np.random.default_rng(seed)
    p, q = (rng.dirichlet(np.full(vocab, 10.0**a), size=20) for a in (power, rng.uniform(-2, 1)))
    p /= p.sum(axis=1, keepdims=True)
    q = np.maximum(q, 1e-12)
    q /= q.sum(axis=1, keepdims=True)
    found = predictive.prediction_numbers(p, np.log(q))
    assert found["gap"] <= found["gap_bound"] + 1e-9
    assert found["kl"] >= -1e-9
    assert predictive.prediction_numbers(q, np.log(q))["kl"] == pytest.approx(0, abs=1e-9)


def test_laws_that_vary_over_the_fitted_contexts_only_have_no_share_of_the_last_token():
    roots = LAST.roots.copy()
    roots[1::2] = roots[1]
    assert np.isnan(predictive.last_token_share(LAST.last, roots))


@pytest.mark.parametrize(
    ("place", "change", "head", "missing"),
    [
        (-1, lambda h: h * 0 + 3, HEAD, ("bc", "linear", "head", "overlap", "bc_null")),
        (-1, lambda h: h * np.nan, HEAD, ("bc", "linear", "head", "overlap", "bc_null")),
        (-1, lambda h: h, 0 * HEAD, ("head", "head_null")),
        # Six directions are fewer than eight.
        (-1, lambda h: h, HEAD, ("overlap",)),
    ],
)
def test_what_is_undefined_is_missing_and_nothing_else(place, change, head, missing):
    found = predictive.state_numbers(CONTEXTS.positions[place], change(states_of()), head)
    names = {"bc", "linear", "head", "bc_null", "linear_null", "head_null", "overlap"}
    undefined = {name for name in names if np.isnan(found[name])}
    assert set(missing) <= undefined
    assert "bc" in missing or undefined <= {*missing, "overlap"}


def test_training_records_how_much_of_the_best_predictor_the_states_hold(tmp_path, tiny_run, tiny_measure):
    measuring = tiny_measure(predictive=400)
    assert measured_versions(measuring).keys() - measured_versions(tiny_measure()).keys() == {"predictive"}
    configs = [tiny_run(), tiny_run(seed=1)]
    assert run_group(configs, measuring, tmp_path / "with") == {}
    run_group(configs, tiny_measure(), tmp_path / "without")
    rows, plain = (RunFolder(tmp_path / part / RUN.run_id).rows() for part in ("with", "without"))
    # All else stays as it is.
    assert rows[rows["object"] != "predictive"].reset_index(drop=True).equals(plain)
    rows = rows[rows["object"] == "predictive"]
    assert not rows[rows["status"] == "ok"]["value"].isna().any()
    assert (rows[rows["status"] != "ok"]["reason"] != "").all()
    start = rows[rows["step"] == 0].set_index(["quantity", "detail"])
    for at in CONTEXTS.positions:
        floor = WalkLaw(24).entropies(CONTEXTS.sequences[:, : at.tokens])[:, -1].mean()
        row = start.loc[("kl_divergence", f"position {at.tokens}")]
        assert row["value"] == pytest.approx(np.log(24) - floor, abs=1e-3)
        spread = WalkLaw(24).entropies(CONTEXTS.sequences[:, : at.tokens])[:, -1].std(ddof=1)
        assert row["high"] - row["value"] == pytest.approx(student(399) * spread / 20, rel=1e-3)
    # After one token there are 24 contexts at most; at the start the head is zero.
    assert (
        "distinct contexts; states of width 16 need 64" in start.loc[("alignment_bc", "position 1"), "reason"]
    )
    assert "same mean row" in start.loc[("alignment_head", "position 8"), "reason"]
    wide = rows.pivot_table(index=["step", "detail"], columns="quantity", values="value")
    # Eight directions of states that know nothing.
    rng, leading = np.random.default_rng(0), LAST.eigenfunctions[:, :8]
    chance = np.mean([subspace_overlap(rng.normal(size=(N, 16)), leading, 8) for _ in range(100)])
    assert start.loc[("subspace_overlap", "position 8"), "null"] == pytest.approx(chance, rel=0.1)
    assert (wide["entropy_gap"].dropna() <= wide["entropy_gap_bound"].dropna()).all()
    table = tables.alignments(load(tmp_path / "with"))
    assert table["last_token"].notna().all()
    titles = [ax.get_title(loc="left") for ax in alignment_figure(table).axes]
    assert titles == [f"position {k}" for k in sorted(table["position"].unique())]


def test_too_few_contexts_and_unknown_laws_are_refused(tiny_run, tiny_measure):
    with pytest.raises(MeasureError, match="predictive is -1"):
        tiny_measure(predictive=-1)
    with pytest.raises(MeasureError, match="states of width 16 need 64 contexts or more"):
        tiny_measure(predictive=63).check(tiny_run())
    noisy = tiny_run(task=replace(RUN.task, noise=0.5))
    with pytest.raises(MeasureError, match="the exact law is that of walks without noise"):
        prepare(tiny_measure(predictive=64), noisy, dataset(noisy.task))
    small = replace(RUN.task, vocab=6, length=3)
    with pytest.raises(MeasureError, match="distinct sequences that do not occur in training; lower it"):
        draw_contexts(small, dataset(small), 400)
