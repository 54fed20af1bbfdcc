"""`./run gpu` on a machine without a GPU: the whole of it at tiny sizes, on an interpreter with hardly any package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from functools import partial
from pathlib import Path

import pytest
import torch
from simulated import simulated_device

from sims.gpu.__main__ import PARTS, main
from sims.gpu.correctness import _worst
from sims.gpu.lines import LINES, TABLE, Line, Part, Results, work_through
from sims.gpu.setting import Setting
from sims.system.errors import StoreError

ROOT = Path(__file__).parents[2]
# torch itself needs the last two.
BARE = {"torch", "numpy", "scipy", "pytest", "sympy", "jinja2"}
# A line of every part.
ON_DEVICE = (
    ("machine", "eigenvalues of 2 matrices of 16"),
    ("correct", "baseline: CPU against cuda"),
    ("correct", "baseline: again, resumed, eager, alone"),
    ("measure", "untied: 2 members together"),
    ("speed", "baseline, K = 2, bfloat16, graphs"),
    ("cell", "untied, tiny, 3 seeds to 2"),
    ("memory", "tiny untied, 2 sequences at once"),
)
# Runs the code in its second argument as if the packages in its first were not installed.
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

names = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Missing())
exec(sys.argv[2])
"""


def missing_packages():
    """The modules of all packages that this project names but for those of a bare machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        *project["dependencies"],
        *(p for extra in project["optional-dependencies"].values() for p in extra),
    ]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in named} - BARE
    return {name.replace("-", "_") for name in names} | {"dask"}


def on_a_bare_machine(code, cwd):
    # Plugins of pytest are packages of this machine as well.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", WITHOUT, ",".join(missing_packages()), code]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def setting(seconds=60.0, small=True):
    return Setting("cpu", small, time.perf_counter() + seconds)


def part(name, work, seconds=100.0, line_seconds=0.0):
    """A part whose lines are named by the keys of `work`."""
    lines = [Line(key, function, line_seconds) for key, function in work.items()]
    return Part(name, name.title(), seconds, lambda _: lines)


def results(folder, parts=(), **machine):
    return Results(folder, {"device": "cpu", "card": "x", **machine}, parts)


@pytest.mark.slow
def test_everything_runs_at_tiny_sizes_without_any_package(tmp_path):
    done = on_a_bare_machine(
        f"import sims.gpu.__main__ as m; sys.exit(m.main(['--small', '--out', {str(tmp_path)!r}]))", tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    machine, *rows = map(json.loads, (tmp_path / LINES).read_text().splitlines())
    assert machine["small"] is True
    assert {"card", "driver", "versions", "command", "git", "source"} <= machine.keys()
    assert {row["part"] for row in rows} == {p.name for p in PARTS}
    assert [row for row in rows if "error" in row or row.get("ok") is False] == []
    # A processor against itself: the same bits.
    assert {row["worst"] for row in rows if row["part"] == "measure"} == {0.0}
    text = (tmp_path / TABLE).read_text()
    assert all(f"## {p.title}" in text for p in PARTS)


@pytest.mark.slow
def test_every_part_runs_on_a_device_where_mistakes_about_devices_are_refused():
    with simulated_device():
        whole = Setting("cuda", True, time.perf_counter() + 600)
        for name, wanted in ON_DEVICE:
            (chosen,) = (
                line for p in PARTS if p.name == name for line in p.lines(whole) if line.name == wanted
            )
            facts = chosen.work()
            # It has no memory of its own to compare with the estimate.
            assert facts.get("ok", True) or name == "memory", facts
            assert facts.get("captures", 1) == 1


def test_the_parts_fit_in_nine_minutes():
    assert sum(p.seconds for p in PARTS) <= 540


@pytest.mark.slow
def test_the_profile_says_which_packages_it_needs(tmp_path):
    code = (
        f"import sims.gpu.__main__ as m; sys.exit(m.main(['profile', '--small', '--out', {str(tmp_path)!r}]))"
    )
    done = on_a_bare_machine(code, tmp_path)
    assert done.returncode == 2
    assert "lacks pyarrow, pandas, safetensors" in done.stderr


def holding_gpu_tests():
    marked = re.compile(r"^(@|pytestmark\b.*|    )pytest\.mark\.gpu\b", re.MULTILINE)
    files = (path for path in (ROOT / "tests").rglob("test_*.py") if marked.search(path.read_text()))
    return {str(path.relative_to(ROOT)) for path in files}


def test_gpu_tests_are_collected_on_a_bare_machine():
    files = [str(ROOT / name) for name in sorted(holding_gpu_tests())]
    code = f"import pytest; sys.exit(pytest.main(['-m', 'gpu', '--collect-only', '-q', *{files}]))"
    done = on_a_bare_machine(code, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(Path(name).name in done.stdout for name in files)


def test_the_docs_name_the_files_that_hold_gpu_tests():
    holding = holding_gpu_tests()
    assert holding
    section = (ROOT / "docs" / "gpu.md").read_text().partition("## Tests on a GPU")[2].partition("\n## ")[0]
    assert set(re.findall(r"tests/[\w/]+\.py", section)) == holding


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["--out", str(out)]) == 2
    assert "sees no CUDA device" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments", [["--budget", "0"], ["--budget", "nan"], ["--only", "spead"], ["profil"]]
)
def test_wrong_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "error" in capsys.readouterr().err


def test_a_line_is_on_disk_when_it_is_reported_and_is_not_measured_again(tmp_path):
    calls = []

    def measured(name):
        calls.append(name)
        return {"value": 1.0}

    parts = [part("one", {n: partial(measured, n) for n in ("a", "b")})]

    def report(text):
        stored = [json.loads(line)["name"] for line in (tmp_path / LINES).read_text().splitlines()[1:]]
        assert text.split(": ")[1] == stored[-1]
        assert stored[-1] in (tmp_path / TABLE).read_text()

    assert work_through(parts, setting(), results(tmp_path, parts), report) == []
    assert work_through(parts, setting(), results(tmp_path, parts), report) == []
    assert calls == ["a", "b"]


def test_an_error_leaves_the_other_lines_alone_and_is_tried_again(tmp_path):
    broken = [part("one", {"a": lambda: 1 / 0, "b": lambda: {"value": 2.0}})]
    first = results(tmp_path, broken)
    work_through(broken, setting(), first, str)
    assert first.failed == ["one: a"]
    assert [r.get("value") for r in first.rows] == [None, 2.0]
    mended = [part("one", {"a": lambda: {"value": 1.0}, "b": lambda: 1 / 0})]
    second = results(tmp_path, mended)
    work_through(mended, setting(), second, str)
    assert second.failed == []
    assert {r["name"]: r["value"] for r in second.rows} == {"a": 1.0, "b": 2.0}


def test_a_number_that_is_none_is_no_success(tmp_path):
    found = results(tmp_path)
    assert found.add("one", "a", {"value": float("nan"), "ok": True}) == {
        "part": "one",
        "name": "a",
        "value": "nan",
        "ok": False,
    }
    assert found.failed == ["one: a"]


def test_parts_keep_to_their_seconds_and_what_is_left_has_the_rest(tmp_path):
    """A clock that a line moves on by ten seconds: a part of 25 s has two of its three lines, then the other part."""
    now, order = [0.0], []

    def ten(name):
        order.append(name)
        now[0] += 10.0
        return {"value": 1.0}

    parts = [
        part("one", {f"a{i}": partial(ten, f"a{i}") for i in range(3)}, 25.0, 10.0),
        part("two", {"b": partial(ten, "b")}, 100.0, 10.0),
    ]
    for budget, expected, left in (
        (45.0, ["a0", "a1", "b", "a2"], []),
        (35.0, ["a0", "a1", "b"], ["one: a2"]),
    ):
        now[0] = 0.0
        order.clear()
        whole = Setting("cpu", False, budget)
        found = results(tmp_path / str(budget), parts)
        assert work_through(parts, whole, found, str, lambda: now[0]) == left
        assert order == expected


def test_results_of_another_machine_are_refused(tmp_path):
    results(tmp_path, source="1")
    with pytest.raises(StoreError, match=r"source is '1' there, '2' here\); choose another --out"):
        results(tmp_path, source="2")
    (tmp_path / LINES).write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        results(tmp_path)


def test_differences_of_measurements_are_found():
    names = ("object", "site", "quantity", "band", "regime", "set", "window", "detail")
    row = {**dict.fromkeys(names, "x"), "status": "ok", "value": 2.0, "low": float("nan"), "high": 3.0}
    assert _worst([row], [row]) == (0.0, "", 1)
    worst, where, _ = _worst([row], [{**row, "high": 3.3}])
    assert worst == pytest.approx(0.1)
    assert where.endswith("high")
    assert _worst([row], [{**row, "value": float("nan")}])[0] == float("inf")
    assert _worst([row], [{**row, "status": "flagged"}])[0] == float("inf")


def test_the_profile_stops_in_time_and_the_next_call_goes_on(tmp_path):
    for budget in ("0.01", "60"):
        assert main(["profile", "--small", "--budget", budget, "--out", str(tmp_path)]) == 0
    _, first, second = map(json.loads, (tmp_path / LINES).read_text().splitlines())
    assert first["complete"] < first["of"] == 2
    assert (second["name"], second["complete_before"], second["complete"]) == ("call 2", first["complete"], 2)
