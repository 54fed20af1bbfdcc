"""A model in memory and its files have the same matrices, by the same names, to the last bit."""

import pytest
import torch
from families import FAMILIES, model_of

from sims.models.names import standard_name
from sims.models.parts import find_parts
from sims.models.stored import stored_weights

pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return model_of(request.param)


def test_names_stay_apart_and_a_standard_name_stays(model):
    names = [name for name, _ in model.named_parameters()]
    standard = [standard_name(name) for name in names]
    assert len(set(standard)) == len(names)
    assert [standard_name(name) for name in standard] == standard
    assert sum(name.startswith("blocks.") for name in standard) == sum(
        ".0." in n or ".1." in n for n in names
    )
    assert "embed" in standard


def test_what_a_file_holds_is_what_the_model_has(model, tmp_path):
    model.save_pretrained(tmp_path / "step7")
    parts, stored = find_parts(model), stored_weights(tmp_path / "step7")
    assert sorted(stored.names) == sorted(parts.matrices)
    assert (stored.step, stored.kind) == (7, f"Hugging Face {model.config.model_type}")
    for matrix in stored:
        assert matrix.tensor.ndim == 2
        assert torch.equal(matrix.tensor, parts.matrices[matrix.name].of(model)), matrix.name


def test_every_number_of_a_weight_is_in_one_matrix(model):
    parts = find_parts(model)
    assert len({id(p) for p in model.parameters() if p.ndim > 1}) > 4
    counted = {}
    for place in parts.matrices.values():
        key = (place.module, place.parameter)
        counted[key] = counted.get(key, 0) + place.of(model).numel()
    whole = {key: getattr(model.get_submodule(key[0]), key[1]).numel() for key in counted}
    assert counted == whole
    left = sum(p.numel() for p in model.parameters() if p.ndim > 1) - sum(whole.values())
    assert (left > 0) == bool(parts.notes)


def test_sites_are_seen_in_the_order_of_the_forward_pass(model):
    from sims.models.layout import watch

    parts, seen = find_parts(model), []
    assert list(parts.sites) == ["embed", "blocks.0", "blocks.1", "final"]
    handles = [
        watch(model, place, lambda x, site=site: seen.append((site, tuple(x.shape[:2]))))
        for site, place in parts.sites.items()
    ]
    with torch.no_grad():
        model(torch.tensor([[3, 4, 5], [6, 7, 8]]))
    for handle in handles:
        handle.remove()
    assert sorted(seen) == sorted((site, (2, 3)) for site in parts.sites)
