"""How the command line ends: bad input, the user's Ctrl-C, a closed pipe, and mistakes of our own."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from children import child

from tnml.cli import data, main
from tnml.cli.console import complain, say

Capture = pytest.CaptureFixture[str]


def failing(error: BaseException) -> Callable[[list[str]], int]:
    def run(words: list[str]) -> int:
        raise error

    return run


def test_mistakes_of_our_own_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "run", failing(RuntimeError("a mistake")))
    with pytest.raises(RuntimeError, match="a mistake"):
        main(["data", "list"])
    monkeypatch.setattr(data, "run", failing(OSError("no file in it")))
    with pytest.raises(OSError, match="no file in it"):
        main(["data", "list"])


def test_files_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(data, "run", failing(PermissionError(13, "Permission denied", "a.npz")))
    assert main(["data", "list"]) == 2
    assert capsys.readouterr().err.startswith("error: Permission denied: a.npz; check")


def test_ctrl_c_outside_training(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(data, "run", failing(KeyboardInterrupt()))
    assert main(["data", "list"]) == 130
    assert capsys.readouterr().err == "tnml: interrupted\n"


def test_resume_has_its_own_folder(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "options.yaml").write_text("train: {epochs: 2}\n")
    assert main(["train", "--resume", str(tmp_path), "--out", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err == "error: --resume continues in the folder of the run; leave out --out\n"


def test_other_processes_of_a_group_are_silent(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("RANK", "1")
    say("once is enough")
    complain("lost the data")
    assert capsys.readouterr() == ("", "error (process 1): lost the data\n")


@pytest.mark.skipif(os.name != "posix", reason="pipes of a shell")
def test_a_closed_pipe_is_no_error(project_root: Path) -> None:
    """`tnml data list | true`: nobody reads, nobody complains."""
    with child([sys.executable, "-m", "tnml", "data", "list"], cwd=project_root) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.wait()
    assert process.returncode == 141
