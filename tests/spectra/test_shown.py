"""What results show in a notebook and as tables, and that they survive copies and files."""

import copy
import dataclasses
import inspect
import math
import pickle
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import spectra
import spectra.testing
from spectra import Estimate, Spectrum
from spectra.shown import sparkline
from spectra.testing import LawResult, Report

FACTORS = spectra.Factors(torch.ones(2, 3, 4), torch.ones(2, 3, 5))
ONE_HOT = spectra.OneHot(torch.tensor([[0, 2, 2]]), size=5)
BROKEN = LawResult("bounds", "f(λ) ≥ 1", "failed", 1, {"λ": np.array([1, 2])}, "f(λ) < 1")


def captured():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2))
    with spectra.capture_factors(model, ["0"]) as capture:
        model(torch.ones(2, 3))
    return capture


def window(kind):
    for _ in range(2):
        kind.push(np.ones(6))
    return kind


RESULTS = {
    "Spectrum": Spectrum([4.0, 2.0, 0.0], "singular", n=9, d=3, centred=False),
    "Estimate": Estimate(1.2, 1.0, 1.4, details={"r2": 0.99}),
    "BetaNull": spectra.BetaNull(2.0, 6.0),
    "BiasPrediction": spectra.BiasPrediction(0.1, 0.2, 0.3, 0.4, 5.0, 6),
    "Capture": captured(),
    "ClassMeans": spectra.ClassMeans(np.zeros((3, 2)), np.full(3, 4), np.full(3, 6.0)),
    "ComponentFrequencies": spectra.component_frequencies(RNG := np.random.default_rng(0).random((7, 3)), 2),
    "Defect": spectra.Defect(0.5, 0.5, 9.0, (1.0, 2.0), 0.1, "flagged", "rounding"),
    "EdgeNull": spectra.edge_null(4, 100, 0.5, draws=20),
    "EdgeTest": spectra.EdgeTest(1.0, 0.1, 1.0, 2.0),
    "Factors": FACTORS,
    "Inputs": FACTORS.inputs,
    "MarchenkoPastur": spectra.MarchenkoPastur(0.25),
    "Moments": spectra.Moments().update(np.eye(3)),
    "OneHot": ONE_HOT,
    "SampledNull": spectra.SampledNull(np.arange(9.0)),
    "SketchError": spectra.sketch_error([4.0, 3.0, 1.0], 20, draws=20),
    "SketchedWindow": window(spectra.SketchedWindow(4, seed=0, window=3)),
    "SpectralEdge": spectra.spectral_edge(np.diag([9.0, 8.0, 1.0]), draws=20),
    "UpdateWindow": window(spectra.UpdateWindow(3)),
    "Verdict": spectra.reliability(200, 20, 1.0, 3, 10),
    "WindowEdges": spectra.window_edges(np.diag([9.0, 4.0, 1.0]), 2),
    "WindowGram": window(spectra.UpdateWindow(3)).last(2),
    "LawResult": BROKEN,
    "Report": Report("f<x>", "effective rank", 1e-8, (BROKEN, LawResult("scale", "s", "passed", 5))),
}
# Errors, strategies and the parts of the kit that hold no result.
NO_RESULTS = {"InputError", "LawsBroken", "Violation", "Kind", "Law", "Subject"}


class Balanced(HTMLParser):
    """Checks that elements are closed in order, and gathers text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    return reader.text


def test_every_public_result_shows_itself():
    exported = {n for m in (spectra, spectra.testing) for n in m.__all__ if inspect.isclass(getattr(m, n))}
    assert exported - NO_RESULTS == set(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_html_is_small_well_formed_and_has_no_colour_of_its_own(name):
    page = RESULTS[name]._repr_html_()
    assert name in "".join(read(page)) or name == "Report"
    assert len(page) < 4_000
    assert not any(word in page for word in ("white", "black", "#", "rgb", "object at 0x"))
    assert " at 0x" not in repr(RESULTS[name])


def test_html_of_the_main_results():
    text = read(RESULTS["Spectrum"]._repr_html_())
    for name, value in [
        ("values", "3 singular values"),
        ("n", "9"),
        ("centred", "no"),
        ("RankMe", "1.649"),
        ("participation ratio", "1.471"),
        ("stable rank", "1.25"),
    ]:
        assert text[text.index(name) + 1] == value
    assert "1.2 [1, 1.4]" in read(RESULTS["Estimate"]._repr_html_())
    flagged = read(Estimate.not_fitted("λ < 0 & <b>n</b>")._repr_html_())
    assert "λ < 0 & <b>n</b>" in flagged
    assert "flagged" in read(Estimate(1.0, status="flagged", reason="r")._repr_html_())
    assert any("f<x> as effective rank: 1 of 2" in part for part in read(RESULTS["Report"]._repr_html_()))
    assert "unknown" in read(Spectrum([1.0])._repr_html_())


@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=50))
def test_a_sparkline_stays_in_its_box(values):
    points = sparkline(sorted(values, reverse=True)).split("points='")[1].split("'")[0].split()
    places = np.array([point.split(",") for point in points], float)
    assert np.isfinite(places).all()
    assert ((places >= 0) & (places <= [160, 48])).all()


def test_a_long_spectrum_has_a_short_page():
    assert len(Spectrum(np.arange(1, 20_001) ** -1.0)._repr_html_()) < 4_000


def test_tables():
    table = RESULTS["Spectrum"].to_frame()
    assert table.to_dict("list") == {
        "rank": [1, 2, 3],
        "energy": [16.0, 4.0, 0.0],
        "singular_value": [4.0, 2.0, 0.0],
        "share": [0.8, 0.2, 0.0],
    }
    row = Estimate(1.2, 1.0, 1.4, details={"r2": 0.9, "value": 7.0}).to_frame()
    assert row.to_dict("records") == [
        {"value": 1.2, "low": 1.0, "high": 1.4, "status": "ok", "reason": "", "r2": 0.9}
    ]
    assert RESULTS["Report"].to_frame()["outcome"].tolist() == ["failed", "passed"]
    assert len(RESULTS["EdgeNull"].to_frame()) == 20
    assert RESULTS["ComponentFrequencies"].to_frame()["component"].tolist() == [1, 2]
    assert RESULTS["ClassMeans"].to_frame()["count"].tolist() == [4, 4, 4]


def test_an_estimate_is_written_with_its_interval_and_its_status():
    assert f"{Estimate(1.2, 1.0, 1.4):.2f}" == "1.20 [1.00, 1.40]"
    assert f"{Estimate(1234.5):,.1f}" == "1,234.5"
    assert f"{Estimate(0.5, 0.1, math.inf):.1%}" == "50.0% [10.0%, inf%]"
    assert f"{Estimate(1.2, status='flagged', reason='bias'):.1f}" == "1.2 (flagged)"
    assert f"{Estimate.not_fitted('too few'):.3g}" == "not fitted"
    estimate = Estimate(1.2)
    assert f"{estimate}" == str(estimate)
    for each in (Estimate(1.2), Estimate.not_fitted("few")):
        with pytest.raises(ValueError, match="format code"):
            f"{each:.2q}"


def test_an_estimate_is_its_value_in_an_array():
    one, none = Estimate(1.5, 1.0, 2.0), Estimate.not_fitted("few")
    assert np.asarray(one).dtype == np.float64
    assert np.asarray(one).shape == ()
    np.testing.assert_array_equal(np.array([one, none]), [1.5, math.nan])
    assert np.log(one) == math.log(1.5)
    assert np.asarray(one, dtype=np.float32).dtype == np.float32
    assert torch.as_tensor(float(one)) == 1.5


def test_scalars_become_plain_numbers():
    for scalar in (np.float64(1.5), torch.tensor(1.5), 1.5):
        estimate = Estimate(scalar, scalar, scalar)
        assert [type(x) for x in (estimate.value, estimate.low, estimate.high)] == [float] * 3


NUMBERS = st.floats(allow_nan=False, width=32)
DETAILS = st.dictionaries(st.sampled_from(["r2", "n_over_d"]), st.floats(width=32))
ESTIMATES = st.one_of(
    st.builds(Estimate, NUMBERS, details=DETAILS),
    st.tuples(NUMBERS, NUMBERS, NUMBERS).map(sorted).map(lambda x: Estimate(x[1], x[0], x[2])),
    st.builds(Estimate.not_fitted, st.text(max_size=3)),
)
SPECTRA = st.builds(
    Spectrum,
    st.lists(st.floats(0, 1e6), min_size=1, max_size=5).map(lambda x: [*x, 1.0]),
    kind=st.sampled_from(["eigenvalue", "singular"]),
    n=st.none() | st.integers(1, 9),
    d=st.none() | st.integers(1, 9),
    centred=st.none() | st.booleans(),
)
COPIES = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": dataclasses.replace,
}


@pytest.mark.parametrize("way", COPIES)
@given(value=ESTIMATES | SPECTRA)
def test_a_copy_is_equal(way, value):
    again = COPIES[way](value)
    assert again == value
    assert hash(again) == hash(value)
    assert repr(again) == repr(value)
    assert len({again, value}) == 1
    if isinstance(value, Spectrum):
        assert not again.values.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            again.values[0] = 1.0


@given(ESTIMATES, ESTIMATES)
def test_estimates_differ_where_a_field_does(a, b):
    same = [
        left == right or (left != left and right != right)
        for left, right in zip(dataclasses.astuple(a)[:5], dataclasses.astuple(b)[:5], strict=True)
    ]
    assert (a == b) == (all(same) and repr(sorted(a.details.items())) == repr(sorted(b.details.items())))


def test_spectra_differ_where_a_field_does():
    one = Spectrum([1.0, 2.0], n=5, d=2, centred=True)
    assert one == Spectrum(torch.tensor([2.0, 1.0]), n=5, d=2, centred=np.True_)
    for change in ({"values": [1.0, 2.5]}, {"n": 6}, {"d": None}, {"centred": False}, {"kind": "singular"}):
        assert dataclasses.replace(one, **change) != one
    assert one != "spectrum"
    assert (one == np.array([2.0, 1.0])).all()
    assert Estimate(1.0) != 1.0
