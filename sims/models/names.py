"""How decoders name their tensors, and the standard name of each.

Standard names are those of the toy transformer: "embed", "head", and of block N "blocks.N.attn.q" (k, v, o),
"blocks.N.mlp.gate" (fc, proj), "blocks.N.mlp.router" and "blocks.N.mlp.experts.7.gate". Fused matrices are "attn.qkv"
and "mlp.gate_up" (`sims.models.cuts` cuts them). Names that are not in the tables stay as they are.

Names: source code of huggingface.co/docs/transformers (version 5), github.com/karpathy/nanoGPT,
github.com/KellerJordan/modded-nanogpt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sims.models.state import unwrapped
from sims.models.subject import EMBED, HEAD

POSITIONS = "positions"

# What may stand before the list of blocks, the embedding and the head. Encoders that stand beside a decoder keep their
# own names, so that no two tensors of one model get the same name.
_TRUNK = (
    r"(?:base_model\.model\.)?(?:(?:model|transformer|gpt_neox|backbone|decoder|language_model|text_model|bert|roberta"
    r"|distilbert|vit)\.)*"
)
_BLOCK = re.compile(
    rf"{_TRUNK}(?:(?<=bert\.)encoder\.|(?<=vit\.)encoder\.)?(?:h|layers|layer|blocks|block)\.(\d+)\.(.+)"
)
_TABLES = (
    r"wte|embed|embed_in|embed_tokens|word_embeddings|tok_embeddings|tokens_embed|token_embedding|embeddings"
    r"|embeddings\.word_embeddings"
)
_OUTSIDE = tuple(
    (re.compile(rf"{_TRUNK}(?:{names})"), name)
    for name, names in (
        (
            EMBED,
            _TABLES,
        ),
        (POSITIONS, r"wpe|embed_positions|positions|positions_embed|embeddings\.position_embeddings"),
        (HEAD, r"lm_head|lm_head\.decoder|cls\.predictions\.decoder|embed_out|unembed|head|output"),
    )
)

_ATTENTION = r"(?:self_attn|self_attention|attention|attn|attn\.attention|attention\.(?:self|attention))"
_MLP = r"(?:mlp|feed_forward|ffn|block_sparse_moe)"
_TABLE = re.compile(rf"(?:^|\.)(?:{_TABLES}|input_embedding|tokens)$")

# Of one block, in the order in which its matrices are listed.
LEAVES = {
    "attn.q": rf"{_ATTENTION}\.(?:q|q_proj|c_q|wq|Wq|query|q_lin)",
    "attn.k": rf"{_ATTENTION}\.(?:k|k_proj|c_k|wk|Wk|key|k_lin)",
    "attn.v": rf"{_ATTENTION}\.(?:v|v_proj|c_v|wv|Wv|value|v_lin)",
    "attn.o": rf"{_ATTENTION}\.(?:o|o_proj|out_proj|c_proj|dense|wo|Wo|out_lin|proj|out)|attention\.output\.dense",
    "attn.qkv": rf"{_ATTENTION}\.(?:qkv|qkv_proj|c_attn|query_key_value|Wqkv|wqkv|W_pack|in_proj_weight)",
    "mlp.router": rf"{_MLP}\.(?:gate|router|router\.(?:classifier|layer))",
    "mlp.gate": rf"{_MLP}\.(?:gate_proj|w1)",
    "mlp.fc": rf"(?:{_MLP}\.)?(?:fc|c_fc|fc1|fc_in|up_proj|dense_h_to_4h|w3|lin1|linear1)|{_MLP}\.up"
    r"|intermediate\.dense",
    "mlp.proj": rf"(?:{_MLP}\.)?(?:c_proj|fc2|fc_out|down_proj|dense_4h_to_h|w2|lin2|linear2)|{_MLP}\.(?:proj|down)"
    r"|output\.dense",
    "mlp.gate_up": rf"{_MLP}\.gate_up_proj",
}
_PARTS = tuple((re.compile(pattern), name) for name, pattern in LEAVES.items())
# Experts of Granite in one tensor.
_STACKED = {"input_linear": "mlp.experts.gate_up", "output_linear": "mlp.experts.proj"}
# One expert, or all of them in one tensor, and those that see every token.
_EXPERT = re.compile(rf"{_MLP}\.(experts(?:\.\d+)?|shared_experts?)\.(.+)")


def standard_name(tensor: str, blocks: str | None = None) -> str:
    """Return the standard name of a decoder's tensor or module; one that is not known keeps its own, without ".weight".

    Args:
        tensor: its name.
        blocks: what stands before the numbers of the blocks, where that is not one of the common names.

    >>> standard_name("model.layers.3.self_attn.q_proj.weight"), standard_name("transformer.h.0.mlp.c_fc")
    ('blocks.3.attn.q', 'blocks.0.mlp.fc')
    >>> standard_name("model.layers.3.block_sparse_moe.experts.7.w1.weight"), standard_name("lm_head.weight")
    ('blocks.3.mlp.experts.7.gate', 'head')
    >>> standard_name("model.layers.3.self_attn.kv_b_proj.weight"), standard_name("vision.layers.3.fc1.weight")
    ('blocks.3.self_attn.kv_b_proj', 'vision.layers.3.fc1')
    """
    own = unwrapped(tensor)
    stem, ending = _stem(own)
    if blocks and (given := re.fullmatch(rf"{re.escape(blocks)}(\d+)\.(.+)", own)):
        return f"blocks.{given[1]}.{part_name(given[2])}"
    if inside := _BLOCK.fullmatch(stem):
        standard = own == f"blocks.{inside[1]}.{inside[2]}{ending}" and inside[2] in LEAVES
        return f"blocks.{inside[1]}.{inside[2] if standard else part_name(inside[2])}{ending}"
    return next((name for pattern, name in _OUTSIDE if pattern.fullmatch(stem)), stem) + ending


def part_name(own: str) -> str:
    """Return the standard name of a tensor within its block.

    >>> part_name("attention.query_key_value"), part_name("mlp.shared_expert.up_proj"), part_name("ln_1.weight")
    ('attn.qkv', 'mlp.shared_expert.fc', 'ln_1')
    """
    stem, ending = _stem(own)
    if stacked := _STACKED.get(stem.removeprefix("block_sparse_moe.")):
        return stacked + ending
    if expert := _EXPERT.fullmatch(stem):
        leaf = "gate" if expert[2] == "gate" else part_name(f"mlp.{expert[2]}").removeprefix("mlp.")
        return f"mlp.{expert[1]}.{leaf}{ending}"
    return next((name for pattern, name in _PARTS if pattern.fullmatch(stem)), stem) + ending


def short(name: str) -> str:
    """Return the name of a part as tables have it, without the word for blocks.

    >>> short("blocks.3.attn.q"), short("embed")
    ('3.attn.q', 'embed')
    """
    return name.removeprefix("blocks.")


def block_list(tensors: Iterable[str]) -> str | None:
    """Return what stands before the numbers of the blocks, if the names show one list of blocks and no other.

    >>> block_list(["tower.0.attn.wq", "tower.1.attn.wq", "table"])
    'tower.'
    >>> block_list(["layer1.0.conv1.weight", "layer1.1.conv1.weight", "layer2.0.conv1.weight", "layer2.1.conv1.weight"])
    """
    found: dict[str, set[str]] = {}
    for name in map(unwrapped, tensors):
        # Of blocks: a number is followed by two names or more.
        if inside := re.match(r"((?:[A-Za-z_]\w*\.)*?)(\d+)\.\w+\.\w", name):
            found.setdefault(inside[1], set()).add(inside[2])
    lists = [before for before, numbers in found.items() if len(numbers) > 1]
    return lists[0] if len(lists) == 1 else None


def embedding(tensors: Iterable[str]) -> str | None:
    """Return the tensor that is named like a table of tokens, if there is one such tensor outside of lists.

    >>> embedding(["biogpt.embed_tokens.weight", "biogpt.layers.0.fc1.weight"])
    'biogpt.embed_tokens.weight'
    """
    outside = (name for name in tensors if not re.search(r"\.\d+\.", name))
    found = [name for name in outside if _TABLE.search(_stem(unwrapped(name))[0])]
    return found[0] if len(found) == 1 else None


def _stem(name: str) -> tuple[str, str]:
    """Return a name without ".weight" or ".bias", and ".bias" if it was that."""
    stem = name.removesuffix(".base_layer.weight").removesuffix(".weight")
    return (stem.removesuffix(".bias"), ".bias") if stem.endswith(".bias") else (stem, "")
