"""Questions to trained models: what is looked at in a checkpoint, and the command on tiny runs."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from sims import cli
from sims.measure.band_states import Probe
from sims.models.transformer import TransformerSubject
from sims.runs.store import run_folders
from sims.studies.theory import checkpoint_probes as looks
from sims.studies.theory import checkpoint_tables
from sims.studies.theory.checkpoint_tables import gather
from sims.studies.theory.verification import run_against
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from theory.formulas import fourier
from toymodel import Ensemble, RunConfig, TaskConfig, make_dataset, probe_split
from toymodel.config import ModelConfig

TASK = TaskConfig(vocab=32, length=6, train=300, val=32, test=16)
CONFIG = RunConfig(task=TASK, model=ModelConfig(d_model=16, heads=2, layers=1), batch_size=8, eval_size=32)


def subject(stage="untied", **replaced):
    config = RunConfig(**{**CONFIG.__dict__, "stage": stage})
    weights = Ensemble([config]).weights(0)
    return TransformerSubject.of_weights(config, {**weights, **replaced}, 0)


def probe_of(c=23, o=3):
    split = probe_split(TASK, c, o, 400)
    return Probe(split, 0.0, torch.tensor(split.tokens))


class Certain(TransformerSubject):
    """Its final states are one-hot in the next token, its head the identity: it knows the rule."""

    @property
    def head(self):
        return 50 * torch.eye(TASK.vocab)


def test_amplitudes_of_a_model_that_knows_the_rule_and_of_one_that_knows_nothing():
    probe = probe_of()
    knows = torch.nn.functional.one_hot(probe.tokens[:, -1].long(), TASK.vocab).float()
    certain = Certain(CONFIG, {}, 0)
    assert [r["amplitude"] for r in looks.mode_amplitudes(certain, probe, knows, None)] == pytest.approx(
        [1] * 11
    )
    # One step beyond the right answer turns mode r by 2πr/c.
    ahead = (probe.tokens[:, -1].long() - 3 + 1) % 23 + 3
    turned = looks.mode_amplitudes(
        certain, probe, torch.nn.functional.one_hot(ahead, TASK.vocab).float(), None
    )
    assert [r["amplitude"] for r in turned] == pytest.approx(
        [math.cos(2 * math.pi * r / 23) for r in range(1, 12)]
    )
    flat = looks.mode_amplitudes(certain, probe, torch.zeros(400, TASK.vocab), None)
    assert max(abs(r["amplitude"]) for r in flat) < 1e-12


def test_amplitudes_are_those_of_bounded_logits():
    probe = probe_of()
    head = 40 * torch.randn(TASK.vocab, 16, generator=torch.Generator().manual_seed(0))
    bounded = subject("value_mix", head=head)
    tokens = probe.tokens.long()
    hidden = bounded.transformer.hidden(bounded.params, tokens[None, :, :-1])
    logits = bounded.transformer.logits(bounded.params, hidden)[0, :, -1].double()
    assert logits.abs().max() <= 30 < (hidden[0, :, -1] @ head.T).abs().max()
    p = torch.softmax(logits, dim=-1).numpy()
    turns = np.subtract.outer(np.arange(TASK.vocab), tokens[:, -1].numpy()).T
    inside = (np.arange(TASK.vocab) >= 3) & (np.arange(TASK.vocab) < 3 + 23)
    oracle = [(p * np.cos(2 * np.pi * r * turns / 23))[:, inside].sum(axis=1).mean() for r in range(1, 12)]
    found = looks.mode_amplitudes(bounded, probe, hidden[0, :, -1], None)
    assert [r["amplitude"] for r in found] == pytest.approx(oracle, rel=1e-4, abs=1e-6)


def test_head_bounds_of_known_states():
    probe = probe_of()
    states = np.asarray(probe.split.states[:, -1])
    angle = 2 * np.pi * states / 23
    h = torch.tensor(np.stack([np.cos(angle), np.sin(angle), np.cos(9 * angle), np.sin(9 * angle)], axis=1))
    found = {r["set"]: r for r in looks.head_bounds(probe, h)}
    assert found["task"]["h_s"] == pytest.approx(0.5)
    assert found["task"]["head"] == pytest.approx(1.0)
    assert found["top3"]["h_s"] == pytest.approx(1.0)
    # No spread within a state: the total covariance is that of the means, and the entropy is attained.
    assert found["top3"]["bound"] == pytest.approx(found["top3"]["total_head"]) == pytest.approx(1.0)
    assert found["task"]["rankme"] == pytest.approx(found["task"]["entropy"]) == pytest.approx(4.0)
    assert looks.head_bounds(probe, torch.ones(400, 4)) == []


def test_positions_of_an_untrained_model_do_not_differ():
    found = looks.positions(subject("rope"), probe_of())
    assert [r["position"] for r in found] == [0, 1, 2, 3, 5]
    # The blocks add nothing yet: a state is its token, so every position sees the same class means.
    assert {round(r["by_state"], 6) for r in found} == {round(r["given_step"], 6) for r in found}
    assert len({round(r["by_state"], 6) for r in found}) == 1
    assert looks.positions(subject("rope"), probe_of(21, 3)) == []


def test_class_means_of_a_model_that_knows_the_rule_have_the_kernel_of_all_steps(monkeypatch):
    # A state that is one-hot in the next token has equal energies at a fixed step, and the kernel of T11 by state.
    def one_hot(_, tokens):
        return torch.nn.functional.one_hot(tokens[:, 1:].long(), TASK.vocab).float()

    monkeypatch.setattr(looks, "final_states", one_hot)
    found = looks.positions(subject("baseline", embed=50 * torch.eye(32)), probe_of(31, 1))
    kernel = fourier.power_within(fourier.bigram_modulus(31, 3), 7)
    for row in found:
        assert row["given_step"] == pytest.approx(14 / 30)
        assert row["by_state"] == pytest.approx(kernel, abs=1e-6)


def test_positions_have_the_steps_of_the_task(monkeypatch):
    task = TaskConfig(vocab=32, length=6, train=300, val=32, test=16, step_fraction=0.5)
    steps = []

    def noted(_, tokens):
        steps.append(int((tokens[0, 1] - tokens[0, 0]) % 31))
        return torch.nn.functional.one_hot(tokens[:, :-1].long(), TASK.vocab).float()

    monkeypatch.setattr(looks, "final_states", noted)
    own = replace(subject("baseline", embed=torch.eye(32)), config=replace(CONFIG, task=task))
    looks.positions(own, probe_of(31, 1))
    assert steps == list(range(15, 31))


def test_start_and_direct_path():
    data = make_dataset(TASK)
    sequences = torch.tensor(data.val.tokens)
    zero = looks.start(subject(), sequences)
    assert zero["loss"] == pytest.approx(math.log(32), abs=1e-6)
    assert zero["moved"] == "head"
    tied = looks.start(subject("baseline"), sequences)
    assert "embed" in tied["moved"].split()
    assert tied["loss"] > 3 * math.log(32)
    counted = looks.bigram(data, 32)
    assert set(np.round(counted.sum(axis=1), 9)) <= {0.0, 1.0}
    assert looks.direct_path(subject("muon"), counted)["asymmetry"] < 1e-12
    # A head that reads the bigram table off one-hot embeddings follows it, its transpose runs against it.
    ones = {"embed": torch.eye(32)}
    for odd, sign in ((counted, 1.0), (counted.T, -1.0)):
        free = subject(head=torch.tensor(odd.T.copy()), **ones)
        assert looks.direct_path(free, counted)["follows"] == pytest.approx(sign)


def test_the_scatter_of_the_tied_loss_is_that_of_random_embeddings():
    # Walks to and fro: w_x·w_y is in the logits of both.
    tokens = torch.tensor([[3, 7, 3, 7, 3, 7, 3], [5, 9, 5, 9, 5, 9, 5]])
    found = looks.start(subject("baseline"), tokens)["scatter"]
    pairs = [(3, 7), (7, 3), (5, 9), (9, 5)]
    drawn = []
    for w in np.random.default_rng(0).standard_normal((4000, 32, 16)):
        state = w / np.sqrt((w**2).mean(axis=1, keepdims=True))
        drawn.append(np.mean([state[x] @ (w[x] - w[y]) for x, y in pairs]))
    assert found == pytest.approx(np.std(drawn), rel=0.05)


# --- the command -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_end_to_end(tmp_path, tiny_run, tiny_measure, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    runs = tmp_path / "runs"
    measuring = tiny_measure(bands=((17, 5),), training_bands=0)
    for stage in ("rope", "muon", "untied"):
        run_group([tiny_run(stage=stage, seed=s) for s in (0, 1)], measuring, runs)
    page = tmp_path / "page"
    assert cli.main(["theory", "--against", str(runs), "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    for claim in ("T2.head", "T2.total", "T3", "T5", "T6", "T7", "T8", "T9", "T10", "T11", "T12"):
        assert claim in printed
    html = (page / "theory-against.html").read_text()
    assert html.count("<svg") >= 6
    assert not re.search(r"<script|<link|<img|src=", html)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    # Inequalities and identities do not need training to be long.
    assert run_against(runs, ("T2", "T10.zero"), None, False) == 0
    narrowed = capsys.readouterr().out
    assert "T12" not in narrowed
    assert narrowed.count("holds") >= 5
    # A run without checkpoints still answers from its rows.
    for file in runs.glob("*/checkpoints/*"):
        file.unlink()
    assert cli.main(["theory", "--against", str(runs), "--out", str(page)]) == 0
    assert "no checkpoints" in capsys.readouterr().out


@pytest.mark.parametrize("names", ["T99", "T4", "T8 T99"])
def test_a_claim_that_asks_nothing_of_runs_is_named_before_any_work(tmp_path, capsys, monkeypatch, names):
    monkeypatch.setattr("sims.studies.theory.checkpoint_tables.gather", None)
    assert run_against(tmp_path, tuple(names.split()), None, False) == 2
    assert f"no question about {names.split()[-1]}; there are T2.head, " in capsys.readouterr().err


def test_bad_input_ends_with_status_2(tmp_path, tiny_run, tiny_measure, capsys):
    assert cli.main(["theory", "--against", str(tmp_path)]) == 2
    assert "no complete run" in capsys.readouterr().err
    run_group([tiny_run(steps=3)], tiny_measure(every=3), tmp_path)
    checkpoint = run_folders(tmp_path)[0].checkpoints()[0]
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert cli.main(["theory", "--against", str(tmp_path), "--out", str(tmp_path / "x.html")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert json.loads((run_folders(tmp_path)[0].path / "done.json").read_text())


def test_every_state_of_a_band_has_a_class_mean(monkeypatch, tiny_measure):
    # The bands that training contains may be wider than those that are named, for which sequences are counted.
    monkeypatch.setattr(checkpoint_tables, "PROBE_SEQUENCES", 40)
    bands = {"bands": (), "training_bands": 1, "training_band_min": 25}
    (probe,) = checkpoint_tables._Probes().data(CONFIG, tiny_measure(**bands, sequences=32)).probes
    assert set(probe.split.states[:, -1].tolist()) == set(range(probe.split.modulus))


def test_a_cell_stands_at_its_best_learning_rate_with_one_run_a_seed(tmp_path, tiny_run, tiny_measure):
    """Runs of two rates were read as one curve, and their exponents as one at each loss."""
    runs = [tiny_run(steps=3, seed=s, lr=lr) for s in (0, 1) for lr in (1e-3, 1e-5)]
    run_group(runs, tiny_measure(every=3), tmp_path)
    found = gather(tmp_path, Console(quiet=True))
    assert len(found.runs.runs) == 2
    assert found.runs.runs["lr"].nunique() == 1
    assert set(found.start["run_id"]) == set(found.runs.runs["run_id"])
    assert found.notes[0].startswith("2 of 4 runs at other learning rates are left out")
    other = replace(runs[0], task=replace(runs[0].task, seed=9), lr=float(found.runs.runs["lr"].iloc[0]))
    run_group([other], tiny_measure(every=3), tmp_path)
    with pytest.raises(MeasureError, match=r"has 2 runs of seed 0 .*; keep one of them in"):
        gather(tmp_path, Console(quiet=True))
