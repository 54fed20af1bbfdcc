"""Token shards and sequences: what is written is read, and everything else is refused by name."""

import json
from itertools import chain

import numpy as np
import pytest

from sims.system.errors import StoreError
from sims.text.corpus import Corpus
from sims.text.shards import (
    HEADER_BYTES,
    HEADLESS,
    MAGIC,
    TokenSequences,
    _highest,
    read_shard,
    shard_files,
    write_shard,
)


@pytest.fixture
def shard(tmp_path):
    """A shard of 23 tokens."""
    path = tmp_path / "some_train_000000.bin"
    write_shard(path, np.arange(100, 123))
    return path


def test_a_shard_is_what_the_format_says(shard):
    raw = shard.read_bytes()
    header = np.frombuffer(raw[:HEADER_BYTES], "<i4")
    assert list(header[:3]) == [20240520, 1, 23]
    assert not header[3:].any()
    assert list(np.frombuffer(raw[1024:], "<u2")) == list(range(100, 123))
    tokens = read_shard(shard)
    assert isinstance(tokens, np.memmap)
    assert tokens.dtype == np.uint16
    assert list(tokens) == list(range(100, 123))


def damaged(raw, header=(), body=None):
    numbers = np.frombuffer(raw[:HEADER_BYTES], "<i4").copy()
    for place, value in header:
        numbers[place] = value
    return numbers.tobytes() + (raw[HEADER_BYTES:] if body is None else body)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw[:-2], "cut short"),
        (lambda raw: raw[:-1], "cut short"),
        (lambda raw: raw + b"\0", "longer than it says"),
        (lambda raw: raw[:100], "begins with 1024"),
        (lambda raw: b"", "begins with 1024"),
        (lambda raw: b"PK\x03\x04" * 500, "no token shard"),
        (lambda raw: damaged(raw, [(0, MAGIC + 1)]), "no token shard"),
        (lambda raw: damaged(raw, [(1, 2)]), "version 2"),
        (lambda raw: damaged(raw, [(2, -5)]), "-5 tokens by its header, and a shard has at least 1"),
        (lambda raw: damaged(raw, [(2, 0)], b""), "0 tokens"),
        (lambda raw: damaged(raw, body=np.full(23, 50257, "<u2").tobytes()), "token 50257"),
    ],
)
def test_other_files_are_refused_by_name(shard, change, said):
    shard.write_bytes(change(shard.read_bytes()))
    with pytest.raises(StoreError, match=said) as refused:
        read_shard(shard)
    assert shard.name in str(refused.value)


def test_a_missing_shard_and_an_empty_folder(tmp_path):
    with pytest.raises(StoreError, match=r"gone\.bin cannot be read"):
        read_shard(tmp_path / "gone.bin")
    with pytest.raises(StoreError, match="no val shard"):
        shard_files(tmp_path, "val")


@pytest.mark.parametrize("tokens", [[], [-1], [65536], [0.5], [[1, 2]]])
def test_what_no_shard_can_hold_is_not_written(tmp_path, tokens):
    with pytest.raises(StoreError, match=r"shard|tokens"):
        write_shard(tmp_path / "x.bin", np.array(tokens))
    assert not list(tmp_path.iterdir())


def test_sequences_cover_each_shard_and_never_cross_into_the_next(tmp_path):
    for i, size in enumerate((23, 4, 11)):
        write_shard(tmp_path / f"a_train_{i:06d}.bin", np.arange(size) + 100 * i)
    sequences = TokenSequences(shard_files(tmp_path, "train"), 5)
    # The oracle: each shard cut by hand.
    expected = [
        [100 * i + 5 * k + j for j in range(6)]
        for i, size in enumerate((23, 4, 11))
        for k in range((size - 1) // 5)
    ]
    assert len(sequences) == len(expected) == 6
    assert np.concatenate(list(sequences.batches(4))).tolist() == expected
    with pytest.raises(StoreError, match="0 to 5"):
        sequences.take([6])
    with pytest.raises(StoreError, match="longest of which has 23"):
        TokenSequences(shard_files(tmp_path), 23)


def test_batches_are_the_same_again_go_on_and_split_over_ranks(tmp_path):
    write_shard(tmp_path / "a.bin", np.arange(1, 302) % 97)
    sequences = TokenSequences([tmp_path / "a.bin"], 10)
    shuffled = [b.tolist() for b in sequences.batches(4, seed=3)]
    assert shuffled == [b.tolist() for b in sequences.batches(4, seed=3)]
    assert shuffled != [b.tolist() for b in sequences.batches(4, seed=4)]
    assert sorted(chain.from_iterable(shuffled)) == sorted(sequences.take(range(30)).tolist())
    assert [b.tolist() for b in sequences.batches(4, seed=3, start=5)] == shuffled[5:]
    ranks = [[b.tolist() for b in sequences.batches(4, seed=3, start=1, rank=r, ranks=2)] for r in range(2)]
    assert ranks == [shuffled[1::2], shuffled[2::2]]
    for wrong in ({"size": 0}, {"size": 1, "rank": 2, "ranks": 2}, {"size": 1, "start": -1}):
        with pytest.raises(StoreError, match="need size"):
            next(sequences.batches(**wrong))


@pytest.mark.parametrize("name", HEADLESS)
def test_files_of_nanogpt_are_read_beside_shards(tmp_path, name):
    tokens = np.arange(1, 5_000) % 997
    tokens.astype("<u2").tofile(tmp_path / name)
    split = name.removesuffix(".bin")
    assert shard_files(tmp_path, split) == [tmp_path / name]
    assert read_shard(tmp_path / name).tolist() == tokens.tolist()
    headed = tmp_path / "headed"
    headed.mkdir()
    write_shard(headed / f"a_{split}_000000.bin", tokens)
    one, two = (TokenSequences(shard_files(p, split), 7).take(range(40)) for p in (tmp_path, headed))
    assert one.tolist() == two.tolist()
    with pytest.raises(StoreError, match=r"holds token 996; the vocabulary has 996: .* another tokeniser"):
        read_shard(tmp_path / name, 996)
    write_shard(tmp_path / f"b_{split}_000000.bin", tokens)
    with pytest.raises(StoreError, match=rf"{name} beside b_{split}_000000.bin, two sources of {split} text"):
        shard_files(tmp_path, split)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has 0 bytes, and begins with no header"),
        (bytes(101), "has 101 bytes, and begins with no header"),
        (np.arange(300).astype("<u4").tobytes(), "32-bit tokens"),
        (np.arange(300).astype("<i8").tobytes(), "32-bit tokens"),
        (np.array([MAGIC, 1, 5] + 253 * [0], "<i4").tobytes(), "cut short"),
        (
            np.array([20240801, 7, 5] + 253 * [0], "<i4").tobytes() + bytes(20),
            "no token shard: it begins with 20240801",
        ),
    ],
)
def test_what_only_has_the_name_of_such_a_file_is_refused(tmp_path, content, says):
    (tmp_path / "train.bin").write_bytes(content)
    with pytest.raises(StoreError, match=says):
        read_shard(tmp_path / "train.bin")


def test_a_file_with_the_name_and_a_header_is_a_shard(tmp_path):
    write_shard(tmp_path / "val.bin", np.arange(1, 50))
    assert read_shard(tmp_path / "val.bin").tolist() == list(range(1, 50))


def test_a_split_that_is_not_there_names_what_is(tmp_path):
    write_shard(tmp_path / "text_train_000001.bin", np.arange(1, 50))
    with pytest.raises(
        StoreError, match=r"no val shard, only text_train_000001.bin; .* more documents .* --split all"
    ):
        shard_files(tmp_path, "val")


def test_files_that_are_being_written_are_no_shards(tmp_path):
    """A killed `speclens data` leaves one behind, which would be read as text a second time."""
    write_shard(tmp_path / "text_train_000001.bin", np.arange(1, 50))
    for name in (".tmp-77-text_train_000002.bin", "._text_train_000001.bin"):
        write_shard(tmp_path / name, np.arange(1, 50))
    assert [p.name for p in shard_files(tmp_path, "train")] == ["text_train_000001.bin"]
    assert [p.name for p in shard_files(tmp_path)] == ["text_train_000001.bin"]


def test_shards_that_are_not_all_made_train_nothing(tmp_path):
    for split in ("train", "val"):
        write_shard(tmp_path / f"text_{split}_000001.bin", np.arange(1, 50))
    record = {"tokenizer": {"vocabulary": 60, "end": 0}, "complete": False}
    (tmp_path / "data.json").write_text(json.dumps(record))
    with pytest.raises(StoreError, match="is not complete; repeat the command that makes it"):
        Corpus(tmp_path, 8)
    (tmp_path / "data.json").write_text(json.dumps({**record, "complete": True}))
    assert len(Corpus(tmp_path, 8).train) == 6


def test_a_file_is_searched_for_its_highest_token_once_and_again_when_it_changed(shard):
    searched = _highest.cache_info().misses
    for _ in range(3):
        read_shard(shard)
        Corpus(shard, 4)
    assert _highest.cache_info().misses == searched + 1
    write_shard(shard, np.arange(100, 123)[::-1] + 50200)
    with pytest.raises(StoreError, match="holds token 50322"):
        read_shard(shard)
