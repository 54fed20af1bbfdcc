"""Time of a monitor: three trainings of one model, in turn, without one, with the default settings and with a budget.

    python tests/studies/monitor_overhead.py [--steps 1500]

A GPT-2 of 6 blocks of width 256 (4.9 M weights), 16 sequences of 64 tokens a step, AdamW, one thread. The trainings
take turns of 25 steps; times are those of this process (CPU), so that other work on the machine counts little. The
clock of each monitor runs only in the turns of its training: the budget is a share of that.
"""

import argparse
import functools
import statistics
import tempfile
import time
from unittest import mock

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sims.monitor import Monitor
from sims.monitor.plan import LookPlan

TURN = 25
BUDGET = 0.05
HEAD = [
    "training",
    "ms a step",
    "more",
    "set-up (s)",
    "in calls (s)",
    "looks",
    "s a look",
    "share, as the monitor counts it",
]


class Turns:
    """Count the processor time between `start` and `stop` only."""

    def __init__(self) -> None:
        self.before, self.began = 0.0, None

    def start(self) -> None:
        self.began = time.process_time()

    def stop(self) -> None:
        self.before, self.began = self(), None

    def __call__(self) -> float:
        return self.before + (0.0 if self.began is None else time.process_time() - self.began)


class Training:
    """One model, its optimiser, its data, and perhaps a monitor."""

    def __init__(self, **monitored) -> None:
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=256, n_positions=64, n_embd=256, n_layer=6, n_head=8)
        self.model = GPT2LMHeadModel(config).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.tokens = torch.randint(256, (64, 64), generator=torch.Generator().manual_seed(1))
        self.generator = torch.Generator().manual_seed(2)
        self.clock, self.setup, self.calls, self.losses = Turns(), 0.0, [], []
        # Dropout draws from the generator of the process: each training has a state of its own.
        self.monitor, self.random = None, torch.get_rng_state()
        if monitored:
            probe = {"input_ids": self.tokens, "labels": self.tokens}
            self.clock.start()
            with mock.patch("sims.monitor.monitor.LookPlan", functools.partial(LookPlan, clock=self.clock)):
                self.monitor = Monitor(self.model, probe, optimizer=self.optimizer, **monitored)
            self.clock.stop()
            self.setup = self.clock()

    def turn(self) -> None:
        torch.set_rng_state(self.random)
        self.clock.start()
        for _ in range(TURN):
            chosen = torch.randint(64, (16,), generator=self.generator)
            loss = self.model(input_ids=self.tokens[chosen], labels=self.tokens[chosen]).loss
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
            if self.monitor is not None:
                before = self.clock()
                self.monitor.step()
                self.calls.append(self.clock() - before)
        self.clock.stop()
        self.random = torch.get_rng_state()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1_500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trainings = {
            "without": Training(),
            "every 100 steps (default)": Training(every=100, to=f"{folder}/default"),
            f"budget {BUDGET:g}": Training(every=100, to=f"{folder}/budget", budget=BUDGET),
        }
        for _ in range(options.steps // TURN):
            for training in trainings.values():
                training.turn()
        print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
        for name, training in trainings.items():
            # Whatever is measured, the training is the same to the last bit.
            assert training.losses == trainings["without"].losses, f"{name}: other losses"
            print("| " + " | ".join([name, *_cells(training, trainings["without"])]) + " |")
            if training.monitor is not None:
                training.monitor.close()


def _cells(training: Training, plain: Training) -> list[str]:
    seconds = training.clock() - training.setup
    looks = [call for call in training.calls if call > 0.5]
    return [
        f"{seconds / len(training.losses) * 1e3:.1f}",
        f"{seconds / plain.clock() - 1:+.1%}",
        f"{training.setup:.1f}",
        f"{sum(training.calls):.1f}",
        str(len(looks)),
        f"{statistics.median(looks):.2f}" if looks else "–",
        "–" if training.monitor is None else f"{training.monitor.overhead:.1%}",
    ]


if __name__ == "__main__":
    main()
