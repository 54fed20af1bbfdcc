"""Toy runs on a (simulated) CUDA device, from the command's options to the run folder."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from simulated import simulated_device
from tiny_runs import MEASURE, RUN

from sims.measure.engine import measure
from sims.measure.toy import prepare
from sims.models.transformer import TransformerSubject
from sims.runs.digests import read_outcome
from sims.runs.layout import read_table
from sims.sweep.work import ToyWork
from sims.training.toy_runner import run_group
from toymodel.config import Graphs, RunConfig
from toymodel.data import dataset
from toymodel.ensemble import Ensemble
from toymodel.errors import ConfigError
from toymodel.precision import tf32
from toymodel.stages import STAGES


def runs(stage):
    base = replace(RUN, stage=stage, newton_schulz="float32")
    return [base, replace(base, seed=1, lr=1e-3)]


def tables(folder, config):
    rows = read_table(folder / config.run_id / "rows.parquet").to_pandas()
    return rows.sort_values([c for c in rows.columns if c != "value"]).reset_index(drop=True)


# The last stage has the optimiser of the one before and the positions of the second.
@pytest.mark.parametrize(
    "stage", [s if s == "untied" else pytest.param(s, marks=pytest.mark.slow) for s in STAGES]
)
def test_a_run_on_the_device_has_the_rows_of_the_processor(tmp_path, stage):
    configs = runs(stage)
    assert not run_group(configs, MEASURE, tmp_path / "host")
    with simulated_device():
        # Interrupted and gone on with.
        assert not run_group(configs, MEASURE, tmp_path / "there", "cuda", until=6)
        assert not run_group(configs, MEASURE, tmp_path / "there", "cuda", graphs="on")
    for config in configs:
        pd.testing.assert_frame_equal(
            tables(tmp_path / "there", config), tables(tmp_path / "host", config), rtol=1e-5, atol=1e-7
        )


@pytest.mark.slow
def test_measurements_between_steps_have_the_numbers_of_the_processor(tmp_path):
    looking = replace(
        MEASURE,
        updates=4,
        update_windows=(2, 3),
        update_stride=2,
        update_groups=("optimiser", "all"),
        update_decay=True,
        update_draws=99,
        defect=4,
        defect_pairs=2,
        accuracy=4,
    )
    configs = [replace(config, weight_decay=0.1) for config in runs("muon")]
    assert not run_group(configs, looking, tmp_path / "host")
    with simulated_device():
        # The update that is split, and the one before a look, are interrupted.
        assert not run_group(configs, looking, tmp_path / "there", "cuda", until=3)
        assert not run_group(configs, looking, tmp_path / "there", "cuda", graphs="on")
    keys = ["step", "object", "site", "quantity", "window", "detail"]
    for config in configs:
        found = []
        for name in ("there", "host"):
            rows = tables(tmp_path / name, config).set_index(keys).sort_index()
            # Steps in float32 of the published defect are rounding here.
            rows = rows.drop(index=["defect_fd32"], level="quantity")
            own = rows.index.get_level_values("object")
            found.append(rows[own.isin(["update", "normalised_update", "defect", "prediction", "signal"])])
        there, host = found
        assert len(host) > 300
        assert there.index.equals(host.index)
        assert (there["status"] == host["status"]).all()
        near = [q for q in host.index.unique("quantity") if not q.startswith(("edge_p", "p_"))]
        for quantity in near:
            ours, theirs = (table.xs(quantity, level="quantity")["value"] for table in (there, host))
            pd.testing.assert_series_equal(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_run_says_how_its_steps_were_launched(tmp_path):
    exact = replace(RUN, newton_schulz="exact")
    with simulated_device():
        assert not run_group([RUN], MEASURE, tmp_path, "cuda")
        with pytest.warns(UserWarning, match="without CUDA graphs"):
            assert not run_group([exact], MEASURE, tmp_path, "cuda")
    assert read_outcome(tmp_path / RUN.run_id)["graphs"] == "captured 1 times"
    assert "_linalg_svd" in read_outcome(tmp_path / exact.run_id)["graphs"]
    assert not run_group([replace(RUN, seed=7)], MEASURE, tmp_path)
    assert "graphs" not in read_outcome(tmp_path / replace(RUN, seed=7).run_id)


def test_options_that_the_device_does_not_have_are_refused_before_any_work(tmp_path):
    refused: list[tuple[RunConfig, Graphs, str]] = [
        (RUN, "on", "graphs"),
        (replace(RUN, precision="tf32"), "auto", "tf32"),
    ]
    for config, graphs, message in refused:
        with pytest.raises(ConfigError, match=message):
            ToyWork(MEASURE, graphs=graphs).ready([config])
        with pytest.raises(ConfigError, match=message):
            run_group([config], MEASURE, tmp_path, graphs=graphs)
    assert list(tmp_path.iterdir()) == []


def test_measuring_is_in_full_precision_whatever_is_chosen_outside():
    ensemble = Ensemble([RUN])
    ensemble.advance(3)
    data = prepare(MEASURE, RUN, dataset(RUN.task))
    subject = TransformerSubject.of_weights(RUN, ensemble.weights(0), 3)
    expected = measure(subject, data)
    with torch.autocast("cpu", torch.bfloat16), tf32(True):
        found = measure(subject, data)
    assert repr(found.rows) == repr(expected.rows)
