"""Damaged and hostile checkpoint files: one clear error each, never a traceback and never code that runs."""

import copyreg
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from formats import HEADS, modded_state, nanogpt_checkpoint
from safetensors.torch import save_file

from sims.models.checkpoint_info import CheckpointOptions
from sims.models.checkpoints import inspect, load, read
from sims.models.reading import read_torch
from toymodel.errors import CheckpointError, ConfigError

OPTIONS = CheckpointOptions(heads=HEADS, step=1)
EACH = 30
DAMAGES = ("cut", "flip", "zeros", "noise", "doubled", "swapped", "shifted")


def written(folder, form):
    path = folder / f"step1.{'safetensors' if form == 'safetensors' else 'pt'}"
    if form == "safetensors":
        save_file({n: t.clone() for n, t in modded_state("untied").items()}, path)
    else:
        torch.save(nanogpt_checkpoint(), path, _use_new_zipfile_serialization=form == "zip")
    return path


def damaged(content, damage, draw):
    """The content with one damage; half of them lie in the first or last 2 kB, where the structure is."""
    size = len(content)
    at = int(draw.integers(size))
    if draw.random() < 0.5:
        at = int(draw.integers(2048)) if draw.random() < 0.5 else size - 1 - int(draw.integers(2048))
    length = int(draw.integers(1, 600))
    out = bytearray(content)
    if damage == "cut":
        return out[:at]
    if damage == "flip":
        for _ in range(int(draw.integers(1, 4))):
            out[at] ^= 1 << int(draw.integers(8))
            at = min(size - 1, at + int(draw.integers(40)))
    elif damage == "zeros":
        out[at : at + length] = bytes(len(out[at : at + length]))
    elif damage == "noise":
        out[at : at + length] = draw.bytes(len(out[at : at + length]))
    elif damage == "doubled":
        out[at:at] = out[at : at + length]
    elif damage == "shifted":
        del out[at : at + length]
    else:
        other = int(draw.integers(size - length))
        out[at : at + length] = out[other : other + len(out[at : at + length])]
    return out


def found_or_why(use):
    try:
        return use(), ""
    except (CheckpointError, ConfigError) as error:
        return None, str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_refused_in_one_line_or_read(tmp_path, form):
    original = written(tmp_path, form)
    content, whole = original.read_bytes(), read(original, OPTIONS)
    draw = np.random.default_rng(0)
    refused = 0
    for damage in DAMAGES:
        for i in range(EACH):
            path = tmp_path / f"{damage}{i}_step1{original.suffix}"
            path.write_bytes(damaged(content, damage, draw))
            found, why = found_or_why(lambda path=path: read(path, OPTIONS))
            path.unlink()
            refused += found is None
            assert "weights_only" not in why
            assert len(why) < 1_000
            # A zip's checksums let no changed number through; the other forms have none.
            if found is not None and form == "zip":
                pairs = zip(found.model.parameters(), whole.model.parameters(), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs), (damage, i)
    assert refused > 0.3 * EACH * len(DAMAGES)


class Calls:
    """A pickle that calls something."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def zipped(path, payload):
    """A file as of torch.save, with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def hostile():
    touch = Calls(os.system, "touch pwned")
    inner = pickle.dumps({"model": touch})
    yield "call", {"model": touch, "model_args": {}}
    yield "deep", {"model": {"a": [[{"b": touch}]]}}
    yield "pickle in a pickle", {"model": Calls(pickle.loads, inner)}
    yield "eval", {"step": Calls(eval, "__import__('os').system('touch pwned')")}
    yield "reconstructor", {"step": Calls(copyreg._reconstructor, io.StringIO, object, None)}
    yield "numpy object array", {"step": np.array([touch, 1], dtype=object)}
    yield "key", {touch: 1}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
@pytest.mark.parametrize(
    ("name", "data"), list(hostile()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_code_of_a_file_is_run(tmp_path, monkeypatch, form, name, data, verify):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if form == "plain":
        zipped(path, pickle.dumps(data, protocol=2))
    else:
        torch.save(data, path, _use_new_zipfile_serialization=form == "zip", pickle_protocol=2)
    (tmp_path / "pwned").unlink(missing_ok=True)
    with pytest.raises(CheckpointError):
        read_torch(path, verify)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("encrypted flag", lambda z: z.writestr("archive/data.pkl", b"x")),
        ("no pickle", lambda z: z.writestr("other/file", b"x")),
        ("two folders", lambda z: (z.writestr("a/data.pkl", b"x"), z.writestr("b/data.pkl", b"x"))),
        ("empty", lambda z: None),
        ("empty pickle", lambda z: z.writestr("archive/data.pkl", b"")),
        ("deep pickle", lambda z: z.writestr("archive/data.pkl", b"\x80\x02" + b"(" * 200_000 + b".")),
        ("deflated", lambda z: z.writestr("archive/data.pkl", bytes(10_000), zipfile.ZIP_DEFLATED)),
        (
            "wrong persistent id",
            lambda z: z.writestr("archive/data.pkl", pickle.dumps(("storage", 1)) + b"Q."),
        ),
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_foreign_archives_are_refused(tmp_path, name, write, verify):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        write(archive)
    if name == "encrypted flag":
        content = bytearray((tmp_path / "a.pt").read_bytes())
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(mark) + offset] |= 1
        (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pt "):
        read_torch(tmp_path / "a.pt", verify)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = written(tmp_path, "zip")

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zipfile.is_zipfile", refused)
    with pytest.raises(CheckpointError, match="Permission denied"):
        read_torch(path)


ODD = [
    *(
        None,
        True,
        -1,
        0,
        1.5,
        float("nan"),
        float("inf"),
        10**30,
        10**400,
        "",
        "x",
        "\x1b[31m",
        b"x",
        (),
        [],
        {},
        [1],
        {"a": 1},
    ),
    *(torch.tensor(3), torch.tensor([1.0, 2.0]), torch.tensor(1j), torch.empty(0), torch.tensor(True)),
    *(torch.ones(2).to_sparse(), torch.empty(3, device="meta"), np.float64(2.5), np.int64(7)),
]
PLACES = [
    *(
        ("model_args", name)
        for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias", "dropout")
    ),
    *(("config", name) for name in ("batch_size", "gradient_accumulation_steps", "block_size")),
    *(
        (name,)
        for name in (
            "iter_num",
            "best_val_loss",
            "config",
            "model_args",
            "model",
            "optimizer",
            "step",
            "code",
        )
    ),
    ("model", "_orig_mod.transformer.wte.weight"),
    ("model", "_orig_mod.transformer.h.0.attn.c_attn.weight"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
# Files of modded-nanogpt have fewer fields, and go the same way.
@pytest.mark.parametrize("form", ["nanoGPT", pytest.param("modded", marks=pytest.mark.slow)])
@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_odd_values_are_one_clear_error_or_have_no_part_in_the_model(tmp_path, place, form):
    path = tmp_path / "step3.pt"
    for odd in ODD:
        data = nanogpt_checkpoint()
        if form == "modded":
            state = {f"_orig_mod.{name}": tensor for name, tensor in modded_state("early").items()}
            data = {"step": 3, "code": "", "config": {}, "model": state}
        *outer, last = place
        if outer and outer[0] not in data:
            return
        (data[outer[0]] if outer else data)[last] = odd
        try:
            torch.save(data, path)
        except (RuntimeError, NotImplementedError):
            continue
        for use in (lambda: read(path, OPTIONS), lambda: inspect(path, OPTIONS), lambda: load(path, OPTIONS)):
            found, why = found_or_why(use)
            assert len(why) < 1_000
            assert getattr(found, "step", None) is None or found.step >= 0
