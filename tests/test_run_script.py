"""The `run` script, with a stand-in for Python that only notes what it is asked to do: nothing is installed.

The script is copied into a small checkout of its own, so that every test has a `.venv` to make and to break.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="run is a POSIX shell script")

# Makes what the real steps would make. The questions that the script asks with -c or on standard input are passed
# to the real interpreter, except whether pip is there.
STAND_IN = """#!/bin/sh
here=${0%/*}
echo "$*" >>"$NOTES"
case "$*" in
"-c import pip") [ -f "$here/pip" ] ;;
"-c import sys, torch"*) [ -n "${CUDA:-}" ] ;;
"-c "* | "- "*) exec REAL "$@" ;;
"-m venv --without-pip "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
"-m ensurepip") [ -z "${NO_PIP:-}" ] && : >"$here/pip" ;;
"-m pip --python "*) [ -z "${NO_PIP:-}" ] ;;
*.whl/pip\\ install*) : >"$here/pip" ;;
"-m pip install "*)
    [ -z "${HANG:-}" ] || sleep 600
    [ -z "${FAIL:-}" ] || exit 1
    for tool in speclens ruff lint-imports pyright mkdocs; do
        {
            printf '#!/bin/sh\\necho "%s|$PWD|$OMP_NUM_THREADS|$*"\\n' $tool
            echo 'sleep ${TOOL_SLEEP:-0}; exit ${TOOL_RC:-0}'
        } >"$here/$tool"
        chmod +x "$here/$tool"
    done
    ;;
"-m sims.gpu"*) echo "$0|$PYTHONPATH|$*" ;;
-) echo "$INSTRUCTIONS" ;;
"-m pytest "*)
    echo "pytest|$PWD|$*"
    [ -z "${NPY_DISABLE_CPU_FEATURES+x}" ] || echo "$ATEN_CPU_CAPABILITY without $NPY_DISABLE_CPU_FEATURES"
    [ "${ATEN_CPU_CAPABILITY:-}" != "${FAIL_AS:-none}" ]
    ;;
*) exit 9 ;;
esac
""".replace("REAL", sys.executable)


class Checkout:
    """A copy of the script with its two key files, and how to call it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "check out"  # a space, as people have them
        self.root.mkdir()
        for name in ("run", "pyproject.toml", "constraints.txt"):
            shutil.copy(SOURCE / name, self.root / name)
        self.python = folder / "stand-in"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        self.notes = folder / "notes"
        self.notes.touch()
        self.venv = self.root / ".venv"
        drop = ("SPECLENS_VENV", "OMP_NUM_THREADS", "PIP_INDEX_URL")
        self.env = {k: v for k, v in os.environ.items() if k not in drop}
        self.env |= {"PYTHON": str(self.python), "NOTES": str(self.notes)}

    def start(self, *arguments: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.root / "run"), *arguments],
            cwd=cwd or self.root,
            env=self.env | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, *arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, cwd=cwd, **env)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def noted(self, part: str) -> int:
        return sum(part in line for line in self.notes.read_text().splitlines())


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("name", ["run", ".ci/run"])
def test_scripts_are_executable_and_parse(name: str):
    path = SOURCE / name
    shell = "sh" if name == "run" else "bash"
    assert os.access(path, os.X_OK)
    assert subprocess.run([shell, "-n", str(path)], check=False).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", str(path)], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",), ("-h",)])
def test_help_names_the_commands_and_prepares_nothing(checkout: Checkout, arguments: tuple[str, ...]):
    result = checkout.call(*arguments)
    assert result.returncode == 0
    for word in ("./run demo", "./run test", "./run lint", "PYTHON", "SPECLENS_VENV"):
        assert word in result.stdout
    assert not checkout.venv.exists()


def test_first_call_prepares_and_later_calls_start_at_once(checkout: Checkout, tmp_path: Path):
    first = checkout.call("demo", "--out", "a b", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"speclens|{tmp_path}|1|demo --out a b\n"
    assert "making" in first.stderr
    assert checkout.noted("-m pip install --disable-pip-version-check -c constraints.txt -e .[test]") == 1
    second = checkout.call("train", OMP_NUM_THREADS="3", TOOL_RC="7")
    assert (second.returncode, second.stdout) == (7, f"speclens|{checkout.root}|3|train\n")
    assert second.stderr == ""
    assert checkout.noted("-m venv") == 1


def test_the_cpu_build_is_pointed_out_on_linux_only_where_it_helps(checkout: Checkout):
    hint = "https://download.pytorch.org/whl/cpu"
    assert (hint in checkout.call("demo").stderr) == (sys.platform == "linux")
    shutil.rmtree(checkout.venv)
    assert hint not in checkout.call("demo", PIP_EXTRA_INDEX_URL="https://mirror.example/simple").stderr


def test_tests_run_on_at_most_eight_cores_and_get_their_arguments(checkout: Checkout, tmp_path: Path):
    result = checkout.call("test", "-m", "slow", cwd=tmp_path)
    cores = min(os.cpu_count() or 1, 8)
    assert result.stdout == f"pytest|{checkout.root}|-m pytest -n {cores} --dist worksteal -m slow\n"


def test_processors_are_those_older_than_this_one_and_numpy_follows(checkout: Checkout):
    newest = "avx512 X86_V3 X86_V4 AVX512_ICL"
    result = checkout.call("processors", "-x", INSTRUCTIONS=newest)
    assert result.returncode == 0, result.stderr
    assert "older ones to test: default avx2" in result.stderr
    pytests, without = result.stdout.splitlines()[::2], result.stdout.splitlines()[1::2]
    assert without == ["default without X86_V3 X86_V4 AVX512_ICL", "avx2 without X86_V4 AVX512_ICL"]
    assert all(line.endswith(" -x tests/toymodel tests/spectra") for line in pytests)
    older = checkout.call("processors", INSTRUCTIONS="avx2 X86_V3")
    assert older.stdout.splitlines()[1::2] == ["default without X86_V3"]
    oldest = checkout.call("processors", INSTRUCTIONS="default")
    assert (oldest.returncode, oldest.stdout) == (0, "")
    assert "older ones to test: none" in oldest.stderr
    # A failure on one does not keep the others from running.
    failed = checkout.call("processors", INSTRUCTIONS=newest, FAIL_AS="default")
    assert failed.returncode == 1
    assert len(failed.stdout.splitlines()) == 4
    assert "failed with the instructions of: default" in failed.stderr


def test_the_matrix_tests_each_pair_in_an_environment_that_stays(checkout: Checkout, tmp_path: Path):
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    tools = tmp_path / "tools"
    tools.mkdir()
    shutil.copy(checkout.python, tools / f"python{version}")
    path = f"{tools}:{os.environ['PATH']}"
    for _ in range(2):
        result = checkout.call("matrix", f"{version}:2.11.0", "3.99:2.11.0", PATH=path)
        assert result.returncode == 0, (
            result.stderr + (checkout.root / f".venv-matrix/{version}-2.11.0.log").read_text()
        )
        heading, first, second = result.stdout.strip().splitlines()
        assert heading.split() == ["python", "torch", "outcome"]
        assert first.split()[:3] == [version, "2.11.0", "passed"]
        assert "tests/spectra tests/toymodel" in first
        assert "skipped: no Python 3.99 here" in second
    pair = checkout.root / ".venv-matrix" / f"{version}-2.11.0"
    pins = pair.with_name(pair.name + ".txt").read_text().splitlines()
    assert "torch==2.11.0" in pins
    assert not [line for line in pins if line.startswith("numpy==")]
    assert checkout.noted(f"-m venv --without-pip {pair}") == 1
    assert checkout.noted(f"-c {pair}.txt -e .[test]") == 1
    failed = checkout.call("matrix", f"{version}:2.11.0", PATH=path, TOOL_RC="1")
    assert failed.returncode == 1
    assert "failed in" in failed.stdout
    assert f"failed: {version}:2.11.0" in failed.stderr
    assert checkout.call("matrix", "3.12").returncode == 1


def test_gpu_takes_an_interpreter_that_sees_a_gpu_as_it_is_and_else_the_environment(
    checkout: Checkout, tmp_path: Path
):
    seen = checkout.call("gpu", "--out", "a b", cwd=tmp_path, CUDA="1", PYTHONPATH="")
    assert seen.stdout == f"{checkout.python}|{checkout.root}|-m sims.gpu --out a b\n"
    assert not checkout.venv.exists()
    unseen = checkout.call("gpu", "--small", PYTHONPATH="/more")
    assert unseen.stdout == f"{checkout.venv}/bin/python|{checkout.root}:/more|-m sims.gpu --small\n"


@pytest.mark.skipif(
    Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None, reason="this machine has a GPU"
)
def test_gpu_makes_no_environment_on_a_machine_without_one(checkout: Checkout):
    result = checkout.call("gpu", "profile")
    assert result.returncode == 1
    assert "no GPU" in result.stderr
    assert not checkout.venv.exists()


def test_lint_installs_its_tools_once_and_runs_all_of_them(checkout: Checkout):
    for _ in range(2):
        result = checkout.call("lint")
        assert result.returncode == 0, result.stderr
        assert [line.split("|")[0] for line in result.stdout.splitlines()] == [
            "ruff",
            "ruff",
            "lint-imports",
            "pyright",
        ]
    assert checkout.noted("-e .[dev]") == 1
    failed = checkout.call("lint", TOOL_RC="1")
    assert failed.returncode == 1
    assert "ruff-check ruff-format lint-imports pyright" in failed.stderr


def test_docs_installs_its_tools_once_and_builds_a_site_whose_warnings_are_errors(
    checkout: Checkout, tmp_path: Path
):
    for arguments, asked in (((), "build --strict"), (("serve",), "serve")):
        result = checkout.call("docs", *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"mkdocs|{checkout.root}|1|{asked}\n"
    assert checkout.noted("-e .[docs]") == 1
    assert checkout.call("docs", TOOL_RC="1").returncode == 1
    wrong = checkout.call("docs", "--strict")
    assert wrong.returncode == 1
    assert "got --strict" in wrong.stderr


def test_a_changed_key_updates_and_reinstalls_the_lint_tools(checkout: Checkout):
    checkout.call("lint")
    checkout.call("docs")
    with (checkout.root / "constraints.txt").open("a") as file:
        file.write("# newer\n")
    result = checkout.call("lint")
    assert "updating" in result.stderr
    assert [checkout.noted(x) for x in ("-m venv", "-e .[test]", "-e .[dev]")] == [1, 2, 2]
    checkout.call("docs")
    assert checkout.noted("-e .[docs]") == 2


def test_a_moved_checkout_is_rebuilt(checkout: Checkout):
    checkout.call("demo")
    checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    assert checkout.call("demo").returncode == 0
    assert checkout.noted("-m venv") == 2


def test_an_environment_whose_python_went_away_is_rebuilt(checkout: Checkout):
    checkout.call("lint")
    (checkout.venv / "bin" / "python").unlink()
    assert checkout.call("demo").returncode == 0
    assert checkout.noted("-m venv") == 2
    checkout.call("lint")
    assert checkout.noted("-e .[dev]") == 2


def test_a_failed_installation_says_so_and_the_next_call_starts_over(checkout: Checkout):
    failed = checkout.call("demo", FAIL="1")
    assert failed.returncode == 1
    assert "installation failed" in failed.stderr
    (checkout.venv / "leftover").touch()
    assert checkout.call("demo").returncode == 0
    assert not (checkout.venv / "leftover").exists()


@pytest.mark.parametrize("whole_group", [True, False], ids=["with pip", "shell only"])
def test_a_killed_installation_is_started_over(checkout: Checkout, whole_group: bool):
    process = checkout.start("demo", HANG="1")
    _wait_for(lambda: checkout.noted("-m pip install") == 1)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        again = checkout.call("demo")
    else:
        # pip outlives the shell and still writes: its lock must keep the next call out.
        process.kill()
        process.wait()
        waiting = checkout.start("demo")
        assert waiting.stderr is not None
        assert "waiting" in waiting.stderr.readline()
        assert checkout.noted("-m venv") == 1
        os.killpg(process.pid, signal.SIGKILL)
        out, err = waiting.communicate(timeout=300)
        again = subprocess.CompletedProcess("demo", waiting.returncode, out, err)
    assert again.returncode == 0, again.stderr
    assert checkout.noted("-m venv") == 2


def test_calls_at_the_same_time_install_once(checkout: Checkout):
    processes = [checkout.start("demo", str(i)) for i in range(4)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert sorted(out[-2] for out, _ in outputs) == ["0", "1", "2", "3"]
    assert checkout.noted("-m pip install") == 1


def test_a_long_command_does_not_hold_the_lock(checkout: Checkout):
    process = checkout.start("demo", TOOL_SLEEP="600")
    _wait_for(lambda: (checkout.venv / ".speclens" / "ready").exists())
    assert checkout.call("lint").returncode == 0
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_an_environment_of_somebody_else_is_left_alone(checkout: Checkout):
    checkout.venv.mkdir()
    (checkout.venv / "mine").touch()
    result = checkout.call("demo")
    assert result.returncode == 1
    assert "was not made by ./run; remove it, or choose another place: SPECLENS_VENV" in result.stderr
    assert [entry.name for entry in checkout.venv.iterdir()] == ["mine"]
    assert checkout.call("demo", SPECLENS_VENV="other").returncode == 0
    assert (checkout.root / "other" / ".speclens" / "ready").is_file()


def test_the_environment_of_another_checkout_is_left_alone(checkout: Checkout, tmp_path: Path):
    assert checkout.call("demo").returncode == 0
    (tmp_path / "elsewhere").mkdir()
    other = Checkout(tmp_path / "elsewhere")
    before = sorted(checkout.venv.rglob("*"))
    result = other.call("demo", SPECLENS_VENV=str(checkout.venv))
    assert result.returncode == 1
    assert f"belongs to the checkout {checkout.root}; choose another place: SPECLENS_VENV" in result.stderr
    assert sorted(checkout.venv.rglob("*")) == before
    assert "-m venv" not in other.notes.read_text()
    # Once that checkout is gone, nobody uses it.
    (checkout.root / "run").unlink()
    assert other.call("demo", SPECLENS_VENV=str(checkout.venv)).returncode == 0


def test_without_any_python_it_says_how_to_get_one(checkout: Checkout, tmp_path: Path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat", "cksum"):
        (tools / name).symlink_to(str(shutil.which(name)))
    bare = checkout.call("demo", PATH=str(tools), PYTHON="")
    assert bare.returncode == 1
    for word in ("needs Python 3.11 or newer and found none.", "apt install python3", "brew", "PYTHON=/path"):
        assert word in bare.stderr
    old = tools / "python3"
    pretend = "import sys; code = sys.argv[2]; sys.version_info = (3, 9, 2); exec(code)"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{pretend}' \"$@\"\n")
    old.chmod(0o755)
    assert "found none; python3 is Python 3.9.2." in checkout.call("demo", PATH=str(tools), PYTHON="").stderr
    named = checkout.call("demo", PYTHON=str(old))
    assert f"PYTHON is {old} (Python 3.9.2); give a Python 3.11" in named.stderr
    missing = checkout.call("demo", PYTHON="/no/such/python")
    assert "PYTHON is /no/such/python, which does not exist" in missing.stderr
    assert (named.returncode, missing.returncode) == (1, 1)
    assert not checkout.venv.exists()


class _Index(http.server.BaseHTTPRequestHandler):
    wheel = b"a wheel of pip"
    as_json = True
    digest = hashlib.sha256(wheel).hexdigest()
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if self.path != "/simple/pip/":
            return self._answer(self.wheel, "application/zip")
        names = ["pip-9.0.1-py2.py3-none-any.whl", "pip-23.2-py3-none-any.whl", "pip-24.10-py3-none-any.whl"]
        names += ["pip-24.9-py3-none-any.whl", "pip-99.0-py3-none-any.whl", "pip-98.0-py3-none-any.whl"]
        names += ["pip-97.0b1-py3-none-any.whl", "pip-97.0.tar.gz"]
        needs = {"pip-99.0-py3-none-any.whl": ">=3.99"}
        yanked = {"pip-98.0-py3-none-any.whl"}
        if self.as_json:
            files = [
                {"url": f"../../files/{n}", "hashes": {"sha256": self.digest}, "yanked": n in yanked}
                | ({"requires-python": needs[n]} if n in needs else {})
                for n in names
            ]
            return self._answer(json.dumps({"files": files}).encode(), "application/vnd.pypi.simple.v1+json")
        rows = [
            f'<a href="../../files/{n}#sha256={self.digest}"'
            + (f' data-requires-python="{needs[n].replace(">", "&gt;")}"' if n in needs else "")
            + (' data-yanked=""' if n in yanked else "")
            + f">{n}</a><br>"
            for n in names
        ]
        return self._answer("\n".join(rows).encode(), "text/html")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[str]]]:
    handler = type("Index", (_Index,), {"asked": [], **request.param})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple/", handler.asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "index", [{"as_json": True}, {"as_json": False}], indirect=True, ids=["json", "html"]
)
def test_pip_comes_from_the_index_where_python_has_none(checkout: Checkout, index: tuple[str, list[str]]):
    url, asked = index
    result = checkout.call("demo", NO_PIP="1", PIP_INDEX_URL=url, no_proxy="*")
    assert result.returncode == 0, result.stderr
    # The newest stable, not yanked, that runs on this Python: 24.10 is newer than 24.9.
    assert asked == ["/simple/pip/", "/files/pip-24.10-py3-none-any.whl"]
    assert checkout.noted("pip-24.10-py3-none-any.whl/pip install") == 1
    assert not list(checkout.venv.glob(".speclens/*.whl"))


@pytest.mark.parametrize("index", [{"digest": "0" * 64}], indirect=True, ids=["damaged"])
def test_a_damaged_or_unreachable_pip_is_refused(checkout: Checkout, index: tuple[str, list[str]]):
    damaged = checkout.call("demo", NO_PIP="1", PIP_INDEX_URL=index[0], no_proxy="*")
    assert damaged.returncode == 1
    assert "SHA-256 differs" in damaged.stderr
    nowhere = checkout.call("demo", NO_PIP="1", PIP_INDEX_URL="http://127.0.0.1:9/simple", no_proxy="*")
    assert nowhere.returncode == 1
    assert "no package index at http://127.0.0.1:9/simple/pip/" in nowhere.stderr
    assert "apt install python3-venv" in nowhere.stderr
    assert checkout.noted("-m pip install") == 0


def _wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)
