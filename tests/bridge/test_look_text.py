"""One look with a text: tokens without shards, the numbers of the engine, and what a text or a tokeniser lacks."""

import math
import pickle

import numpy as np
import pytest
import torch
from formats import VOCAB, nanogpt_checkpoint

from sims import look
from sims.measure.engine import measure
from sims.models.checkpoints import load
from sims.studies.look.findings import findings
from sims.studies.look.options import TextOptions
from sims.studies.look.text import MEASURED, text_data
from sims.system.errors import MeasureError, StoreError

transformers = pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")
tokenizers = pytest.importorskip("tokenizers", reason="tokenisers need the extra data")

WORDS = (
    "the",
    "spectra",
    "of",
    "a",
    "model",
    "are",
    "set",
    "beside",
    "noise",
    "one",
    "shape",
    "and",
    "lies",
    "outside",
)
SIZES = TextOptions(length=8, gradients=12)


@pytest.fixture
def essay(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "essay.txt"
    path.write_text(" ".join(generator.choice(WORDS, 400)), "utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    """A decoder with a tokeniser of words in its folder."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["[UNK]", *WORDS]))}
    tokeniser = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokeniser.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    config = transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=16, n_positions=32, vocab_size=len(vocabulary)
    )
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    tokeniser.save(str(tmp_path / "model" / "tokenizer.json"))
    return tmp_path / "model"


def tokens(n=30, length=8, vocabulary=VOCAB):
    return torch.randint(0, vocabulary, (n, length + 1), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def nanogpt(tmp_path):
    torch.save(nanogpt_checkpoint(), tmp_path / "ckpt.pt")
    return tmp_path / "ckpt.pt"


class TestNumbers:
    def test_a_text_gives_loss_activations_and_gradients_of_its_own_tokens(self, folder, essay):
        found = look(folder, essay, text=SIZES)
        assert {"weight", "loss", "activation", "gradient"} <= set(found.rows["object"])
        own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = torch.tensor(own.encode(essay.read_text()).ids)
        model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
        rows = torch.stack([ids[k * 8 : k * 8 + 9] for k in range((len(ids) - 1) // 8)])
        with torch.no_grad():
            logits = model(rows[:, :-1]).logits
        want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item()
        loss = found.rows.loc[found.rows["quantity"] == "val_loss", "value"].item()
        assert loss == pytest.approx(want, rel=1e-5)
        said = " ".join(f.text for f in findings(found))
        assert f"Loss {loss:.3f} nats per token on {len(rows)} sequences of 8 tokens" in said
        assert f"{math.log(len(own.get_vocab())):.2f}" in said

    def test_tokens_give_the_rows_of_the_engine(self, nanogpt):
        data = tokens()
        found = look(nanogpt, data, text=SIZES).rows
        subject = load(nanogpt)
        want = measure(subject, text_data(subject, data, SIZES), measurements=MEASURED).rows
        got = found[found["object"] != "weight"]
        assert got["site"].tolist() == [row["site"] for row in want]
        np.testing.assert_array_equal(got["value"].to_numpy(float), [row["value"] for row in want])
        assert {"embed", "blocks.0", "blocks.3", "final"} <= set(
            got.loc[got["object"] == "activation", "site"]
        )

    def test_a_module_in_memory_gives_the_numbers_of_its_folder(self, folder):
        data = tokens(vocabulary=10)
        model = transformers.GPT2LMHeadModel.from_pretrained(folder)
        a, b = (
            look(source, data, text=SIZES).rows.set_index(["object", "site", "quantity", "window"])["value"]
            for source in (model, folder)
        )
        assert set(a.index) == set(b.index)
        np.testing.assert_allclose(a.to_numpy(float), b[a.index].to_numpy(float), rtol=1e-6)

    def test_no_more_tokens_than_asked_for(self, folder, essay):
        found = look(folder, essay, text=TextOptions(length=8, tokens=40, gradients=0))
        assert found.text.startswith("5 sequences of 8 tokens")
        assert "gradient" not in set(found.rows["object"])

    def test_the_page_shows_them(self, folder, essay, tmp_path):
        page = look(folder, essay, text=SIZES).page(tmp_path / "page").read_text("utf-8")
        for title in ("Weights by layer", "Activations by layer", "Per-sample gradients by layer"):
            assert title in page


class TestRefused:
    def test_a_text_shorter_than_two_sequences(self, folder, tmp_path):
        (tmp_path / "short.txt").write_text("the spectra of a model are set", "utf-8")
        with pytest.raises(
            MeasureError, match=r"has 7 tokens, and two sequences of 8 inputs need 17.*--length 3"
        ):
            look(folder, tmp_path / "short.txt", text=SIZES)
        (tmp_path / "empty.txt").write_text("", "utf-8")
        with pytest.raises(MeasureError, match="has 0 tokens"):
            look(folder, tmp_path / "empty.txt", text=SIZES)

    def test_what_is_no_text(self, folder, tmp_path):
        (tmp_path / "latin.txt").write_bytes("où".encode("latin-1") * 100)
        with pytest.raises(StoreError, match="not UTF-8"):
            look(folder, tmp_path / "latin.txt")
        with pytest.raises(StoreError, match="cannot be read"):
            look(folder, tmp_path / "none.txt")

    def test_tokens_outside_the_vocabulary(self, nanogpt, folder, essay):
        with pytest.raises(MeasureError, match=f"token {VOCAB}, and this model knows 0 to {VOCAB - 1}"):
            look(nanogpt, tokens() + 1 - tokens().min() + VOCAB - tokens().max() - 1 + tokens().min())
        config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=32, vocab_size=9)
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
        with pytest.raises(
            MeasureError, match="this model knows 0 to 8: the tokens are of another tokeniser"
        ):
            look(folder, essay, text=SIZES)

    def test_a_pickled_vocabulary_is_not_read(self, nanogpt, essay):
        (nanogpt.parent / "meta.pkl").write_bytes(pickle.dumps({"stoi": {}}))
        with pytest.raises(MeasureError, match=r"meta.pkl, a pickle, which could run code and is not read"):
            look(nanogpt, essay, text=SIZES)

    def test_a_vocabulary_of_the_size_of_gpt2_need_not_be_gpt2s(self, essay):
        """OPT and Pythia have as many tokens, and other ones."""
        sizes = {"vocab_size": 50272, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = transformers.OPTConfig(
            hidden_size=2, word_embed_proj_dim=2, ffn_dim=2, max_position_embeddings=8, **sizes
        )
        model = transformers.OPTForCausalLM(config)
        with pytest.raises(
            MeasureError, match=r"a model of type opt need not have GPT-2's; put the tokenizer"
        ):
            look(model, essay, text=SIZES)

    def test_no_tokeniser(self, nanogpt, folder, essay):
        with pytest.raises(MeasureError, match=r"has no tokenizer.json"):
            look(nanogpt, essay, text=SIZES)
        model = transformers.GPT2LMHeadModel.from_pretrained(folder)
        with pytest.raises(MeasureError, match="a model in memory has no tokeniser"):
            look(model, essay, text=SIZES)
        (folder / "tokenizer.json").write_text("{}")
        with pytest.raises(StoreError, match="fetch it again"):
            look(folder, essay, text=SIZES)

    @pytest.mark.parametrize(
        "data", [tokens().float(), tokens()[0], tokens()[:, :1], tokens()[:1], tokens() > 3, [[1, 2, 3]]]
    )
    def test_no_sequences(self, nanogpt, data):
        with pytest.raises(MeasureError, match=r"pass a text file, or a tensor|needs two or more"):
            look(nanogpt, data, text=SIZES)

    def test_sequences_longer_than_the_model_takes(self, nanogpt, folder, essay):
        with pytest.raises(MeasureError, match="longer than the 12 that this model takes"):
            look(nanogpt, tokens(length=13))
        with pytest.raises(MeasureError, match="this model takes 32 inputs"):
            look(folder, essay, text=TextOptions(length=33))

    def test_weights_that_are_no_numbers_are_named(self, folder):
        model = transformers.GPT2LMHeadModel.from_pretrained(folder)
        model.transformer.h[1].mlp.c_fc.weight.data[0, 0] = float("nan")
        says = r"transformer\.h\.1\.mlp\.c_fc\.weight has 1 NaN of 1024 in"
        with pytest.raises(MeasureError, match=f"{says} GPT2LMHeadModel"):
            look(model, tokens(vocabulary=10), text=SIZES)
        model.save_pretrained(folder)
        with pytest.raises(MeasureError, match=f"{says} model"):
            look(folder, tokens(vocabulary=10), text=SIZES)

    @pytest.mark.parametrize(
        ("weight", "value", "says"),
        [
            ("h.1.mlp.c_fc.weight", torch.nan, r"transformer\.h\.1\.mlp\.c_fc\.weight has 16 NaN of 1024"),
            ("ln_f.weight", torch.inf, r"transformer\.ln_f\.weight has 16 Inf of 16"),
            ("h.1.mlp.c_fc.weight", 1e38, r"the states at blocks\.1 have "),
        ],
    )
    def test_states_that_are_no_numbers_are_named_before_any_work(self, tmp_path, weight, value, says):
        data = nanogpt_checkpoint()
        tensor = data["model"][f"_orig_mod.transformer.{weight}"]
        (tensor if tensor.ndim == 1 else tensor[0])[:] = value
        torch.save(data, tmp_path / "ckpt.pt")
        with pytest.raises(MeasureError, match=f"{says}.* in ckpt.pt, so that it has no activations"):
            look(tmp_path / "ckpt.pt", tokens(), text=SIZES)

    def test_a_module_that_is_no_decoder(self):
        with pytest.raises(MeasureError):
            look(torch.nn.Linear(16, 16), tokens())

    @pytest.mark.parametrize("wrong", [{"length": 0}, {"tokens": 0}, {"gradients": -1}, {"gradients": 1}])
    def test_options(self, wrong):
        with pytest.raises(MeasureError, match=next(iter(wrong))):
            TextOptions(**wrong)
