"""Folders of studies as tests need them: rows from plain formulas, no training."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tnml.study import Study, run_id


def store(folder: Path, options: Mapping[str, Any], result: Mapping[str, Any]) -> Path:
    """One finished run as a study leaves it."""
    home = folder / "runs" / run_id(options)
    home.mkdir(parents=True)
    (home / "options.json").write_text(json.dumps(options), encoding="utf-8")
    (home / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return home


def describe(folder: Path, study: Study) -> None:
    (folder / "study.json").write_text(json.dumps(study.record()), encoding="utf-8")


def chain_counts(n_sites: int, d: int, bond_dim: int) -> dict[str, int]:
    """Parameters of a chain whose bonds are as large as its ends allow."""
    bonds = [min(bond_dim, d**i, d ** (n_sites - i)) for i in range(n_sites + 1)]
    cores = [left * d * right for left, right in pairwise(bonds)]
    free = sum(cores) - sum(bond**2 for bond in bonds[1:-1])
    return {"n_parameters": sum(cores), "gauge_free_parameters": free, "largest_core": max(cores)}


def errors(bond_dim: int, *, best: int, peak: float, noise: float, seed: int) -> tuple[float, float]:
    """A train error that falls to 0 where the largest core passes `peak`, a test error that peaks there."""
    block = 2 * bond_dim**2 / peak
    wobble = 1 + 0.25 * math.sin(7 * seed + bond_dim)
    train = 0.0 if block > 1.2 else wobble * (noise**2 + (bond_dim < best) / bond_dim) * (1.2 - block)
    test = wobble * (0.02 + noise**2 + (bond_dim < best) * 1.5 / bond_dim)
    spike = (0.02 + 3 * noise) * math.exp(-6 * math.log(block) ** 2 / 2) + (0.3 if block > 1 else 0.0)
    return train, test + wobble * spike * 8


def example_study(folder: Path, *, seeds: int = 3, **values: list[Any]) -> Path:
    """Targets, solvers, sizes and noises with histories; one run more has failed and one is still to come.

    Args:
        folder: where to.
        seeds: how many.
        values: of the grid, where others are wanted.
    """
    grid: dict[str, list[Any]] = {
        "target": ["mps", "tanh"],
        "solver": ["als", "adam"],
        "n_train": [100, 300, 1000],
        "noise": [0.0, 0.1, 0.3],
        "bond_dim": [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32],
        "seed": list(range(seeds)),
        **values,
    }
    study = Study(
        name="example-study",
        about="Errors from plain formulas, to look at the page; nothing was trained.",
        runner="nobody:run",
        grid=grid,
        fixed={"n_sites": 10},
    )
    for options in study.options():
        store(folder, options, example_result(options))
    more = [{"bond_dim": 48}, {"bond_dim": 64}]
    study = replace(study, runs=more)
    describe(folder, study)
    home = folder / "runs" / run_id({**more[0], "n_sites": 10})
    home.mkdir()
    (home / "error.txt").write_text(
        "--- failure 1 ---\nTraceback\nMemoryError: <too> large\n", encoding="utf-8"
    )
    return folder


def example_result(options: Mapping[str, Any]) -> dict[str, Any]:
    sweeps = options["solver"] == "als"
    train, test = errors(
        options["bond_dim"],
        best=4 if options["target"] == "mps" else 2,
        peak=options["n_train"] * (1 if sweeps else 0.4),
        noise=options["noise"],
        seed=options["seed"],
    )
    history = [
        {
            "sweep" if sweeps else "epoch": step,
            "train_error": train + (1.5 - train) * math.exp(-step / 4),
            "test_error": test + (1.5 - test) * math.exp(-step / 5) * (1 + 0.1 * options["seed"]),
            "norm": 1 + 0.1 * step,
        }
        for step in range(1, 31)
    ]
    result: dict[str, Any] = {
        "train_error": train,
        "test_error": test,
        "error_name": "MSE",
        **chain_counts(10, 2, options["bond_dim"]),
        "seconds": 1.5,
        "history": history,
    }
    if options["target"] == "mps":
        result["teacher_bond"] = 4
    if not sweeps:
        result["memorised"] = 1 - math.exp(-options["bond_dim"] / 20)
        result["zeta"] = 1e-3 * options["bond_dim"] ** 2
    return result
