"""States with only their first principal directions, and without them: laws, planted directions, runs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_removal_costs import subject_of

from sims.measure.directions import (
    Edited,
    Principal,
    default_counts,
    drop_directions,
    keep_directions,
    measure_directions,
    principal_directions,
    random_subspace,
    score_table,
)
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from toymodel.config import canonical_hash
from toymodel.cross_entropy import position_losses

WIDTH, VOCAB = 6, 12
NUMBERS = ["loss", "change", "change_low", "change_high", "accuracy", "accuracy_low", "accuracy_high"]


@dataclass(frozen=True)
class Table:
    """A subject whose final states are rows of a table, and whose head is a matrix."""

    rows: torch.Tensor
    head: torch.Tensor

    def activations(self, sequences, sites):
        assert sites == ("final",)
        for some in sequences.split(3):
            yield {"final": self.rows[some[:, :-1].long()]}

    def head_log_probs(self, states):
        return (states @ self.head.T).log_softmax(dim=-1)

    def head_scores(self, states, targets):
        logits = states @ self.head.T
        return position_losses(logits, targets), logits.argmax(dim=-1) == targets


def table_of(rows, head) -> Any:
    return Table(rows, head)


def gaussian(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(n, seed=0, length=8, vocab=VOCAB):
    return torch.randint(vocab, (n, length + 1), generator=torch.Generator().manual_seed(seed))


def anisotropic(seed):
    scales = torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -1.0
    return table_of(gaussian(seed, VOCAB, WIDTH) * scales + 0.5, gaussian(seed + 1, VOCAB, WIDTH))


def by_edit(table) -> Any:
    return table.set_index(["directions", "edit"])


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_keeping_all_changes_nothing_and_dropping_all_leaves_the_mean(seed):
    subject, sequences = anisotropic(seed), drawn(12, seed)
    found = by_edit(measure_directions(subject, sequences, [0, WIDTH]))
    whole = found.loc[(WIDTH, "whole")]
    for key in ((WIDTH, "keep"), (0, "drop")):
        assert found.loc[key, "change"] == pytest.approx(0, abs=1e-6)
        assert found.loc[key, "accuracy"] == whole["accuracy"]
    mean = subject.rows[sequences[:6, :-1]].flatten(0, 1).mean(dim=0)
    targets = sequences[6:, 1:].flatten()
    losses, hits = subject.head_scores(mean.expand(len(targets), -1), targets)
    for key in ((0, "keep"), (WIDTH, "drop")):
        assert found.loc[key, "loss"] == pytest.approx(float(losses.mean()), abs=1e-6)
        assert found.loc[key, "accuracy"] == pytest.approx(float(hits.double().mean()))
    # A subspace of all or no dimensions is the same, however it is drawn.
    assert found["change_null"].iloc[1:].to_numpy() == pytest.approx(
        found["change"].iloc[1:].to_numpy(), abs=1e-6
    )


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(0, WIDTH))
def test_kept_and_dropped_parts_are_complements(seed, k):
    states, mean = gaussian(seed, 3, 5, WIDTH), gaussian(seed + 1, WIDTH)
    basis = torch.linalg.qr(gaussian(seed + 2, WIDTH, WIDTH))[0]
    kept, dropped = (f(states, mean, basis[:, :k]) for f in (keep_directions, drop_directions))
    torch.testing.assert_close(kept + dropped, states + mean)
    torch.testing.assert_close(kept, drop_directions(states, mean, basis[:, k:]))
    torch.testing.assert_close(keep_directions(kept, mean, basis[:, :k]), kept)
    torch.testing.assert_close((dropped - mean) @ basis[:, :k], torch.zeros(3, 5, k).double())


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_the_basis_of_the_states_does_not_matter(seed):
    subject, sequences = anisotropic(seed), drawn(12, seed)
    rotation = torch.linalg.qr(gaussian(seed + 5, WIDTH, WIDTH))[0]
    turned = table_of(subject.rows @ rotation, subject.head @ rotation)
    one, two = (measure_directions(s, sequences, [1, 3]) for s in (subject, turned))
    np.testing.assert_allclose(
        one[NUMBERS].to_numpy(float), two[NUMBERS].to_numpy(float), rtol=1e-7, atol=1e-9
    )


def test_directions_come_from_the_first_half_and_losses_from_the_second():
    # Tokens 0 to 5 vary along the first axis, the others along the second.
    rows = torch.zeros(VOCAB, WIDTH, dtype=torch.float64)
    rows[:6, 0], rows[6:, 1] = torch.arange(6.0).double(), torch.arange(6.0).double() * 9
    subject = table_of(rows, gaussian(0, VOCAB, WIDTH))
    sequences = torch.cat([drawn(4, 1, vocab=6), 6 + drawn(4, 2, vocab=6)])
    found = by_edit(measure_directions(subject, sequences, [1]))
    assert found.loc[(1, "drop"), "change"] != 0
    assert abs(principal_directions(subject, sequences[:4]).basis[0, 0]) == pytest.approx(1)
    expected = drop_directions(
        rows, rows[sequences[:4, :-1]].mean(dim=(0, 1)), torch.eye(WIDTH)[:, :1].double()
    )
    losses, _ = table_of(expected, subject.head).head_scores(expected[sequences[4:, :-1]], sequences[4:, 1:])
    assert found.loc[(1, "drop"), "loss"] == pytest.approx(float(losses.mean()))


def test_a_planted_direction_is_needed_and_random_ones_are_not():
    # Even tokens follow odd ones; one strong direction tells them apart, and the head reads it alone.
    rows = gaussian(3, VOCAB, WIDTH) * 0.1
    rows[:, 2] = torch.tensor([4.0, -4.0] * 6)
    head = torch.zeros(VOCAB, WIDTH).double()
    head[0, 2], head[1, 2] = -2.0, 2.0
    # Without it token 0 is the most probable one everywhere.
    rows[:, 5], head[0, 5] = 1.0, 0.5
    sequences = (drawn(40, 4)[:, :1] + torch.arange(9)) % 2
    found = by_edit(measure_directions(table_of(rows, head), sequences, [1, 3]))
    assert found.loc[(WIDTH, "whole"), "accuracy"] == 1
    keep, drop = found.loc[(1, "keep")], found.loc[(1, "drop")]
    assert keep["accuracy"] == 1
    assert abs(keep["change"]) < 0.01
    assert drop["accuracy"] == pytest.approx(0.5)
    assert drop["change"] > drop["change_null"] + 0.5
    assert drop["accuracy_null"] > 0.9
    assert keep["change_null"] > keep["change"] + 0.3
    assert (found["n"] == 20).all()


@pytest.mark.parametrize("hits", [[1, 1, 1, 0.25], [0, 0, 0.125, 0], [1, 1, 1, 1], [0.5, 0.25, 0.5, 0.75]])
def test_intervals_of_accuracies_stay_within_shares(hits):
    losses, right = np.array([1.0, 2, 1.5, 3]), np.array(hits, float)
    whole, edited = Edited(losses, right), Edited(losses[::-1], right)
    found = score_table([1], [[whole], [edited, edited], [edited, edited]], rank=WIDTH, width=WIDTH)
    low, value, high = (found[f"accuracy{end}"].to_numpy(float) for end in ("_low", "", "_high"))
    assert ((low >= 0) & (low <= value) & (value <= high) & (high <= 1)).all()
    # Those of changes of loss have no bounds: they are Student's.
    paired: Any = stats.ttest_rel(losses[::-1], losses)
    own = paired.confidence_interval()
    change = [found[f"change_{end}"].iloc[1] for end in ("low", "high")]
    assert change == pytest.approx([own.low, own.high])


def test_random_subspaces_are_uniform():
    # E QQᵀ = (k/d) I over 2,000 draws; the variance of its entries is below 1/4.
    basis, k = torch.eye(WIDTH, dtype=torch.float64), 2
    subspaces = [random_subspace(basis, k, [0, i]) for i in range(2_000)]
    mean = torch.stack([q @ q.T for q in subspaces]).mean(dim=0)
    assert (mean - basis * k / WIDTH).abs().max() < 5 * 0.5 / math.sqrt(2_000)
    torch.testing.assert_close(subspaces[7].T @ subspaces[7], torch.eye(k).double())


def test_directions_that_the_states_do_not_determine_have_no_numbers():
    rows = torch.zeros(VOCAB, WIDTH, dtype=torch.float64)
    rows[:, :2] = gaussian(0, VOCAB, 2)
    found = by_edit(measure_directions(table_of(rows, gaussian(1, VOCAB, WIDTH)), drawn(8), [2, 3, WIDTH]))
    assert found.loc[3, NUMBERS].isna().to_numpy().all()
    assert found.loc[[2, WIDTH], "change"].notna().all()
    assert found.loc[(2, "keep"), "change"] == pytest.approx(0, abs=1e-6)
    same = by_edit(measure_directions(table_of(rows * 0, rows), drawn(8), [0, 1]))
    assert same.loc[1, NUMBERS].isna().to_numpy().all()
    assert principal_directions(table_of(rows * 0, rows), drawn(8)).rank == 0


def test_a_transformer_gives_what_its_states_give_and_the_same_again():
    subject, sequences = subject_of(), drawn(10, vocab=24)
    one, two = (measure_directions(subject, sequences) for _ in range(2))
    assert one.equals(two)
    assert list(one["directions"]) == [16, 0, 0, 1, 1, 8, 8]
    assert one["loss"][0] == pytest.approx(float(subject.losses(sequences[5:]).mean()))
    right = subject.log_probs(sequences[5:]).argmax(dim=-1) == sequences[5:, 1:]
    assert one["accuracy"][0] == pytest.approx(float(right.double().mean()))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"counts": [17]}, "counts has 17"),
        ({"counts": [-1]}, "counts has -1"),
        ({"controls": 0}, "controls is 0"),
        ({"sequences": drawn(3, vocab=24)}, "n ≥ 4"),
        ({"model": subject_of(scale=math.inf)}, "NaN or Inf"),
    ],
)
def test_what_has_no_meaning_is_refused(changes, says):
    with pytest.raises(MeasureError, match=says):
        measure_directions(**{"model": subject_of(), "sequences": drawn(8, vocab=24), **changes})


def test_numbers_of_directions_fit_the_width():
    assert default_counts(768) == (1, 10, 50)
    assert default_counts(32) == (1, 8)
    assert default_counts(1) == ()
    assert Principal._fields == ("mean", "basis", "rank")


def test_a_toy_has_them_on_request_alone_or_together(tmp_path, tiny_run, tiny_measure):
    configs = [tiny_run(seed=seed, steps=6) for seed in (0, 1)]
    measure = tiny_measure(every=6, directions=32)
    for name, group in (("together", configs), ("alone", configs[:1])):
        assert not run_group(group, measure, tmp_path / name)
    assert not run_group(configs[:1], tiny_measure(every=6), tmp_path / "without")
    together, alone, without = (
        RunFolder(tmp_path / name / configs[0].run_id).rows() for name in ("together", "alone", "without")
    )
    mine = alone.query("object == 'direction'")
    assert len(mine) == 2 * 11
    assert set(mine["detail"]) == {"all", "none", "top 1", "top 8"}
    assert set(mine["site"]) == {"final"}
    ok = mine.query("status == 'ok'")
    assert (ok["low"] <= ok["value"]).all()
    assert ok.query("detail != 'all'")["null"].notna().all()
    assert len(ok.query("step == 6")) == 11
    np.testing.assert_allclose(
        mine["value"].to_numpy(float),
        together.query("object == 'direction'")["value"].to_numpy(float),
        atol=1e-6,
    )
    rest = alone.query("object != 'direction'").reset_index(drop=True)
    assert rest.equals(without.reset_index(drop=True))


@pytest.mark.parametrize("of", [MeasureConfig, LmMeasureConfig])
def test_configurations_without_them_keep_their_identity(of):
    assert canonical_hash(of()) == canonical_hash(of(directions=0)) != canonical_hash(of(directions=8))
    with pytest.raises(MeasureError, match="directions is 3"):
        of(directions=3)
