"""A language model on text: one pass, blocks of gradients and ranks against the plain ways of the toy."""

import dataclasses

import numpy as np
import pytest
import torch
from formats import LAYERS, LENGTH, VOCAB, WIDTH, nanogpt_checkpoint
from scipy import stats

from sims.measure import gradient_blocks, gradients
from sims.measure.engine import measure
from sims.measure.gradient_blocks import Blocks, plan_blocks
from sims.measure.lm import prepare_text
from sims.measure.summarise import noise_spectra
from sims.measure.token_families import PRESETS, Family, default_families, families, read_families
from sims.models.checkpoints import load
from sims.runs.columns import which
from sims.runs.lm_measure_config import LmMeasureConfig, LmOptions
from sims.system.errors import MeasureError
from sims.system.process_group import ProcessGroup
from sims.text.shards import TokenSequences, write_shard
from spectra import covariance_spectrum, h_peak, stacked_gradient_spectrum

CONFIG = LmMeasureConfig(
    tokens=40 * LENGTH + 5,
    length=LENGTH,
    batch=7 * LENGTH,
    loss_tokens=10 * LENGTH,
    windows=((1, 10),),
    gradient_sequences=13,
    families=(),
)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpt") / "ckpt.pt"
    torch.save(nanogpt_checkpoint(), path)
    return load(path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two shards of tokens that depend on each other."""
    folder = tmp_path_factory.mktemp("shards")
    generator = np.random.default_rng(0)
    paths = [folder / f"text_val_00000{i}.bin" for i in range(2)]
    for path in paths:
        steps = generator.integers(1, 4, 400)
        write_shard(path, np.cumsum(steps) % VOCAB)
    return paths


@pytest.fixture(scope="module")
def instruments(shards):
    return prepare_text(CONFIG, shards)


@pytest.fixture(scope="module")
def sheet(subject, instruments):
    return measure(subject, instruments)


def spectrum(sheet, object_, site):
    (found,) = [s for s in sheet.spectra if (s["object"], s["site"]) == (object_, site)]
    return found


def value(sheet, quantity, object_, site):
    (found,) = [r for r in sheet.rows if (r["quantity"], r["object"], r["site"]) == (quantity, object_, site)]
    return found


def test_one_pass_gives_what_all_activations_at_once_do(subject, instruments, sheet, shards):
    chosen = TokenSequences(shards, LENGTH).take(instruments.which)
    assert chosen.shape == (40, LENGTH + 1)
    assert len(np.unique(instruments.which)) == 40
    (seen,) = subject.activations(chosen, subject.sites)
    # Of few blocks all are measured, of twelve the published ones, and always what the head reads.
    sites = [s["site"] for s in sheet.spectra if s["object"] == "activation"]
    assert sites == [*(f"blocks.{i}" for i in range(LAYERS)), "final"]
    for site in sites:
        found = spectrum(sheet, "activation", site)
        plain = covariance_spectrum(seen[site].flatten(0, 1))
        np.testing.assert_allclose(found["values"], plain.values, rtol=1e-8, atol=1e-12 * plain.values[0])
        assert (found["n"], found["d"], found["centred"]) == (40 * LENGTH, WIDTH, True)


def test_the_loss_is_that_of_the_first_sequences_with_its_standard_error(subject, instruments, sheet, shards):
    losses = (
        subject.losses(TokenSequences(shards, LENGTH).take(instruments.which[:10]))
        .double()
        .mean(dim=1)
        .numpy()
    )
    found = value(sheet, "val_loss", "loss", "validation")
    assert found["value"] == pytest.approx(float(losses.mean()), rel=1e-6)
    # A loss is above 0: Student's interval of its logarithm, to first order.
    half = stats.t.ppf(0.975, 9) * losses.std(ddof=1) / 10**0.5 / losses.mean()
    ends = np.log(losses.mean()) + half * np.array([-1, 1])
    assert np.log([found["low"], found["high"]]) == pytest.approx(ends, rel=1e-4)
    assert (found["step"], found["tokens"]) == (subject.step, subject.tokens)


@pytest.mark.parametrize("held", [13, 6, 5, 1])
def test_blocks_of_gradients_make_up_the_plain_spectrum(subject, instruments, shards, monkeypatch, held):
    chosen = TokenSequences(shards, LENGTH).take(instruments.gradient)
    plan = Blocks(13, held, captured=max(1, held // 2), bytes=0)
    monkeypatch.setattr(gradients, "plan_blocks", lambda *_: plan)
    sheet = measure(subject, instruments)
    names = [n for n in subject.matrices if n.endswith(CONFIG.gradient_matrices)]
    assert len(names) == 4 * LAYERS
    for name, factors in subject.gradient_factors(chosen, names).items():
        plain = stacked_gradient_spectrum(factors)
        found = spectrum(sheet, "gradient", name)
        np.testing.assert_allclose(found["values"], plain.values, atol=1e-6 * plain.values[0])
        assert (found["n"], found["d"], found["kind"]) == (13, subject.matrices[name].numel(), "singular")


@pytest.mark.parametrize("samples", [1, 2, 7, 12])
@pytest.mark.parametrize("held", [1, 3, 12])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_pair_of_blocks_is_compared_once_by_somebody(samples, held, size):
    blocks = Blocks(samples, min(held, samples), 1, 0)
    pairs = [tuple(sorted(p)) for rank in range(size) for p in blocks.pairs(ProcessGroup(rank, size))]
    assert sorted(pairs) == [(i, j) for i in range(blocks.count) for j in range(i, blocks.count)]
    # No row has more than one pair more than another.
    rows = [sum(i == row for i, _ in blocks.pairs(ProcessGroup())) for row in range(blocks.count)]
    assert max(rows) - min(rows) <= 1


def test_the_budget_sets_the_blocks(subject, instruments):
    chosen = instruments.take(instruments.gradient)
    names = ["blocks.0.attn.q", "blocks.0.attn.v", "blocks.1.mlp.proj"]
    ample = plan_blocks(subject, chosen, names, 1.0)
    assert (ample.held, ample.captured, ample.passes) == (13, 13, 1.0)
    factors, graph = gradient_blocks._footprint(subject, chosen[:1], names)
    beyond = gradient_blocks.OVERHEAD
    fixed = ample.bytes / beyond - 13 * (factors + graph)
    # All at once, then two sides of six, three and one sequence, each captured one by one.
    for sequences, held, passes in ((13, 13, 1.0), (12, 5, 2.0), (6, 3, 3.0), (2, 1, 7.0)):
        memory = beyond * (fixed + (sequences + 1) * factors + graph + 2) / 1e9
        plan = plan_blocks(subject, chosen, names, memory)
        assert (plan.held, plan.passes) == (held, passes)
        assert plan.captured >= 1
        assert plan.bytes <= memory * 1e9
    with pytest.raises(MeasureError, match=r"even one sequence at a time, and memory is .*; raise"):
        plan_blocks(subject, chosen, names, beyond * (fixed + 2 * factors + graph - 2) / 1e9)


def test_a_sequence_takes_what_its_factors_and_its_graph_take(subject, instruments):
    one, two = (instruments.take(instruments.gradient[:n]) for n in (1, 2))
    names = ["blocks.0.attn.o", "blocks.1.mlp.proj"]
    factors, graph = gradient_blocks._footprint(subject, one, names)
    assert factors == 4 * LENGTH * ((WIDTH + WIDTH) + (4 * WIDTH + WIDTH))
    doubled, larger = gradient_blocks._footprint(subject, two, names)
    # Weights are no part of it, so that it grows with the sequences.
    assert doubled == 2 * factors
    assert 1.8 < larger / graph <= 2.05


class Stopped(Exception):
    """A kill, as the measurement sees it."""


class Memory:
    """Keeps states as a file would, and kills after so many."""

    def __init__(self, lives):
        self.lives, self.state = lives, {}

    def load(self):
        return {name: t.clone() for name, t in self.state.items()}

    def keep(self, state):
        self.state = {name: t.clone() for name, t in state.items()}
        self.lives -= 1
        if self.lives == 0:
            raise Stopped


@pytest.mark.parametrize("lives", [1, 4, 7, 9])
def test_a_kill_anywhere_leaves_the_same_bits(subject, instruments, sheet, monkeypatch, lives):
    monkeypatch.setattr(gradients, "plan_blocks", lambda *_: Blocks(13, 5, 5, 0))
    plain = measure(subject, instruments)
    keeper = Memory(lives)
    with pytest.raises(Stopped):
        measure(subject, instruments, keeper=keeper, keep_seconds=0)
    keeper.lives = -1
    calls = []
    resumed = measure(
        subject, instruments, keeper=keeper, progress=lambda *told: calls.append(told), keep_seconds=0
    )
    assert len(calls) == 12 - lives
    assert repr(resumed.rows) == repr(plain.rows)
    assert resumed.spectra == plain.spectra


def test_other_blocks_than_were_kept_start_the_gradients_over(subject, instruments, sheet, monkeypatch):
    monkeypatch.setattr(gradients, "plan_blocks", lambda *_: Blocks(13, 5, 5, 0))
    keeper = Memory(8)
    with pytest.raises(Stopped):
        measure(subject, instruments, keeper=keeper, keep_seconds=0)
    assert int(keeper.state["gradients.pairs"]) == 2
    monkeypatch.setattr(gradients, "plan_blocks", lambda *_: Blocks(13, 13, 13, 0))
    keeper.lives = -1
    name = "blocks.0.attn.q"
    resumed = measure(subject, instruments, keeper=keeper)
    assert spectrum(resumed, "gradient", name) == spectrum(sheet, "gradient", name)


def test_untouched_matrices_have_no_gradient_spectrum(instruments, tmp_path):
    data = nanogpt_checkpoint()
    for name, tensor in data["model"].items():
        if "c_proj" in name:
            tensor.zero_()
    torch.save(data, tmp_path / "ckpt.pt")
    sheet = measure(load(tmp_path / "ckpt.pt"), instruments)
    q = value(sheet, "rankme", "gradient", "blocks.0.attn.q")
    assert (q["status"], "zero here" in q["reason"]) == ("not fitted", True)
    assert value(sheet, "rankme", "gradient", "blocks.0.attn.o")["status"] == "ok"


def test_windows_of_the_tier_that_do_not_fit_say_so(subject, shards):
    config = dataclasses.replace(CONFIG, windows=None, gradient_sequences=0)
    sheet = measure(subject, prepare_text(config, shards))
    alphas = {r["window"]: r for r in sheet.rows if (r["quantity"], r["site"]) == ("alpha", "final")}
    assert set(alphas) == {"1-10", "10-40", "40-90", "90-200"}
    assert alphas["1-10"]["status"] != "not fitted"
    assert alphas["10-40"]["status"] == "not fitted"
    assert alphas["10-40"]["reason"]
    assert not [r for r in sheet.rows if r["object"] == "gradient"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"tokens": 100 * LENGTH},
            r"asks for 100 sequences of 12 tokens and the data hold 66; lower it to 792",
        ),
        ({"gradient_sequences": 67}, r"gradient_sequences asks for 67 .* to 66"),
        ({"tokens": LENGTH}, "less than two sequences"),
        ({"batch": 3}, "less than one sequence"),
        ({"windows": ((5, 6),)}, "1 ≤ first ≤ last − 2"),
        ({"memory": 0.0}, "must be positive"),
        ({"gradient_sequences": 1}, "needs 2 or more"),
        ({"gradient_matrices": ()}, "name endings"),
        ({"pooling": "most"}, "choose 'token'"),
    ],
)
def test_what_cannot_be_measured_is_refused(shards, change, says):
    with pytest.raises(MeasureError, match=says):
        prepare_text(dataclasses.replace(CONFIG, **change), shards)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sites": ("blocks.9",)}, r"unknown sites blocks\.9; this model has embed"),
        ({"windows": ((10, 40),)}, "have rank 16 at most"),
        ({"gradient_matrices": ("nowhere",)}, "no matrix with per-sample gradients ends in nowhere"),
        ({"gradient_matrices": ("attn.o", "nowhere")}, "no matrix with per-sample gradients ends in nowhere"),
        ({"length": 13}, "length is 13 and this model takes 12 inputs at most; lower it to 12"),
    ],
)
def test_what_this_model_does_not_have_is_refused(subject, shards, change, says):
    with pytest.raises(MeasureError, match=says):
        measure(subject, prepare_text(dataclasses.replace(CONFIG, **change), shards))


def letters(word):
    """A vocabulary of single letters and of " x" words."""
    return [ord(word[-1]) % VOCAB] if len(word) == 1 or word.startswith(" ") else [0] * len(word)


def test_families_are_probed_as_the_bands_of_the_toy(subject, shards):
    config = dataclasses.replace(CONFIG, families=("digits", "some=a,b,c,d,e"), gradient_sequences=0)
    sheet = measure(subject, prepare_text(config, shards, letters))
    rows = {(r["quantity"], r["site"], which(r)): r for r in sheet.rows if r["object"] == "table"}
    table = subject.matrices["embed"][[ord(c) % VOCAB for c in "0123456789"]].double().numpy()
    peak = rows["h_peak", "embed", "digits"]
    assert peak["value"] == pytest.approx(h_peak(table), rel=1e-6)
    assert 0 < peak["null"] < peak["null_high"] < 0.5
    # All frequencies of a small cycle favour the task: H_S stands on the chosen pairs alone.
    assert {d for q, _, d in rows if q == "h_s"} == {"digits peak", "digits top3", "some peak"}
    # The head is the embedding here.
    assert {site for _, site, _ in rows} == {"embed"}


def test_a_cycle_in_the_embedding_is_found(subject, shards):
    cycle = torch.tensor([[np.cos(2 * np.pi * m / 7), np.sin(2 * np.pi * m / 7)] for m in range(7)])
    table = subject.matrices["embed"].clone()
    table[3:10, :2] = 30 * cycle.float()
    sheet = measure(
        subject.with_matrix("embed", table),
        dataclasses.replace(
            prepare_text(dataclasses.replace(CONFIG, gradient_sequences=0), shards),
            families=(Family("week", tuple(range(3, 10))),),
        ),
    )
    peak = value(sheet, "h_peak", "table", "embed")
    assert peak["value"] > 0.45 > peak["null_high"]
    assert value(sheet, "dominant_frequency", "table", "embed")["value"] == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("seasons", "no family is called 'seasons'; presets are digits"),
        ("numbers", "'10' of family 'numbers' is 2 tokens in this vocabulary"),
        ("two=a,b", "has 2 tokens"),
        ("=a,b,c", "a cycle has a name"),
        ("again=a,b,c,a", "names a token twice"),
    ],
)
def test_families_that_are_none(given, says):
    with pytest.raises(MeasureError, match=says):
        families([given], letters)


def test_families_from_a_file_and_beyond_the_model(subject, instruments, tmp_path):
    (tmp_path / "own.txt").write_text("# mine\nweek= m, t, w\n\nhex=a,b,c\n")
    given = read_families(["digits", str(tmp_path / "own.txt"), "x=p,q,r"])
    assert given == ("digits", "week= m, t, w", "hex=a,b,c", "x=p,q,r")
    assert [f.name for f in families(given, letters)] == ["digits", "week", "hex", "x"]
    with pytest.raises(MeasureError, match="is no family: presets are"):
        read_families(["nowhere.txt"])
    with pytest.raises(MeasureError, match="need the vocabulary"):
        families(["digits"], None)
    beyond = dataclasses.replace(instruments, families=(Family("far", (1, 2, VOCAB)),))
    with pytest.raises(MeasureError, match="has token 29 and the model a vocabulary of 29"):
        measure(subject, beyond)


def test_the_default_families_are_those_of_the_vocabulary():
    kept, note = default_families(letters, 29, 29)
    assert kept == ("digits", "weekdays", "months")
    assert "29 tokens lacks: numbers ('10' is 2 tokens); measured are digits, weekdays, months" in note
    assert default_families(lambda word: [0], 29, 32) == (tuple(PRESETS), "")
    kept, note = default_families(lambda word: [0, 0], 29, 29)
    assert (kept, note.endswith("; no families are measured")) == ((), True)
    kept, note = default_families(letters, 30, 29)
    assert (kept, "30 tokens and the model 29" in note) == ((), True)


def test_what_is_left_open_follows_from_the_model_and_the_text():
    wishes = LmOptions(top_k=2)
    assert [wishes.length_for(longest) for longest in (None, 12, 2_048)] == [1_024, 12, 1_024]
    plenty = wishes.settled(1_024, 10**6, ("digits",))
    assert plenty == LmMeasureConfig(top_k=2, families=("digits",))
    scarce = wishes.settled(12, 100, ())
    assert (scarce.length, scarce.tokens, scarce.gradient_sequences) == (12, 1_200, 100)
    named = LmOptions(tokens=60, length=6, gradient_sequences=0, families=())
    assert named.settled(6, 3, ("digits",)) == LmMeasureConfig(60, 6, gradient_sequences=0, families=())
    with pytest.raises(MeasureError, match="less than two sequences of 12"):
        wishes.settled(12, 1, ())


@pytest.mark.parametrize(("n", "d", "centred"), [(17_000, 20, True), (20, 40_000, False), (20, 40_000, True)])
def test_the_null_of_a_long_side_has_the_law_of_drawn_entries(n, d, centred):
    # Above the limit the eigenvalues are drawn in place of the entries: the same mean spectrum, within its spread.
    long = [s.values / s.values.mean() for s in noise_spectra(n, d, centred)]
    generator = np.random.default_rng(1)
    drawn = [covariance_spectrum(generator.standard_normal((n, d)), center=centred).values for _ in range(8)]
    shares = [values / values.mean() for values in drawn]
    np.testing.assert_allclose(np.mean(long, axis=0), np.mean(shares, axis=0), atol=0.01)
    np.testing.assert_allclose(noise_spectra(n, d, centred)[0].values.sum(), drawn[0].sum(), rtol=0.02)
