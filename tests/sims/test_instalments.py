"""The published profile cell by cell: which come first, what a number needs, a time limit, and what is shown."""

import json
import threading
from contextlib import nullcontext
from dataclasses import replace

import pytest

from sims import cli
from sims.runs.store import RunFolder
from sims.studies.paper.cells import DATA, FIRST, A, B, Cell, by_worth, chosen, needed
from sims.studies.paper.instalments import published_steps, shares
from sims.studies.paper.profiles import Profile, profile
from sims.studies.paper.published import PUBLISHED, RUN_A, SIZES, STAGES
from sims.sweep.engine import LocalExecutor
from sims.sweep.estimate import Costs, looks
from sims.sweep.grid import Grid
from sims.sweep.lease import DriverLease
from sims.sweep.sweep_run import SweepRun, _jobs
from sims.sweep.work import ToyWork
from sims.system.errors import QueryError
from sims.system.signals import TimeLimit


@pytest.fixture(scope="module")
def cells():
    return profile("published").cells()


@pytest.fixture
def tiny(tiny_run, tiny_measure, monkeypatch):
    """A profile of two cells and two seeds that takes seconds, in place of the published one."""
    grids = tuple(Grid(tiny_run(), (s,), (8,), (0, 1), base_lrs={}, lrs=(1e-2,)) for s in ("rope", "muon"))
    found = Profile("published", grids, (), tiny_measure(causal_sequences=0, early=1), instalments=True)
    monkeypatch.setattr("sims.studies.paper.profiles.profile", lambda name: found)
    return found


class TestCells:
    def test_the_order_of_worth_begins_as_stated_and_run_b_comes_last(self, cells):
        names = [str(cell) for cell in cells]
        assert names[:6] == [f"{s}:{b}" for s in ("untied", "muon") for b in SIZES]
        assert names[6:8] == ["rope:32", "baseline:32"]
        parts = [cell.part for cell in cells]
        assert parts == [A] * 8 + [DATA] * 6 + [A] * 4 + [B] * 20
        assert names[8:14] == [f"{s}:{b}:D" for s in ("untied", "muon") for b in SIZES]
        assert names[18].startswith("muon")
        assert len(FIRST) == 8

    def test_every_run_of_the_profile_is_in_one_cell(self, cells):
        runs = [c for own in cells.values() for c in own]
        published = profile("published")
        assert len(runs) == len(set(runs))
        assert set(runs) == set(published.configs(published.figures))
        for cell, own in cells.items():
            assert {(c.stage, c.batch_size) for c in own} == {(cell.stage, cell.batch_size)}
            assert {c.target_loss for c in own} == {2.5 if cell.part == B else 2.0}
            assert cell.part == B or len({(c.seed, c.task.seed) for c in own}) == 5
            assert len({c.task.seed for c in own}) == (5 if cell.part == DATA else 1)

    def test_named_cells_keep_their_order_and_unknown_ones_are_refused(self, cells):
        assert [str(c) for c in chosen(("muon:64:B", "untied:32"), cells)] == ["muon:64:B", "untied:32"]
        assert chosen((), cells) == list(cells) == by_worth(reversed(list(cells)))
        for names, said in (
            (("untied:33",), "choose from untied:32"),
            (("rope:32", "rope:32"), "more than once"),
        ):
            with pytest.raises(QueryError, match=said):
                chosen(names, cells)

    def test_what_a_published_number_needs(self, cells):
        """Every number needs cells that the profile has, and each of its batch sizes where it is a mean over them."""
        for key in PUBLISHED:
            assert set(needed(key)) <= set(cells), key
        assert needed("tokens untied 128") == (Cell("untied", 128),)
        assert set(needed("h_peak muon 500")) == {Cell("muon", size) for size in SIZES}
        assert set(needed("gain rope → muon")) == {Cell(s, b) for s in ("rope", "muon") for b in SIZES}
        assert set(needed("batch js rope 32 128")) == {Cell("rope", size) for size in SIZES}
        assert len(needed("link")) == len(STAGES) * len(SIZES)
        assert {c.part for c in needed("tail untied")} == {B}

    def test_the_published_end_of_a_cell(self, cells):
        for cell, own in cells.items():
            expected = RUN_A[cell.stage][SIZES.index(cell.batch_size)][3] if cell.part != B else own[0].steps
            assert published_steps(cell, own[0]) == expected


class TestOrder:
    def test_groups_start_in_the_order_of_the_runs(self, tiny_run, tiny_measure, tmp_path):
        cheap, dear = tiny_run(stage="rope", steps=4), tiny_run(stage="rope", steps=40)
        work = ToyWork(tiny_measure())
        for in_order, expected in ((True, [cheap, dear]), (False, [dear, cheap])):
            sweep = SweepRun([cheap, dear], work, tmp_path, {}, in_order=in_order)
            lease = DriverLease(tmp_path / ".session", "")
            jobs = _jobs(sweep, [(cheap, None), (dear, None)], LocalExecutor(), lease)
            assert [job.configs[0] for job in jobs] == expected


class TestTime:
    def test_a_run_takes_its_steps_evaluations_and_measurements(self, tiny_run, tiny_measure):
        config, measure = tiny_run(steps=40, eval_every=10), tiny_measure(every=20, early=0)
        known = Costs({config.stage: 1e-3}, evaluation=2.0, measurement=5.0)
        evaluations, measurements = looks(config, measure)
        expected = 40 * config.tokens_per_step * 1e-3 + 2.0 * evaluations + 5.0 * measurements
        assert known.seconds(config, 40, measure) == pytest.approx(expected)
        assert known.seconds(config, 20, measure) < expected


class Over(nullcontext):
    """A time limit that is over."""

    over = True


class TestCommand:
    @pytest.mark.slow
    def test_cells_are_trained_one_by_one_and_shown(self, tiny, tmp_path, capsys):
        line = ["reproduce", "fig4b", "--profile", "published", "--workers", "1", "--out", str(tmp_path)]
        assert cli.main([*line, "--cells", "muon:8"]) == 0
        assert {f.name.split("-")[0] for f in tmp_path.glob("*-*")} == {"muon"}
        capsys.readouterr()
        assert cli.main([*line, "--dry-run", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["cells"]
        assert {r["cell"]: (r["runs"], r["there"], r["begun"]) for r in found} == {
            "muon:8": (2, 2, 0),
            "rope:8": (2, 0, 0),
        }
        assert [r["seconds"] > 0 for r in found] == [r["there"] == 0 for r in found]
        assert cli.main([*line, "--cells", "muon:9"]) == 2

    def test_the_time_limit_stores_what_is_under_way_and_the_same_command_continues(
        self, tiny, tiny_run, tmp_path, capsys, monkeypatch
    ):
        long = Grid(tiny_run(steps=4_000, eval_every=20), ("rope",), (8,), (0,), base_lrs={}, lrs=(1e-2,))
        slow = replace(tiny, a=(long,))
        monkeypatch.setattr("sims.studies.paper.profiles.profile", lambda name: slow)
        line = ["reproduce", "fig4b", "--profile", "published", "--workers", "1", "--out", str(tmp_path)]
        assert cli.main([*line, "--hours", "0.0006"]) == 0
        told = capsys.readouterr().out
        assert "the same command continues" in told
        assert "no run is complete yet" in told
        (config,) = long.configs()
        folder = RunFolder(tmp_path / config.run_id)
        assert not folder.done

    def test_no_time_at_all_trains_nothing(self, tiny, tmp_path, capsys):
        line = ["reproduce", "fig4b", "--profile", "published", "--workers", "1", "--out", str(tmp_path)]
        assert cli.main([*line, "--hours", "0"]) == 0
        assert not list(tmp_path.iterdir())
        assert "no run is complete yet" in capsys.readouterr().out

    def test_a_run_that_was_begun_is_counted_as_such(self, tiny, tmp_path):
        (cell, own), *_ = tiny.cells().items()
        RunFolder(tmp_path / own[0].run_id).start(own[0], tiny.measuring, {})
        found = {share.cell: share for share in shares(tiny.cells(), tmp_path, tmp_path / "none")}
        assert found[cell].begun == (own[0],)
        assert found[cell].left == tuple(own)

    def test_a_run_that_was_half_added_to_the_kept_ones_is_not_under_way(self, tiny, tmp_path):
        (cell, own), *_ = tiny.cells().items()
        RunFolder(tmp_path / "kept" / own[0].run_id).start(own[0], tiny.measuring, {})
        found = {share.cell: share for share in shares(tiny.cells(), tmp_path / "out", tmp_path / "kept")}
        assert found[cell].begun == found[cell].there == ()

    @pytest.mark.parametrize("hours", ["0", "1"])
    def test_runs_that_failed_are_shown_whatever_ends_the_training(
        self, tiny, tmp_path, capsys, monkeypatch, hours
    ):
        """With an hour, the limit arrives while others train."""
        (_, own), *_ = tiny.cells().items()
        folder = RunFolder(tmp_path / own[0].run_id)
        folder.start(own[0], tiny.measuring, {})
        folder.fail("the loss is not finite", "")

        def over(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("sims.studies.paper.instalments.run_all", over)
        monkeypatch.setattr("sims.studies.paper.instalments.TimeLimit", lambda _: Over())
        line = ["reproduce", "fig4b", "--profile", "published", "--workers", "1", "--out", str(tmp_path)]
        assert cli.main([*line, "--hours", hours]) == 1
        told = capsys.readouterr()
        assert "the loss is not finite" in told.out + told.err
        assert cli.main([*line, "--hours", hours, "--json"]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert list(answer["failed"]) == [own[0].run_id]
        assert answer["page"] is None

    def test_no_time_in_a_folder_that_is_not_there(self, tiny, tmp_path, capsys):
        out = tmp_path / "nowhere"
        line = ["reproduce", "fig4b", "--profile", "published", "--workers", "1", "--out", str(out)]
        assert cli.main([*line, "--hours", "0"]) == 0
        assert "no run is complete yet" in capsys.readouterr().out
        assert not out.exists()
        assert cli.main([*line, "--hours", "0", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"failed": {}, "page": None}


@pytest.mark.parametrize("seconds", [1e300, float("inf")])
def test_a_limit_beyond_what_a_thread_can_wait_is_kept(seconds, monkeypatch):
    """A thread that raised would end, and no time be limited."""
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    limit = TimeLimit(seconds)
    with limit:
        limit._timer.join(0.1)
        assert limit._timer.is_alive()
    assert not raised
    assert not limit.over


def test_an_interruption_by_a_person_is_not_taken_for_the_end_of_time(tiny, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sims.studies.paper.instalments.run_all", interrupted)
    line = ["reproduce", "fig4b", "--profile", "published", "--workers", "1", "--out", str(tmp_path)]
    assert cli.main([*line, "--hours", "1"]) == 130
