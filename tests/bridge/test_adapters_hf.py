"""The contract over models of Hugging Face, built from small configurations and saved to disk; no network."""

import json

import pytest
import torch
from contract import CHECKS, Case
from formats import sequences as drawn

from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import CheckpointRun, inspect, load
from toymodel.errors import CheckpointError

transformers = pytest.importorskip("transformers", reason="adapters of Hugging Face need the extra hf")

LAYERS, WIDTH, HEADS, VOCAB = 2, 16, 2, 29
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
}
_COMMON |= {"intermediate_size": 40, "max_position_embeddings": 12, "initializer_range": 0.4}
_OLMO = {**_COMMON, "pad_token_id": None, "eos_token_id": 0}


def gpt2(**changes):
    sizes = {"vocab_size": VOCAB, "n_positions": 12, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    return transformers.GPT2Config(**sizes, initializer_range=0.4, **changes)


CONFIGS = {
    "GPT-2": gpt2,
    "GPT-2 untied": lambda: gpt2(tie_word_embeddings=False),
    "GPT-NeoX": lambda: transformers.GPTNeoXConfig(**_COMMON, rotary_pct=0.5),
    "GPT-NeoX in series": lambda: transformers.GPTNeoXConfig(**_COMMON, use_parallel_residual=False),
    "OLMo": lambda: transformers.OlmoConfig(**_OLMO, clip_qkv=0.5),
    "OLMo 2": lambda: transformers.Olmo2Config(**_OLMO, num_key_value_heads=1, tie_word_embeddings=True),
}


def saved(config, folder, **how):
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for p in model.parameters():
        # Fresh biases are zero and gains one, which would hide a mistake in them.
        if p.ndim == 1:
            p.data += 0.1 * torch.randn_like(p)
    model.save_pretrained(folder, **how)
    return model


def of_original(model, sequence):
    """Gradients by the block matrices of the toy's names, read off the original module."""
    model.zero_grad()
    logits = model(sequence[:, :-1]).logits
    torch.nn.functional.cross_entropy(logits.transpose(1, 2), sequence[:, 1:]).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    found = {}
    for layer in range(LAYERS):
        if (block := f"transformer.h.{layer}") + ".attn.c_attn.weight" in grads:
            q, k, v = grads[f"{block}.attn.c_attn.weight"].T.chunk(3)
            o, fc, proj = (grads[f"{block}.{n}.weight"].T for n in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
            own = {"attn.q": q, "attn.k": k, "attn.v": v, "attn.o": o, "mlp.fc": fc, "mlp.proj": proj}
        elif (block := f"gpt_neox.layers.{layer}") + ".attention.dense.weight" in grads:
            by_head = grads[f"{block}.attention.query_key_value.weight"].chunk(HEADS)
            own = {f"attn.{p}": torch.cat([h.chunk(3)[i] for h in by_head]) for i, p in enumerate("qkv")}
            own["attn.o"] = grads[f"{block}.attention.dense.weight"]
            own["mlp.fc"] = grads[f"{block}.mlp.dense_h_to_4h.weight"]
            own["mlp.proj"] = grads[f"{block}.mlp.dense_4h_to_h.weight"]
        else:
            block = f"model.layers.{layer}"
            own = {f"attn.{p}": grads[f"{block}.self_attn.{p}_proj.weight"] for p in "qkvo"}
            names = {"gate": "gate", "fc": "up", "proj": "down"}
            own |= {f"mlp.{n}": grads[f"{block}.mlp.{theirs}_proj.weight"] for n, theirs in names.items()}
        found |= {f"blocks.{layer}.{name}": value for name, value in own.items()}
    return found


@pytest.fixture(scope="module", params=CONFIGS)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "step250"
    model = saved(CONFIGS[request.param](), folder)

    def logits(tokens):
        with torch.no_grad():
            return model(tokens).logits

    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    return Case(load(folder), drawn(), logits, lambda sequence: of_original(model, sequence), LAYERS, tied)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(case, check):
    check(case)


def test_bfloat16_is_measured_in_float32(tmp_path):
    model = saved(gpt2(), tmp_path / "step0")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half" / "step0")
    subject = load(tmp_path / "half" / "step0")
    assert {m.dtype for m in subject.matrices.values()} == {torch.float32}
    torch.testing.assert_close(subject.matrices["embed"], model.transformer.wte.weight.float())


def test_revisions_are_a_run(tmp_path):
    for step in (20, 3, 10):
        saved(gpt2(), tmp_path / f"step{step}-tokens{step}K")
    run = CheckpointRun.of(tmp_path)
    assert run.steps == (3, 10, 20)
    assert [subject.tokens for subject in run] == [3_000, 10_000, 20_000]
    assert CheckpointRun.of(tmp_path, CheckpointOptions(tokens_per_step=7))[0].tokens == 21
    (tmp_path / "step20-tokens20K" / "trainer_state.json").write_text(
        json.dumps({"global_step": 21, "num_input_tokens_seen": 1234})
    )
    assert (inspect(tmp_path / "step20-tokens20K").step, inspect(tmp_path / "step20-tokens20K").tokens) == (
        21,
        1234,
    )


def test_a_missing_shard_is_named(tmp_path):
    saved(gpt2(), tmp_path / "step1", max_shard_size="5KB")
    shards = sorted((tmp_path / "step1").glob("model-*.safetensors"))
    assert len(shards) > 2
    load(tmp_path / "step1")
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"lacks {shards[1].name} of {len(shards)} shards"):
        load(tmp_path / "step1")


def test_the_published_gpt2_files_are_of_the_model_without_its_head(tmp_path):
    from safetensors.torch import save_file

    model = saved(gpt2(), tmp_path / "step1")
    state = {
        n.removeprefix("transformer."): t for n, t in model.state_dict().items() if n != "lm_head.weight"
    }
    # They also carry causal masks.
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 12, 12).tril() for i in range(LAYERS)}
    expected = load(tmp_path / "step1").losses(drawn())
    save_file(
        {n: t.contiguous() for n, t in (state | masks).items()}, tmp_path / "step1" / "model.safetensors"
    )
    assert torch.equal(load(tmp_path / "step1").losses(drawn()), expected)


def test_what_would_be_drawn_anew_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    saved(gpt2(), tmp_path / "step1")
    file = tmp_path / "step1" / "model.safetensors"
    tensors = load_file(file)
    gone = next(name for name in tensors if name.endswith("h.1.mlp.c_fc.weight"))
    save_file({n: t for n, t in tensors.items() if n != gone}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks transformer.h.1.mlp.c_fc.weight"):
        load(tmp_path / "step1")
    save_file({**tensors, gone: tensors[gone][:, :-1].contiguous()}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"sizes do not fit.*transformer.h.1.mlp.c_fc.weight"):
        load(tmp_path / "step1")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(tmp_path / "step1")
    file.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load(tmp_path / "step1")


def test_a_pickle_with_code_is_refused(tmp_path):
    saved(gpt2(), tmp_path / "step1")
    (tmp_path / "step1" / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": torch.nn.Linear(2, 2)}, tmp_path / "step1" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled object of torch\.nn\.modules"):
        load(tmp_path / "step1")


def test_unknown_architectures_are_named(tmp_path):
    saved(gpt2(), tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(
        CheckpointError, match=r"type 'vit', and transformers \d.* has no decoder of this type"
    ):
        load(tmp_path, CheckpointOptions(step=1))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        inspect(tmp_path)


@pytest.mark.parametrize("given", [{"heads": 4}, {"activation": "relu2"}])
def test_an_option_that_contradicts_the_configuration_is_refused(tmp_path, given):
    saved(gpt2(), tmp_path / "step7")
    load(tmp_path / "step7", CheckpointOptions(heads=HEADS, activation="gelu_tanh"))
    with pytest.raises(CheckpointError, match=r"records (heads 2|activation gelu_tanh), and --\w+ is"):
        load(tmp_path / "step7", CheckpointOptions(**given))
