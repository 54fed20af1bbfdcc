"""Checkpoints of other projects' formats, and what their models compute, written out without any of our code.

Every forward pass is a list of formulas over a dictionary of tensors: attention by an explicit softmax, norms by their
definition, rotation by complex numbers.
"""

import math

import torch
import torch.nn.functional as F

VOCAB, WIDTH, LAYERS, HEADS, LENGTH = 29, 16, 4, 2, 12

CHAIN = ("plain", "baseline", "rope", "early", "untied", "value_mix", "unet")


def sequences(n=6, length=9, vocab=VOCAB, seed=1):
    return torch.randint(0, vocab, (n, length), generator=torch.Generator().manual_seed(seed))


def nanogpt_state(bias=True, seed=0):
    """Tensors as nanoGPT names them; both names of the tied weight."""
    draw = _Draw(seed)
    state = {"transformer.wte.weight": draw(VOCAB, WIDTH, scale=1.0)}
    state["transformer.wpe.weight"] = draw(LENGTH, WIDTH)
    for layer in range(LAYERS):
        block = f"transformer.h.{layer}"
        shapes = {
            "attn.c_attn": (3 * WIDTH, WIDTH),
            "attn.c_proj": (WIDTH, WIDTH),
            "mlp.c_fc": (4 * WIDTH, WIDTH),
            "mlp.c_proj": (WIDTH, 4 * WIDTH),
        }
        for name, shape in shapes.items():
            state[f"{block}.{name}.weight"] = draw(*shape)
            if bias:
                state[f"{block}.{name}.bias"] = draw(shape[0])
    for name in [*(f"transformer.h.{i}.ln_{j}" for i in range(LAYERS) for j in (1, 2)), "transformer.ln_f"]:
        state[f"{name}.weight"] = 1 + draw(WIDTH)
        if bias:
            state[f"{name}.bias"] = draw(WIDTH)
    state["lm_head.weight"] = state["transformer.wte.weight"]
    return state


def nanogpt_checkpoint(bias=True, seed=0, step=250):
    """What nanoGPT's training script saves, compiled model and optimiser included."""
    sizes = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": LENGTH, "vocab_size": VOCAB}
    training = {"batch_size": 3, "gradient_accumulation_steps": 5, "dataset": "text", "learning_rate": 6e-4}
    return {
        "model": {f"_orig_mod.{name}": value for name, value in nanogpt_state(bias, seed).items()},
        "optimizer": {"state": {0: {"step": torch.tensor(250.0)}}, "param_groups": [{"lr": 6e-4}]},
        "model_args": {**sizes, "bias": bias, "dropout": 0.0},
        "iter_num": step,
        "best_val_loss": torch.tensor(3.25),
        "config": {**training, **sizes},
    }


def nanogpt_logits(state, tokens, gelu="erf"):
    x = state["transformer.wte.weight"][tokens] + state["transformer.wpe.weight"][: tokens.shape[1]]
    for layer in range(LAYERS):
        part = {k.removeprefix(f"transformer.h.{layer}."): v for k, v in state.items()}
        inner = _layer_norm(x, part["ln_1.weight"], part.get("ln_1.bias"))
        q, k, v = _linear(inner, part, "attn.c_attn").chunk(3, dim=-1)
        x = x + _linear(_attend(_heads(q), _heads(k), _heads(v)), part, "attn.c_proj")
        inner = _linear(_layer_norm(x, part["ln_2.weight"], part.get("ln_2.bias")), part, "mlp.c_fc")
        x = x + _linear(_gelu(inner, gelu), part, "mlp.c_proj")
    x = _layer_norm(x, state["transformer.ln_f.weight"], state.get("transformer.ln_f.bias"))
    return x @ state["lm_head.weight"].T


def modded_state(stage, seed=0):
    """Tensors of one stage of the chain."""
    if stage == "baseline":
        return nanogpt_state(seed=seed)
    draw = _Draw(seed)
    # Small where the norm has an ε that is to be seen.
    state = {"transformer.wte.weight": draw(VOCAB, WIDTH, scale=0.01 if stage == "early" else 1.0)}
    if stage == "plain":
        state["transformer.wpe.weight"] = draw(LENGTH, WIDTH)
    for layer in range(LAYERS):
        block = f"transformer.h.{layer}"
        if stage == "early":
            state[f"{block}.attn.c_attn.weight"] = draw(3 * WIDTH, WIDTH)
            state[f"{block}.attn.rotary.inv_freq"] = _angles()
        else:
            state |= {f"{block}.attn.c_{part}.weight": draw(WIDTH, WIDTH) for part in "qkv"}
        state[f"{block}.attn.c_proj.weight"] = draw(WIDTH, WIDTH)
        if stage == "rope":
            state[f"{block}.attn.c_proj.bias"] = draw(WIDTH)
        state[f"{block}.mlp.c_fc.weight"] = draw(4 * WIDTH, WIDTH)
        state[f"{block}.mlp.c_proj.weight"] = draw(WIDTH, 4 * WIDTH)
        if stage in ("value_mix", "unet"):
            state[f"{block}.lambdas"] = torch.tensor([0.9, 0.3]) + 0.1 * draw(2)
            state[f"{block}.attn.lamb"] = torch.tensor(0.4 + 0.05 * layer)
    untied = stage in ("untied", "value_mix", "unet")
    state["lm_head.weight"] = draw(VOCAB, WIDTH, scale=4.0) if untied else state["transformer.wte.weight"]
    if stage == "unet":
        state["skip_weights"] = torch.tensor([0.7, 1.3])
    return state


def modded_logits(stage, state, tokens):
    if stage == "baseline":
        return nanogpt_logits(state, tokens, gelu="tanh")
    old, untied = stage == "early", stage in ("untied", "value_mix", "unet")
    epsilon = 1e-6 if old else torch.finfo(torch.float32).eps
    x = state["transformer.wte.weight"][tokens]
    if stage == "plain":
        x = x + state["transformer.wpe.weight"][: tokens.shape[1]]
    if untied:
        x = _rms(x, epsilon)
    x0, v0, outputs = x, None, []
    for layer in range(LAYERS):
        part = {k.removeprefix(f"transformer.h.{layer}."): v for k, v in state.items()}
        if stage == "unet" and layer >= LAYERS // 2:
            x = x + state["skip_weights"][layer - LAYERS // 2] * outputs[LAYERS - 1 - layer]
        if "lambdas" in part:
            x = part["lambdas"][0] * x + part["lambdas"][1] * x0
        inner = _rms(x, epsilon)
        if old:
            q, k, v = _linear(inner, part, "attn.c_attn").chunk(3, dim=-1)
        else:
            q, k, v = (_linear(inner, part, f"attn.c_{name}") for name in "qkv")
        v0 = v if v0 is None else v0
        if "attn.lamb" in part:
            v = (1 - part["attn.lamb"]) * v + part["attn.lamb"] * v0
        q, k, v = _heads(q), _heads(k), _heads(v)
        if stage not in ("plain", "early"):
            q, k = _rms(q, epsilon), _rms(k, epsilon)
        if stage != "plain":
            q, k = _turned(q), _turned(k)
        share = 1 / math.sqrt(2 * LAYERS) if old else 1.0
        x = x + share * _linear(_attend(q, k, v), part, "attn.c_proj")
        inner = _linear(_rms(x, epsilon), part, "mlp.c_fc")
        x = x + _linear(_gelu(inner, "erf") if old else inner.clamp_min(0) ** 2, part, "mlp.c_proj")
        outputs.append(x)
    logits = _rms(x, epsilon) @ state["lm_head.weight"].T
    return 30 * torch.tanh(logits / 30) if "transformer.h.0.lambdas" in state else logits


def gradients(logits, state, sequence):
    """Toy name → gradient of the mean loss of one sequence (1, T+1) by that matrix, `logits` taking (state, tokens)."""
    leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
    if state["lm_head.weight"] is state["transformer.wte.weight"]:
        leaves["lm_head.weight"] = leaves["transformer.wte.weight"]
    loss = F.cross_entropy(logits(leaves, sequence[:, :-1]).transpose(1, 2), sequence[:, 1:])
    loss.backward()
    found = {}
    for layer in range(LAYERS):
        own, block = f"blocks.{layer}", f"transformer.h.{layer}"
        for i, part in enumerate("qkv"):
            if f"{block}.attn.c_attn.weight" in leaves:
                fused = leaves[f"{block}.attn.c_attn.weight"].grad
                found[f"{own}.attn.{part}"] = fused[i * WIDTH : (i + 1) * WIDTH]
            else:
                found[f"{own}.attn.{part}"] = leaves[f"{block}.attn.c_{part}.weight"].grad
        found[f"{own}.attn.o"] = leaves[f"{block}.attn.c_proj.weight"].grad
        found[f"{own}.mlp.fc"] = leaves[f"{block}.mlp.c_fc.weight"].grad
        found[f"{own}.mlp.proj"] = leaves[f"{block}.mlp.c_proj.weight"].grad
    return found


class _Draw:
    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape, scale=0.3):
        return scale * torch.randn(*shape, generator=self.generator)


def _linear(x, part, name):
    y = torch.einsum("bti,oi->bto", x, part[f"{name}.weight"])
    return y + part[f"{name}.bias"] if f"{name}.bias" in part else y


def _layer_norm(x, gain, bias):
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain
    return y if bias is None else y + bias


def _rms(x, epsilon):
    return x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt()


def _gelu(x, kind):
    if kind == "erf":
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _heads(x):
    return torch.stack(x.split(WIDTH // HEADS, dim=-1), dim=1)


def _attend(q, k, v):
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
    return torch.cat(mixed.unbind(1), dim=-1)


def _angles():
    half = WIDTH // HEADS // 2
    return 10_000.0 ** (-torch.arange(half, dtype=torch.float32) / half)


def _turned(x):
    half = x.shape[-1] // 2
    turn = torch.polar(
        torch.ones(x.shape[-2], half), -torch.outer(torch.arange(x.shape[-2]).float(), _angles())
    )
    turned = torch.complex(x[..., :half], x[..., half:]) * turn
    return torch.cat((turned.real, turned.imag), dim=-1)
