"""Documents read from files: kinds, encodings, compression, damage."""

import bz2
import codecs
import gzip
import json
import lzma
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sims.system.errors import StoreError
from sims.text.documents import documents


def test_documents_of_each_kind(tmp_path):
    page = "<html><head><title>No</title></head><body><h1>Rain</h1><p>fell  on\nstone &amp; sea</p><script>x</script>"
    for name in ("a.html.gz", "A.HTM.GZ"):
        (tmp_path / name).write_bytes(gzip.compress(page.encode()))
        assert list(documents(tmp_path / name)) == ["Rain\n\nfell on stone & sea"]
    (tmp_path / "data.noun").write_text(
        "  1 licence | text\n00001740 03 n 02 old_house 0 home(a) 1 001 ~ 00001930 n 0000 | where one lives  \n"
    )
    assert list(documents(tmp_path / "data.noun")) == ["old house, home: where one lives"]
    (tmp_path / "x.dict.dz").write_bytes(gzip.compress(("cat\n   an animal\n\n" * 400).encode()))
    entries = list(documents(tmp_path / "x.dict.dz"))
    assert len(entries) == 2
    assert "\n\n".join(entries) == "\n\n".join(["cat\nan animal"] * 400)
    (tmp_path / "latin.txt").write_bytes("café au lait, s'il vous plaît".encode("latin-1"))
    assert next(documents(tmp_path / "latin.txt")).startswith("café")
    (tmp_path / "short.txt").write_text("tiny")
    assert list(documents(tmp_path / "short.txt")) == []
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"word " * 100)[:-9])
    with pytest.raises(StoreError, match=r"cut\.txt\.gz cannot be read"):
        list(documents(tmp_path / "cut.txt.gz"))
    (tmp_path / "b.txt").write_bytes(b"text\0text")
    with pytest.raises(StoreError, match="zero bytes"):
        list(documents(tmp_path / "b.txt"))


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("utf-32-be", codecs.BOM_UTF32_BE),
        ("utf-8", codecs.BOM_UTF8),
    ],
)
def test_text_says_its_encoding_by_its_first_bytes(tmp_path, encoding, mark):
    text = "rain fell on the café and 石 \U0001f327"
    (tmp_path / "a.txt").write_bytes(mark + text.encode(encoding))
    assert list(documents(tmp_path / "a.txt")) == [text]
    if encoding != "utf-8":
        (tmp_path / "a.txt").write_bytes((mark + text.encode(encoding))[:-1])
        with pytest.raises(StoreError, match=r"a\.txt begins as UTF-(16|32) text and is none"):
            list(documents(tmp_path / "a.txt"))
        (tmp_path / "a.txt").write_bytes(mark + (text + "\0" * 40).encode(encoding))
        with pytest.raises(StoreError, match="zero bytes"):
            list(documents(tmp_path / "a.txt"))


@pytest.mark.parametrize("end", ["</head>", "", "</HEAD>\n"])
@pytest.mark.parametrize("begin", ["<body>", "<BODY class=a>", "", "<p>"])
def test_the_end_of_a_head_may_be_left_out(tmp_path, begin, end):
    pixel = "<noscript><img src=x>no pixel</noscript>"
    head = f"<!doctype html><html><head><meta charset=utf-8><title>No</title>{pixel}<style>p {{}}</style>"
    (tmp_path / "a.html").write_text(f"{head}{end}{begin}<h1>Rain</h1>fell on stone & sea</html>")
    assert list(documents(tmp_path / "a.html")) == ["Rain\nfell on stone & sea"]


@given(
    text=st.text(st.sampled_from("a é石\U0001f327"), min_size=20, max_size=60),
    place=st.integers(0, 300),
    byte=st.sampled_from([b"\xff", b"\xc3", b"\xe9", None]),
)
@settings(max_examples=40, deadline=None)
def test_damaged_utf_8_is_no_latin_1(text, place, byte):
    """One byte too many, or the end cut off: the letters around it must not become two or more each."""
    whole = ("rain é fell ü " + text).encode()
    raw = whole[:place] + byte + whole[place:] if byte else whole[: 4 + place % (len(whole) - 4)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.txt"
        file.write_bytes(raw)
        try:
            expected = raw.decode().strip()
        except UnicodeDecodeError as error:
            if not raw[: error.start].decode().isascii():
                with pytest.raises(StoreError, match=rf"cut or damaged .* byte {error.start}"):
                    list(documents(file))
        else:
            assert list(documents(file)) == [expected] * (len(expected) >= 16)


@pytest.mark.parametrize(
    "text", ["ça va, café", "déjà vu, à côté", "Ça ira – « été »", "naïve coöperation ¿sí?"]
)
def test_latin_1_stays_latin_1(tmp_path, text):
    encoding = "latin-1" if text.encode("latin-1", "ignore").decode("latin-1") == text else "cp1252"
    (tmp_path / "a.txt").write_bytes((text + ", and some more").encode(encoding))
    (found,) = documents(tmp_path / "a.txt")
    assert found == (text + ", and some more").encode(encoding).decode("latin-1")


@pytest.mark.parametrize("name", ["a.jsonl", "a.NDJSON", "a.jsonl.gz", "a.txt.zst", "a.txt.bz2", "a.txt.xz"])
def test_files_of_other_kinds_are_not_read_as_one_document(tmp_path, name):
    text = "\n".join(json.dumps({"text": f"rain fell on stone {i}"}) for i in range(30)).encode()
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": _zstandard}
    (tmp_path / name).write_bytes(packed.get(Path(name).suffix, bytes)(text))
    with pytest.raises(StoreError, match=r"on each line, which is not read|is not text"):
        list(documents(tmp_path / name))


def _zstandard(text):
    """A frame as zstd writes it, around bytes without zeros."""
    return b"\x28\xb5\x2f\xfd\x04\x58" + bytes(range(1, 256))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (
            "plain words, and no mark".encode("utf-16-le"),
            "as UTF-16LE without a byte order mark has; convert it",
        ),
        (
            "plain words, and no mark".encode("utf-16-be"),
            "as UTF-16BE without a byte order mark has; convert it",
        ),
        (b"a page of text" + bytes(4096) + b"and more", "4,096 of them in a block from byte 14, as a file"),
        (bytes(50), "50 of them in a block from byte 0"),
        (b"\x7fELF\x02\x01\0\x03text and more of it\0\x01", "2 of 29, as binary files have"),
    ],
)
def test_zero_bytes_say_what_the_file_is(tmp_path, raw, says):
    (tmp_path / "a.txt").write_bytes(raw)
    with pytest.raises(StoreError, match=rf"a\.txt is not text: it has zero bytes, .*{says}"):
        list(documents(tmp_path / "a.txt"))
