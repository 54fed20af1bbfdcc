"""Provenance of a result: versions, device, command and git state."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sims.system.machine import cores
from spectral_lens import __version__

PACKAGES = ("torch", "numpy", "scipy", "pandas", "pyarrow")


def provenance(device: str) -> dict[str, Any]:
    """Return a JSON-ready record of this process and machine."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "git": git_state(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect numbers."""
    return {"spectral-lens": __version__, **{name: _version(name) for name in PACKAGES}}


def surroundings() -> str:
    """Return versions and devices in two lines, as `speclens --version` shows them."""
    packages = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numpy", "scipy", "pandas"))
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices = ", ".join(f"{cards.count(card)} × {card}" for card in dict.fromkeys(cards)) or "no GPU"
    return f"Python {platform.python_version()}, {packages}\n{cores()} cores of {_processor()}, {devices}"


def git_state() -> dict[str, Any] | None:
    """Return commit and dirtiness of the checkout that this package runs from; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
