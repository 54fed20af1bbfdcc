"""Bit rot in a complete run is found before a number is believed."""

import json
import random
import shutil
import warnings
from pathlib import Path

import pytest
from listed import finished

from sims import cli
from sims.analysis.runs import load
from sims.runs.describe import describe
from sims.runs.digests import SEALED, files_of, read_outcome, unverified
from sims.runs.folders import listing
from sims.runs.store import RunFolder
from sims.runs.verify import verify
from sims.system.errors import StoreError, UnverifiedWarning
from toymodel.config import RunConfig

WITHOUT_DIGESTS = Path(__file__).parents[1] / "data" / "format-2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    for seed in (0, 1):
        finished(out, RunConfig(seed=seed))
    return out


def flipped(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def everything(run):
    """All that a run folder says, read in every way there is."""
    folder = RunFolder(run)
    return (
        folder.identity(),
        folder.provenance,
        folder.outcome,
        folder.rows().to_dict("list"),
        folder.spectra().drop(columns="values").to_dict("list"),
        [list(v) for v in folder.spectra()["values"]],
    )


@pytest.mark.parametrize("name", [*SEALED, "done.json"])
def test_a_flipped_bit_never_changes_a_value(whole, tmp_path, name):
    """Every read of a run with one flipped bit fails, or gives what was stored."""
    (first, _) = sorted(p for p in whole.iterdir())
    run = tmp_path / first.name
    shutil.copytree(first, run)
    file, draws = run / name, random.Random(name)
    stored, good = repr(everything(run)), file.read_bytes()
    found = 0
    for _ in range(60):
        flipped(file, draws.randrange(8 * len(good)))
        try:
            read = repr(everything(run))
        except StoreError:
            found += 1
        else:
            assert read == stored
        file.write_bytes(good)
    # White space in done.json may become other white space: nothing is lost by it.
    assert found >= (60 if name != "done.json" else 50)
    assert repr(everything(run)) == stored


def test_verify_finds_each_damaged_file_and_nothing_else(whole, tmp_path):
    out = tmp_path / "runs"
    shutil.copytree(whole, out)
    table = verify(listing(out), out)
    assert table["verified"].tolist() == ["yes", "yes"]
    assert table["status"].tolist() == ["done", "done"]
    run = sorted(out.iterdir())[1]
    for name in SEALED:
        good = (run / name).read_bytes()
        flipped(run / name, 8 * (len(good) // 2))
        found = verify(listing(out), out).to_dict("records")
        assert [row["status"] for row in found] == ["done", "damaged"], name
        assert name in found[1]["reason"]
        (run / name).write_bytes(good)


def test_ls_verify_exits_with_1_where_something_is_damaged(whole, tmp_path, capsys):
    out = tmp_path / "runs"
    shutil.copytree(whole, out)
    assert cli.main(["ls", str(out), "--verify", "--json"]) == 0
    assert [r["verified"] for r in json.loads(capsys.readouterr().out)] == ["yes", "yes"]
    rows = sorted(out.iterdir())[0] / "rows.parquet"
    flipped(rows, 4_000)
    # Without reading the tables nothing is noticed; with it the file is named.
    assert cli.main(["ls", str(out)]) == 0
    assert cli.main(["ls", str(out), "--verify"]) == 1
    assert str(rows) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["rows.parquet", "spectra.parquet"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1"])
def test_a_table_cut_short_is_damaged_in_the_listing(whole, tmp_path, name, content):
    run = tmp_path / "run"
    shutil.copytree(sorted(whole.iterdir())[0], run)
    (run / name).write_bytes(content)
    (row,) = listing(tmp_path).to_dict("records")
    assert row["status"] == "damaged"
    assert row["reason"].startswith(f"{name} cannot be read: it has {len(content)} bytes, and ")


def test_runs_without_digests_are_read_with_a_warning(tmp_path):
    shutil.copytree(WITHOUT_DIGESTS, tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    assert not files_of(read_outcome(run))
    with pytest.warns(UnverifiedWarning, match="stored no digests"):
        rows = load(tmp_path / "runs").rows
    assert len(rows)
    assert verify(listing(tmp_path / "runs"), tmp_path / "runs")["verified"].tolist() == ["no digests"]
    (run / "spectra.parquet").write_bytes((run / "spectra.parquet").read_bytes()[:-10])
    (row,) = listing(tmp_path / "runs").to_dict("records")
    assert (row["status"], row["reason"]) == (
        "damaged",
        "spectra.parquet cannot be read: it is no Parquet file, or cut short",
    )


def test_a_folder_without_digests_is_warned_of_once_whatever_happens_to_the_filters(tmp_path):
    shutil.copytree(WITHOUT_DIGESTS, tmp_path / "runs")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UnverifiedWarning)
        for _ in range(2):
            load(tmp_path / "runs")
    assert [str(w.message) for w in seen if w.category is UnverifiedWarning] == [
        unverified(tmp_path / "runs")
    ]


def test_runs_with_digests_are_read_without_a_warning(whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnverifiedWarning)
        load(whole)
        assert not {"files", "sha256"} & set(describe(sorted(whole.iterdir())[0]).outcome)
