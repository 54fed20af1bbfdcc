"""Files of options that are refused: one short line, whatever they hold."""

import io
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sims import cli
from sims.commands.train.toy import Small

REFUSED = {
    "steps: abc": "options.yaml: steps is 'abc'; it takes a whole number",
    "steps: 12.5": "steps is '12.5'; it takes a whole number",
    "steps: null": "steps is null; it takes a whole number",
    "steps: [1, 2]": "steps is a list; it takes a whole number",
    "steps: true": "steps is true; it takes a whole number",
    "steps: {a: 1}": "has no option 'steps.a'; did you mean steps?",
    "seeds: [[1], {a: 2}]": "seeds is a list; it takes whole numbers, or null",
    "seeds: [1, null]": "seeds is a list",
    "seeds: [[0, 1], [2]]": "seeds is a list; it takes whole numbers, or null",
    "measure: {bands: [[31, 20, 5], [7]]}": "measure.bands is a list; it takes pairs of whole numbers",
    "measure: {bands: [[31, 20], 11, 7]}": "measure.bands is a list; it takes pairs of whole numbers",
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
    "rates: farms\nrates.by: depth": "options.yaml gives rates.by twice; give it once",
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
