"""Claims over worker processes: the same verdicts in the same order, and no process left behind."""

import multiprocessing
import pickle
import signal
from dataclasses import replace
from functools import partial

import pytest

from sims.commands.theory import Theory
from sims.system.pool import ordered_map
from theory import select, verify
from toymodel.errors import ConfigError

CLAIMS = select("T7.scale", "T2.circulant", "T8.table")


def test_workers_give_the_verdicts_of_one_process_in_order():
    alone = [verify(claim, "quick", 3) for claim in CLAIMS]
    with ordered_map(2, []) as each:
        pooled = list(each(partial(verify, profile="quick", generator_seed=3), CLAIMS))
    assert [v.claim for v in pooled] == list(CLAIMS)
    for a, b in zip(alone, pooled, strict=True):
        assert (a.status, a.reason, a.drawn, a.mutants) == (b.status, b.reason, b.drawn, b.mutants)
        assert a.derivation == b.derivation
        assert [r.score for r in a.results] == [r.score for r in b.results]
        assert [r.measured.value.tolist() for r in a.results] == [
            r.measured.value.tolist() for r in b.results
        ]


def test_an_exception_ends_the_workers_at_once():
    before = set(multiprocessing.active_children())
    started = set()

    def interrupted() -> None:
        with ordered_map(2, []) as each:
            each(partial(verify, profile="full"), select("T8"))
            started.update(set(multiprocessing.active_children()) - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [process.exitcode for process in started] == [-signal.SIGTERM] * 2


def test_no_workers_are_refused():
    with pytest.raises(ConfigError, match="--workers is 0; it must be at least 1"):
        Theory(workers=0).run()


def test_a_claim_travels_by_its_id_and_a_changed_one_not_at_all():
    (claim,) = select("T7.scale")
    assert pickle.loads(pickle.dumps(claim)) is claim
    with pytest.raises(pickle.PicklingError, match=r"T7\.scale is not the registered claim"):
        pickle.dumps(replace(claim, predicted=lambda case: 2 * claim.predicted(case)))
