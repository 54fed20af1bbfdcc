"""What an ensemble goes through, for comparisons to the last bit."""

import torch

from toymodel.training import train


def trajectory(ensemble):
    """{run id: [(step, train loss, val loss), …]} and the final state of every member."""
    rows, states = {}, {}
    for snapshot in train(ensemble):
        for k, config in enumerate(snapshot.configs):
            row = (snapshot.step, snapshot.train_losses[k], snapshot.val_losses[k])
            rows.setdefault(config.run_id, []).append(row)
            states[config.run_id] = snapshot.ensemble.state(k)
    return rows, states


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key
