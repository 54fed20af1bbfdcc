"""What measuring a language model costs: seconds and memory of the token pass and of the gradients, and how they grow.

    python tests/studies/measure_cost.py

prints the tables of docs/bridge.md. A model of the d12 size (768 wide, 12 blocks, 50,304 tokens) with random weights is
measured on random tokens, one thread; about eight minutes on one core. Seconds are those of the process; memory is the
highest resident size over what it was when the case began, so that the model itself is not in it. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sims.measure.engine import measure  # noqa: E402
from sims.measure.gradient_blocks import gradient_grams, plan_blocks  # noqa: E402
from sims.measure.toy import MeasurementData  # noqa: E402
from sims.measure.weights import WEIGHTS  # noqa: E402
from sims.models.gpt import GPT, Architecture  # noqa: E402
from sims.models.module import ModuleSubject  # noqa: E402
from sims.runs.measure_config import MeasureConfig  # noqa: E402
from sims.system.process_group import ProcessGroup  # noqa: E402
from spectra import Moments  # noqa: E402

VOCABULARY, WIDTH = 50_304, 768
ENDINGS = ("attn.q", "attn.v", "attn.o", "mlp.proj")
MB = 2**20


def model(layers: int) -> ModuleSubject:
    arch = Architecture(
        VOCABULARY, WIDTH, layers, heads=6, mlp=4 * WIDTH, activation="relu2", qk_norm=True, tied=False
    )
    torch.manual_seed(0)
    gpt = GPT(arch)
    for parameter in gpt.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return ModuleSubject.of(gpt, arch.layout(), step=0)


def drawn(count: int, length: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (count, length + 1), generator=torch.Generator().manual_seed(1))


def cost(work: Callable[[], object]) -> tuple[float, float]:
    """Process seconds, and MB that were resident at most beyond what was."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, began = resident("VmRSS"), time.process_time()
    work()
    return time.process_time() - began, (resident("VmHWM") - before) / MB


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def token_pass(subject: ModuleSubject, count: int, length: int, batch: int, sites: list[str]) -> None:
    moments = {site: Moments() for site in sites}
    for sequences in drawn(count, length).split(batch):
        for seen in subject.activations(sequences, sites):
            for site, x in seen.items():
                moments[site].update(x.flatten(0, 1))
    for own in moments.values():
        own.spectrum()


def passes() -> None:
    length = 512
    print(
        "\n| blocks | sites | tokens | tokens per forward pass | s | ms per token | MB |\n|---|---|---|---|---|---|---|"
    )
    for layers, site_count, tokens, batch in (
        *((12, 1, 4096, 2048), (12, 6, 4096, 2048), (12, 6, 8192, 2048)),
        *((12, 6, 8192, 4096), (6, 6, 4096, 2048)),
    ):
        subject = model(layers)
        sites = ["final", *(f"blocks.{b}" for b in range(layers))][:site_count]
        work = partial(token_pass, subject, tokens // length, length, batch // length, sites)
        seconds, mb = cost(work)
        cells = (
            layers,
            site_count,
            tokens,
            batch,
            f"{seconds:.1f}",
            f"{1000 * seconds / tokens:.2f}",
            f"{mb:.0f}",
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def gradients() -> None:
    length = 128
    print(f"\nSequences of {length} tokens.\n")
    print(
        "| blocks | matrices | M | budget (GB) | K | passes | planned MB | s | s per sequence and pass | MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for layers, count, budget in (
        (12, 4, 4.0),
        (12, 8, 4.0),
        (12, 16, 4.0),
        (12, 16, 1.5),
        (12, 16, 1.1),
        (6, 8, 4.0),
    ):
        subject = model(layers)
        names = [name for name in subject.matrices if name.endswith(ENDINGS)]
        sequences = drawn(count, length)
        plan = plan_blocks(subject, sequences, names, budget)
        grams = {name: torch.zeros(count, count, dtype=torch.float64) for name in names}
        work = partial(gradient_grams, subject, sequences, names, plan, ProcessGroup(), grams, 0)
        seconds, mb = cost(lambda w=work: list(w()))
        cells = (layers, len(names), count, budget, plan.count, plan.passes, f"{plan.bytes / MB:.0f}")
        each = seconds / count / plan.passes
        print(f"| {' | '.join(map(str, cells))} | {seconds:.1f} | {each:.2f} | {mb:.0f} |", flush=True)


def weights() -> None:
    subject, data = model(12), MeasurementData(MeasureConfig(), drawn(2, 128), probes=())
    seconds, mb = cost(lambda: measure(subject, data, measurements=(WEIGHTS,)))
    print(f"\nSpectra of all {len(subject.matrices)} matrices: {seconds:.1f} s, {mb:.0f} MB", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    began = time.process_time()
    passes()
    gradients()
    weights()
    print(f"\n{(time.process_time() - began) / 60:.1f} minutes of one core", flush=True)
