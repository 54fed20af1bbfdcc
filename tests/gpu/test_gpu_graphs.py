"""Training steps of a tiny toy as CUDA graphs, and without, on a CUDA device."""

import time
from dataclasses import replace

import pytest
import torch

from sims.gpu.setting import Setting
from toymodel.ensemble import Ensemble
from toymodel.stages import CHAIN
from toymodel.training import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BASE = replace(Setting("cuda", True, time.perf_counter() + 600).run(), newton_schulz="float32")


def losses(stage, graphs, precision="float32"):
    base = replace(BASE, stage=stage, steps=40, eval_every=8, precision=precision)
    ensemble = Ensemble([base, replace(base, seed=1, lr=2e-3)], "cuda", graphs)
    found = [[*s.train_losses, *s.val_losses] for s in train(ensemble) if s.step]
    if graphs == "on":
        assert ensemble.evaluated.captures
    return torch.tensor(found), ensemble.repeated


@pytest.mark.parametrize("stage", CHAIN)
def test_a_captured_step_trains_as_an_eager_one(stage):
    (eager, _), (captured, repeated) = losses(stage, "off"), losses(stage, "on")
    assert repeated.captures >= 1
    torch.testing.assert_close(captured, eager, rtol=1e-3, atol=0)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_a_captured_step_keeps_its_precision(precision):
    exact, _ = losses("untied", "on")
    (eager, _), (captured, _) = (losses("untied", graphs, precision) for graphs in ("off", "on"))
    torch.testing.assert_close(captured, eager, rtol=1e-3, atol=0)
    assert not torch.equal(captured, exact)


def test_what_cannot_be_captured_goes_on_without():
    base = replace(BASE, stage="untied", newton_schulz="exact", steps=6)
    ensemble = Ensemble([base], "cuda")
    with pytest.warns(UserWarning, match="without CUDA graphs"):
        ensemble.advance(6)
    assert ensemble.repeated.reason
    assert bool(ensemble.evaluate().isfinite().all())
