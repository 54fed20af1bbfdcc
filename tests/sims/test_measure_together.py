"""Members of an ensemble measured together: the rows of each are those of the member alone, at the cost of one."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from simulated import simulated_device
from tiny_runs import MEASURE, RUN

from sims.measure.engine import gather, measure
from sims.measure.toy import prepare
from sims.models.stack import SubjectStack
from sims.models.transformer import TransformerStack
from sims.runs.store import RunFolder
from sims.training.toy_runner import run_group
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.stages import CHAIN

MEMBERS = 4
# What a measuring point of any number of members asks of a device, at the tiny size with two layers: a tenth more than
# was seen (bytes: of each member).
LAUNCHES = {"baseline": 550, "untied": 850}
HOST_BYTES = 135_000


def configs(stage, members=MEMBERS):
    model = replace(RUN.model, layers=2)
    return [replace(RUN, stage=stage, model=model, seed=s, lr=0.02, steps=40) for s in range(members)]


@cache
def states(stage):
    ensemble = Ensemble(configs(stage))
    ensemble.advance(4)
    return [ensemble.state(k) for k in range(MEMBERS)]


def stack(stage, members=MEMBERS, device="cpu"):
    own = configs(stage, members)
    ensemble = Ensemble.from_states(own, states(stage)[:members], 4, device)
    return TransformerStack(own, {name: p.detach() for name, p in ensemble.params.items()}, 4)


def inputs(stage, device="cpu", **more):
    config = configs(stage, 1)[0]
    return prepare(replace(MEASURE, **more), config, dataset(config.task), device)


def assert_close(one, other, rtol, atol):
    """Compare two sheets row by row and spectrum by spectrum."""
    assert len(one.rows) == len(other.rows)
    for a, b in zip(one.rows, other.rows, strict=True):
        numbers = [name for name in a if isinstance(a[name], float)]
        assert {n: a[n] for n in a if n not in numbers} == {n: b[n] for n in b if n not in numbers}
        for name in numbers:
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=atol, err_msg=str(a))
    for a, b in zip(one.spectra, other.spectra, strict=True):
        assert (a["object"], a["site"], len(a["values"])) == (b["object"], b["site"], len(b["values"]))
        np.testing.assert_allclose(a["values"], b["values"], rtol=rtol, atol=1e-9 * max(a["values"]))


# The last stage has the parts of all; the others with -m slow.
COMPARED = ("baseline", "untied", "flex_window", "attn_scale")


@pytest.mark.parametrize("pooling", ["last", "token"])
@pytest.mark.parametrize(
    "stage", [pytest.param(s, marks=() if s in COMPARED else pytest.mark.slow) for s in CHAIN]
)
def test_rows_do_not_depend_on_who_is_measured_beside(stage, pooling):
    data = inputs(stage, pooling=pooling, sites=("embed", "final") if pooling == "token" else ("final",))
    whole = stack(stage)
    found = [each.sheet() for each in gather(whole, data)]
    for sheet, member in zip(found, whole.members, strict=True):
        alone = measure(member, data)
        if pooling == "last":
            # To the last bit: members go through the network one by one on a CPU.
            assert repr((sheet.rows, sheet.spectra)) == repr((alone.rows, alone.spectra))
        assert_close(sheet, alone, rtol=1e-9, atol=1e-9)


def test_a_stack_of_any_models_measures_the_same():
    data = inputs("untied")
    whole = stack("untied")
    slow = SubjectStack(whole.members)
    for a, b in zip(gather(whole, data), gather(slow, data), strict=True):
        assert_close(a.sheet(), b.sheet(), rtol=1e-6, atol=1e-6)
    sequences = data.sequences[:6]
    (many,), (few,) = (list(s.activations(sequences, ("embed", "final"))) for s in (whole, slow))
    for site in many:
        torch.testing.assert_close(many[site], few[site])
    tables = torch.randn(MEMBERS, 3, *whole.matrices["embed"].shape[1:])
    edited = [s.edited("embed", tables).last_states(sequences) for s in (whole, slow)]
    torch.testing.assert_close(*edited)
    queries = torch.randn(MEMBERS, 2, *whole.matrices["blocks.1.attn.q"].shape[1:])
    edited = [s.edited("blocks.1.attn.q", queries).last_states(sequences) for s in (whole, slow)]
    torch.testing.assert_close(*edited)


@pytest.mark.parametrize("stage", [pytest.param("baseline", marks=pytest.mark.slow), "untied"])
def test_a_measuring_point_waits_for_the_device_a_few_times_for_all_members(stage):
    with simulated_device() as device:
        data = inputs(stage, "cuda")
        first = [each.sheet() for each in gather(stack(stage, 1, "cuda"), data)]
        counts = {}
        for members in (1, MEMBERS):
            models = stack(stage, members, "cuda")
            with device.counting() as counts[members]:
                found = [each.sheet() for each in gather(models, data)]
    on_host = inputs(stage)
    for sheet, member in zip(found, stack(stage).members, strict=True):
        assert_close(sheet, measure(member, on_host), rtol=1e-6, atol=1e-6)
    assert_close(first[0], found[0], rtol=1e-6, atol=1e-6)
    for members, seen in counts.items():
        to_host = [t for t in seen.transfers if t.to == "host"]
        # What is found, and what is tested of it; what is tested goes to the device without waiting.
        assert (len(to_host), seen.waits) == (2, 2), str(seen)
        assert seen.moved("host") <= HOST_BYTES * members
        assert seen.launches <= LAUNCHES[stage], str(seen)
    assert counts[MEMBERS].launches < 1.2 * counts[1].launches


@pytest.mark.slow
def test_runs_on_a_device_are_measured_together(tmp_path, monkeypatch):
    runs = configs("untied", 3)
    runs = [replace(run, steps=6, newton_schulz="float32") for run in runs]
    together = []

    def counted(models, data):
        found = gather(models, data)
        together.append(len(found))
        return found

    monkeypatch.setattr("sims.training.measuring.gather", counted)
    with simulated_device():
        assert not run_group(runs, MEASURE, tmp_path / "device", "cuda")
    # At the start, at step 6 and nowhere else.
    assert together == [3, 3]
    assert not run_group(runs, MEASURE, tmp_path / "host")
    for run in runs:
        one, other = (RunFolder(tmp_path / name / run.run_id).rows() for name in ("device", "host"))
        assert one["quantity"].tolist() == other["quantity"].tolist()
        np.testing.assert_allclose(one["value"], other["value"], rtol=1e-4, atol=1e-5)
        assert RunFolder(tmp_path / "device" / run.run_id).outcome["seconds"]["measurement"] > 0
