"""Looks on tokens at decoders of the reader's own: names of their own, fused q, k and v, heads tied or not."""

import pytest
import torch
from torch import nn

from sims import look
from sims.models.module import ModuleSubject
from sims.models.parts import layout_of
from sims.studies.look.options import TextOptions
from sims.system.errors import MeasureError

V, D, LONGEST = 23, 16, 12


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.qkv, self.out = nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.n2, self.up, self.down = nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.Linear(2 * D, D)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.n1(x)).view(b, t, 3, 2, D // 2).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(b, t, D))
        return x + self.down(torch.relu(self.up(self.n2(x))))


class Decoder(nn.Module):
    """Positions: "table" (an embedding), "parameter" (a tensor that is added), or none."""

    def __init__(self, tied, positions="table"):
        super().__init__()
        torch.manual_seed(0)
        self.tok = nn.Embedding(V, D)
        self.pos = nn.Embedding(LONGEST, D) if positions == "table" else None
        self.added = nn.Parameter(torch.zeros(LONGEST, D)) if positions == "parameter" else None
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V, bias=False)
        if tied:
            self.head.weight = self.tok.weight

    def forward(self, x):
        h = self.tok(x)
        h = h if self.pos is None else h + self.pos(torch.arange(x.shape[1]))
        h = h if self.added is None else h + self.added[: x.shape[1]]
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h))


def tokens(length, n=10):
    return torch.randint(0, V, (n, length + 1), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_of_every_matrix_but_tables_and_head(tied, dtype):
    model = Decoder(tied).to(dtype)
    found = look(model, tokens(8), text=TextOptions(gradients=6))
    subject = ModuleSubject.of(model, layout_of(model), 0)
    own = found.rows[found.rows["object"] == "gradient"]
    want = {f"blocks.{b}.{kind}" for b in range(2) for kind in ("qkv", "out", "up", "down")}
    assert set(own["site"]) == want == set(subject.with_gradients)
    assert {"activation", "loss", "weight"} <= set(found.rows["object"])


def test_a_table_of_positions_bounds_the_length():
    subject = ModuleSubject.of(Decoder(True), layout_of(Decoder(True)), 0)
    assert subject.longest == LONGEST
    look(Decoder(True), tokens(LONGEST), text=TextOptions(gradients=0))
    with pytest.raises(
        MeasureError, match=f"of {LONGEST + 1} inputs are longer than the {LONGEST} that this model"
    ):
        look(Decoder(True), tokens(LONGEST + 1))


@pytest.mark.parametrize(
    ("name", "longest"),
    [
        ("pos_emb", 7),
        ("position_embeddings", 7),
        ("abs_pos", 7),
        ("wpe", 7),
        ("compositional", None),
        ("tags", None),
    ],
)
def test_tables_of_positions_are_known_by_their_names(name, longest):
    model = Decoder(True, "none")
    model.add_module(name, nn.Embedding(7, D))
    assert ModuleSubject.of(model, layout_of(model), 0).longest == longest


def test_a_model_that_fails_on_long_sequences_says_how_long_they_are():
    look(Decoder(False, "parameter"), tokens(LONGEST), text=TextOptions(gradients=0))
    said = f"a Decoder fails on sequences of {LONGEST + 1} inputs .RuntimeError: .*; try shorter ones"
    with pytest.raises(MeasureError, match=said):
        look(Decoder(False, "parameter"), tokens(LONGEST + 1))


def test_without_a_bound_any_length_is_taken():
    subject = ModuleSubject.of(Decoder(False, "none"), layout_of(Decoder(False, "none")), 0)
    assert subject.longest is None
    assert len(look(Decoder(False, "none"), tokens(40), text=TextOptions(gradients=0)).rows)
