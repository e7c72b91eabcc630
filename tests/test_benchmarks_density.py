"""The benchmark of densities in its smallest form: right answers, no time is judged."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import density


@pytest.mark.slow
@pytest.mark.usefixtures("data_dir")
def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "density.json"
    assert program.main(["density", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    (row,) = result["speed"]
    assert row["error"] < 1e-5
    assert [row["way"] for row in result["mnist"]] == ["gradient", "sweeps"]
    assert all(40 < row["test"] < 60 for row in result["mnist"])
    console = Console(file=io.StringIO(), width=200)
    density.show(result, console)
    assert "independent pixels" in console.file.getvalue()  # type: ignore[attr-defined]


def test_bars_and_the_baseline() -> None:
    rows = [
        {"size": {"sites": 100, "bond": 32}, "seconds": {"tnml": {"min": 9e-3}}, "share_of_peak": 0.1},
        {"size": {"sites": 784, "bond": 50}, "seconds": {"tnml": {"min": 1.0}}, "share_of_peak": 0.5},
    ]
    assert [bar["passed"] for bar in density.bars(rows)] == [False, True]
    x = torch.tensor([[1.0, 0.0]] * 9)
    assert density.independent(x, x) == pytest.approx(-2 * torch.tensor(0.95).log().item())
