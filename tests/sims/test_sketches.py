"""Table of sketches: the figures of the published spectrum, projections of updates inside their band."""

import math

import numpy as np
import pandas as pd
import pytest

from sims.analysis.sketches import sketch_table, sketches_as_predicted
from sims.system.errors import MeasureError
from spectra import InputError
from tests.sims.grokking_looks import by

# Singular values of one window of ten updates, as published (step 2,000).
PUBLISHED = [198.58, 169.08, 122.47, 110.73, 106.22, 92.66, 78.30, 61.27, 44.58, 22.79]


def test_errors_shrink_with_the_size_and_have_the_known_values():
    table = sketch_table({"published": PUBLISHED, "flat": [1.747, 1.747, *[1.0] * 8]}, (5, 10, 100), j=2)
    found = by(table, "window", "d")
    assert found["published", 100]["mean"] == pytest.approx(0.071, abs=0.004)
    assert found["published", 100]["kept"] == pytest.approx(0.98, abs=0.02)
    assert found["flat", 100]["bias"] == pytest.approx(-0.207, abs=0.004)
    for name in ("published", "flat"):
        means = [found[name, d]["mean"] for d in (50, 100, 1_000)]
        assert means == sorted(means, reverse=True)


def test_projections_lie_in_their_band_as_often_as_they_should():
    """Gaussian projections of updates with the published spectrum: 95 % of 200 inside, up to chance."""
    generator = np.random.default_rng(0)
    values, d = np.array(PUBLISHED), 100
    updates = np.linalg.qr(generator.standard_normal((10, 10)))[0] @ np.diag(values)
    rows = []
    for _ in range(200):
        sketched = np.linalg.svd(updates @ generator.standard_normal((10, d)), compute_uv=False)
        ratio = sketched[1] / sketched[2] / (values[1] / values[2])
        rows.append({"window": "published", "d": d, "error": float(ratio - 1)})
    found = sketches_as_predicted(pd.DataFrame(rows), sketch_table({"published": PUBLISHED}, (10,), j=2))
    assert 181 <= found["inside"].sum() <= 199
    assert "95 % band" in found["sentence"].iloc[0]
    far = sketches_as_predicted(pd.DataFrame([{"window": "published", "d": d, "error": 0.9}]), found)
    assert not far["inside"].any()


def test_a_sketch_without_its_band_is_named():
    table = sketch_table({"published": PUBLISHED}, (10,), draws=50)
    other = sketches_as_predicted(pd.DataFrame([{"window": "other", "d": 100, "error": 0.0}]), table)
    assert not other["inside"].iloc[0]
    assert math.isnan(other["low"].iloc[0])
    assert "not in the table" in other["sentence"].iloc[0]
    with pytest.raises(MeasureError, match="no column error"):
        sketches_as_predicted(table.drop(columns="mean"), table)
    with pytest.raises(InputError, match="needs two"):
        sketch_table({"one": [1.0, 0.0]}, (10,))
