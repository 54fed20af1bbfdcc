"""Every command line of README, docs and --help runs, on small folders of the names that they use.

Lines that train, measure or download at full size run with what makes them small added (`SMALLER`), which their own
options stay beside. What cannot run here is listed with its reason in `ABSENT`, and each reason is checked to hold.
"""

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import torch
from workshop import PAGES, ROOT, TINY

from sims import cli
from sims.runs.store import run_folders

# What is added to a line, by how it begins; the first that fits. Sizes only: the line's own options stay.
SMALLER = {
    # Without settings of modular walks.
    "train small --task.kind": [
        "--steps",
        "4",
        "--eval-every",
        "2",
        "--measure.every",
        "4",
        "--workers",
        "1",
    ],
    "train small": TINY,
    "train published": TINY,
    "sweep": ["--dry-run"],
    "reproduce all --runs": [],
    "reproduce layers fig9 --runs": [],
    "reproduce all --profile published": ["--dry-run", "--cells", "untied:32"],
    "reproduce": ["--dry-run"],
    "bands": ["--bands", "4", "--named", "31", "20"],
    "robustness": ["--sequences", "1024"],
    "markov --runs": ["--contexts", "256"],
    "windows": ["--ranks", "20"],
    "look gpt2 --text essay.txt --predictive": ["--length", "16", "--tokens", "192"],
    # The bands of a run of the published size.
    "measure runs/rope-b32-…": ["--measure.bands", "31", "20"],
}
# Up to half a minute each: with `-m slow`.
SLOW = (
    *("bands", "carry-over", "markov", "reproduce all --runs", "look gpt2 --text essay.txt --predictive"),
    # Their answers in JSON and their pages have tests of their own.
    *("report", "robustness", "theory --against", "edge --runs", "look gpt2 --text essay.txt --length"),
    # A dry run times a model of the published size.
    "sweep published",
)
# What does not run here, by how it begins: why, and whether that is still so.
ABSENT = {
    "demo": (
        "trains 32 runs at their full size, minutes (tests/sims/test_cli.py, slow)",
        lambda words: True,
    ),
    "markov": (
        "trains twenty runs for minutes (tests/sims/test_markov.py)",
        lambda words: "--runs" not in words,
    ),
    "edge": (
        "trains twelve runs for minutes (tests/sims/test_edge_study.py)",
        lambda words: "--runs" not in words,
    ),
    "grokking": ("trains 44 runs for minutes (tests/sims/test_grokking_study.py)", lambda words: True),
    "lifecycle": (
        "trains eighteen runs for minutes, or reads runs of another kind (tests/sims/test_lifecycle_study.py)",
        lambda words: True,
    ),
    "phases": (
        "reads runs of another kind (tests/sims/test_phases_command.py)",
        lambda words: True,
    ),
    "prune": (
        "prunes language models many times for minutes (tests/sims/test_pruning_study.py)",
        lambda words: True,
    ),
    "rates": (
        "trains 225 runs for minutes, or reads runs of another kind (tests/sims/test_rates_command.py)",
        lambda words: True,
    ),
    "post-train": (
        "trains for minutes (tests/sims/test_post_train_study.py)",
        lambda words: True,
    ),
    "bench": ("times for minutes (tests/sims/test_bench.py runs every case)", lambda words: True),
    "data": ("downloads, or reads the files of a user (tests/bridge/test_making.py)", lambda words: True),
    "theory": (
        "verifies for a minute (tests/theory)",
        lambda words: "--against" not in words,
    ),
    "train lm": (
        "trains language models at full size (tests/bridge/test_train_lm_command.py)",
        lambda words: True,
    ),
    "measure": (
        "measures language models of other people (tests/bridge/test_measure_text_command.py)",
        lambda words: "--data" in words,
    ),
    "inspect": (
        "a folder of another package (tests/bridge/test_adapters*.py)",
        lambda words: "ckpt.pt" not in words[-1],
    ),
    "records": (
        "logs of other people (tests/bridge/test_records.py)",
        lambda words: not Path("logs").exists(),
    ),
    "torchrun": ("starts processes (tests/bridge/test_train_lm_run.py)", lambda words: True),
}


LONG = ("report", "carry-over", "train", "sweep", "reproduce", "look", "theory")


def lines(text):
    """The command lines of a page or a docstring, without prompt, comment and pipe; lines that go on are joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        found = re.match(r"\s*(?:\$ )?(?:\./run|speclens|torchrun .*-m sims\.cli) (.*)", line)
        if not found or not line.startswith(("    ", "speclens", "./run")):
            continue
        words = shlex.split(found[1], comments=True)
        words = words[: words.index("|")] if "|" in words else words
        if words and words[0] in cli.COMMANDS:
            yield ["torchrun", *words] if "torchrun" in line else words


def cells(text):
    """The commands in the cells of the tables of a page, as lines of their own."""
    return "\n".join(re.findall(r"\| `(\./run [^`]+)` \|", text))


def every_line():
    from sims.commands.train.lm import Lm

    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    texts += [cells(text) for text in texts]
    texts += [cli.command_class(name).__doc__ or "" for name in cli.COMMANDS] + [Lm.__doc__ or ""]
    return sorted({shlex.join(words) for text in texts for words in lines(text)})


LINES = every_line()


def rule(words, table):
    """The first entry of a table that a command begins with."""
    text = " ".join(words)
    return next((key for key in table if f"{text} ".startswith(f"{key} ")), None)


def absent(words):
    key = rule(words, ABSENT)
    return key if key is not None and ABSENT[key][1](words) else None


def placed(words, workshop):
    """The words with a real run in place of one that is only sketched (…) or has a made-up hash."""
    runs = {c.path.name: c.path for c in run_folders(workshop / "demo")}
    made_up = re.compile(r"^(demo|runs|sweep)/(rope|muon|untied)-")

    def real(word):
        found = made_up.match(word)
        return f"{found[1]}/{next(n for n in runs if n.startswith(found[2]))}" if found else word

    return [real(word) for word in words]


def tried():
    # Commands that train, time or write a long page run once in the default suite, and every documented line of them
    # with -m slow; that these lines parse is tested below.
    # The figures of a command are drawn in its first line; `train` ends with the page of `report`.
    before = Counter(train=1)
    for line in LINES:
        words = shlex.split(line)
        if absent(words) is None:
            again = before[words[0]] > 0
            slow = [pytest.mark.slow] if rule(words, SLOW) or (again and words[0] in LONG) else []
            yield pytest.param(line, not again, marks=slow, id=line)
            before[words[0]] += not slow


@pytest.mark.parametrize(("line", "drawn"), list(tried()))
def test_the_line_runs(workshop, monkeypatch, capsys, request, line, drawn):
    if not drawn:
        request.getfixturevalue("undrawn")
    monkeypatch.chdir(workshop)
    monkeypatch.setenv("COLUMNS", "200")
    words = shlex.split(line)
    more = SMALLER.get(rule(words, SMALLER) or "", [])
    words = placed(words, workshop)
    if "--device" in words and not torch.cuda.is_available():
        words[words.index("--device") + 1] = "cpu"
    if "tensorboard" in words:
        pytest.importorskip("tensorboard", reason="the tracker needs the extra tensorboard")
    # A size that the line names itself is given up for the small one, which comes later.
    if words[0] == "train" and "--out" not in words:
        # The folder of the default name holds other runs here.
        more = [*more, "--out", "trained"]
    try:
        status = cli.main([*words, *more])
    except SystemExit as stop:
        status = stop.code
    shown = capsys.readouterr()
    assert status == 0, shown.err[-2_000:]


def test_the_lines_that_run_with_slow_ones_only_parse(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    slow = [str(param.values[0]) for param in tried() if param.marks]
    assert len(slow) > 20
    for line in slow:
        assert callable(cli.parse(placed(shlex.split(line), workshop)).run), line


def test_every_documented_command_is_tried_or_absent_for_a_stated_reason():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(cells(readme).splitlines()) >= 10
    names = {shlex.split(line)[0] for line in LINES if absent(shlex.split(line)) is None}
    assert names >= {
        "train",
        "sweep",
        "ls",
        "show",
        "compare",
        "export",
        "report",
        "reproduce",
        "bands",
        "robustness",
    }
    assert names >= {"carry-over", "theory", "windows", "inspect", "look", "measure"}
    unused = [key for key in ABSENT if not any(rule(shlex.split(line), ABSENT) == key for line in LINES)]
    assert unused == []
    for key, (reason, _) in ABSENT.items():
        for name in re.findall(r"tests/[\w/]+\.py", reason):
            assert (ROOT / name).exists(), (key, name)
