"""Principal directions of the final states of language models: decoders in memory, in training and afterwards."""

from typing import Any

import numpy as np
import pytest
import torch
from families import model_of
from training_runs import arguments, make_shards

from sims import cli
from sims.measure.directions import default_counts, measure_directions
from sims.models.module import ModuleSubject
from sims.models.parts import layout_of
from sims.runs.columns import WHICH
from sims.runs.store import run_folders

MEASURING = (
    *("--measure", "--measuring.tokens", "512", "--measuring.batch", "128", "--measuring.directions", "12"),
    *("--measuring.gradient-sequences", "0"),
)


@pytest.mark.parametrize("family", ["GPT-2", "GPT-NeoX"])
def test_decoders_in_memory(family):
    pytest.importorskip("transformers", reason="models of Hugging Face need the extra hf")
    model = model_of(family)
    tokens = torch.randint(29, (10, 9), generator=torch.Generator().manual_seed(0))
    found: Any = measure_directions(model, tokens, [0, 1, 8, 16]).set_index(["directions", "edit"])
    rest, whole = tokens[5:], found.loc[(16, "whole")]
    with torch.no_grad():
        logits = model(rest[:, :-1]).logits
    assert whole["loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), rest[:, 1:].flatten())), abs=1e-5
    )
    assert whole["accuracy"] == pytest.approx(float((logits.argmax(-1) == rest[:, 1:]).double().mean()))
    assert found.loc[(16, "keep"), "change"] == pytest.approx(0, abs=1e-6)
    subject = ModuleSubject.of(model, layout_of(model), step=0)
    (seen,) = subject.activations(tokens[:5], ("final",))
    mean = seen["final"].flatten(0, 1).double().mean(dim=0).float()
    at_mean = subject.head_losses(mean.expand(rest[:, 1:].numel(), -1), rest[:, 1:].flatten()).mean()
    for key in ((0, "keep"), (16, "drop")):
        assert found.loc[key, "loss"] == pytest.approx(float(at_mean), abs=1e-5)
    assert found.loc[1, "change"].notna().all()


def test_they_are_measured_in_training_and_from_checkpoints(tmp_path):
    shards = make_shards(tmp_path / "shards")
    assert cli.main(arguments(shards, tmp_path / "out", "--stage", "untied", *MEASURING)) == 0
    (folder,) = run_folders(tmp_path / "out")
    after = ["bridge", "measure", str(folder.path), "--data", str(shards), "--out", str(tmp_path / "after")]
    after += [a.replace("measuring.", "") for a in MEASURING[1:]]
    assert cli.main([*after, "--families", "--device", "cpu"]) == 0
    (measured,) = run_folders(tmp_path / "after")
    keys = ["step", "site", "quantity", *WHICH]
    ours, theirs = (
        f.rows().query("object == 'direction'").set_index(keys)["value"].sort_index()
        for f in (folder, measured)
    )
    assert set(ours.index.get_level_values("detail")) >= {"all", "none", "top 1"}
    # Width 64; at four checkpoints of the training, and the start.
    assert default_counts(64) == (1, 8, 32)
    assert len(ours) == 5 * (3 + 4 * 3)
    np.testing.assert_allclose(ours.to_numpy(float), theirs.to_numpy(float), atol=1e-6)
