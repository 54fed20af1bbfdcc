"""Which matrices a tensor holds: q, k and v of a fused weight, experts, the kernels of a convolution as one matrix.

Shared by modules in memory (`sims.models.parts`) and tensors in files (`sims.models.stored`).

Layouts of fused weights: modelling code of huggingface.co/docs/transformers (version 5), torch.nn.MultiheadAttention.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Rows = slice | Tensor | None


@dataclass(frozen=True, eq=False)
class Cut:
    """One matrix (out, in) of a tensor.

    Args:
        name: standard name of the matrix.
        index: which of several matrices (E, a, b) it is; None where the first axis is not a number of matrices.
        turned: the tensor keeps it as (in, out).
        rows: rows of the matrix (out, in) that form it; None for all of them.
    """

    name: str
    index: int | None = None
    turned: bool = False
    rows: Rows = None

    def of(self, tensor: Tensor) -> Tensor:
        """Return the matrix: a view, or a copy if its rows are not evenly spaced."""
        whole = whole_matrix(tensor, self.index, self.turned)
        return whole if self.rows is None else whole[self.rows]


def whole_matrix(tensor: Tensor, index: int | None = None, turned: bool = False) -> Tensor:
    """Return one matrix (out, in) of a tensor: one of many, a kernel (out, in, k, …) as (out, in·k·…), or turned.

    >>> whole_matrix(torch.ones(5, 3, 2, 2)).shape, whole_matrix(torch.ones(4, 3, 2), index=1, turned=True).shape
    (torch.Size([5, 12]), torch.Size([2, 3]))
    """
    one = tensor if index is None else tensor[index]
    one = one.flatten(1) if one.ndim > 2 else one
    return one.T if turned else one


@dataclass(frozen=True)
class Family:
    """What the configuration of a model says of its fused weights.

    Args:
        kind: `model_type` of transformers; "" for code of one's own.
        settings: the configuration as plain values.
    """

    kind: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Any) -> Family:
        """Return the family of a configuration: a mapping, an object with fields, or None."""
        if config is None or isinstance(config, str | int | float | Sequence):
            return cls()
        as_dict = getattr(config, "to_dict", None)
        given = (
            config
            if isinstance(config, Mapping)
            else as_dict()
            if as_dict
            else getattr(config, "__dict__", {})
        )
        settings = {str(key): value for key, value in dict(given).items()}
        text = settings.get("text_config")
        if isinstance(text, Mapping):
            settings |= text
        kind = settings.get("model_type")
        return cls(kind if isinstance(kind, str) else "", settings)

    def number(self, *names: str) -> int | None:
        """Return the first setting of these names that is a positive integer."""
        found = (self.settings.get(name) for name in names)
        return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)

    @property
    def heads(self) -> int | None:
        """Number of attention heads."""
        return self.number("num_attention_heads", "n_head", "num_heads", "n_heads")

    @property
    def kv_heads(self) -> int | None:
        """Number of heads of keys and values; that of the heads unless it is said."""
        return self.said_kv_heads or self.heads

    @property
    def said_kv_heads(self) -> int | None:
        """Number of heads of keys and values where the configuration has it."""
        return self.number(
            "num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_head", "n_kv_heads", "n_query_groups"
        )


def cuts(
    own: str,
    name: str,
    shape: Sequence[int],
    family: Family = Family(),
    turned: bool | None = None,
    kernel: bool | None = None,
) -> tuple[Cut, ...] | str:
    """Return the matrices of a tensor of two or more axes, or why it is none.

    Args:
        own: name of the tensor in its file or module.
        name: its standard name.
        shape: of the tensor.
        family: of its model.
        turned: whether it is kept as (in, out); None where family and shape must tell.
        kernel: whether it is the kernel of a convolution; None where the name must tell.

    >>> [cut.name for cut in cuts("h.0.attn.c_attn", "blocks.0.attn.qkv", (24, 8))]
    ['blocks.0.attn.q', 'blocks.0.attn.k', 'blocks.0.attn.v']
    >>> [cut.name for cut in cuts("mlp.experts.down_proj", "blocks.0.mlp.experts.proj", (2, 8, 4))]
    ['blocks.0.mlp.experts.0.proj', 'blocks.0.mlp.experts.1.proj']
    >>> [cuts("mlp.gate", "blocks.0.mlp.router", (rows, 8))[0].name for rows in (2, 24)]
    ['blocks.0.mlp.router', 'blocks.0.mlp.gate']
    >>> cuts("attn.bias", "attn.bias", (1, 1, 8, 8))
    'biases or a mask'
    """
    if name.rsplit(".", 1)[-1].endswith("bias"):
        return "biases or a mask"
    kernel = len(shape) > 3 or "conv" in own.lower() if kernel is None else kernel
    if len(shape) == 3 and not kernel:
        return _stacked(own, name, shape, family)
    rows, columns = shape[0], _product(shape[1:])
    if turned is None:
        turned = len(shape) == 2 and _is_turned(own, name, shape, family)
    if turned:
        rows, columns = columns, rows
    if 1 in (rows, columns):
        return "one row or column: a vector"
    if rows >= columns and re.search(r"(^|\.)gate(\.weight)?$", own):
        # As many rows as no router has experts: the gate of an MLP, which has that name too.
        name = re.sub(r"mlp\.router$", "mlp.gate", name)
    parts = _fused(own, name, rows, columns, family)
    return tuple(Cut(part, None, turned, chosen) for part, chosen in parts.items())


def _stacked(own: str, name: str, shape: Sequence[int], family: Family) -> tuple[Cut, ...] | str:
    """Return the matrices of a tensor (E, a, b)."""
    count, rows, columns = shape
    if 1 in (rows, columns):
        return "one row or column: vectors"
    if name.endswith("attn.qkv") and count == 3:
        return tuple(Cut(f"{name.removesuffix('qkv')}{part}", i) for i, part in enumerate("qkv"))
    if count == 1:
        return (Cut(name, 0),)
    if ".experts." not in f".{name}.":
        return "three axes, neither experts nor a kernel"
    turned = family.kind in _TURNED_EXPERTS
    before, _, leaf = name.rpartition("experts")
    parts = _fused(own, leaf, *((columns, rows) if turned else (rows, columns)), family)
    return tuple(
        Cut(f"{before}experts.{expert}{part}", expert, turned, chosen)
        for expert in range(count)
        for part, chosen in parts.items()
    )


# Blocks of these keep y = xW with W (in, out), and their experts do.
_TURNED = frozenset(("gpt2", "openai-gpt", "imagegpt", "decision_transformer"))
_TURNED_EXPERTS = frozenset(("gpt_oss", "llama4", "llama4_text"))


def _is_turned(own: str, name: str, shape: Sequence[int], family: Family) -> bool:
    # Low-rank updates beside the weights are of linear modules.
    inside = (".attn." in name or ".mlp." in name) and "lora_" not in name
    # GPT-2's fused q, k, v is the one matrix whose shape shows it.
    return inside and (family.kind in _TURNED or (_of_gpt2(own) and shape[1] == 3 * shape[0]))


def _fused(own: str, name: str, rows: int, columns: int, family: Family) -> dict[str, Rows]:
    """Return name → rows of the parts of a matrix (rows, columns); the whole one where it is not known to be fused."""
    if name.endswith("gate_up") and rows % 2 == 0:
        stem = name.removesuffix("gate_up")
        halves = (
            (slice(0, None, 2), slice(1, None, 2))
            if family.kind == "gpt_oss"
            else (slice(0, rows // 2), slice(rows // 2, rows))
        )
        return {f"{stem}gate": halves[0], f"{stem}fc": halves[1]}
    if own.endswith("in_proj_weight") and rows == 3 * columns:  # of nn.MultiheadAttention
        stem = name.removesuffix("in_proj_weight").removesuffix("qkv")
        return {f"{stem}{part}": slice(i * columns, (i + 1) * columns) for i, part in enumerate("qkv")}
    if name.endswith("attn.qkv"):
        split = _SPLITS.get(family.kind) or (_in_order if _of_gpt2(own) else None)
        parts = split(rows, columns, family) if split else None
        if parts is not None:
            return {
                f"{name.removesuffix('qkv')}{part}": chosen for part, chosen in zip("qkv", parts, strict=True)
            }
    return {name: None}


def _of_gpt2(own: str) -> bool:
    return "c_attn" in own


Split = Callable[[int, int, Family], "tuple[Rows, Rows, Rows] | None"]


def _in_order(rows: int, columns: int, family: Family) -> tuple[Rows, Rows, Rows] | None:
    """Return q, then k, then v; k and v have as many rows each, by the numbers of heads if they are known."""
    heads, kv = family.heads, family.kv_heads
    if not (family.kind or family.said_kv_heads or rows == 3 * columns):
        # Code of one's own whose heads of q may share keys and values.
        return None
    if family.kind == "gpt_bigcode":
        kv = 1
    if heads is None or kv is None:
        heads = kv = 1
    width, rest = divmod(rows, heads + 2 * kv)
    if rest:
        return None
    q, k = heads * width, (heads + kv) * width
    return slice(0, q), slice(q, k), slice(k, rows)


def _by_head(rows: int, columns: int, family: Family) -> tuple[Rows, Rows, Rows] | None:
    """Return q, k and v of rows that are kept head by head, q, k and v of each."""
    return _by_group(rows, family.heads, 1)


def _by_group(rows: int, groups: int | None, queries: int) -> tuple[Rows, Rows, Rows] | None:
    """Return q, k and v of groups of rows: some heads of q, then one of k and one of v."""
    if groups is None or rows % (groups * (queries + 2)):
        return None
    of_part = torch.arange(rows).view(groups, queries + 2, -1)
    return of_part[:, :-2].flatten(), of_part[:, -2].flatten(), of_part[:, -1].flatten()


def _falcon(rows: int, columns: int, family: Family) -> tuple[Rows, Rows, Rows] | None:
    heads, said = family.heads, family.settings
    if heads is None:
        return None
    if said.get("new_decoder_architecture"):
        kv = family.number("num_kv_heads", "n_head_kv") or heads
        return _by_group(rows, kv, heads // kv)
    return _by_group(rows, 1, heads) if said.get("multi_query", True) else _by_head(rows, columns, family)


def _bigcode(rows: int, columns: int, family: Family) -> tuple[Rows, Rows, Rows] | None:
    of = _in_order if family.settings.get("multi_query", True) else _by_head
    return of(rows, columns, family)


_SPLITS: Mapping[str, Split] = {
    "gpt2": _in_order,
    "openai-gpt": _in_order,
    "mpt": _in_order,
    "phi3": _in_order,
    "phimoe": _in_order,
    "gpt_bigcode": _bigcode,
    "gpt_neox": _by_head,
    "gpt_neox_japanese": _by_head,
    "bloom": _by_head,
    "persimmon": _by_head,
    "falcon": _falcon,
}


def _product(numbers: Sequence[int]) -> int:
    found = 1
    for n in numbers:
        found *= n
    return found
