"""Every Python block of README, CONTRIBUTING and docs runs, and prints what the page shows beneath it.

The blocks of a page run from top to bottom in one namespace, as a reader would run them. What a page leaves to its
reader (a model, a function of one's own) is in `GIVEN`; what a block needs and this machine may lack is in `NEEDS`.
"""

import doctest
import importlib.util
import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from pkgutil import resolve_name

import formats
import matplotlib.pyplot as plt
import pytest
import torch
from formats import modded_state, sequences
from torch import nn

import spectra.testing

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Blocks that run only where a package is installed, by page and a line of theirs: package and reason.
NEEDS = {("docs/sweeps.md", "cluster = SLURMCluster("): ("dask_jobqueue", "starts jobs on a Slurm cluster")}
# What makes a page small enough to run, or harmless: (words of the page, what replaces them).
CHANGED = {
    "docs/library.md": [("steps=100,", "steps=2,"), ("my_rankme, kind", "my_rankme, max_examples=20, kind")],
    "docs/property-testing.md": [("my_function, kind", "my_function, max_examples=20, kind")],
    "docs/sweeps.md": [('"port": 8786', '"port": 0'), ("input(", "cluster.close(), print(")],
}
# Outputs of which the verdicts are compared, not the numbers, by a line of the block: why.
VERDICTS_ONLY = {"def float32_uncentred_covariance(x):": "sums of float32 depend on the processor"}
# Half a minute: its outputs, from 200 examples a law, with `-m slow`; without, the laws broken, on few.
SLOW = "docs/property-testing.md"
# Its pictures are drawn for the site too.
GALLERY = "docs/gallery/index.md"
# What looks like a dotted name of the packages and is none.
NO_NAMES = {"theory.html", "spectra.parquet"}
NAME = re.compile(r"(?<![\w/.-])(?:spectra|toymodel|theory|sims)(?:\.(?!md\b)[A-Za-z_]\w*)+(?![\w/.*])")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A Python block: its page, first line, code, and the text block that follows it directly ("" if none)."""

    page: str
    line: int
    code: str
    shown: str

    def has(self, line):
        return line in self.code.splitlines()


def blocks_of(path):
    text, page = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
    fences = list(FENCE.finditer(text))
    for fence, after in zip_longest(fences, fences[1:]):
        if fence[1] in ("python", "py"):
            follows = (
                after is not None and after[1] == "text" and not text[fence.end() : after.start()].strip()
            )
            line = text.count("\n", 0, fence.start(2))
            yield Block(page, line, fence[2], after[2] if follows and after is not None else "")


BLOCKS = {str(path.relative_to(ROOT)): list(blocks_of(path)) for path in PAGES}
DOCTESTS = [path for path in PAGES if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)]


class AnyBlock(nn.ModuleDict):
    """A block that adds its values."""

    def __init__(self):
        super().__init__({"qkv": nn.Linear(64, 192), "out": nn.Linear(64, 64)})

    def forward(self, x):
        return x + self["out"](self["qkv"](x)[..., 128:])


class AnyModel(nn.Module):
    """A model with the modules that docs/checkpoints.md names: width 64, no attention."""

    def __init__(self):
        super().__init__()
        self.tokens, self.drop, self.norm = nn.Embedding(11, 64), nn.Dropout(), nn.LayerNorm(64)
        self.layers = nn.ModuleList([AnyBlock() for _ in range(4)])
        self.head = nn.Linear(64, 11)

    def forward(self, tokens):
        x = self.drop(self.tokens(tokens))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def given():
    """What the pages leave to their readers, by page."""
    model = nn.Linear(32, 10)
    return {
        "README.md": {
            "model": model,
            "batch": (torch.randn(64, 32), torch.randint(10, (64,))),
            "optimizer": torch.optim.SGD(model.parameters()),
        },
        "docs/library.md": {"my_rankme": spectra.rankme},
        "docs/property-testing.md": {"my_function": spectra.covariance_spectrum},
        "docs/checkpoints.md": {"sequences": sequences(vocab=11), "model": AnyModel()},
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with logs/run: a run of two checkpoints with six heads."""
    monkeypatch.setattr(formats, "WIDTH", 24)
    monkeypatch.setattr(formats, "HEADS", 6)
    (tmp_path / "logs" / "run").mkdir(parents=True)
    for seed, step in enumerate((125, 250)):
        state = {"step": step, "code": "", "model": modded_state("rope", seed=seed), "optimizers": []}
        torch.save(state, tmp_path / "logs" / "run" / f"state_step{step:06d}.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def package_missing(block):
    """The package that a block needs and that is not installed, with the reason; None if it can run."""
    entries = [v for (page, line), v in NEEDS.items() if page == block.page and block.has(line)]
    return next((v for v in entries if importlib.util.find_spec(v[0]) is None), None)


def small(block):
    code = block.code
    for words, others in CHANGED.get(block.page, []):
        code = code.replace(words, others)
    return code


def printed_by(block, names):
    # Empty lines in front, so that a traceback gives the line of the page.
    program = compile("\n" * block.line + small(block), str(ROOT / block.page), "exec")
    with redirect_stdout(io.StringIO()) as printed:
        exec(program, names)
    plt.close("all")
    return printed.getvalue()


def unfolded(shown, printed):
    """The lines of a page, with the lines printed in place of each "...   3 laws hold"."""
    lines = []
    for line in shown.splitlines():
        fold = re.fullmatch(r"  \.\.\.   (\d+) laws? holds?", line)
        if not fold:
            lines.append(line)
            continue
        folded = printed.splitlines()[len(lines) : len(lines) + int(fold[1])]
        lines += [found if found.startswith("  ok ") else line for found in folded]
    return lines


def verdicts(lines):
    """The lines that name a law and how it went, without the number of the example."""
    return [re.sub(r" at example \d+", "", line) for line in lines if not line.startswith("   ")]


def run_page(page):
    """Run the blocks of a page in order; yields each with what it printed, and skips if none can run here."""
    names = {"__name__": "__main__", **given().get(page, {})}
    missing = []
    for block in BLOCKS[page]:
        if lacks := package_missing(block):
            missing.append(lacks)
            continue
        yield block, printed_by(block, names)
    if len(missing) == len(BLOCKS[page]):
        pytest.skip("; ".join(f"needs {package}: {reason}" for package, reason in missing))


def pages_with_blocks():
    for page in (page for page, blocks in BLOCKS.items() if blocks):
        yield pytest.param(page, marks=[pytest.mark.slow] if page in (SLOW, GALLERY) else [])


@pytest.mark.parametrize("page", list(pages_with_blocks()))
def test_the_blocks_of_the_page_run_and_print_what_it_shows(folder, page):
    for block, printed in run_page(page):
        if block.shown:
            shown, found = unfolded(block.shown, printed), printed.splitlines()
            short = any(block.has(line) for line in VERDICTS_ONLY)
            assert (verdicts(found) if short else found) == (verdicts(shown) if short else shown)


def broken(report):
    return set(re.findall(r"^  FAIL  (.*?)  ", report, re.MULTILINE))


@pytest.mark.slow
def test_the_slow_page_breaks_no_other_law_on_few_examples(folder, monkeypatch):
    monkeypatch.setitem(spectra.testing.check_estimator.__kwdefaults__, "max_examples", 5)
    monkeypatch.setattr("spectra.testing.check.RESTARTS", 0)
    reports = [(block.shown, printed) for block, printed in run_page(SLOW) if block.shown]
    assert len(reports) == 5
    for shown, printed in reports:
        assert broken(printed)
        assert broken(printed) <= broken(shown)


@pytest.mark.parametrize("path", DOCTESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of_the_page_print_what_it_shows(folder, path):
    # A fence is no output.
    text = re.sub(r"^```.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    assert doctest.DocTestRunner().run(examples).failed == 0


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_dotted_name_of_the_page_exists(path):
    for name in set(NAME.findall(path.read_text(encoding="utf-8"))) - NO_NAMES:
        assert resolve_name(name) is not None, name


def test_nothing_is_listed_that_no_page_has():
    every = [block for blocks in BLOCKS.values() for block in blocks]
    assert len(every) >= 10
    assert (ROOT / "docs" / "compare.md") in DOCTESTS
    for (page, line), (package, _) in NEEDS.items():
        assert [re.search(rf"^(from|import) {package}\b", b.code, re.M) for b in BLOCKS[page] if b.has(line)]
    for page, changes in CHANGED.items():
        for words, _ in changes:
            assert sum(words in block.code for block in BLOCKS[page]) == 1, (page, words)
    for page, names in given().items():
        for name in names:
            assert any(re.search(rf"\b{name}\b", block.code) for block in BLOCKS[page]), (page, name)
    assert all(any(name in path.read_text(encoding="utf-8") for path in PAGES) for name in NO_NAMES)
    for line in VERDICTS_ONLY:
        assert sum(block.has(line) and bool(block.shown) for block in every) == 1, line


def test_a_block_that_raises_or_prints_otherwise_is_found():
    block = Block("README.md", 6, "print(1)\nraise KeyError('x')\n", "")
    with pytest.raises(KeyError) as error:
        printed_by(block, {})
    assert error.traceback[-1].lineno == 7  # counted from 0: line 8 of the page
    printed = "head\n  ok    a\n  FAIL  b  first seen at example 3\n          found 1\n"
    shown = "head\n  ...   1 law holds\n  FAIL  b  first seen at example 4\n          found 2\n"
    assert unfolded(shown, printed) != printed.splitlines()
    assert verdicts(unfolded(shown, printed)) == verdicts(printed.splitlines())
    assert verdicts(unfolded("head\n  ...   2 laws hold\n", printed)) != verdicts(printed.splitlines())
