"""Tensors that report cuda:0 and hold memory of the host, and the device that runs operations on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from simulated.counts import NO_LAUNCH, WAITING, Counts, line
from simulated.graph import Recording

_scaled_dot_product_attention = F.scaled_dot_product_attention
CUDA, HOST = torch.device("cuda", 0), torch.device("cpu")


class SimulatedTensor(Tensor):
    """A tensor that reports cuda:0; `memory` is the host tensor with its numbers."""

    device_of: ClassVar[SimulatedDevice | None] = None
    __torch_function__ = torch._C._disabled_torch_function_impl
    memory: Tensor

    @staticmethod
    def __new__(cls, memory: Tensor) -> SimulatedTensor:
        # To C++ it is a tensor without memory; what it does with it arrives in `SimulatedDevice.run`.
        made = Tensor._make_wrapper_subclass(
            cls,
            memory.size(),
            strides=memory.stride(),
            storage_offset=memory.storage_offset(),
            dtype=memory.dtype,
            device="meta",
        )
        made.memory = memory
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    is_cpu = property(lambda self: False)

    def __repr__(self, **_: Any) -> str:
        return f"simulated({self.memory!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if cls.device_of is None:
            raise RuntimeError(f"{func} on a tensor of a simulated device that is no longer there")
        return cls.device_of.run(func, args, kwargs or {})


class SimulatedDevice:
    """Run operations on the host as a CUDA device would, and count them."""

    def __init__(self) -> None:
        self.active: list[Counts] = []
        self.recording: Recording | None = None
        self.traces: list[Recording] = []
        # Pinned memory of the host by address; kept, so that no address is used twice.
        self.pinned: dict[int, Tensor] = {}

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what happens inside."""
        counts = Counts()
        self.active.append(counts)
        try:
            yield counts
        finally:
            self.active = [c for c in self.active if c is not counts]

    @contextmanager
    def tracing(self) -> Iterator[Recording]:
        """Record operations, their plain arguments and the memory that they use, executing them.

        What two passes record is equal if and only if a CUDA graph of the first computes the second.
        """
        trace = Recording()
        self.traces.append(trace)
        try:
            yield trace
        finally:
            self.traces = [t for t in self.traces if t is not trace]

    def waits(self, name: str) -> None:
        """Count a synchronisation; refuse it during a capture."""
        self._refuse_in_capture(name)
        for counts in self.active:
            counts.waited(name)

    def transfers(self, to: Any, tensor: Tensor, waits: bool) -> None:
        """Count a copy; refuse one that waits during a capture."""
        if waits:
            self._refuse_in_capture(f"copy to the {to} from memory that is not pinned")
        for counts in self.active:
            counts.transferred(to, _bytes(tensor), waits)

    def _recordings(self) -> list[Recording]:
        return self.traces if self.recording is None else [*self.traces, self.recording]

    def _refuse_in_capture(self, name: str) -> None:
        if self.recording is not None:
            raise RuntimeError(
                f"CUDA error: operation not permitted when stream is capturing: {name} at {line()}"
            )

    def launch(
        self, name: str, kernel: Callable[..., Any], args: Any, kwargs: Any, mutated: list[Any] | None = None
    ) -> Any:
        """Execute a kernel on the memory of tensors of the device; count and record it; return host tensors."""
        if self.recording is not None:
            self.recording.protect(mutated or ())
        out = kernel(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))
        for recording in self._recordings():
            recording.add(name, kernel, args, kwargs, out, bool(mutated))
        if self.active:
            read = [_bytes(t) for t in tree_leaves((args, kwargs)) if isinstance(t, SimulatedTensor)]
            written = [_bytes(t) for t in tree_leaves(out) if isinstance(t, Tensor)]
            for counts in self.active:
                counts.launched(name, read, written)
        return out

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation that PyTorch dispatches."""
        name = func._schema.name.partition("::")[2]
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        here = any(isinstance(t, SimulatedTensor) for t in tensors)
        asked = kwargs.get("device")
        to_device = asked is not None and torch.device(asked).type in ("cuda", "meta")
        if not here and not to_device:
            out = func(*args, **kwargs)
            return self.pin(out) if kwargs.get("pin_memory") else out
        options = {**kwargs, **({} if asked is None else {"device": HOST})}
        options.pop("pin_memory", None)
        if name == "_to_copy":
            return self._copy(func, args, options, here, asked, to_device)
        if asked is not None and not to_device:
            # A new tensor of the host, of the shape of one of the device.
            return func(*tree_map(_unwrap, args), **options)
        if name == "copy_" and any(not isinstance(t, SimulatedTensor) and t.dim() for t in tensors):
            return self._copy_into(func, args, options)
        self._check_devices(name, args, tensors)
        mutated = _mutated(func, args, kwargs)
        if func.is_view or name in NO_LAUNCH:
            out = func(*tree_map(_unwrap, args), **tree_map(_unwrap, options))
            if "empty" in name:
                for recording in self._recordings():
                    recording.allocated(t for t in tree_leaves(out) if isinstance(t, Tensor))
        else:
            if name in WAITING or _looks_for_true(name, args):
                self.waits(name)
            out = self.launch(name, func, args, options, mutated)
        if func._schema.is_mutable and len(func._schema.returns) <= 1:
            return mutated[0] if func._schema.returns else None
        return tree_map(_wrap, out)

    def _copy(self, func: Any, args: Any, kwargs: Any, here: bool, asked: Any, to_device: bool) -> Any:
        """Convert a tensor, or copy it between the devices."""
        source = _unwrap(args[0])
        if not here or (asked is not None and not to_device):
            out = func(source, **kwargs)
            waits = not (kwargs.get("non_blocking") and (here or self.is_pinned(source)))
            self.transfers("host" if here else "device", out, waits)
            return out if here else SimulatedTensor(out)
        return SimulatedTensor(self.launch("_to_copy", func, args, kwargs))

    def _copy_into(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Copy from one device into a tensor of the other."""
        target, source = args[0], args[1]
        to = "device" if isinstance(target, SimulatedTensor) else "host"
        host = source if to == "device" else target
        non_blocking = (len(args) > 2 and args[2]) or kwargs.get("non_blocking", False)
        self.transfers(to, host, not (non_blocking and self.is_pinned(host)))
        func(*tree_map(_unwrap, args), **kwargs)
        return target

    def _check_devices(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        """Refuse tensors of both devices; numbers () of the host are allowed, and indices, which are copied."""
        host = [t for t in tensors if not isinstance(t, SimulatedTensor) and t.dim() > 0]
        if name.removesuffix("_") in ("index", "index_put", "_index_put_impl", "_unsafe_index"):
            for index in tree_leaves(args[1]):
                if any(index is t for t in host):
                    self.transfers("device", index, waits=True)
            host = [t for t in host if not any(t is i for i in tree_leaves(args[1]))]
        if host:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({name} at {line()} of {[(tuple(t.shape), str(t.device)) for t in tensors]})"
            )

    def pin(self, tensor: Tensor) -> Tensor:
        """Mark the memory of a host tensor as pinned."""
        self.pinned[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        """Return whether a host tensor lies in pinned memory."""
        return tensor.untyped_storage().data_ptr() in self.pinned


class Operations(TorchDispatchMode):
    """Send all dispatched operations to the device."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__()
        self.simulated = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.simulated.run(func, args, kwargs or {})


class Functions(TorchFunctionMode):
    """Change the functions that ask C++ for the device or the memory of a tensor before anything is dispatched."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__()
        self.simulated = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # C++ would ask a driver which of its devices "cuda" is.
        kwargs = {
            name: _numbered(value) if name == "device" else value for name, value in (kwargs or {}).items()
        }
        if func is Tensor.to:
            args = (args[0], *map(_numbered, args[1:]))
        if func is Tensor.cuda:
            func, args, kwargs = Tensor.to, (args[0], CUDA), {}
        if args and isinstance(args[0], SimulatedTensor):
            return self._on_device(func, args, kwargs)
        if func is Tensor.pin_memory:
            return self.simulated.pin(args[0].clone())
        if func is Tensor.is_pinned:
            return self.simulated.is_pinned(args[0])
        return func(*args, **kwargs)

    def _on_device(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
                f"first. ({line()})"
            )
        if func is Tensor.tolist:
            return tensor.cpu().tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            return func(tensor, _listed(args[1]), *args[2:])
        if func is Tensor.data_ptr:
            return tensor.memory.data_ptr()
        if func is Tensor.to and not kwargs.get("copy"):
            return _converted(tensor, args[1:], {k: v for k, v in kwargs.items() if k != "copy"})
        return func(*args, **kwargs)


def _converted(tensor: SimulatedTensor, args: Any, kwargs: Any) -> Tensor:
    """Return what `Tensor.to` does: nothing where device and dtype are already as asked."""
    if args and isinstance(args[0], Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    dtype = dtype or tensor.dtype
    if device is not None and device.type != "cuda":
        return Tensor.to(tensor, device, dtype, non_blocking)
    if dtype == tensor.dtype and memory_format is None:
        return tensor
    return Tensor.to(tensor, dtype=dtype, memory_format=memory_format or torch.preserve_format)


def _attention_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> tuple[Any, ...]:
    if dropout_p:
        raise NotImplementedError("attention with dropout is not simulated")
    return query, key, value, attn_mask, is_causal, scale


def attention(device: SimulatedDevice, query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return what `scaled_dot_product_attention` does, on either device."""
    if not isinstance(query, SimulatedTensor):
        return _scaled_dot_product_attention(query, *args, **kwargs)
    return _Attention.apply(device, *_attention_arguments(query, *args, **kwargs))


class _Attention(torch.autograd.Function):
    """Attention as one launch, and as three in the backward pass (C++ would choose the kernel by the device)."""

    @staticmethod
    def forward(ctx: Any, device: SimulatedDevice, q: Any, k: Any, v: Any, mask: Any, *how: Any) -> Tensor:
        # Detached: what is kept must not hold the graph that it belongs to.
        ctx.device, ctx.arguments = device, (q.detach(), k.detach(), v.detach(), mask, *how)
        return SimulatedTensor(device.launch("attention", _attend, ctx.arguments, {}))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        found = ctx.device.launch("attention_backward", _attend_backward, (grads[0], *ctx.arguments), {})
        for counts in ctx.device.active:
            counts.operations["attention_backward"] += 2
        return (None, *map(SimulatedTensor, found), None, None, None)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    return _scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)


def _attend_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *how: Any) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_() for t in (q, k, v)]
        out = _attend(*inputs, *how)
    return torch.autograd.grad(out, inputs, grad)


def _listed(index: Any) -> Any:
    """Return an index with tensors of the host for its lists, which C++ would make without contents."""
    if isinstance(index, tuple):
        return tuple(map(_listed, index))
    return torch.as_tensor(index) if isinstance(index, list | np.ndarray) else index


def _numbered(x: Any) -> Any:
    return CUDA if isinstance(x, str | torch.device) and str(x) == "cuda" else x


def _unwrap(x: Any) -> Any:
    return x.memory if isinstance(x, SimulatedTensor) else x


def _wrap(x: Any) -> Any:
    return SimulatedTensor(x) if isinstance(x, Tensor) and not isinstance(x, SimulatedTensor) else x


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _mutated(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """Return the tensors that an operation writes into."""
    written = [s for s in func._schema.arguments if s.alias_info is not None and s.alias_info.is_write]
    places = {s.name: i for i, s in enumerate(func._schema.arguments)}
    found = [kwargs[s.name] if s.name in kwargs else args[places[s.name]] for s in written]
    return [t for t in found if isinstance(t, Tensor)]


def _looks_for_true(name: str, args: Any) -> bool:
    """Return whether an index is a mask whose true places the host has to know."""
    if name not in ("index", "index_put_", "index_put", "_index_put_impl_"):
        return False
    masks = [i for i in tree_leaves(args[1]) if isinstance(i, Tensor) and i.dtype == torch.bool]
    # One number is written through a mask by filling.
    return bool(masks) and (name == "index" or args[2].numel() != 1)
