"""How much memory a step takes, from one step on tensors that have a shape and no content."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sims.runs.lm_config import LmConfig
from sims.training.trainer import LanguageModel, gradient_vectors
from toymodel.trainable import Trainable

# A GPU's own operations where there is one: a processor rounds to bfloat16 by way of float32, which takes more.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Memory:
    """Bytes of one step on one device.

    Attributes:
        resident: parameters, gradients and moments of the optimisers.
        peak: the most that is alive at any time, these included.
    """

    resident: int
    peak: int


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside it and are still alive.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def step_memory(config: LmConfig, micro_batch: int, recompute: bool) -> Memory:
    """What a step of this run takes on one device, without making any of it.

    Every tensor of one forward pass, backward pass and update is counted while it is alive. Not counted: what an
    allocator loses between tensors, workspaces of kernels, and the buckets in which ranks exchange gradients (as large
    as the gradients). A GPU needs about a tenth more.

    Args:
        config: the run.
        micro_batch: sequences that the device takes at once.
        recompute: whether blocks are run a second time.
    """
    with FakeTensorMode(), Live() as live:
        transformer = config.transformer(recompute)
        trainable = Trainable(
            transformer, torch.tensor([config.lr]), [config.weight_decay], config.newton_schulz, DEVICE
        )
        model = LanguageModel(transformer, trainable.params)
        grads = gradient_vectors(trainable, model)
        resident = live.now
        tokens = torch.zeros(micro_batch, config.length + 1, dtype=torch.long, device=DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=config.precision == "bfloat16"):
            loss = model(tokens)
        loss.backward()
        del loss
        trainable.step(grads, 1)
    return Memory(resident, live.peak)
