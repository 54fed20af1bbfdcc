"""What every adapter must keep: each check takes a case, and every kind of subject goes through all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from sims.measure.engine import measure
from sims.measure.toy import MeasurementData
from sims.models.transformer import TransformerSubject
from sims.runs.measure_config import MeasureConfig
from sims.system.errors import MeasureError


@dataclass(frozen=True)
class Case:
    """A subject and what its model computes.

    Args:
        subject: the adapter under test.
        sequences: (n, T+1) tokens.
        logits: (b, T) tokens to (b, T, V) logits, by the original or an independent forward pass.
        gradients: one sequence (1, T+1) to the gradient of its mean loss by every block matrix, by autograd in the
            original.
        layers, tied: how many blocks, and whether the head is the embedding.
    """

    subject: object
    sequences: torch.Tensor
    logits: Callable[[torch.Tensor], torch.Tensor]
    gradients: Callable[[torch.Tensor], dict[str, torch.Tensor]]
    layers: int
    tied: bool


def block_matrices(case):
    return [name for name in case.subject.matrices if name.startswith("blocks.")]


def hooks(subject):
    model = getattr(subject, "model", None)
    return 0 if model is None else sum(len(m._forward_hooks) for m in model.modules())


def every_site_is_there(case):
    subject = case.subject
    assert subject.sites == ("embed", *(f"blocks.{layer}" for layer in range(case.layers)), "final")
    (seen,) = subject.activations(case.sequences, subject.sites)
    assert set(seen) == set(subject.sites)
    n, length = case.sequences.shape
    assert all(x.shape[:2] == (n, length - 1) for x in seen.values())
    assert all(x.dtype == torch.float32 and not x.requires_grad for x in seen.values())


def every_matrix_is_there(case):
    names = set(case.subject.matrices)
    for layer in range(case.layers):
        assert {f"blocks.{layer}.attn.{p}" for p in "qkvo"} <= names
        assert {f"blocks.{layer}.mlp.{p}" for p in ("fc", "proj")} <= names
    assert "embed" in names
    assert ("head" in names) != case.tied
    assert all(m.ndim == 2 and m.dtype == torch.float32 for m in case.subject.matrices.values())
    assert case.subject.matrices["embed"].shape == case.subject.head.shape
    if case.tied:
        assert torch.equal(case.subject.matrices["embed"], case.subject.head)


def losses_are_those_of_the_original(case):
    logits = case.logits(case.sequences[:, :-1])
    expected = F.cross_entropy(logits.transpose(1, 2), case.sequences[:, 1:], reduction="none")
    torch.testing.assert_close(case.subject.losses(case.sequences), expected, atol=1e-5, rtol=1e-5)


def logits_are_those_of_the_original(case):
    # Log-probabilities of every token, read off as the losses of final states against it.
    expected = case.logits(case.sequences[:, :-1])[:, -1].log_softmax(-1)
    states = case.subject.last_states(case.sequences)
    n, vocabulary = expected.shape
    tokens = torch.arange(vocabulary).repeat(n)
    got = -case.subject.head_losses(states.repeat_interleave(vocabulary, dim=0), tokens).view(n, vocabulary)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def log_probs_are_those_of_the_original(case):
    expected = case.logits(case.sequences[:, :-1]).log_softmax(-1)
    got = case.subject.log_probs(case.sequences)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not got.requires_grad
    picked = got.gather(-1, case.sequences[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(-picked, case.subject.losses(case.sequences), atol=1e-5, rtol=1e-5)


def linear_outputs(subject, sequences):
    """Matrix → Wx (n, T, out) of every linear map, as the forward pass computes it, without its bias."""
    found = {}
    if isinstance(subject, TransformerSubject):
        subject.transformer.hidden(
            subject.params, sequences[None, :, :-1], lambda site, x: found.setdefault(site, x[0])[None]
        )
        return {name: found[name] for name in subject.input_sites if name in found}
    for name in subject.input_sites:
        place = subject.layout.matrices[name]

        def keep(module, args, output, name=name, rows=place.rows):
            # A copy: OLMo clips its queries, keys and values in place.
            out = output.clone() if module.bias is None else output - module.bias
            found[name] = out if rows is None else out[..., rows]

        handle = subject.model.get_submodule(place.module).register_forward_hook(keep)
        with torch.no_grad():
            subject.model.get_submodule(subject.layout.trunk)(sequences[:, :-1])
        handle.remove()
    return found


def every_matrix_multiplies_its_input_site(case):
    subject, sequences = case.subject, case.sequences
    feeds = subject.input_sites
    assert set(feeds) == {*block_matrices(case), *(() if case.tied else ("head",))}
    for layer in range(case.layers):
        assert len({feeds[f"blocks.{layer}.attn.{part}"] for part in "qkv"}) == 1
    assert case.tied or feeds["head"] == "final"
    sites = tuple(dict.fromkeys(feeds.values()))
    (seen,) = subject.activations(sequences, sites)
    assert set(seen) == set(sites)
    outputs = linear_outputs(subject, sequences)
    assert set(outputs) >= set(block_matrices(case))
    for name, output in outputs.items():
        product = seen[feeds[name]] @ subject.matrices[name].T
        # OPT gives its MLP all positions of all sequences as rows.
        torch.testing.assert_close(product.view_as(output), output, atol=1e-5, rtol=1e-4, msg=name)
    factors = subject.gradient_factors(sequences, block_matrices(case))
    for name, factor in factors.items():
        torch.testing.assert_close(factor.a, seen[feeds[name]], atol=1e-6, rtol=1e-5, msg=name)


def head_losses_are_losses_at_the_last_position(case):
    subject, sequences = case.subject, case.sequences
    (seen,) = subject.activations(sequences, ("final",))
    states = subject.last_states(sequences)
    torch.testing.assert_close(states, seen["final"][:, -1])
    torch.testing.assert_close(
        subject.head_losses(states, sequences[:, -1]), subject.losses(sequences)[:, -1]
    )
    torch.testing.assert_close(subject.head_log_probs(states), subject.log_probs(sequences)[:, -1])


def batches_do_not_matter(case):
    together = case.subject.losses(case.sequences)
    apart = torch.cat([case.subject.losses(one) for one in case.sequences.split(1)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def gradient_factors_are_per_sample_gradients(case):
    sequences = case.sequences[:3]
    names = block_matrices(case)
    factors = case.subject.gradient_factors(sequences, names)
    assert list(factors) == names
    formed = {n: torch.einsum("mto,mti->moi", f.d, f.a) for n, f in factors.items()}
    for m, sequence in enumerate(sequences):
        expected = case.gradients(sequence[None])
        for name in names:
            assert formed[name].shape[1:] == case.subject.matrices[name].shape
            assert expected[name].abs().max() > 0, name
            torch.testing.assert_close(formed[name][m], expected[name], atol=1e-5, rtol=1e-4, msg=name)
    alone = case.subject.gradient_factors(sequences, names[-1:])[names[-1]]
    torch.testing.assert_close(alone.d, factors[names[-1]].d)


def one_matrix_is_replaced_in_a_copy(case):
    subject, sequences = case.subject, case.sequences
    before = subject.losses(sequences)
    for name in list(subject.matrices):
        old = subject.matrices[name].clone()
        changed = subject.with_matrix(name, 0.5 * old + 0.01)
        torch.testing.assert_close(changed.matrices[name], 0.5 * old + 0.01)
        others = [n for n in subject.matrices if n != name]
        assert all(torch.equal(changed.matrices[n], subject.matrices[n]) for n in others)
        assert torch.equal(subject.matrices[name], old)
        assert not torch.allclose(changed.losses(sequences), before, atol=1e-5), name
    assert torch.equal(subject.losses(sequences), before)
    for name, shape in (("nowhere", (2, 2)), ("embed", (2, 2))):
        with pytest.raises(MeasureError, match=r"\(2, 2\)"):
            subject.with_matrix(name, torch.zeros(shape))


def unknown_names_are_refused(case):
    with pytest.raises(MeasureError, match=r"nowhere.*embed, blocks.0"):
        next(iter(case.subject.activations(case.sequences, ("nowhere",))))
    with pytest.raises(MeasureError, match=r"embed.*blocks.0.attn.q"):
        case.subject.gradient_factors(case.sequences, ["embed"])


def no_hook_is_left(case):
    subject, sequences = case.subject, case.sequences
    foreign = sequences.clone()
    foreign[0, 0] = len(subject.head)
    before = hooks(subject)
    for call in (
        lambda: list(subject.activations(sequences, subject.sites)),
        lambda: next(iter(subject.activations(sequences, subject.sites))),
        lambda: subject.gradient_factors(sequences, block_matrices(case)[:2]),
    ):
        call()
        assert hooks(subject) == before
    for call in (
        lambda: list(subject.activations(foreign, subject.sites)),
        lambda: subject.gradient_factors(foreign, block_matrices(case)[:2]),
    ):
        with pytest.raises((MeasureError, IndexError)):
            call()
        assert hooks(subject) == before


def the_pipeline_measures_it(case):
    """Activations at every site, per-sample gradients and weights, by the functions that measure the toy."""
    subject = case.subject
    config = MeasureConfig(sites=subject.sites, pooling="token", windows=((1, 8),))
    sheet = measure(subject, MeasurementData(config, case.sequences, probes=()))
    measured = {(row["object"], row["site"]) for row in sheet.rows if row["status"] == "ok"}
    assert measured >= {("activation", site) for site in subject.sites}
    assert measured >= {("weight", name) for name in subject.matrices}
    chosen = ("attn.q", "attn.v", "attn.o", "mlp.proj")
    assert measured >= {("gradient", name) for name in block_matrices(case) if name.endswith(chosen)}


CHECKS = (
    every_site_is_there,
    every_matrix_is_there,
    losses_are_those_of_the_original,
    logits_are_those_of_the_original,
    log_probs_are_those_of_the_original,
    every_matrix_multiplies_its_input_site,
    head_losses_are_losses_at_the_last_position,
    batches_do_not_matter,
    gradient_factors_are_per_sample_gradients,
    one_matrix_is_replaced_in_a_copy,
    unknown_names_are_refused,
    no_hook_is_left,
    the_pipeline_measures_it,
)
