"""The study of spectral edges: rules on updates with a known answer, its page, and the command on tiny runs."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.measure.rows import MeasurementRows
from sims.measure.update_rows import window_rows
from sims.pages.number import ABSENT
from sims.runs.digests import sealed
from sims.runs.store import run_folders
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN, print_claims
from sims.studies.edge import page as edge_page
from sims.studies.edge.answers import EdgeAnswers
from sims.studies.edge.measured import EdgeData, _series, _spectra, _windows, edge_data
from sims.studies.edge.preset import SEEDS, edge_configs, edge_measurements
from sims.studies.edge.published import claims
from sims.studies.edge.sections import styles
from sims.studies.edge.sketches import FLAT, TWO_MODES
from sims.studies.edge.study import PAGE
from sims.studies.study import sections
from sims.system.errors import MeasureError
from sims.system.files import write_json
from sims.training.toy_runner import run_group
from spectra import UpdateWindow
from toymodel.config import ModelConfig

W, STRIDE, BETA, P, UPDATES = 6, 5, 0.9, 600, 66


def momentum_noise(generator, n=UPDATES):
    """Sums of five steps of an exponential moving average of white noise, from its stationary state on."""
    average, found = generator.standard_normal(P) * np.sqrt((1 - BETA) / (1 + BETA)), []
    for _ in range(n):
        steps = []
        for _ in range(STRIDE):
            average = BETA * average + (1 - BETA) * generator.standard_normal(P)
            steps.append(average)
        found.append(np.sum(steps, axis=0))
    return np.stack(found)


def planted(generator):
    """Momentum noise, and in two of six neighbouring updates a direction of their own, at the same lengths."""
    x = momentum_noise(generator)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    for start in range(0, len(x), W):
        x[start + 2 : start + 4] += 3 * lengths[start] * generator.standard_normal(P) / np.sqrt(P)
    return x * lengths / np.linalg.norm(x, axis=1, keepdims=True)


def scheduled(generator):
    """Momentum noise whose lengths rise and fall."""
    x = momentum_noise(generator)
    rate = np.interp(np.arange(len(x)), [0, 20, 40, len(x)], [0.1, 1.0, 1.0, 0.1])
    return x * rate[:, None]


def tables(updates, record, windows=(W,), draws=199, loss=None):
    """What a run with these updates would have measured."""
    rows, spectra = [], []
    for i in range(len(updates)):
        step = (i + 1) * STRIDE
        sheet = MeasurementRows(step, None)
        sheet.row("last_norm", "update", "trunk", float(np.linalg.norm(updates[i])))
        sheet.row("val_loss", "loss", "validation", float(1 / (i + 1) if loss is None else loss[i]))
        for window in windows:
            if i + 1 >= window:
                held = UpdateWindow(window + 1)
                for update in updates[max(0, i - window) : i + 1]:
                    held.push(update)
                own, wider = held.last(window), held.last(min(window + 1, i + 1))
                simulated = draws if (i + 1) % W == 0 else 0
                window_rows(sheet, "trunk", own, wider, momentum=BETA, stride=STRIDE, draws=simulated)
        rows += sheet.rows
        spectra += sheet.spectra
    rows = pd.DataFrame(rows).fillna({"window": "", "detail": ""})
    own = rows[rows["site"] == "trunk"]
    found = {
        "windows": _windows(own),
        "updates": _series(own, "last_norm", "norm"),
        "losses": _series(rows[rows["object"] == "loss"], "val_loss", "loss"),
        "spectra": _spectra(pd.DataFrame(spectra), "trunk"),
    }
    label = {name: record[name] for name in ("run", "cell", "seed")}
    return {name: table.assign(**label) for name, table in found.items()}


def data_of(kinds, seeds=4, **options):
    """Cells of made-up runs: name and stage → a function that draws updates."""
    parts, records = [], []
    for (size, stage), draw in kinds.items():
        for seed in range(seeds):
            record = {
                "run": f"{stage}-{size}-{seed}",
                "cell": f"{stage}, {size}",
                "stage": stage,
                "size": size,
            }
            record |= {"seed": seed, "batch_size": 32, "lr": 2e-3, "stride": STRIDE, "travel": 0.01}
            records.append(record | {"momentum": BETA, "parameters": P})
            parts.append(tables(draw(np.random.default_rng([len(parts), seed])), record, **options))
    joined = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}
    return EdgeData(pd.DataFrame(records), **joined, group="trunk")


@pytest.fixture(scope="module")
def answers():
    kinds = {
        ("width 8", "rope"): momentum_noise,
        ("width 16", "rope"): planted,
        ("width 16", "muon"): scheduled,
    }
    return EdgeAnswers(data_of(kinds), null_draws=3, permutations=99)


NOISE, PLANTED, SCHEDULED = "rope, width 8", "rope, width 16", "muon, width 16"


def test_a_planted_edge_is_shown_beyond_every_null(answers):
    assert {answers.edge(PLANTED, null).outcome for null in ("momentum", "norms", "correlations")} == {SHOWN}
    assert answers.share(PLANTED, "correlations")["mean"] > 0.5


def test_pure_momentum_noise_has_no_edge(answers):
    outcomes = set()
    for null in ("momentum", "norms", "correlations"):
        verdict, share = answers.edge(NOISE, null), answers.share(NOISE, null)
        assert verdict.outcome == (OPEN if share["high"] > 0.2 else NOT_SHOWN)
        assert "0 of 4 seeds have an edge" in verdict.reason
        outcomes.add(verdict.outcome)
    assert NOT_SHOWN in outcomes


def test_lengths_alone_are_an_edge_beyond_momentum_and_not_beyond_lengths(answers):
    edges = answers.edges
    own = edges[(edges["cell"] == SCHEDULED) & edges["decided"]].set_index(["form", "null"])["edges"]
    counts = own.groupby(level=[0, 1]).sum()
    assert counts["update", "momentum"] >= 2 * max(1, counts["update", "norms"])
    assert answers.edge(SCHEDULED, "norms").outcome == NOT_SHOWN
    # Updates of length 1 have no lengths to tell.
    assert counts["normalised_update", "momentum"] == counts["normalised_update", "norms"]


def test_a_schedule_alone_has_no_phases_and_noise_neither(answers):
    assert {answers.phase_verdict(cell).outcome for cell in (NOISE, SCHEDULED)} == {NOT_SHOWN}


def test_what_a_rule_needs_is_named_where_it_is_missing(answers):
    data = answers.data
    verdict = answers.flip(NOISE)
    assert (verdict.outcome, "update-windows" in verdict.reason) == (OPEN, True)
    bare = EdgeAnswers(replace(data, updates=data.updates[data.updates["step"] % 10 == 0]))
    assert "norms of all updates" in bare.phase_verdict(NOISE).reason
    few = EdgeAnswers(replace(data, windows=data.windows[data.windows["seed"] < 3]))
    assert few.edge(PLANTED, "norms").outcome == OPEN
    assert "3 usable seeds" in few.edge(PLANTED, "norms").reason
    # Of a null that decides nothing a single run is drawn, whose share is none.
    assert few.phase_null(NOISE) == ABSENT
    assert answers.phase_null(NOISE).endswith("%")
    assert next(c for c in claims(few) if c.claim.startswith("σ₂/σ₃ rises")).against == ABSENT


@pytest.mark.slow
def test_a_null_of_an_unknown_momentum_is_not_resolved(answers):
    data = answers.data
    names = [f"p_{null}{end}" for null in ("momentum", "norms") for end in ("", "_half")]
    unknown = EdgeAnswers(
        replace(
            data,
            runs=data.runs.assign(momentum=np.nan),
            windows=data.windows.assign(**dict.fromkeys(names, np.nan)),
        ),
        null_draws=3,
        permutations=99,
    )
    assert unknown.edge(PLANTED, "norms").outcome == OPEN
    assert "have no p-value" in unknown.edge(PLANTED, "norms").reason
    assert unknown.edge(PLANTED, "correlations").outcome == SHOWN
    assert unknown.gaps["relative"].isna().all()
    assert not any(s.text.startswith("Not made") for s in sections(PAGE, unknown))
    assert "an unknown share" in edge_page.lead(unknown)


@pytest.mark.slow
def test_k_differs_between_scales_where_it_was_planted():
    def spiked(k):
        def draw(generator):
            x = generator.standard_normal((UPDATES, P))
            directions = 1.5 * generator.standard_normal((UPDATES // W, k, P))
            for i in range(UPDATES):
                x[i] += directions[i // W, i % k] if i % W < 2 * k else 0
            return x

        return draw

    makers = {("width 8", "rope"): spiked(1), ("width 16", "rope"): spiked(3)}
    found = EdgeAnswers(data_of(makers, seeds=6, draws=0))
    (verdict,) = found.scales.values()
    assert verdict.outcome == SHOWN, verdict.reason
    modes = found.modes
    own = modes[(modes["form"] == "normalised_update") & (modes["most"] == W // 2)].set_index("cell")
    assert own["k"].to_dict() == {"rope, width 8": 1, "rope, width 16": 3}
    same = EdgeAnswers(replace(found.data, runs=found.data.runs.assign(travel=range(12))))
    assert [v.outcome for v in same.scales.values()] == [OPEN]


def test_a_gap_that_goes_before_the_loss_has_a_positive_lag():
    """Lengths drive the gap of raw updates; a loss that follows them three snapshots later."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((160, P))
    found = data_of({("width 8", "rope"): lambda _: x}, windows=(4, 8), seeds=1, draws=0)
    value = found.of("rope, width 8", "update", 4).set_index("step")["r23"]
    later = value.reindex(found.losses["step"] - 3 * STRIDE).fillna(value.mean()).to_numpy()
    found = EdgeAnswers(replace(found, losses=found.losses.assign(loss=later)), permutations=199)
    assert (found.data.main, found.data.long) == (4, 8)
    row = found.lags[(found.lags["window"] == 4) & (found.lags["stamp"] == "end")].iloc[0]
    assert (row["detrend"], row["lag"]) == ("cubic", 3)
    assert row["p"] == 1 / 200
    centre = found.lags[(found.lags["window"] == 4) & (found.lags["stamp"] == "centre")].iloc[0]
    assert centre["lag"] == 4.5
    assert found.curves[found.curves["window"] == 4]["r"].max() > 0.95
    # One seed is too few for the verdict.
    assert found.flip("rope, width 8").outcome == OPEN


@pytest.mark.slow
def test_sketches_lose_flat_edges_and_shrink_large_ones(answers):
    curves = answers.sketch_curves
    at = curves[curves["times"] == 10].set_index("window")
    assert at.loc["flat", "bias"] > 0.04
    assert at.loc["flat", "kept"] < 0.5
    assert at.loc["two modes", "bias"] < -0.15
    assert len(FLAT) == len(TWO_MODES) == 10
    means = answers.sketch_means.set_index(["cell", "quantity"])
    assert means.loc[(NOISE, "kept"), "mean"] < means.loc[(PLANTED, "kept"), "mean"]


def test_optimisers_are_compared_at_equal_size(answers):
    table = answers.optimisers
    assert set(table["adamw"]) == {PLANTED}
    assert set(table["muon"]) == {SCHEDULED}
    gap = table[table["quantity"].str.startswith("gap")].iloc[0]
    # The edge was planted in the runs that stand for AdamW.
    assert gap["high"] < 0
    assert gap["p_holm"] < 0.05
    assert table["p_holm"].min() == pytest.approx(len(table) * table["p"].min())


def test_runs_of_unequal_length_are_compared_over_the_steps_that_both_have(answers):
    """AdamW trains on after Muon has ended, and its edge grows: the comparison is that of the common steps."""
    windows, half = answers.data.windows, UPDATES * STRIDE // 2

    def compared(longer):
        late = windows["step"] > half
        kept = windows[~late | (windows["cell"] == PLANTED)] if longer else windows[~late]
        kept = kept.assign(pc1=kept["pc1"].where(kept["step"] <= half, 1.0))
        found = EdgeAnswers(replace(answers.data, windows=kept), null_draws=3, permutations=99)
        return found.optimisers.set_index("quantity")["difference"], found.scales

    (alone, scales), (beside, others) = compared(longer=False), compared(longer=True)
    assert beside["share of the first direction"] == pytest.approx(alone["share of the first direction"])
    assert [v.reason for v in others.values()] == [v.reason for v in scales.values()]


def test_every_claim_has_a_null_and_a_verdict_for_every_cell(answers):
    found = list(claims(answers))
    assert {claim.outcome for claim in found} <= {SHOWN, NOT_SHOWN, OPEN}
    assert all(claim.reason for claim in found)
    about = pd.DataFrame(found)
    for cell in (NOISE, PLANTED, SCHEDULED):
        # Two nulls of the edge, phases, both stamps of the lag, sketches.
        assert (about["runs"] == cell).sum() == 6


def test_the_page_says_what_is_shown(answers, tmp_path, undrawn):
    page = edge_page.write_edge(answers, tmp_path, tmp_path / "page", ["a note"])
    text = page.read_text()
    for words in (
        "a note",
        "Of 3 sets of runs",
        "Muon against AdamW",
        "The published claims",
        "momentum noise",
    ):
        assert words in text
    assert not any(s.text.startswith("Not made") for s in sections(PAGE, answers))
    assert (tmp_path / "page" / "claims.csv").exists()
    console = Console(record=True, width=200)
    print_claims(edge_page.TITLE, list(claims(answers)), console)
    assert NOISE in console.export_text()


def test_no_two_cells_look_alike(answers):
    found = styles(answers)
    assert len({found[cell]["color"] for cell in (NOISE, PLANTED, SCHEDULED)}) == 3
    assert found[NOISE]["linestyle"] != found[PLANTED]["linestyle"]


def test_equal_shares_of_all_seeds_are_told_as_counts():
    same = EdgeAnswers(
        data_of({("width 8", "rope"): lambda _: momentum_noise(np.random.default_rng(0))}, draws=99)
    )
    (cell,) = same.data.cells
    share = same.share(cell, "momentum")
    assert share is not None
    assert share["min"] == share["max"]
    assert same.told_share(cell, "momentum").endswith(f" of {share['windows'] / share['n']:.0f} in each seed")


def test_the_preset_can_be_compared_and_measured():
    configs, measuring = edge_configs(range(SEEDS)), edge_measurements()
    assert len({c.run_id for c in configs}) == len(configs) == 12
    for config in configs:
        measuring.check(config)
    adamw = [c for c in configs if c.stage == "rope"]
    assert len({(c.lr, c.steps, c.batch_size, c.eval_every) for c in adamw}) == 1
    assert configs[0].steps // measuring.update_stride // max(measuring.update_windows) >= 20
    assert configs[0].eval_every == measuring.updates == measuring.update_stride


# --- the command --------------------------------------------------------------------------------------------


WINDOWS = {"updates": 1, "update_windows": (3, 6), "update_groups": ("trunk",), "update_draws": 99}


def train(out, steps, stages=("rope",), seeds=2, width=16, **changes):
    little = {
        "every": steps,
        "gradient_sequences": 0,
        "bands": (),
        "training_bands": 0,
        "causal_sequences": 0,
    }
    measuring = replace(MEASURE, **{**little, **WINDOWS, **changes})
    model = ModelConfig(d_model=width, heads=2, layers=1)
    for stage in stages:
        runs = [
            replace(RUN, stage=stage, model=model, seed=s, steps=steps, eval_every=1) for s in range(seeds)
        ]
        assert run_group(runs, measuring, out) == {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("edge")
    train(out, 20, update_nulls=3)
    return out


def test_the_command_reads_a_folder_and_answers(folder, tmp_path, capsys, undrawn):
    assert cli.main(["edge", "--runs", str(folder), "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["outcome"] for row in found["claims"]} == {OPEN}
    assert {row["runs"] for row in found["claims"]} >= {"rope, width 16"}
    names = {p.name for p in tmp_path.iterdir()}
    assert {"index.html", "tables.md", "claims.csv", "edge-shares.csv", "sketches.csv"} <= names
    assert "2 usable seeds" in (tmp_path / "tables.md").read_text()


def test_windows_are_those_of_the_rows(folder):
    found = edge_data(folder)
    assert (found.group, found.lengths, found.main, found.long) == ("trunk", [3, 6], 3, 6)
    run = run_folders(folder)[0]
    rows = run.rows()
    row = rows[(rows["quantity"] == "r23") & (rows["object"] == "update") & (rows["window"] == "6")].iloc[3]
    own = found.of("rope, width 16", "update", 6)
    value = own[(own["run"] == run.path.name) & (own["step"] == row["step"])]["r23"]
    assert value.tolist() == [row["value"]]
    # Nulls at every third update only.
    known = own[own["p_norms_half"].notna()]
    assert set(known["step"]) == {6, 9, 12, 15, 18}
    record = found.cell("rope, width 16")
    assert (record["momentum"], record["stride"], record["parameters"]) == (0.9, 1, 2 * 1024)


def test_a_run_that_diverged_has_no_windows_here(folder, tmp_path):
    """Updates that grow without bound have an edge of their own."""
    out = tmp_path / "runs"
    shutil.copytree(folder, out)
    one, other = run_folders(out)
    write_json(one.path / "done.json", sealed(one.path, {**one.outcome, "ended": "diverged"}))
    found = edge_data(out)
    assert set(found.runs["run"]) == {other.path.name}
    assert one.path.name in found.notes[0]


def test_runs_of_two_learning_rates_are_two_cells(folder, tmp_path):
    train(tmp_path, 8, seeds=1)
    runs = [
        replace(
            RUN,
            stage="rope",
            model=ModelConfig(d_model=16, heads=2, layers=1),
            lr=1e-3,
            steps=8,
            eval_every=1,
        )
    ]
    assert run_group(runs, replace(MEASURE, every=8, **WINDOWS), tmp_path) == {}
    assert edge_data(tmp_path).cells == ["rope, width 16, lr 0.001", "rope, width 16, lr 0.003"]


def test_what_cannot_be_asked_is_refused(folder, tmp_path, capsys):
    def refused(*words):
        assert cli.main(["edge", "--out", str(tmp_path / "page"), *words]) == 2
        return capsys.readouterr().err

    assert "--seeds is 0" in refused("--seeds", "0")
    assert "leave out --seeds" in refused("--runs", str(folder), "--seeds", "3")
    assert "does not exist; give a folder of runs" in refused("--runs", str(tmp_path / "nothing"))
    assert "no windows of embedding in all of them" in refused("--runs", str(folder), "--group", "embedding")
    assert run_group([RUN], MEASURE, tmp_path / "bare") == {}
    assert "no complete run with windows of updates" in refused("--runs", str(tmp_path / "bare"))
    train(tmp_path / "two", 4, seeds=1, update_windows=(2,))
    with pytest.raises(MeasureError, match="fewer than 3 updates"):
        edge_data(tmp_path / "two")
    assert not (tmp_path / "page").exists()


def test_the_runs_of_the_command_are_shown_before_they_train(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "sims.sweep.show.estimate", lambda groups, device: type("E", (), {"seconds": 100.0})()
    )
    monkeypatch.setattr("sims.sweep.show.looking", lambda configs, measuring, device: 10.0)
    assert cli.main(["edge", "--dry-run", "--seeds", "2", "--json", "--out", str(tmp_path / "new")]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 6
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_command_decides_on_four_seeds_of_two_stages(tmp_path, capsys):
    train(tmp_path, 80, ("rope", "muon"), seeds=4, update_draws=199, update_nulls=3)
    assert cli.main(["edge", "--runs", str(tmp_path), "--json"]) == 0
    found = pd.DataFrame(json.loads(capsys.readouterr().out)["claims"])
    assert (found.loc[found["claim"].str.startswith("Updates"), "outcome"] != OPEN).all()
    assert (tmp_path / "page" / "at-a-glance.png").exists()


def test_runs_of_one_cell_that_differ_in_more_than_their_seeds_are_refused(tmp_path):
    measure = replace(
        MEASURE,
        every=12,
        updates=3,
        update_window=4,
        update_draws=99,
        update_groups=("all",),
        update_stride=1,
    )
    base = replace(RUN, stage="rope", steps=12, eval_every=12)
    for changes in ({"seed": 1}, {"seed": 2, "weight_decay": 0.9}):
        assert not run_group([replace(base, **changes)], measure, tmp_path)
    with pytest.raises(MeasureError, match="differ in weight_decay; move one of them"):
        edge_data(tmp_path)
