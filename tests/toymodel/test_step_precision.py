"""The arithmetic of training: chosen for its steps, and for nothing else."""

from dataclasses import replace

import pytest
import torch
from simulated import simulated_device
from torch.backends.cuda import matmul

from toymodel.config import as_dict, run_config
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError
from toymodel.precision import full_precision, tf32


def noted(ensemble, monkeypatch):
    """What holds in every forward pass: (gradients are recorded, TF32 is allowed, autocast is on)."""
    seen = []
    transformer = type(ensemble.transformer)
    losses = transformer.losses

    def spy(self, params, *rest, **more):
        kind = ensemble.device.type
        seen.append((torch.is_grad_enabled(), matmul.allow_tf32, torch.is_autocast_enabled(kind)))
        return losses(self, params, *rest, **more)

    monkeypatch.setattr(transformer, "losses", spy)
    return seen


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("outside", [False, True])
def test_steps_have_the_precision_of_the_run_and_evaluations_all_of_it(tiny, monkeypatch, precision, outside):
    with simulated_device():
        ensemble = Ensemble([tiny(stage="untied", precision=precision, newton_schulz="float32")], "cuda")
        seen = noted(ensemble, monkeypatch)
        # Whatever is chosen outside, and restored there.
        with tf32(outside):
            ensemble.advance(1)
            ensemble.evaluate()
            assert matmul.allow_tf32 == outside
        step, evaluation = seen
        assert step == (True, precision == "tf32", precision == "bfloat16")
        assert evaluation == (False, False, False)


def test_bfloat16_is_near_and_counts_in_the_identity(tiny):
    exact, half = tiny(stage="untied"), tiny(stage="untied", precision="bfloat16")
    a, b = Ensemble([exact]), Ensemble([half])
    assert torch.equal(a.evaluate(), b.evaluate())
    la, lb = a.advance(4), b.advance(4)
    assert not torch.equal(la, lb)
    torch.testing.assert_close(la, lb, rtol=1e-2, atol=0)
    assert b.params["embed"].dtype == torch.float32
    assert half.run_id != exact.run_id
    assert run_config(as_dict(half)) == half
    # Runs from before there was a choice keep their name.
    assert "precision" not in as_dict(exact)


def test_full_precision_undoes_autocast_and_tf32():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16), tf32(True):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision():
            assert (x @ x).dtype == torch.float32
            assert not matmul.allow_tf32
        assert matmul.allow_tf32
    assert not matmul.allow_tf32


def test_what_a_device_does_not_have_is_refused(tiny):
    with pytest.raises(ConfigError, match="tf32, which cpu does not have; take float32"):
        Ensemble([tiny(precision="tf32")])
    with pytest.raises(ConfigError, match="choose 'float32', 'tf32'"):
        replace(tiny(), precision="half")
