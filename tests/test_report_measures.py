"""The report shows the numbers that are there: also those whose names tnml has never heard of."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_cases import describe, store

from tnml import report
from tnml.report.study_curves import curves_of, measures_of
from tnml.report.study_html import page_data
from tnml.report.study_rows import read_study
from tnml.study import Study

NODE = shutil.which("node")
BONDS, SEEDS = (2, 4, 8), (0, 1, 2)


def toy_number(options: dict[str, Any]) -> float:
    return -1.5 * options["bond_dim"] + options["seed"]


def study(folder: Path, more: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """A study whose runs return `toy_number` and `more`."""
    stored = Study(name="toys", runner="nobody:run", grid={"bond_dim": list(BONDS), "seed": list(SEEDS)})
    for options in stored.options():
        store(folder, options, {"toy_number": toy_number(options), **more(options)})
    describe(folder, stored)
    return folder


def figures_of(folder: Path) -> dict[str, list[str]]:
    """Names and columns of the figures beside those of errors and gap."""
    data = page_data(read_study(folder), folder)
    return {figure["name"]: [column for column, _ in figure["lines"]] for figure in data["extra"]}


def test_an_unknown_number_is_a_curve_a_figure_and_a_column(tmp_path: Path) -> None:
    study(tmp_path, lambda options: {"test_error": 1 / options["bond_dim"]})
    (curve,) = curves_of(read_study(tmp_path).runs)
    values = np.array([[toy_number({"bond_dim": b, "seed": s}) for s in SEEDS] for b in BONDS])
    expected = (np.median(values, 1), values.min(1), values.max(1))
    np.testing.assert_allclose(curve.spreads["toy_number"], expected, rtol=1e-12)
    data = page_data(read_study(tmp_path), tmp_path)
    (figure,) = data["extra"]
    lines = [("toy_number", "toy number")]
    assert figure == {"name": "toy_number", "title": "toy number", "lines": lines}
    column = data["columns"].index("toy_number")
    assert [row[column] for row in data["rows"]] == values.ravel().tolist()


def test_known_numbers_keep_their_titles_and_their_order(tmp_path: Path) -> None:
    def more(options: dict[str, Any]) -> dict[str, Any]:
        number = 1.0 + options["bond_dim"]
        known = {"zeta": number, "memorised": 1 / number}
        return {"train_loss": number, **known, "apples": number, "test_loss": number, "test_error": 0.1}

    study(tmp_path, more)
    assert list(figures_of(tmp_path)) == ["memorised", "zeta", "apples", "loss", "toy_number"]
    assert figures_of(tmp_path)["loss"] == ["train_loss", "test_loss"]
    titles = [figure["title"] for figure in page_data(read_study(tmp_path), tmp_path)["extra"]]
    assert titles[:2] == ["wrong labels repeated (share)", "susceptibility to noise"]


def test_what_is_no_measurement_stays_in_the_table(tmp_path: Path) -> None:
    """Equal in all runs, texts, flags, what is not finite, lists, counts of parameters, seeds."""

    def more(options: dict[str, Any]) -> dict[str, Any]:
        bond = options["bond_dim"]
        told = {"same": 3.0, "name": f"x{bond}", "fits": bond > 2, "n_parameters": bond**2, "data_seed": bond}
        return {**told, "lost": float("inf") if bond > 2 else float("nan"), "parts": [bond, 1.0]}

    study(tmp_path, more)
    assert list(figures_of(tmp_path)) == ["toy_number"]
    columns = page_data(read_study(tmp_path), tmp_path)["columns"]
    assert {"same", "name", "fits", "n_parameters", "data_seed", "lost"} <= set(columns)
    names = measures_of(read_study(tmp_path).runs)
    assert len(names) == len(set(names))


@pytest.mark.skipif(NODE is None, reason="needs node to run the page's script and finds none on the PATH")
def test_the_script_draws_it(tmp_path: Path, project_root: Path) -> None:
    pytest.importorskip("plotly", reason="the page needs plotly (extra `report`)")
    study(
        tmp_path,
        lambda options: {
            "test_error": 1 / options["bond_dim"],
            "train_score": options["bond_dim"],
            "test_score": 2 * options["bond_dim"],
            "hits": 10 ** options["bond_dim"],
        },
    )
    program = project_root / "tests" / "programs" / "draw_page.js"
    page = report.study_page(tmp_path)
    done = subprocess.run(
        [str(NODE), program, page], capture_output=True, text=True, check=False, timeout=120
    )
    assert not done.stderr
    drawn = json.loads(done.stdout)
    assert drawn["ready"] == "yes", "the script came to its end"
    assert "part-extra" not in drawn["hidden"]
    assert {"part-gap", "part-curves"} <= set(drawn["hidden"]), "no train error, no histories"
    toy = drawn["figures"]["extra-toy_number"]
    assert toy["title"] == "toy number"
    assert toy["lines"] == [{"name": "toy number", "y": [-1.5 * bond + 1 for bond in BONDS]}]
    low, high = toy["range"]
    assert low < -1.5 * max(BONDS)
    assert high >= -1.5 * min(BONDS) + max(SEEDS), "numbers below 0 are not cut off"
    score = drawn["figures"]["extra-score"]
    pairs = {line["name"]: line["y"] for line in score["lines"]}
    assert pairs == {"train": list(BONDS), "test": [2 * bond for bond in BONDS]}
    low, high = drawn["figures"]["extra-hits"]["range"]
    assert (low < 2, high > 8) == (True, True), "a logarithmic axis, whose range is in powers of ten"
