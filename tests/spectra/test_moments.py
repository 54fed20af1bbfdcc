"""Moments: streaming equals batch in every order, survives a large mean, files and ranks."""

import multiprocessing
import os
from functools import reduce
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from spectra.covariance import covariance_spectrum
from spectra.errors import InputError
from spectra.moments import Moments
from spectra.reference import covariance as slow


def draw(seed: int, n: int, d: int, mean: float = 0.0) -> np.ndarray:
    return mean + np.random.default_rng(seed).standard_normal((n, d)) * np.arange(1, d + 1) ** -0.5


def same(a: Moments, b: Moments, tol: float = 1e-12) -> None:
    assert a.count == b.count
    assert a.mean is not None
    assert b.mean is not None
    scale = float(b.mean.abs().max()) + 1e-300
    np.testing.assert_allclose(a.mean, b.mean, rtol=tol, atol=tol * scale)
    ca, cb = a.covariance(), b.covariance()
    np.testing.assert_allclose(ca, cb, rtol=0, atol=tol * np.abs(cb).max())


@given(
    st.integers(0, 10**6), st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 6),
    st.sampled_from([0.0, 5.0, 1e3]),
)  # fmt: skip
def test_streaming_equals_the_oracle(seed, sizes, d, mean):
    x = draw(seed, sum(sizes) + 1, d, mean)
    chunks = np.split(x, np.cumsum(sizes))
    moments = reduce(Moments.update, chunks, Moments())
    count, want_mean, want_m2 = slow.moments(chunks)
    assert moments.count == count
    np.testing.assert_allclose(moments.mean, want_mean, rtol=1e-12, atol=1e-12 * (mean + 1))
    np.testing.assert_allclose(moments.m2, want_m2, rtol=0, atol=1e-12 * np.abs(want_m2).max() + 1e-13)


def test_every_merge_order_agrees_to_1e_12():
    chunks = np.split(draw(1, 400, 12, 1e3), [3, 50, 51, 200])
    parts = [Moments().update(c) for c in chunks]
    whole = Moments().update(np.concatenate(chunks))
    for order in permutations(range(5)):
        same(reduce(lambda a, b: a + b, (parts[i] for i in order)), whole)
    same((parts[0] + parts[1]) + (parts[2] + (parts[3] + parts[4])), whole)


def test_mean_of_a_thousand_standard_deviations():
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((4096, 64))).astype(np.float32)
    moments = Moments()
    naive = np.zeros((64, 64), np.float32)
    for chunk in np.split(x, 16):
        moments.update(chunk)
        naive += chunk.T @ chunk
    values = moments.spectrum().values
    np.testing.assert_allclose(values, covariance_spectrum(x).values, rtol=1e-12)
    assert 0.75 < values.min() < values.max() < 1.35
    mean = x.mean(0)
    wrong = np.linalg.eigvalsh((naive / np.float32(4096) - np.outer(mean, mean)).astype(np.float64))
    assert wrong.min() < -1.0, "the naive float32 accumulation must fail here, or the example proves nothing"


def test_merge_leaves_its_operands_alone_and_empty_is_neutral():
    a, b = Moments().update(draw(2, 9, 3)), Moments().update(draw(3, 5, 3))
    before = b.covariance()
    total = a + b
    total.update(draw(4, 7, 3))
    assert (a.count, b.count, total.count) == (9, 5, 21)
    np.testing.assert_array_equal(b.covariance(), before)
    same(a + Moments(), a)
    same(Moments() + a, a)
    assert Moments().merge(Moments()).count == 0


@pytest.mark.parametrize("n", [5, 40])
def test_spectrum_matches_the_batch_route(n):
    x = draw(5, n, 12, 20.0)
    for center in (True, False):
        got, want = Moments().update(x).spectrum(center), covariance_spectrum(x, center)
        assert (got.n, got.d, got.centred) == (n, 12, center)
        top = np.count_nonzero(want.values)
        assert np.count_nonzero(got.values) == top
        np.testing.assert_allclose(got.values[:top], want.values[:top], rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_numpy_and_torch_chunks_mix(dtype):
    x = torch.tensor(draw(6, 30, 4)).to(dtype)
    exact = x.to(torch.float64).numpy()
    mixed = Moments().update(x[:10]).update(exact[10:])
    same(mixed, Moments().update(exact))


def test_reversed_and_read_only_views_are_accepted_and_untouched():
    x = draw(7, 20, 3)
    before = x.copy()
    x.setflags(write=False)
    same(Moments().update(x[::-1]).update(x[3]), Moments().update(np.concatenate([x, x[3:4]])))
    np.testing.assert_array_equal(x, before)


def test_saved_and_loaded(tmp_path):
    moments = Moments().update(draw(8, 20, 5, 1e3))
    path = tmp_path / "m.safetensors"
    moments.save(path)
    moments.save(path)
    loaded = Moments.load(path)
    assert loaded.count == 20
    assert loaded.m2 is not None
    assert torch.equal(loaded.m2, moments.m2)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    Moments().save(path)
    assert Moments.load(path).count == 0
    path.write_bytes(b"\x05not ours")
    with pytest.raises(InputError, match="not a saved Moments"):
        Moments.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    Moments().update(draw(9, 4, 2)).save(path)
    old = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        Moments().update(draw(10, 9, 2)).save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_state_dict_is_a_copy_and_is_checked():
    moments = Moments().update(draw(11, 6, 3))
    state = moments.state_dict()
    state["mean"] += 1
    same(Moments.from_state_dict(moments.state_dict()), moments)
    with pytest.raises(InputError, match="lacks"):
        Moments.from_state_dict({"count": 3})
    with pytest.raises(InputError, match="belong together"):
        Moments.from_state_dict({**state, "mean": torch.zeros(4)})
    with pytest.raises(InputError, match="NaN"):
        Moments.from_state_dict({**state, "mean": torch.full((3,), torch.nan)})


def test_what_it_refuses():
    with pytest.raises(InputError, match="NaN"):
        Moments().update(np.array([[1.0, np.nan]]))
    with pytest.raises(InputError, match="empty"):
        Moments().update(np.zeros((0, 3)))
    with pytest.raises(InputError, match="columns"):
        Moments().update(np.zeros((2, 3))).update(np.zeros((2, 4)))
    with pytest.raises(InputError, match="columns"):
        Moments().update(np.zeros((2, 3))) + Moments().update(np.zeros((2, 4)))
    with pytest.raises(InputError, match="at least two"):
        Moments().update(np.zeros((1, 3))).spectrum()
    with pytest.raises(InputError, match="zeros"):
        Moments().update(np.full((9, 3), 0.1)).spectrum()
    with pytest.raises(InputError, match="exceed float64"):
        Moments().update(1e300 * np.eye(3)).spectrum()


def one_rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    x = 1000 + np.random.default_rng(0).standard_normal((60, 5))
    rows = [x[:7], x[7:], None][rank]
    moments = Moments() if rows is None else Moments().update(rows)
    moments.all_reduce().save(f"{folder}/{rank}.safetensors")
    try:
        Moments().update(np.ones((2, 3 if rank else 4))).all_reduce()
    except InputError:
        Path(folder, f"{rank}.refused").touch()
    dist.destroy_process_group()


def test_all_reduce_over_three_ranks_one_of_them_idle(tmp_path):
    # Forked, because three fresh interpreters would spend 20 s importing torch.
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=one_rank, args=(r, 3, str(tmp_path))) for r in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(timeout=300)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    x = 1000 + np.random.default_rng(0).standard_normal((60, 5))
    reduced = [Moments.load(tmp_path / f"{r}.safetensors") for r in range(3)]
    for moments in reduced:
        same(moments, Moments().update(x))
        assert moments.m2 is not None
        assert torch.equal(moments.m2, reduced[0].m2)
    assert all((tmp_path / f"{r}.refused").exists() for r in range(3))


def test_all_reduce_alone_changes_nothing():
    moments = Moments().update(draw(12, 6, 3))
    same(moments.copy().all_reduce(), moments, 0)
