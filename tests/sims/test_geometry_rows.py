"""α-ReQ, effective ranks and the share of the mean state, of constructed states, of toys and of watched models."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.measure.geometry import geometry_rows, mean_share, rankme_without, width_window
from sims.measure.rows import MeasurementRows
from sims.monitor.monitor import Monitor
from sims.runs.lm_measure_config import LmMeasureConfig, RunMetadata
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from sims.runs.watched_config import WatchedConfig
from sims.training.toy_runner import run_group
from spectra import Moments, Spectrum, alpha_req, rankme
from toymodel.config import canonical_hash

ROWS = ["alpha_req"] * 2 + ["rankme_singular"] + ["rankme_without"] * 3 + ["mean_share", "rankme_uncentred"]
NEW = "quantity in ('alpha_req', 'rankme_singular', 'rankme_without', 'mean_share', 'rankme_uncentred')"


def described(x):
    """The rows of states x (n, d), by quantity and detail."""
    moments, sheet = Moments().update(x), MeasurementRows(0, 0)
    geometry_rows(sheet, "final", moments.spectrum(), moments)
    assert [r["quantity"] for r in sheet.rows] == ROWS
    return {(r["quantity"], r["detail"]): r for r in sheet.rows}


def gaussian(seed, n, d):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_rows_are_what_they_say():
    x = gaussian(0, 500, 128) * np.arange(1, 129) ** -0.6 + 0.2
    spectrum, rows = Moments().update(x).spectrum(), described(x)
    assert rows["alpha_req", "published"]["window"] == "12-100"
    assert rows["alpha_req", "published"]["value"] == alpha_req(spectrum, 12, 100).value
    assert rows["alpha_req", "width"]["window"] == "12-102"
    assert rows["alpha_req", "width"]["value"] == alpha_req(spectrum, 12, 102).value
    assert rows["rankme_singular", ""]["value"] == rankme(spectrum, on="singular")
    for k in (1, 8, 32):
        assert rows["rankme_without", f"top {k}"]["value"] == pytest.approx(rankme(spectrum.values[k:]))
    mean = x.mean(axis=0)
    assert rows["mean_share", ""]["value"] == pytest.approx(mean @ mean / (x**2).sum(axis=1).mean())
    second = np.linalg.eigvalsh(x.T @ x / len(x))[::-1]
    assert rows["rankme_uncentred", ""]["value"] == pytest.approx(rankme(second))


def test_narrow_states_say_what_does_not_fit():
    rows = described(gaussian(0, 200, 16))
    assert rows["alpha_req", "published"]["status"] == "not fitted"
    assert "12–100 does not fit in rank 16" in rows["alpha_req", "published"]["reason"]
    assert "too short" in rows["alpha_req", "width"]["reason"]
    assert "fewer than two without 32" in rows["rankme_without", "top 32"]["reason"]
    for row in rows.values():
        assert (row["status"] == "not fitted") == math.isnan(row["value"])
        assert math.isnan(row["null"]) == (row["status"] == "not fitted")
    # Fewer samples than the window needs are no width.
    few = described(gaussian(0, 40, 64))["alpha_req", "width"]
    assert few["status"] == "not fitted"
    assert "rank 39" in few["reason"]
    assert width_window(17) is None
    assert width_window(18) == (12, 14)


def test_gaussian_states_are_at_their_nulls():
    drawn = [described(gaussian(seed, 300, 64)) for seed in range(40)]
    inside = 0
    for key, row in drawn[0].items():
        if row["status"] == "not fitted":
            continue
        values = np.array([rows[key]["value"] for rows in drawn])
        error = values.std(ddof=1) * math.sqrt(1 / 40 + 1 / 8)
        assert abs(values.mean() - row["null"]) < 4 * error, key
        inside += 1
    assert inside == 7
    # The law of the share of the mean is exact: 1 of 40 above the 97.5 % quantile, and 5 or more by a chance of 0.1 %.
    high = sum(r["mean_share", ""]["value"] > r["mean_share", ""]["null_high"] for r in drawn)
    assert high < 5
    assert drawn[0]["mean_share", ""]["null"] == pytest.approx(1 / 300)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-3, 3))
def test_rotations_and_scale_change_nothing_and_a_shift_only_the_mean(seed, scale, shift):
    x = gaussian(seed, 90, 20) * np.arange(1, 21) ** -0.5
    rotation = np.linalg.qr(gaussian(seed + 1, 20, 20))[0]
    plain, turned, moved = (described(y) for y in (x, scale * x @ rotation, x + shift))
    for key, row in plain.items():
        if row["status"] == "not fitted":
            continue
        assert turned[key]["value"] == pytest.approx(row["value"], rel=1e-8)
        if key[0] not in ("mean_share", "rankme_uncentred"):
            assert moved[key]["value"] == pytest.approx(row["value"], rel=1e-7)
    mean = x.mean(axis=0) + shift
    total = (mean**2).sum() + x.var(axis=0).sum()
    assert moved["mean_share", ""]["value"] == pytest.approx((mean**2).sum() / total, rel=1e-9)


def test_a_mean_that_outweighs_everything_is_the_one_direction_of_the_uncentred_rank():
    rows = described(gaussian(0, 200, 16) + 100.0)
    assert rows["rankme_uncentred", ""]["value"] < 1.01
    assert rows["rankme_uncentred", ""]["null"] > 15
    assert rows["mean_share", ""]["value"] > 0.999


def test_rankme_without_the_head_is_that_of_the_rest():
    values = np.array([100.0, 1.0, 1.0, 1.0, 0.0])
    assert rankme(values) < 1.3
    assert rankme_without(Spectrum(values), 1).value == pytest.approx(3.0)
    assert rankme_without(Spectrum(values), 3).status == "not fitted"
    assert mean_share(Moments().update(np.ones((5, 3)))) == 1.0


def test_a_toy_has_them_on_request_and_on_a_schedule_dense_at_first(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(steps=12, eval_every=6)
    schedule = ("activations=6+5/decade",)
    kinds = {"plain": {}, "usual": {"geometry": True}, "often": {"geometry": True, "schedules": schedule}}
    for name, more in kinds.items():
        assert not run_group([config], tiny_measure(every=6, **more), tmp_path / name)
    plain, usual, often = (RunFolder(tmp_path / name / config.run_id).rows() for name in kinds)
    assert plain.query(NEW).empty
    assert sorted(set(often.query(NEW)["step"])) == [0, 1, 2, 3, 4, 6, 10, 12]
    shares = usual.query("quantity == 'mean_share'")
    assert sorted(set(shares["step"])) == [0, 6, 12]
    assert shares["value"].between(0, 1).all()
    keys = ["step", "quantity", "object", "site", "window", "detail"]
    one, two = (rows.query(NEW).set_index(keys)["value"].sort_index() for rows in (usual, often))
    assert one.equals(two[two.index.isin(one.index)])
    # Everything else stays as it is.
    same = [rows.query(f"not ({NEW})").reset_index(drop=True) for rows in (plain, usual)]
    assert same[0].equals(same[1])


@pytest.mark.parametrize("of", [MeasureConfig, LmMeasureConfig, WatchedConfig])
def test_configurations_without_it_keep_their_identity(of):
    assert not of().geometry
    assert canonical_hash(of()) != canonical_hash(of(geometry=True))
    assert canonical_hash(of()) == canonical_hash(of(geometry=False))


def test_a_watched_model_has_them(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(8, 24), torch.nn.Tanh(), torch.nn.Linear(24, 4))
    batch = torch.tensor(gaussian(0, 64, 8), dtype=torch.float32)
    measure = WatchedConfig(geometry=True, update_window=0, gradient_sequences=0)
    run = RunMetadata(name="own")
    monitor = Monitor(model, batch, every=1, to=tmp_path / "runs", measure=measure, run=run)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    model(batch).square().mean().backward()
    optimiser.step()
    monitor.step()
    monitor.close()
    rows = RunFolder(tmp_path / "runs" / "own").rows()
    found = rows.query(NEW)
    assert len(found) % len(ROWS) == 0
    assert set(found["site"]) == set(rows.query("object == 'activation'")["site"])
    ok = found.query("status == 'ok'")
    assert {"rankme_singular", "rankme_without", "mean_share"} <= set(ok["quantity"])
    assert ok["value"].notna().all()
