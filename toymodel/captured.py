"""Work that a CUDA device repeats, captured as a graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable

import torch

from toymodel.config import Graphs
from toymodel.errors import ConfigError

# Before a capture the work is done so often as it is: libraries allocate, and constants are made.
WARM_UP = 2


def check_graphs(graphs: Graphs, device: str) -> None:
    """Refuse graphs where there are none.

    Raises:
        ConfigError: graphs is "on", but the device is not CUDA.
    """
    if graphs == "on" and not device.startswith("cuda"):
        raise ConfigError(f"graphs are on, but {device} has no CUDA graphs; take auto or off")


class Captured:
    """Do the same work again and again: launched piece by piece at first, then as one CUDA graph.

    The work must read and write the same memory every time, and must depend on nothing of the host but the key that it
    is called with. Another key, or `forget`, has it captured again.

    Args:
        work: what is done.
        device: of the work; only on CUDA there are graphs.
        graphs: "auto" captures on CUDA, and goes on piece by piece where that fails; "on" raises an error then; "off"
            never captures.
        what: names the work in messages.

    Attributes:
        reason: why the work is done piece by piece; empty while it is captured, or will be.
        captures: number of graphs captured so far.

    Raises:
        ConfigError: graphs is "on", but the device is not CUDA.

    >>> done = []
    >>> captured = Captured(lambda: done.append(1), torch.device("cpu"), "auto")
    >>> captured(key=None)
    >>> done, captured.reason
    ([1], 'no CUDA graphs on cpu')
    """

    def __init__(
        self, work: Callable[[], None], device: torch.device, graphs: Graphs = "auto", what: str = "step"
    ) -> None:
        self.work, self.device, self.what = work, device, what
        self.graphs: Graphs = graphs
        self.reason = self._excluded()
        self.captures = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        self._key: Hashable = None
        self._warm = 0

    def _excluded(self) -> str:
        check_graphs(self.graphs, str(self.device))
        if self.device.type == "cuda":
            return "graphs are off" if self.graphs == "off" else ""
        return f"no CUDA graphs on {self.device}"

    @property
    def described(self) -> str:
        """Return how the work is launched, in words."""
        return self.reason or (f"captured {self.captures} times" if self.captures else "not captured yet")

    def __call__(self, key: Hashable) -> None:
        """Do the work once; the key is everything of the host that it depends on."""
        if self.reason:
            self.work()
            return
        if key != self._key:
            self.forget()
            self._key = key
        if self._graph is None and self._warm < WARM_UP:
            self._warm += 1
            self._aside()
            return
        if self._graph is None:
            self._graph = self._capture()
        if self._graph is None:
            self.work()
        else:
            self._graph.replay()

    def forget(self) -> None:
        """Drop the graph and its memory: what it read and wrote has been replaced."""
        self._graph, self._warm = None, 0

    def _aside(self) -> None:
        """Do the work on the stream of the later capture, as PyTorch asks for."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            self.work()
        torch.cuda.current_stream(self.device).wait_stream(self._stream)

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        """Capture the work without doing it; None, with the reason noted and shown, where that fails."""
        graph = torch.cuda.CUDAGraph()
        try:
            # On the device of the work, which is not always the current one: a capture elsewhere would hold nothing.
            with torch.cuda.device(self.device), torch.cuda.graph(graph, stream=self._stream):
                self.work()
        except RuntimeError as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if self.graphs == "on":
                raise ConfigError(
                    f"the {self.what} cannot be captured as a CUDA graph: {first}; take auto"
                ) from error
            self.reason = f"the capture failed: {first}"
            warnings.warn(f"the {self.what} goes on without CUDA graphs: {self.reason}", stacklevel=2)
            return None
        self.captures += 1
        return graph
