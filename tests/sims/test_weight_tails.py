"""Exponents of weight matrices and the products of attention heads, of toys, of modules and of watched models."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sims.measure import weights
from sims.measure.noise_levels import NONE, hill_level, product_level, summary_level
from sims.measure.rows import MeasurementRows
from sims.measure.weight_tails import farms_of, product_rows, products_of, tail_rows, tile_of
from sims.measure.weights import MatrixSpectra, WeightSpectra
from sims.models.cuts import Family, cuts
from sims.models.heads import Heads, head_products, heads_of
from sims.monitor.monitor import Monitor
from sims.runs.lm_measure_config import RunMetadata
from sims.runs.store import RunFolder
from sims.runs.watched_config import WatchedConfig
from sims.training.toy_runner import run_group
from spectra import Spectrum, farms, hill, product_spectrum, stable_rank, weight_spectrum, window_exponent
from spectra.arrays import stored_precision

WIDTH = 16


def gaussian(seed, *shape):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape))


def rows_of(sheet, quantity, **which):
    return [r for r in sheet.rows if r["quantity"] == quantity and which.items() <= r.items()]


def tails_of(matrix, name="blocks.0.mlp.fc", tile=16):
    sheet = MeasurementRows(3, 30)
    tail_rows(sheet, name, weight_spectrum(matrix), farms_of(matrix, tile))
    return sheet


@pytest.mark.parametrize("a", [0.2, 0.8, 1.5])
def test_exact_power_laws_have_their_exponents(a):
    values = np.arange(1, 41) ** -a
    sheet = MeasurementRows(0, 0)
    tail_rows(sheet, "m", Spectrum(values, "singular", n=40, d=40), farms_of(gaussian(0, 40, 40), 40))
    found = {r["detail"]: (r["value"], r["window"]) for r in rows_of(sheet, "alpha_singular")}
    assert found == {
        "half": (pytest.approx(a, abs=1e-12), "1-20"),
        "all": (pytest.approx(a, abs=1e-12), "1-40"),
    }
    (tail,) = rows_of(sheet, "hill")
    assert tail["value"] == hill(Spectrum(values, "singular")).value
    assert stable_rank(Spectrum(values, "singular")) == pytest.approx(np.sum(np.arange(1, 41) ** (-2 * a)))


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_exponents_do_not_depend_on_scale_rotation_or_transposition(seed, scale):
    matrix = gaussian(seed, 24, 16)
    rotation = torch.linalg.qr(gaussian(seed + 1, 24, 24)).Q
    want = {(r["quantity"], r["detail"]): r["value"] for r in tails_of(matrix).rows}
    for other, turned in ((scale * matrix, False), (rotation @ matrix, True)):
        for row in tails_of(other).rows:
            if row["quantity"] == "farms" and turned:
                # Tiles are cut from the entries, which a rotation mixes.
                continue
            assert row["value"] == pytest.approx(want[row["quantity"], row["detail"]], rel=1e-8)
    assert rows_of(tails_of(matrix.T.contiguous()), "hill")[0]["value"] == pytest.approx(
        want["hill", ""], rel=1e-8
    )


def test_levels_of_noise_are_those_of_gaussian_matrices():
    half = (1, 32, "ols", "singular")
    # An independent simulation, by full decompositions.
    for n, d, exponent, rank in ((64, 64, 0.27, (16, 18)), (64, 256, 0.14, (28, 30))):
        level = summary_level(window_exponent, half, n, d)
        drawn = [weight_spectrum(gaussian(seed, n, d)) for seed in range(200)]
        own = np.mean([window_exponent(s, *half).value for s in drawn])
        assert level.mean == pytest.approx(own, abs=0.01)
        assert own == pytest.approx(exponent, abs=0.01)
        ranks = np.mean([stable_rank(s) for s in drawn])
        assert rank[0] < ranks < rank[1]
        # The edge of Marchenko and Pastur: σ₁ ≈ √n + √d.
        assert ranks == pytest.approx(n * d / (n**0.5 + d**0.5) ** 2, rel=0.1)
        assert hill_level(n, d).mean == pytest.approx(np.mean([hill(s).value for s in drawn]), rel=0.02)
    products = [
        np.linalg.svd(gaussian(s, 32, 8).numpy() @ gaussian(s + 999, 8, 32).numpy(), compute_uv=False)[:8]
        for s in range(300)
    ]
    level = product_level(stable_rank, (), 32, 8, 32)
    assert level.mean == pytest.approx(np.mean([(v**2).sum() / v[0] ** 2 for v in products]), rel=0.06)


def test_heads_wider_than_the_model_are_set_against_products_of_their_inner_side():
    # Heads of width 24 in a model of width 8: the product of two Gaussian matrices is nearer to Gaussian.
    named = {f"blocks.0.attn.{n}": gaussian(i, 48, 8) for i, n in enumerate("qk")}
    sheet = MeasurementRows(0, 0)
    for site, product in products_of(named, Heads(2, 2)).items():
        assert product is not None
        assert (len(product.spectrum), product.inner) == (8, 24)
        product_rows(sheet, site, product)
    want = product_level(stable_rank, (), 8, 24, 8)
    assert want.mean > 1.1 * product_level(stable_rank, (), 8, 8, 8).mean
    assert {row["null"] for row in rows_of(sheet, "stable_rank")} == {want.mean}


def test_the_products_of_heads_are_those_of_the_matrices():
    heads = Heads(4, 2)
    q, k, v, o = gaussian(0, 32, 24), gaussian(1, 16, 24), gaussian(2, 16, 24), gaussian(3, 24, 32)
    named = {f"blocks.1.attn.{n}": m for n, m in zip("qkvo", (q, k, v, o), strict=True)}
    found = {p.site: p.left @ p.right for p in head_products(named, heads)}
    assert list(found) == [f"blocks.1.attn.{kind}.{h}" for kind in ("qk", "ov") for h in range(4)]
    for h in range(4):
        rows, shared = slice(8 * h, 8 * h + 8), slice(8 * (h // 2), 8 * (h // 2) + 8)
        torch.testing.assert_close(found[f"blocks.1.attn.qk.{h}"], q[rows].T @ k[shared])
        torch.testing.assert_close(found[f"blocks.1.attn.ov.{h}"], o[:, rows] @ v[shared])


@pytest.mark.parametrize("heads", [Heads(3, 3), Heads(4, 1)])
def test_matrices_that_cannot_be_cut_into_heads_have_no_products(heads):
    named = {f"blocks.0.attn.{n}": gaussian(0, 32, 32) for n in "qkvo"}
    assert list(head_products(named, heads)) == []
    assert list(head_products({"blocks.0.attn.q": gaussian(0, 32, 32)}, Heads(4, 4))) == []


def test_a_wrong_split_of_a_fused_matrix_is_seen_in_its_spectra():
    # q and k are steep, v is flat: as three blocks instead of head by head all three look alike.
    heads = 4
    decay = torch.tensor(np.arange(1, 17.0) ** -1.0)
    q, k = (
        torch.linalg.qr(gaussian(s, 16, 16)).Q * decay @ torch.linalg.qr(gaussian(s + 9, 16, 16)).Q
        for s in (0, 1)
    )
    v = torch.linalg.qr(gaussian(5, 16, 16)).Q
    fused = torch.cat([torch.cat([m[4 * h : 4 * h + 4] for m in (q, k, v)]) for h in range(heads)])
    family = Family("gpt_neox", {"num_attention_heads": heads})

    def steepness(family):
        parts = cuts("attention.query_key_value", "blocks.0.attn.qkv", fused.shape, family)
        assert not isinstance(parts, str)
        return {
            cut.name[-1]: window_exponent(weight_spectrum(cut.of(fused)), 1, 8, on="singular").value
            for cut in parts
        }

    right = steepness(family)
    assert right["q"] == pytest.approx(1.0, abs=1e-9) == right["k"]
    assert right["v"] == pytest.approx(0.0, abs=1e-9)
    wrong = steepness(Family("gpt2", {"num_attention_heads": heads}))
    assert max(wrong.values()) - min(wrong.values()) < 0.5 < right["q"] - right["v"]


def test_zero_factors_short_sides_and_missing_heads_have_reasons():
    sheet = MeasurementRows(0, 0)
    for site, spectrum in products_of(
        {f"blocks.0.attn.{n}": torch.zeros(8, 8) if n == "o" else gaussian(1, 8, 8) for n in "qkvo"},
        Heads(4, 4),
    ).items():
        product_rows(sheet, site, spectrum)
    zero = [r for r in sheet.rows if r["site"].startswith("blocks.0.attn.ov")]
    assert {r["reason"] for r in zero} == {"a factor is still zero"}
    assert {r["status"] for r in zero} == {"not fitted"}
    # Heads of width 2 have two singular values, and no slope.
    few = rows_of(sheet, "alpha_singular", site="blocks.0.attn.qk.0")
    assert len(few) == 2
    assert all("too few for a slope" in r["reason"] for r in few)
    assert farms_of(gaussian(0, 2, 40), 2).status == "not fitted"
    assert tile_of({"w": torch.ones(300, 400)}) == 128


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_thin_matrix_does_not_change_the_tiles_of_the_others(rows):
    """As a router of few experts, the gate of one expert, or a low-rank update."""
    matrices = {"blocks.0.attn.q": gaussian(0, 64, 64), "blocks.0.mlp.fc": gaussian(1, 128, 64)}
    assert tile_of({**matrices, "blocks.0.mlp.router": gaussian(2, rows, 64)}) == tile_of(matrices) == 64


def test_rows_of_a_toy_between_its_steps_and_at_its_checkpoints_agree(tmp_path, tiny_run, tiny_measure):
    config = tiny_run(steps=12, eval_every=6)
    schedule = ("weights=3+4/decade",)
    assert not run_group([config], tiny_measure(every=6), tmp_path / "plain")
    assert not run_group([config], tiny_measure(every=6, tails=True), tmp_path / "usual")
    assert not run_group([config], tiny_measure(every=6, tails=True, schedules=schedule), tmp_path / "often")
    plain, usual, often = (RunFolder(tmp_path / n / config.run_id) for n in ("plain", "usual", "often"))
    rows = often.rows().query("quantity == 'hill'")
    assert sorted(set(rows["step"])) == [0, 1, 2, 3, 6, 9, 10, 12]
    keys = ["step", "quantity", "object", "site", "window", "detail"]
    new = "quantity in ('hill', 'farms', 'alpha_singular') or object == 'product'"
    one, two = (f.rows().query(new).set_index(keys).sort_index() for f in (usual, often))
    assert len(one)
    assert one["value"].equals(two["value"][two.index.isin(one.index)])
    measured = often.rows().query(new)
    assert measured.query("status != 'not fitted'")["value"].notna().all()
    assert set(measured.query("status == 'not fitted'")["reason"]) >= {"a factor is still zero"}
    # Training and everything else that is measured stay as they are.
    same = [f.rows().query(f"not ({new}) and object != 'weight'") for f in (plain, usual, often)]
    for other in same[1:]:
        assert other.reset_index(drop=True).equals(same[0].reset_index(drop=True))


def test_matrices_that_are_measured_together_have_the_rows_of_each_alone():
    half = gaussian(8, 16, 16).bfloat16().float()
    named = {f"blocks.{b}.attn.{n}": gaussian(b + ord(n), 16, 16).float() for b in range(3) for n in "qkvo"}
    named |= {"blocks.0.attn.o": torch.zeros(16, 16), "blocks.1.attn.k": half, "embed": gaussian(1, 50, 16)}
    named |= {f"blocks.{b}.mlp.fc": gaussian(b, 64, 16).float() for b in range(3)}
    named |= {f"blocks.{b}.mlp.proj": gaussian(b + 9, 16, 64).float() for b in range(2)}
    found, sheet = WeightSpectra.of(named, True, Heads(4, 4)), MeasurementRows(0, 0)
    assert list(found.matrices.spectra) == list(named)
    assert found.matrices.spectra["blocks.0.attn.o"] is None
    for name, matrix in named.items():
        if (spectrum := found.matrices.spectra[name]) is None:
            continue
        alone = weight_spectrum(matrix, precision=stored_precision(matrix))
        assert spectrum.values == pytest.approx(alone.values, rel=1e-12, abs=1e-12 * alone.values[0])
        tile = farms(matrix, size=16, tiles=16, precision=stored_precision(matrix))
        assert found.matrices.farms[name].value == pytest.approx(tile.value, rel=1e-9)
        sides = ("tiles", "tile_short", "tile_long")
        assert [found.matrices.farms[name].details[s] for s in sides] == [tile.details[s] for s in sides]
    assert found.products is not None
    for product in head_products(named, Heads(4, 4)):
        if (own := found.products[product.site]) is None:
            assert product.site.startswith("blocks.0.attn.ov")
            continue
        # The coarsest precision of the model, that of the matrix in bfloat16.
        alone = product_spectrum(product.left, product.right, precision=2.0**-7)
        assert own.inner == 4
        assert own.spectrum.values == pytest.approx(alone.values, rel=1e-12, abs=1e-12 * alone.values[0])
    found.report(sheet)
    hills = {r["site"]: r["value"] for r in rows_of(sheet, "hill")}
    assert hills == {n: hill(s).value for n, s in found.matrices.spectra.items() if s is not None}


def test_large_matrices_are_decomposed_in_parts(monkeypatch):
    named = {f"blocks.{b}.attn.q": gaussian(b, 8, 8) for b in range(5)}
    want = MatrixSpectra.of(named).spectra
    sizes = []
    plain = weights.weight_spectra
    monkeypatch.setattr(
        weights, "weight_spectra", lambda stack, **p: sizes.append(len(stack)) or plain(stack, **p)
    )
    monkeypatch.setattr(weights, "ENTRIES", 130)
    found = MatrixSpectra.of(named).spectra
    assert sizes == [2, 2, 1]
    for name in named:
        together, alone = found[name], want[name]
        assert together is not None
        assert alone is not None
        assert together.values == pytest.approx(alone.values, rel=1e-12)


def test_a_watched_model_of_known_heads_has_its_products(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_head=4, n_embd=WIDTH, vocab_size=40, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    measure = WatchedConfig(tails=True, update_window=0)
    monitor = Monitor(model, every=1, to=tmp_path / "runs", measure=measure, run=RunMetadata(name="gpt"))
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(2):
        tokens = torch.randint(0, 40, (2, 8), generator=torch.Generator().manual_seed(step))
        model(tokens, labels=tokens).loss.backward()
        optimiser.step()
        monitor.step()
    monitor.close()
    rows = RunFolder(tmp_path / "runs" / "gpt").rows()
    sites = set(rows.query("object == 'product' and quantity == 'stable_rank'")["site"])
    assert sites == {f"blocks.{b}.attn.{p}.{h}" for b in range(2) for p in ("qk", "ov") for h in range(4)}
    assert heads_of(type("S", (), {"model": model, "about": {}})()) == Heads(4, 4)
    assert {"hill", "farms"} <= set(rows["quantity"])


def test_a_model_of_unknown_heads_says_so():
    class Bare:
        about = {}  # noqa: RUF012

    assert heads_of(Bare()) is None
    assert NONE.mean != NONE.mean
