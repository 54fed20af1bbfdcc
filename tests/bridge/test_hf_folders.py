"""Folders of Hugging Face as they come: wrappers, shards, the library's cache, and configurations that say more."""

import json
import shutil

import pytest
import torch
from formats import sequences as drawn
from safetensors.torch import load_file, save_file

from sims import cli
from sims.measure.lm_prepare import Text
from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import CheckpointRun, inspect, load
from sims.system.errors import MeasureError
from sims.text.tokenizer import load_tokenizer
from toymodel.errors import CheckpointError

transformers = pytest.importorskip("transformers", reason="adapters of Hugging Face need the extra hf")

SIZES = {"vocab_size": 29, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 2}
NEOX = {"vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
FC = "transformer.h.1.mlp.c_fc.weight"


def saved(folder, seed=3, **config):
    torch.manual_seed(seed)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**SIZES, initializer_range=0.4, **config)
    ).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    saved(folder)
    return folder


def losses(model):
    with torch.no_grad():
        logits = model(drawn()[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.mT, drawn()[:, 1:], reduction="none")


def same(subject, model):
    torch.testing.assert_close(subject.losses(drawn()), losses(model), atol=1e-5, rtol=1e-5)


def rewritten(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", {"format": "pt"})


def configured(folder, **entries):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_folders_of_wrapped_models_are_read(tmp_path, prefix):
    model = saved(tmp_path / "step1")
    rewritten(tmp_path / "step1", lambda t: {prefix + n: v for n, v in t.items()})
    same(load(tmp_path / "step1"), model)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_shards_are_what_their_index_says(tmp_path, form):
    model = saved(tmp_path / "step1")
    folder, whole = tmp_path / "step1", tmp_path / "step1" / "model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    whole.unlink()
    ending, base = ("safetensors", "model") if form == "safetensors" else ("bin", "pytorch_model")
    write = save_file if form == "safetensors" else torch.save
    halves = {f"{base}-0000{i + 1}-of-00002.{ending}": names[i::2] for i in range(2)}

    def write_shards(weight_map, **more):
        for file, own in halves.items():
            write({n: tensors[n] for n in own} | more, folder / file)
        (folder / f"{base}.{ending}.index.json").write_text(json.dumps({"weight_map": weight_map}))

    placed = {n: file for file, own in halves.items() for n in own}
    write_shards(placed)
    same(load(folder), model)
    write_shards({n: f for n, f in placed.items() if n != names[2]})
    with pytest.raises(CheckpointError, match=rf"00001-of-00002.{ending} also holds {names[2]}"):
        load(folder)
    write_shards({**placed, "transformer.x": next(iter(halves))})
    with pytest.raises(CheckpointError, match=rf"00001-of-00002.{ending} lacks transformer.x"):
        load(folder)
    write_shards({**placed, "transformer.x": "gone." + ending})
    with pytest.raises(CheckpointError, match=rf"lacks gone.{ending} of 3 shards"):
        load(folder)
    write_shards({**placed, "transformer.x": "../../secret." + ending})
    with pytest.raises(
        CheckpointError, match=r"places transformer.x in '\.\./\.\./secret.*no file beside it"
    ):
        load(folder)
    for nothing in ({}, [], None):
        write_shards(nothing)
        with pytest.raises(CheckpointError, match="has no weight_map"):
            load(folder)
    write_shards(placed)
    write(tensors, folder / f"{base}.{ending}")
    with pytest.raises(CheckpointError, match=rf"has both {base}.{ending} and {base}.{ending}.index.json"):
        load(folder)


def test_faster_kernels_of_the_same_attention_are_no_obstacle(tmp_path):
    model = saved(tmp_path / "step1")
    for key in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal"):
        configured(tmp_path / "step1", **{key: "flash_attention_2"})
        same(load(tmp_path / "step1"), model)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, r"quantised weights .*bitsandbytes"),
        ({"quantization_config": "odd"}, r"quantised weights .*odd"),
        ({"auto_map": {"AutoModelForCausalLM": "mine.Mine"}}, r"code of its own .*mine.Mine"),
        ({"add_cross_attention": True}, "cross-attention"),
        ({"n_head": 3}, r"cannot be loaded \(ValueError.*divisible"),
        ({"n_head": -1}, r"cannot be loaded \(RuntimeError"),
        ({"embd_pdrop": float("nan")}, r"cannot be loaded \(\w+: dropout"),
        ({"pad_token_id": 10**30}, r"cannot be loaded \(OverflowError"),
        ({"n_head": 0}, r"cannot be loaded \(ZeroDivisionError"),
        ({"activation_function": "odd"}, r"cannot be loaded \(KeyError.*odd"),
        ({"n_embd": "wide"}, r"cannot be loaded \(Strict.*n_embd"),
        ({"n_layer": 1}, r"does not know: transformer.h.1.attn.c_attn.weight, .* and \d+ more"),
        ({"n_layer": 3}, r"lacks transformer.h.2"),
        ({"n_positions": 13}, r"sizes do not fit its configuration: transformer.wpe.weight"),
        ({"vocab_size": 30}, r"sizes do not fit its configuration: .*transformer.wte.weight"),
        (
            {"model_type": "gpt_neox"},
            r"lacks most of .*asks for: 44 layers, and the files hold 7,248 parameters",
        ),
        (
            {"model_type": "gpt_neox", "num_hidden_layers": 2},
            r"lacks most of .*: 906,319,872 parameters, and",
        ),
        ({"n_layer": 10**9}, r"lacks most of .*: 1,000,000,000 layers"),
        ({"model_type": None}, "type 'None'"),
        ({"tie_word_embeddings": False}, "lacks lm_head.weight"),
    ],
)
def test_configurations_that_the_weights_contradict(tiny, tmp_path, entries, says):
    shutil.copytree(tiny, tmp_path / "step1")
    configured(tmp_path / "step1", **entries)
    with pytest.raises(CheckpointError, match=says):
        load(tmp_path / "step1")


def test_every_tensor_is_used_or_refused(tmp_path):
    folder = tmp_path / "step1"
    saved(folder)
    tensors = load_file(folder / "model.safetensors")
    for extra, says in (
        ({"lm_head.bias": torch.ones(29)}, "does not know: lm_head.bias"),
        ({"score.weight": torch.ones(2, 16)}, "does not know: score.weight"),
        ({"transformer.h.0.attn.bias": torch.ones(3)}, "is not the causal mask"),
        ({"h.0.attn.bias": torch.ones(1, 1, 12, 12)}, "is not the causal mask"),
        ({FC: tensors[FC].to(torch.int8)}, rf"{FC} is of int8"),
        ({FC: tensors[FC].to(torch.float8_e4m3fn)}, rf"{FC} is of float8_e4m3fn"),
        ({FC: tensors[FC].to(torch.complex64)}, rf"{FC} is of complex64"),
    ):
        save_file({**tensors, **extra}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=says):
            load(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="weights of an adapter"):
        load(folder)


def test_a_head_unlike_the_embedding_is_computed_with_whatever_the_flag_says(tmp_path):
    model = saved(tmp_path / "step1", tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(3).add_(0.1)
    model.save_pretrained(tmp_path / "step1")
    configured(tmp_path / "step1", tie_word_embeddings=True)
    subject = load(tmp_path / "step1")
    assert subject.about["head"] == "its own"
    same(subject, model)
    rewritten(tmp_path / "step1", lambda t: {**t, "lm_head.weight": torch.ones(31, 16)})
    with pytest.raises(CheckpointError, match=r"lm_head.weight|cannot be loaded"):
        load(tmp_path / "step1")


def test_old_buffers_of_rotary_models_are_compared_with_the_configuration(tmp_path):
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**NEOX, rotary_pct=0.5)).eval()
    model.save_pretrained(tmp_path / "step1")
    mask = torch.ones(1, 1, 12, 12).tril().bool()
    old = {
        "gpt_neox.layers.0.attention.bias": mask,
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
    }
    own = {"gpt_neox.layers.0.attention.rotary_emb.inv_freq": 10_000.0 ** (-torch.arange(2.0) / 2)}
    rewritten(tmp_path / "step1", lambda t: {**t, **old, **own})
    same(load(tmp_path / "step1"), model)
    rewritten(tmp_path / "step1", lambda t: {**t, **{n: 2 * v for n, v in own.items()}})
    with pytest.raises(CheckpointError, match=r"rotary_emb.inv_freq are not those of its configuration"):
        load(tmp_path / "step1")


def cached(folder, **refs):
    """A model in the library's cache: links to blobs in a snapshot for each revision."""
    cache = folder / "models--org--tiny"
    models = {}
    for i, (name, commit) in enumerate(refs.items()):
        (cache / "refs").mkdir(parents=True, exist_ok=True)
        (cache / "refs" / name.replace("_", "-")).write_text(commit)
        if (cache / "snapshots" / commit).exists():
            continue
        saved_at = folder / f"plain{i}"
        models[commit] = saved(saved_at, seed=i)
        (cache / "blobs").mkdir(exist_ok=True)
        (cache / "snapshots" / commit).mkdir(parents=True)
        for file in saved_at.iterdir():
            blob = cache / "blobs" / f"{commit}{file.name}"
            file.rename(blob)
            (cache / "snapshots" / commit / file.name).symlink_to(f"../../blobs/{blob.name}")
    return cache, models


def test_a_model_in_the_cache_is_found_by_its_main_revision(tmp_path, capsys):
    cache, models = cached(tmp_path, main="a" * 40)
    found = inspect(cache, CheckpointOptions(step=7))
    assert (found.path, found.step) == (cache / "snapshots" / ("a" * 40), 7)
    same(load(cache, CheckpointOptions(step=7)), models["a" * 40])
    assert cli.main(["inspect", str(cache), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "Hugging Face gpt2"
    (cache / "refs" / "main").write_text("b" * 40)
    with pytest.raises(
        CheckpointError, match=rf"revision main is the snapshot {'b' * 40}, which is not there"
    ):
        inspect(cache)


def test_revisions_in_the_cache_are_a_run(tmp_path):
    cache, models = cached(tmp_path, step20="a" * 40, step3="b" * 40, main="a" * 40)
    run = CheckpointRun.of(cache)
    assert run.steps == (3, 20)
    same(run[0], models["b" * 40])
    assert load(cache / "snapshots" / ("a" * 40)).step == 20
    (cache / "refs" / "step4").write_text("b" * 40)
    with pytest.raises(
        CheckpointError, match=r"snapshot of step3 and of step4, so that their weights are the same"
    ):
        CheckpointRun.of(cache)


def test_checkpoints_inside_the_folder_of_a_model_are_told(tiny, tmp_path):
    """As a Trainer leaves them that saves the model at its end."""
    out = tmp_path / "out"
    shutil.copytree(tiny, out)
    options = CheckpointOptions(step=8)
    assert CheckpointRun.of(out, options).beside == []
    for step in (4, 8):
        shutil.copytree(tiny, out / f"checkpoint-{step}")
    (said,) = CheckpointRun.of(out, options).beside
    assert "checkpoint-4, checkpoint-8 inside it are not read" in said
    assert CheckpointRun.of(out / "checkpoint-4").beside == []


def test_text_of_another_tokeniser_than_the_model_is_refused(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenisers need the extra data")
    encoder = load_tokenizer(most_merges=20).encoder
    text = Text((tmp_path / "text_val_000000.bin",), 277, lambda text: encoder.encode(text).ids)
    text.check_tokens(tmp_path)
    encoder.save(str(tmp_path / "tokenizer.json"))
    text.check_tokens(tmp_path)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(MeasureError, match=r"is not in the vocabulary of .*tokenizer.json: .Texts of 1984"):
        text.check_tokens(tmp_path)


@pytest.mark.parametrize(
    ("name", "step", "tokens"),
    [
        ("step1000-tokens4B", 1000, 4 * 10**9),
        ("step1000-tokens1.5B", 1000, 1_500_000_000),
        ("step1000-tokens250", 1000, 250),
        ("step1000-tokens4b", 1000, None),
        ("step10k", None, None),
        ("step_1e5", None, None),
    ],
)
def test_numbers_in_names_are_read_whole_or_not_at_all(tiny, tmp_path, name, step, tokens):
    shutil.copytree(tiny, tmp_path / name)
    found = inspect(tmp_path / name)
    assert (found.step, found.tokens) == (step, tokens)
