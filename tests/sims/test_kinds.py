"""Every kind of run is read back from its folder."""

import pytest

from sims.runs.kinds import run_spec
from sims.runs.lm_config import LmConfig
from sims.runs.lm_measure_config import LmRun
from sims.runs.measure_config import MeasureConfig
from sims.runs.store import RunFolder
from toymodel.config import RunConfig
from toymodel.errors import ConfigError

SPECS = (
    RunConfig(stage="untied", batch_size=8, seed=3),
    LmConfig.of_tier("tiny", "muon", 100, seed=2, precision="float32"),
    LmRun("pythia", "gpt", 8, None, 0, 512, 8_192, {"layers": 2}, ((0, "a.pt", 12), (512, "b.pt", 12)), "ab"),
)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_a_run_is_read_back_from_its_folder(spec, tmp_path):
    folder = RunFolder(tmp_path / spec.run_id)
    folder.start(spec, MeasureConfig(), {})
    assert folder.spec == spec
    assert (folder.spec.stage, folder.spec.steps, folder.spec.lr) == (spec.stage, spec.steps, spec.lr)


def test_what_is_no_run_is_refused():
    with pytest.raises(ConfigError, match="unknown kind of run 'cake'; the kinds are toy, text"):
        run_spec("cake", {})
    with pytest.raises(ConfigError, match="not a run of checkpoints of this version"):
        run_spec("text", {"name": "pythia"})
    with pytest.raises(ConfigError, match="not a language-model run of this version"):
        run_spec("text", {"tier": "tiny"})
