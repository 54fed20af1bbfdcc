"""What loads when a command is called, and what its help says."""

import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sims
import spectra
import spectral_lens
import theory
import toymodel
from sims import cli

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "pandas", "sympy", "matplotlib", "scipy", "pyarrow", "distributed", "dask", "transformers")
SUBCOMMANDS = {"train": ("small", "published", "lm"), "sweep": ("small", "published")}

# Prints the loaded ones of the modules that are named in the first argument.
LOADED = """
import sys
names = sys.argv.pop(1).split(",")
print("loaded:", *(n for n in names if n in sys.modules))
"""
HELP = """
import contextlib, io, sys
wanted = sys.argv.pop(1)
from sims import cli
for line in sys.stdin.read().splitlines():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main([*line.split(), "--help"])
    print(line, "loaded:", *(n for n in wanted.split(",") if n in sys.modules))
"""


def run(code, *arguments, stdin=""):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def loaded(statements, *modules):
    """Which of these modules are loaded after some statements."""
    return run(f"{statements}\n{LOADED}", ",".join(modules))[-1].partition("loaded:")[2].split()


def test_help_loads_no_command_and_nothing_heavy():
    (line,) = run(HELP, ",".join((*HEAVY, "numpy", "sims.commands", "toymodel", "spectra")), stdin="\n")
    assert line == " loaded:"


def test_help_of_every_command_loads_nothing_heavy():
    # One process for all of them: a module that any of them loads is seen.
    commands = [*cli.COMMANDS, *(f"{c} {s}" for c, parts in SUBCOMMANDS.items() for s in parts)]
    lines = run(HELP, ",".join(HEAVY), stdin="\n".join(commands))
    assert lines == [f"{command} loaded:" for command in commands]


def test_configurations_load_without_torch():
    code = "import toymodel.config, sims.runs.lm_config, sims.runs.measure_config, sims.sweep.presets"
    assert loaded(code, *HEAVY) == []


def test_spectra_loads_no_experiment_and_few_parts_of_scipy():
    parts = ("scipy.stats", "scipy.optimize", "scipy.linalg", "scipy.sparse", "scipy.integrate")
    assert loaded("import spectra", "sims", "toymodel", "theory", "pandas", "hypothesis", *parts) == []


@pytest.mark.slow
def test_a_toy_run_loads_no_adapter_and_no_cluster(tmp_path):
    words = (
        f"train small --out {tmp_path} --workers 1 --steps 4 --eval-every 2 --batch-size 4 --task.vocab 24 "
        "--task.length 8 --task.train 60 --task.val 32 --task.test 8 --eval-size 16 --model.d-model 16 --model.heads 2 "
        "--measure.every 4 --measure.sequences 32 --measure.windows 1 10 --measure.bands 17 5 "
        "--measure.training-bands 0 --measure.probe-sequences 240 --measure.causal-sequences 16 "
        "--measure.gradient-sequences 8"
    )
    # Drawing takes most of the time, and loads matplotlib alone.
    code = (
        "from sims.pages import write; from sims.pages.page import Picture\n"
        "write._drawn = lambda figure, section, files: Picture('<svg/>', section.caption, section.name)\n"
        f"from sims import cli; assert cli.main({words.split()!r}) == 0"
    )
    formats = ("sims.models.formats.huggingface", "sims.models.formats.modded", "sims.models.formats.nanogpt")
    assert loaded(code, "transformers", "distributed", "dask", "sympy", *formats) == []


def test_the_summaries_of_help_are_the_first_sentences_of_the_commands():
    for name, summary in cli.COMMANDS.items():
        assert cli.command_class(name).__doc__.splitlines()[0] == summary


def examples(command):
    """The lines of the examples in the docstring of a command, without `speclens` and comments."""
    lines = command.__doc__.partition("Examples:")[2].splitlines()
    for line in filter(None, map(str.strip, lines)):
        words = shlex.split(line, comments=True)
        words = words[: words.index("|")] if "|" in words else words
        start = words.index("speclens") if "speclens" in words else words.index("sims.cli")
        yield words[start + 1 :]


def documented():
    from sims.commands.train.lm import Lm

    return {**{name: cli.command_class(name) for name in cli.COMMANDS}, "train lm": Lm}


@pytest.mark.parametrize("name", [*cli.COMMANDS, "train lm"])
def test_every_example_can_be_parsed(name):
    found = list(examples(documented()[name]))
    assert found
    assert any(words[: len(name.split())] == name.split() for words in found)
    for words in found:
        assert callable(cli.parse(words).run)


def test_figures_of_the_registry_are_in_the_help_of_reproduce():
    from sims.studies.paper.study import PAGE
    from sims.studies.study import figures, profiles

    text = cli.command_class("reproduce").__doc__
    assert [name for name in (*figures(PAGE), *profiles(PAGE)) if name not in text] == []


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    first, versions, machine = capsys.readouterr().out.splitlines()
    assert first == f"speclens {spectra.__version__}"
    assert versions.startswith(f"Python {platform.python_version()}, torch {torch.__version__}, numpy ")
    assert "no GPU" in machine or " × " in machine


def test_one_version_that_needs_no_installation(tmp_path):
    packages = [spectra, toymodel, theory, sims]
    assert {package.__version__ for package in packages} == {spectral_lens.__version__}
    # -S: no package is installed.
    code = "import sims, theory, toymodel; print({p.__version__ for p in (sims, theory, toymodel)})"
    alone = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    found = subprocess.run(alone, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == str({spectral_lens.__version__})
    assert all((Path(package.__file__).parent / "py.typed").exists() for package in packages)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian small", "speclens has no command 'trian'; did you mean `speclens train`?"),
        (
            "bridge inspct x",
            "speclens bridge has no command 'inspct'; did you mean `speclens bridge inspect`?",
        ),
        ("bridge demo", "the commands are records, data, windows, train, inspect, measure, compare"),
        ("train small --workers 0", "--workers is 0; it must be at least 1"),
        ("sweep small --workers 0", "--workers is 0"),
        ("reproduce --workers -1", "--workers is -1"),
        ("demo --workers 0", "--workers is 0"),
        ("theory --workers 0", "--workers is 0"),
        ("train lm --data x --workers 0", "--workers is 0"),
        ("train small --seeds", "the seeds are empty"),
        ("sweep small --seeds", "the seeds are empty"),
        ("train small --seeds 1 2 1", "the seeds hold 1 more than once"),
        ("train lm --data x --seeds -1", "--seeds has -1"),
        (
            "demo --track tensorbord",
            "unknown tracker 'tensorbord'; the trackers are tensorboard, wandb, trackio",
        ),
        ("train small --track x", "unknown tracker 'x'"),
        ("train lm --data x --track x", "unknown tracker 'x'"),
        ("sweep small --store-every -1", "--store-every is -1.0"),
        ("train lm --data x --profile 0", "--profile is 0"),
        ("reproduce fig99", "figure 'fig99' does not exist; choose from "),
        ("reproduce --profile quik", "--profile 'quik' does not exist; choose from quick"),
        ("measure demo --tokens 5 --heads 2 --lr 1", "--lr, --heads, --tokens: only for language models"),
        ("measure demo --data x --measure.top-k 2", "--measure.top-k: only for toy runs"),
        ("carry-over a b --out page.txt", "name an .html file"),
        ("records x --target nan", "--target is nan"),
    ],
)
def test_wrong_options_are_one_line_before_any_work(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments.split()) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.strip().splitlines()) == 1
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        (
            "train --data shards --tier d12 --track tensorboard",
            "train lm --data shards --tier d12 --track tensorboard",
        ),
        ("measure out/ckpt.pt --data shards --heads 2", "measure out/ckpt.pt --data shards --heads 2"),
        ("compare toy lm --out page.html", "carry-over toy lm --out page.html"),
        ("inspect ckpt.pt --json", "inspect ckpt.pt --json"),
        ("data notes --merges 767", "data notes --merges 767"),
        ("records logs", "records logs"),
        ("windows shards", "windows shards"),
    ],
)
def test_bridge_is_another_name_of_the_same_commands(earlier, now):
    assert cli.parse(["bridge", *earlier.split()]) == cli.parse(now.split())


def test_help_of_bridge_lists_the_present_names(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["bridge", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "speclens train lm" in shown
    assert all(name in shown for name in cli.BRIDGE)
