"""Options from a file: the same rules as typed ones, and every run writes a file that makes it again."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.runs.config_file import CONFIG, config_text
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmMeasureConfig
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from sims.runs.tiers import TIERS
from sims.system.command_options import command_options, presets
from sims.system.option_file import as_words
from toymodel.config import RunConfig
from toymodel.intervention import NONE, Intervention
from toymodel.rates import Rates
from toymodel.stages import CHAIN


def typed(words):
    """The configuration of a line."""
    return cli.parse(words).preset


def from_text(text, folder, *words, name="options.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return typed([*(words or ("train", "small")), "--config", str(folder / name)])


numbers = st.floats(1e-9, 1e9, allow_nan=False)
sizes = st.integers(1, 10**9)


@st.composite
def toy_runs(draw):
    """Any valid run and measurements, with values of every option."""
    task = replace(
        RUN.task,
        modulus_power=draw(numbers),
        noise=draw(st.just(0.0) | numbers),
        noncoprime=draw(st.floats(0, 1, width=32, allow_subnormal=False)),
        unique_val=draw(st.booleans()),
        seed=draw(st.integers(0, 2**63 - 1)),
    )
    run = RunConfig(
        stage=draw(st.sampled_from(list(CHAIN))),
        task=task,
        model=replace(RUN.model, layers=draw(st.integers(1, 9))),
        batch_size=draw(st.integers(1, 400)),
        lr=draw(numbers),
        steps=draw(sizes),
        seed=draw(st.integers(0, 2**63 - 1)),
        weight_decay=draw(st.none() | st.just(0.0) | numbers),
        newton_schulz=draw(st.sampled_from(["bfloat16", "float32", "exact"])),
        eval_every=draw(sizes),
        eval_size=draw(st.none() | st.integers(1, 64)),
        target_loss=draw(st.none() | numbers),
        precision=draw(st.sampled_from(["float32", "tf32", "bfloat16"])),
    )
    if run.steps > 400 and run.weight_decay:
        kinds = [
            Intervention("decay", 3, draw(st.none() | st.integers(4, 9)), 0.5),
            Intervention("edge", 60, window=4),
        ]
        run = replace(run, intervention=draw(st.sampled_from([run.intervention, *kinds])))
    rates = [
        Rates(),
        Rates("farms", map="sigmoid", every=7),
        Rates("shuffled-alpha", low=0.1, seed=4, mean="free"),
    ]
    run = replace(run, rates=draw(st.sampled_from(rates)))
    pair = st.tuples(st.integers(1, 50), st.integers(60, 90))
    measure = MeasureConfig(
        every=draw(sizes),
        pooling=draw(st.sampled_from(["last", "mean", "token"])),
        sites=tuple(
            draw(
                st.lists(st.sampled_from(["final", "embed", "blocks.0", "null", "off", "1e3", "", "a: b #"]))
            )
        ),
        windows=draw(st.none() | st.lists(pair, max_size=3).map(tuple)),
        gradient_matrices=tuple(draw(st.lists(st.text("abc.é→'\"\\:#,[]{}=~ \n\t", max_size=6)))),
        bands=tuple(draw(st.lists(pair, max_size=3))),
        checkpoints=draw(st.booleans()),
        schedules=draw(st.sampled_from([(), ("weights=25",)])),
    )
    return run, measure


@settings(max_examples=25, deadline=None)
@given(toy_runs(), st.sampled_from(["small", "published"]))
def test_what_a_toy_run_writes_is_read_as_the_same_run(tmp_path_factory, made, preset):
    run, measure = made
    text = config_text(run, measure)
    again = from_text(text, tmp_path_factory.getbasetemp(), "train", preset)
    assert (again.run, again.measure) == made
    assert again.run.run_id == run.run_id


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(list(TIERS)),
    st.sampled_from(list(CHAIN)),
    sizes,
    st.integers(1, 64),
    numbers,
    st.none() | numbers,
    st.lists(st.floats(0, 1, width=32, allow_subnormal=False), max_size=4).map(tuple),
    st.none()
    | st.builds(
        LmMeasureConfig, loss_tokens=st.just(0), families=st.just(("digits", "vowels=a,e")), memory=numbers
    ),
    st.booleans(),
    st.sampled_from([NONE, Intervention("even", factor=0.5, directions=1, window=2, stride=1)]),
)
def test_what_a_language_model_writes_is_read_as_the_same_run(
    tmp_path_factory, tier, stage, steps, batch, lr, decay, shares, measure, bias, intervention
):
    more = {"weight_decay": decay, "checkpoints": shares, "logit_bias": bias}
    # An intervention needs a window before the end.
    more["intervention"] = intervention if steps > 2 else NONE
    run = LmConfig(tier, stage, 50_257, 16, batch, steps, lr, **more)
    text = config_text(run, measure or {})
    again = from_text(text, tmp_path_factory.getbasetemp(), "train", "lm", "--data", "shards")
    with pytest.MonkeyPatch.context() as patch:
        # The shards are not part of the options.
        patch.setattr("sims.text.corpus.vocabulary_of", lambda data: run.vocabulary)
        (config,) = again.grid("float32")
    assert config == run
    assert again.measure == (measure is not None)
    if measure:
        assert {n: getattr(again.measuring, n) for n in vars(measure)} == vars(measure)


def test_a_folder_that_is_begun_holds_the_file_and_is_one_itself(tmp_path):
    RunFolder(tmp_path / "run").start(RUN, MEASURE, {})
    for source in (tmp_path / "run" / CONFIG, tmp_path / "run"):
        made = typed(["train", "published", "--config", str(source)])
        assert (made.run, made.measure) == (RUN, MEASURE)


LINES = {
    "steps: 12": "--steps 12",
    "lr: 6e-4": "--lr 6e-4",
    "lr: 1": "--lr 1",
    "graphs: off": "--graphs off",
    "json: true": "--json",
    "measure: {checkpoints: false}": "--measure.no-checkpoints",
    "measure.checkpoints: true": "--measure.checkpoints",
    "model: {d_model: 32, heads: 2}": "--model.d-model 32 --model.heads 2",
    "model.d-model: 32": "--model.d-model 32",
    "seeds: 3": "--seeds 3",
    "seeds: [1, 2]": "--seeds 1 2",
    "measure:\n  bands: [[31, 20], [17, 5]]": "--measure.bands 31 20 17 5",
    "measure.windows: null": "--measure.windows None",
    "measure.windows: [1, 10]": "--measure.windows 1 10",
    "measure.bands: []": "--measure.bands",
    "measure.schedules: []": "",
    "eval-size: ~": "--eval-size None",
    "device:": "--device None",
    "device: 2026-01-01": "--device 2026-01-01",
    "device: 'null'": "--device null",
    "out: yes": "--out yes",
    "out: -x": "--out=-x",
    "# nothing\n": "",
    "measure: {}\nmodel:\n  # nothing\ntask: null": "",
    "---\nsteps: 0x10": None,
}


@pytest.mark.parametrize("text", LINES)
def test_a_file_says_what_a_line_says(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    if LINES[text] is None:
        with pytest.raises(cli.QueryError, match="steps is '0x10'; it takes a whole number"):
            from_text(text, tmp_path)
        return
    made = from_text(text, tmp_path)
    line = typed(["train", "small", *LINES[text].split()])
    assert replace(made, options=replace(made.options, config=None)) == line


TOML = """
steps = 7
lr = 6e-4
seeds = [1, 2]
eval-size = "None"
[model]
d-model = 32
[measure]
windows = [[1, 10]]
checkpoints = false
"""


def test_toml_says_the_same(tmp_path):
    made = from_text(TOML, tmp_path, name="options.toml")
    assert (made.run.steps, made.run.lr, made.seeds, made.run.eval_size) == (7, 6e-4, (1, 2), None)
    assert made.run.model.d_model == 32
    assert (made.measure.windows, made.measure.checkpoints) == (((1, 10),), False)


@pytest.mark.parametrize("typed_words", ["--steps 5", "--steps=5", "--seeds 7 8 --no-json --steps 5"])
def test_what_is_typed_wins(tmp_path, typed_words):
    file = tmp_path / "options.yaml"
    file.write_text("steps: 9\nlr: 0.5\nseeds: [1]\njson: true\n")
    for line in (["--config", str(file), *typed_words.split()], [*typed_words.split(), f"--config={file}"]):
        made = typed(["train", "small", *line])
        assert (made.run.steps, made.run.lr) == (5, 0.5)
        assert made.seeds == ((7, 8) if "7" in typed_words else (1,))
        assert made.options.json == ("json" not in typed_words)


def test_the_home_folder_is_that_of_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert from_text("out: ~/runs", tmp_path).out == Path("/home/somebody/runs")
    assert from_text("device: ~x", tmp_path, name="options.YML").options.device == "~x"


@pytest.mark.parametrize("line", ["--config=o.yaml", "--config o.yaml"])
def test_a_refused_value_is_told_with_its_file(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    Path("o.yaml").write_text("lr: -1\n")
    assert cli.main(["train", "small", *line.split()]) == 2
    assert "lr is -1.0; it must be a positive number (with the options of o.yaml)" in capsys.readouterr().err


def test_values_of_a_file_do_not_become_the_folder_of_a_command(tmp_path):
    (tmp_path / "o.yaml").write_text("bands: 4\nfractions: [0.5, 1.0]\nnamed: [[31, 20]]\n")
    made = cli.parse(["bands", "--config", str(tmp_path / "o.yaml"), "demo"])
    assert (made.folder, made.bands, made.fractions, made.named) == (Path("demo"), 4, (0.5, 1.0), ((31, 20),))


READING = [
    f"{n} {p}".strip()
    for n in cli.COMMANDS
    for p in presets(cli.command_class(n)) or [""]
    if "config" in command_options(cli.command_class(n), [p])
]


@pytest.mark.parametrize("program", READING)
def test_every_option_of_a_file_is_what_is_typed_or_is_refused_with_what_it_takes(program):
    name, *preset = program.split()
    options = command_options(cli.command_class(name), preset)
    free = [option for option in options.values() if option.name != "config" and not option.positional]

    def words(option, value):
        return as_words({option.name: value}, Path("o.yaml"), options, (), f"speclens {program}")

    for option in free:
        if option.flag:
            group, dot, last = option.name.rpartition(".")
            assert words(option, True) == [f"--{option.name}"]
            assert words(option, False) == [f"--{group}{dot}no-{last}"]
        else:
            with pytest.raises(cli.QueryError, match=re.escape(f"it takes {option.takes}")):
                words(option, True)
        if option.optional:
            assert words(option, None) == ([] if option.flag else [f"--{option.name}", "None"])
        with pytest.raises(cli.QueryError) as no:
            words(option, {} if option.many else [1])
        assert str(no.value).startswith(f"o.yaml: {option.name} is a ")
        assert str(no.value).endswith("or null") == option.optional


@pytest.mark.parametrize("value", [True, False, None])
@pytest.mark.parametrize("name", ["checkpoints", "positions"])
def test_what_is_measured_again_is_true_false_or_as_it_was(tmp_path, name, value):
    (tmp_path / "o.yaml").write_text(
        f"measure: {{{name}: {'null' if value is None else str(value).lower()}}}"
    )
    (tmp_path / "o.toml").write_text(
        "[measure]" if value is None else f"measure.{name} = {str(value).lower()}"
    )
    line = {True: [f"--measure.{name}"], False: [f"--measure.no-{name}"], None: []}[value]
    made = [
        cli.parse(["measure", "run", *words]).measure
        for words in (line, *(["--config", str(tmp_path / f"o.{kind}")] for kind in ("yaml", "toml")))
    ]
    assert [getattr(changes, name) for changes in made] == [value] * 3
    assert made[0] == made[1] == made[2]


def test_the_help_of_a_command_with_a_file_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line in ("train small --config nope.yaml --help", "train small --help --config="):
        with pytest.raises(SystemExit) as end:
            cli.main([*line.split()])
        assert end.value.code == 0
        assert "--config FILE" in capsys.readouterr().out
