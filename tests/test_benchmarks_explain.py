"""The benchmark of explanations in its smallest form: right answers, no time is judged; and its samplers."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import explain, explain_samplers
from benchmarks.explain_samplers import Image, enumerated, integrated_gradients, kernel_shap, permutation_shap
from tnml.nn import MPSLayer


def test_smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (explain, explain_samplers):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    out = tmp_path / "explain.json"
    assert program.main(["explain", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["checks"]["enumerated"] < 1e-10
    assert result["checks"]["gap_16_nodes"] < 1e-9
    assert result["not_installed"] == ["shap"]
    names = {row["name"] for row in result["samplers"]}
    assert {"KernelSHAP, numpy", "permutations, numpy", "integrated gradients from black"} <= names
    assert set(result["curves"]) == {"exact Shapley", "gradients x input", "KernelSHAP", "random"}
    console = Console(file=io.StringIO(), width=200)
    explain.show(result, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "one image, one thread, 10 classes" in shown
    assert "deletion (low is good)" in shown


def test_samplers_come_near_to_all_coalitions() -> None:
    layer = MPSLayer(8, 2, 4, noise=0.5, dtype="float64")
    x, mean = torch.rand(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    game = Image(layer, x, mean, torch.tensor([1.0, -1.0]))
    true = enumerated(game, 8)
    none, every = game.outputs(torch.stack([mean, x]))
    assert np.isclose(true.sum(), every - none)
    np.testing.assert_allclose(integrated_gradients(game, mean), true, atol=1e-12 * np.abs(true).max())
    for sampler in (kernel_shap, permutation_shap):
        few, many = (explain.error_of(sampler(game, number), true) for number in (200, 5_000))
        assert many < 0.05 < 1, sampler
        assert many < few, sampler
        assert np.isclose(sampler(game, 500).sum(), every - none)
    game.evaluations = 0
    kernel_shap(game, 500)
    assert game.evaluations == 500


def test_bars() -> None:
    row = {"name": "KernelSHAP", "evaluations": 10, "times_faster": {"median": 900.0}}
    wall = {"wall": {"median": 0.03}, "cpu": {"median": 0.03}}
    result = {
        "times": {"one_image": wall, "many_images": wall, "many": 1000},
        "checks": {"single_precision": 1e-5},
        "samplers": [row, {**row, "name": "integrated gradients"}],
    }
    assert [bar["passed"] for bar in explain.bars(result)] == [True, False, True, False]
    ours = {1: (0.5, 1.0), 8: (0.01, 4.0)}
    found = explain.compared(np.array([1.0, 0.9]), np.array([1.0, 1.0]), 300.0, 100.0, ours)
    assert found["nodes"] == 8
    assert found["times_faster"] == 25
    assert np.isclose(found["times_faster_extrapolated"], 25 * (0.1 / 2**0.5 / 0.01) ** 2)
