"""The benchmark of the overfitting studies: what it concludes from rows of a known shape, and a small run."""

import argparse
import math

import pytest
from rich.console import Console

from benchmarks import overfitting

BONDS = (1, 2, 4, 6, 8, 12, 16, 24)


def teacher_rows(peak):
    return [
        {
            "solver": "als",
            "n_train": 128,  # d chi^2 = n_train at chi = 8
            "noise": 0.1,
            "bond_dim": bond,
            "seed": seed,
            "train_error": 0.1,
            "test_error": (10.0 if bond == peak else 0.5 + abs(math.log(bond / 4))) * (1 + 0.1 * seed),
            "seconds": 1.0,
        }
        for bond in BONDS
        for seed in range(3)
    ]


def noise_rows(worst, follows):
    rows = []
    for bond in BONDS:
        for seed in range(3):
            rows.append(
                {
                    "n_train": 100,
                    "noise": 0.3,
                    "bond_dim": bond,
                    "seed": seed,
                    "train_error": 0.3 - 0.01 * bond,
                    "test_error": 0.30 + (worst if bond == 24 else 0.0) + (0.1 if bond < 4 else 0.0),
                    "memorised": 0.4 + 0.01 * bond,
                    "zeta": (1 if follows else -1) * bond / 100,
                    "geometric_complexity": float(bond),
                    "seconds": 1.0,
                }
            )
    return rows


@pytest.mark.parametrize(("peak", "steps"), [(8, 0), (6, 1), (12, 1), (16, 2), (1, 4)])
def test_the_peak_is_compared_with_the_prediction(peak, steps):
    rows = teacher_rows(peak)
    bars = overfitting.judge("overfitting-1d", rows, overfitting.summarised(rows))
    (bar,) = [bar for bar in bars if "peak" in bar["what"]]
    assert bar["measured"] == steps
    assert bar["passed"] == (steps <= 1)
    assert f"peak at {peak}, predicted 8.0" in bar["what"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (teacher_rows(24), "still rising at the end"),
        ([{**row, "largest_core": 100} for row in teacher_rows(8)], "no largest core reaches 128"),
    ],
)
def test_a_peak_without_a_far_side_is_not_judged(rows, said):
    (bar,) = overfitting.judge("overfitting-1d", rows, overfitting.summarised(rows))
    assert said in bar["what"]
    assert "passed" not in bar


def test_medians_over_seeds():
    (cell,) = overfitting.summarised([row for row in teacher_rows(8) if row["bond_dim"] == 4])
    assert cell["test_error"] == pytest.approx(0.55)
    assert (cell["least"], cell["most"], cell["seeds"]) == (0.5, pytest.approx(0.6), 3)


@pytest.mark.parametrize(("worst", "optimum"), [(0.04, True), (0.02, False)])
@pytest.mark.parametrize("follows", [True, False])
def test_label_noise_is_judged(worst, optimum, follows):
    """The test error of these rows is least between the ends."""
    rows = noise_rows(worst, follows)
    bars = overfitting.judge("label-noise", rows, overfitting.summarised(rows))
    lost, complexity, rank = bars
    assert lost["measured"] == pytest.approx(100 * worst)
    assert lost["passed"] == optimum
    assert complexity["measured"] > 0
    assert rank["measured"] == pytest.approx(1 if follows else -1)
    assert rank["passed"] == follows


def test_an_optimum_at_the_smallest_bond_dimension_is_no_inner_one():
    rows = [{**row, "test_error": 0.3 + 0.01 * row["bond_dim"]} for row in noise_rows(0.04, follows=True)]
    lost = overfitting.judge("label-noise", rows, overfitting.summarised(rows))[0]
    assert lost["measured"] > 3
    assert not lost["passed"]


@pytest.mark.slow
def test_smoke(tmp_path):
    parser = argparse.ArgumentParser()
    overfitting.add_arguments(parser)
    options = parser.parse_args(["--studies", "overfitting-1d,label-noise", "--folder", str(tmp_path)])
    options.smoke, options.figures = True, tmp_path / "figures"
    console = Console(file=(tmp_path / "out.txt").open("w"), width=200)
    result = overfitting.measure(options, console)
    overfitting.show(result, console)
    console.file.close()
    assert {name: study["runs"] for name, study in result["studies"].items()} == {
        "overfitting-1d": 8,
        "label-noise": 4,
    }
    assert (tmp_path / "figures" / "overfitting-1d" / "error-als.png").stat().st_size > 1000
    assert "median test error" in (tmp_path / "out.txt").read_text()
