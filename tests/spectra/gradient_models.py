"""What gradients are captured of: a small model, its losses and its state, and layers of unusual forms."""

import torch
import torch.nn.functional as F
from torch import nn


class Toy(nn.Module):
    """Embedding, one attention-like mix that shares its inputs, an MLP with biases, and a tied head."""

    def __init__(self, vocabulary: int = 11, width: int = 6, padding: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=padding)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = (q @ k.mT).tril()
        x = x + scores @ v / 10
        x = x + self.down(torch.tanh(self.up(x)))
        return self.head(self.norm(x))


def losses_of(model, tokens):
    logits = model(tokens[:, :-1])
    return (
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        .view(len(tokens), -1)
        .mean(1)
    )


def single_loss(predict, tokens):
    return F.cross_entropy(predict(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def make(seed=0, samples=5, length=4, **kwargs):
    torch.manual_seed(seed)
    return Toy(**kwargs).double(), torch.randint(0, 11, (samples, length + 1))


def state_of(model):
    return {
        "hooks": [
            len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
            for m in model.modules()
        ],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "flags": [p.requires_grad for p in model.parameters()],
        "values": [p.detach().clone() for p in model.parameters()],
        "mode": [m.training for m in model.modules()],
    }


def assert_same_state(before, after):
    for key in ("hooks", "flags", "mode"):
        assert before[key] == after[key]
    for a, b in zip(before["grads"] + before["values"], after["grads"] + after["values"], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


class Scaled(nn.Linear):
    def forward(self, input):
        return 2.0 * super().forward(input)


class Transposed(nn.Module):
    """The layout of some foreign models: weight (in, out), y = x W + b."""

    def __init__(self, inner, out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inner, out))
        self.bias = nn.Parameter(torch.randn(out))

    def forward(self, x):
        return x @ self.weight + self.bias


class InPlace(nn.Module):
    """Overwrites the layer's output (allowed) or its input (refused) after the call."""

    def __init__(self, spoil):
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)
        self.spoil = spoil

    def forward(self, x):
        x = x * 1.0
        y = self.layer(x)
        if self.spoil:
            with torch.no_grad():
                x.detach().mul_(2.0)
        return y.mul_(3.0)
