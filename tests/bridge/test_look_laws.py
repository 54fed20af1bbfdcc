"""A model against approximate laws of the next token: known chains, other models, and what cannot be compared."""

import json

import numpy as np
import pytest
import torch
from families import model_of
from formats import VOCAB, nanogpt_checkpoint

from sims import cli, look
from sims.studies.look.options import TextOptions
from sims.studies.look.study import PAGE
from sims.studies.study import figures, sections
from sims.system.errors import MeasureError
from toymodel.errors import CheckpointError

transformers = pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")
tokenizers = pytest.importorskip("tokenizers", reason="tokenisers need the extra data")

V, LENGTH = 14, 16
WORDS = tuple(f"w{chr(97 + i)}" for i in range(V))
SIZES = TextOptions(length=LENGTH, tokens=4000, gradients=0)
RNG = np.random.default_rng(0)
CHAIN = RNG.dirichlet(np.full(V, 0.5), V)
CHAIN = (CHAIN + 0.01) / (CHAIN + 0.01).sum(axis=1, keepdims=True)


def table_model(order, vocabulary=V, words=WORDS):
    """A GPT-2 whose state is the last token, one-hot in a given order of coordinates, and whose head is the chain."""
    config = transformers.GPT2Config(
        n_layer=1,
        n_head=1,
        n_embd=V,
        n_positions=2 * LENGTH,
        vocab_size=vocabulary,
        tie_word_embeddings=False,
    )
    model = transformers.GPT2LMHeadModel(config)
    block, trunk = model.transformer.h[0], model.transformer
    with torch.no_grad():
        for part in (block.attn.c_proj, block.mlp.c_proj, trunk.wpe):
            for weight in part.parameters():
                weight.zero_()
        # The norm of a one-hot vector is size · (one-hot − 1/V).
        size = 1 / (1 / V * (1 - 1 / V) + config.layer_norm_epsilon) ** 0.5
        trunk.ln_f.bias.fill_(size / V)
        places = torch.as_tensor(order)
        trunk.wte.weight.zero_()
        trunk.wte.weight[torch.arange(V), places] = 1.0
        model.lm_head.weight.fill_(-30.0 / size)
        model.lm_head.weight[:V, places] = torch.tensor(np.log(CHAIN).T / size).float()
    return model


def save(model, folder, words=WORDS):
    model.save_pretrained(folder)
    own = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0])
    )
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(table_model(np.arange(V)), tmp_path_factory.mktemp("laws") / "model")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Return the same law with other weights: its coordinates stand in another order."""
    return save(table_model(np.roll(np.arange(V), 3)), tmp_path_factory.mktemp("laws") / "teacher")


@pytest.fixture(scope="module")
def essay(tmp_path_factory):
    tokens, sums = [0], CHAIN.cumsum(axis=1)
    for u in np.random.default_rng(1).random(40_000):
        tokens.append(min(int(np.searchsorted(sums[tokens[-1]], u)), V - 1))
    path = tmp_path_factory.mktemp("laws") / "essay.txt"
    path.write_text(" ".join(WORDS[t] for t in tokens), "utf-8")
    return path


@pytest.fixture(scope="module")
def found(folder, teacher, essay):
    return look(folder, essay, predictive=("bigram", "trigram", teacher), draft=True, text=SIZES)


def value(found, quantity, detail, column="value"):
    rows = found.rows[(found.rows["quantity"] == quantity) & (found.rows["detail"] == detail)]
    return rows[column].item()


class TestKnownLaws:
    def test_a_head_that_is_the_chain_has_no_divergence_from_its_bigrams(self, found):
        # Counts of m tokens: (free chances)/(2m) nats are left.
        left = V * (V - 1) / (2 * 36_000)
        assert 0 < value(found, "kl_divergence", "bigram") < 2 * left
        assert value(found, "kl_divergence", "trigram") > value(found, "kl_divergence", "bigram")
        for quantity in ("kl_divergence", "entropy_gap"):
            assert value(found, quantity, "teacher") == pytest.approx(0, abs=1e-6)
        for law in ("bigram", "trigram", "teacher"):
            assert value(found, "entropy_gap", law) <= value(found, "entropy_gap_bound", law)

    def test_its_states_explain_the_operator_and_permuted_contexts_nothing(self, found):
        for law in ("bigram", "teacher"):
            for quantity in ("alignment_bc", "alignment_linear", "alignment_bc_last_token"):
                assert value(found, quantity, law) == pytest.approx(1, abs=1e-4)
            assert abs(value(found, "alignment_bc", law, "null")) < 0.1
            shares = found.rows[found.rows["detail"].str.startswith(f"{law}: eigenfunction")]
            assert shares.loc[shares["quantity"] == "eigenfunction_share", "value"].min() > 0.999

    def test_counted_and_exact_operators_agree(self, found, folder, essay):
        # Eigenvalues of the chain with the weights of the contexts that are compared.
        text = torch.tensor([WORDS.index(word) for word in essay.read_text().split()][: 250 * LENGTH])
        share = np.bincount(text, minlength=V) / len(text)
        roots = np.sqrt(CHAIN) - share @ np.sqrt(CHAIN)
        exact = np.linalg.svd(roots * share[:, None] ** 0.5, compute_uv=False) ** 2
        for law in ("bigram", "teacher"):
            rows = found.rows[found.rows["detail"].str.startswith(f"{law}: eigen")]
            own = rows.loc[rows["quantity"] == "eigenvalue", "value"].to_numpy()
            np.testing.assert_allclose(own[:5], exact[:5], rtol=0.15)

    def test_the_directions_that_predictions_depend_on_are_those_of_the_chain(self, found):
        # One logit is free: V − 1 of V directions.
        (metric,) = found.spectra.loc[found.spectra["object"] == "metric", "values"]
        assert (np.array(metric) > 1e-9 * metric[0]).sum() == V - 1

    def test_every_position_has_its_numbers(self, found):
        names = [f"bigram: positions {a}–{b}" for a, b in ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16))]
        own = [value(found, "kl_divergence", name) for name in names]
        weights = np.array([1, 1, 2, 4, 8]) / 16
        assert own @ weights == pytest.approx(value(found, "kl_divergence", "bigram"), rel=1e-9)
        assert not (found.rows["value"].isna() & found.rows["status"].eq("ok")).any()

    def test_a_draft_of_a_chain_gains_nothing_from_the_state(self, found):
        # The token before says nothing more about the token after next than the next token does.
        for reads in ("bigram", "next token", "state"):
            assert value(found, "acceptance", reads) > 0.95
        low, high = (value(found, "surplus", "", side) for side in ("low", "high"))
        assert low <= 0.002
        assert high < 0.02

    def test_the_page_shows_them(self, found, folder):
        (section,) = sections(PAGE, found, ["laws"])
        assert "The laws are approximate" in section.text
        assert [axes.get_title("left") for axes in section.figure.axes] == [
            "KL(law ‖ model)",
            "share that states explain",
            "acceptance of a draft",
        ]
        assert "trigram is an approximate law" in " ".join(found.findings)
        # Without a law there is no such section.
        assert not [f for f in figures(PAGE).values() if f.name == "laws" and f.applies(look(folder))]

    def test_the_command_hands_its_options_on(self, found, essay, capsys, monkeypatch):
        given = {}
        monkeypatch.setattr(
            "sims.studies.look.look.look", lambda *_, **options: given.update(options) or found
        )
        words = ["look", "model", "--text", str(essay), "--predictive", "trigram", "gpt2-xl", "--draft"]
        assert cli.main([*words, "--out", "none", "--json"]) == 0
        assert (given["predictive"], given["draft"]) == (("trigram", "gpt2-xl"), True)
        rows = {(row["quantity"], row["detail"]) for row in json.loads(capsys.readouterr().out)["rows"]}
        assert {("kl_divergence", "teacher"), ("alignment_bc", "trigram"), ("surplus", "")} <= rows


class TestModels:
    @pytest.mark.parametrize("family", ["Gemma 2", "Mixtral", "OPT, projected", "nanoGPT"])
    def test_of_any_family_are_compared(self, family, tmp_path):
        torch.save(nanogpt_checkpoint(), tmp_path / "ckpt.pt")
        model = tmp_path / "ckpt.pt" if family == "nanoGPT" else model_of(family)
        tokens = torch.randint(0, VOCAB, (24, 9), generator=torch.Generator().manual_seed(0))
        teacher = model_of("GPT-NeoX")
        found = look(model, tokens, predictive=["bigram", teacher], draft=True, text=TextOptions(gradients=0))
        rows = found.rows[found.rows["object"].isin(["predictive", "metric", "draft"])]
        assert not (rows["value"].isna() & rows["status"].eq("ok")).any()
        for law in ("bigram", "GPTNeoXForCausalLM"):
            assert value(found, "kl_divergence", law) > 0
            assert np.isfinite(value(found, "alignment_bc", law))
        assert 0 < value(found, "acceptance", "state") < 1
        assert any("taken for granted" in note for note in found.notes)


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"predictive": ("model",)}, "model holds the same weights as the model"),
            ({"predictive": ("bigram", "bigram")}, "two laws are named bigram"),
            (
                {"predictive": ("none",)},
                "none' is no law of the next token: name bigram or trigram, or a file",
            ),
            ({"predictive": ("",)}, "'' is no law of the next token"),
            ({"predictive": ("bigram",), "tokens": 30_000}, r"10\d\d\d are left to count.*--tokens 200\d\d"),
            ({"draft": True, "tokens": 100}, "it needs 10 of two or more inputs, and there are 6"),
        ],
    )
    def test_before_any_work(self, folder, essay, options, why):
        sizes = TextOptions(length=LENGTH, tokens=options.pop("tokens", 4000), gradients=0)
        given = [str(folder) if name == "model" else name for name in options.pop("predictive", ())]
        with pytest.raises((MeasureError, CheckpointError), match=why):
            look(folder, essay, predictive=given, text=sizes, progress=never, **options)

    def test_other_tokens(self, folder, essay, tmp_path):
        other = save(table_model(np.roll(np.arange(V), 1)), tmp_path / "other", words=WORDS[::-1])
        with pytest.raises(MeasureError, match=r"another tokeniser: .* which differ from token 1 on"):
            look(folder, essay, predictive=[other], text=SIZES, progress=never)

    def test_more_rows_in_the_head_of_a_teacher_with_the_same_tokens(self, folder, essay, tmp_path):
        padded = save(table_model(np.roll(np.arange(V), 1), vocabulary=V + 6), tmp_path / "padded")
        found = look(folder, essay, predictive=[padded], text=SIZES)
        assert value(found, "kl_divergence", "padded") == pytest.approx(0, abs=1e-6)
        assert any("padded has 20 tokens and the model 14" in note for note in found.notes)
        tokens = torch.randint(0, V, (20, LENGTH + 1))
        with pytest.raises(
            MeasureError, match="without a text file nothing shows that their tokens are the same"
        ):
            look(folder, tokens, predictive=[padded], text=SIZES, progress=never)

    def test_shorter_inputs_of_the_teacher(self, folder, teacher, essay):
        short = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=1, n_head=1, n_embd=4, n_positions=LENGTH - 1, vocab_size=V)
        )
        with pytest.raises(
            MeasureError, match=r"longer than the 15 that GPT2LMHeadModel takes; .*--length 15"
        ):
            look(
                folder, torch.randint(0, V, (20, LENGTH + 1)), predictive=[short], text=SIZES, progress=never
            )

    def test_without_text(self, folder):
        with pytest.raises(MeasureError, match="are measured on text"):
            look(folder, predictive=["bigram"], progress=never)


def never(part, done, total):
    """Fail where something is measured before a refusal."""
    raise AssertionError(part)
