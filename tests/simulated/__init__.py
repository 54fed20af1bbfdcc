"""A CUDA device without a GPU: it computes on the processor, behaves like a device, and counts what it is asked to do.

    with simulated_device() as device:
        ensemble = Ensemble(configs, "cuda")
        with device.counting() as counts:
            ensemble.advance(1)
    print(counts)  # launches, synchronisations, transfers, bytes, by line of the project

What it does as a real device would: tensors report cuda:0; an operation on tensors of both devices is refused; numpy
of a device tensor is refused; whatever makes the host wait is counted as a synchronisation (`counts.py` lists it);
copies are counted with their bytes; a CUDA graph records without executing, refuses what a capture refuses, and
replays on the memory that it was captured on.

What it does not do: it has no time and no streams, and its numbers are the processor's. A count is a number of
dispatched operations: one of them may start several kernels. Autocast does not convert its tensors.
"""

from simulated.counts import Counts, Transfer
from simulated.cuda import simulated_device
from simulated.device import SimulatedDevice, SimulatedTensor

__all__ = ["Counts", "SimulatedDevice", "SimulatedTensor", "Transfer", "simulated_device"]
