"""Splits, overlap, probes and training bands."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from toymodel import DyckDepth, TaskConfig
from toymodel.data import Dataset, make_dataset
from toymodel.errors import ConfigError
from toymodel.tasks.modular_walk_probes import PUBLISHED_BANDS, probe_split, training_bands

SMALL = TaskConfig(vocab=64, length=16, train=2000, val=300, test=400)
MIXED = replace(SMALL, components_max=3, pareto=1.5, noise=0.8, noise_df=5.0)


@pytest.fixture(scope="module")
def published() -> Dataset:
    return make_dataset(TaskConfig())


def rows(tokens: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(row) for row in tokens.tolist()]


def test_published_shapes_and_overlap(published: Dataset):
    assert published.train.tokens.shape == (32_000, 65)
    assert published.val.tokens.shape == (2_048, 65)
    assert published.test.tokens.shape == (4_096, 65)
    assert {split.tokens.dtype for split in (published.train, published.val, published.test)} == {
        np.dtype(np.int16)
    }
    seen = set(rows(published.train.tokens))
    assert published.overlap == np.mean([row in seen for row in rows(published.val.tokens)])
    assert published.test_overlap == np.mean([row in seen for row in rows(published.test.tokens)])
    # About a fifth; six seeds gave .193 to .221.
    assert 0.18 < published.overlap < 0.24
    assert 0.18 < published.test_overlap < 0.24


def test_published_bands_never_occur_in_training(published: Dataset):
    latents = published.train.latents
    for c, o in PUBLISHED_BANDS:
        assert not ((latents.modulus == c) & (latents.offset == o)).any()


def test_inputs_and_targets_are_one_step_apart(published: Dataset):
    assert published.val.inputs.shape == published.val.targets.shape == (2_048, 64)
    assert (published.val.inputs[:, 1:] == published.val.targets[:, :-1]).all()
    assert len(published.val) == 2_048


def test_splits_have_streams_of_their_own():
    base = make_dataset(SMALL)
    more_train = make_dataset(replace(SMALL, train=2500))
    more_val = make_dataset(replace(SMALL, val=350))
    assert (base.val.tokens == more_train.val.tokens).all()
    assert (base.test.tokens == more_train.test.tokens).all()
    assert (base.train.tokens == more_val.train.tokens).all()
    assert (base.test.tokens == more_val.test.tokens).all()
    # Equal sizes would reveal a stream shared between splits.
    same = make_dataset(replace(SMALL, train=400, val=400, test=400))
    assert not (same.train.tokens == same.val.tokens).all(axis=1).all()
    assert not (same.val.tokens == same.test.tokens).all(axis=1).all()


@pytest.mark.parametrize(
    "config", [SMALL, MIXED, replace(SMALL, unique_val=True)], ids=["band", "mixed", "unique"]
)
def test_same_config_same_data_other_seed_other_data(config: TaskConfig):
    first, again, other = (make_dataset(c) for c in (config, config, replace(config, seed=1)))
    for name in ("train", "val", "test"):
        assert (getattr(first, name).tokens == getattr(again, name).tokens).all()
        assert (getattr(first, name).tokens != getattr(other, name).tokens).any()
        assert (getattr(first, name).latents.weights == getattr(again, name).latents.weights).all()
    assert first.metadata == again.metadata
    assert first.metadata["sha256"] != other.metadata["sha256"]


def test_data_and_latents_are_read_only():
    for config in (MIXED, replace(SMALL, unique_val=True)):
        split = make_dataset(config).val
        for array in (split.tokens, split.inputs, split.latents.modulus, split.latents.weights):
            with pytest.raises(ValueError, match="read-only"):
                array[0, 0] = 1


def test_unique_val_removes_every_overlap_and_keeps_sizes():
    plain, unique = make_dataset(SMALL), make_dataset(replace(SMALL, unique_val=True))
    assert plain.overlap > 0.1
    assert (unique.overlap, unique.test_overlap) == (0.0, 0.0)
    assert (plain.train.tokens == unique.train.tokens).all()
    seen = set(rows(unique.train.tokens))
    for split, size in ((unique.val, 300), (unique.test, 400)):
        assert len(split) == size == len(split.latents)
        assert seen.isdisjoint(rows(split.tokens))
        state = split.tokens - split.latents.offset
        c, d = split.latents.modulus, split.latents.step
        assert (state[:, 1:] == (state[:, :-1] + d) % c).all()
    # Rejection keeps the order of the draws: what survives of the plain split comes first.
    kept = [row for row in rows(plain.val.tokens) if row not in seen]
    assert rows(unique.val.tokens)[: len(kept)] == kept


def test_unique_val_says_when_nothing_is_left():
    with pytest.raises(ConfigError, match=r"outside training.*raise vocab or length, lower train"):
        make_dataset(TaskConfig(vocab=5, length=8, train=4000, val=50, test=50, unique_val=True))


def test_golden_data():
    # Changes only when the data of every recorded run change: say so in the changelog, then update.
    data = make_dataset(replace(MIXED, train=50, val=20, test=20, unique_val=True))
    tokens = np.concatenate([data.train.tokens, data.val.tokens, data.test.tokens])
    assert hashlib.sha256(tokens.tobytes()).hexdigest()[:16] == "f399733f22dd9a51"


@pytest.mark.parametrize(("c", "o"), PUBLISHED_BANDS)
def test_clean_probe_is_the_band_alone(c: int, o: int):
    probe = probe_split(replace(TaskConfig(), components_max=3, noise=2.0), c, o, n=500)
    assert probe.tokens.shape == (500, 65)
    assert probe.states.shape == (500, 64)
    assert (probe.inputs == probe.states + o).all()
    assert (probe.latents.modulus == c).all()
    assert (probe.latents.count == 1).all()
    step = probe.latents.step
    assert (probe.states[:, 1:] == (probe.states[:, :-1] + step) % c).all()
    assert step.min() >= c // 8
    assert np.bincount(probe_split(TaskConfig(), c, o).states[:, -1], minlength=c).min() > 0


def test_matched_probe_equals_clean_where_training_is_one_clean_band():
    clean, matched = (probe_split(TaskConfig(), 97, 200, n=300, regime=r) for r in ("clean", "matched"))
    assert (clean.tokens == matched.tokens).all()
    assert (clean.states == matched.states).all()


def test_matched_probe_adds_what_training_adds():
    config = replace(TaskConfig(train=12_000), components_min=1, components_max=3, pareto=1.5, noise=1.0)
    clean, matched = (probe_split(config, 97, 200, n=6000, regime=r) for r in ("clean", "matched"))
    assert (clean.states == matched.states).all()
    assert (matched.latents.modulus[:, 0] == 97).all()
    assert (matched.latents.offset[:, 0] == 200).all()
    training = make_dataset(config).train.latents
    others = matched.latents.weights[:, 1:] > 0
    theirs = training.weights[:, 1:] > 0
    for name in ("modulus", "offset", "weights"):
        ours, target = getattr(matched.latents, name)[:, 1:][others], getattr(training, name)[:, 1:][theirs]
        assert stats.ks_2samp(ours, target).pvalue > 1e-3, name
    assert stats.chisquare(np.bincount(matched.latents.count)[1:]).pvalue > 1e-3
    # Noise: the single-component sequences still differ from the clean ones, by less than 6 tokens.
    alone = matched.latents.count == 1
    displaced = matched.tokens[alone].astype(int) - clean.tokens[alone]
    assert 0 < np.abs(displaced).max() < 6
    assert displaced.var() == pytest.approx(1 + 1 / 12, abs=0.02)


def test_probe_depends_on_its_own_seed_only():
    base = probe_split(TaskConfig(), 97, 200, n=200)
    assert (probe_split(TaskConfig(seed=5, train=10), 97, 200, n=200).tokens == base.tokens).all()
    assert (probe_split(TaskConfig(), 97, 200, n=200, seed=1).tokens != base.tokens).any()


@pytest.mark.parametrize("c_min", [5, 20])  # the smallest bands meet themselves in a mixture
@pytest.mark.parametrize("config", [SMALL, MIXED], ids=["band", "mixed"])
def test_training_bands_count_sequences(config: TaskConfig, c_min: int):
    data = make_dataset(config)
    latents = data.train.latents
    counter: Counter[tuple[int, int]] = Counter()
    for i in range(len(data.train)):
        counter.update(
            {
                (int(latents.modulus[i, j]), int(latents.offset[i, j]))
                for j in range(int(latents.count[i]))
                if latents.modulus[i, j] >= c_min
            }
        )
    expected = sorted(((-n, c, o) for (c, o), n in counter.items()))[:7]
    bands = training_bands(data, 7, c_min=c_min)
    assert [(-band.sequences, band.c, band.o) for band in bands] == expected
    assert [band.frequency for band in bands] == [-n / 2000 for n, _, _ in expected]


def test_training_bands_and_probes_name_what_is_wrong():
    data = make_dataset(SMALL)
    with pytest.raises(ConfigError, match=r"k is 4 but the training split contains \d bands with c ≥ 64"):
        training_bands(data, 4, c_min=64)
    with pytest.raises(ConfigError, match=r"k is 0; it must be at least 1"):
        training_bands(data, 0)
    for arguments, message in (
        ({"c": 97, "o": 200}, r"probe band 97:200 has modulus 97, outside the task's 5\.\.64"),
        ({"c": 4, "o": 0}, r"probe band 4:0 has modulus 4, outside"),
        ({"c": 31, "o": 34}, r"probe band 31:34 covers tokens 34\.\.64.*pass an offset from 0 to 33"),
        ({"c": 31, "o": -1}, r"probe band 31:-1"),
        ({"c": 31, "o": 20, "n": 0}, r"n is 0"),
        ({"c": 31, "o": 20, "seed": -2}, r"seed is -2"),
        ({"c": 31.0, "o": 20}, r"c is 31\.0; pass an integer"),
        ({"c": 31, "o": 20, "n": 2.5}, r"n is 2\.5; pass an integer"),
        ({"c": 31, "o": 20, "seed": True}, r"seed is True; pass an integer"),
        ({"c": 31, "o": 20, "regime": "noisy"}, r"regime is 'noisy'; pass 'clean' or 'matched'"),
    ):
        with pytest.raises(ConfigError, match=message):
            probe_split(SMALL, **arguments)
    assert probe_split(SMALL, np.int64(31), 33, n=50).tokens.max() == 63
    with pytest.raises(ConfigError, match=r"k is 1\.5; pass an integer"):
        training_bands(data, 1.5)
    with pytest.raises(
        ConfigError, match=r"the task is dyck_depth; bands \(c, o\) exist for modular_walks only"
    ):
        probe_split(DyckDepth(), 31, 20)


def test_training_bands_of_odd_modulus():
    data = make_dataset(TaskConfig(vocab=64, length=8, train=4_000, val=16, test=16))
    odd = training_bands(data, 5, 17, odd=True)
    assert all(band.c % 2 == 1 and band.c >= 17 for band in odd)
    # They are the odd ones among all bands, in the same order.
    everything = training_bands(data, 60, 17)
    assert [b for b in everything if b.c % 2][:5] == list(odd)
