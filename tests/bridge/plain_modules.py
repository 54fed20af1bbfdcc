"""Models of one's own: no configuration, no methods of transformers."""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A causal block with the names of nanoGPT."""

    def __init__(self, width=16, heads=2, causal=True):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.heads, self.causal = heads, causal

    def forward(self, x):
        q, k, v = self.attn["c_attn"](self.ln_1(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal).transpose(1, 2).flatten(2)
        x = x + self.attn["c_proj"](mixed)
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Decoder(nn.Module):
    """A decoder in which what the head reads, and what is made of its logits, can be chosen.

    Args:
        ending: "norm" (a module), "function" (a norm without a module), "scaled" (after the norm), "none".
        logits: what is done with the head's output.
        last: the head is applied to the last position alone unless targets are given, as nanoGPT does.
    """

    def __init__(
        self, ending="norm", logits=lambda z: z, last=False, causal=True, tied=False, vocab=29, width=16
    ):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(12, width)
        self.tower = nn.ModuleList([Block(width, causal=causal) for _ in range(3)])
        if ending in ("norm", "scaled"):
            self.ln_f = nn.LayerNorm(width)
        self.readout = nn.Linear(width, vocab, bias=False)
        if tied:
            self.readout.weight = self.tokens.weight
        self.ending, self.logits, self.last = ending, logits, last

    def forward(self, tokens, targets=None):
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.tower:
            x = block(x)
        if self.ending in ("norm", "scaled"):
            x = self.ln_f(x) * (3.0 if self.ending == "scaled" else 1.0)
        if self.ending == "function":
            x = F.rms_norm(x, x.shape[-1:])
        if self.last and targets is None:
            return self.logits(self.readout(x[:, [-1], :])), None
        return self.logits(self.readout(x))


class Patches(nn.Module):
    """A small vision transformer with the names of timm."""

    def __init__(self, width=16):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 5, width))
        self.patch_embed = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.Sequential(*(Block(width, causal=False) for _ in range(4)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images):
        x = self.patch_embed(images).flatten(2).mT
        x = torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class Residual(nn.Module):
    def __init__(self, inner, out):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.short = (
            nn.Sequential(nn.Conv2d(inner, out, 1), nn.BatchNorm2d(out)) if inner != out else nn.Identity()
        )

    def forward(self, x):
        return F.relu(self.short(x) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Stages(nn.Module):
    """A small ResNet: two stages of two blocks."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.layer2 = nn.Sequential(Residual(8, 12), Residual(12, 12))
        self.fc = nn.Linear(12, 10)

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(self.conv1(images))).mean((2, 3)))


class Mixture(nn.Module):
    """A block with a list of experts, of which the router chooses one."""

    def __init__(self, width=8, experts=3):
        super().__init__()
        self.attn = nn.ModuleDict({name: nn.Linear(width, width) for name in ("wq", "wk", "wv", "wo")})
        self.mlp = nn.ModuleDict(
            {
                "gate": nn.Linear(width, experts, bias=False),
                "experts": nn.ModuleList([nn.ModuleDict(self._expert(width)) for _ in range(experts)]),
            }
        )

    @staticmethod
    def _expert(width):
        return {"w1": nn.Linear(width, 12), "w2": nn.Linear(12, width), "w3": nn.Linear(width, 12)}
