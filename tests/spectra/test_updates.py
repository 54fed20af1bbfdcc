"""The update window against a full decomposition, its restarts, its sketch, and the edge that momentum alone makes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectra import updates
from spectra.errors import InputError
from spectra.nulls.edge import edge_null
from spectra.reference import updates as slow
from spectra.updates import SketchedWindow, UpdateWindow, spectral_edge


def filled(window, rows):
    for row in rows:
        window.push(row)
    return window


@given(
    st.integers(2, 6), st.integers(2, 15), st.integers(1, 40), st.sampled_from([1e-4, 1.0, 1e4]),
    st.integers(0, 2**32 - 1), st.sampled_from([7, 2**16]),
)  # fmt: skip
def test_window_against_svd(size, steps, dimension, scale, seed, chunk):
    """Every prefix of the stream, so that the ring wraps; chunks shorter and longer than the update."""
    rows = scale * np.random.default_rng(seed).standard_normal((steps, dimension))
    window = UpdateWindow(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updates, "CHUNK", chunk)
        for t, row in enumerate(rows):
            window.push(row)
            held = rows[max(0, t + 1 - size) : t + 1]
            np.testing.assert_allclose(window.gram, held @ held.T, rtol=1e-10, atol=1e-12 * scale**2)
            if len(held) < 2:
                continue
            edge = spectral_edge(window, draws=1)
            exact = slow.window_singular_values(held)
            exact = np.pad(exact, (0, len(held) - len(exact)))
            np.testing.assert_allclose(edge.spectrum.values, exact, rtol=0, atol=1e-6 * exact[0])
            if exact[-1] > 1e-4 * exact[0]:
                assert (edge.k, edge.gap) == (
                    slow.edge(exact)[0],
                    pytest.approx(slow.edge(exact)[1], rel=1e-6),
                )
    assert window.full == (steps >= size)
    assert window.size == dimension


def test_a_planted_edge_is_found_and_is_significant():
    """Three directions a hundred times stronger than the rest: k* = 3, which noise of that momentum does not do."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((2000, 3)))[0].T
    rows = 100.0 * rng.standard_normal((10, 3)) @ basis + 0.02 * rng.standard_normal((10, 2000))
    edge = spectral_edge(filled(UpdateWindow(), rows), momentum=0.9, stride=1)
    assert edge.k == 3
    assert edge.gap > 20
    assert edge.p_value == pytest.approx(1 / 1001)
    assert edge.null_k == 1
    assert edge.status == "ok"
    assert spectral_edge(rows, momentum=0.9, stride=1).gap == pytest.approx(edge.gap, rel=1e-12)


@pytest.mark.parametrize("momentum", [0.9, 0.95])
def test_momentum_noise_puts_the_edge_at_one_in_every_window(momentum):
    """200 overlapping windows of an exponential moving average of white noise, none of them significant as a whole."""
    noise = np.random.default_rng(1).standard_normal((409, 3000))
    rows = slow.moving_average(noise, momentum, warm_up=200)
    window = UpdateWindow()
    edges = []
    for row in rows:
        window.push(row)
        if window.full:
            edges.append(spectral_edge(window, momentum=momentum, stride=1))
    assert len(edges) == 200
    assert {edge.k for edge in edges} == {1}
    # p-values of overlapping windows are dependent but each is uniform.
    assert 0.3 < np.mean([edge.p_value for edge in edges]) < 0.7
    # Without the momentum in the null, the same windows look like a discovery.
    assert np.mean([edge_null(10, 3000, 0.0).p_value(1, edge.gap) < 0.01 for edge in edges]) == 1.0


def test_restart_changes_nothing():
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((25, 50)).astype(np.float32)
    for make in (lambda: UpdateWindow(4), lambda: SketchedWindow(16, seed=3, window=4)):
        through, stopped, resumed = filled(make(), rows[:13]), filled(make(), rows[:13]), make()
        state = stopped.state_dict()
        filled(stopped, 1e3 * rows[:2])
        resumed.load_state_dict(state)
        # Compared at every step: once the window has turned over, nothing restored is left in it.
        for row in rows[13:]:
            np.testing.assert_array_equal(resumed.gram, through.gram)
            through.push(row)
            resumed.push(row)
        assert resumed.count == 25


def test_state_is_plain_data(tmp_path):
    for window in (UpdateWindow(3), SketchedWindow(8, seed=0, window=3)):
        filled(window, np.eye(3))
        torch.save(window.state_dict(), tmp_path / "window.pt")
        state = torch.load(tmp_path / "window.pt", weights_only=True)
        window.load_state_dict(state)
        assert window.count == 3


def test_updates_by_parameter_tensors_and_dtypes():
    generator = torch.Generator().manual_seed(0)
    steps = [[torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)] for _ in range(4)]
    flat = [torch.cat([p.flatten() for p in step]) for step in steps]
    kept = [[p.clone() for p in step] for step in steps]
    a, b = filled(UpdateWindow(3), steps), filled(UpdateWindow(3), flat)
    np.testing.assert_array_equal(a.gram, b.gram)
    assert all(torch.equal(p, q) for s, t in zip(steps, kept, strict=True) for p, q in zip(s, t, strict=True))
    steps[-1][0].zero_()
    np.testing.assert_array_equal(a.gram, b.gram)
    half = filled(UpdateWindow(3), [f.bfloat16() for f in flat])
    exact = torch.stack([f.bfloat16().double() for f in flat[1:]])
    np.testing.assert_allclose(half.gram, (exact @ exact.T).numpy(), rtol=1e-12)
    requires = filled(UpdateWindow(2), [f.clone().requires_grad_() for f in flat])
    assert spectral_edge(requires, draws=1).spectrum.n == 2


def test_every_array_that_numpy_can_hold_is_an_update():
    rows = np.random.default_rng(8).standard_normal((4, 30))
    protected = rows.copy()
    protected.setflags(write=False)
    expected = spectral_edge(rows, draws=1).spectrum.values
    alike = [protected, rows.astype(">f8"), rows.astype(np.longdouble), torch.tensor(rows, requires_grad=True),
             list(rows), [torch.tensor(row, requires_grad=True) for row in rows], rows[:, ::-1]]  # fmt: skip
    for window in alike:
        np.testing.assert_allclose(spectral_edge(window, draws=1).spectrum.values, expected, rtol=1e-12)


def test_float32_updates_are_accumulated_in_float64():
    """A large common part and small differences: float32 dot products would lose the second singular value."""
    rng = np.random.default_rng(3)
    common = 1e3 * rng.standard_normal(200_000)
    rows = (common + rng.standard_normal((3, 200_000))).astype(np.float32)
    values = spectral_edge(filled(UpdateWindow(3), rows), draws=1).spectrum.values
    exact = slow.window_singular_values(rows)
    np.testing.assert_allclose(values, exact, rtol=1e-6)
    naive = np.sqrt(np.maximum(np.linalg.eigvalsh(rows @ rows.T)[::-1], 0))
    assert abs(naive[-1] / exact[-1] - 1) > 0.01


def test_rank_deficient_windows_have_an_infinite_gap_at_their_rank():
    rows = np.random.default_rng(4).standard_normal((2, 30))
    edge = spectral_edge(np.stack([rows[0], rows[1], rows[0] - rows[1], 2 * rows[0]]))
    assert (edge.k, edge.gap) == (2, np.inf)


def test_sketch_is_unbiased_and_its_error_is_what_it_reports():
    """300 sketches of one window: the mean is the exact Gram matrix, and the reported error the observed one."""
    rng = np.random.default_rng(5)
    # A common offset, which random signs keep from adding up in a bucket.
    rows = 0.2 + slow.moving_average(rng.standard_normal((20, 400)), 0.7, warm_up=15)
    exact = rows @ rows.T
    sketches = [filled(SketchedWindow(64, seed=seed, window=5), rows) for seed in range(300)]
    grams = np.stack([s.gram for s in sketches])
    spread = grams.std(axis=0) / np.sqrt(300)
    assert np.all(np.abs(grams.mean(axis=0) - exact) < 5 * spread)
    observed = np.sqrt(np.mean([np.sum((g - exact) ** 2) for g in grams]))
    reported = np.sqrt(np.mean([s.gram_error**2 for s in sketches]))
    assert observed == pytest.approx(reported, rel=0.15)
    norms = np.mean([s.observed_error for s in sketches])
    assert norms == pytest.approx(np.sqrt(2 / 64), rel=0.25)


def test_sketch_flags_what_it_cannot_resolve():
    rng = np.random.default_rng(6)
    basis = np.linalg.qr(rng.standard_normal((5000, 2)))[0].T
    rows = np.stack([[30.0, 0.0], [0.0, 30.0]] * 3) @ basis + 0.01 * rng.standard_normal((6, 5000))
    exact = spectral_edge(filled(UpdateWindow(6), rows))
    assert exact.k == 2
    sketched = spectral_edge(filled(SketchedWindow(1024, seed=0, window=6), rows))
    assert sketched.status == "flagged"
    assert "use a larger sketch" in sketched.reason
    np.testing.assert_allclose(sketched.spectrum.values[:2], exact.spectrum.values[:2], rtol=0.1)


@pytest.mark.parametrize("make", [lambda: UpdateWindow(3), lambda: SketchedWindow(8, seed=0, window=3)])
def test_refusals(make):
    window = filled(make(), np.eye(3)[:2])
    before = window.gram.copy()
    for bad, message in (
        (np.array([1.0, np.nan, 0.0]), "1 NaN or Inf"),
        (np.array([1.0, np.inf, 0.0]), "NaN or Inf"),
        (np.zeros(4), "window"),
        (np.zeros(0), "no coordinates"),
        ([], "no coordinates"),
        (np.ones(3, dtype=complex), "complex"),
        (np.array(["a"] * 3), "dtype"),
    ):
        with pytest.raises(InputError, match=message):
            window.push(bad)
    np.testing.assert_array_equal(window.gram, before)
    assert window.count == 2
    with pytest.raises(InputError, match="is empty"):
        spectral_edge(make())
    with pytest.raises(InputError, match="at least two"):
        spectral_edge(filled(make(), np.eye(3)[:1]))
    with pytest.raises(InputError, match="all zeros"):
        spectral_edge(filled(make(), np.zeros((3, 3))))
    with pytest.raises(InputError, match="window of 3"):
        UpdateWindow(4).load_state_dict(window.state_dict())
    with pytest.raises(InputError, match="momentum"):
        spectral_edge(window, momentum=1.0)


def test_other_refusals():
    with pytest.raises(InputError, match="at least two updates"):
        UpdateWindow(1)
    with pytest.raises(InputError, match="sketch size"):
        SketchedWindow(0, seed=0)
    with pytest.raises(InputError, match="at least two"):
        spectral_edge(np.ones((1, 5)))
    with pytest.raises(InputError, match="shape"):
        spectral_edge(np.ones((0, 5)))
    with pytest.raises(InputError, match="shape"):
        spectral_edge(np.ones((2, 3, 5)))
    with pytest.raises(InputError, match="same parts"):
        filled(SketchedWindow(8, seed=0), [np.zeros(4), [np.zeros(2), np.zeros(2)]])
    with pytest.raises(InputError, match="different signs"):
        SketchedWindow(8, seed=1).load_state_dict(SketchedWindow(8, seed=0).state_dict())


# ------------------------------------------------------------------------------- windows that say less than they seem


def test_a_zero_update_is_named():
    rows = np.random.default_rng(7).standard_normal((10, 500))
    rows[6] = 0.0
    edge = spectral_edge(rows, momentum=0.9, stride=1)
    assert (edge.status, edge.k) == ("flagged", 9)
    assert "update 7 of 10 is zero" in edge.reason
    rows[2] = 0.0
    assert "updates 3, 7 of 10 are zero" in spectral_edge(rows, draws=20).reason
    # Oldest first, also where the window has turned over.
    window = filled(UpdateWindow(4), np.random.default_rng(8).standard_normal((5, 9)))
    window.push(np.zeros(9))
    window.push(np.ones(9))
    assert "update 3 of 4 is zero" in spectral_edge(window, draws=20).reason


def test_a_repeated_update_is_flagged_and_fewer_coordinates_than_updates_are_not():
    rows = np.random.default_rng(9).standard_normal((6, 100))
    rows[4] = 3 * rows[1]
    edge = spectral_edge(rows, draws=50)
    assert (edge.status, edge.k, edge.gap) == ("flagged", 5, np.inf)
    assert "rank 5 of 6" in edge.reason
    narrow = spectral_edge(np.random.default_rng(10).standard_normal((6, 3)), draws=50)
    assert (narrow.status, narrow.k, narrow.p_value) == ("ok", 3, 1.0)


def test_the_stride_is_asked_for_and_makes_its_own_null():
    """Sums of 5 and 25 steps of momentum noise: the null of single steps calls them significant, their own does not."""
    rows = slow.moving_average(np.random.default_rng(11).standard_normal((450, 4000)), 0.9, warm_up=200)
    with pytest.raises(InputError, match="pass stride=1"):
        spectral_edge(rows[:10], momentum=0.9)
    for stride in (5, 25):
        sums = slow.block_sums(rows, stride)[:10]
        edge, single = (spectral_edge(sums, momentum=0.9, stride=s, draws=400) for s in (stride, 1))
        assert min(single.p_value, single.p_any) <= 2 / 401
        assert min(edge.p_value, edge.p_any) > 0.05
        assert (edge.k, edge.gap) == (single.k, single.gap)
        # The correlations of the window take the place of momentum, which then needs no stride.
        assert spectral_edge(sums, momentum=0.9, null="correlations", draws=200).p_any > 0.05
    for stride in (0, -1, 1.5, "1", 10**9):
        with pytest.raises(InputError, match="stride"):
            spectral_edge(rows[:10], momentum=0.9, stride=stride)  # pyright: ignore[reportArgumentType]
    # Without momentum the updates of noise are independent, however far apart.
    assert spectral_edge(rows[:10], draws=20).k == 1


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e300, 5e-324])
@pytest.mark.parametrize("make", [lambda: UpdateWindow(3), lambda: SketchedWindow(8, seed=0, window=3)])
def test_updates_whose_squares_leave_float64_are_refused(make, scale):
    window = filled(make(), np.eye(3)[:2])
    before = window.gram.copy()
    with pytest.raises(InputError, match="float64 cannot hold its energy"):
        window.push(scale * np.ones(3))
    np.testing.assert_array_equal(window.gram, before)
    with pytest.raises(InputError, match="float64 cannot hold its energy"):
        spectral_edge(scale * np.eye(3))


def test_scale_does_not_matter():
    rows = np.random.default_rng(12).standard_normal((5, 40))
    want = spectral_edge(rows, draws=50)
    for power in (-470, 470):
        got = spectral_edge(rows * 2.0**power, draws=50)
        assert (got.k, got.p_value, got.status) == (want.k, want.p_value, "ok")
        assert got.gap == pytest.approx(want.gap, rel=1e-12)
