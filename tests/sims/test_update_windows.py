"""Windows of updates of several lengths, groups and strides, against decompositions of the updates themselves."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from safetensors.torch import load_file

from sims.measure.observers import observers
from sims.measure.update_groups import groups_of, parameter_count
from sims.measure.updates import UpdateObserver
from sims.runs.measure_config import measure_config
from sims.runs.store import RunFolder
from sims.system.errors import MeasureError
from sims.training.toy_runner import run_group
from spectra import spectral_edge, window_edges
from toymodel import Ensemble, train
from toymodel.config import as_dict

RUN = {"stage": "muon", "steps": 24, "eval_every": 6, "weight_decay": 0.1}
SEVERAL = {
    "updates": 6,
    "update_windows": (4, 2),
    "update_stride": 2,
    "update_groups": ("optimiser", "all", "trunk", "attention", "embedding"),
    "update_draws": 99,
}


class Everything:
    """Keep the weights and the decay after every step."""

    def __init__(self):
        self.weights, self.shares = [], []

    def due(self, step):
        return True

    def look(self, view):
        self.weights.append({name: w.clone() for name, w in view.weights().items()})
        self.shares.append(view.decay())


def observed(configs, measuring):
    found = [observers(measuring, config) for config in configs]
    everything = [Everything() for _ in configs]
    watching: list[list[Any]] = [[*own, seen] for own, seen in zip(found, everything, strict=True)]
    for _ in train(Ensemble(configs), watching):
        pass
    return [own[0].flush() for own in found], everything


def updates_of(weights, names, step, window, stride):
    flat = [torch.cat([w[n].flatten() for n in names]).double() for w in weights]
    ends = range(step - (window - 1) * stride, step + 1, stride)
    return torch.stack([flat[end] - flat[end - stride] for end in ends])


def rows_of(sheet, **which):
    return {r["quantity"]: r for r in sheet.rows if all(r[c] == v for c, v in which.items())}


@pytest.fixture(scope="module")
def several():
    config = dataclasses.replace(tiny_runs.RUN, **RUN)
    (sheets,), (everything,) = observed([config], dataclasses.replace(tiny_runs.MEASURE, **SEVERAL))
    return config, sheets, everything


def test_every_window_is_that_of_its_updates(several):
    config, sheets, everything = several
    assert [sheet.step for sheet in sheets] == [6, 12, 18, 24]
    groups = groups_of(config, SEVERAL["update_groups"])
    assert [g.name for g in groups] == ["adamw", "muon", "all", "trunk", "attention", "embedding"]
    for sheet in sheets:
        # Six steps hold three updates: the window of four comes later.
        windows = (2,) if sheet.step == 6 else (2, 4)
        assert {r["window"] for r in sheet.rows} == {"", *map(str, windows)}
        for group in groups:
            for window in windows:
                x = updates_of(everything.weights, group.names, sheet.step, window, stride=2)
                for object_, rows in (("update", x), ("normalised_update", x / x.norm(dim=1, keepdim=True))):
                    found = rows_of(sheet, object=object_, site=group.name, window=str(window))
                    _compare(found, rows.numpy(), window)


def _compare(found, rows, window):
    sigma = np.linalg.svd(rows, compute_uv=False)
    ratios = sigma[:-1] / sigma[1:]
    expected = {
        "edge_k": 1 + ratios.argmax(),
        "edge_gap": ratios.max(),
        "edge_k_half": 1 + ratios[: max(1, window // 2)].argmax(),
        "edge_k_weighted": 1 + (sigma[:-1] * ratios).argmax(),
        "r12": ratios[0],
        "pc1": sigma[0] ** 2 / (sigma**2).sum(),
        "drift": np.linalg.norm(rows.mean(axis=0)),
    }
    if window > 2:
        expected |= {"r23": ratios[1], "g23": sigma[1] ** 2 - sigma[2] ** 2}
    if "update_norm" in found:
        norms = np.linalg.norm(rows, axis=1)
        cosines = (rows[1:] * rows[:-1]).sum(axis=1) / norms[1:] / norms[:-1]
        expected |= {"update_norm": norms.mean(), "cosine_successive": cosines.mean()}
    for quantity, value in expected.items():
        assert found[quantity]["value"] == pytest.approx(value, rel=1e-4), quantity


def test_spectra_tell_windows_and_forms_apart(several):
    _, sheets, _ = several
    keys = [(s["object"], s["site"], s["n"]) for s in sheets[-1].spectra]
    assert len(keys) == len(set(keys)) == 2 * 6 * 2
    for spectrum in sheets[-1].spectra:
        if spectrum["object"] == "normalised_update":
            # Unit rows: the energies add up to their number.
            assert sum(v**2 for v in spectrum["values"]) == pytest.approx(spectrum["n"], rel=1e-6)


def test_direction_change_is_that_of_first_singular_vectors(several):
    config, sheets, everything = several
    (attention,) = groups_of(config, ("attention",))
    sheet, window = sheets[-1], 2
    now, before = (
        updates_of(everything.weights, attention.names, sheet.step - back, window, stride=2)
        for back in (0, 2)
    )
    first = [torch.linalg.svd(x, full_matrices=False).Vh[0] for x in (now, before)]
    row = rows_of(sheet, object="update", site="attention", window="2")["direction_change"]
    assert row["value"] == pytest.approx(1 - abs(float(first[0] @ first[1])), rel=1e-4, abs=1e-6)
    # The first window of four has three updates before it, and no window.
    early = rows_of(sheets[1], object="update", site="attention", window="4")["direction_change"]
    assert early["status"] == "ok"


def test_nulls_are_those_of_momentum_stride_norms_and_correlations(several):
    config, sheets, everything = several
    (group, _) = groups_of(config, ("optimiser",))
    x = updates_of(everything.weights, group.names, 24, 4, stride=2).numpy()
    edges = window_edges(x @ x.T, 4)
    for null in ("momentum", "norms", "correlations"):
        found = rows_of(sheets[-1], object="update", site="adamw", window="4")
        edge = spectral_edge(
            x,
            momentum=0.0 if null == "correlations" else 0.9,
            stride=2,
            null=null,
            draws=99,
            effective_dimension=min(1e3, x.shape[1]),
        )
        row = found[f"p_{null}"]
        assert row["low"] <= row["value"] == row["high"]
        # As many draws of the same seed: the p-value differs at most where the gap is that of float32 updates.
        assert abs(row["value"] - edge.p_any) <= 0.02
        assert found[f"null_k_{null}"]["value"] >= 1
        assert found[f"p_{null}_half"]["status"] == "ok"
    assert edges.window == 4
    # Where the optimisers of a group differ, only the window's own correlations give a null.
    mixed = rows_of(sheets[-1], object="update", site="all", window="4")
    assert {mixed[f"p_{null}"]["status"] for null in ("momentum", "norms")} == {"not fitted"}
    assert mixed["p_correlations"]["status"] == "ok"


@pytest.mark.slow
def test_nulls_of_some_windows_change_no_other_row():
    config = dataclasses.replace(tiny_runs.RUN, **RUN)
    every, some = (
        observed(
            [config], dataclasses.replace(tiny_runs.MEASURE, **SEVERAL | {"updates": 2, "update_nulls": n})
        )[0][0]
        for n in (1, 3)
    )
    for whole, part in zip(every, some, strict=True):
        keys = [(r["quantity"], r["object"], r["site"], r["window"], r["value"]) for r in part.rows]
        simulated = part.step % 6 == 0
        kept = [r for r in whole.rows if simulated or not r["quantity"].startswith(("p_", "null_k_"))]
        assert repr(keys) == repr(
            [(r["quantity"], r["object"], r["site"], r["window"], r["value"]) for r in kept]
        )


def test_the_norm_of_the_last_update_is_its_length(several):
    config, sheets, everything = several
    for group in groups_of(config, SEVERAL["update_groups"]):
        x = updates_of(everything.weights, group.names, 24, 2, stride=2)
        row = rows_of(sheets[-1], object="update", site=group.name, window="")["last_norm"]
        assert row["value"] == pytest.approx(float(x[-1].norm()), rel=1e-5)


def test_no_row_is_without_a_number_or_a_reason(several):
    _, sheets, _ = several
    for sheet in sheets:
        for row in sheet.rows:
            assert math.isfinite(row["value"]) == (row["status"] != "not fitted"), row
            assert (row["reason"] == "") == (row["status"] == "ok")


def test_members_of_an_ensemble_are_measured_as_if_alone(tiny_run, tiny_measure):
    configs = [tiny_run(**RUN | {"seed": seed, "lr": lr}) for seed, lr in ((0, 3e-3), (1, 1e-3))]
    measuring = tiny_measure(**SEVERAL, update_decay=True)
    together, _ = observed(configs, measuring)
    for config, sheets in zip(configs, together, strict=True):
        (alone,), _ = observed([config], measuring)
        assert repr(alone) == repr(sheets)


# The last has the state of the others.
MORE = [
    pytest.param({}, marks=pytest.mark.slow),
    pytest.param({"update_decay": True}, marks=pytest.mark.slow),
    {"update_decay": True, "update_sketch": 64},
]


@pytest.mark.parametrize("stop", [5, 8, 11])
@pytest.mark.parametrize("more", MORE)
def test_an_interrupted_run_continues_to_the_same_bits(stop, more, tiny_run, tiny_measure):
    config, measuring = tiny_run(**RUN | {"eval_every": 1}), tiny_measure(**SEVERAL, **more)
    (whole,), _ = observed([config], measuring)
    (first,) = observers(measuring, config)
    snapshot = next(s for s in train(Ensemble([config]), [[first]]) if s.step == stop)
    found, state, run_state = first.flush(), first.state_dict(), snapshot.ensemble.state(0)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    (second,) = observers(measuring, config)
    second.load_state_dict({name: value.clone() for name, value in state.items()})
    for _ in train(Ensemble.from_states([config], [run_state], stop), [[second]]):
        pass
    assert repr([*found, *second.flush()]) == repr(whole)


def _decayed(everything, name, step):
    """Return what decay made of a parameter in the two steps before this one."""
    taken = [
        everything.shares[s + 1][name] * everything.weights[s][name].double() for s in (step - 2, step - 1)
    ]
    return -taken[0] - taken[1]


def test_decay_is_what_the_optimiser_took_away(tiny_run, tiny_measure):
    config = tiny_run(**RUN, lr=1e-2)
    (sheets,), (everything,) = observed([config], tiny_measure(**SEVERAL, update_decay=True))
    groups = {g.name: g.names for g in groups_of(config, SEVERAL["update_groups"])}
    for sheet in sheets:
        for group, names in groups.items():
            decay = {name: _decayed(everything, name, sheet.step) for name in everything.shares[-1]}
            change = [
                everything.weights[sheet.step][n].double() - everything.weights[sheet.step - 2][n].double()
                for n in names
            ]
            parts = [decay.get(n, torch.zeros_like(c)) for n, c in zip(names, change, strict=True)]
            taken = torch.cat([part.flatten() for part in parts])
            rest = torch.cat([c.flatten() for c in change]) - taken
            rows = rows_of(sheet, object="update", site=group, window="")
            assert rows["decay_norm"]["value"] == pytest.approx(float(taken.norm()), rel=1e-9)
            assert rows["gradient_part_norm"]["value"] == pytest.approx(float(rest.norm()), rel=1e-5)
            if not set(decay) & set(names):
                assert rows["decay_cosine"]["status"] == "not fitted"
                continue
            cosine = float(taken @ rest / taken.norm() / rest.norm())
            assert rows["decay_cosine"]["value"] == pytest.approx(cosine, abs=1e-5)
            x = updates_of(everything.weights, names, sheet.step, 2, stride=2)
            v = torch.linalg.svd(x, full_matrices=False).Vh[0]
            first = rows_of(sheet, object="update", site=group, window="2", detail="v1")
            assert first["decay_energy"]["value"] == pytest.approx(float(taken @ v) ** 2, rel=1e-3, abs=1e-12)
            assert first["gradient_part_energy"]["value"] == pytest.approx(float(rest @ v) ** 2, rel=1e-3)
    # θ ← θ(1 − lr·wd) for the parameters of AdamW.
    assert float(everything.shares[-1]["embed"]) == pytest.approx(1e-2 * 0.1, rel=1e-4)


def test_weights_that_only_decay_have_no_other_part(tiny_run, tiny_measure):
    config = tiny_run(**RUN)
    (observer,) = observers(tiny_measure(updates=4, update_window=3, update_decay=True), config)
    assert isinstance(observer, UpdateObserver)
    parts = observer.parts

    @dataclasses.dataclass
    class View:
        step: int
        tokens: int = 0

        def weights(self):
            shapes = {n: i + 2 for i, n in enumerate(n for names in parts.values() for n in names)}
            return {
                n: 0.9**self.step * torch.linspace(1, 2, k, dtype=torch.float64) for n, k in shapes.items()
            }

        def decay(self):
            return dict.fromkeys(self.weights(), torch.tensor(0.1, dtype=torch.float64))

    for step in range(5):
        if observer.due(step):
            observer.look(View(step))
    (sheet,) = observer.flush()
    rows = rows_of(sheet, object="update", site="adamw", window="")
    assert rows["gradient_part_norm"]["value"] == pytest.approx(0, abs=1e-12)
    assert rows["decay_norm"]["value"] > 0.1
    # Weights and update lie on one line, in opposite directions.
    assert rows["cosine_weights"]["value"] == pytest.approx(-1)


@pytest.mark.slow
@pytest.mark.parametrize("more", MORE[1:])
def test_a_stopped_run_continues_in_its_folder_to_the_same_rows(more, tmp_path, tiny_run, tiny_measure):
    configs = [tiny_run(**RUN | {"eval_every": 1, "seed": seed}) for seed in (0, 1)]
    measuring = tiny_measure(**SEVERAL, **more)
    assert not run_group(configs, measuring, tmp_path / "whole")
    for until in (3, 11):
        assert not run_group(configs[:1], measuring, tmp_path / "parts", until=until)
    assert not run_group(configs, measuring, tmp_path / "parts")
    for config in configs:
        whole, parts = (RunFolder(tmp_path / name / config.run_id) for name in ("whole", "parts"))
        rows = whole.rows()
        assert parts.rows().equals(rows)
        assert parts.spectra().equals(whole.spectra())
        keys = ["step", "quantity", "object", "site", "window", "detail"]
        own = rows[rows["object"].isin(["update", "normalised_update"])]
        assert not own.duplicated(keys).any()


def test_looking_and_splitting_change_no_weights(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(**RUN)
    for name, more in (("with", {**SEVERAL, "update_decay": True}), ("without", {})):
        assert not run_group([config], tiny_measure(**more), tmp_path / name)
    seen, unseen = (
        torch.cat([w.flatten() for w in _last(tmp_path / name / config.run_id).values()])
        for name in ("with", "without")
    )
    assert torch.equal(seen, unseen)


def _last(folder):
    return load_file(max((folder / "checkpoints").glob("*.safetensors")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update_windows": (5, 1)}, "update_windows has 1"),
        ({"update_stride": 0}, "update_stride is 0"),
        ({"updates": 5, "update_stride": 2}, "take measure.updates 4"),
        ({"update_groups": ("all", "heads")}, "update_groups is heads; choose from optimiser, all"),
        ({"update_groups": ()}, "update_groups is empty"),
        ({"update_draws": 50}, "update_draws 50"),
        ({"update_nulls": 0}, "update_nulls is 0"),
        ({"update_memory": 0.0}, "update_memory is 0.0 GB"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message, tiny_measure):
    with pytest.raises(MeasureError, match=message):
        tiny_measure(**changes)


def test_windows_longer_than_the_run_or_the_memory_are_refused(tmp_path, tiny_run, tiny_measure):
    with pytest.raises(MeasureError, match="a window takes 5 updates of 3 steps"):
        run_group([tiny_run()], tiny_measure(updates=3, update_windows=(5,), update_stride=3), tmp_path)
    small = tiny_measure(updates=3, update_window=3, update_memory=1e-6)
    with pytest.raises(MeasureError, match="keep a sketch"):
        run_group([tiny_run()], small, tmp_path)
    assert not list(tmp_path.iterdir())


def test_settings_are_read_back(tiny_measure):
    measuring = tiny_measure(**SEVERAL)
    assert measure_config(as_dict(measuring)) == measuring
    # Settings at their defaults are not written, so that folders from before they existed are the same run.
    assert not {name for name in as_dict(tiny_measure()) if name.startswith("update")}


MATRICES = ("all", "matrix:blocks.0.attn.k", "attention", "matrix:embed")


def test_one_matrix_is_a_group(tiny_run, tiny_measure):
    config, settings = tiny_run(**RUN, lr=1e-2), {**SEVERAL, "update_groups": MATRICES, "update_decay": True}
    groups = groups_of(config, MATRICES)
    assert [(g.name, g.momentum) for g in groups[1::2]] == [(MATRICES[1], 0.95), (MATRICES[3], 0.9)]
    # Of the parameter that holds q, k and v each is named, as one of them is a group.
    assert [n for n in groups[2].names if n.startswith("blocks.0")] == [f"blocks.0.attn.{m}" for m in "qkvo"]
    assert parameter_count(config, groups) == parameter_count(config, groups_of(config, ("all",)))
    assert parameter_count(config, groups[1:2]) == config.model.d_model**2
    (sheets,), (everything,) = observed([config], tiny_measure(**settings))
    (plain,), _ = observed([config], tiny_measure(**settings | {"update_groups": ("all", "attention")}))
    for sheet, other in zip(sheets, plain, strict=True):
        weights = [{**w, "k": w["blocks.0.attn.qkv"][1]} for w in everything.weights]
        for site, name in ((MATRICES[1], "k"), (MATRICES[3], "embed")):
            x = updates_of(weights, [name], sheet.step, 2, stride=2)
            _compare(rows_of(sheet, object="update", site=site, window="2"), x.numpy(), 2)
        for site in ("all", "attention"):
            for found, expected in zip(
                *([r for r in s.rows if r["site"] == site] for s in (sheet, other)), strict=True
            ):
                assert found["quantity"] == expected["quantity"]
                assert found["value"] == pytest.approx(expected["value"], rel=1e-6, nan_ok=True)


def test_a_matrix_that_there_is_not_is_refused(tiny_run):
    with pytest.raises(
        MeasureError, match=r"'matrix:blocks.0.attn.qkv', and stage .* no such matrix; its matrices are embed"
    ):
        groups_of(tiny_run(), ("matrix:blocks.0.attn.qkv",))
