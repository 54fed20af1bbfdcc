"""What this machine is, and the rates that bound everything on it."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import scipy
import torch

from sims.gpu.lines import Facts, Line, Part
from sims.gpu.setting import Setting
from sims.system.provenance import git_state
from toymodel.config import Precision

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")


def machine(setting: Setting) -> Facts:
    """Return card, driver, versions, command and revision: everything that the numbers depend on."""
    return {
        "device": setting.device,
        "card": torch.cuda.get_device_name() if setting.cuda else platform.processor() or platform.machine(),
        "driver": _driver() if setting.cuda else "none",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": str(torch.version.cuda),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "small": setting.small,
        "threads": torch.get_num_threads(),
        "command": " ".join(["python -m sims.gpu", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": git_state(),
        "source": source_digest(),
    }


def source_digest() -> str:
    """Return 12 digits that change with every source file behind the numbers.

    A copy of the project without its repository has no revision, and a dirty checkout is not what its revision says.
    """
    digest = hashlib.sha256()
    for package in ("spectra", "toymodel", "sims"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def _lines(setting: Setting) -> Iterator[Line]:
    size = 64 if setting.small else 8_192
    for kind in PRECISIONS:
        yield Line(f"product of {size} × {size}, {kind}", partial(_square, setting, size, kind), 3)
    yield Line("copy on the device", partial(_copy, setting), 3)
    # The products of a step: (K, B·T, d) × (K, d, width).
    members, rows = (2, 64) if setting.small else (15, 2_048)
    for width in (128, 384, 1_024):
        for kind in PRECISIONS:
            name = f"{members} × ({rows} × 128) · (128 × {width}), {kind}"
            yield Line(name, partial(_batched, setting, members, rows, width, kind), 2)
    # Solvers of the measurements.
    for count, size in ((2, 16),) if setting.small else ((15, 128), (60, 64), (210, 128)):
        yield Line(
            f"eigenvalues of {count} matrices of {size}", partial(_eigenvalues, setting, count, size), 3
        )


def _pair(setting: Setting, kind: str, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    return [torch.randn(shape, device=setting.device).to(dtype) for shape in shapes]


def _square(setting: Setting, size: int, kind: str) -> Facts:
    a, b = _pair(setting, kind, (size, size), (size, size))
    with tf32(kind == "tf32"):
        ms = setting.milliseconds(lambda: a @ b)
    return {"tflops": 2 * size**3 / ms / 1e9}


def _batched(setting: Setting, members: int, rows: int, width: int, kind: str) -> Facts:
    x, w = _pair(setting, kind, (members, rows, 128), (members, width, 128))
    with tf32(kind == "tf32"):
        ms = setting.milliseconds(lambda: torch.bmm(x, w.transpose(1, 2)))
    return {"us": ms * 1e3, "tflops": 2 * members * rows * 128 * width / ms / 1e9}


def _copy(setting: Setting) -> Facts:
    x = torch.empty(2**20 if setting.small else 2**30, dtype=torch.uint8, device=setting.device)
    y = torch.empty_like(x)
    return {"tb_s": 2 * x.numel() / setting.milliseconds(lambda: y.copy_(x)) / 1e9}


def _eigenvalues(setting: Setting, count: int, size: int) -> Facts:
    a = torch.randn(count, size, size, dtype=torch.float64, device=setting.device)
    gram = a @ a.mT
    host = gram.cpu()
    on_host = []
    for _ in range(3):
        began = time.perf_counter()
        torch.linalg.eigvalsh(host)
        on_host.append(time.perf_counter() - began)
    return {
        "device_ms": setting.milliseconds(lambda: torch.linalg.eigvalsh(gram)),
        "host_ms": 1e3 * min(on_host),
    }


class tf32:
    """Allow TensorFloat-32 in products, or forbid it, for a while."""

    def __init__(self, allowed: bool) -> None:
        self.wanted = "high" if allowed else "highest"

    def __enter__(self) -> None:
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.wanted)

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self.before)


MACHINE = Part("machine", "Rates of the machine", 30, _lines)
