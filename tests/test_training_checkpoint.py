"""Checkpoint files: whole, plain, and refused where they are anything else."""

import os
import pickle
import stat

import pytest
import torch

from tnml.errors import InputError
from tnml.loop import checkpoint

STATE = {
    "weight": torch.arange(2000.0),
    "complex": torch.ones(3, dtype=torch.complex64),
    "epoch": 3,
    "rate": 0.1,
    "name": "adam",
    "nothing": None,
    "flag": True,
    "history": [{"loss": 0.5}, {"loss": float("nan")}],
    "state": {0: {"step": torch.tensor(4.0)}},
}


class Hostile:
    """Would write a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


def test_round_trip(tmp_path):
    checkpoint.save(tmp_path / "sub" / "c.pt", STATE)
    loaded = checkpoint.load(tmp_path / "sub" / "c.pt")
    assert loaded.keys() == STATE.keys()
    assert torch.equal(loaded["weight"], STATE["weight"])
    assert torch.equal(loaded["complex"], STATE["complex"])
    assert loaded["state"][0]["step"] == 4.0
    assert [loaded[k] for k in ("epoch", "rate", "name", "nothing", "flag")] == [3, 0.1, "adam", None, True]
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["c.pt"]


def test_copies_share_no_memory():
    base = torch.zeros(10)
    copied = checkpoint.plain_copy({"view": base[2:4]})["view"]
    base += 1
    assert copied.tolist() == [0.0, 0.0]
    assert copied.untyped_storage().nbytes() == 8


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", lambda: 0, torch.float32])
def test_only_plain_values_are_written(tmp_path, value):
    with pytest.raises(TypeError, match="tensors, numbers, texts"):
        checkpoint.save(tmp_path / "c.pt", {"value": [value]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_file_is_refused_and_does_nothing(tmp_path, how):
    path, target = tmp_path / "c.pt", tmp_path / "written"
    payload = {"format": 1, "state": {"epoch": 1, "weight": Hostile(target)}}
    if how == "torch":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload))
    with pytest.raises(InputError, match=r"c\.pt"):
        checkpoint.load(path)
    assert not target.exists()
    if how == "torch":
        with pytest.raises(InputError, match="something other than tensors"):
            checkpoint.load(path)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    for length in [0, 1, 3, 100, *range(200, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a readable checkpoint"):
            checkpoint.load(path)


def test_a_changed_byte_of_a_tensor_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    checkpoint.save(path, STATE)
    whole = bytearray(path.read_bytes())
    place = bytes(whole).index(torch.arange(1000.0, 1010.0).numpy().tobytes())
    whole[place + 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError, match="damaged"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [([1, 2], "not a tnml checkpoint"), ({"a": 1}, "not a tnml"), ({"format": 99, "state": {}}, "format 99")],
)
def test_other_files_are_refused(tmp_path, content, text):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError, match=text):
        checkpoint.load(tmp_path / "c.pt")
    with pytest.raises(InputError, match="no checkpoint at"):
        checkpoint.load(tmp_path)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoint.save(path, {"epoch": 1})

    def full(state, target):
        target.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="free some space"):
        checkpoint.save(path, {"epoch": 2})
    assert checkpoint.load(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_only_a_failed_write_is_blamed_on_the_disk(tmp_path, monkeypatch):
    def fail(text):
        def save(state, target):
            raise RuntimeError(text)

        monkeypatch.setattr(torch, "save", save)

    fail("basic_ios::clear: iostream error")
    with pytest.raises(
        InputError, match=r"c\.pt: the disk may be full or the folder not writable; free"
    ) as caught:
        checkpoint.save(tmp_path / "c.pt", {"epoch": 1})
    assert "basic_ios" not in str(caught.value)
    fail("CUDA out of memory")
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory$"):
        checkpoint.save(tmp_path / "c.pt", {"epoch": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder_is_said(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(InputError, match="cannot write"):
            checkpoint.save(tmp_path / "c.pt", {"epoch": 1})
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        checkpoint.save(tmp_path / "file" / "c.pt", {"epoch": 1})
