"""The benchmarks of the sweeps in their smallest form; no time is judged."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import dmrg, double_descent


@pytest.mark.slow
def test_dmrg_smoke(tmp_path: Path) -> None:
    out = tmp_path / "dmrg.json"
    assert program.main(["dmrg", "--smoke", "--seeds", "0,1", "--out", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    assert {(row["label"], row["axis"]) for row in result["rows"]} == {
        (label, axis) for label in ("stays", "travels") for axis in ("sites", "bond_dim", "samples")
    }
    assert all(0 < row["product_share"] < 1 and row["seconds"]["median"] > 0 for row in result["rows"])
    swept, short, long, again = result["mnist"]
    assert (again["solver"], again["seed"]) == ("dmrg", 1)
    assert swept["solver"] == "dmrg"
    assert swept["test_accuracy"] > 0.5
    assert len(swept["history"]) == 1
    for row in (short, long):
        assert row["solver"] == "adam"
        assert row["parameters"] <= swept["parameters"]


def test_the_exponent_is_that_of_the_two_largest_sizes() -> None:
    rows = [{"sites": n, "seconds": {"median": n**2 + 0.0}} for n in (2, 4, 8)]
    assert dmrg.exponent(rows, "sites") == pytest.approx(2.0)
    assert dmrg.exponent(rows[:1], "sites") is None


def test_the_bars_of_mnist_by_sweeps() -> None:
    row = {"test_accuracy": 0.9861, "seconds": 3601.0, "largest_bond": 60}
    assert [bar["passed"] for bar in dmrg.bars(row)] == [True, False, True]


def test_double_descent_smoke(tmp_path: Path) -> None:
    out = tmp_path / "double_descent.json"
    assert program.main(["double_descent", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    assert [row["bond_dim"] for row in result["rows"]] == [2, 4]
    assert result["rows"][1]["largest_core"] == 2 * 4**2
    assert result["rows"][1]["train_mse"] < result["rows"][0]["train_mse"]


def test_the_shape_of_double_descent_is_judged() -> None:
    medians = dict.fromkeys(double_descent.BONDS, 1.0)
    good = {**medians, 4: 0.1, 12: 50.0}
    assert [bar["passed"] for bar in double_descent.bars(good)] == [True, True, True]
    assert [bar["passed"] for bar in double_descent.bars({**good, 3: 0.05, 16: 6.0})] == [False, True, False]
