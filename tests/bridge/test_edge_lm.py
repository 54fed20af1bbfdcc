"""Windows of updates of a language model are asked the same questions as those of the toy."""

import pytest
from training_runs import HERE, SIZES, make_shards

from sims import cli
from sims.studies.edge.answers import OPEN, EdgeAnswers
from sims.studies.edge.measured import edge_data
from sims.studies.edge.published import claims

WINDOWS = "--measuring.updates 1 --measuring.update-windows 3 6 --measuring.update-groups trunk"


@pytest.mark.slow
def test_windows_of_a_language_model_are_read(tmp_path):
    make_shards(tmp_path / "shards")
    words = (
        f"train lm --data {tmp_path}/shards --out {tmp_path}/lm {SIZES} --stage rope --eval-every 1 --measure"
    )
    draws = ["--measuring.update-draws", "99"]
    assert cli.main([*words.split(), *WINDOWS.split(), *draws, *HERE]) == 0
    data = edge_data(tmp_path / "lm")
    assert data.cells == ["rope, tiny"]
    assert (data.group, data.lengths, data.cell("rope, tiny")["momentum"]) == ("trunk", [3, 6], 0.9)
    assert len(data.of("rope, tiny", "update", 6)) == 5
    found = list(claims(EdgeAnswers(data)))
    # One seed of ten steps decides nothing, and every claim says what is missing.
    assert {claim.outcome for claim in found} == {OPEN}
    assert all(claim.reason for claim in found)
