"""The public packages are typed: a user's file that uses them passes pyright in strict mode."""

import importlib
import importlib.util
import inspect
import json
import math
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

import spectra

ROOT = Path(__file__).parents[1]
USER = ROOT / "tests" / "data" / "typed_user.py"


def test_a_users_file_runs():
    names = runpy.run_path(str(USER))
    layer, data = torch.nn.Linear(16, 3), torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    assert all(math.isfinite(value) for value in names["measured"](layer, data).values())
    assert names["gradients"](torch.nn.Sequential(layer), data)["0"].kind == "singular"
    spectrum = spectra.Spectrum(list(range(1, 12)), n=40, d=11)
    assert names["shown"](spectrum, spectra.Estimate(1.2, 1.0, 1.4))[0] == "1.20 [1.00, 1.40]"
    assert names["tested"]().passed
    plt.close("all")


@pytest.mark.parametrize("module", ["spectra", "spectra.nulls", "spectra.plots"])
def test_no_argument_of_a_public_function_takes_anything(module):
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [n for n in vars(found) if not n.startswith("_")]
    functions = [
        f for n in names if inspect.isfunction(f := getattr(found, n)) and f.__module__.startswith(module)
    ]
    methods = [
        method
        for n in names
        if inspect.isclass(own := getattr(found, n)) and own.__module__.startswith(module)
        for key, method in vars(own).items()
        if inspect.isfunction(method) and not key.startswith("_")
    ]
    # Styles of matplotlib, what was saved, and what a module may return.
    open_ended = {"style", "state", "rows"}
    assert len(functions) > 3
    for function in [*functions, *methods]:
        for name, kind in function.__annotations__.items():
            assert (
                "Any" not in str(kind).replace("tuple[Any, ...]", "")
                or name in open_ended
                or name == "return"
            ), (
                function.__qualname__,
                name,
                kind,
            )


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("pyright") is None, reason="needs pyright (./run lint installs it)"
)
def test_a_users_file_passes_in_strict_mode(tmp_path):
    shutil.copy(USER, tmp_path)
    settings = {
        "include": ["."],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT)],
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [
        sys.executable,
        "-m",
        "pyright",
        "--pythonpath",
        sys.executable,
        "-p",
        str(tmp_path),
        "--outputjson",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    found = json.loads(run.stdout)
    assert found["summary"]["filesAnalyzed"] == 1
    said = [f"{d['range']['start']['line'] + 1}: {d['message']}" for d in found["generalDiagnostics"]]
    assert said == []
