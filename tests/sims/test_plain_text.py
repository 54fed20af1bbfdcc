"""Escape codes in the names and texts of foreign files never reach a terminal, by whatever command."""

import json
import os
import pty
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sims import cli
from sims.pages.plain import show_table
from sims.system.plain import PlainStream, plain
from sims.text.shards import write_shard

EVIL = "\x1b[31m\x1b]0;title\x07\x9b2J\u202e"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@given(st.text())
def test_a_plain_text_is_obeyed_by_no_terminal_and_loses_nothing(text):
    shown = plain(text)
    assert OBEYED.search(shown) is None
    assert shown == text or len(shown) > len(text)
    if "\\" not in text and '"' not in text and not any("\ud800" <= c <= "\udfff" for c in text):
        assert json.loads('"' + shown.replace("\n", "\\n").replace("\t", "\\t") + '"') == text


def state(**more):
    tensors = {"transformer.wte.weight": torch.ones(5, 4), "transformer.h.0.x": torch.ones(2), **more}
    return {"step": 1, "model": tensors}


def configured(**entries):
    def write(folder):
        (folder / "config.json").write_text(json.dumps(entries))
        (folder / "model.safetensors").write_bytes(b"")
        return folder

    return write


def saved(name, data):
    def write(folder):
        torch.save(data, folder / name)
        return folder / name

    return write


CASES = {
    "tensor names": (saved("a.pt", state(**{EVIL: 3})), ("inspect", "{}", "--heads", "2")),
    "keys": (saved("a.pt", {EVIL: 1}), ("inspect", "{}")),
    "file names": (saved(f"{EVIL}.pt", {"a": 1}), ("inspect", "{}")),
    "missing files": (lambda folder: folder / f"{EVIL}.pt", ("inspect", "{}")),
    "model type": (configured(model_type=EVIL), ("inspect", "{}")),
    "quantisation": (
        configured(model_type="gpt2", quantization_config={"quant_method": EVIL}),
        ("inspect", "{}"),
    ),
    "code": (configured(model_type="gpt2", auto_map={"a": EVIL}), ("inspect", "{}")),
    "shard names": (
        lambda folder: (folder / f"{EVIL}_val_0.bin").write_bytes(b"none") and folder,
        ("windows", "{}"),
    ),
    "folder names": (lambda folder: folder / EVIL, ("ls", "{}")),
    "conditions": (lambda folder: folder, ("ls", "{}", "--where", f"{EVIL} == 1")),
    "log names": (
        lambda folder: (folder / f"{EVIL}.log").write_text(f"step:1 {EVIL}\n") and folder,
        ("records", "{}"),
    ),
    "text names": (
        lambda folder: (folder / f"{EVIL}.txt").write_bytes(bytes(9)) and folder,
        ("data", "{}", "--out", "made"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_escape_code_of_a_foreign_file_is_printed(tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    write, command = CASES[case]
    (tmp_path / "in").mkdir()
    path = str(write(tmp_path / "in"))
    cli.main([path if part == "{}" else part for part in command])
    printed = capsys.readouterr()
    said = printed.out + printed.err
    # Written out by us, or by repr.
    assert re.search(r"\\(u001b|x1b)", said)
    assert OBEYED.search(said) is None


def test_names_that_are_not_utf_8_are_printed(tmp_path, capsys):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.pt")
    torch.save({"a": 1}, path)
    assert cli.main(["inspect", path]) == 2
    assert "caf\\udce9.pt" in capsys.readouterr().err


def test_json_stays_json(tmp_path, capsys):
    path = tmp_path / f"{EVIL}_val_0.bin"
    write_shard(path, np.arange(1, 50))
    stream = PlainStream(sys.stdout)
    stream.writelines([json.dumps({"path": str(path)}, ensure_ascii=False), "\n"])
    assert json.loads(capsys.readouterr().out)["path"] == str(path)


def test_a_terminal_gets_colours_and_no_codes_of_cells(monkeypatch):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", PlainStream(terminal))
        show_table(("name",), [(EVIL,)])
        sys.stdout.write("\x1b[32mgreen\x1b[0m \x1b[2K\x1b[1A\x1b[?25l\x1b[2J\x1b]0;t\x07\n")
        sys.stdout.flush()
        shown = ""
        while "0007\r\n" not in shown:
            shown += os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\x1b[31m" not in shown
    assert "\x1b]0;" not in shown
    assert "\x1b[32mgreen\x1b[0m \x1b[2K\x1b[1A\x1b[?25l\\u001b[2J\\u001b]0;t\\u0007" in shown
