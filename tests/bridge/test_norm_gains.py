"""Gains of norms before matrices: found in models of many families, and folded spectra do not depend on their scale."""

import copy

import pytest
import torch
from families import model_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sims.measure.rows import MeasurementRows
from sims.measure.weights import WeightSpectra, weight_sheet
from sims.models.gains import Norm, _norm, _norms_read, norm_gains, norms_read
from sims.models.gpt import GPT, Architecture
from sims.models.module import ModuleSubject
from sims.models.parts import layout_of
from sims.monitor.monitor import Monitor
from sims.runs.lm_measure_config import RunMetadata
from sims.runs.store import RunFolder
from sims.runs.watched_config import WatchedConfig

INSIDE = ("attn.q", "attn.k", "attn.v", "mlp.fc")
GATED = (*INSIDE, "mlp.gate")
# Which matrices of a block read a norm with a gain, and whether the head does.
READ = {
    "GPT-2": INSIDE,
    "GPT-NeoX": INSIDE,
    "Llama": GATED,
    "Mistral": GATED,
    "Qwen2": GATED,
    "Qwen3": GATED,
    "Gemma": GATED,
    "Gemma 2": GATED,
    "Phi": INSIDE,
    "Falcon": INSIDE,
    "BLOOM": INSIDE,
    "StableLM": GATED,
    # Norms after the matrices, and norms without a gain.
    "OLMo 2": (),
    "OLMo": (),
}
TOKENS = torch.arange(18).remainder(29).view(2, 9)


def varied(model):
    """Every norm with gains of its own, some of them negative."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if "norm" in type(module).__name__.lower() and weight is not None:
                weight.copy_(torch.randn(weight.shape, generator=generator) + 0.3)
    return model


def rescaled(subject, change):
    """The same function: gains (and biases) divided by c, columns of all that read them multiplied by it."""
    norms = norms_read(subject)
    for name in norms:
        own = subject.matrices[name]
        subject = subject.with_matrix(name, own * change(own.shape[1]))
    for norm in set(norms.values()):
        module = subject.model.get_submodule(norm.module)
        factor = change(len(module.weight))
        with torch.no_grad():
            module.weight.copy_((module.weight + norm.offset) / factor - norm.offset)
            if getattr(module, "bias", None) is not None:
                module.bias /= factor
    return subject


def powers(seed):
    """Powers of two, by which float32 divides exactly."""

    def change(size):
        drawn = torch.randint(-2, 3, (size,), generator=torch.Generator().manual_seed(seed + size))
        return 2.0**drawn

    return change


def values(spectra):
    """Of matrices that are not zero."""
    return {name: spectrum.values for name, spectrum in spectra.spectra.items() if spectrum is not None}


@pytest.mark.parametrize("family", READ)
def test_folded_spectra_stay_where_gains_move_into_matrices(family):
    pytest.importorskip("transformers")
    model = varied(model_of(family))
    subject = ModuleSubject.of(model, layout_of(model), step=0)
    gains = norm_gains(subject)
    blocks = {name for name in gains if name.startswith("blocks.")}
    assert blocks == {f"blocks.{b}.{leaf}" for b in range(2) for leaf in READ[family]}
    assert ("head" in gains) == ("head" in subject.matrices and family != "OLMo")
    if not gains:
        return
    found = WeightSpectra.of(subject.matrices, True, None, gains)
    for name, gain in gains.items():
        direct = torch.linalg.svdvals(subject.matrices[name].double() * gain).numpy()
        assert values(found.folded)[name] == pytest.approx(direct, rel=1e-6, abs=1e-6 * direct[0])
    other = rescaled(ModuleSubject.of(copy.deepcopy(model), subject.layout, step=0), powers(3))
    torch.testing.assert_close(other.losses(TOKENS), subject.losses(TOKENS), rtol=1e-4, atol=1e-4)
    again = WeightSpectra.of(other.matrices, True, None, norm_gains(other))
    for name, spectrum in values(found.folded).items():
        # A gain 1 + w is rounded when it is moved, which changes σ by float32's precision of the largest.
        assert values(again.folded)[name] == pytest.approx(spectrum, rel=1e-6, abs=1e-6 * spectrum[0])
        assert values(again.matrices)[name] != pytest.approx(values(found.matrices)[name], rel=1e-2)


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_folded_spectra_do_not_depend_on_the_scale_of_gains(seed, rows, columns):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    gain, change = (torch.randn(columns, generator=generator, dtype=torch.float64) for _ in range(2))
    change = change.sign() * (change.abs() + 0.1)
    found = [
        WeightSpectra.of({"blocks.0.mlp.fc": m}, True, None, {"blocks.0.mlp.fc": g})
        for m, g in ((matrix, gain), (matrix * change, gain / change))
    ]
    one, other = (f.folded.spectra["blocks.0.mlp.fc"] for f in found)
    assert one is not None
    assert other is not None
    assert other.energies == pytest.approx(one.energies, rel=1e-9, abs=1e-12 * one.energies[0])
    # Without a gain nothing changes.
    plain = WeightSpectra.of({"w": matrix}, True, None, {"w": torch.ones(columns, dtype=torch.float64)})
    assert plain.folded.spectra["w"] == plain.matrices.spectra["w"]


def nano(gain=True):
    torch.manual_seed(0)
    arch = Architecture(29, 16, 2, 4, 64, "gelu", length=12, gain=gain, fused=True)
    return ModuleSubject.of(varied(GPT(arch)), arch.layout(), step=0)


def test_rows_of_folded_matrices_stand_beside_those_of_the_matrices():
    subject = nano()
    sheet = weight_sheet(subject)
    folded = {r["site"] for r in sheet.rows if r["object"] == "folded"}
    assert folded == {f"blocks.{b}.{leaf}" for b in range(2) for leaf in INSIDE}
    both = {
        kind: {
            (r["quantity"], r["window"], r["detail"]): r
            for r in sheet.rows
            if r["object"] == kind and r["site"] == "blocks.1.attn.k"
        }
        for kind in ("weight", "folded")
    }
    assert both["folded"].keys() == both["weight"].keys() >= {("hill", "", ""), ("stable_rank", "", "")}
    for which, row in both["folded"].items():
        # Noise has the same shape.
        assert row["null"] == both["weight"][which]["null"] or row["quantity"] == "trace"
        assert row["value"] != both["weight"][which]["value"]
    assert {s["site"] for s in sheet.spectra if s["object"] == "folded"} == folded
    # Norms without gains have no such rows, and a model of others has no known start.
    assert not any(r["object"] == "folded" for r in weight_sheet(nano(gain=False)).rows)
    assert not any(r["quantity"] == "initial_distance" for r in sheet.rows)


class Shared(nn.Module):
    """One matrix that reads two norms, one that reads one of them, and one that reads a changed state."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.LayerNorm(4), nn.LayerNorm(4)
        self.both, self.one, self.other = (nn.Linear(4, 4) for _ in range(3))
        self.channels, self.last = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        y = self.both(a) + self.both(b) + self.one(a.flatten(0, 1)).view_as(a) + self.other(a + 1)
        return self.last(self.channels(y.flatten(0, 1)))


def test_a_matrix_that_reads_several_norms_or_a_changed_state_has_no_gain():
    model = Shared().eval()
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert _norms_read(model, lambda: model(x)) == {"one": Norm("a", 0.0)}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("module", [nn.BatchNorm1d(3), nn.GroupNorm(1, 3), nn.InstanceNorm1d(3, affine=True)])
def test_norms_of_channels_have_no_gain_of_columns(module):
    # Three channels, and three columns: only what it computes tells them apart.
    assert _norm("n", module.eval()) is None
    assert _norm("n", nn.LayerNorm(3)) == Norm("n", 0.0)
    assert _norm("n", nn.Linear(3, 3)) is None


def test_gains_are_those_of_the_moment():
    subject = nano()
    before = norm_gains(subject)
    with torch.no_grad():
        dict(subject.model.named_parameters())["transformer.h.0.ln_1.weight"].mul_(3.0)
    after = norm_gains(subject)
    torch.testing.assert_close(after["blocks.0.attn.q"], 3 * before["blocks.0.attn.q"])
    torch.testing.assert_close(after["blocks.0.mlp.fc"], before["blocks.0.mlp.fc"])


def test_matrices_of_zeros_and_gains_of_zeros_have_a_reason():
    named = {"a": torch.zeros(4, 5), "b": torch.ones(4, 5), "c": torch.eye(4, 5)}
    gains = {"a": torch.ones(5), "b": torch.zeros(5), "c": torch.tensor([1.0, 2, 3, 4, 0])}
    found = WeightSpectra.of(named, True, None, {n: g.double() for n, g in gains.items()})
    assert [n for n, s in found.folded.spectra.items() if s is None] == ["a", "b"]
    spectrum = found.folded.spectra["c"]
    assert spectrum is not None
    assert spectrum.values.tolist() == [4, 3, 2, 1]
    sheet = MeasurementRows(0, 0)
    found.report(sheet)
    gone = [
        r
        for r in sheet.rows
        if r["object"] == "folded" and r["status"] == "not fitted" and r["quantity"] == "rankme"
    ]
    assert {r["reason"] for r in gone} == {"the matrix is still zero"}


def test_a_watched_model_has_folded_rows_where_it_can_be_run(tmp_path):
    pytest.importorskip("transformers")
    for probe in (TOKENS, None):
        model = varied(model_of("Llama"))
        name, measure = f"probe-{probe is not None}", WatchedConfig(tails=True, update_window=0)
        monitor = Monitor(
            model, every=1, to=tmp_path, measure=measure, probe=probe, run=RunMetadata(name=name)
        )
        monitor.step()
        monitor.close()
        rows = RunFolder(tmp_path / name).rows().query("object == 'folded' and quantity == 'hill'")
        sites = {f"blocks.{b}.{leaf}" for b in range(2) for leaf in GATED} | {"head"}
        assert set(rows["site"]) == (set() if probe is None else sites)
        assert (rows["status"] == "ok").all()
