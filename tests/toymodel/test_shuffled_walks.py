"""Modular walks with permuted tokens: the same counts, nothing said by contexts, a task of its own."""

from dataclasses import replace

import numpy as np
import pytest

from toymodel import ConfigError, RunConfig, ShuffledWalks, make_dataset
from toymodel.config import as_dict, run_config
from toymodel.tasks.modular_walks import modular_walks

TASK = ShuffledWalks(vocab=16, length=12, train=3_000, val=400, test=200, seed=5)


def information(tokens):
    """Mutual information of neighbours in nats, less its bias in independent tokens."""
    joint = np.zeros((16, 16))
    np.add.at(joint, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    p = joint / joint.sum()
    product = p.sum(1, keepdims=True) * p.sum(0)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / product[seen])).sum()) - 15**2 / (2 * joint.sum())


def test_each_split_keeps_its_counts_and_loses_its_contexts():
    for own, plain in zip(TASK.splits(), TASK.walks.splits(), strict=True):
        one, other = (np.bincount(split.tokens.ravel(), minlength=16) for split in (own, plain))
        np.testing.assert_array_equal(one, other)
        assert own.tokens.shape == plain.tokens.shape
        assert own.latents is None
    train, plain = TASK.splits()[0].tokens, TASK.walks.splits()[0].tokens
    assert information(plain) > 0.2
    assert abs(information(train)) < 0.01
    # Every position has the law of all: five standard errors.
    law = np.bincount(train.ravel(), minlength=16) / train.size
    for column in train.T:
        found = np.bincount(column, minlength=16) / len(column)
        assert (np.abs(found - law) < 5 * np.sqrt(law * (1 - law) / len(column)) + 1e-12).all()


def test_the_seed_decides_and_a_run_is_read_back_as_it_was():
    again, other = replace(TASK), replace(TASK, seed=6)
    np.testing.assert_array_equal(TASK.splits()[0].tokens, again.splits()[0].tokens)
    assert (TASK.splits()[0].tokens != other.splits()[0].tokens).any()
    assert make_dataset(TASK).metadata["sha256"] != make_dataset(TASK.walks).metadata["sha256"]
    run = RunConfig(task=TASK, eval_size=None)
    assert run_config(as_dict(run)) == run
    assert run.run_id != RunConfig(task=TASK.walks, eval_size=None).run_id
    assert ShuffledWalks(modulus_power=1) == ShuffledWalks(modulus_power=1.0)


def test_it_is_no_task_of_modular_walks_and_checks_its_settings():
    with pytest.raises(ConfigError, match="the task is shuffled_walks"):
        modular_walks(TASK)
    with pytest.raises(ConfigError, match="vocab is 3"):
        ShuffledWalks(vocab=3)
