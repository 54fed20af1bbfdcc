"""One look at weights: every matrix beside noise of its shape, what fails is named, and the rest goes on."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from sims import cli, look
from sims.measure import noise_levels as nulls
from sims.measure.weight_tails import TILE, TILES
from sims.studies.look.findings import chance, findings, verdict
from sims.studies.look.tables import few_blocks, narrow, place, position, weight_rows
from sims.system.errors import MeasureError
from spectra import farms, hill, rankme, stable_rank, weight_spectrum, window_exponent
from toymodel.errors import CheckpointError

BLOCKS, WIDTH, VOCAB = 3, 64, 100


def state(seed=0, scale=0.02):
    """A state of GPT-2's shape at its start: all matrices Gaussian."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator)

    tensors = {"transformer.wte.weight": draw(VOCAB, WIDTH), "transformer.wpe.weight": draw(50, WIDTH)}
    for layer in range(BLOCKS):
        block = f"transformer.h.{layer}"
        tensors |= {
            f"{block}.attn.c_attn.weight": draw(3 * WIDTH, WIDTH),
            f"{block}.attn.c_proj.weight": draw(WIDTH, WIDTH),
            f"{block}.mlp.c_fc.weight": draw(4 * WIDTH, WIDTH),
            f"{block}.mlp.c_proj.weight": draw(WIDTH, 4 * WIDTH),
        }
    return tensors


@pytest.fixture
def stored(tmp_path):
    def write(change=lambda tensors: None, name="model.safetensors"):
        tensors = state()
        change(tensors)
        save_file(tensors, tmp_path / name)
        return tmp_path / name

    return write


def numbers(rows, site):
    own = rows[rows["site"] == site]
    names = (own["quantity"] + " " + own["window"]).str.strip()
    return dict(zip(names, own.to_dict("records"), strict=True))


class TestNumbers:
    def test_each_is_that_of_the_library(self, stored):
        matrix = state()["transformer.h.1.mlp.c_fc.weight"]
        spectrum = weight_spectrum(matrix)
        own = numbers(look(stored()).rows, "blocks.1.mlp.fc")
        for name, want in {
            "rankme": rankme(spectrum),
            "stable_rank": stable_rank(spectrum),
            "alpha 10-40": window_exponent(spectrum, 10, 40).value,
        }.items():
            assert own[name]["value"] == pytest.approx(want, rel=1e-9), name
        tails = {"hill": hill(spectrum), "farms": farms(matrix, size=min(TILE, WIDTH), tiles=TILES)}
        for name, want in tails.items():
            for part in ("value", "low", "high"):
                assert own[name][part] == pytest.approx(getattr(want, part), rel=1e-9), (name, part)
            assert (own[name]["status"], own[name]["reason"][:11]) == (want.status, want.reason[:11])

    def test_weights_alone_have_no_step_unless_the_file_says_one(self, stored, tmp_path):
        found = look(stored())
        assert found.step is None
        assert found.rows["step"].isna().all()
        torch.save({"model": state(), "step": 7}, tmp_path / "state.pt")
        assert look(tmp_path / "state.pt").rows["step"].eq(7).all()

    def test_a_module_in_memory_gives_the_numbers_of_its_file(self, tmp_path):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(40, 70), torch.nn.ReLU(), torch.nn.Linear(70, 50))
        save_file(model.state_dict(), tmp_path / "m.safetensors")
        own, file = look(model), look(tmp_path / "m.safetensors")
        assert own.table()["matrix"].tolist() == file.table()["matrix"].tolist()
        pd.testing.assert_frame_equal(own.rows[["value", "null"]], file.rows[["value", "null"]])

    def test_layers_are_chosen_by_name_or_pattern(self, stored):
        path = stored()
        chosen = look(path, layers=["blocks.*.attn.?", "embed"]).table()["matrix"].tolist()
        assert chosen == ["embed", *(f"blocks.{b}.attn.{m}" for b in range(BLOCKS) for m in "qkvo")]
        with pytest.raises(CheckpointError, match=r"'blocks\.9' names no matrix"):
            look(path, layers=["embed", "blocks.9"])

    def test_a_single_matrix_far_from_noise_is_not_called_noise(self, tmp_path):
        torch.manual_seed(0)
        only = torch.randn(40, 40) + 0.5 * torch.randn(40, 2) @ torch.randn(2, 40)
        save_file({"only.weight": only}, tmp_path / "only.safetensors")
        verdict = look(tmp_path / "only.safetensors").findings[0]
        assert "RankMe tells 1 of 1 weight matrix of only" in verdict
        assert "cannot be told" not in verdict

    def test_layers_are_chosen_by_the_names_of_the_printed_table(self, stored):
        path = stored()
        names = [f"0.attn.{m}" for m in "qkvo"]
        assert look(path, layers=names).table()["matrix"].tolist() == [f"blocks.{name}" for name in names]

    def test_matrices_stand_in_the_order_of_the_model(self, stored):
        # Names of tensors sort "h.10" before "h.2"; the files keep that order.
        def eleven(tensors):
            for k in range(BLOCKS, 11):
                tensors[f"transformer.h.{k}.attn.c_proj.weight"] = torch.randn(WIDTH, WIDTH)

        names = look(stored(eleven), layers=["*.attn.o", "positions"]).table()["matrix"].tolist()
        assert names == ["positions", *(f"blocks.{k}.attn.o" for k in range(11))]


class TestNoise:
    @pytest.mark.parametrize(("n", "d"), [(64, 64), (40, 90), (300, 50)])
    def test_levels_are_those_of_drawn_matrices(self, n, d):
        generator = np.random.default_rng(1)
        spectra = [weight_spectrum(generator.standard_normal((n, d))) for _ in range(40)]
        window: tuple[Any, ...] = (10, 40)
        for of, arguments in ((rankme, ()), (stable_rank, ()), (window_exponent, window)):
            level = nulls.summary_level(of, arguments, n, d)
            drawn = np.array([float(of(s, *arguments)) for s in spectra])
            # Two means of 19 and 40 draws of one law: four standard errors.
            assert abs(level.mean - drawn.mean()) < 4 * drawn.std() * (1 / 19 + 1 / 40) ** 0.5
            assert level == nulls.summary_level(of, arguments, d, n)
        drawn = np.array([hill(s).value for s in spectra])
        assert abs(nulls.hill_level(n, d).mean - drawn.mean()) < 4 * drawn.std() * (1 / 19 + 1 / 40) ** 0.5

    def test_tiles_are_those_of_drawn_matrices(self):
        generator = np.random.default_rng(2)
        drawn = np.array([farms(generator.standard_normal((96, 192)), size=48).value for _ in range(40)])
        level = nulls.farms_level(48, 8)
        assert abs(level.mean - drawn.mean()) < 4 * drawn.std() * (1 / 19 + 1 / 40) ** 0.5
        assert level.low < drawn.mean() < level.high

    def test_chance_is_exact_for_one_shape(self):
        # The lowest x of m + 19 exchangeable values are all among the m.
        generator = np.random.default_rng(3)
        m, repeats = 20, 4000
        drawn = generator.standard_normal((repeats, m + nulls.DRAWS))
        below = (drawn[:, :m] < drawn[:, m:].min(axis=1, keepdims=True)).sum(axis=1)
        for count in (1, 3):
            share = chance(count, m)
            assert np.mean(below >= count) == pytest.approx(share, abs=4 * (share / repeats) ** 0.5)

    def test_a_model_at_its_start_is_not_told_from_noise(self, stored):
        found = look(stored())
        assert "cannot be told from noise" in verdict(found)
        rows = weight_rows(found.rows)
        told = rows[rows["position"].isin(["below", "above"]) & rows["quantity"].eq("rankme")]
        assert len(told) <= 6

    def test_a_planted_direction_is_told(self, stored):
        def plant(tensors):
            tensors["transformer.h.1.attn.c_proj.weight"] += 0.1 * torch.ones(WIDTH, WIDTH)

        found = look(stored(plant))
        own = weight_rows(found.rows)
        own = own[own["site"] == "blocks.1.attn.o"].set_index("name")
        assert own.loc[["rankme", "stable_rank"], "position"].tolist() == ["below", "below"]
        texts = " ".join(f.text for f in findings(found))
        assert "stable rank is below noise in 1 of 20, most in 1.attn.o" in texts
        # One matrix of 20 below all draws is what chance gives, but not so far below.
        assert re.search(
            r"cannot be told from noise by their RankMe, except for 1.attn.o \([\d.]+, noise [\d.]+\): of 20 matrices "
            r"(1 lies|[02-9]\d* lie) below and (1 lies|[02-9]\d* lie) above all 19 Gaussian",
            texts,
        )
        assert re.search(
            r"more matrices lie outside noise than chance gives by .*α 10–40 \(2 of 20; below: ", texts
        )

    def test_many_matrices_of_low_rank_change_the_verdict(self, stored):
        def shrink(tensors):
            for name, tensor in tensors.items():
                tensor[:, 20:] *= 0.01 if name.startswith("transformer.h") else 1

        assert re.match(
            r"1\d of 20 weight matrices of model.safetensors have fewer", verdict(look(stored(shrink)))
        )


class TestFailures:
    def test_what_has_no_spectrum_is_named_and_the_others_go_on(self, stored):
        def damage(tensors):
            tensors["transformer.h.0.attn.c_proj.weight"][3, 4] = float("nan")
            tensors["transformer.h.1.mlp.c_fc.weight"].zero_()
            tensors["transformer.h.2.mlp.c_proj.weight"][0, 0] = float("inf")

        found = look(stored(damage))
        table = found.table().set_index("matrix")
        lost = {
            "blocks.0.attn.o": "1 NaN or Inf",
            "blocks.1.mlp.fc": "all zero",
            "blocks.2.mlp.proj": "NaN or Inf",
        }
        for name, reason in lost.items():
            assert reason in str(table.loc[name, "reason"])
            own = found.rows[found.rows["site"] == name]
            assert own["status"].tolist() == ["not fitted"]
            assert own["value"].isna().all()
        assert (table["rankme"].isna() == table.index.isin(lost)).all()
        assert not (found.rows["value"].isna() & found.rows["status"].eq("ok")).any()
        texts = " ".join(f.text for f in findings(found))
        assert "3 of 20 could not be measured" in texts
        assert "Not measured: blocks.0.attn.o" in texts

    def test_nothing_that_can_be_measured_is_said(self, stored):
        def zero(tensors):
            for tensor in tensors.values():
                tensor.zero_()

        found = look(stored(zero))
        assert verdict(found).startswith("No weight matrix of model.safetensors has a spectrum")

    def test_a_page_without_any_number_is_written(self, stored, tmp_path):
        def zero(tensors):
            for tensor in tensors.values():
                tensor.zero_()

        page = look(stored(zero)).page(tmp_path / "page").read_text("utf-8")
        assert "No weight matrix" in page

    @pytest.mark.parametrize("shape", [(2, 2), (3, 40), (2, 70), (41, 41)])
    def test_matrices_of_any_size(self, shape):
        torch.manual_seed(0)
        rows = look(torch.nn.Linear(*shape)).rows
        assert (rows["value"].notna() == rows["status"].ne("not fitted")).all()
        assert rows.loc[rows["status"] != "ok", "reason"].ne("").all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_dtypes(self, stored, dtype):
        def cast(tensors):
            for name in tensors:
                tensors[name] = tensors[name].to(dtype)

        wide, cut = look(stored()), look(stored(cast, "cast.safetensors"))
        for name in ("rankme", "stable_rank"):
            a, b = (f.rows.loc[f.rows["quantity"] == name, "value"].to_numpy() for f in (wide, cut))
            np.testing.assert_allclose(a, b, rtol=0.02)

    def test_an_orthogonal_matrix_rounded_to_bfloat16_has_no_tail(self):
        layer = torch.nn.Linear(48, 48, bias=False)
        torch.nn.init.orthogonal_(layer.weight, generator=torch.Generator().manual_seed(0))
        for kept in (layer.bfloat16(), layer.float()):
            rows = look(kept).rows.set_index("quantity")
            for name in ("hill", "farms"):
                assert "no tail to fit" in str(rows.loc[name, "reason"])

    def test_refusals(self, tmp_path):
        with pytest.raises(CheckpointError, match="does not exist"):
            look(tmp_path / "none.pt")
        save_file({"bias": torch.ones(4)}, tmp_path / "v.safetensors")
        with pytest.raises(CheckpointError, match="no weight matrix"):
            look(tmp_path / "v.safetensors")
        torch.save({"state": {0: {"step": torch.ones(1)}}, "param_groups": []}, tmp_path / "o.pt")
        with pytest.raises(CheckpointError, match="optimiser"):
            look(tmp_path / "o.pt")
        save_file({"a.qweight": torch.ones(4, 4).int()}, tmp_path / "q.safetensors")
        with pytest.raises(CheckpointError, match="quantised"):
            look(tmp_path / "q.safetensors")
        with pytest.raises(MeasureError, match="has no weight matrix"):
            look(torch.nn.ReLU())
        with pytest.raises(MeasureError, match="is a dict; pass"):
            look({"w": torch.ones(3, 3)})  # pyright: ignore[reportArgumentType]


class TestShown:
    @pytest.mark.slow
    def test_the_table_fits_100_columns(self, stored, monkeypatch, capsys):
        def plant(tensors):
            # Stars and bangs make cells longest.
            for k in range(BLOCKS):
                tensors[f"transformer.h.{k}.mlp.c_proj.weight"] += 0.1 * torch.ones(WIDTH, 4 * WIDTH)
            tensors["transformer.h.11.mlp.c_fc.weight"] = torch.randn(2000, 1500)

        path = stored(plant)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        shown = {}
        for columns in ("100", "400"):
            monkeypatch.setenv("COLUMNS", columns)
            assert cli.main(["look", str(path), "--out", "none"]) == 0
            shown[columns] = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert shown["100"] == shown["400"]

    def test_marks_of_a_cell(self, stored):
        def plant(tensors):
            tensors["transformer.h.1.attn.c_proj.weight"] += 0.1 * torch.ones(WIDTH, WIDTH)

        table = narrow(look(stored(plant)).rows).frame().set_index("matrix")
        assert re.fullmatch(r"[\d.]+/[\d.]+\*", str(table.loc["1.attn.o", "RankMe"]))
        assert re.fullmatch(r"[\d.]+±[\d.]+/[\d.]+\*?!?", str(table.loc["0.attn.o", "Hill α"]))

    def test_few_blocks_of_many(self, stored):
        def more(tensors):
            for k in range(BLOCKS, 60):
                tensors[f"transformer.h.{k}.attn.c_proj.weight"] = torch.randn(WIDTH, WIDTH)

        rows = look(stored(more), layers=["*.attn.o", "embed"]).rows
        few, blocks = few_blocks(rows, most=10)
        assert (blocks[0], blocks[-1], len(blocks)) == (0, 59, 10)
        assert few["site"].nunique() == 11
        assert few_blocks(rows, most=100)[0]["site"].nunique() == 61

    def test_position_and_place(self):
        row = {"value": 2.0, "null_low": 3.0, "null_high": 4.0}
        assert [position(row | {"value": v}) for v in (2.0, 3.0, 4.5, np.nan)] == [
            "below",
            "inside",
            "above",
            "",
        ]
        assert place("blocks.12.attn.q") == (12, "attn.q")
        assert place("blocks.3") == (3, "stream")

    def test_a_notebook_gets_a_table(self, stored):
        shown = look(stored())._repr_html_()
        assert "<table" in shown
        assert "cannot be told" in shown

    def test_the_command_prints_and_writes(self, stored, tmp_path, monkeypatch, capsys):
        path = stored()
        monkeypatch.chdir(tmp_path)
        assert cli.main(["look", str(path)]) == 0
        out = capsys.readouterr().out
        assert out.startswith("matrix\tRankMe")
        assert "cannot be told from noise" in out
        folder = tmp_path / "look-model.safetensors"
        page = (folder / "index.html").read_text("utf-8")
        assert "<details>" in page
        assert "<svg" in page
        rows = pd.read_parquet(folder / "rows.parquet")
        again = look(path).rows
        pd.testing.assert_series_equal(rows["value"], again["value"])
        assert len(pd.read_csv(folder / "rows.csv")) == len(rows)
        assert len(pd.read_parquet(folder / "spectra.parquet")) == again["site"].nunique()

    @pytest.mark.slow
    def test_a_file_of_another_kind_has_a_page_of_its_own(
        self, stored, tmp_path, monkeypatch, undrawn, capsys
    ):
        monkeypatch.chdir(tmp_path)
        path = stored()
        torch.save(state(), tmp_path / "model.pt")
        for file, told in (
            (path, ""),
            (tmp_path / "model.pt", ""),
            (path, ", in place of the one that was there"),
        ):
            assert cli.main(["look", str(file)]) == 0
            page = f"look-{file.name}/index.html"
            assert capsys.readouterr().err.rstrip().endswith(f"page: {page}{told}")

    def test_a_batch_without_numbers_is_said_where_the_look_is_printed(self):
        model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Linear(6, 5))
        y = torch.randint(5, (12,), generator=torch.Generator().manual_seed(0))
        found = look(model, (torch.full((12, 8), torch.nan), y))
        assert found.notes
        assert all(f"note: {note}" in repr(found) for note in found.notes)

    def test_the_loss_of_a_classifier_is_not_per_token(self):
        draw = torch.Generator().manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 6))
        x, y = torch.randn(12, 8, generator=draw), torch.randint(6, (12,), generator=draw)
        said = " ".join(look(model, (x, y)).findings)
        assert " on 12 samples" in said
        assert "per token" not in said
        # One matrix has one number, and no range.
        assert "RankMe of the per-sample gradients is " in said

    def test_json_is_one_object_and_no_page_is_written(self, stored, tmp_path, monkeypatch, capsys):
        path = stored()
        monkeypatch.chdir(tmp_path)
        assert cli.main(["look", str(path), "--json", "--out", "none", "--layers", "embed"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert {row["site"] for row in found["rows"]} == {"embed"}
        assert found["step"] is None
        assert found["findings"]
        assert not (tmp_path / "look-model.safetensors").exists()

    def test_all_shows_every_number(self, stored, capsys):
        assert cli.main(["look", str(stored()), "--all", "--out", "none"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sum(line.startswith("weight\tblocks.2.attn.q") for line in lines) == 9

    @pytest.mark.slow
    def test_a_page_is_the_same_twice(self, stored, tmp_path):
        found = look(stored())
        first, second = (found.page(tmp_path / name).read_bytes() for name in "ab")
        assert first == second


def test_matrices_above_noise_change_the_verdict():
    torch.manual_seed(7)
    layers = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(10)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            torch.nn.init.normal_(layer.weight)
            if i < 4:
                torch.nn.init.orthogonal_(layer.weight)
    said = verdict(look(torch.nn.Sequential(*layers[:6])))
    assert said.startswith(
        "4 of 6 weight matrices of Sequential have more effective directions (RankMe) than any"
    )
    with torch.no_grad():
        for layer in layers[6:]:
            layer.weight[:, 8:] *= 0.001
    said = verdict(look(torch.nn.Sequential(*layers)))
    assert said.startswith(
        "4 of 10 weight matrices of Sequential have fewer effective directions (RankMe) than any"
    )
    assert said.endswith("of the same shape, and 4 have more.")


def test_a_matrix_with_a_number_in_place_of_a_name_is_no_stream():
    found = look(torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)))
    assert set(weight_rows(found.rows)["kind"]) == {"matrix"}


def test_tensors_that_are_no_matrices_are_named_on_the_terminal(tmp_path, capsys):
    save_file({"a.weight": torch.randn(16, 8), "b.weight": torch.randn(2, 8, 8)}, tmp_path / "m.safetensors")
    assert cli.main(["look", str(tmp_path / "m.safetensors"), "--out", "none"]) == 0
    shown = capsys.readouterr()
    assert "tensors that are not measured: b.weight (" in shown.err
    assert "of 1 matrix 0 lie below" in shown.out


def test_states_that_are_not_read_are_named(tmp_path):
    weights = {"w": torch.randn(8, 8)}
    path = tmp_path / "both.pt"
    moments = {"state": {0: {"exp_avg": torch.ones(8, 8)}}, "param_groups": []}
    averaged = {"w": torch.zeros(8, 8)}
    wrapped = {f"module.{name}": tensor for name, tensor in averaged.items()}
    for ema in (averaged, wrapped, {"module": wrapped, "updates": 3}):
        torch.save({"model": weights, "ema": ema, "optimizer": moments}, path)
        found = look(path)
        assert [note.partition(", which")[0] for note in found.notes] == [
            "both.pt also holds weights under ema"
        ]
    torch.save({"model": weights, "optimizer": moments}, path)
    assert not look(path).notes


@pytest.mark.parametrize("name", ["empty.pt", "empty.safetensors"])
def test_an_empty_file_is_said_to_be_empty(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"is empty \(0 bytes\); copy it again"):
        look(tmp_path / name)


def test_an_archive_of_torchscript_is_named_as_one(tmp_path, recwarn):
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 3)), tmp_path / "m.pt")
    recwarn.clear()
    with pytest.raises(CheckpointError, match=r"is a TorchScript archive.*load it with torch.jit.load"):
        look(tmp_path / "m.pt")
    assert not recwarn.list
