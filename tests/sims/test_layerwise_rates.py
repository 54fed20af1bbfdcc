"""Learning rates by the spectra of weights: against plain code, member by member, resumed, recorded."""

import math
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_toy import TINY as BASE

from sims import cli
from sims.measure.rate_rows import MULTIPLIER, SCORE, RatesObserver
from sims.measure.weight_scores import estimates
from sims.models.transformer import TransformerSubject
from sims.runs.config_file import config_text
from sims.runs.measure_config import MeasureConfig
from sims.sweep.estimate import _seconds_a_step
from sims.system.process_group import ProcessGroup
from sims.training.rates import layerwise, weight_scores
from sims.training.trainer import profile
from toymodel import Ensemble, train
from toymodel.controllers import Controller
from toymodel.data import dataset
from toymodel.feed import INDEX_BLOCK, batch_indices
from toymodel.rates import Rates
from toymodel.transformer import matrices


def finals(configs):
    """The final states of members that train together."""
    ensemble = Ensemble(configs, controller=layerwise)
    ensemble.advance(BASE.steps)
    return [ensemble.state(k) for k in range(len(configs))]


def same(one, other):
    shared = [key for key in one if key in other]
    return shared and all(torch.equal(one[key], other[key]) for key in shared)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "stage", [pytest.param("baseline", marks=SLOW), "muon", pytest.param("value_embed", marks=SLOW)]
)
def test_rates_of_one_are_the_uniform_run_bitwise(stage):
    config = replace(BASE, stage=stage)
    (plain,) = finals([config])
    (ones,) = finals([replace(config, rates=Rates("farms", low=1.0, high=1.0, every=2))])
    assert same(plain, ones)
    (other,) = finals([replace(config, rates=Rates("farms", every=2))])
    assert not same(plain, other)


@pytest.mark.parametrize(
    "rates", [Rates("farms", every=3), Rates("alpha", map="sigmoid", unit="block", every=5)]
)
@pytest.mark.parametrize("stage", [pytest.param("rope", marks=SLOW), "untied"])
def test_members_do_not_depend_on_their_company(stage, rates):
    base = replace(BASE, stage=stage, rates=rates)
    configs = [base, replace(base, seed=1, lr=1e-3), replace(base, seed=2), replace(base, seed=3)]
    together, turned = finals(configs), finals(configs[::-1])[::-1]
    assert all(same(one, other) for one, other in zip(together, turned, strict=True))
    (alone,) = finals(configs[1:2])
    assert alone.keys() == together[1].keys()
    assert same(alone, together[1])
    chosen = {float(state["multiplier/blocks.0.mlp.fc"]) for state in together}
    assert len(chosen) == 4


@pytest.mark.parametrize("stage", ["rope", "muon"])
@pytest.mark.parametrize("stop", [pytest.param(4, marks=SLOW), pytest.param(5, marks=SLOW), 7])
def test_a_run_resumed_across_a_choice_continues_bitwise(stage, stop):
    config = replace(BASE, stage=stage, rates=Rates("farms-z", every=5))
    (whole,) = finals([config])
    first = Ensemble([config], controller=layerwise)
    first.advance(stop)
    resumed = Ensemble.from_states([config], [first.state(0)], stop, controller=layerwise)
    resumed.advance(BASE.steps - stop)
    assert same(whole, resumed.state(0))


def exponent(energies):
    """Hill's exponent of the upper half, written out."""
    values = np.sort(energies)[::-1]
    k = max(len(values) // 2, 2)
    return 1 + (k - 1) / np.log(values[:k] / values[k]).sum()


def plain_multipliers(weights, rates):
    """Of matrices that are not zero: by SVD of each, and the linear map."""
    found = {
        n: exponent(np.linalg.svd(W.double().numpy(), compute_uv=False) ** 2)
        for n, W in weights.items()
        if n.startswith("blocks.") and W.any()
    }
    low, high = min(found.values()), max(found.values())
    m = {n: rates.low + (rates.high - rates.low) * (a - low) / (high - low) for n, a in found.items()}
    mean = sum(v * weights[n].numel() for n, v in m.items()) / sum(weights[n].numel() for n in m)
    return {n: v / mean for n, v in m.items()}


def test_against_param_groups_of_torch():
    """Four choices in twelve steps; one group for each matrix."""
    rates = Rates("alpha", every=3, low=0.2, high=1.8)
    config = replace(BASE, weight_decay=0.3, lr=1e-2, rates=rates)
    ensemble = Ensemble([config], controller=layerwise)
    routing = ensemble.transformer.stage.routing
    tokens = torch.tensor(dataset(config.task).train.tokens).long()
    split = {
        n: m[0].clone().requires_grad_() for n, m in matrices(ensemble.params).items() for m in [m.detach()]
    }
    groups = [{"params": [p], "lr": config.lr, "name": n} for n, p in split.items()]
    optimiser = torch.optim.AdamW(groups, betas=routing.betas, eps=routing.eps, weight_decay=0.3)
    for step in range(config.steps):
        if step % 3 == 0:
            chosen = plain_multipliers({n: p.detach() for n, p in split.items()}, rates)
            for group in optimiser.param_groups:
                group["lr"] = config.lr * chosen.get(group["name"], 1.0)
        params = {}
        for name in ensemble.params:
            stem = name.removesuffix("qkv")
            params[name] = (
                torch.stack([split[stem + part] for part in "qkv"])[None]
                if stem != name
                else split[name][None]
            )
        batch = tokens[torch.from_numpy(batch_indices(config, step // INDEX_BLOCK)[step])][None]
        optimiser.zero_grad()
        ensemble.transformer.losses(params, batch).sum().backward()
        optimiser.step()
    ensemble.advance(config.steps)
    ours = matrices(ensemble.params)
    moved = max(float((ours[n][0] - split[n]).detach().abs().max()) for n in split)
    assert moved <= 1e-6 * max(1.0, *(float(p.detach().abs().max()) for p in split.values())) * config.steps
    uniform = Ensemble([replace(config, rates=Rates())])
    uniform.advance(config.steps)
    gap = max(float((matrices(uniform.params)[n] - ours[n]).detach().abs().max()) for n in split)
    assert gap > 1e-3


def test_matrices_of_zeros_wait_for_their_first_exponent():
    config = replace(BASE, stage="muon", rates=Rates("alpha", every=4))
    ensemble = Ensemble([config], controller=layerwise)
    observer = RatesObserver(config.rates, config.steps)
    seen = {}

    def look():
        if observer.due(ensemble.step):
            observer.look(ensemble.view(0))
            seen[ensemble.step] = ensemble.state(0)

    ensemble.advance(config.steps, look)
    sheets = {sheet.step: sheet.rows for sheet in observer.flush()}
    assert list(sheets) == [1, 5, 9]
    assert observer.flush() == []
    first = {(row["quantity"], row["site"]): row for row in sheets[1]}
    for name in ("blocks.0.attn.o", "blocks.1.mlp.proj"):
        assert first[MULTIPLIER, name]["value"] == 1.0
        assert first[SCORE, name]["status"] == "not fitted"
    later = {(row["quantity"], row["site"]): row for row in sheets[5]}
    assert later[MULTIPLIER, "blocks.0.attn.o"]["value"] != 1.0
    assert later[SCORE, "blocks.0.attn.o"]["status"] == "ok"
    # Rows are what the optimiser uses.
    for step, state in seen.items():
        for row in sheets[step]:
            if row["quantity"] == MULTIPLIER:
                assert np.float32(row["value"]) == float(state[f"multiplier/{row['site']}"])
    assert {row["site"] for row in sheets[1]} == {
        n for n in matrices(ensemble.params) if n.startswith("blocks.")
    }


def test_scores_of_a_model_are_those_of_its_matrices_alone():
    generator = torch.Generator().manual_seed(0)
    own = {
        f"blocks.{b}.{n}": torch.randn(s, generator=generator) * 10.0**b
        for b in range(2)
        for n, s in (("attn.q", (16, 16)), ("mlp.fc", (48, 16)), ("mlp.proj", (16, 48)))
    }
    for name in ("alpha", "farms", "alpha-z", "farms-z", "depth"):
        together = weight_scores(name, own)
        assert list(together) == list(own)
        for matrix, value in together.items():
            alone = weight_scores(name, {matrix: own[matrix]})[matrix]
            assert value == pytest.approx(alone, rel=1e-9)
    assert weight_scores("alpha", {"blocks.0.attn.q": own["blocks.0.attn.q"]})[
        "blocks.0.attn.q"
    ] == pytest.approx(
        exponent(np.linalg.svd(own["blocks.0.attn.q"].double().numpy(), compute_uv=False) ** 2)
    )
    zero = {**own, "blocks.1.attn.q": torch.zeros(16, 16)}
    assert "blocks.1.attn.q" not in weight_scores("farms", zero)
    assert estimates("farms", zero)["blocks.1.attn.q"].reason == "it is all zero"
    assert math.isfinite(sum(weight_scores("farms", zero).values()))


def test_a_diverged_member_leaves_and_the_others_stay_exact():
    base = replace(BASE, stage="muon", rates=Rates("farms", every=2))
    configs = [replace(base, lr=2e38), replace(base, seed=1)]

    def last(chosen):
        states = {}
        for snapshot in train(Ensemble(chosen, controller=layerwise)):
            for k, config in enumerate(snapshot.configs):
                states[config.run_id] = snapshot.ensemble.state(k)
        return states[configs[1].run_id]

    assert same(last(configs), last(configs[1:]))


@pytest.mark.parametrize(
    "text",
    [
        "rates: farms\nrates.map: sigmoid",
        pytest.param("rates: {by: farms, map: sigmoid}", marks=SLOW),
        pytest.param("rates.by: farms\nrates.map: sigmoid", marks=SLOW),
    ],
)
def test_the_name_of_the_group_is_short_for_its_choice(text, tmp_path):
    wanted = Rates("farms", map="sigmoid")
    for words in (
        "--rates farms --rates.map sigmoid",
        "--rates=farms --rates.map=sigmoid",
        "--rates.by farms --rates.map sigmoid",
    ):
        assert cli.parse(["train", "small", *words.split()]).preset.run.rates == wanted
        lm = cli.parse(["train", "lm", "--data", ".", *words.split()]).preset
        assert lm.settings.rates == wanted
    file = tmp_path / "options.yaml"
    file.write_text(text)
    assert cli.parse(["train", "small", "--config", str(file)]).preset.run.rates == wanted
    assert cli.parse(["sweep", "small", "--config", str(file)]).preset.run.rates == wanted
    # What is typed wins over the file.
    typed = cli.parse(["train", "small", "--rates", "depth", "--config", str(file)]).preset.run.rates
    assert typed == replace(wanted, by="depth")
    assert "map: sigmoid" in str(config_text(replace(BASE, rates=wanted), MeasureConfig()))


def test_a_sweep_varies_the_rule():
    sweep = cli.parse(
        [
            "sweep",
            "small",
            "--stages",
            "muon",
            "--vary",
            "rates.by=uniform,farms,shuffled-farms",
            "--seeds",
            "0",
        ]
    )
    found = [config.rates.by for config in sweep.preset.grid().configs() if config.batch_size == 32]
    assert found == ["uniform", "farms", "shuffled-farms"]


class Counting(Controller):
    """Each choice takes a second of the clock of the test."""

    def __init__(self, rates, sizes, steps, clock):
        super().__init__(rates, sizes, steps)
        self.clock = clock

    def due(self, step):
        return step % self.rates.period(self.steps) == 0

    def choose(self, view):
        self.clock[0] += 1.0
        return {}


@pytest.mark.parametrize("every", [1, 2, 5])
def test_estimates_count_the_choices_of_rates(every, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    make = partial(Counting, clock=clock)
    monkeypatch.setattr("sims.sweep.estimate.layerwise", make)
    configs = [replace(BASE, rates=Rates("depth", every=every), seed=s) for s in range(2)]
    assert _seconds_a_step(configs, "cpu") == pytest.approx(2 / every)
    assert _seconds_a_step([BASE], "cpu") == 0

    trainable = SimpleNamespace(controllers=[make(configs[0].rates, {}, 100)])
    execution = SimpleNamespace(device=torch.device("cpu"), compile=False)

    def update():
        for controller in trainable.controllers:
            controller.choose(None)

    trainer: Any = SimpleNamespace(
        trainable=trainable, execution=execution, gradients=lambda: 0.0, update=update
    )
    assert profile(trainer, 3) == pytest.approx([1 / every] * 3)


class Other(ProcessGroup):
    """The first of two processes has these scores; nothing is computed here."""

    def from_first(self, make):
        return {"blocks.0.attn.q": 2.0, "blocks.1.attn.q": 4.0}


def test_processes_take_the_scores_of_the_first():
    sizes: dict[str, int] = {f"blocks.{b}.attn.q": 16 for b in range(2)}
    weights = {name: torch.randn(4, 4) for name in sizes}
    chooser = layerwise(Rates("alpha"), sizes, 10, Other(1, 2))
    view: Any = SimpleNamespace(weights=lambda: weights)
    assert chooser.choose(view) == {"blocks.0.attn.q": 0.5, "blocks.1.attn.q": 1.5}
    assert chooser.rated["blocks.1.attn.q"] == (1.5, 4.0)


def test_a_model_tells_the_rates_of_its_run():
    config = replace(BASE, rates=Rates("farms", low=0.2))
    assert TransformerSubject(config, {}, 0).about["rates"] == "by farms, low 0.2"
    assert "rates" not in TransformerSubject(BASE, {}, 0).about
