"""Decoders of transformers in memory: the contract, and what their fused weights do, family by family."""

import pytest
import torch
import torch.nn.functional as F
from contract import CHECKS, Case
from families import FAMILIES, model_of
from formats import sequences as drawn

from sims.models.checkpoints import load
from sims.models.module import ModuleSubject
from sims.models.parts import layout_of
from sims.system.errors import MeasureError

pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")

EXPERTS = (
    "Granite-MoE",
    "Mixtral",
    "Qwen2-MoE",
    "Qwen3-MoE",
    "OLMoE",
    "gpt-oss",
    "Llama 4",
    "DeepSeek-V2",
    "DeepSeek-V3",
)
# The others differ from these in sizes and norms (every family: its losses, and what q, k, v and the gate do).
COMMON = (
    "GPT-2",
    "Llama, tied",
    "Mistral",
    "Qwen3",
    "Gemma",
    "Gemma 2",
    "GPT-J",
    "OPT",
    "OPT, projected",
    "Phi-3",
)
COMMON += ("Falcon", "Falcon, grouped", "BLOOM", "Starcoder", "Granite", "Cohere")
NAMES_ALONE = (
    "every_matrix_is_there",
    "every_matrix_multiplies_its_input_site",
    "gradient_factors_are_per_sample_gradients",
)


def subject_of(model):
    return ModuleSubject.of(model, layout_of(model), step=3)


def logits_of(model):
    def logits(tokens):
        with torch.no_grad():
            return model(tokens).logits

    return logits


def by_autograd(model):
    places = layout_of(model).matrices

    def gradients(sequence):
        model.zero_grad()
        logits = model(sequence[:, :-1]).logits
        F.cross_entropy(logits.mT, sequence[:, 1:]).backward()
        return {
            name: place.cut(place.weight(model).grad)
            for name, place in places.items()
            if name.startswith("blocks.")
        }

    return gradients


def case_of(family):
    model = model_of(family)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    return Case(subject_of(model), drawn(), logits_of(model), by_autograd(model), 2, tied)


@pytest.fixture(scope="module", params=COMMON)
def case(request):
    return case_of(request.param)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(case, check):
    check(case)


@pytest.fixture(scope="module", params=EXPERTS)
def of_experts(request):
    return case_of(request.param)


@pytest.mark.parametrize(
    "check",
    [
        c
        for c in CHECKS
        if c.__name__ not in (*NAMES_ALONE, "no_hook_is_left", "one_matrix_is_replaced_in_a_copy")
    ],
    ids=lambda check: check.__name__,
)
def test_contract_of_experts(of_experts, check):
    named = ("the_pipeline_measures_it", "unknown_names_are_refused")
    if check.__name__ in named and "blocks.0.attn.q" not in of_experts.subject.matrices:
        pytest.skip("latent attention has no q, k and v")
    check(of_experts)


def test_gradients_of_what_every_position_reads(of_experts):
    subject, sequences = of_experts.subject, of_experts.sequences
    names = [n for n in subject.input_sites if n != "head"]
    assert [n for n in names if "attn" in n]
    assert not [n for n in names if ".experts." in n]
    factors = subject.gradient_factors(sequences[:1], names)
    expected = of_experts.gradients(sequences[:1])
    for name in names:
        formed = torch.einsum("mto,mti->oi", factors[name].d, factors[name].a)
        torch.testing.assert_close(formed, expected[name], atol=1e-5, rtol=1e-4, msg=name)
    expert = next(n for n in subject.matrices if ".experts.1." in n)
    with pytest.raises(MeasureError, match=rf"unknown matrices.*{expert}"):
        subject.gradient_factors(sequences, [expert])


def test_an_expert_is_replaced_in_a_copy(of_experts):
    subject, sequences = of_experts.subject, of_experts.sequences
    for name in [n for n in subject.matrices if ".experts.2." in n]:
        changed = subject.with_matrix(name, 3 * subject.matrices[name])
        torch.testing.assert_close(changed.matrices[name], 3 * subject.matrices[name])
        others = [n for n in subject.matrices if n != name]
        assert all(torch.equal(changed.matrices[n], subject.matrices[n]) for n in others)
        assert not torch.equal(changed.losses(sequences), subject.losses(sequences)), name


@pytest.mark.parametrize("family", [f for f in FAMILIES if not f.startswith("DeepSeek")])
def test_q_k_v_and_the_gate_do_what_their_names_say(family):
    """Without q or without k all scores are zero; without v nothing is mixed; the other half of a gate is linear."""
    model = model_of(family)
    for name, p in model.named_parameters():
        if name.endswith("bias") or "sinks" in name:
            p.data.zero_()
    subject, sequences = subject_of(model), drawn()
    own = subject.matrices
    for layer in (0, 1):
        at = f"blocks.{layer}"

        def seen(site, *names, by=0.0):
            changed = subject
            for name in names:
                changed = changed.with_matrix(name, by * own[name])
            (found,) = changed.activations(sequences, (site,))
            return found[site]

        mix = f"{at}.attn.mix"
        assert seen(mix, f"{at}.attn.v").abs().max() == 0
        torch.testing.assert_close(seen(mix, f"{at}.attn.q"), seen(mix, f"{at}.attn.k"))
        assert not torch.allclose(seen(mix, f"{at}.attn.q"), seen(mix), atol=1e-5)
        if f"{at}.mlp.gate" in own:
            act = f"{at}.mlp.act"
            torch.testing.assert_close(seen(act, f"{at}.mlp.fc", by=-1.0), -seen(act))
            assert not torch.allclose(seen(act, f"{at}.mlp.gate", by=-1.0), -seen(act), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_are_loaded(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path / "step7")
    subject = load(tmp_path / "step7")
    expected = F.cross_entropy(logits_of(model)(drawn()[:, :-1]).mT, drawn()[:, 1:], reduction="none")
    torch.testing.assert_close(subject.losses(drawn()), expected, atol=1e-5, rtol=1e-5)
    places = layout_of(model).matrices
    assert list(subject.matrices) == list(places)
    assert all(torch.equal(subject.matrices[name], place.of(model)) for name, place in places.items())


@pytest.mark.parametrize("family", ["Mixtral", "Gemma 2"])
def test_folders_are_described(family, tmp_path):
    from sims.models.checkpoint_info import CheckpointOptions
    from sims.models.describe import describe

    model_of(family).to(torch.bfloat16).save_pretrained(tmp_path / "step7", max_shard_size="8KB")
    assert len(list((tmp_path / "step7").glob("*.safetensors"))) > 1
    found = describe(tmp_path / "step7", CheckpointOptions())
    assert (found["kind"], found["layers"], found["width"]) == (
        f"Hugging Face {family.lower().replace(' ', '')}",
        2,
        16,
    )
    assert "blocks.1.attn.v" in found["gradients"]
    assert ("blocks.1.mlp.experts.3.proj" in found["matrices"]) == (family == "Mixtral")
    assert not [name for name in found["gradients"] if "experts" in name or "router" in name]
