"""Variance components and their plans on tables of known make, and the position analysis on a hand-made model."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from sims.analysis.variance import (
    SOURCES,
    component_intervals,
    components,
    expected_squares,
    mean_interval,
    mean_squares,
    power,
    rejections,
    seeds_needed,
)
from sims.studies.bands import tables
from sims.studies.bands.measured import (
    Band,
    BandPlan,
    band_records,
    band_report,
    choose_bands,
    clean_probes,
    measure_bands,
    mixed_probes,
)
from sims.studies.bands.page import write_bands
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from spectra import class_means, h_peak, h_s_debiased, task_band
from spectra.fourier import band_energies
from toymodel import TaskConfig
from toymodel.data import make_dataset

DESIGNS = [(3, 10, 2), (5, 10, 2), (3, 20, 3)]
# Seed, band, seed × band, probe sample: all there, seeds all, no seeds, no bands.
TRUTHS = [(1.0, 2.0, 0.5, 0.3), (2.0, 0.1, 0.1, 0.3), (0.0, 1.0, 0.0, 0.3), (0.5, 0.0, 0.2, 0.2)]


def draw(m, variances, shape, mean=0.0, seed=0):
    """(m, s, b, r) tables with these variance components."""
    s, b, r = shape
    rng = np.random.default_rng(seed)
    deviations = np.sqrt(variances)
    shapes = [(m, s, 1, 1), (m, 1, b, 1), (m, s, b, 1), (m, s, b, r)]
    return mean + sum(d * rng.normal(size=k) for d, k in zip(deviations, shapes, strict=True))


# --- variance components -----------------------------------------------------------------------------------------


def test_mean_squares_are_those_of_the_plain_loops():
    y = draw(1, TRUTHS[0], (3, 4, 2))[0]
    s, b, r = y.shape
    grand = y.mean()
    seed = sum(b * r * (y[i].mean() - grand) ** 2 for i in range(s)) / (s - 1)
    band = sum(s * r * (y[:, j].mean() - grand) ** 2 for j in range(b)) / (b - 1)
    both = sum(
        r * (y[i, j].mean() - y[i].mean() - y[:, j].mean() + grand) ** 2 for i in range(s) for j in range(b)
    ) / ((s - 1) * (b - 1))
    probe = sum((y[i, j, k] - y[i, j].mean()) ** 2 for i in range(s) for j in range(b) for k in range(r))
    assert mean_squares(y) == pytest.approx([seed, band, both, probe / (s * b * (r - 1))])


@pytest.mark.parametrize("shape", DESIGNS)
@pytest.mark.parametrize("truth", TRUTHS)
def test_components_are_recovered_on_average(truth, shape):
    raw = np.array([components(y).raw for y in draw(2_000, truth, shape)])
    error = raw.std(axis=0) / np.sqrt(len(raw))
    assert np.all(np.abs(raw.mean(axis=0) - truth) < 4 * error)
    assert mean_squares(draw(2_000, truth, shape)).mean(axis=0) == pytest.approx(
        expected_squares(np.array(truth), *shape), rel=0.1
    )


@pytest.mark.parametrize("truth", TRUTHS)
def test_intervals_of_components_cover_with_three_seeds(truth):
    covered = np.zeros(4)
    for y in draw(300, truth, (3, 10, 2)):
        bounds = component_intervals(components(y), draws=1_000)
        covered += (bounds[:, 0] <= truth) & (truth <= bounds[:, 1])
    # 0.95 less three binomial errors; intervals of components that are 0 cover more.
    assert np.all(covered / 300 > 0.912)


def test_a_component_that_is_not_there_is_zero_with_its_negative_raw_value_kept():
    tables_ = draw(400, TRUTHS[2], (3, 10, 2))
    found = [components(y) for y in tables_]
    negative = [f for f in found if f.raw[0] < 0]
    assert 0.4 < len(negative) / len(found) < 0.8
    assert all(f.values[0] == 0 and f.shares.sum() == pytest.approx(1) for f in negative)
    assert np.mean([component_intervals(f, 500)[0, 0] == 0 for f in found]) > 0.9


def test_a_table_without_spread_has_zero_components_and_no_shares():
    found = components(np.full((3, 4, 2), 7.0))
    assert found.mean == 7
    assert not found.values.any()
    assert np.isnan(found.shares).all()


@pytest.mark.parametrize(
    "values", [np.ones((1, 4, 2)), np.ones((3, 4, 1)), np.full((3, 4, 2), np.nan), np.ones((3, 4))]
)
def test_what_cannot_be_decomposed_is_refused(values):
    with pytest.raises(MeasureError, match="at least 2 seeds, 2 bands and 2 probe samples"):
        components(values)


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_interval_of_the_mean_covers_new_seeds_on_new_bands(truth):
    drawn = draw(4_000, truth, (3, 10, 2), seed=1)
    assert rejections(drawn).mean() < 0.085
    for y in drawn[:20]:
        low, high = mean_interval(components(y))
        assert bool(rejections(y[None])[0]) == (not low <= 0 <= high)


def test_for_these_bands_alone_the_interval_is_student_over_seed_means():
    y = draw(1, TRUTHS[0], (4, 6, 2))[0]
    means = y.mean(axis=(1, 2))
    half = 3.182446305 * means.std(ddof=1) / 2
    assert mean_interval(components(y), new_bands=False) == pytest.approx(
        (means.mean() - half, means.mean() + half)
    )


# --- power -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("shape", [(3, 10, 2), (6, 10, 2)])
@pytest.mark.parametrize("difference", [0.5, 1.5])
def test_power_for_new_bands_is_that_of_simulated_experiments(truth, shape, difference):
    simulated = rejections(draw(4_000, truth, shape, mean=difference, seed=2)).mean()
    assert power(difference, np.array(truth), *shape) == pytest.approx(simulated, abs=0.05)


@pytest.mark.parametrize("difference", [0.5, 1.5])
def test_power_for_these_bands_is_exact(difference):
    seed, _, both, probe = truth = np.array(TRUTHS[0])
    # Bands that are fixed add nothing to the spread between seeds; the interaction does.
    drawn = draw(20_000, (seed, 0, both, probe), (4, 5, 2), mean=difference, seed=3)
    simulated = rejections(drawn, new_bands=False).mean()
    assert power(difference, truth, 4, 5, 2, new_bands=False) == pytest.approx(simulated, abs=0.015)


def test_power_at_no_difference_is_the_level_and_grows_with_seeds_bands_and_difference():
    truth = np.array(TRUTHS[0])
    assert power(0.0, truth, 4, 10, 2, new_bands=False) == pytest.approx(0.05, abs=2e-3)
    for new_bands in (True, False):
        by_seeds = [power(1.0, truth, s, 20, 2, new_bands=new_bands) for s in range(2, 30)]
        by_bands = [power(1.0, truth, 5, b, 2, new_bands=new_bands) for b in range(5, 60)]
        by_size = [power(d, truth, 5, 20, 2, new_bands=new_bands) for d in np.linspace(0, 20, 40)]
        for values in (by_seeds, by_bands, by_size):
            assert np.all(np.diff(values) > -1e-9)
        assert by_size[-1] == pytest.approx(1)


def test_the_fewest_seeds_reach_the_power_and_one_fewer_does_not():
    truth = np.array(TRUTHS[3])
    needed = seeds_needed(0.8, truth, 10, 2)
    assert needed is not None
    assert power(0.8, truth, needed, 10, 2) >= 0.8 > power(0.8, truth, needed - 1, 10, 2)


def test_no_number_of_seeds_replaces_bands():
    assert seeds_needed(0.1, np.array(TRUTHS[2]), 3, 2) is None
    assert seeds_needed(0.1, np.array(TRUTHS[2]), 3, 2, new_bands=False) is not None


def test_a_design_without_an_interval_has_no_power():
    with pytest.raises(MeasureError, match="1 seeds"):
        power(1.0, np.array(TRUTHS[0]), 1, 10, 2)
    with pytest.raises(MeasureError, match="every variance component is 0"):
        power(1.0, np.zeros(4), 3, 10, 2)


# --- tables ------------------------------------------------------------------------------------------------------


def measured_of(values, stages=("rope", "muon"), **changes):
    """Records as `measure_bands` gives them, of (stage, seed, band, sample) values of both quantities."""
    rows = []
    for (i, seed, band, sample), value in np.ndenumerate(values):
        rows.append(
            {"stage": stages[i], "batch_size": 8, "seed": seed, "step": 10, "fraction": 1.0, "position": 7}
            | {"band": f"23:{band}", "c": 23, "known": int(band % 2), "sample": sample, "regime": "clean"}
            | {"kind": "inside" if band % 2 else "outside", "h_s_excess": value, "h_peak_excess": value}
            | {"signal": 1.0, "noise_share": 0.1, "h_s_null": 0.5, "h_peak_null": 0.1, "h_peak_high": 0.2}
            | {"loss": 1.0}
            | changes
        )
    return pd.DataFrame(rows)


def test_differences_are_decomposed_band_by_band_and_seed_by_seed():
    common = draw(1, (1.0, 1.0, 1.0, 1.0), (3, 6, 2))[0]
    values = np.stack([common, common + 0.25 + 0.5 * np.arange(3)[:, None, None]])
    found = tables.decomposition(measured_of(values))
    own = found[(found["target"] == "rope → muon") & (found["kind"] == "all") & (found["quantity"] == "H_S")]
    row = own.iloc[0]
    # All that the stages share cancels; what is left differs by seed alone.
    assert row["mean"] == pytest.approx(0.75)
    assert [row[s] for s in SOURCES] == pytest.approx([0.25, 0, 0, 0], abs=1e-12)
    level = found[(found["target"] == "rope") & (found["kind"] == "all") & (found["quantity"] == "H_S")]
    assert [level.iloc[0][f"{s} raw"] for s in SOURCES] == pytest.approx(list(components(common).raw))


def test_bands_lost_in_noise_are_left_out_and_counted():
    measured = measured_of(draw(2, TRUTHS[0], (3, 6, 2)))
    measured.loc[(measured["band"] == "23:2") & (measured["seed"] == 1), "noise_share"] = 0.85
    found = tables.decomposition(measured)
    assert set(found[found["kind"] == "all"]["left_out"]) == {1}
    assert set(found[found["kind"] == "inside"]["left_out"]) == {0}


def test_one_seed_has_no_decomposition():
    with pytest.raises(MeasureError, match="1 seed"):
        tables.decomposition(measured_of(draw(2, TRUTHS[0], (1, 4, 2))))


def test_one_stage_has_components_and_nothing_to_plan_for():
    found = tables.decomposition(measured_of(draw(1, TRUTHS[3], (3, 6, 2)), stages=("rope",)))
    assert set(found["target"]) == {"rope"}
    assert tables.planning(found).empty
    assert tables.seed_curves(found).empty


def test_a_pooled_mean_weighs_by_signal_and_is_missing_where_all_is_noise():
    measured = measured_of(np.ones((1, 3, 2, 2)), stages=("rope",), kind="inside")
    # Of H_S the signal outside the share of noise counts: .5 of it, and of the second band .2.
    measured.loc[measured["band"] == "23:1", ["signal", "h_s_excess", "h_s_null"]] = 3.0, 5.0, 0.8
    found = tables.summary(measured).set_index("quantity")["mean"]
    assert found["H_S"] == pytest.approx((0.5 * 1 + 0.6 * 5) / 1.1)
    assert found["H_peak"] == pytest.approx(1)
    lost = tables.summary(measured.assign(noise_share=0.95))
    assert lost["mean"].isna().all()


def test_planning_asks_for_the_stated_and_the_observed_difference():
    found = tables.planning(tables.decomposition(measured_of(draw(2, TRUTHS[3], (3, 6, 2)))))
    assert set(found["origin"]) == {"stated", "observed"}
    one = found[found["bands"] == 1]
    assert one["new_both"].isna().all()
    assert len(one) == 4


# --- what is measured --------------------------------------------------------------------------------------------

TASK = TaskConfig(vocab=80, length=8, train=2_000, val=32, test=16)


@dataclass(frozen=True)
class HandMade:
    """Its final state knows the step only from the second position on: a wave of the token at the first, one of the
    next token afterwards, each of one frequency."""

    band: Band
    frequencies: tuple[int, int] = (1, 9)
    noise: float = 0.0

    step: int = 3

    def activations(self, sequences, sites):
        assert tuple(sites) == ("final",)
        generator = torch.Generator().manual_seed(0)
        for batch in sequences.split(64):
            own = (batch.long() - self.band.o) % self.band.c
            first, later = self.frequencies
            seen = torch.cat([first * own[:, :1], later * own[:, 1:-1]], dim=1)
            angle = 2 * torch.pi * seen / self.band.c
            states = torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=-1)
            yield {"final": states + self.noise * torch.randn(states.shape, generator=generator)}

    def head_losses(self, states, targets):
        return states[:, 0] * 0 + targets * 0


def test_concentration_is_found_at_the_position_and_frequency_where_it_was_put():
    band, plan = Band(23, 10, 0), BandPlan(positions=(0, 3))
    probes = clean_probes(TASK, [band], plan, seed=1)
    found = pd.DataFrame(band_records(HandMade(band), probes, (0, 3, 7)))
    assert set(found["position"]) == {0, 3, 7}
    assert set(found["sample"]) == {0, 1}
    early, late = found[found["position"] == 0], found[found["position"] > 0]
    # Frequency 1 is in the task band ±1..±7, 9 is not; either way one pair holds everything.
    assert early["h_s_excess"].to_numpy() == pytest.approx(1)
    assert late["h_s_debiased"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert found["h_peak"].to_numpy() == pytest.approx(0.5)
    contrast = tables.along_sequence(
        found.assign(stage="rope", batch_size=8, seed=0, fraction=1.0)
    ).set_index("quantity")
    assert contrast.loc["H_S", "top_position"] == 0
    assert contrast.loc["H_S", "change"] == pytest.approx(contrast.loc["H_S", "last"] - 1)
    assert contrast.loc["H_peak", "change"] == pytest.approx(0, abs=1e-6)


def test_debiased_values_are_those_of_the_estimator_and_noise_does_not_move_them():
    band, plan = Band(23, 10, 0), BandPlan(positions=(), per_state=40)
    probe = clean_probes(TASK, [band], plan, seed=1)[0]
    model = HandMade(band, frequencies=(1, 1), noise=1.0)
    found = band_records(model, [probe], (0, 7))[1]
    states = torch.cat([a["final"] for a in model.activations(torch.tensor(probe.split.tokens), ("final",))])
    means = class_means(states[:, 7], probe.split.states[:, 7], 23)
    oracle = h_s_debiased(means, task_band(23))
    assert found["h_s_debiased"] == pytest.approx(oracle.value)
    assert found["noise_share"] == pytest.approx(oracle.details["noise_share"])
    assert found["h_peak"] == pytest.approx(h_peak(means.means))
    energies = band_energies(means.means) - means.noise
    assert found["h_peak_debiased"] == pytest.approx(energies[1:].max() / energies[1:].sum())
    assert abs(found["h_peak_debiased"] - 0.5) < abs(found["h_peak"] - 0.5)


def test_states_that_are_all_alike_have_no_concentration_and_no_crash():
    band = Band(23, 10, 0)
    probe = clean_probes(TASK, [band], BandPlan(positions=()), seed=0)[0]
    model = HandMade(band, frequencies=(0, 0))
    assert "h_s" not in band_records(model, [probe], (7,))[0]


def test_bands_are_prime_half_inside_training_and_of_the_same_moduli():
    data = make_dataset(TASK)
    found = choose_bands(data, ((31, 20),), 20)
    latents = data.train.latents
    counted = [int(((latents.modulus == b.c) & (latents.offset == b.o)).sum()) for b in found]
    assert counted == [b.known for b in found]
    assert found[0][:2] == (31, 20)
    assert len({b[:2] for b in found}) == 20
    assert sum(b.known > 0 for b in found) == 10
    assert all(all(b.c % k for k in range(2, b.c)) and b.c + b.o <= 80 for b in found)
    with pytest.raises(MeasureError, match="lower --bands"):
        choose_bands(data, (), 4_000)


def test_every_state_is_seen_twice_at_every_position_and_seeds_have_their_own_probes():
    plan = BandPlan(positions=(0, 3))
    band = Band(23, 10, 0)
    probes = clean_probes(TASK, [band], plan, seed=0) + clean_probes(TASK, [band], plan, seed=1)
    for probe in probes:
        for place in (0, 3, 7):
            assert np.bincount(probe.split.states[:, place], minlength=23).min() >= 2
    tokens = [probe.split.tokens.tobytes() for probe in probes]
    assert len(set(tokens)) == 4
    mixed = mixed_probes(TASK, [band], plan, seed=0)[0]
    assert mixed.split.latents.weights.shape[1] == 3
    assert (mixed.split.latents.count > 1).any()
    with pytest.raises(MeasureError, match="raise the sequences per state"):
        clean_probes(TASK, [Band(61, 0, 0)], replace(plan, per_state=3), seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"bands": 1}, "bands is 1"), ({"samples": 1}, "samples is 1"), ({"fractions": (2.0,)}, "fractions")],
)
def test_a_plan_that_cannot_work_is_refused(changes, message):
    with pytest.raises(MeasureError, match=message):
        BandPlan(**changes)


def test_a_folder_of_small_runs_gives_every_table_and_figure(tmp_path, tiny_run, tiny_measure):
    configs = [tiny_run(stage=stage, seed=seed, task=TASK) for stage in ("rope", "untied") for seed in (0, 1)]
    measure = tiny_measure(gradient_sequences=0, causal_sequences=0, sequences=32, training_bands=0)
    for config in configs:
        assert not run_group([config], measure, tmp_path)
    plan = BandPlan(bands=4, positions=(0,), fractions=(0.5, 1.0), mixed_per_state=8)
    report = band_report(tmp_path, plan, Console(quiet=True))
    assert set(report.tables) == {"bands", "summary", "position", "training", "components", "planning"}
    assert set(report.figures) == {"training", "position", "bands", "planning"}
    page = write_bands(report, tmp_path, tmp_path / "page", ["a note"])
    text = page.read_text()
    assert "At the end of training" in text.split('class="lead"')[1][:60]
    assert text.count("<figure") == 1 + len(report.figures)
    assert {*report.tables, "measured"} <= {p.stem for p in page.parent.glob("*.csv")}
    assert "# Concentration on many bands" in (page.parent / "tables.md").read_text()
    measured = report.measured
    # Clean: 4 runs × 2 steps × 4 bands × 2 samples × 2 positions; mixed: the last step, one sample.
    assert len(measured) == 4 * 4 * 2 * (2 * 2 + 1)
    assert set(measured["step"]) == {6, 12}
    pd.testing.assert_frame_equal(measured, measure_bands(tmp_path, plan, Console(quiet=True)))
    with pytest.raises(MeasureError, match="batch size 99"):
        measure_bands(tmp_path, replace(plan, batch_size=99), Console(quiet=True))
