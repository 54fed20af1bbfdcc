"""Time of one choice of learning rates by scores of weights, and its share of training on one thread.

    python tests/studies/rate_cost.py

Seconds are of this process on the processor, the least of three; a run makes 100 choices by default.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from sims.runs.lm_config import LmConfig
from sims.training.rates import weight_scores
from toymodel.rates import SCORES
from toymodel.trainable import Trainable
from toymodel.transformer import matrices

CHOICES = 100
# Steps are timed of the small model only.
MODELS = {"tiny6": True, "d12": False}


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """Return the least of several times of work, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found[1:])


def main() -> None:
    """Print one line for each model and score."""
    torch.set_num_threads(1)
    for tier, timed in MODELS.items():
        config = LmConfig.of_tier(tier, "untied", 1024, precision="float32")
        transformer = config.transformer()
        trainable = Trainable(transformer, torch.tensor([config.lr]), [None], config.newton_schulz)
        generator = torch.Generator().manual_seed(0)
        # Output projections start at zero: of a model in training they are not.
        with torch.no_grad():
            for value in trainable.params.values():
                value.copy_(torch.randn(value.shape, generator=generator) * value.shape[-1] ** -0.5)
        own = matrices({n: p.detach() for n, p in trainable.params.items()})
        blocks = {n: m[0] for n, m in own.items() if n.startswith("blocks.")}
        run = 0.0
        if timed:
            shape = (1, config.batch_size, config.length + 1)
            tokens = torch.randint(1024, shape, generator=generator)

            def step() -> None:
                losses = transformer.losses(trainable.params, tokens)  # noqa: B023
                grads = torch.autograd.grad(losses.sum(), list(trainable.params.values()))  # noqa: B023
                named = dict(zip(trainable.params, grads, strict=True))  # noqa: B023
                trainable.step(trainable.flatten(named), 1)  # noqa: B023

            run = config.steps * seconds(step, 2)
            print(
                f"{tier}: a run of {config.steps:,} steps of {config.tokens_per_step:,} tokens {run:,.0f} s"
            )
        for name in SCORES:
            first = time.process_time()
            weight_scores(name, blocks)
            first = time.process_time() - first
            cost = seconds(lambda: weight_scores(name, blocks), 3 if timed else 1)  # noqa: B023
            share = f", {100 * CHOICES * cost / run:.2g} % of training" if run else ""
            print(
                f"{tier} {name}: {len(blocks)} matrices {cost:.2g} s (the first {first:.2g} s), {CHOICES} choices "
                f"{CHOICES * cost:,.0f} s{share}",
                flush=True,
            )


if __name__ == "__main__":
    main()
