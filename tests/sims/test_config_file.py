"""Options from a file: the same rules as typed ones, and every run writes a file that makes it again."""

import io
import re
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import MEASURE, RUN

from sims import cli
from sims.commands.train.toy import Small
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
        noncoprime=draw(st.floats(0, 1)),
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
    st.lists(st.floats(0, 1), max_size=4).map(tuple),
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
    "measure.schedules: []": "--measure.schedules",
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


REFUSED = {
    "steps: abc": "options.yaml: steps is 'abc'; it takes a whole number",
    "steps: 12.5": "steps is '12.5'; it takes a whole number",
    "steps: null": "steps is null; it takes a whole number",
    "steps: [1, 2]": "steps is a list; it takes a whole number",
    "steps: true": "steps is true; it takes a whole number",
    "steps: {a: 1}": "has no option 'steps.a'; did you mean steps?",
    "seeds: [[1], {a: 2}]": "seeds is a list; it takes whole numbers, or null",
    "seeds: [1, null]": "seeds is a list",
    "graphs: true": "graphs is true; it takes one of auto, on, off",
    "graphs: maybe": "graphs is 'maybe'; it takes one of auto, on, off",
    "json: yes": "json is 'yes'; it takes true or false",
    "json: 1": "json is '1'; it takes true or false",
    "stepz: 1": "has no option 'stepz'; did you mean steps?",
    "stepz: 1\nlrs: 1": "(and 1 more)",
    "d-model: 3": "has no option 'd-model'; did you mean model.d-model?",
    "model: {d-modl: 3}": "did you mean model.d-model?",
    "model: {foo: 3}": "model has d-model, heads, layers, mlp-ratio",
    "model: 4": "model has d-model, heads, layers, mlp-ratio",
    "qqq: 4": "`speclens train small --help` lists the options",
    "steps: 1\nsteps: 2": "options.yaml gives steps twice",
    "model: {heads: 1, heads: 2}": "gives heads twice",
    "model.d-model: 1\nmodel: {d_model: 1}": "gives model.d-model twice",
    "measure.sites: [--steps]": "measure.sites has '--steps'; a value does not begin with a dash",
    "- steps": "options.yaml holds no table",
    "steps": "options.yaml holds no table",
    "[": "not valid YAML: expected the node content",
    "a: 1\n b: 2": "in line 2, column",
    "a: &x {b: *x}": "is no option",
    "x: !!python/object/apply:os.getcwd []": "leave out !!python/object/apply:os.getcwd in line 1, column 4",
    "steps: !!int abc": "options.yaml: tags are not read; leave out !!int in line 1, column 8",
    "steps: !!int 3": "tags are not read",
    "lr: !!float 1e-3": "tags are not read",
    "!!map abc": "tags are not read",
    "x: !!map abc": "tags are not read",
    "x: !!timestamp abc": "tags are not read",
    "? !!binary x\n: 1": "tags are not read",
    "x: !own 3": "leave out !own in line 1",
    "x: !<a" + "b" * 3000 + "> 3": "leave out abbbbb",
    "steps: " + "9" * 5000: "…' (5,000 characters); it takes a whole number",
    "model: {d-model: {a: {b: {c: 1}}}}": "tables or lists are nested too deep in line 1",
    "x: " + "[" * 2000: "nested too deep",
    "a: \x01": "the character U+0001 in line 1 is not allowed",
    "b: 1\na: \x7f": "the character U+007F in line 2 is not allowed",
    'a: "\\UFFFFFFFF"': "a number in line 1 is too large",
    "%YAML 1." + "1" * 5000 + "\n---\nsteps: 1": "a number in line 1 is too large",
    "out: ''": "options.yaml: out is ''; it takes a path",
    "out: '  '": "it takes a path",
    "measure.windows: true": "measure.windows is true; it takes pairs of whole numbers, or null",
    "measure.checkpoints: 'true'": "measure.checkpoints is the text 'true'; it takes true or false",
    "measure: []": "has no option 'measure'; measure has every,",
    "1: 2": "has no option '1'",
    "? [1]\n: 2": "not valid YAML: found unhashable key",
    "steps: 1\n---\nsteps: 2": "not valid YAML: but found another document",
    'out: "a\\0b"': "out is 'a\\x00b'",
    "config: other.yaml": "a file of options names none",
    "steps: 0": "steps is 0; it must be at least 1 (with the options of ",
    "stage: ropes": "unknown stage 'ropes'",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_wrong_file_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    Path("options.yaml").write_text(text)
    assert cli.main(["train", "small", "--config", "options.yaml"]) == 2
    shown = capsys.readouterr()
    assert REFUSED[text] in shown.err
    assert shown.err.count("options.yaml") == 1
    assert len(shown.err.strip().splitlines()) == 1
    assert len(shown.err) < 600
    assert shown.out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["options.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 1\nsteps = 2", "not valid TOML: Cannot overwrite a value"),
        ("device = 2026-01-01", 'device is a date; it takes a text, or "None"'),
        ("steps", "not valid TOML"),
        ("steps = 1" + "0" * 5000, "a number in line 1 has more digits than a 64-bit number"),
        ("steps = 1" + "0" * 400, "o.toml: steps has more digits than a 64-bit number"),
        ("steps = 0x" + "f" * 5000, "o.toml: steps has more digits than a 64-bit number"),
        ("seeds = [0x" + "f" * 5000 + "]", "o.toml: seeds has more digits than a 64-bit number"),
        ("json = 0x" + "f" * 5000, "json is a number of more than 64 bits; it takes true or false"),
        ("x = " + "[" * 5000, "not valid TOML: tables or lists are nested too deep"),
        ("a." * 2000 + "b = 1", "is no option; tables are nested at most once"),
        ("out = ''", "out is ''; it takes a path"),
        (
            "eval-size = 'x'",
            "eval-size is 'x'; it takes a whole number, or \"None\" (`speclens train small --help`",
        ),
        ("out = 3.5.1", "not valid TOML"),
        ("a = '\x01'", "not valid TOML: Found invalid character"),
    ],
)
def test_a_wrong_toml_file_likewise(tmp_path, capsys, text, message):
    (tmp_path / "o.toml").write_text(text)
    assert cli.main(["train", "small", "--config", str(tmp_path / "o.toml")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("o.toml") == 1
    assert len(error) < 600


def test_other_things_than_a_file_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("options.txt").write_text("steps: 1")
    Path("latin.yaml").write_bytes(b"out: \xe9")
    Path("ok.yaml").write_text("folder: demo")
    for words, message in (
        (["train", "small", "--config", "nope.yaml"], "cannot read nope.yaml: No such file"),
        (["train", "small", "--config", "options.txt"], "ends in .yaml, .yml or .toml"),
        (["train", "small", "--config", "latin.yaml"], "it is not UTF-8"),
        (["train", "small", "--config", "."], ". is no run folder"),
        (["train", "small", "--config", "ok.yaml", "--config", "ok.yaml"], "--config is given twice"),
        (["train", "small", "--config"], "--config has no value; it takes a path"),
        (["train", "small", "--config", ""], "--config has no value; it takes a path"),
        (["train", "small", "--config="], "--config has no value; it takes a path"),
        (["train", "small", "--config= "], "--config has no value; it takes a path"),
        (
            ["demo", "--config", ".", "--dry-run"],
            ". is a folder; `speclens demo` reads its options from a YAML",
        ),
        (["bands", "demo", "--config", "ok.yaml"], "folder is typed after `speclens bands`"),
        (["ls", "demo", "--config", "ok.yaml"], "speclens ls has no option --config"),
    ):
        assert cli.main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1


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


WORDS = """
steps seeds out measure : = , [ ] { } [[ ]] ' " \\ - --- ... & * &a *a ! !! !!int !!map !<x> % %YAML %TAG ? | > # <<
null true 1 1e400 0x 0b _ . .. inf nan ~ / \\U \\x00 a.b.c.d.e 1979-05-27
"""
BYTES = [
    " ",
    "\n",
    "\n  ",
    "\t",
    "\0",
    "\x01",
    "\x1b[2J",
    "\x85",
    "\ufeff",
    "é",
    "\u202e",
    "9" * 4400,
    "f" * 5000,
]
PIECES = [*WORDS.split(), *BYTES]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from(["o.yaml", "o.toml"]))
def test_any_text_is_read_or_refused_in_one_short_line(tmp_path_factory, text, name):
    folder = tmp_path_factory.getbasetemp()
    (folder / name).write_text(text, encoding="utf-8")
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(told):
        patch.setattr(Small, "execute", lambda self: 0)
        # An error that is not expected comes out of main.
        status = cli.main(["train", "small", "--config", str(folder / name)])
    error = told.getvalue()
    assert (status, len(error.splitlines())) in ((0, 0), (2, 1))
    assert len(error) < 900
    assert error.isprintable() or error[:-1].isprintable()
    assert status == 0 or error.count(str(folder / name)) == 1


@given(
    st.dictionaries(
        st.sampled_from(["steps", "lr", "out", "seeds", "json"]), st.text() | st.floats() | st.none()
    )
)
@settings(max_examples=20, deadline=None)
def test_any_values_are_read_or_refused_in_one_line(tmp_path_factory, values):
    folder = tmp_path_factory.getbasetemp()
    (folder / "any.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        # An error that is not expected comes out of main.
        patch.setattr(Small, "execute", lambda self: 0)
        assert cli.main(["train", "small", "--config", str(folder / "any.yaml")]) in (0, 2)
