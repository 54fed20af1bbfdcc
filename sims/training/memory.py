"""Compute the memory of a training step without allocating it.

One step runs on fake tensors, which have a shape and no content.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sims.runs.lm_config import LmConfig
from sims.training.language_model import LanguageModel, gradient_vectors
from toymodel.trainable import Trainable

# Operations differ by device: a CPU converts to bfloat16 through float32, which takes more memory than a GPU.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Memory:
    """Hold the bytes of one step on one device.

    Attributes:
        resident: parameters, gradients and moments of the optimisers.
        peak: largest total of all live tensors, these included.
    """

    resident: int
    peak: int


class Live(TorchDispatchMode):
    """Count the bytes of live tensors created inside this mode.

    Attributes:
        now: bytes alive at present.
        peak: largest value of `now` so far.
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
    """Return the memory of one step on one device.

    Every tensor of one forward pass, backward pass and update is counted while it is alive, and what an intervention
    keeps (`toymodel.Intervention.memory`). Not counted are gaps between tensors in the allocator, workspaces of
    kernels, and the buckets in which processes exchange gradients (as large as the gradients). A GPU needs about a
    tenth more.

    Args:
        config: the run.
        micro_batch: sequences that the device takes at once.
        recompute: whether blocks are run a second time in the backward pass.
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
    kept, most = config.intervention.memory(transformer.parameter_count())
    return Memory(resident + kept, max(live.peak + kept, resident + most))
