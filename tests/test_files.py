"""Files are whole or not there, after errors, kills and full disks; the model format keeps every tensor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tnml
from tnml.errors import InputError
from tnml.files import atomic_path, read_model, write_model, write_text


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent, "a rename across file systems is not atomic"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "deep")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "deep"


def test_others_may_read_what_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "")
        assert os.umask(0o027) == 0o027, "the umask is as it was"
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*file/a\.txt"):
        write_text(tmp_path / "file" / "a.txt", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*folder: Is a directory"):
        write_text(tmp_path / "folder", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="Permission denied; choose a folder you can write to"):
            write_text(tmp_path / "a.txt", "")
    finally:
        tmp_path.chmod(0o700)


LIMITED = """
import resource, sys, torch
import tnml
from tnml.errors import InputError
from tnml.files import write_model, write_text
path, kind = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    if kind == "text":
        write_text(path, "x" * 100_000)
    else:
        write_model(path, {"w": torch.ones(100_000)}, {"kind": "layer"})
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
@pytest.mark.parametrize("kind", ["text", "model"])
def test_a_full_disk(kind: str, tmp_path: Path, project_root: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    command = [sys.executable, "-c", LIMITED, str(path), kind]
    environment = os.environ | {"PYTHONPATH": str(project_root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert "free some space" in done.stdout
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


KILLED = """
import os, signal, sys
from tnml.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_kill_leaves_the_old_file(tmp_path: Path, project_root: Path) -> None:
    path = tmp_path / "result"
    path.write_text("old")
    environment = os.environ | {"PYTHONPATH": str(project_root)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


TENSORS = {
    "floats": torch.arange(6.0).view(2, 3).T,
    "double": torch.tensor(1 / 3, dtype=torch.float64),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "complex": torch.tensor([1 + 2j, -3j]),
    "complex double": torch.tensor([[1 / 3 + 2j]], dtype=torch.complex128),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "integers": torch.tensor([-1, 2**62]),
    "truth": torch.tensor([True, False]),
    "empty": torch.zeros(0, 3),
}


def test_every_tensor_comes_back(tmp_path: Path) -> None:
    write_model(tmp_path / "m", TENSORS, {"text": "π", "numbers": [1, 0.1, None, True]})
    tensors, metadata = read_model(tmp_path / "m")
    assert metadata == {"text": "π", "numbers": [1, 0.1, None, True], "tnml": tnml.__version__}
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name


def test_a_file_says_which_tnml_wrote_it(tmp_path: Path) -> None:
    """Also one whose metadata were read from an older file."""
    write_model(tmp_path / "m", {}, {"tnml": "0.0.1", "kind": "layer"})
    assert read_model(tmp_path / "m")[1] == {"tnml": tnml.__version__, "kind": "layer"}


def test_parameters_are_stored_without_their_history(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    write_model(tmp_path / "m", {"w": weight}, {})
    assert not read_model(tmp_path / "m")[0]["w"].requires_grad


def test_changed_tensors_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_model(path, {"w": torch.arange(100.0)}, {"kind": "layer"})
    content = bytearray(path.read_bytes())
    content[-7] ^= 16
    path.write_bytes(content)
    assert not torch.equal(load_file(path)["w"], torch.arange(100.0)), "safetensors itself sees nothing"
    with pytest.raises(InputError, match="damaged: its tensors are not those that were saved"):
        read_model(path)


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "m", metadata={"tnml": '{"kind": "layer"}'})
    assert read_model(tmp_path / "m")[1] == {"kind": "layer"}


@pytest.mark.parametrize(
    "header",
    [
        {"tnml": "{"},
        {"tnml": "{}", "tnml.complex": "["},
        {"tnml": "{}", "tnml.complex": '["v"]'},
        {"tnml": "[1]"},
    ],
    ids=str,
)
def test_a_damaged_header(header: dict[str, str], tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "m", metadata=header)
    with pytest.raises(InputError):
        read_model(tmp_path / "m")
