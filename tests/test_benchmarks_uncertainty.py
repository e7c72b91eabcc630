"""The benchmarks of uncertainty and of missing pixels in their smallest form: records, masks and bars."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import missing, uncertainty
from tnml.nn import MPSLayer


def test_uncertainty_smoke(tmp_path: Path) -> None:
    out = tmp_path / "uncertainty.json"
    assert program.main(["uncertainty", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert [(row["networks"], row["seed"]) for row in result["rows"]] == [(1, 0), (5, 0)]
    for row in result["rows"]:
        assert row["accuracy"] > 0.2
        assert 0.7 < row["coverage"] <= row["coverage_filled"] <= 1
        assert row["test"] == 451
    assert result["rows"][0]["epistemic_wrong"] == 0, "one network agrees with itself"
    assert result["rows"][1]["epistemic_wrong"] > 0
    assert result["bars"] == []
    with pytest.raises(SystemExit, match="choose from: digits"):
        program.main(["uncertainty", "--smoke", "--sets", "mnist"])


def test_the_bar_is_for_samples_like_the_held_out_ones() -> None:
    entry = {"networks": 1, "coverage": {"mean": 0.9101}}
    found = uncertainty.bars([{**entry, "set": name} for name in ("mnist", uncertainty.OTHER_WRITERS)])
    assert [bar["passed"] for bar in found] == [False]


def test_missing_smoke(tmp_path: Path) -> None:
    out, figure = tmp_path / "missing.json", tmp_path / "missing.png"
    assert program.main(["missing", "--smoke", "--out", str(out), "--figure", str(figure)]) == 0
    result = json.loads(out.read_text())
    ways = {(row["features"], row["way"]) for row in result["rows"]}
    assert ("quadratic", "averaged") in ways
    assert ("linear", "averaged") not in ways, "the mean pixel again"
    whole = [
        row["accuracy"] for row in result["rows"] if row["mask"] == 0 and row["way"] in ("mean", "black")
    ]
    assert len(whole) == 4  # two ways, two maps
    assert whole[0] == whole[1], "nothing is missing"
    assert figure.stat().st_size > 1000
    console = Console(file=io.StringIO(), width=200)
    missing.show(result, console)
    assert "averaged over exactly" in console.file.getvalue()  # type: ignore[attr-defined]


def test_masks_and_what_stands_in_their_place() -> None:
    gone = missing.missing(missing.QUADRANT, 50, (4, 6), 0).view(50, 4, 6)
    assert set(gone.flatten(1).sum(1).tolist()) == {6}
    corners = gone[:, [0, 0, 3, 3], [0, 5, 0, 5]]
    assert corners.sum(1).tolist() == [1] * 50
    assert corners.any(0).all()
    some = missing.missing(0.3, 400, (5, 5), 1)
    assert abs(some.double().mean() - 0.3) < 0.02
    assert torch.equal(some, missing.missing(0.3, 400, (5, 5), 1))
    layer = MPSLayer(6, 2, order=[2, 0, 1, 5, 4, 3], dtype="float64").eval()
    x, hidden = torch.rand(4, 6).double(), torch.rand(4, 6) < 0.5
    mean = torch.rand(6).double()
    found = missing._outputs(layer, x, hidden, layer.local_features(mean.unsqueeze(0))[0])
    assert torch.allclose(found, layer(torch.where(hidden, mean, x)))
