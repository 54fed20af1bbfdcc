"""Arguments of the testing kit: every public function takes them or raises InputError, before any law runs."""

import inspect
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis.strategies import SearchStrategy
from test_hostile import SCALARS

from spectra import InputError, rankme
from spectra.arrays import to_float64
from spectra.testing import (
    KINDS,
    Subject,
    Violation,
    as_taken,
    check_estimator,
    estimator_tests,
    expect,
    laws_for,
    run_law,
    same,
    strategies,
)

KIND = "effective rank"
SUBJECT = Subject(rankme, KINDS[KIND])
CHECK = {
    "laws": ["scale"],
    "skip": (),
    "max_examples": 1,
    "torch": False,
    "takes": None,
    "holds": None,
    "result": None,
    "refusals": (ValueError,),
    "may_refuse": False,
    "quiet": True,
}
CALLS = {
    check_estimator: {"function": rankme, "kind": KIND, "tolerance": 1e-8, "name": "f", **CHECK},
    run_law: {"law": laws_for(KIND)[0], "subject": SUBJECT, "max_examples": 1},
    laws_for: {"kind": KIND, "takes": None},
    as_taken: {"eigenvalues": [2.0, 1.0], "takes": "matrix"},
    estimator_tests: {
        "function": rankme,
        "kind": KIND,
        **{name: CHECK[name] for name in ("takes", "laws", "skip")},
    },
    Subject: {
        "function": rankme,
        "kind": KINDS[KIND],
        "refusals": (ValueError,),
        "tolerance": 1e-8,
        "tensors": False,
        "result": None,
        "made": None,
        "may_refuse": False,
    },
    expect: {"holds": True, "message": "m"},
    same: {"got": [1.0, 2.0], "want": [1.0, 2.0], "slack": 0.1, "got_name": "f", "want_name": "g"},
    strategies.matrix_with_spectrum: {
        "energies": [2.0, 1.0],
        "n": 4,
        "rng": np.random.default_rng(0),
        "centred": True,
    },
    strategies.orthogonal_matrices: {"d": 3},
    strategies.varies: {"x": np.ones((3, 2))},
    strategies.wave: {"c": 7, "r": 2, "d": 2, "column": 1},
}
for _name in strategies.__all__:
    _function = getattr(strategies, _name)
    if inspect.isfunction(_function) and _function not in CALLS:
        _defaults = {k: p.default for k, p in inspect.signature(_function).parameters.items()}
        CALLS[_function] = {k: v for k, v in _defaults.items() if v is not inspect.Parameter.empty}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", CALLS, ids=lambda f: f.__name__)
def test_every_argument_is_taken_or_refused(function):
    assert CALLS[function].keys() <= inspect.signature(function).parameters.keys()
    for name in CALLS[function]:
        for value in SCALARS:
            try:
                function(**{**CALLS[function], name: value})
            except (InputError, Violation):
                continue
            except Exception as error:
                raise AssertionError(f"{function.__name__}({name}={value!r})") from error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"function": 3}, r"function is 3; pass the estimator itself"),
        ({"kind": 3}, r"kind is 3; it must be 'covariance spectrum'"),
        ({"kind": ["effective rank"]}, r"kind is a list; it must be"),
        ({"laws": "scale"}, r"laws is 'scale'; pass a list of names"),
        ({"laws": 3}, r"laws is 3; pass a list of names"),
        ({"laws": [3]}, r"3 is no law of kind"),
        ({"skip": "scale"}, r"skip is 'scale'; pass a list"),
        ({"tolerance": "1e-8"}, r"tolerance is '1e-8'; pass one real number"),
        ({"tolerance": math.nan}, r"tolerance is nan; it must lie"),
        ({"max_examples": 2.5}, r"max_examples is 2.5; pass a whole number"),
        ({"max_examples": 10**9}, r"max_examples is 1000000000; it must be 1 to 1000000"),
        ({"torch": np.ones(3)}, r"torch is an array of shape \(3,\); it must be"),
        ({"takes": "tensor"}, r"takes is 'tensor'; it must be 'spectrum', 'singular', 'matrix' or 'weights'"),
        ({"kind": "divergence", "takes": "matrix"}, r"a function of kind 'divergence' is called as f\(p"),
        ({"kind": "exponent", "takes": "matrix"}, r"takes is 'matrix'; it must be 'spectrum' or 'singular'"),
        ({"holds": "pandas"}, r"holds is 'pandas'; it must be 'numpy' or 'torch'"),
        ({"result": 2.5}, r"result is 2.5; pass a name, an index or a function"),
        ({"refusals": ValueError}, r"refusals is a type; pass a tuple of exception types"),
        ({"refusals": (3,)}, r"refusals is a tuple; pass a tuple of exception types"),
        ({"name": 3}, r"name is 3; pass a text"),
        ({"quiet": "yes"}, r"quiet is 'yes'; it must be True or False"),
    ],
)
def test_what_is_refused_is_said_with_the_rule(change, said):
    with pytest.raises(InputError, match=said):
        check_estimator(**{**CALLS[check_estimator], **change})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: strategies.whole_matrices(max_rows=1), "max_rows is 1; it must be at least 2"),
        (lambda: strategies.whole_spectra(0), "max_size is 0; it must be at least 1"),
        (lambda: strategies.spiked_spectra(max_size=2), "max_size is 2; it must be at least 3"),
        (lambda: strategies.positive_spectra(5, 4), "max_size is 4; it must be at least 5"),
        (lambda: strategies.class_means(2), "max_c is 2; it must be at least 3"),
        (lambda: strategies.matrices_with_spectrum([1.0]), "energies is a list; pass a strategy"),
        (lambda: strategies.wave(7, 2, 2, 2), "column is 2; it must be 0 to 1"),
        (
            lambda: strategies.matrix_with_spectrum([1.0], 2.5, np.random.default_rng(0)),
            "n is 2.5; pass a whole",
        ),
        (lambda: strategies.matrix_with_spectrum([1.0], 4, 0), "rng is 0; pass a generator"),
        (lambda: same([1], [1], -1, "f", "g"), "slack is -1.0; it must be 0 or more"),
        (lambda: expect(np.array([True, False]), "m"), r"holds is an array of shape \(2,\)"),
    ],
)
def test_strategies_refuse_when_they_are_called(call, said):
    with pytest.raises(InputError, match=said):
        call()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 3}, "name is 3; pass a text"),
        ({"name": " "}, "name is ' '; pass a text"),
        ({"statement": None}, "statement is None; pass a text"),
        ({"kinds": KIND}, "kinds is 'effective rank'; pass a tuple of names"),
        ({"kinds": ()}, "kinds is empty"),
        ({"kinds": (3,)}, "kinds is a tuple; pass a tuple of names"),
        ({"cases": [1.0]}, "cases is a list; pass a hypothesis strategy"),
        ({"check": "scale"}, "check is 'scale'; pass a function"),
        ({"needs_torch": "yes"}, "needs_torch is 'yes'; it must be"),
    ],
)
def test_a_law_is_checked_when_it_is_made(change, said):
    with pytest.raises(InputError, match=said):
        replace(laws_for(KIND)[0], **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "name is ''; pass a text"),
        ({"signature": 3}, "signature is 3; pass a text"),
        ({"valid": {}}, "valid is a dict; pass a hypothesis strategy"),
        ({"empty": None}, "empty is None; pass a hypothesis strategy"),
        ({"arrays": "eigenvalues"}, "arrays is 'eigenvalues'; pass a tuple of names"),
        ({"convert": 3}, "convert is 3; pass a function"),
        ({"usable": True}, "usable is True; pass a function"),
        ({"call": None}, "call is None; pass a function"),
    ],
)
def test_a_kind_is_checked_when_it_is_made(change, said):
    with pytest.raises(InputError, match=said):
        replace(KINDS[KIND], **change)


def test_strategies_stay_strategies():
    assert isinstance(strategies.whole_matrices(4, bound=2), SearchStrategy)
    assert strategies.whole_matrices.__doc__
    with pytest.raises(TypeError):
        strategies.whole_spectra(sizes=3)


def fastest(call):
    times = []
    for _ in range(7):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times)


def test_nested_lists_cost_little_more_than_their_conversion():
    """About 2 times; a look at each number by itself took 12 times."""
    rows = np.random.default_rng(0).standard_normal((1000, 200)).tolist()
    assert fastest(lambda: to_float64(rows, name="x")) < 6 * fastest(lambda: np.asarray(rows))


def test_lists_deeper_than_any_array_are_refused():
    deep, itself = [1.0], []
    for _ in range(5000):
        deep = [deep]
    itself.append(itself)
    for x in (deep, itself):
        with pytest.raises(InputError, match="is a list that is no array"):
            to_float64(x, name="x")


@pytest.mark.parametrize(
    "hidden", [np.ma.masked, np.ma.array(3.0, mask=True), np.ma.array([3.0, 4.0], mask=[0, 1])]
)
def test_a_masked_entry_anywhere_in_a_list_is_refused(hidden):
    for x in ([1.0, hidden], [[1.0, 2.0], hidden], [[1.0, 2.0], [1.0, hidden]], ([[1.0, hidden]],)):
        with pytest.raises(InputError, match="has masked entries"):
            to_float64(x, name="x")
