"""The benchmark of small tables in its smallest form: equal answers, no time is judged."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import small


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning")
def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "small.json"
    assert program.main(["small", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    assert (row["set"], row["same_bits"], row["epochs"], row["steps"]) == ("iris", True, 2, 10)
    assert set(row["seconds"]) == {"native", "autograd", "long", "HistGradientBoosting", "MLP"}
    assert row["difference"] < small.CLOSE
    console = Console(file=io.StringIO(), width=200)
    small.show(result, console)
    assert "loading the engine" in console.file.getvalue()  # type: ignore[attr-defined]


def test_bars() -> None:
    row = {"set": "iris", "steps": 1000, "seconds": {"native": {"cpu": {"median": 0.28}}}}
    found = small.bars({"rows": [row], "loading": {"cpu": {"median": 0.9}}})
    assert [bar["passed"] for bar in found] == [False, True, False]
