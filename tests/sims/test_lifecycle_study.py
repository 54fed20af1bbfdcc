"""The study of spectra of weights over training and depth: planted answers, its page, and the command on tiny runs."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.analysis.verdicts import Verdict
from sims.runs.lm_config import LmConfig
from sims.runs.store import run_folders
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN, VERDICTS, claim_table
from sims.studies.lifecycle import page as lifecycle_page
from sims.studies.lifecycle.answers import ALL_LAYERS, INTERIOR, MATRICES, NO_SEED, PRODUCTS, LifeAnswers
from sims.studies.lifecycle.curves import curves, product_curves, summary
from sims.studies.lifecycle.measured import EXPONENTS, Source, clock, lifecycle_data
from sims.studies.lifecycle.preset import DEPTHS, SEEDS, lifecycle_configs, lifecycle_measurements
from sims.studies.lifecycle.published import _importance, claims
from sims.studies.lifecycle.removal import removals
from sims.studies.lifecycle.sources import sources
from sims.studies.lifecycle.study import PAGE
from sims.studies.study import sections
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from toymodel.config import ModelConfig

STEPS = np.unique(np.concatenate([np.geomspace(1, 1000, 40).round(), [0]])).astype(int)
TYPES = {"q": "attn.q", "k": "attn.k", "v": "attn.v", "o": "attn.o", "up": "mlp.fc", "down": "mlp.proj"}


def rows_of(rank, exponent, products):
    """Rows of a run in which layer l of a type has these ln stable ranks (looks,), and exponents at all looks."""
    found = []

    def add(quantity, object_, site, detail, values, null=0.0):
        row = {"quantity": quantity, "object": object_, "site": site, "detail": detail, "null": null}
        found.extend({**row, "step": s, "value": v} for s, v in zip(STEPS, values, strict=True))

    for (kind, block), curve in rank.items():
        site = f"blocks.{block}.{TYPES[kind]}"
        add("stable_rank", "weight", site, "", np.exp(curve))
        add("trace", "weight", site, "", np.ones(len(STEPS)))
        for name, detail in (
            ("alpha_singular", "half"),
            ("alpha_singular", "all"),
            ("hill", ""),
            ("farms", "4 tiles of 8"),
        ):
            add(name, "weight", site, detail, np.full(len(STEPS), exponent[kind, block]), 0.25)  # fmt: skip
    for (kind, block, head), curve in products.items():
        add("stable_rank", "product", f"blocks.{block}.attn.{kind}.{head}", "", np.exp(curve))
    return pd.DataFrame(found)


def source(layers, seed, front, gain=0.0, warmdown=0.0, spread=("v",)):
    """A run whose layer l compresses by e at time `front(l)`; types of `spread` differ over layers by a factor more."""
    generator = np.random.default_rng([layers, seed, int(10 * warmdown)])
    config = LmConfig(
        {4: "tiny", 6: "tiny6", 8: "tiny8", 10: "tiny10", 12: "tiny12"}[layers],
        *("rope", 257, 16, 4, 1000),
        lr=1e-3,
        warmup=0.0,
        warmdown=warmdown,
        seed=seed,
    )
    rank, exponent, products = {}, {}, {}
    shape = np.sin(np.arange(layers) * 2.4)
    for block in range(layers):
        for kind in TYPES:
            depth = 1.0 + (0.9 if kind in spread else 0.1) * shape[block] * 0.5
            noise = 0.002 * generator.standard_normal(len(STEPS))
            rank[kind, block] = 3 - depth * (1 - np.exp(-STEPS / front(block))) + noise
            exponent[kind, block] = gain * shape[block] + 0.02 * generator.standard_normal()
        for kind in ("qk", "ov"):
            for head in range(2):
                products[kind, block, head] = rank["q" if kind == "qk" else "v", block]
    name = f"{config.run_id}"
    return Source(name, Path("nowhere"), config, rows_of(rank, exponent, products))


def wave(block):
    return 60.0 + 30.0 * block


def one_clock(block):
    return 100.0


def answers_of(front, layers=8, seeds=3, **options):
    runs = [source(layers, s, front, warmdown=w, **options) for w in (0.0, 0.5) for s in range(seeds)]
    return LifeAnswers(lifecycle_data(runs, "here"))


def test_a_claim_on_importance_tells_every_exponent_that_may_decide_it():
    names = {"alpha_half": -0.1, "hill": 0.9}
    rows = [
        {"cell": "c", "name": name, "part": part, "rho": rho, "status": "ok"}
        for part in (ALL_LAYERS, INTERIOR)
        for name, rho in names.items()
    ]
    verdict = Verdict("importance", SHOWN, "interior layers: hill ρ = 0.90, p = 0.01")
    answers = SimpleNamespace(importances=pd.DataFrame(rows), important=lambda _: verdict)
    (claim,) = _importance(answers, "c")
    assert claim.here == "; ".join(f"{p}: ρ = alpha_half -0.10, hill 0.90" for p in (ALL_LAYERS, INTERIOR))


def test_a_planted_wave_is_shown_and_a_common_clock_is_not():
    with_wave, without = answers_of(wave), answers_of(one_clock)
    (family,) = with_wave.families
    assert family == "rope, L 8"
    assert list(with_wave.families[family]) == [
        "constant rate, warm-up 0",
        "decayed rate, warm-up 0",
    ]
    assert with_wave.wave(family).outcome == SHOWN
    assert with_wave.wave(family, INTERIOR).outcome == SHOWN
    own = with_wave.waves.query(
        "name == 'pooled' and part == @ALL_LAYERS", local_dict={"ALL_LAYERS": ALL_LAYERS}
    )
    assert (own["rho"] > 0.99).all()
    assert (own["p"] < 0.01).all()
    assert without.wave(family).outcome != SHOWN
    # One schedule alone decides nothing.
    alone = LifeAnswers(lifecycle_data([source(8, s, wave) for s in range(3)], "here"))
    assert alone.wave("rope, L 8").outcome == OPEN


@pytest.mark.slow
def test_two_planted_times_are_shown_and_one_is_not():
    def of_q(curve):
        runs = [source(8, s, one_clock, warmdown=w) for w in (0.0, 0.5) for s in range(3)]
        for i, run in enumerate(runs):
            own = run.rows["site"].str.endswith("attn.q") & (run.rows["quantity"] == "stable_rank")
            noise = 0.003 * np.random.default_rng(i).standard_normal((8, len(STEPS)))
            time = clock(run.spec, STEPS)
            fall = 0.6 + 0.4 * np.sin(np.arange(8))[:, None]
            run.rows.loc[own, "value"] = np.exp(3 - fall * curve(time) + noise).ravel()
        kept = [replace(r, rows=r.rows[r.rows["site"].str.endswith("attn.q")]) for r in runs]
        return LifeAnswers(lifecycle_data(kept, "here"), resamples=19)

    two = of_q(lambda t: (1 - np.exp(-t / 0.02)) + 0.8 * (1 - np.exp(-t / 0.4)))
    one = of_q(lambda t: 1 - np.exp(-t / 0.1))
    (family,) = two.families
    assert two.two_times(family, "q").outcome == SHOWN
    assert one.two_times(family, "q").outcome == NOT_SHOWN
    for found in two.times.values():
        assert (found.fast, found.slow) == (pytest.approx(0.02, rel=0.15), pytest.approx(0.4, rel=0.15))


@pytest.mark.slow
def test_the_spread_of_q_and_k_is_told_from_that_of_v_and_o():
    q_k, v_o = (answers_of(one_clock, spread=names) for names in (("q", "k"), ("v", "o")))
    for answers, outcome in ((q_k, SHOWN), (v_o, NOT_SHOWN)):
        for cell in answers.data.cells:
            verdicts = {form: answers.asymmetric(cell, form) for form in (MATRICES, PRODUCTS)}
            assert {v.outcome for v in verdicts.values()} == {outcome}, verdicts


@pytest.mark.slow
def test_the_spread_over_depth_needs_five_depths_and_is_not_the_range():
    def runs(growth, depths):
        return [source(n, s, one_clock, gain=0.1 * n**growth) for n in depths for s in range(3)]

    growing = LifeAnswers(lifecycle_data(runs(2.0, (4, 6, 8, 10, 12)), "here"))
    (line,) = growing.lines
    assert growing.grows(line).outcome == SHOWN
    flat = LifeAnswers(lifecycle_data(runs(0.0, (4, 6, 8, 10, 12)), "here"))
    assert flat.grows(line).outcome == NOT_SHOWN
    few = LifeAnswers(lifecycle_data(runs(2.0, (4, 6, 8)), "here"))
    assert few.grows(line).outcome == OPEN
    assert "5" in few.grows(line).reason


@pytest.mark.slow
def test_the_spread_over_depth_takes_the_seeds_that_all_depths_have():
    depths, seeds = (4, 6, 8, 10, 12), {6: (1, 2), 10: (0, 1, 2, 7)}
    runs = [source(n, s, one_clock, gain=0.1) for n in depths for s in seeds.get(n, (0, 1, 2))]
    answers = LifeAnswers(lifecycle_data(runs, "here"))
    (line,) = answers.lines
    assert answers.common_seeds(line) == (1, 2)
    law = answers.laws[line, EXPONENTS[0], "sd"]
    assert (law.seeds, law.status) == (2, "ok")
    paired = LifeAnswers(lifecycle_data([r for r in runs if r.spec.seed in (1, 2)], "here"))
    again = paired.laws[line, EXPONENTS[0], "sd"]
    assert (law.exponent, law.low, law.high) == (again.exponent, again.low, again.high)
    assert law.spreads == again.spreads
    # Seeds that no other depth has are no pairs.
    apart = [r for r in runs if r.spec.seed in (1, 2) and r.spec.shape.layers != 6]
    apart += [source(6, s, one_clock, gain=0.1) for s in (8, 9)]
    found = LifeAnswers(lifecycle_data(apart, "here"))
    assert (found.grows(line).outcome, found.grows(line).reason) == (OPEN, NO_SEED)


def test_matrices_that_start_at_zero_have_no_front_and_do_not_hide_the_others():
    runs = [source(8, s, wave) for s in range(3)]
    for run in runs:
        start = (run.rows["step"] == 0) & run.rows["site"].str.contains("attn.o|mlp.proj")
        run.rows.loc[start & (run.rows["object"] == "weight"), "value"] = math.nan
    answers = LifeAnswers(lifecycle_data(runs, "here"))
    (cell,) = answers.data.cells
    assert set(answers.compressed(cell).values) == {"q", "k", "v", "up"}
    assert answers.compressed(cell).steps[0] == 0
    assert answers.ranks(cell).steps[0] == STEPS[1]
    assert set(answers.ranks(cell).values) == set(TYPES)
    assert set(answers.fronts["type"]) == {"q", "k", "v", "up"}
    assert np.isfinite(answers.slopes["value"]).all()


def test_arrays_hold_what_was_measured_in_the_order_of_seeds_looks_and_layers():
    runs = [source(4, s, wave) for s in (2, 0, 1)]
    data = lifecycle_data(runs, "here")
    (cell,) = data.cells
    own = curves(data, cell, "stable_rank")
    assert own.seeds == (0, 1, 2)
    assert own.steps.tolist() == STEPS.tolist()
    assert own.clock == pytest.approx(1e-3 * STEPS)
    for place, seed in enumerate(own.seeds):
        run = next(r for r in runs if r.spec.seed == seed)
        want = run.rows.query("site == 'blocks.2.attn.v' and quantity == 'stable_rank'")["value"]
        np.testing.assert_allclose(own.values["v"][place, :, 2], np.log(want), rtol=1e-12)
    products = product_curves(data, cell, "stable_rank")
    np.testing.assert_allclose(products.values["ov"], own.values["v"], rtol=1e-12)
    # The null of the exponents, 0.25, is taken off.
    assert data.matrices["excess_hill"].to_numpy() == pytest.approx(data.matrices["hill"] - 0.25)
    mean = summary(own.last)
    assert mean.shape == (3, 4)
    assert mean.mean(axis=1) == pytest.approx(np.zeros(3), abs=1e-12)


def test_the_clock_sums_the_rates_of_a_schedule():
    config = LmConfig("tiny", "rope", 257, 16, 4, 100, lr=0.5, warmup=0.1, warmdown=0.2)
    total = clock(config, range(101))
    rates = [config.lr * config.lr_scale(s) for s in range(100)]
    assert total == pytest.approx(np.concatenate([[0], np.cumsum(rates)]))
    assert clock(None, [3, 7]).tolist() == [3, 7]


def test_runs_without_exponents_or_of_one_seed_twice_are_refused():
    good = source(4, 0, wave)
    plain = replace(good, rows=good.rows[~good.rows["quantity"].isin(["alpha_singular", "hill", "farms"])])
    with pytest.raises(MeasureError, match=r"no exponents of weights.*--measure\.tails"):
        lifecycle_data([plain], "runs")
    with pytest.raises(MeasureError, match="are runs of rope, L 4 and seed 0"):
        lifecycle_data([good, replace(good, name="other")], "runs")
    data = lifecycle_data([good, replace(plain, name="plain")], "runs")
    assert data.notes == ("Left out: plain (no exponents of weights).",)
    few = replace(good, name="few", rows=good.rows[good.rows["step"] < 2])
    assert "few (2 of at least 4 looks)" in lifecycle_data([good, few], "runs").notes[0]


def test_runs_of_one_set_that_differ_in_more_than_their_seeds_are_refused():
    first, second = source(4, 0, wave), source(4, 1, wave)
    for changes in ({"warmdown": 0.3, "warmup": 0.0}, {"weight_decay": 0.9}, {"length": 32}):
        other = replace(second, spec=replace(second.spec, **changes))
        base = replace(first, spec=replace(first.spec, warmdown=0.5)) if "warmdown" in changes else first
        with pytest.raises(MeasureError, match=f"differ in {next(iter(changes))}"):
            lifecycle_data([base, other], "here")
    toy = replace(RUN, stage="rope", model=ModelConfig(16, 2, 4), lr=1e-3, batch_size=4, seed=1)
    alike = replace(first, spec=replace(first.spec, length=16, batch_size=4))
    mixed = replace(second, name="toy", spec=toy)
    # A toy of another width is a set of its own.
    assert len(lifecycle_data([alike, mixed], "here").cells) == 2
    with pytest.raises(MeasureError, match="two runs are named"):
        lifecycle_data([first, replace(second, name=first.name)], "here")


def test_a_missing_exponent_is_missing_in_the_mean_of_types():
    last = {"q": np.array([[1.0, 2.0, np.nan, 4.0]]), "k": np.array([[1.0, 2.0, 3.0, 4.0]])}
    assert np.isnan(summary(last)).all()
    same = {"q": np.ones((1, 4)), "k": last["k"]}
    assert summary(same) == pytest.approx(summary({"k": last["k"]}) / 2)


@pytest.mark.slow
def test_runs_with_too_few_blocks_or_another_text_say_so(trained, tmp_path):
    run = source(4, 0, wave)
    two = replace(run, name="two", rows=run.rows[run.rows["site"].str.match(r"blocks\.[01]\.")])
    notes = lifecycle_data([run, two], "here").notes
    assert notes == ("Left out: two (2 of at least 3 blocks).",)
    console = Console(quiet=True)
    found = removals(lifecycle_data(sources([trained], tmp_path, console), "runs"), console)
    assert not found.notes
    foreign = lifecycle_data([replace(run, spec=None, kind="gpt_neox")], "here")
    assert "Times of" in foreign.notes[0]
    nothing = removals(foreign, console)
    assert not nothing.models
    assert "was not trained by this package" in nothing.notes[0]


def test_the_preset_has_six_settings():
    configs = lifecycle_configs(range(SEEDS))
    assert len(configs) == 6 * SEEDS
    assert len({c.run_id for c in configs}) == len(configs)
    assert sorted({c.model.layers for c in configs}) == sorted(DEPTHS)
    for config in configs:
        lifecycle_measurements().check(config)


def tiny(out, seeds=(0, 1, 2)):
    """Train runs of two depths for a few steps, with looks at every one."""
    measure = replace(MEASURE, every=8, tails=True, schedules=("weights=1",))
    configs = [
        replace(RUN, stage="rope", model=ModelConfig(16, 2, n), steps=8, eval_every=8, seed=s)
        for n in (4, 5)
        for s in seeds
    ]
    for config in configs:
        assert not run_group([config], measure, out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("lifecycle") / "runs"
    tiny(out)
    return out


def test_the_page_of_tiny_runs_answers_every_claim(trained, tmp_path):
    console = Console(quiet=True)
    data = lifecycle_data(sources([trained], tmp_path, console), "runs")
    removed = removals(data, console)
    again = removals(data, console)
    answers = LifeAnswers(data, removed)
    assert removed.costs.equals(again.costs)
    page = lifecycle_page.write_lifecycle(answers, [trained], tmp_path / "page", ["a note"])
    table = claim_table(claims(answers))
    assert set(table["outcome"]) <= set(VERDICTS)
    # Two depths, three forms of asymmetry, one line.
    assert table["claim"].nunique() == 11
    assert not table.isna().any().any()
    assert (table["reason"] != "").all()
    text = page.read_text()
    assert "a note" in text
    assert "nan" not in text.lower().replace("finance", "")
    made = {s.name: s.text for s in sections(PAGE, answers)}
    # Nine looks are too few for times; everything else is there.
    assert [name for name, text in made.items() if "Not made from these runs" in text] == ["timescales"]
    assert "at least 12 looks" in made["timescales"]
    assert {p.name for p in page.parent.iterdir()} >= {"film.svg", "waves.csv", "removal.png", "tables.md"}


def test_the_last_model_of_a_run_loses_what_it_loses_without_its_blocks(trained, tmp_path):
    console = Console(quiet=True)
    data = lifecycle_data(sources([trained], tmp_path, console), "runs")
    found = removals(data, console)
    run, model = next(iter(found.models.items()))
    folder = next(f for f in run_folders(trained) if f.path.name == run)
    assert model.costs.base.shape == (min(64, folder.spec.task.val),)
    assert model.costs.importance.shape == (folder.spec.model.layers,)
    assert set(model.choices) >= {"last N", "spectral low", "spectral high", "depth rule", "block influence"}
    # A start at zero leaves the first steps of the output matrices small: no block is worth much, and none costs inf.
    assert np.isfinite(found.costs["cost"]).all()
    assert (found.every["low"] <= found.every["high"]).all()


def run_cli(capsys, *arguments):
    code = cli.main(list(arguments))
    return code, capsys.readouterr()


@pytest.mark.slow
def test_the_command_on_runs_that_are_there(trained, tmp_path, capsys):
    code, streams = run_cli(capsys, "lifecycle", str(trained), "--out", str(tmp_path / "page"), "--json")
    found = json.loads(streams.out)
    assert code == 0
    assert Path(found["page"]).exists()
    assert {c["outcome"] for c in found["claims"]} <= set(VERDICTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds is 0"),
        (["runs", "--dry-run"], "RUNS exist already"),
        (["nothing-here"], "nothing-here"),
    ],
)
def test_what_the_command_refuses(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, streams = run_cli(capsys, "lifecycle", *arguments)
    assert code == 2
    assert message in streams.err
    assert not list(tmp_path.rglob("index.html"))


@pytest.mark.slow
def test_a_folder_of_public_checkpoints_needs_no_text(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(config)
    folder = tmp_path / "pythia-tiny"
    for step in (0, 1, 2, 4, 8):
        model.save_pretrained(folder / f"step{step}")
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter += 0.05 * torch.outer(
                        torch.randn(len(parameter)), torch.randn(parameter.shape[1])
                    )
    page = tmp_path / "page"
    code, streams = run_cli(capsys, "lifecycle", str(folder), "--out", str(page), "--json")
    assert code == 0, streams.err
    found = json.loads(streams.out)
    assert {c["runs"] for c in found["claims"]} >= {"gpt_neox, L 4"} or found["claims"]
    # The three matrices of a fused weight are those of the model, head by head.
    data = lifecycle_data(sources([folder], page, Console(quiet=True)), "here")
    assert data.types(data.cells[0]) == ["q", "k", "v", "o", "up", "down"]
    fused = transformers.GPTNeoXForCausalLM.from_pretrained(folder / "step8").gpt_neox.layers[1].attention
    v = fused.query_key_value.weight.detach().double().view(2, 3, 8, 16)[:, 2].reshape(16, 16)
    sigma = torch.linalg.svdvals(v)
    own = data.matrices.query("block == 1 and type == 'v' and step == 8")["stable_rank"].item()
    assert own == pytest.approx(float((sigma**2).sum() / sigma[0] ** 2), rel=1e-5)
    assert data.runs[["width", "seed"]].to_numpy().tolist() == [[16, 0]]
    # A second call reads what was measured.
    kept = {p: p.stat().st_mtime_ns for p in (page / "measured").iterdir()}
    assert len(kept) == 5
    run_cli(capsys, "lifecycle", str(folder), "--out", str(page), "--json")
    assert kept == {p: p.stat().st_mtime_ns for p in (page / "measured").iterdir()}
    # A name that ends in a seed is a run of that seed of the same set.
    other = folder.rename(folder.parent / "a-run-seed3")
    again = lifecycle_data(sources([other], page, Console(quiet=True)), "here")
    assert again.cells == data.cells
    assert again.runs["seed"].tolist() == [3]


def test_claims_name_their_null(trained, tmp_path):
    console = Console(quiet=True)
    data = lifecycle_data(sources([trained], tmp_path, console), "runs")
    for claim in claims(LifeAnswers(data)):
        assert claim.against
        assert claim.published
        assert claim.outcome in VERDICTS
