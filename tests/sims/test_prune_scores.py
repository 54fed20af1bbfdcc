"""Scores of matrices and their controls; what is said of losses at equal zeros."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.analysis.pruning import (
    COSTS,
    OPEN,
    SAVES,
    differences,
    over_models,
    score_correlations,
    shuffle_ranks,
)
from sims.models.transformer import TransformerSubject
from sims.prune.allocation import allocate, block_means
from sims.prune.prune import entries, prunable, prune
from sims.prune.score_names import BASES, NAMES, base_of
from sims.prune.scores import Trial, base_scores, control, sensitivity, weight_scores
from sims.system.errors import MeasureError
from toymodel.rates import SCORES
from toymodel.sizes import Sizes
from toymodel.stages import stage
from toymodel.transformer import Transformer

LAYERS, VOCAB = 3, 24


def subject_of(seed=0):
    sizes = Sizes(vocab=VOCAB, length=8, d=32, heads=2, layers=LAYERS, mlp=64)
    config: Any = SimpleNamespace(stage="rope", sizes=sizes, steps=10, tokens_per_step=8)
    draw = torch.Generator().manual_seed(seed)
    specs = Transformer(stage("rope"), sizes).specs()
    weights = {s.name: torch.randn(s.shape, generator=draw) / math.sqrt(s.shape[-1]) for s in specs}
    return TransformerSubject.of_weights(config, weights, 3)


def drawn(n=8, seed=1):
    return torch.randint(VOCAB, (n, 9), generator=torch.Generator().manual_seed(seed))


SUBJECT = subject_of()
TRIAL = Trial("wanda", 0.7, "block", drawn(), drawn(16, 2))


def test_every_score_has_a_number_for_every_matrix():
    for name in NAMES:
        found = base_scores(name, SUBJECT, TRIAL) if name in ("uniform", *SCORES) else {}
        assert not found or (
            list(found) == list(prunable(SUBJECT)) and np.isfinite(list(found.values())).all()
        )
    assert (*SCORES, "sensitivity") == BASES
    with pytest.raises(MeasureError, match="no score 'luck'"):
        base_of("luck")


def test_exponents_of_noise_lie_about_that_of_noise():
    # Gaussian matrices: z-scores have no common offset between shapes, plain exponents have.
    by_shape: dict[str, list[float]] = {"alpha": [], "alpha-z": [], "farms": [], "farms-z": []}
    for seed in range(6):
        own = subject_of(seed)
        for name, gaps in by_shape.items():
            scores = weight_scores(name, own)
            wide = np.mean([v for n, v in scores.items() if "mlp" in n])
            square = np.mean([v for n, v in scores.items() if "attn" in n])
            gaps.append(float(wide - square))
    assert np.mean(by_shape["alpha"]) > 0.3
    assert abs(np.mean(by_shape["farms"])) < 0.15
    assert abs(np.mean(by_shape["alpha-z"])) < 1
    assert abs(np.mean(by_shape["farms-z"])) < 1
    # A heavy tail has a lower exponent than noise of its shape.
    heavy = torch.randn(32, 32, generator=torch.Generator().manual_seed(3)).pow(3)
    for name in by_shape:
        changed = weight_scores(name, SUBJECT.with_matrix("blocks.0.attn.q", heavy))
        assert changed["blocks.0.attn.q"] < weight_scores(name, SUBJECT)["blocks.0.attn.q"]
    assert weight_scores("alpha-z", SUBJECT.with_matrix("blocks.0.attn.q", heavy))["blocks.0.attn.q"] < -2


def test_a_matrix_of_zeros_has_no_exponent():
    zero = SUBJECT.with_matrix("blocks.1.attn.o", torch.zeros(32, 32))
    for name in ("alpha", "farms", "alpha-z", "farms-z"):
        with pytest.raises(MeasureError, match=r"blocks.1.attn.o has no exponent"):
            weight_scores(name, zero)


def test_an_orthogonal_matrix_rounded_to_bfloat16_has_no_exponent():
    Q, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(4)))
    flat = SUBJECT.with_matrix("blocks.1.attn.o", Q.bfloat16().float())
    for name in ("alpha", "farms", "alpha-z", "farms-z"):
        with pytest.raises(MeasureError, match=r"blocks.1.attn.o has no exponent \(.* no tail to fit"):
            weight_scores(name, flat)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["block", "matrix"]), st.integers(0, 50))
def test_a_shuffle_gives_the_same_numbers_to_others(seed, unit, draw):
    rng = np.random.default_rng(seed)
    names = [f"blocks.{i}.{m}" for i in range(4) for m in ("attn.q", "mlp.fc")]
    scores = dict(zip(names, rng.normal(size=8).tolist(), strict=True))
    found = control("shuffled-farms", scores, unit, draw)
    assert list(found) == names
    before, after = (block_means(s) if unit == "block" else s for s in (scores, found))
    np.testing.assert_allclose(sorted(after.values()), sorted(before.values()))
    assert found == control("shuffled-farms", scores, unit, draw)
    assert control("farms", scores, unit, draw) == scores
    turned = control("reversed-farms", scores, unit)
    assert all(turned[n] == -scores[n] for n in names)


def test_sensitivity_is_what_pruning_alone_costs():
    base = float(SUBJECT.losses(TRIAL.selection).double().mean())
    found = sensitivity(SUBJECT, TRIAL)
    assert list(found) == [f"blocks.{i}" for i in range(LAYERS)]
    sizes = entries(SUBJECT)
    for block, cost in found.items():
        own = {n: s for n, s in sizes.items() if n.startswith(block + ".")}
        counts = allocate(dict.fromkeys(own, 0.0), own, 0.7, 0.0)
        alone = prune(SUBJECT, counts, "wanda", TRIAL.calibration).subject
        assert cost == pytest.approx(float(alone.losses(TRIAL.selection).double().mean()) - base, abs=1e-9)
    scores = base_scores("shuffled-sensitivity", SUBJECT, TRIAL)
    order = sorted(found, key=lambda b: -found[b])
    assert [scores[f"{b}.attn.q"] for b in order] == [1.0, 2.0, 3.0]
    by_matrix = base_scores("sensitivity", SUBJECT, Trial("magnitude", 0.7, "matrix", drawn(), drawn(16, 2)))
    assert sorted(by_matrix.values()) == list(range(1, 6 * LAYERS + 1))


def losses(models, deltas: Any, sequences=20, draws=1, noise=0.01):
    rng = np.random.default_rng(0)
    rows = []
    for m in range(models):
        base = 2 + 0.1 * m + 0.3 * rng.normal(size=sequences)
        for by, delta in [("uniform", 0.0), *deltas.items()]:
            for draw in range(draws if by.startswith("shuffled") else 1):
                shift: Any = delta(draw) if callable(delta) else delta
                own = base + shift + noise * rng.normal(size=sequences)
                label = {"model": f"m{m}", "method": "wanda", "sparsity": 0.5, "unit": "block", "by": by}
                rows += [{**label, "draw": draw, "sequence": i, "loss": v} for i, v in enumerate(own)]
    return pd.DataFrame(rows)


def test_differences_are_paired_over_sequences_and_models():
    table = differences(losses(5, {"good": -0.1, "bad": 0.1, "same": 0.0}))
    assert len(table) == 15
    assert set(table.loc[table["by"] == "good", "verdict"]) == {SAVES}
    # Sequences differ by 0.3, what is paired by 0.014.
    assert (table["high"] - table["low"]).max() < 0.03
    found = over_models(table).set_index("by")
    assert list(found["verdict"]) == [SAVES, COSTS, OPEN]
    assert list(found["models"]) == [5, 5, 5]
    assert found.loc["good", "saves"] == 5
    assert found.loc["good", "delta"] == pytest.approx(-0.1, abs=0.01)
    alone = over_models(differences(losses(1, {"good": -0.1})))
    assert alone["over"].item() == "sequences"
    assert alone["verdict"].item() == SAVES
    assert over_models(table)["over"].eq("models").all()


def test_an_effect_of_the_size_of_its_spread_over_models_cannot_be_told():
    rng = np.random.default_rng(3)
    parts = [losses(1, {"a": float(0.2 * rng.normal())}).assign(model=f"m{i}") for i in range(6)]
    found = over_models(differences(pd.concat(parts, ignore_index=True)))
    assert found["verdict"].item() == OPEN
    assert found["saves"].item() + found["costs"].item() == 6


@pytest.mark.slow
def test_the_level_of_the_verdict_over_models_is_five_percent():
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(400):
        table = pd.DataFrame(
            {"model": list("abcde"), "method": "wanda", "sparsity": 0.5, "unit": "block", "by": "x"}
        )
        wrong += (
            over_models(table.assign(delta=rng.normal(size=5), low=0.0, high=0.0, verdict=OPEN))[
                "verdict"
            ].item()
            != OPEN
        )
    # 20 are expected; with 400 trials 8 to 33 in 99.5 %.
    assert 8 <= wrong <= 33


def test_a_score_is_ranked_among_its_shuffles():
    best = losses(3, {"farms": -0.1, "shuffled-farms": lambda draw: 0.01 * draw}, draws=10, noise=0)
    found = shuffle_ranks(best, "shuffled-").iloc[0]
    assert (found["by"], found["shuffles"], found["p"]) == ("farms", 10, pytest.approx(1 / 11))
    middle = losses(3, {"farms": 0.045, "shuffled-farms": lambda draw: 0.01 * draw}, draws=10, noise=0)
    assert shuffle_ranks(middle, "shuffled-")["p"].item() == pytest.approx(6 / 11)
    assert shuffle_ranks(losses(2, {"farms": 0.0}), "shuffled-").empty


def test_scores_are_correlated_by_rank_with_what_was_measured():
    rows = []
    for model, (by, sign) in itertools.product(
        "abc", (("good", 1), ("bad", -1), ("flat", 0), ("sensitivity", 1))
    ):
        label = {"model": model, "method": "wanda", "sparsity": 0.5, "unit": "block", "by": by}
        rows += [{**label, "name": f"blocks.{i}", "score": sign * math.exp(i)} for i in range(6)]
    found = score_correlations(pd.DataFrame(rows), "sensitivity").set_index("by")
    assert found["rho"].to_dict() == pytest.approx({"good": 1.0, "bad": -1.0})
    assert list(found["models"]) == [3, 3]
    assert set(BASES) < set(NAMES)
