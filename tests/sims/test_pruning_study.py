"""`speclens prune`: three disjoint texts, results that are kept, a page, and models that other commands read."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from sims import cli
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import load
from sims.prune.prune import prunable
from sims.studies.pruning import measured
from sims.studies.pruning.answers import PruneAnswers, lead, statements
from sims.studies.pruning.models import Sizes, prune_models, split_texts, texts_of, toy_texts
from sims.studies.pruning.sections import ratio_table
from sims.system.errors import MeasureError, QueryError
from sims.text.shards import write_shard
from toymodel.sequences import Rows

SIZES = {
    "--model.d-model": "16",
    "--model.heads": "2",
    "--model.layers": "3",
    "--task.vocab": "64",
    "--task.length": "8",
    "--task.train": "400",
    "--task.val": "200",
    "--task.test": "16",
    "--steps": "6",
    "--eval-every": "3",
    "--eval-size": "32",
    "--measure.every": "6",
    "--measure.sequences": "64",
    "--measure.windows": "1 10",
    "--measure.bands": "31 20",
    "--measure.training-bands": "0",
    "--measure.probe-sequences": "320",
    "--measure.causal-sequences": "16",
    "--measure.gradient-sequences": "8",
    "--workers": "1",
}
SMALL = [word for name, value in SIZES.items() for word in (name, *value.split())]
FEW = ["--calibration", "16", "--selection", "16", "--test", "32"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, all_undrawn):
    out = tmp_path_factory.mktemp("pruning") / "runs"
    with all_undrawn():
        assert (
            cli.main(["train", "small", *SMALL, "--stage", "rope", "--seeds", "0", "1", "--out", str(out)])
            == 0
        )
    return out


def run_cli(capsys, *arguments):
    capsys.readouterr()
    try:
        code = cli.main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr()


def answer(capsys, *words):
    code, streams = run_cli(capsys, "prune", *map(str, words), "--json")
    assert code == 0, streams.err
    return json.loads(streams.out), streams.err


def test_the_command_compares_at_equal_zeros_and_measures_nothing_twice(
    trained, tmp_path, capsys, monkeypatch
):
    line = [trained, *FEW, "--out", tmp_path, "--sparsity", "0.5", "--method", "wanda", "magnitude"]
    line += [
        "--by",
        "alpha",
        "depth",
        "sensitivity",
        "shuffled-depth",
        "--shuffles",
        "3",
        "--epsilons",
        "0.1",
        "0.4",
    ]
    found, _ = answer(capsys, *line)
    table = pd.DataFrame(found["summary"])
    names = ["uniform", "alpha", "depth", "sensitivity", "shuffled-depth"]
    assert list(table["by"]) == 2 * names
    assert set(table["models"]) == {2}
    zeros = pd.read_csv(tmp_path / "page" / "matrices.csv")
    totals = zeros.groupby(["model", "method", "by", "draw"])["zeros"].sum()
    assert totals.nunique() == 1
    assert np.allclose(table["achieved"], 0.5, atol=1e-3)
    assert set(table.loc[table["by"] == "uniform", "verdict"]) == {""}
    assert set(table.loc[table["by"] != "uniform", "verdict"]) <= {"saves", "costs", "cannot be told"}
    assert [(r["by"], r["control"]) for r in found["shuffles"]] == 2 * [("depth", "shuffled-")]
    assert {r["by"] for r in found["correlations"]} == {"alpha", "depth"}
    assert Path(found["page"]).is_file()
    assert found["written"] == []
    # The same again is read, not measured; one more score is measured alone.
    monkeypatch.setattr(measured, "prune", lambda *_: pytest.fail("measured twice"))
    again, _ = answer(capsys, *line)
    assert again == found
    monkeypatch.undo()
    calls: list[str] = []
    kept = measured._One._measure
    monkeypatch.setattr(
        measured._One, "_measure", lambda self, cell: calls.append(cell.by) or kept(self, cell)
    )
    line[line.index("alpha")] = "reversed-depth"
    more, _ = answer(capsys, *line)
    assert set(calls) == {"reversed-depth"}
    assert [r for r in more["summary"] if r["by"] == "depth"] == [
        r for r in found["summary"] if r["by"] == "depth"
    ]


@pytest.mark.slow
def test_losses_are_those_of_the_models_that_are_written(trained, tmp_path, capsys, monkeypatch):
    run = sorted(p for p in trained.iterdir() if (p / "run.json").exists())[0]
    line = [run, *FEW, "--out", tmp_path, "--sparsity", "0.6", "--method", "sparsegpt", "--by", "depth"]
    found, _ = answer(capsys, *line, "--checkpoints")
    (model,) = prune_models([run], CheckpointOptions(), "cpu", [])
    texts = texts_of(model, model.load(), None, Sizes(16, 16, 32))
    assert len(found["written"]) == 2
    for path, row in zip(found["written"], found["summary"], strict=True):
        subject = load(path)
        assert float(subject.losses(texts.test).double().mean()) == pytest.approx(row["loss"], abs=1e-9)
        zeros = sum(int((subject.matrices[n] == 0).sum()) for n in prunable(subject))
        assert zeros / sum(subject.matrices[n].numel() for n in prunable(subject)) == pytest.approx(
            row["achieved"]
        )
        code, _ = run_cli(capsys, "inspect", path)
        assert code == 0
    assert found["summary"][1]["over"] == "sequences"
    # A file alone names its task, and is pruned further, but not to fewer zeros than it has.
    path = Path(found["written"][1])
    line_further = [path, *FEW, "--out", tmp_path, "--by", "depth", "--method", "magnitude", "--sparsity"]
    further, _ = answer(capsys, *line_further, "0.9")
    monkeypatch.setattr(measured, "prune", lambda *_: pytest.fail("worked before it refused"))
    code, streams = run_cli(capsys, "prune", *map(str, line_further), "0.85", "0.5")
    assert code == 2
    assert re.search(r"zeros already, and \d+ are asked for; .* raise the sparsity", streams.err)
    monkeypatch.undo()
    assert further["models"][0]["model"] == f"{path.parent.name}-{path.stem}"
    assert further["summary"][0]["achieved"] == pytest.approx(0.9, abs=1e-3)
    # Results without the models: these alone are made again, with the same bits.
    first = {path: load_file(path) for path in found["written"]}
    for path in first:
        Path(path).unlink()
    assert answer(capsys, *line, "--checkpoints")[0] == found
    # Another calibration gives other weights: they have a name of their own, and these stay.
    line[line.index("--calibration") + 1] = "8"
    other, _ = answer(capsys, *line, "--checkpoints")
    assert not set(other["written"]) & set(found["written"])
    texts = texts_of(model, model.load(), None, Sizes(8, 16, 32))
    for path, row in zip(other["written"], other["summary"], strict=True):
        assert float(load(path).losses(texts.test).double().mean()) == pytest.approx(row["loss"], abs=1e-9)
    for path, tensors in first.items():
        again = load_file(path)
        assert tensors.keys() == again.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_language_models_need_text_of_their_vocabulary(trained, tmp_path):
    (model, _) = prune_models([trained], CheckpointOptions(), "cpu", [])
    text, subject = replace(model, spec=None), model.load()
    with pytest.raises(MeasureError, match="name its token shards by --data"):
        texts_of(text, subject, None, Sizes())
    shards = tmp_path / "shards"
    shards.mkdir()
    for split in ("train", "val"):
        write_shard(shards / f"text_{split}_000000.bin", np.arange(2_000) % 60)
    with pytest.raises(MeasureError, match=r"has 50257 tokens and .* knows 64"):
        texts_of(text, subject, shards, Sizes())


def rows(n, start=0):
    return Rows(torch.arange(start, start + n)[:, None] * torch.ones(1, 3, dtype=torch.int64))


@pytest.mark.parametrize("one", [True, False])
def test_the_three_texts_are_disjoint_and_spread_over_all(one):
    held_out = rows(200)
    train = held_out if one else rows(200, 1_000)
    found = split_texts(train, held_out, Sizes(20, 30, 50), "here")
    parts = [set(t[:, 0].tolist()) for t in (found.calibration, found.selection, found.test)]
    assert list(map(len, parts)) == [20, 30, 50]
    assert not parts[1] & parts[2]
    assert not parts[0] & (parts[1] | parts[2])
    assert max(parts[2]) - min(parts[2]) > 150
    assert (min(parts[0]) >= 1_000) != one
    with pytest.raises(MeasureError, match=r"holds 200 sequences, and 3\d\d are asked for"):
        split_texts(train, held_out, Sizes(20, 30, 300), "here")


def test_toys_repeat_sequences_and_no_text_does():
    draw = np.random.default_rng(0)
    # Of 4⁴ = 256 sequences; those of calibration are frequent in the validation part.
    train, val = (draw.integers(4, size=(n, 4)).astype(np.int16) for n in (60, 500))
    found = toy_texts(train, np.concatenate([train, val, val]), Sizes(20, 30, 50), "here")
    parts = [{tuple(row) for row in own.tolist()} for own in (found.calibration, found.selection, found.test)]
    assert list(map(len, parts)) == [20, 30, 50]
    assert len(set.union(*parts)) == 100
    assert parts[0] <= {tuple(row) for row in train.tolist()}
    with pytest.raises(MeasureError, match="here, each sequence counted once, holds 1 sequences, and 80"):
        toy_texts(train, val[[0] * 100], Sizes(20, 30, 50), "here")


def test_runs_without_their_last_weights_are_left_out(trained, tmp_path, capsys):
    import shutil

    copied = shutil.copytree(trained, tmp_path / "runs")
    first, second = sorted(p for p in copied.iterdir() if (p / "run.json").exists())
    sorted((first / "checkpoints").iterdir())[-1].unlink()
    notes: list[str] = []
    assert [m.name for m in prune_models([copied], CheckpointOptions(), "cpu", notes)] == [second.name]
    assert first.name in notes[0]
    with pytest.raises(MeasureError, match="cannot be pruned: "):
        list(prune_models([first], CheckpointOptions(), "cpu", []))
    with pytest.raises(MeasureError, match="two models are named"):
        list(prune_models([second, second], CheckpointOptions(), "cpu", []))


def data_of(deltas, models=3):
    rng = np.random.default_rng(1)
    parts: dict[str, list[dict[str, object]]] = {name: [] for name in measured.TABLES}
    for m in range(models):
        base = rng.normal(2, 0.3, 20)
        drawn = [(by, d, draw) for by, own in deltas.items() for draw, d in enumerate(np.atleast_1d(own))]
        for by, delta, draw in [("uniform", 0.0, 0), *drawn]:
            label = {"model": f"m{m}", "method": "wanda", "sparsity": 0.5, "unit": "block"}
            label |= {"by": by, "draw": draw}
            parts["losses"] += [{**label, "sequence": i, "loss": v + delta} for i, v in enumerate(base)]
            for i in range(20):
                parts["losses"][-1 - i]["loss"] = float(base[19 - i] + delta + 0.01 * rng.normal())
            parts["chosen"].append({**label, "epsilon": 0.1, "achieved": 0.5})
            for block, zeros in (("blocks.0", 40), ("blocks.1", 60)):
                parts["matrices"].append(
                    {
                        **label,
                        "matrix": f"{block}.attn.q",
                        "block": block,
                        "rows": 10,
                        "columns": 10,
                        # Shuffles have others.
                        "zeros": zeros + (draw + 1) * ("shuffled" in by),
                    }
                )
    frames = {name: pd.DataFrame(own) for name, own in parts.items()}
    setting = measured.Setting(("wanda",), (0.5,), tuple(deltas))
    return measured.PruneData(setting, frames, {f"m{m}": 2.0 for m in range(models)})


def test_the_verdict_in_a_sentence():
    answers = PruneAnswers(data_of({"depth": -0.2, "farms": 0.2, "alpha": 0.0}))
    told = lead(answers)
    assert (
        "save over uniform ones in 1 of 3 comparisons, by depth (shuffles not run); most by depth (wanda 0.5: -0."
        in told
    )
    assert "Ratios by farms cost in some" in told
    assert [s.decided for s in statements(answers)] == [True, True, False]
    assert told.endswith("1 of 3 comparisons cannot be told. Ratios by farms cost in some.")
    open_ = lead(PruneAnswers(data_of({"alpha": 0.0, "farms": 0.2})))
    assert open_.startswith("In none of 2 comparisons is it shown")
    assert "1 of 2 comparisons cannot be told" in open_
    assert "cannot be told" not in lead(PruneAnswers(data_of({"farms": 0.2})))
    assert "name scores" in lead(PruneAnswers(data_of({})))
    ratios = ratio_table(answers.data.tables["matrices"])
    assert ratios.loc[ratios["by"] == "depth", "ratio"].tolist() == pytest.approx([0.4, 0.6])


@pytest.mark.parametrize(
    ("shuffled", "credit"),
    [
        (None, "shuffles not run"),
        ([-0.1, 0.0, 0.1], "better than its 3 shuffles"),
        ([-0.4, -0.3, 0.1], "no better than 2 of its 3 shuffles"),
    ],
)
def test_what_saves_is_told_beside_its_shuffles(shuffled, credit):
    controls = {} if shuffled is None else {"shuffled-depth": shuffled}
    answers = PruneAnswers(data_of({"depth": -0.2, "reversed-depth": -0.3, **controls}))
    told = lead(answers)
    assert f"in 1 of 1 comparison, by depth ({credit}); most by depth" in told
    assert "Of the controls reversed-depth" in told
    found = [s.text for s in statements(answers)]
    assert f" nats, {credit})" in found[0]
    assert "shuffles" not in found[1]
    assert found[1].startswith("Ratios by reversed-depth (a control)")
    assert "name scores" in lead(PruneAnswers(data_of({"reversed-depth": -0.3})))


def test_beyond_depth_is_told_beside_shuffles_at_equal_depth():
    drawn = {"shuffled-farms": [0.1, 0.2], "depth-shuffled-farms": [-0.4, 0.0]}
    told = statements(PruneAnswers(data_of({"farms": -0.2, **drawn})))
    assert "better than its 2 shuffles, no better than 1 of its 2 shuffles at equal depth)" in told[0].text
    assert told[2].text.startswith("Ratios by depth-shuffled-farms (a control)")


def test_shuffles_that_are_the_score_itself_are_no_control():
    data = data_of({"farms": -0.2, "depth-shuffled-farms": [-0.2, -0.2]})
    told = PruneAnswers(data)
    assert told.shuffles["distinct"].tolist() == [2]
    own = data.tables["matrices"]
    for block, zeros in (("blocks.0", 40), ("blocks.1", 60)):
        own.loc[own["block"] == block, "zeros"] = zeros
    answers = PruneAnswers(data)
    assert answers.shuffles["distinct"].tolist() == [0]
    assert "one order only at equal depth: no control)" in statements(answers)[0].text
    # A single model with another order makes it a control.
    moved = (own["model"] == "m1") & (own["by"] == "depth-shuffled-farms") & (own["draw"] == 1)
    own.loc[moved & (own["block"] == "blocks.0"), "zeros"] = 60
    assert PruneAnswers(data).shuffles["distinct"].tolist() == [2]


def test_farms_is_compared_with_plain_exponents():
    answers = PruneAnswers(data_of({"alpha": -0.1, "farms": -0.3, "alpha-z": 0.0}))
    (row,) = answers.against_plain.to_dict("records")
    assert (row["by"], row["against"], row["verdict"]) == ("farms", "alpha", "saves")
    assert row["delta"] == pytest.approx(-0.2, abs=0.02)
    assert PruneAnswers(data_of({"farms": -0.3})).against_plain.empty


def test_the_slots_of_one_ratio_a_matrix(trained, tmp_path, capsys):
    line = [trained, *FEW, "--out", tmp_path, "--unit", "matrix", "--sparsity", "0.6", "--epsilons", "0.2"]
    line += ["--method", "magnitude", "--by", "alpha", "farms", "depth-shuffled-farms", "--shuffles", "2"]
    found, _ = answer(capsys, *line)
    assert [(r["by"], r["part"]) for r in found["slots"]] == [
        (by, part) for by in ("alpha", "farms") for part in ("slots", "blocks")
    ]
    assert all(0 < r["noise_low"] <= r["noise"] <= r["noise_high"] < 1 for r in found["slots"])
    assert [r["control"] for r in found["shuffles"]] == ["depth-shuffled-"]
    assert [r["against"] for r in found["against_plain"]] == ["alpha"]
    page = Path(found["page"]).read_text("utf-8")
    assert "Do exponents differ between kinds of matrices" in page
    assert "one ratio a matrix" in page


def test_an_allocation_that_comes_again_is_not_measured_again(trained, tmp_path, capsys, monkeypatch):
    calls: list[tuple[int, ...]] = []
    kept = measured.prune
    monkeypatch.setattr(
        measured,
        "prune",
        lambda s, counts, *more: calls.append(tuple(counts.values())) or kept(s, counts, *more),
    )
    run = sorted(p for p in trained.iterdir() if (p / "run.json").exists())[0]
    line = [run, *FEW, "--out", tmp_path, "--sparsity", "0.5", "--method", "magnitude", "--shuffles", "12"]
    found, _ = answer(capsys, *line, "--by", "depth", "shuffled-depth")
    # Three blocks have six orders, each with three spreads; one pruning more where the chosen one was not kept.
    assert len(set(calls)) <= 1 + 3 * 6
    assert len(calls) <= len(set(calls)) + 12
    assert len(found["models"]) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sparsity", "1"], "--sparsity has 1"),
        (["--sparsity", "0"], "--sparsity has 0"),
        (["--epsilons", "0"], "--epsilons has 0"),
        (["--test", "1"], "--test is 1"),
        (["--shuffles", "0"], "--shuffles is 0"),
        (["--by", "luck"], "no score 'luck'"),
        (["--by", "uniform"], "--by is uniform, which the others are compared with"),
        (["--by", "farms", "farms"], "--by is farms farms; name every value once"),
        (["--sparsity", "0.5", "0.5"], "--sparsity is 0.5 0.5; name every value once"),
        (["--by", "depth-shuffled-depth"], "no score 'depth-shuffled-depth'"),
    ],
)
def test_refusals_before_any_work(tmp_path, capsys, words, told):
    code, streams = run_cli(capsys, "prune", str(tmp_path), "--out", str(tmp_path / "out"), *words)
    assert code == 2
    assert told in streams.err
    assert not (tmp_path / "out").exists()


def test_no_models_are_refused():
    from sims.commands.prune import Prune

    with pytest.raises(QueryError, match="no models are named"):
        Prune(())
