"""Every public function of spectra against a corpus of hostile inputs: the right value, or an InputError."""

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hostile import ALIGNMENT_ENTRIES, EDGE_ENTRIES, ENTRIES, HOLDERS, OWN_ENTRIES, Count, judge
from hostile.corpus import SCALES, Hostile, degenerate, dtypes, layouts, numberless
from hostile.entries import Entry
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spectra
from spectra import alignment
from spectra.testing import strategies as make

pytestmark = pytest.mark.filterwarnings("ignore")

TOTAL = Count()

SCALARS: tuple[Any, ...] = (
    *(
        None,
        "a",
        b"a",
        float("nan"),
        float("inf"),
        -float("inf"),
        1j,
        [1, 2],
        [],
        {},
        {"a": 1},
        object(),
        np.mean,
    ),
    *(
        -1,
        0,
        1,
        2,
        1.5,
        -0.5,
        True,
        1e308,
        5e-324,
        -1e308,
        10**400,
        np.int8(3),
        np.float16(2),
        np.float64("nan"),
    ),
    *(
        np.ones(3),
        np.ones(()),
        np.zeros(0),
        torch.ones(2),
        torch.tensor(2),
        torch.tensor(0.5),
        torch.tensor(1j),
    ),
    *((row for row in (1, 2)), np.ma.masked, np.datetime64("2020-01-01")),
)


def called(entry: Entry, arrays: tuple[Any, ...], **changed: Any) -> Any:
    return entry.call(*arrays, **{**dict(entry.scalars), **changed})


def right(entry: Entry, arrays: tuple[np.ndarray, ...]) -> Any:
    """The independent value, or None where there is none."""
    if entry.right is None:
        return None
    with np.errstate(all="ignore"):
        try:
            value = np.atleast_1d(np.asarray(entry.right(*arrays), dtype=float)).ravel()
        except (ValueError, ZeroDivisionError, FloatingPointError, IndexError, np.linalg.LinAlgError):
            return None
    return value if np.isfinite(value).all() else None


def array_cells(entry: Entry) -> Iterator[tuple[str, tuple[Any, ...], Hostile, Any]]:
    """Every version of every array of the example, the others as they are."""
    for place, example in enumerate(entry.arrays):
        families = (layouts, dtypes, numberless, degenerate)
        for family in families:
            for hostile in family(example.copy()):
                if hostile.name in entry.takes:
                    continue
                arrays = list(entry.arrays)
                arrays[place] = hostile.value
                want = None
                if hostile.holds is not None and family in (layouts, dtypes):
                    held = list(entry.arrays)
                    held[place] = hostile.holds
                    want = right(entry, tuple(held))
                    if want is None and family is layouts and entry.right is None:
                        # What draws at random is compared with itself on the plain array.
                        want = _own(entry)
                yield f"array {place} as {hostile.name}", tuple(arrays), hostile, want


def _own(entry: Entry) -> Any:
    from hostile.judge import numbers

    return numbers(called(entry, entry.arrays))


@pytest.mark.parametrize("name", sorted(name for name, entry in ENTRIES.items() if entry.arrays))
def test_hostile_arrays(name):
    entry, count = ENTRIES[name], Count()
    for where, arrays, hostile, want in array_cells(entry):
        before = [a.tobytes() if type(a) is np.ndarray else None for a in arrays]
        judge(count, f"{name}, {where}", lambda arrays=arrays: called(entry, arrays), hostile, want)
        after = [a.tobytes() if type(a) is np.ndarray else None for a in arrays]
        if before != after:
            count.faults.append(f"{name}, {where}: the caller's array was changed")
    _settle(count)


@pytest.mark.parametrize("name", sorted(name for name, entry in ENTRIES.items() if entry.degree is not None))
def test_extreme_scales(name):
    """f(2^k·a) is 2^(k·degree)·f(a) wherever float64 holds it, or is refused."""
    entry, count = ENTRIES[name], Count()
    plain = np.asarray(_own(entry))
    assert entry.degree is not None
    for scale in SCALES:
        power = np.log2(scale) * entry.degree
        arrays = tuple(a if i in entry.fixed else a * scale for i, a in enumerate(entry.arrays))
        held = (abs(power) < 1000 and (plain == 0).all()) or abs(power) <= 1010
        want = plain * 2.0 ** (power / 2) * 2.0 ** (power / 2) if held else None
        hostile = Hostile(f"2^{np.log2(scale):.0f}", arrays, arrays[0])
        judge(
            count,
            f"{name}, {hostile.name}",
            lambda arrays=arrays: called(entry, arrays),
            hostile,
            want,
            exact=True,
        )
    _settle(count)
    if abs(entry.degree) <= 1 and name not in ("clauset",):
        assert count.values >= 2, f"{name} refuses every scale"


@pytest.mark.parametrize("name", sorted(name for name, entry in ENTRIES.items() if entry.scalars))
def test_hostile_scalars(name):
    """Anything for each scalar argument: a result without NaN, or an InputError."""
    entry, count = ENTRIES[name], Count()
    for argument, example in entry.scalars:
        for scalar in SCALARS:
            if isinstance(scalar, int) and scalar == 10**400 and type(example) is int:
                continue  # a size: no machine has the memory
            hostile = Hostile("scalar", scalar, np.zeros(1))
            where = f"{name}, {argument} = {scalar!r:.40}"
            judge(
                count,
                where,
                lambda a=argument, v=scalar: called(entry, entry.arrays, **{a: v}),
                hostile,
                None,
            )
    _settle(count)


# Functions of rows (n, d) that give an Estimate; all but the last two have no scale.
ESTIMATES = {
    "alpha_req": lambda x: spectra.alpha_req(spectra.covariance_spectrum(x)),
    "bootstrap": lambda x: spectra.bootstrap(x, np.mean, np.random.default_rng(0), resamples=100),
    "clauset": lambda x: spectra.clauset(x.abs().flatten()),
    "clauset cutoff": lambda x: spectra.clauset(x.abs().flatten(), cutoff=True),
    "debiased": spectra.debiased_participation_ratio,
    "farms": spectra.farms,
    "h_s_debiased": lambda x: spectra.h_s_debiased(spectra.class_means(x, np.arange(len(x)) % 3, 3), [1, 2]),
    "hill": lambda x: spectra.hill(spectra.weight_spectrum(x)),
    "jackknife": lambda x: spectra.jackknife(x, np.std),
    "js_floor": lambda x: spectra.js_floor(x, np.random.default_rng(0), splits=3),
    "theil-sen": lambda x: spectra.window_exponent(spectra.weight_spectrum(x), 1, 3, method="theil-sen"),
    "window_exponent": lambda x: spectra.window_exponent(spectra.covariance_spectrum(x), 1, 3),
}


@pytest.mark.parametrize("name", sorted(ESTIMATES))
@given(make.matrices(), st.sampled_from((1.0, *SCALES)), st.sampled_from(["float64", "float32", "bfloat16"]))
@settings(max_examples=20, deadline=None)
def test_no_estimate_is_nan_and_ok(name, x, scale, dtype):
    """On matrices of every family, dtype and scale: refused, "not fitted" with a reason, or the number at scale 1."""
    estimator = ESTIMATES[name]
    kind = getattr(torch, dtype)
    base = torch.tensor(x).to(kind).double()
    scaled = base * scale if dtype == "float64" else (base * scale).to(kind)
    assume(bool(torch.isfinite(scaled).all()))
    exact = bool((scaled.double() == base * scale).all())
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rows in (base if dtype == "float64" else base.to(kind), scaled):
            try:
                results.append(estimator(rows))
            except spectra.InputError:
                results.append(None)
    fitted = [r for r in results if r is not None and r.status != "not fitted"]
    assert all(r.reason for r in results if r is not None and r.status != "ok")
    assert all(np.isfinite(r.value) for r in fitted)
    if len(fitted) == 2 and exact and name not in ("bootstrap", "jackknife"):
        one, other = (r.value for r in fitted)
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)


def test_every_public_function_has_an_entry():
    public = set(spectra.__all__)
    assert public == set(OWN_ENTRIES) | {name.split(",")[0] for name in EDGE_ENTRIES} | HOLDERS
    functions = inspect.getmembers(alignment, inspect.isfunction)
    own = {name for name, f in functions if f.__module__ == alignment.__name__ and not name.startswith("_")}
    assert own == {name.removeprefix("alignment.").split(",")[0] for name in ALIGNMENT_ENTRIES}
    assert all(inspect.isclass(getattr(spectra, name)) for name in HOLDERS)
    without = [n for n, e in ENTRIES.items() if e.arrays and e.right is None]
    assert len(without) < 21


def _settle(count: Count) -> None:
    TOTAL.values += count.values
    TOTAL.refusals += count.refusals
    TOTAL.compared += count.compared
    TOTAL.faults += count.faults
    assert not count.faults, f"{count}\n" + "\n".join(count.faults)


def test_the_count(record_property):
    """Runs last; the figures are in the report (junit) of the tests."""
    record_property("hostile inputs", str(TOTAL))
    print(TOTAL)
