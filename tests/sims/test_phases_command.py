"""The study of phases of the geometry: the command on tiny runs and checkpoints, and what it refuses."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted_phases import BASE, GATHERS, WEC, of, outcomes, planted
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.analysis.runs import Runs
from sims.runs.layout import WRITER
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.store import RunFolder, run_folders
from sims.studies.claims import NOT_SHOWN, OPEN, SHOWN, VERDICTS, claim_table
from sims.studies.phases.answers import PhaseAnswers
from sims.studies.phases.measured import PhaseData, phase_data
from sims.studies.phases.published import claims
from sims.studies.phases.settings import LANGUAGE, null_texts, setting_of
from sims.studies.phases.sources import StateOptions, checkpoint_metadata, measured_folders
from sims.studies.phases.study import PAGE
from sims.studies.study import sections
from sims.system.errors import MeasureError
from sims.text.shards import write_shard
from sims.training.toy_runner import run_group
from toymodel.config import ModelConfig


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Tiny runs of two widths with a look at each of twelve steps."""
    out = tmp_path_factory.mktemp("phases") / "runs"
    measure = replace(MEASURE, every=12, geometry=True, gradient_sequences=0, bands=(), training_bands=0,
                      causal_sequences=0, schedules=("activations=1",))  # fmt: skip
    for width in (16, 24):
        for seed in range(3):
            config = replace(RUN, model=ModelConfig(width, 2, 1), seed=seed)
            assert not run_group([config], measure, out)
    return out


def run_cli(capsys, *arguments):
    code = cli.main(list(arguments))
    return code, capsys.readouterr()


@pytest.mark.slow
def test_the_command_on_runs_that_are_there(trained, tmp_path, capsys, undrawn):
    code, streams = run_cli(capsys, "phases", str(trained), "--out", str(tmp_path / "page"))
    assert code == 0
    assert "what limits it" in streams.out
    assert "verdict" in streams.out
    assert (tmp_path / "page" / "index.html").exists()
    words = pd.read_csv(tmp_path / "page" / "words.csv")
    assert len(words) == 2 * 3 + 2
    # The wider one has as many directions as there are tokens.
    assert set(words["stage"]) == {"untied, d 16", "untied, d 24"}
    found = pd.read_csv(tmp_path / "page" / "claims.csv")
    assert set(found["outcome"]) <= set(VERDICTS)
    assert set(found.loc[found["claim"].str.startswith("Null runs"), "runs"]) == {"untied, d 24"}


def test_every_claim_names_its_null(trained):
    table = claim_table(claims(PhaseAnswers(phase_data(run_folders(trained), "here"), draws=39)))
    assert not table.isna().any().any()
    assert (table[["published", "against", "here", "reason"]] != "").all().all()
    assert set(table["outcome"]) <= set(VERDICTS)


def test_runs_of_one_set_that_differ_are_refused_and_others_are_left_out(trained, tmp_path):
    folders = run_folders(trained)
    again = phase_data([*folders, RunFolder(folders[0].path)], "here")
    assert "the same run as" in again.notes[0]
    assert len(again.runs.runs) == 6
    measure = replace(MEASURE, every=12, gradient_sequences=0, bands=(), training_bands=0, causal_sequences=0)
    plain = replace(RUN, model=ModelConfig(16, 2, 1), seed=5)
    assert not run_group([plain], measure, tmp_path / "plain")
    with pytest.raises(MeasureError, match="measured differently"):
        phase_data([*folders, *run_folders(tmp_path / "plain")], "here")
    other = replace(RUN, model=ModelConfig(16, 2, 1), seed=6, weight_decay=0.5)
    assert not run_group(
        [other], replace(measure, geometry=True, schedules=("activations=1",)), tmp_path / "other"
    )
    with pytest.raises(MeasureError, match="differ in weight_decay"):
        phase_data([*folders, *run_folders(tmp_path / "other")], "here")


def test_null_texts_are_told_by_the_digests_of_their_shards(tmp_path):
    text, null = tmp_path / "text", tmp_path / "null"
    for folder, record in ((text, {}), (null, {"null": {"kind": "shuffled", "seed": 0}})):
        folder.mkdir()
        (folder / "data.json").write_text(json.dumps({"shards": [{"sha256": folder.name}], **record}))
    texts = null_texts([text, null])
    settings = {}
    for seed, name in enumerate(("text", "null", "other")):
        folder = RunFolder(tmp_path / f"run-{seed}")
        config = LmConfig(
            "tiny", "rope", 257, 16, 4, 100, warmup=0.1, warmdown=0.2, data=name, logit_bias=name == "text"
        )
        folder.start(config, LmMeasureConfig(tokens=64, length=16, batch=16), {"shards": [{"sha256": name}]})
        settings[name] = setting_of(folder, texts)
    assert settings["null"].null == "shuffled text"
    assert settings["text"].null == settings["other"].null == ""
    assert settings["null"].is_null
    own = settings["text"]
    assert (own.kind, own.layers, own.width, own.vocabulary) == (LANGUAGE, 4, 64, 257)
    assert (own.warmup, own.warmdown, own.bias, own.states) == (10, 20, True, 64)
    with pytest.raises(MeasureError, match=r"has no data\.json"):
        null_texts([tmp_path])


def test_sets_that_differ_in_one_setting_differ_in_nothing_else(tmp_path):
    def rest(config, measure):
        folder = RunFolder(tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        folder.start(config, measure, {})
        return setting_of(folder)

    text = LmConfig("tiny", "rope", 257, 16, 4, 100, warmup=0.1, warmdown=0.0, data="x")
    measure = LmMeasureConfig(tokens=64, length=16, batch=16)
    own = rest(text, measure)
    # What is told by another setting, or says nothing of the training.
    for change in ({"tier": "narrow8"}, {"warmup": 0.0}, {"logit_bias": True}, {"seed": 3}, {"eval_every": 7},
                   {"checkpoints": (0.0, 1.0)}, {"steps": 200}):  # fmt: skip
        assert rest(replace(text, **change), measure).rest == own.rest, change
    for change in ({"weight_decay": 0.5}, {"length": 32}, {"precision": "float32"}, {"newton_schulz": "exact"},
                   {"target_loss": 3.0}):  # fmt: skip
        assert rest(replace(text, **change), measure).rest != own.rest, change
    toy = rest(RUN, MEASURE)
    assert (
        rest(replace(RUN, model=replace(RUN.model, d_model=4 * RUN.model.d_model)), MEASURE).rest == toy.rest
    )
    for change in ({"beta2": 0.98}, {"clip": 1.0}, {"model": replace(RUN.model, mlp_ratio=3)},
                   {"task": replace(RUN.task, length=RUN.task.length + 1)}):  # fmt: skip
        assert rest(replace(RUN, **change), MEASURE).rest != toy.rest, change
    wide = rest(replace(text, tier="narrow8", weight_decay=0.5), measure)
    settings = {"a": own, "b": wide, "c": rest(replace(text, tier="narrow16"), measure)}
    empty = Runs(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), ())
    assert PhaseData(empty, settings, {}).alike("width") == [["c", "a"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-here"], "nothing-here"),
        (["runs", "--length", "64"], "only for checkpoints"),
        (["runs", "--data", "x", "--length", "1"], "--length is 1"),
        (["runs", "--data", "x", "--sequences", "2"], "--sequences is 2"),
        (["runs", "--data", "x", "--tokens-per-step", "0"], "--tokens-per-step is 0"),
    ],
)
def test_what_the_command_refuses(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, streams = run_cli(capsys, "phases", *arguments)
    assert code == 2
    assert message in streams.err
    assert not list(tmp_path.rglob("index.html"))


def checkpoints_of(folder, config, model, steps):
    """Store a model at some steps, moved between them."""
    torch.manual_seed(0)
    for step in steps:
        model.save_pretrained(folder / step)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter += 0.05 * torch.outer(
                        torch.randn(len(parameter)), torch.randn(parameter.shape[1])
                    )


@pytest.mark.slow
def test_folders_of_public_checkpoints_on_a_text(tmp_path, capsys, undrawn):
    transformers = pytest.importorskip("transformers")
    shards = tmp_path / "shards"
    shards.mkdir()
    generator = np.random.default_rng(0)
    for split in ("train_000001", "val_000000"):
        write_shard(shards / f"text_{split}.bin", generator.integers(0, 64, 3_000))
    (shards / "data.json").write_text(json.dumps({"tokenizer": {"vocabulary": 64}}))
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 32, "max_position_embeddings": 32}  # fmt: skip
    torch.manual_seed(0)
    pythia = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes))
    # Steps in no order: they are put into theirs.
    checkpoints_of(
        tmp_path / "pythia-seed2", None, pythia, [f"step{n}" for n in (0, 16, 1, 2, 4, 8, 32, 64, 128, 256)]
    )
    olmo = transformers.OlmoForCausalLM(transformers.OlmoConfig(**sizes, pad_token_id=0))
    checkpoints_of(tmp_path / "olmo", None, olmo, [f"step{1000 * n}-tokens{4 * n}B" for n in (1, 2, 5)])
    names = [str(tmp_path / name) for name in ("pythia-seed2", "olmo")]
    line = (
        "phases",
        *names,
        "--data",
        str(shards),
        "--length",
        "16",
        "--out",
        str(tmp_path / "page"),
        "--json",
    )
    code, streams = run_cli(capsys, *line)
    assert code == 0, streams.err
    found = json.loads(streams.out)
    folders = {f.path.name: f for f in run_folders(tmp_path / "page" / "checkpoints")}
    assert set(folders) == {"pythia-seed2", "olmo"}
    assert folders["pythia-seed2"].spec.seed == 2
    steps = folders["pythia-seed2"].rows().query("quantity == 'rankme' and site == 'final'")["step"]
    assert list(steps) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert any("Tokens of pythia-seed2 are steps" in note for note in found["notes"])
    tokens = folders["olmo"].rows().query("quantity == 'rankme' and site == 'final'")["tokens"]
    assert list(tokens) == [4e9, 8e9, 20e9]
    words = {w["set"]: w for w in found["words"] if w["of"] == "seeds"}
    # Nine looks are labelled, three are too few.
    assert words["pythia"]["status"] != "not fitted"
    assert words["olmo"]["status"] == "not fitted"
    # A second call reads what was measured.
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "page" / "checkpoints").rglob("*.parquet")}
    options = StateOptions(shards, length=16)
    measured_folders([tmp_path / "pythia-seed2", tmp_path / "olmo"], tmp_path / "page", options)
    assert kept == {p: p.stat().st_mtime_ns for p in (tmp_path / "page" / "checkpoints").rglob("*.parquet")}
    code, streams = run_cli(capsys, "phases", names[0])
    assert code == 2
    assert "whose states need a text" in streams.err
    # Another training run in a folder of one name is refused, before the first is measured.
    shutil.copytree(
        tmp_path / "olmo" / "step1000-tokens4B", tmp_path / "other" / "olmo" / "step1000-tokens4B"
    )
    shutil.copytree(tmp_path / "olmo", tmp_path / "olmo-base")
    with pytest.raises(MeasureError, match="have one name"):
        measured_folders(
            [tmp_path / name for name in ("olmo-base", "olmo", "other/olmo")], tmp_path / "new", options
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "stage", "seed"),
    [
        ("pythia-70m", "pythia-70m", None),
        ("pythia-70m-seed3", "pythia-70m", 3),
        ("pythia-70m_seed_12", "pythia-70m", 12),
        ("pythia-70m-deduped-seed1", "pythia-70m-deduped", 1),
        # Another model in the name of which a seed stands.
        ("pythia-seed2-v0", "pythia-seed2-v0", None),
    ],
)
def test_names_of_folders_tell_sets_and_seeds(name, stage, seed):
    found = checkpoint_metadata(name, "Hugging Face gpt_neox")
    assert (found.name, found.stage, found.seed) == (name, stage, seed)
    # Checkpoints of this package know their stage.
    assert checkpoint_metadata(name, WRITER).stage is None


@pytest.mark.slow
def test_what_carries_a_phase_is_told_from_spectra_and_n_grams(trained):
    answers = planted({"rope": (BASE, WEC, {}, GATHERS)})
    own = outcomes(answers)
    assert of(own, "Long n-grams are memorised in E") == of(own, "One group of ranks adds more to E") == OPEN
    # Frequencies are learned at the least RankMe, pairs later, long contexts in E.
    peaks = {"1-gram": 4, "2-gram": 8, "3-gram": 9, "5-gram": 10, "∞-gram": 10}
    rows = answers.data.runs.rows
    mean = rows[rows["quantity"] == "mean_share"]
    parts = [rows]
    for law, top in peaks.items():
        at = mean["step"].to_numpy() - 1
        value = 0.9 - 0.02 * np.abs(at - top) + 0.001 * np.random.default_rng(top).standard_normal(len(at))
        parts.append(mean.assign(quantity="ngram_correlation", object="ngram", detail=law, value=value))
    runs = replace(answers.data.runs, rows=pd.concat(parts, ignore_index=True))
    answers = PhaseAnswers(replace(answers.data, runs=runs), draws=39)
    own = outcomes(answers)
    assert of(own, "Long n-grams are memorised in E") == SHOWN
    assert of(own, "W ends when frequencies of tokens are learned") == SHOWN
    assert of(own, "Pairs of tokens are learned after") == SHOWN
    assert of(own, "E ends when long n-grams are memorised") == NOT_SHOWN
    (section,) = [s for s in sections(PAGE, answers) if s.name == "memorisation"]
    assert section.table is not None
    # Long contexts that are still being learned at the end have no peak, and that is the reason.
    rising = runs.rows["detail"] == "∞-gram"
    rows = runs.rows.assign(value=runs.rows["value"].where(~rising, runs.rows["step"] / 100))
    answers = PhaseAnswers(replace(answers.data, runs=replace(runs, rows=rows)), draws=39)
    (claim,) = [c for c in claims(answers) if c.claim.startswith("E ends when long n-grams")]
    assert claim.outcome == OPEN
    assert "still rising" in claim.reason
    assert [row[1] for row in section.table.rows] == list(peaks)
    answers = PhaseAnswers(phase_data(run_folders(trained), "here"), draws=39)
    (section,) = [s for s in sections(PAGE, answers) if s.name == "ranks"]
    last = section.tables["ranks-steps"].sort_values("tokens").groupby(["cell", "seed", "of"])["value"].last()
    for cell in answers.data.cells:
        curve = answers.rankme(cell).trained
        change = np.log(curve.values[:, -1] / curve.values[:, 0])
        assert last[cell].groupby("seed").sum().to_numpy() == pytest.approx(change, abs=1e-6)
