"""Spectra of token windows: the sparse route against the plain one, and the laws that hold for independent tokens."""

import numpy as np
import pandas as pd
import pytest

from sims import cli
from sims.studies.token_windows import token_windows
from sims.studies.token_windows.token_windows import read_windows, shuffled, window_spectrum
from sims.system.errors import MeasureError
from sims.text.shards import write_shard
from spectra import covariance_spectrum

ZIPF = 1 / np.arange(1, 41)


def drawn(n, length, seed=0):
    """(n, T) independent tokens, frequent ones first, with gaps in the vocabulary."""
    return 7 * np.random.default_rng(seed).choice(len(ZIPF), (n, length), p=ZIPF / ZIPF.sum()) + 3


def counted(windows):
    """The oracle's rows: counts over √T, one loop a token."""
    rows = np.zeros((len(windows), windows.max() + 1))
    for row, window in zip(rows, windows, strict=True):
        for token in window:
            row[token] += windows.shape[1] ** -0.5
    return rows


@pytest.mark.parametrize("dense", [0, 4096])
def test_both_routes_are_the_covariance_of_the_counts(monkeypatch, dense):
    monkeypatch.setattr(token_windows, "DENSE", dense)
    windows = drawn(200, 8)
    plain = covariance_spectrum(counted(windows))
    found = window_spectrum(windows, 12)
    np.testing.assert_allclose(found.spectrum.values[:12], plain.values[:12], rtol=1e-6)
    assert found.total == pytest.approx(plain.trace, rel=1e-12)
    assert (found.spectrum.n, found.spectrum.d) == (200, len(np.unique(windows)))
    assert len(found.spectrum) == (12 if dense == 0 else len(np.unique(windows)))
    assert found.shares[0] == pytest.approx(plain.shares[0], rel=1e-6)


def test_single_tokens_have_the_spectrum_of_their_frequencies():
    windows = drawn(500, 1)
    p = np.unique(windows, return_counts=True)[1] / 500
    expected = np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))[::-1] * 500 / 499
    found = window_spectrum(windows).spectrum.values
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-12)


def test_independent_tokens_have_one_spectrum_at_every_length_and_topics_do_not():
    p = ZIPF / ZIPF.sum()
    expected = np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))[::-1]
    for length in (4, 32):
        found = window_spectrum(drawn(20_000, length, seed=length)).spectrum.values
        np.testing.assert_allclose(found[:10], expected[:10], rtol=0.1)
    # Two topics: each window has the tokens of one of them.
    topics = drawn(4000, 16) + 1000 * np.random.default_rng(1).integers(0, 2, (4000, 1))
    assert window_spectrum(topics).shares[0] > 3 * window_spectrum(shuffled(topics)).shares[0]


def test_shuffling_keeps_the_tokens():
    windows = drawn(50, 6)
    again = shuffled(windows)
    assert again.shape == windows.shape
    np.testing.assert_array_equal(np.sort(again.ravel()), np.sort(windows.ravel()))
    assert (again != windows).any()


def test_windows_are_spread_over_all_shards(tmp_path):
    files = [tmp_path / f"{i}.bin" for i in range(3)]
    for i, file in enumerate(files):
        write_shard(file, np.arange(10 + i) + 100 * i)
    every = read_windows(files, 5)
    assert every[:, 0].tolist() == [0, 5, 100, 105, 200, 205]
    assert every[1].tolist() == [5, 6, 7, 8, 9]
    assert read_windows(files, 5, 16)[:, 0].tolist() == [0, 100, 200]
    for length, most in ((5, 9), (0, None), (13, None)):
        with pytest.raises(MeasureError, match="window"):
            read_windows(files, length, most)


@pytest.mark.parametrize("wrong", [np.zeros(4, int), np.zeros((4, 2))])
def test_windows_that_are_none_are_refused(wrong):
    with pytest.raises(MeasureError, match="integer tokens"):
        window_spectrum(wrong)
    with pytest.raises(MeasureError, match="--ranks is 0"):
        window_spectrum(drawn(4, 2), 0)


def test_the_command_writes_eigenvalues_and_a_figure(tmp_path, capsys):
    write_shard(tmp_path / "a_train_000000.bin", drawn(100, 16).ravel())
    call = ["bridge", "windows", str(tmp_path), "--lengths", "4", "16", "--out", str(tmp_path / "w.csv")]
    assert cli.main([*call, "--figure", str(tmp_path / "w.svg")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("T\ttokens\twindows")
    assert len(lines) == 5
    table = pd.read_csv(tmp_path / "w.csv")
    shares = table.groupby(["window", "tokens"])["share"].sum()
    np.testing.assert_allclose(shares, 1)
    assert (tmp_path / "w.svg").exists()
