"""The benchmark of training on a file in its smallest form: no time and no memory is judged."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import streams


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_smoke(tmp_path: Path, dtype: str) -> None:
    out, folder = tmp_path / "streams.json", tmp_path / "folder"
    folder.mkdir()
    words = ["--smoke", "--dtype", dtype, "--folder", str(folder), "--steps", "5", "--out", str(out)]
    assert program.main(["streams", *words]) == 0
    result = json.loads(out.read_text())
    assert [row["source"] for row in result["rows"]] == ["file", "file", "memory"]
    assert {row["steps"] for row in result["rows"]} == {4}
    assert result["file"]["gigabytes"] == pytest.approx(0.004, rel=0.01)
    assert list(folder.iterdir()) == []
    console = Console(file=io.StringIO(), width=160)
    streams.show(result, console)
    assert "gigabytes grown" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    out = tmp_path / "streams.json"
    assert program.main(["streams", "--gigabytes", "1e9", "--out", str(out)]) == 1
    assert "the file needs 1e+09 GB" in json.loads(out.read_text())["errors"][0]
