"""Settings of runs and of measurements: values of another type, and sizes that no machine has."""

from dataclasses import fields, replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import MEASURE, RUN

from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig, RunMetadata
from sims.runs.measure_config import MeasureConfig
from sims.runs.watched_config import WatchedConfig
from sims.studies.look.options import TextOptions
from sims.sweep.estimate import _small
from sims.system.errors import MeasureError
from sims.training.toy_memory import check_memory
from toymodel.config import RunConfig
from toymodel.errors import ConfigError
from toymodel.tasks import DyckDepth, ModularArithmetic, ModularWalks, Scan

LM = LmConfig.of_tier("tiny", "muon", 500)
CONFIGS = (RUN, LM, MeasureConfig(), LmMeasureConfig(), WatchedConfig())
TRUTHS = [
    pytest.param(c, f.name, id=f"{type(c).__name__}.{f.name}")
    for c in CONFIGS
    for f in fields(c)
    if f.init and get_type_hints(type(c))[f.name] is bool
]
LABELS = (RunMetadata(), TextOptions())


def _number(config: type, name: str) -> bool:
    return bool({int, float} & {hint := get_type_hints(config)[name], *get_args(hint)})


LISTS = [
    (LM, "checkpoints", 0.5),
    (MeasureConfig(), "sites", "final"),
    (MeasureConfig(), "bands", ((11, 7, 1),)),
]


@pytest.mark.parametrize(("config", "name"), TRUTHS)
def test_what_is_neither_true_nor_false_is_refused(config, name):
    """A text such as "no" would count as true, and be written into the identity of the run."""
    for value in ("no", 1, None):
        with pytest.raises((ConfigError, MeasureError), match=f"^{name} is {value!r}; pass True or False$"):
            replace(config, **{name: value})
    assert getattr(replace(config, **{name: np.False_}), name) is False


@pytest.mark.parametrize(("config", "name", "value"), LISTS)
def test_what_is_no_list_of_its_size_is_refused(config, name, value):
    with pytest.raises((ConfigError, MeasureError), match=f"^{name} is .*; pass a list"):
        replace(config, **{name: value})


@pytest.mark.parametrize(
    ("config", "name"),
    [(c, f.name) for c in (RUN, LM, *LABELS) for f in fields(c) if f.init and _number(type(c), f.name)],
)
def test_a_text_is_no_number(config, name):
    """Of the labels of a run "0" was another seed than 0, and others ended in a comparison of a text with a number."""
    for value in ("8", True):
        with pytest.raises((ConfigError, MeasureError), match=f"^{name} is {value!r}; pass a"):
            replace(config, **{name: value})


@given(vocab=st.integers(3, 60), least=st.integers(1, 70), data=st.data())
def test_room_for_training_bands_is_counted(vocab, least, data):
    bands = [(c, o) for c in range(max(least, 3), vocab + 1) if c % 2 for o in range(vocab - c + 1)]
    wanted = data.draw(st.integers(0, len(bands) + 2))
    run = replace(RUN, task=ModularWalks(vocab=vocab, modulus_min=2, train=8, val=64, test=8))
    measuring = replace(MEASURE, training_bands=wanted, training_band_min=least)
    if wanted <= len(bands):
        measuring._check_training_bands(run)
        return
    with pytest.raises(MeasureError, match=f"has {len(bands)} bands of odd modulus"):
        measuring._check_training_bands(run)


@pytest.mark.parametrize("name", ["vocab", "length", "val", "test"])
def test_sizes_that_no_machine_has_are_refused_at_once(name):
    task = ModularWalks(**{"train": 8, "val": 64, "test": 8, name: 2**31 - 1})
    run = replace(RUN, task=task, eval_size=8)
    replace(MEASURE, training_bands=0)._check_training_bands(run)
    with pytest.raises(ConfigError, match="of memory, and cpu has"):
        check_memory([replace(run, model=replace(run.model, d_model=1_024))], "cpu")


def test_more_looks_than_any_run_stores_are_refused_at_once():
    with pytest.raises(ConfigError, match="give at most 100,000"):
        LmConfig.of_tier("tiny", "muon", 500, looks=10**11)


SMALL = [
    DyckDepth(pairs=4, train=34, val=4, test=4),
    Scan(longest=2, train=8, val=4, test=4),
    ModularWalks(vocab=5, modulus_min=3, length=4, train=3, val=2, test=2, unique_val=True),
    ModularArithmetic(p=3),
]


@pytest.mark.parametrize("task", SMALL, ids=lambda task: task.kind)
def test_a_small_task_is_not_made_larger_to_time_its_steps(task):
    small = _small(RunConfig(task=task, batch_size=1, eval_size=None))
    assert small.train <= task.train
    assert small.val <= task.val
    small.splits()
