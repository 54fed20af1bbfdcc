"""What is shown of a run that trains: one line that changes on a terminal, a line now and then otherwise."""

from __future__ import annotations

import sys
import time

import torch
from rich.console import Console
from rich.live import Live
from rich.text import Text

from sims.training.lm_run import Standing

# Seconds between two lines where there is no terminal.
QUIET = 10.0


class LiveLine:
    """Shows where a run stands, as a context.

    Args:
        shown: whether this process is the one that says it.
        device: whose memory is shown.
    """

    def __init__(self, shown: bool, device: torch.device) -> None:
        console = Console(stderr=True)
        self.shown, self.terminal, self.device = shown, shown and console.is_terminal, device
        self.live = Live(console=console, transient=True, auto_refresh=False)
        self.said = 0.0
        self.val_loss = float("nan")

    def __enter__(self) -> LiveLine:
        if self.terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal:
            self.live.stop()

    def __call__(self, standing: Standing) -> None:
        if not self.shown:
            return
        new = standing.val_loss == standing.val_loss and standing.val_loss != self.val_loss
        now = time.monotonic()
        if self.terminal:
            self.live.update(Text(self.line(standing)), refresh=True)
        elif new or now - self.said >= QUIET:
            print(self.line(standing), file=sys.stderr, flush=True)
            self.said = now
        self.val_loss = standing.val_loss

    def line(self, standing: Standing) -> str:
        """One line of all that matters."""
        parts = [f"step {standing.step}/{standing.steps}", f"{standing.tokens:.3g} tokens"]
        if standing.train_loss is not None:
            parts.append(f"train {standing.train_loss:.4f}")
        if standing.val_loss == standing.val_loss:
            parts.append(f"val {standing.val_loss:.4f}")
        pace = standing.pace
        if pace.seconds == pace.seconds:
            parts += [f"{pace.tokens:,.0f} tokens/s", f"MFU {pace.mfu:.1%}"]
            parts.append(f"{clock(pace.seconds * (standing.steps - standing.step))} to go")
        if self.device.type == "cuda":
            parts.append(f"{torch.cuda.max_memory_allocated(self.device) / 1e9:.1f} GB")
        return ", ".join([*parts, *([standing.doing] if standing.doing else [])])


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, as far as they matter."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
