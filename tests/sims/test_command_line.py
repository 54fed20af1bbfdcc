"""docs/command-line.md says what the command line does; completion completes; what the parser refuses is one line."""

import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from sims import cli
from sims.system.command_options import command_options, presets

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")


def test_the_page_lists_every_command_and_preset():
    table = PAGE.partition("## Options from a file")[0]
    listed = set(re.findall(r"`([\w -]+)`", "\n".join(re.findall(r"^\| (`[^|]*)\|", table, re.MULTILINE))))
    programs = {name: presets(cli.command_class(name)) for name in cli.COMMANDS}
    assert listed == {f"{n} {p}".strip() for n, parts in programs.items() for p in parts or [""]}


def test_the_page_lists_the_commands_that_read_a_file():
    (listed,) = re.findall(r"Commands that make or measure runs \((.*?)\)", PAGE, re.DOTALL)
    reading = {n for n in cli.COMMANDS if "config" in command_options(cli.command_class(n), ["small"])}
    assert set(re.findall(r"`([\w-]+)`", listed)) == reading


def test_the_two_files_of_the_page_say_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = dict(re.findall(r"```(?:yaml|toml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
    assert set(files) == {"sweep.yaml", "sweep.toml"}
    made = []
    for name, text in files.items():
        Path(name).write_text(text)
        sweep = cli.parse(["sweep", "small", "--config", name]).preset
        made.append(replace(sweep, options=replace(sweep.options, config=None)))
    assert made[0] == made[1]
    assert made[0].run.task.noise == 0.25
    assert made[0].run.model.d_model == 96
    assert len(made[0].grid().configs()) == 2 * 2 * 3 * 3


COMPLETE = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_tyro_speclens
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="completes in bash, which is not here")
def test_bash_completes_commands_options_and_choices(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--tyro-print-completion", "bash"])
    assert end.value.code in (0, None)
    script = tmp_path / "speclens"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "options.yaml").touch()

    def completed(*words):
        command = ["bash", "-c", COMPLETE, "bash", str(script), "speclens", *words]
        return set(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout.split())

    assert completed("ro") == {"robustness"}
    assert completed("train", "") >= {"small", "published", "lm"}
    assert completed("train", "small", "--model.") == {
        f"--model.{n}" for n in ("d-model", "heads", "layers", "mlp-ratio")
    }
    assert completed("demo", "--graphs", "") == {"auto", "on", "off"}
    assert "options.yaml" in completed("demo", "--config", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_with_the_options(shell, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--tyro-print-completion", shell])
    script = capsys.readouterr().out
    assert "--model.d-model" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


REFUSED = {
    "--tyro-print-completion csh": "--tyro-print-completion takes a shell: bash, zsh, fish",
    "--tyro-write-completion": "--tyro-write-completion takes a shell",
    "--tyro-write-completion bash": "takes a file to write to",
    "--tyro-write-completion bash /nowhere/x": "cannot write /nowhere/x: No such file or directory",
    "": "speclens needs one of demo, train, ",
    "--seeds 3": "speclens has no option --seeds; `speclens --help` lists the options",
    "demo --sed 2": "speclens demo has no option --sed; did you mean --seeds?",
    "demo --seed=2": "speclens demo has no option --seed; did you mean --seeds?",
    "demo --seeds": "--seeds has no value; it takes a whole number",
    "demo --seeds two": "--seeds is 'two'; it takes a whole number",
    "demo --workers 2.5": "--workers is '2.5'; it takes a whole number",
    "demo here": "speclens demo does not take 'here'",
    "demo --seeds 3 x": "speclens demo does not take 'x'",
    "bands --bands x D": "--bands is 'x'; it takes a whole number",
    "bands --named x D": "--named is 'x' 'D'; it takes pairs of whole numbers (FOLDER stands before the options;",
    "demo --seeds " + "9" * 5000: "…' (5,000 characters); it takes a whole number",
    "demo " + "x" * 5000: "…' (5,000 characters)",
    "x" * 5000: "…' (5,000 characters)",
    "demo --" + "x" * 5000: "speclens demo has no option --xxxx",
    "train --seeds 1": "speclens train needs one of published, small, lm before --seeds",
    "sweep --dry-run": "speclens sweep needs one of published, small before --dry-run",
    "sweep --lrs=1": "needs one of published, small before --lrs;",
    "train small -- --steps 3": "does not take '--steps' after --, where options are not read; leave out the --",
    "train small --seeds 1 -- 3": "does not take '3' after --",
    "train small --eval-size x": "--eval-size is 'x'; it takes a whole number, or None (",
    "train small --out=": "--out is ''; it takes a path",
    "look a --out=": "--out is ''; it takes a path",
    "compare a --json=true": "--json takes no value; write --json for true, and --no-json for false",
    "compare --json=false a": "--json takes no value",
    "demo --json true": "--json takes no value",
    "train small --measure.checkpoints false": "write --measure.checkpoints for true, and --measure.no-checkpoints",
    "train small --measure.no-checkpoints=True": "--measure.checkpoints takes no value",
    "measure run --measure.checkpoints false": "--measure.checkpoints takes no value; write",
    "train": "speclens train needs one of published, small, lm; `speclens train --help` describes them",
    "train smal": "speclens train has no command 'smal'; did you mean `speclens train small`?",
    "train --steps 3 small": "small stands before the options; write `speclens train small --steps …`",
    "train small --d-model 8": "did you mean --model.d-model?",
    "train small --measure.windows 1 x": "--measure.windows is '1' 'x'; it takes pairs of whole numbers",
    "train small --graphs maybe": "--graphs is 'maybe'; it takes one of auto, on, off",
    "train lm": "speclens train lm needs --data",
    "sweep small --lr-rule cube": "--lr-rule is 'cube'; it takes any of sqrt, linear",
    "measure": "speclens measure needs RUN",
    "bands": "speclens bands needs FOLDER",
    "compare": "speclens compare needs folders of runs",
    "carry-over toy": "speclens carry-over needs LM",
    "look a --no-jsn": "speclens look has no option --no-jsn; did you mean --json?",
    "bridge measure": "speclens measure needs RUN",
    "look a --length 8 --heads 2": "--length, --heads: only on a text, which weights do not need",
    "look a --draft": "--draft: only on a text",
    "measure a --data b --seed -1": "seed is -1; it must be 0 or positive",
    "train lm --data a --scheduler b": "--scheduler: 'b' is no address of a dask scheduler; give it as tcp://HOST:PORT",
    "train lm --data a --profile 2 --dry-run": "leave one of them out",
}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line[:60])
def test_what_the_parser_refuses_is_one_line(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("speclens: ")
    assert REFUSED[line] in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert len(shown.err) < 400
    assert shown.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--seed 1 --seed=2", "--seed is typed 2 times, and only the last one counts"),
        ("--rates depth --rates.by farms", "--rates.by is typed 2 times"),
        ("--seeds 0 --seeds 1", "give all of its values at once"),
        ("--json --no-json", "--json is typed 2 times"),
    ],
)
def test_an_option_that_is_typed_again_is_told(line, told):
    with pytest.warns(UserWarning, match=told):
        cli.parse(["train", "small", *line.split()])


def test_a_flag_that_is_typed_again_says_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cli.parse(["ls", "a", "--json", "--json"]).json


LISTS = [
    (name, preset, option.name)
    for name in cli.COMMANDS
    for preset in (presets(cli.command_class(name)) or ("",))
    for option in command_options(cli.command_class(name), [preset]).values()
    if option.some and not option.positional
]


@pytest.mark.parametrize(("name", "preset", "option"), LISTS)
def test_a_list_that_is_empty_by_default_is_not_given_without_a_value(name, preset, option, capsys):
    words = [name, *filter(None, [preset]), f"--{option}"]
    for line in (words, [*words, "--json"]):
        assert cli.main(line) == 2
        told = capsys.readouterr()
        assert f"--{option} has no value; it takes" in told.err
        assert told.out == ""


@pytest.mark.parametrize(
    "line",
    ["windows shards --lengths", "data --source debian --packages", "prune runs --by", "rates --stage"],
)
def test_other_lists_are_not_empty(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    assert f"{line.split()[-1]} is empty; " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ["train small --out", "show", "compare a", "demo --out", "data a"])
def test_no_path_is_empty(tmp_path, monkeypatch, capsys, line):
    """An empty one would be the current folder."""
    monkeypatch.chdir(tmp_path)
    for empty in ("", " "):
        assert cli.main([*line.split(), empty]) == 2
        assert (
            f"is {empty!r}; it takes {'paths' if line.endswith('a') else 'a path'}" in capsys.readouterr().err
        )
        assert not list(tmp_path.iterdir())


def test_help_names_a_run_folder_for_the_command_that_takes_one(monkeypatch, capsys):
    for program in PROGRAMS:
        name, *preset = program.split()
        if "config" not in command_options(cli.command_class(name), preset):
            continue
        with pytest.raises(SystemExit):
            cli.main([*program.split(), "--help"])
        told = " ".join(re.findall(r"\w+", capsys.readouterr().out.partition("--config FILE")[2]))
        assert ("run folder" in told.partition("default")[0]) == (name == "train"), program


def test_a_parser_without_the_hook_shows_its_own_box(monkeypatch, capsys):
    monkeypatch.delattr(tyro._errors, "on_parse_error")
    with pytest.raises(SystemExit) as end:
        cli.main(["demo", "--seeds", "two"])
    assert end.value.code == 2
    assert "two" in capsys.readouterr().err


PROGRAMS = [f"{n} {p}".strip() for n in cli.COMMANDS for p in presets(cli.command_class(n)) or [""]]


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_fits_a_terminal_of_80_columns_and_says_something_of_every_option(program, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*program.split(), "--help"])
    shown = capsys.readouterr().out
    boxes = shown.partition("show this help message")[2]
    # The names that a file may hold are found without the parser; they are its names nevertheless.
    name, *preset = program.split()
    options = command_options(cli.command_class(name), preset).values()
    assert set(re.findall(r"^\W --(\w[\w.-]+)", boxes, re.MULTILINE)) == {
        option.name for option in options if not option.positional
    }
    # Lines of examples are whole, so that they can be copied.
    prose = [line for line in shown.splitlines() if not re.match(r"usage:| {4,}", line)]
    assert [line for line in prose if len(line) > 80] == []
    # What is true or false is typed in one way.
    assert not re.search(r"\{[\w,]*(true|True)\b", boxes)
    # What the command does is said once.
    kind = presets(cli.command_class(name)).get(*preset) if preset else cli.command_class(name)
    sentence = re.split(r"[.(:]", kind.__doc__ or "")[0].split()
    assert re.sub(r"[\W_]+", " ", shown).count(re.sub(r"[\W_]+", " ", " ".join(sentence)).strip()) == 1
    # Nothing that is written for parsers.
    assert not re.search(r"\{None\}|\[\w+ \[|\(default: \)", shown)
    for option in re.split(r"\n(?=\W --\w)", boxes)[1:]:
        words = re.sub(r"^\W --\S+(, --\S+)?( (\{.*?\}|[A-Z]+|…))*", "", option).partition("(default:")[0]
        assert len(re.findall(r"\w+", words)) > 0, option


@pytest.mark.parametrize("name", ["train", "sweep"])
def test_help_of_a_command_lists_its_presets_by_one_sentence_each(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    shown = capsys.readouterr().out.partition("(required)")[2]
    listed = " ".join(re.sub(r"[^\w\s.,:;()'=-]", " ", shown).split())
    found = presets(cli.command_class(name))
    sentences = [f"{preset} {(kind.__doc__ or '').splitlines()[0]}" for preset, kind in found.items()]
    assert re.sub(r"[ -]+$", "", listed) == " ".join(" ".join(sentence.split()) for sentence in sentences)
