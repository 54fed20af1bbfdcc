"""Which runs a sweep has, which of them train together, and what that costs."""

import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sims import cli
from sims.sweep.estimate import estimate
from sims.sweep.grid import Grid, with_fields
from sims.sweep.plan import plan
from sims.sweep.scaling import learning_rates
from toymodel.config import RunConfig
from toymodel.errors import ConfigError


def grid(base, **changes):
    settings = {
        "base": base,
        "stages": ("rope",),
        "batch_sizes": (8,),
        "seeds": (0,),
        "base_lrs": {"rope": 1e-3},
        "factors": (1.0,),
    }
    return Grid(**{**settings, **changes})


# --- grids -----------------------------------------------------------------------------------------------


def test_learning_rates_of_the_published_table():
    both = ("sqrt", "linear")
    assert learning_rates(6e-4, 32, both) == [3e-4, 4.242e-4, 6e-4, 8.484e-4, 1.2e-3]
    at_128 = learning_rates(6e-4, 128, both)
    at_512 = learning_rates(6e-4, 512, both)
    # √- and linear centres share three rates at 128 and one at 512; every published rate is among them.
    assert (len(at_128), len(at_512)) == (7, 9)
    for published, rates in ((1.697e-3, at_128), (2.4e-3, at_128), (3.394e-3, at_512), (6.787e-3, at_512)):
        assert any(abs(rate / published - 1) < 5e-4 for rate in rates)


def test_a_grid_is_the_product_of_its_axes(tiny_run):
    made = grid(
        tiny_run(),
        stages=("rope", "muon"),
        batch_sizes=(8, 16),
        seeds=(0, 1),
        base_lrs={"rope": 1e-3, "muon": 5e-4},
        factors=(0.5, 1.0),
        steps_at={16: 6},
        vary={"task.noise": ["0", "0.5"], "newton_schulz": ["bfloat16", "exact"]},
    ).configs()
    assert len(made) == len({c.run_id for c in made}) == 2 * 2 * 2 * 2 * 2 * 2
    assert {c.steps for c in made if c.batch_size == 16} == {6}
    assert {c.steps for c in made if c.batch_size == 8} == {12}
    assert {c.task.noise for c in made} == {0.0, 0.5}
    # The base rate is stated at batch size 32.
    assert {c.lr for c in made if c.stage == "muon" and c.batch_size == 8} == {1.25e-4, 2.5e-4}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("target_loss", "none", None), ("target_loss", "2.5", 2.5), ("task.unique_val", "true", True)],
)
def test_fields_are_set_from_text(tiny_run, name, text, expected):
    changed = with_fields(tiny_run(), {name: text})
    assert (changed.task.unique_val if "." in name else changed.target_loss) == expected


@pytest.mark.parametrize("order", [*itertools.permutations(("model.d_model", "model.heads", "eval_every"))])
def test_values_that_fit_together_are_set_together(tiny_run, order):
    """Width 36 fits 6 heads, and not the 2 of the others; 40 steps between evaluations need the steps of the batch."""
    vary = {"model.d_model": ["36"], "model.heads": ["6"], "eval_every": ["40"]}
    (config,) = grid(tiny_run(), vary={name: vary[name] for name in order}, steps_at={8: 80}).configs()
    found = (config.model.d_model, config.model.heads, config.eval_every, config.steps)
    assert found == (36, 6, 40, 80)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": ()}, "the seeds are empty"),
        ({"seeds": (1, 1)}, "the seeds hold 1 more than once"),
        ({"steps_at": {64: 10}}, "names batch size 64, which is not among"),
        ({"vary": {"lr": ["1"]}}, "use --lrs or --lr-rule"),
        ({"vary": {"task": ["1"]}}, "group of fields; name one of task.vocab"),
        ({"vary": {"depth": ["1"]}}, "no field 'depth'; it has stage"),
        ({"vary": {"task.length": ["x"]}}, "'x' is not a value"),
        ({"vary": {"newton_schulz": ["half"]}}, "'half' is not a value"),
        ({"vary": {"eval_every.x": ["1"]}}, "has no fields of its own"),
        ({"stages": ("muon",)}, "no base learning rate for stage 'muon'"),
        ({"batch_sizes": (512,)}, "400 training sequences"),
    ],
)
def test_contradictory_grids_are_named(tiny_run, changes, message):
    with pytest.raises(ConfigError, match=message):
        grid(tiny_run(), **changes).configs()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lrs", "1e-3", "--lr-factors", "1", "2"], "use one"),
        (["--steps-at", "32"], "not BATCH:STEPS"),
        (["--steps-at", "²:4"], "not BATCH:STEPS"),
        (["--steps-at", "32:4", "32:5"], "twice"),
        (["--vary", "task.length"], "not FIELD=VALUE"),
        (["--halving", "1"], "must be above 1"),
        (["--halving", "2"], "at least two learning rates"),
        (["--stage", "muon"], "has no option --stage; did you mean --stages?"),
        # Of the configuration that the grid is built around, it was passed over.
        (["--batch-size", "1"], "has no option --batch-size; did you mean --batch-sizes?"),
        (["--seed", "0"], "has no option --seed; did you mean --seeds?"),
        (["--scheduler", "nonsense", "--dry-run"], "is no address of a dask scheduler"),
        (["--batch-sizes", "100000"], "larger than the 8000 training sequences"),
    ],
)
def test_bad_command_lines_are_refused_before_anything_is_made(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", "small", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sweep_takes_as_few_training_sequences_as_a_batch_has():
    line = "sweep small --task.train 16 --batch-sizes 4 16 --stages rope --seeds 0"
    assert [c.batch_size for c in cli.parse(line.split()).preset.grid().configs()] == [4, 16]
    with pytest.raises(ConfigError, match="batch_size 32 is larger than the 16 training sequences"):
        cli.parse([*line.split(), "--batch-sizes", "32"]).preset.grid().configs()


def test_the_dry_run_shows_plan_and_cost_and_makes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    tiny = ["--task.vocab", "24", "--task.length", "8", "--model.d-model", "16", "--model.heads", "2"]
    tiny += ["--measure.bands", "17", "5", "--measure.windows", "1", "10", "--measure.training-bands", "0"]
    options = ["--lr-rule", "sqrt", "linear", "--lr-factors", ".5", "1", "2", "--halving", "2", "--dry-run"]
    assert cli.main(["sweep", "small", *tiny, *options]) == 0
    shown = capsys.readouterr().out
    # 4 stages × (3 rates at 32, 4 at 128) × 3 seeds.
    assert "84 runs in" in shown
    assert "training takes about" in shown
    assert "learning rates are pruned at" in shown
    assert not list(tmp_path.iterdir())


# --- plans -----------------------------------------------------------------------------------------------


def test_every_worker_has_something_to_do(tiny_run):
    configs = [tiny_run(seed=s) for s in range(10)]
    assert [len(g) for g in plan(configs, "cpu")] == [10]
    assert sorted(len(g) for g in plan(configs, "cpu", workers=3)) == [2, 4, 4]


def seconds_to_plan(runs):
    began = time.process_time()
    made = grid(
        RunConfig(),
        stages=("baseline", "rope", "muon", "untied"),
        batch_sizes=(32, 64, 128, 256, 512),
        base_lrs=dict.fromkeys(("baseline", "rope", "muon", "untied"), 6e-4),
        factors=(0.5, 0.707, 1.0, 1.414, 2.0),
        seeds=range(runs // 100),
    ).configs()
    groups = plan(made, "cuda")
    assert len({c.run_id for c in made}) == runs
    assert sum(map(len, groups)) == runs
    return time.process_time() - began


@pytest.mark.slow
def test_the_time_of_a_plan_grows_as_its_runs():
    """10,000 runs take 2 s. A quadratic step takes 100 times as long for ten times as many runs."""
    assert seconds_to_plan(10_000) < 40 * min(seconds_to_plan(1000) for _ in range(3))


def test_an_estimate_scales_with_the_steps(tiny_run, monkeypatch):
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 64)
    monkeypatch.setattr("sims.sweep.estimate.time", clock)
    short = [[tiny_run(steps=100)], [tiny_run(steps=100, stage="rope")]]
    long = [[replace(c, steps=10_000) for c in g] for g in short]
    found = estimate(short, "cpu")
    assert (found.timed, found.shapes) == (2, 2)
    assert found.seconds > 0
    assert estimate(long, "cpu").seconds == pytest.approx(100 * found.seconds)
