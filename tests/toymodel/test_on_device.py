"""Ensembles on a (simulated) CUDA device: the numbers of the processor, without waiting, in few launches."""

from dataclasses import replace

import pytest
import torch
from simulated import simulated_device
from trajectories import assert_same_state, trajectory

from toymodel.captured import WARM_UP
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError
from toymodel.feed import INDEX_BLOCK
from toymodel.stages import CHAIN
from toymodel.training import train

# Launches of an eager step and of an evaluation, of two layers at the tiny size: a few above what was counted. Whoever
# makes them fewer lowers the bound.
LAUNCHES = {
    "baseline": (170, 70),
    "rope": (245, 105),
    "muon": (310, 105),
    "untied": (320, 110),
    "value_mix": (360, 125),
    "unet": (375, 130),
    "fixed_window": (375, 130),
    "flex_window": (375, 130),
    "value_embed": (390, 135),
    "sparse_embed": (385, 135),
    "truncated_rope": (385, 135),
    "softcap": (385, 135),
    "long_short": (385, 135),
    "attn_scale": (385, 135),
}


@pytest.fixture
def device():
    with simulated_device() as simulated:
        yield simulated


def members(tiny, stage, **changes):
    # bfloat16 products of a CPU and those of a device differ; float32 ones are the same here.
    base = tiny(stage=stage, newton_schulz="float32", steps=16, **changes)
    return [
        base,
        replace(base, seed=1, lr=1e-3, weight_decay=0.1),
        replace(base, seed=2, task=replace(base.task, seed=5)),
    ]


def run(configs, device="cpu", graphs="auto"):
    return trajectory(Ensemble(configs, device, graphs))


def assert_same(found, expected):
    assert repr(found[0]) == repr(expected[0])
    for run_id, state in expected[1].items():
        assert_same_state(found[1][run_id], state)


# Of the other stages the launches are counted below, and the numbers and captures compared with -m slow.
COMPARED = ("untied", "attn_scale")


@pytest.mark.parametrize(
    "stage", [pytest.param(s, marks=() if s in COMPARED else pytest.mark.slow) for s in CHAIN]
)
def test_a_device_computes_what_the_processor_does(tiny, stage, device):
    # Members leave at a target, and the windows of some stages open: both have the step captured again.
    configs = members(tiny, stage, target_loss=3.12)
    expected = run(configs)
    assert_same(run(configs, "cuda", "on"), expected)


@pytest.mark.slow
def test_without_graphs_the_numbers_are_the_same(tiny, device):
    configs = members(tiny, "value_mix")
    assert_same(run(configs, "cuda", "off"), run(configs))


@pytest.mark.parametrize(
    "stage", ["untied", *(pytest.param(s, marks=pytest.mark.slow) for s in ("baseline", "attn_scale"))]
)
def test_a_resumed_ensemble_goes_on_as_if_nothing_had_been(tiny, stage, device):
    configs = members(tiny, stage)
    expected = run(configs)[1]
    first = Ensemble(configs, "cuda")
    first.advance(7)
    resumed = Ensemble.from_states(configs, [first.state(k) for k in range(3)], 7, "cuda")
    resumed.advance(9)
    for k, config in enumerate(configs):
        assert_same_state(resumed.state(k), expected[config.run_id])


@pytest.mark.parametrize(
    "stage", [pytest.param(s, marks=() if s in COMPARED else pytest.mark.slow) for s in CHAIN]
)
def test_neither_a_step_nor_an_evaluation_waits_or_copies(tiny, stage, device):
    ensemble = Ensemble(members(tiny, stage), "cuda", "off")
    ensemble.advance(5)
    ensemble.evaluate()
    step, evaluation = LAUNCHES[stage]
    for work, bound in ((lambda: ensemble.advance(1), step), (ensemble.evaluate, evaluation)):
        with device.counting() as counts:
            work()
        assert (counts.waits, len(counts.transfers)) == (0, 0), str(counts)
        assert 0.9 * bound < counts.launches <= bound


@pytest.mark.parametrize(
    "stage", [pytest.param(s, marks=() if s in COMPARED else pytest.mark.slow) for s in CHAIN]
)
@pytest.mark.parametrize("work", ["step", "evaluation"])
def test_what_is_captured_depends_on_nothing_of_the_host(tiny, stage, work, device):
    """The check that a capture needs: the same operations with the same numbers on the same memory."""
    ensemble = Ensemble(members(tiny, stage), "cuda", "off")
    ensemble.advance(5)
    ensemble.evaluate()
    records = []
    for _ in range(2):
        with device.tracing() as trace:
            ensemble.advance(1) if work == "step" else ensemble.evaluate()
        records.append(trace.steps)
        # Weights and counters move between two evaluations.
        ensemble.advance(1)
    for first, second in zip(*records, strict=True):
        assert first == second


def test_what_a_block_of_steps_needs_is_copied_once(tiny, device):
    ensemble = Ensemble(members(tiny, "untied"), "cuda")
    ensemble.advance(3)
    ensemble.step = INDEX_BLOCK - 2
    moved = []
    for _ in range(4):
        with device.counting() as counts:
            ensemble.advance(1)
        moved.append(len(counts.transfers))
    # Batches and corrections, at the first step of the block.
    assert moved == [0, 0, 2, 0]


def test_states_of_all_members_leave_and_enter_in_one_copy_a_vector(tiny, device):
    configs = members(tiny, "untied")
    ensemble = Ensemble(configs, "cuda")
    ensemble.advance(1)
    with device.counting() as counts:
        states = ensemble.trainable.states(range(3))
    # Two vectors of parameters, two moments of AdamW and one buffer of Muon, of which a few numbers are padding.
    numbers = sum(t.numel() for state in states for t in state.values())
    assert [t.to for t in counts.transfers] == ["host"] * 5
    assert 4 * numbers <= counts.moved("host") <= 4 * (numbers + 5 * 64)
    with device.counting() as counts:
        ensemble.trainable.restore(states)
    assert [t.to for t in counts.transfers] == ["device"] * 5


def test_a_captured_step_is_one_launch(tiny, device):
    ensemble = Ensemble(members(tiny, "untied"), "cuda")
    ensemble.advance(WARM_UP + 1)
    with device.counting() as counts:
        ensemble.advance(5)
    assert counts.operations["graph"] == 5
    # The total is set to zero before, and divided after.
    assert counts.launches == 7


def test_a_captured_evaluation_is_one_launch_of_the_present_weights(tiny, device):
    configs = members(tiny, "untied")
    there, here = Ensemble(configs, "cuda", "on"), Ensemble(configs)
    found = []
    for _ in range(WARM_UP + 3):
        with device.counting() as counts:
            found.append(there.evaluate())
        assert torch.equal(found[-1].cpu(), here.evaluate())
        for ensemble in (there, here):
            ensemble.advance(2)
    # The losses are copied: the next evaluation writes where they were.
    assert (counts.operations["graph"], counts.launches, counts.waits) == (1, 2, 0)
    assert there.evaluated.captures == 1
    assert len({float(losses[0]) for losses in found}) == len(found)


def test_an_evaluation_is_captured_again_where_a_window_opens_or_a_member_leaves(tiny, device):
    ensemble = Ensemble([replace(c, steps=250) for c in members(tiny, "flex_window")], "cuda")
    captures = []
    for change in (lambda: None, lambda: ensemble.advance(9), lambda: ensemble.keep([0, 2])):
        change()
        for _ in range(WARM_UP + 2):
            losses = ensemble.evaluate()
        assert torch.equal(losses.cpu(), _evaluated_here(ensemble))
        captures.append(ensemble.evaluated.captures)
    assert captures == [1, 2, 3]


def _evaluated_here(ensemble):
    states = [ensemble.state(k) for k in range(len(ensemble.configs))]
    return Ensemble.from_states(ensemble.configs, states, ensemble.step).evaluate()


def test_a_step_is_captured_again_where_a_window_opens_or_a_member_leaves(tiny, device):
    # A run of 250 steps opens its window by two positions every eight or nine of the first fifty.
    ensemble = Ensemble([replace(c, steps=250) for c in members(tiny, "flex_window")], "cuda")
    captures = []
    for _ in range(2):
        ensemble.advance(9)
        captures.append(ensemble.repeated.captures)
    ensemble.keep([0, 2])
    ensemble.advance(WARM_UP + 1)
    captures.append(ensemble.repeated.captures)
    assert captures == [1, 2, 3]


def test_constants_made_before_a_capture_are_used_in_it(tiny, device):
    ensemble = Ensemble(members(tiny, "attn_scale"), "cuda")
    ensemble.advance(8)
    assert ensemble.repeated.captures == 1
    made = {"arange", "cos", "sin", "ge", "lt"}
    with device.counting() as counts:
        ensemble.repeated.forget()
        ensemble.advance(1)
    assert not made & counts.operations.keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_captured_is_done_piece_by_piece_and_says_why(tiny, device):
    # The singular value decomposition waits for the device.
    configs = [replace(c, newton_schulz="exact") for c in members(tiny, "untied")]
    expected = run(configs)
    ensemble = Ensemble(configs, "cuda")
    with pytest.warns(UserWarning, match=r"without CUDA graphs: the capture failed: .*_linalg_svd"):
        found = trajectory(ensemble)
    assert "_linalg_svd" in ensemble.repeated.reason
    assert_same(found, expected)
    with pytest.raises(ConfigError, match=r"cannot be captured.*_linalg_svd.*take auto"):
        run(configs, "cuda", "on")


def test_graphs_need_cuda(tiny):
    with pytest.raises(ConfigError, match="cpu has no CUDA graphs; take auto or off"):
        Ensemble([tiny()], graphs="on")
    assert Ensemble([tiny()]).repeated.reason == "no CUDA graphs on cpu"


def test_observers_see_the_weights_of_their_step(tiny, device):
    class Sums:
        def __init__(self):
            self.seen = []

        def due(self, step):
            return step % 3 == 0

        def look(self, view):
            self.seen.append((view.step, float(view.weights()["head"].double().sum())))

    def seen(place):
        observers = [[Sums()] for _ in range(3)]
        for _ in train(Ensemble(members(tiny, "untied"), place), observers):
            pass
        return [o.seen for (o,) in observers]

    assert seen("cuda") == seen("cpu")


def test_accuracies_of_members_in_any_order(tiny, device):
    here, there = (Ensemble(members(tiny, "rope"), place) for place in ("cpu", "cuda"))
    here.advance(5)
    there.advance(5)
    assert there.accuracy() == here.accuracy()
    assert there.accuracy([2, 0]) == here.accuracy([2, 0])
