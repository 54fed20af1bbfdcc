"""Measuring: a planted subject gives back what was planted, the toy adapter gives what autograd gives."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.measure.activations import pooled
from sims.measure.band_states import Band, Probe
from sims.measure.causal import CAUSAL, Causal
from sims.measure.concentration import concentration
from sims.measure.engine import measure
from sims.measure.families import Families
from sims.measure.probe_bands import PROBE_BANDS, ProbeBands
from sims.measure.rows import MeasurementRows
from sims.measure.token_families import Family
from sims.measure.toy import MeasurementData, prepare
from sims.models.transformer import TransformerSubject
from sims.runs.columns import which
from sims.system.errors import MeasureError
from spectra import Estimate, covariance_spectrum, window_exponent
from toymodel import TASKS, Split, Task
from toymodel.cross_entropy import position_losses
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.tasks.modular_walk_probes import probe_split

C, OFFSET = 31, 5


@dataclass(frozen=True)
class PlantedSubject:
    """States that are Fourier features of the band's last state: a strong pair ±r, a weak rest, noise."""

    frequency: int
    strength: float
    head_reads: str
    vocab: int = 64
    step: int = 7
    tokens: int = 700
    sites: tuple[str, ...] = ("final",)

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        m = (tokens - OFFSET).double()
        angle = 2 * np.pi * m / C
        generator = torch.Generator().manual_seed(0)
        noise = 0.05 * torch.randn(len(m), 6, generator=generator, dtype=torch.float64)
        key = self.strength * torch.stack(
            [(self.frequency * angle).cos(), (self.frequency * angle).sin()], -1
        )
        other = torch.stack([(9 * angle).cos(), (9 * angle).sin(), (4 * angle).cos(), (4 * angle).sin()], -1)
        return torch.cat([key, other], -1) + noise

    def last_states(self, sequences):
        return self.states(sequences[:, -2])

    @property
    def head(self) -> torch.Tensor:
        # Reads the key pair, or the other directions: a head that knows m → m + 1 in those coordinates.
        m = torch.arange(C, dtype=torch.float64) + 1
        table = self.states(m + OFFSET - 1) * 40
        mask = torch.tensor([1.0, 1, 0, 0, 0, 0] if self.head_reads == "key" else [0.0, 0, 1, 1, 1, 1])
        rows = torch.zeros(self.vocab, 6, dtype=torch.float64)
        rows[OFFSET : OFFSET + C] = table * mask
        return rows

    def head_losses(self, states, targets):
        # Targets are irrelevant to what is tested; the state's own token is what this head can name.
        return position_losses(states @ self.head.T, targets)

    @property
    def matrices(self) -> Mapping[str, torch.Tensor]:
        return {"embed": torch.randn(self.vocab, 6, generator=torch.Generator().manual_seed(1))}

    def with_matrix(self, name, value):
        return self


def planted_rows(subject, tiny_measure, tiny_run):
    task = replace(tiny_run().task, vocab=64)
    split = probe_split(task, C, OFFSET, 1200)
    tokens = torch.tensor(split.tokens).long()
    # The head of the planted subject names the present token.
    tokens[:, -1] = tokens[:, -2]
    data = MeasurementData(tiny_measure(causal_sequences=600), tokens, (Probe(split, 0.0, tokens),))
    sheet = measure(subject, data, measurements=(PROBE_BANDS, CAUSAL))
    names = [which(row) for row in sheet.rows]
    return pd.DataFrame(sheet.rows).assign(which=names).set_index(["quantity", "site", "which"]).sort_index()


def test_a_planted_frequency_is_found(tiny_measure, tiny_run):
    rows = planted_rows(PlantedSubject(3, 4.0, "key"), tiny_measure, tiny_run)
    name = f"{C}:{OFFSET} clean unseen"
    assert rows.loc[("dominant_frequency", "final", name), "value"] == 3
    # Energies 16 : 1 : 1 for the three pairs.
    peak = rows.loc[("h_peak", "final", name)]
    assert peak["value"] == pytest.approx(8 / 18, abs=0.01)
    assert peak["value"] > peak["null_high"] > peak["null"]
    task = rows.loc[("h_s", "final", f"{name} task")]
    assert task["value"] == pytest.approx(17 / 18, abs=0.01)
    assert task["null"] == pytest.approx(14 / 30)
    assert rows.loc[("component_frequency", "final", f"{name} pc1"), "value"] == 3


def test_sets_that_are_chosen_from_the_data_have_the_null_of_chosen_sets_also_without_sampling_noise():
    """Class means without structure: their largest pair holds more than its two frequencies would on average."""
    c, d, each = 31, 20, 40
    rng = np.random.default_rng(0)
    found = {}
    for _ in range(30):
        means = torch.tensor(rng.standard_normal((c, d)))
        sheet, band = MeasurementRows(0, None), Band(c, OFFSET, "clean", 0.0)
        gatherer = object.__new__(ProbeBands)
        gatherer.top_k = 3
        counts, none = torch.full((c,), each), torch.zeros(c, dtype=torch.float64)
        numbers = {"loss": torch.tensor(1.0), "dimension": torch.tensor(float(d))}
        gatherer.band_rows(sheet, band, {**numbers, "means": means, "within": none, "counts": counts})
        for row in sheet.rows:
            if row["quantity"] == "h_s_debiased":
                found.setdefault((row["set"], row["null"]), []).append(row["value"])
    for (label, null), values in found.items():
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert abs(np.mean(values) - null) < 4 * error, label
    assert {label for label, _ in found} == {"task", "peak", "top3"}


def test_a_state_with_a_single_probe_sequence_is_refused_with_the_remedy(tiny_measure, tiny_run):
    run = tiny_run()
    run = replace(run, task=replace(run.task, vocab=64))
    few = tiny_measure(bands=((17, 24),), training_bands=0, probe_sequences=170, causal_sequences=0)
    few.check(run)
    data = prepare(few, run, dataset(run.task))
    with pytest.raises(MeasureError, match=r"has 1 of the 170 .* raise measure.probe_sequences"):
        measure(TransformerSubject.of_weights(run, Ensemble([run]).weights(0), 0), data)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, Estimate(np.inf)])
def test_a_number_that_is_none_is_not_ok(value):
    sheet = MeasurementRows(0, None)
    sheet.row("gradient_norm", "signal", "all", value)
    assert sheet.rows[0]["status"] == "not fitted"
    assert np.isnan(sheet.rows[0]["value"])


def test_the_causal_test_tells_use_from_presence(tiny_measure, tiny_run):
    used = planted_rows(PlantedSubject(3, 4.0, "key"), tiny_measure, tiny_run)
    unused = planted_rows(PlantedSubject(3, 4.0, "other"), tiny_measure, tiny_run)
    name = f"{C}:{OFFSET} clean unseen"
    for rows, needed in ((used, True), (unused, False)):
        drop = rows.loc[("causal_drop", "final", name)]
        keep = rows.loc[("causal_keep", "final", name)]
        assert rows.loc[("dominant_frequency", "final", name), "value"] == 3
        if needed:
            assert drop["value"] > 1 > abs(drop["null"])
            assert keep["value"] < 0.1 < keep["null"]
        else:
            assert abs(drop["value"]) < 0.1 < drop["null"]
            assert keep["value"] > 1


def test_the_null_of_the_causal_test_is_the_mean_over_the_controls():
    sheet, found = MeasurementRows(0, None), {"means": torch.eye(7), "base": torch.tensor(1.0)}
    kept, removed = [1.5, 2.0, 3.0, 4.0, 7.0], [6.0, 1.0, 1.5, 2.0, 1.5]
    found |= {"final": torch.tensor([kept, removed]).T, "embed": torch.tensor([1.25, 5.0, 3.0, 1.5])}
    Causal.band_rows(
        object.__new__(Causal), sheet, Band(7, 3, "clean", 0.0), {**found, "controlled": torch.ones(2)}
    )
    numbers = {(row["quantity"], row["site"]): (row["value"], row["null"]) for row in sheet.rows}
    assert numbers == {
        ("causal_keep", "final"): (0.5, 3.0),
        ("causal_drop", "final"): (5.0, 0.5),
        ("causal_keep", "embed"): (0.25, 2.0),
        ("causal_drop", "embed"): (4.0, 0.5),
    }


@given(st.integers(5, 31), st.integers(2, 9), st.integers(0, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_only_components_that_are_more_than_rounding_are_reported(c, d, power, seed):
    rng = np.random.default_rng(seed)
    means = np.outer(np.cos(2 * np.pi * np.arange(c) / c), rng.choice([-1.0, 1.0], d))
    sheet = MeasurementRows(0, None)
    concentration(sheet, "probe", "final", means + 10.0**power * rng.standard_normal(d), 4.0, {}, 3)
    found = [row["value"] for row in sheet.rows if row["quantity"] == "component_frequency"]
    assert found == [1]


def test_a_cycle_of_three_has_no_set_but_that_of_all_frequencies():
    sheet = MeasurementRows(0, None)
    concentration(sheet, "table", "embed", np.eye(3), 2.0, {}, 3)
    assert {row["quantity"] for row in sheet.rows}.isdisjoint({"h_s"})
    assert {round(row["value"], 9) for row in sheet.rows if row["quantity"] == "h_peak"} == {0.5}


def test_a_family_whose_rows_differ_by_rounding_is_left_out():
    families = object.__new__(Families)
    families.families, families.top_k = (Family("days", (0, 1, 2)),), 3
    rows = torch.tensor([[1.0, 0.0], [1.0, 1e-20], [1.0, 0.0]])
    sheet = MeasurementRows(0, None)
    families.rows(sheet, {"embed days": rows, "embed dimension": torch.tensor(2.0)})
    assert not sheet.rows


def test_a_constant_representation_is_not_fitted(tiny_measure, tiny_run):
    class Constant(PlantedSubject):
        def states(self, tokens):
            return torch.ones(len(tokens), 6, dtype=torch.float64)

    rows = planted_rows(Constant(3, 1.0, "key"), tiny_measure, tiny_run)
    row = rows.loc[("h_peak", "final", f"{C}:{OFFSET} clean unseen")]
    assert row["status"] == "not fitted"
    assert np.isnan(row["value"])


@pytest.fixture
def trained(tiny_run):
    def make(stage):
        config = tiny_run(stage=stage)
        ensemble = Ensemble([config])
        ensemble.advance(8)
        return config, TransformerSubject.of_weights(config, ensemble.weights(0), 8)

    return make


def test_replacing_a_matrix_leaves_the_original(trained):
    config, subject = trained("untied")
    sequences = torch.tensor(dataset(config.task).val.tokens[:8])
    before = subject.losses(sequences)
    edited = subject.with_matrix("embed", torch.zeros_like(subject.matrices["embed"]))
    assert not torch.allclose(edited.losses(sequences), before)
    assert torch.equal(subject.losses(sequences), before)
    with pytest.raises(MeasureError, match="not a replaceable matrix"):
        subject.with_matrix("embed", torch.zeros(3, 3))


def test_unknown_sites_and_matrices_are_named(trained):
    config, subject = trained("rope")
    sequences = torch.tensor(dataset(config.task).val.tokens[:2])
    with pytest.raises(MeasureError, match=r"embed, blocks\.0, final"):
        next(subject.activations(sequences, ["middle"]))
    with pytest.raises(MeasureError, match=r"blocks\.0\.attn\.o"):
        subject.gradient_factors(sequences, ["embed"])


def test_a_measurement_is_complete_and_consistent(trained, tiny_measure):
    config, subject = trained("untied")
    instruments = prepare(tiny_measure(), config, dataset(config.task))
    sheet = measure(subject, instruments)
    rows = pd.DataFrame(sheet.rows)
    assert (rows["step"] == 8).all()
    assert not rows[rows["status"] != "not fitted"]["value"].isna().any()
    # Every figure of concentration stands beside its null.
    assert not rows[rows["quantity"].isin(["h_s", "h_peak", "alpha", "rankme"])]["null"].isna().any()
    h = subject.last_states(instruments.sequences)
    spectrum = covariance_spectrum(h)
    stored = next(s for s in sheet.spectra if s["object"] == "activation")
    np.testing.assert_allclose(stored["values"], spectrum.values, rtol=1e-9)
    alpha = rows.query("quantity == 'alpha' and object == 'activation'").iloc[0]
    assert alpha["value"] == pytest.approx(window_exponent(spectrum, 1, 10).value)
    # The band of the configuration, and one that training contains.
    assert set(rows[rows["object"] == "probe"]["seen"]) == {True, False}


def test_zero_gradients_and_matrices_are_said_to_be_zero(tiny_run, tiny_measure):
    config = tiny_run(stage="untied")
    subject = TransformerSubject.of_weights(config, Ensemble([config]).weights(0), 0)
    rows = pd.DataFrame(measure(subject, prepare(tiny_measure(), config, dataset(config.task))).rows)
    zero = rows[rows["status"] == "not fitted"]
    assert {"head", "blocks.0.attn.o", "blocks.0.mlp.proj"} <= set(zero[zero["object"] == "weight"]["site"])
    # With a zero head no gradient reaches the blocks.
    assert len(zero[zero["object"] == "gradient"]) == 4
    assert zero["reason"].str.contains("zero").all()


def test_pooling():
    x = torch.arange(24.0).view(2, 3, 4)
    assert torch.equal(pooled(x, "last"), x[:, 2])
    assert torch.equal(pooled(x, "mean"), x.mean(1))
    assert pooled(x, "token").shape == (6, 4)


@dataclass(frozen=True)
class Copying(Task):
    """Random tokens without bands, of which only the last counts where masked."""

    kind = "copying"
    vocab: int = 24
    length: int = 8
    train: int = 40
    val: int = 64
    test: int = 8
    seed: int = 0
    masked: bool = False

    def splits(self):
        def draw(n):
            tokens = np.random.default_rng(n).integers(0, self.vocab, (n, self.length + 1)).astype(np.int16)
            mask = np.zeros((n, self.length), bool)
            mask[:, -1] = True
            return Split(tokens, {}, mask=mask if self.masked else None)

        return tuple(draw(n) for n in (self.train, self.val, self.test))


def test_a_task_without_bands_is_measured_without_them(tiny_run, tiny_measure, monkeypatch):
    monkeypatch.setitem(TASKS, Copying.kind, Copying)
    config = tiny_run(task=Copying())
    with pytest.raises(MeasureError, match="the task is copying, and probe bands exist for"):
        tiny_measure().check(config)
    without = tiny_measure(bands=(), training_bands=0)
    data = prepare(without, config, dataset(config.task))
    subject = TransformerSubject.of_weights(config, Ensemble([config]).weights(0), 0)
    assert {r["object"] for r in measure(subject, data).rows} == {"activation", "gradient", "weight"}
    masked = tiny_run(task=Copying(masked=True))
    with pytest.raises(MeasureError, match="does not count every target"):
        prepare(without, masked, dataset(masked.task))
    assert prepare(replace(without, gradient_sequences=0), masked, dataset(masked.task)).probes == ()


def test_a_mixture_is_probed_in_both_regimes(tiny_run, tiny_measure):
    run = tiny_run()
    mixed = replace(run, task=replace(run.task, components_max=2, pareto=1.5))
    names = {p.split.regime for p in prepare(tiny_measure(), mixed, dataset(mixed.task)).probes}
    assert names == {"clean", "matched"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequences": 65}, "64 sequences"),
        ({"windows": ((1, 20),)}, "rank 16 at most"),
        ({"bands": ((11, 14),)}, "vocabulary of 24"),
        ({"probe_sequences": 100}, "fewer than 10"),
        ({"causal_sequences": 500}, "part of the probe"),
    ],
)
def test_what_does_not_fit_is_refused_before_work(tiny_run, tiny_measure, changes, message):
    with pytest.raises(MeasureError, match=message):
        tiny_measure(**changes).check(tiny_run())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 0}, "measure.every is 0"),
        ({"windows": ((5, 6),)}, "window 5–6"),
        ({"pooling": "first"}, "'last', 'mean' or 'token'"),
        ({"gradient_sequences": 1}, "2 or more"),
    ],
)
def test_impossible_settings_are_refused(tiny_measure, changes, message):
    with pytest.raises(MeasureError, match=message):
        tiny_measure(**changes)
