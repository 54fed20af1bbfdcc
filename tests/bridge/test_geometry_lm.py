"""The geometry of states of language models, at looks at equal distances in ln step, in training and afterwards."""

from itertools import pairwise

import numpy as np
import pytest
from training_runs import arguments, make_shards, small_config

from sims import cli
from sims.runs.columns import WHICH
from sims.runs.lm_config import LmConfig
from sims.runs.store import run_folders
from toymodel.errors import ConfigError
from toymodel.stages import CHAIN

NEW = "quantity in ('alpha_req', 'rankme_singular', 'rankme_without', 'mean_share', 'rankme_uncentred')"
MEASURING = (
    *("--measure", "--measuring.tokens", "512", "--measuring.batch", "128", "--measuring.geometry"),
    *("--measuring.gradient-sequences", "0"),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("lm") / "shards")


def test_looks_are_measured_in_training_and_from_their_checkpoints(shards, tmp_path):
    more = ("--stage", "untied", "--looks", "5", *MEASURING)
    assert cli.main(arguments(shards, tmp_path / "out", *more)) == 0
    (folder,) = run_folders(tmp_path / "out")
    rows = folder.rows()
    # 10 steps: 1, 1.8, 3.2, 5.6 and 10, and the start.
    assert sorted(set(rows.query(NEW)["step"])) == [0, 1, 2, 3, 6, 10]
    assert len(folder.checkpoints()) == 6
    wide = rows.query("quantity == 'alpha_req' and detail == 'published'")
    assert set(wide["window"]) == {"12-100"}
    assert set(wide["status"]) == {"not fitted"}
    fitted = rows.query("quantity == 'alpha_req' and detail == 'width' and status != 'not fitted'")
    assert fitted["window"].nunique() == 1
    assert fitted["null"].notna().all()
    after = ["bridge", "measure", str(folder.path), "--data", str(shards), "--out", str(tmp_path / "after")]
    after += [a.replace("measuring.", "") for a in MEASURING[1:]]
    assert cli.main([*after, "--families", "--device", "cpu"]) == 0
    (measured,) = run_folders(tmp_path / "after")
    keys = ["step", "object", "site", "quantity", *WHICH]
    ours, theirs = (f.rows().query(NEW).set_index(keys)["value"] for f in (folder, measured))
    assert len(ours) == 6 * 8 * rows.query("quantity == 'mean_share'")["site"].nunique()
    assert ours.sort_index().equals(theirs.sort_index())


def test_looks_are_evenly_spaced_in_the_logarithm_of_the_step():
    config = small_config(tokens=128 * 1_000, looks=31)
    steps = config.checkpoint_steps
    assert steps[0] == 0
    assert steps[-1] == config.steps == 1_000
    later = [step for step in steps if step >= 20]
    ratios = [b / a for a, b in pairwise(later)]
    assert max(ratios) / min(ratios) < 1.1
    # Of the first looks several round to the same steps.
    assert 25 <= len(steps) <= 31


@pytest.mark.parametrize(
    ("given", "message"),
    [({"looks": 1}, "looks is 1"), ({"looks": 9, "checkpoints": (1.0,)}, "give one of them")],
)
def test_looks_that_say_nothing_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        LmConfig.of_tier("tiny", "rope", **given)


ALL = (
    *("--measuring.tails", "--measuring.updates", "4", "--measuring.update-window", "4"),
    *("--measuring.update-decay", "--measuring.defect", "5", "--measuring.defect-sequences", "4"),
)
# The last of the chain has the parts of all; the others with -m slow.
STAGES = [name if name == "attn_scale" else pytest.param(name, marks=pytest.mark.slow) for name in CHAIN]


@pytest.mark.parametrize("stage", STAGES)
def test_the_narrowest_models_are_measured_and_say_what_does_not_fit(stage, shards, tmp_path):
    sizes = ("--tier", "narrow8", "--stage", stage, "--logit-bias", "--looks", "2")
    measuring = (*MEASURING[:-1], "8", *ALL)
    assert cli.main(arguments(shards, tmp_path / "out", *sizes, *measuring)) == 0
    (folder,) = run_folders(tmp_path / "out")
    rows = folder.rows()
    assert set(rows["status"]) <= {"ok", "flagged", "not fitted"}
    assert np.isfinite(rows.query("status != 'not fitted'")["value"]).all()
    # Rows without a value say why.
    assert (rows.query("status == 'not fitted'")["reason"].str.len() > 0).all()
    final = rows.query("site == 'final' and object == 'activation'")
    assert (final.query("quantity in ('rankme', 'rankme_singular', 'mean_share')")["status"] == "ok").all()
    assert set(final.query("quantity == 'alpha_req'")["status"]) == {"not fitted"}
    without = final.query("quantity == 'rankme_without'").groupby("detail")["status"].unique()
    assert {detail: set(found) for detail, found in without.items()} == {
        "top 1": {"ok"},
        "top 8": {"not fitted"},
        "top 32": {"not fitted"},
    }
