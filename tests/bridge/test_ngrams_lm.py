"""Agreement of language models with the n-grams of their training text: in training, afterwards, of other models."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from simulated import simulated_device
from training_runs import VOCABULARY, arguments, make_shards

from sims import cli
from sims.measure import ngram_laws
from sims.measure.engine import measure
from sims.measure.lm_prepare import Text
from sims.measure.measurement import Batch, Job
from sims.measure.ngrams import NGRAMS, Ngrams, grouped_mean, rank_correlation
from sims.models.checkpoints import CheckpointRun
from sims.models.stack import SubjectStack
from sims.runs.columns import WHICH
from sims.runs.lm_measure_config import LmMeasureConfig, LmOptions
from sims.runs.store import run_folders
from sims.system.errors import MeasureError, StoreError
from sims.system.process_group import SINGLE
from sims.text.shards import read_shard, write_shard
from theory.ranges import SHARE

END = 99
NGRAM_ROWS = "object == 'ngram'"
MEASURING = (
    *("--measure", "--measuring.tokens", "512", "--measuring.batch", "128", "--measuring.ngrams"),
    *("--measuring.ngram-positions", "60", "--measuring.gradient-sequences", "0"),
)
CONFIG = LmMeasureConfig(
    tokens=560, length=16, batch=64, gradient_sequences=0, families=(), ngrams=True, ngram_positions=150
)
ORDERS = {"1-gram": 1, "2-gram": 2, "3-gram": 3, "5-gram": 5, "∞-gram": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Walks with an end-of-text token of END, which the walk comes by now and then."""
    folder = make_shards(tmp_path_factory.mktemp("lm") / "shards")
    record = {"tokenizer": {"vocabulary": VOCABULARY, "end": END}}
    (folder / "data.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def shards(made, tmp_path):
    """A copy that a test may change, without what was counted."""
    return Path(shutil.copytree(made, tmp_path / "shards", ignore=shutil.ignore_patterns("measured")))


@pytest.fixture(scope="module")
def trained(made):
    assert cli.main(arguments(made, made.parent / "out", "--stage", "untied", *MEASURING)) == 0
    return next(iter(run_folders(made.parent / "out")))


def data_of(shards, config=CONFIG):
    return Text.of(shards, "val", families=False).measurement_data(config, "cpu", 128)


def subject_of(folder):
    return CheckpointRun.of(folder.path)[-1]


@pytest.mark.slow
def test_training_and_its_stored_checkpoints_give_the_same_rows(trained, shards, tmp_path):
    rows = trained.rows().query(NGRAM_ROWS)
    steps = len(trained.checkpoints())
    each = {"ngram_correlation": 5, "ngram_frequency_correlation": 4, "ngram_divergence": 2}
    each |= {"ngram_share": 8, "ngram_accuracy": 3, "ngram_length_share": 7}
    assert dict(Counter(rows["quantity"])) == {quantity: n * steps for quantity, n in each.items()}
    assert steps > 3
    assert set(rows["status"]) <= {"ok", "not fitted"}
    assert json.loads((trained.path / "run.json").read_text())["measured"]["ngrams"] == 1
    after = ["measure", str(trained.path), "--data", str(shards), "--out", str(tmp_path / "after")]
    after += [a.replace("measuring.", "") for a in MEASURING[1:]]
    assert cli.main([*after, "--families", "--device", "cpu"]) == 0
    (measured,) = run_folders(tmp_path / "after")
    keys = ["step", "object", "site", "quantity", *WHICH]
    ours, theirs = (r.query(NGRAM_ROWS).set_index(keys)["value"] for r in (rows, measured.rows()))
    assert ours.sort_index().equals(theirs.sort_index())


def slow_law(tokens, context, order):
    """Return the counts of what follows the last order − 1 tokens of a context, or the longest ending that occurs."""
    begins = [i for i, token in enumerate(context) if token == END]
    context = context[begins[-1] :] if begins else context
    sizes = range(len(context), -1, -1) if order is None else [min(order - 1, len(context))]
    for size in sizes:
        ending = context[len(context) - size :]
        places = range(len(tokens) - size)
        found = Counter(tokens[i + size] for i in places if tokens[i : i + size] == ending)
        if found or order is not None:
            return found, size
    raise AssertionError


def rank_correlation_of(pairs):
    return np.corrcoef(stats.rankdata(np.array(pairs), axis=0), rowvar=False)[0, 1]


def test_every_row_is_that_of_counts_in_lists(trained, shards):
    subject, data = subject_of(trained), data_of(shards)
    rows = {(r["quantity"], r["detail"]): r for r in measure(subject, data, measurements=[NGRAMS]).rows}
    held = data.held_out.positions
    tokens = [
        int(t) for name in ("train_000001", "train_000002") for t in read_shard(shards / f"text_{name}.bin")
    ]
    log_p = subject.log_probs(data.take(data.which)).numpy().astype(float)
    said = [log_p[row, place] for row, place in zip(held.rows, held.places, strict=True)]
    sequences = data.take(data.which).numpy()
    contexts = [sequences[r, : p + 1].tolist() for r, p in zip(held.rows, held.places, strict=True)]
    comes = [int(sequences[r, p + 1]) for r, p in zip(held.rows, held.places, strict=True)]
    assert any(END in context for context in contexts)
    laws = {name: [slow_law(tokens, c, n) for c in contexts] for name, n in ORDERS.items()}
    chances = {
        name: [found[w] / max(sum(found.values()), 1) for (found, _), w in zip(own, comes, strict=True)]
        for name, own in laws.items()
    }
    for name in ORDERS:
        known = [i for i, p in enumerate(chances[name]) if p > 0]
        ranked = [(chances[name][i], said[i][comes[i]]) for i in known]
        expected = rank_correlation_of(ranked)
        row = rows["ngram_correlation", name]
        assert row["value"] == pytest.approx(expected, abs=1e-9)
        assert row["low"] < row["value"] < row["high"]
        assert (row["null"], row["null_high"]) == (0, pytest.approx(1.96 / math.sqrt(len(known) - 1)))
        assert rows["ngram_share", name]["value"] == pytest.approx(len(known) / len(comes))
        if name != "1-gram":
            pairs = [(chances[name][i], chances["1-gram"][i]) for i in known]
            expected = rank_correlation_of(pairs)
            assert rows["ngram_frequency_correlation", name]["value"] == pytest.approx(expected, abs=1e-9)
    for name in ("1-gram", "2-gram"):
        own, level = [], []
        for (found, _), q in zip(laws[name], said, strict=True):
            if total := sum(found.values()):
                own.append(sum(c / total * (math.log(c / total) - q[w]) for w, c in found.items()))
                level.append(sum(c / total * math.log(c / total * len(q)) for c in found.values()))
        assert rows["ngram_divergence", name]["value"] == pytest.approx(np.mean(own), abs=1e-6)
        assert rows["ngram_divergence", name]["null"] == pytest.approx(np.mean(level))

    def likeliest(found):
        return min((w for w, c in found.items() if c == max(found.values())), default=-1)

    kinds: dict[str, list[int]] = {"trigram right": [], "longer context": [], "neither": []}
    for i, w in enumerate(comes):
        right = [likeliest(laws[name][i][0]) == w for name in ("3-gram", "∞-gram")]
        kinds["trigram right" if right[0] else "longer context" if right[1] else "neither"].append(i)
    common = likeliest(Counter(tokens))
    for name, chosen in kinds.items():
        assert rows["ngram_share", name]["value"] == pytest.approx(len(chosen) / len(comes))
        assert chosen or rows["ngram_accuracy", name]["status"] == "not fitted"
        if chosen:
            right = np.mean([said[i].argmax() == comes[i] for i in chosen])
            assert rows["ngram_accuracy", name]["value"] == pytest.approx(right)
            assert rows["ngram_accuracy", name]["null"] == np.mean([comes[i] == common for i in chosen])
    sizes = [size for _, size in laws["∞-gram"]]
    shares = {"≤3": np.mean([s <= 3 for s in sizes]), ">8": np.mean([s > 8 for s in sizes])}
    shares |= {str(k): np.mean([s == k for s in sizes]) for k in range(4, 9)}
    assert {d: r["value"] for (q, d), r in rows.items() if q == "ngram_length_share"} == pytest.approx(shares)


def test_intervals_over_sequences_cover_as_often_as_they_say():
    # Positions of a sequence share a half of what varies; the shares of right ones are 0.4 in the mean.
    rng, covered, repeats = np.random.default_rng(0), np.zeros(2), 100

    def drawn(n):
        groups = np.repeat(np.arange(n), 1 + rng.poisson(7, n))
        common, own = rng.normal(size=n)[groups], rng.normal(size=(2, len(groups)))
        right = rng.random(len(groups)) < rng.beta(2, 3, n)[groups]
        return np.column_stack([common + own[0], common + own[1]]), right.astype(float), groups

    true = 6 / np.pi * np.arcsin(0.5 / 2)
    for _ in range(repeats):
        pairs, right, groups = drawn(30)
        for k, (found, at) in enumerate(
            [(rank_correlation(pairs, groups), true), (grouped_mean(right, groups, SHARE), 0.4)]
        ):
            covered[k] += found.low <= at <= found.high
    assert ((covered / repeats > 0.9) & (covered / repeats < 0.99)).all()


def test_positions_depend_on_their_seed_and_have_whole_contexts():
    rows, places = ngram_laws.draw_positions(40, 16, 200, seed=3)
    assert (places.min(), places.max()) == (3, 15)
    assert (np.diff(rows) >= 0).all()
    assert len(set(zip(rows.tolist(), places.tolist(), strict=True))) == 200
    again, other = (ngram_laws.draw_positions(40, 16, 200, seed) for seed in (3, 4))
    assert np.array_equal(again, (rows, places))
    assert not np.array_equal(other, (rows, places))
    every = ngram_laws.draw_positions(2, 5, 4, seed=0)
    assert np.array_equal(every, ([0, 0, 1, 1], [3, 4, 3, 4]))


def test_a_pass_that_is_divided_or_taken_up_again_gives_the_same(trained, shards):
    subject, data = subject_of(trained), data_of(shards)
    job = Job(SubjectStack([subject]), data, SINGLE)

    def fed(gatherer, parts):
        for part in parts:
            states = next(iter(subject.activations(data.tokens(part), ("final",))))["final"]
            gatherer.batch(Batch(part.start, data.tokens(part), {"final": states[None]}))
        return gatherer

    parts = data.batches(last=False)
    whole = fed(Ngrams(job), parts)
    first, second = (fed(Ngrams(job), own) for own in (parts[::2], parts[1::2]))
    torch.testing.assert_close(first.values + second.values, whole.values, rtol=0, atol=0)
    resumed = Ngrams(job)
    resumed.load_state_dict(first.state_dict())
    torch.testing.assert_close(fed(resumed, parts[1::2]).values, whole.values, rtol=0, atol=0)


def test_agreement_is_measured_on_the_device_as_on_a_processor(trained, shards):
    expected = measure(subject_of(trained), data_of(shards), measurements=[NGRAMS]).rows
    with simulated_device():
        subject = CheckpointRun.of(trained.path, device="cuda")[-1]
        data = Text.of(shards, "val", families=False).measurement_data(CONFIG, "cuda", 128)
        found = measure(subject, data, measurements=[NGRAMS]).rows
    for one, other in zip(found, expected, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-5, nan_ok=True), one


def test_counts_are_kept_beside_the_shards_until_something_changes(shards, monkeypatch, recwarn):
    found = data_of(shards).held_out.laws
    kept = set((shards / "measured").iterdir())
    assert len(kept) == 1

    def fail(*_):
        raise AssertionError("counted again")

    with monkeypatch.context() as patch:
        patch.setattr(ngram_laws.Continuations, "of", fail)
        again = data_of(shards).held_out.laws
        with pytest.raises(AssertionError, match="counted again"):
            _ = data_of(shards, replace(CONFIG, data_seed=1)).held_out
    for n in found.orders:
        np.testing.assert_array_equal(found.orders[n], again.orders[n])
    np.testing.assert_array_equal(found.lengths, again.lengths)
    np.testing.assert_array_equal(found.unigram, again.unigram)
    assert {w: p.tolist() for w, p in found.chances.items()} == {
        w: p.tolist() for w, p in again.chances.items()
    }
    first = shards / "text_train_000001.bin"
    write_shard(first, np.array(read_shard(first))[::-1])
    changed = data_of(shards).held_out.laws
    assert not np.array_equal(changed.orders[2], found.orders[2], equal_nan=True)
    assert set((shards / "measured").iterdir()) > kept
    assert not recwarn


def test_a_vocabulary_that_lacks_a_token_is_refused_also_where_it_was_counted_before(shards):
    data = data_of(shards)
    held, text = data.held_out.positions, data.training
    sequences = data.data.take(data.which[held.rows]).numpy()
    with pytest.raises(StoreError, match="vocabulary"):
        ngram_laws.held_out(sequences, held.rows, held.places, replace(text, vocabulary=END))


def test_laws_are_laws(shards):
    laws = data_of(shards).held_out.laws
    assert laws.unigram.sum() == pytest.approx(1, abs=1e-12)
    assert all(p.sum() == pytest.approx(1, abs=1e-12) for p in laws.chances.values() if len(p))
    assert sum(laws.length_shares().values()) == pytest.approx(1, abs=1e-12)
    # A law of a longer context exists where it occurs, and that of the longest always.
    assert np.isfinite(laws.orders[ngram_laws.INFINITE]).all()
    assert np.isnan(laws.orders[5]).sum() >= np.isnan(laws.orders[3]).sum() >= np.isnan(laws.orders[2]).sum()
    assert not (laws.trigram & laws.longer).any()


def test_a_text_without_its_end_token_keeps_no_documents_apart(shards):
    (shards / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": 200, "end": 150}}))
    with pytest.warns(UserWarning, match="do not hold token 150"):
        _ = data_of(shards).held_out


def test_checkpoints_of_other_models_are_measured_on_given_shards(shards, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 128, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 16}
    for step in (0, 1, 8):
        torch.manual_seed(step)
        model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes))
        model.save_pretrained(tmp_path / "pythia-tiny" / f"step{step}")
    command = [
        "measure",
        str(tmp_path / "pythia-tiny"),
        "--data",
        str(shards),
        "--out",
        str(tmp_path / "out"),
    ]
    command += ["--ngrams", "--tokens", "560", "--batch", "64", "--tokens-per-step", "64", "--device", "cpu"]
    command += ["--gradient-sequences", "0", "--families"]
    assert cli.main(command) == 0
    (folder,) = run_folders(tmp_path / "out")
    rows = folder.rows().query("quantity == 'ngram_correlation'")
    assert sorted(rows["step"].unique()) == [0, 1, 8]
    assert set(rows["status"]) == {"ok"}
    assert "ngram_positions 1600 → 455" in capsys.readouterr().err
    # The text that is counted is part of what was measured.
    first = shards / "text_train_000001.bin"
    write_shard(first, np.array(read_shard(first))[::-1])
    assert cli.main(command) != 0
    assert "another configuration" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused(shards, tmp_path):
    single = Path(shards / "text_val_000000.bin")
    for data, split in ((single, "val"), (shards, "train"), (shards, "")):
        with pytest.raises(MeasureError, match="training shards beside it"):
            Text.of(data, split, families=False).measurement_data(CONFIG, "cpu", 128)
    only = tmp_path / "only"
    only.mkdir()
    write_shard(only / "text_val_000000.bin", np.arange(600) % 90)
    with pytest.raises(MeasureError, match="training shards beside it"):
        data_of(only)
    with pytest.raises(MeasureError, match="35 measured sequences have 455 positions"):
        data_of(shards, replace(CONFIG, ngram_positions=456))
    with pytest.raises(MeasureError, match="ngrams is not set"):
        replace(CONFIG, ngrams=False)
    with pytest.raises(MeasureError, match="at least 20"):
        replace(CONFIG, ngram_positions=19)
    with pytest.raises(MeasureError, match="at least 20"):
        LmOptions(ngrams=True).settled(3, 100, ())
    data = data_of(shards)
    (shards / "text_train_000001.bin").write_bytes(b"nothing")
    with pytest.raises(StoreError, match="was cut, or is"):
        _ = data.held_out


def test_settings_of_runs_without_them_stay(shards):
    plain = replace(CONFIG, ngrams=False, ngram_positions=LmMeasureConfig.ngram_positions)
    assert "text" not in data_of(shards, plain).offers
    assert LmOptions().settled(16, 35, ()).ngram_positions == 1_600
    assert LmOptions(ngrams=True).settled(16, 35, ()).ngram_positions == 455
