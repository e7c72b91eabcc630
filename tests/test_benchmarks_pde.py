"""The benchmark of equations in its smallest form: both forms of the loss agree, no time is judged."""

import io
import itertools
import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import pde, pde_speed
from benchmarks.pde_bias import Bias, euler_bias
from tnml.nn import TNN
from tnml.pde import (
    Ansatz,
    ArithmeticBasketCall,
    BlackScholesBarenblatt,
    EulerLoss,
    GeometricBasketCall,
    HamiltonJacobiBellman,
    HestonCall,
    Problem,
    euler_maruyama,
    increments,
    preset,
)


@pytest.mark.parametrize("make", [BlackScholesBarenblatt, HamiltonJacobiBellman])
def test_the_sequential_form_is_the_loss(make) -> None:
    problem = make(3)
    torch.manual_seed(0)
    u = Ansatz(TNN([4, 6, 6, 1], rank=None).double(), problem, "soft", scaling="none")
    dw = increments(5, 4, 3, 0.25, seed=0, step=0, dtype=torch.float64)
    found = []
    for value in (
        pde_speed.sequential_loss(u, problem, dw),
        pde_speed.sequential_loss(u, problem, dw, published=True),
        EulerLoss(reduction="sum")(u, problem, euler_maruyama(problem, dw, steps="euler")),
    ):
        u.zero_grad()
        value.backward()
        found.append((value.item(), torch.cat([p.grad.reshape(-1) for p in u.parameters()])))
    for value, gradient in found[1:]:
        assert value == pytest.approx(found[0][0], rel=1e-12)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [50, 100])
def test_the_bias_of_euler_steps_is_the_known_one(steps: int) -> None:
    problem = BlackScholesBarenblatt(7)
    h = problem.horizon / steps
    known = ((1 + 0.4**2 * h) / (1 - 0.05 * h)) ** steps / math.exp(0.05 + 0.4**2) - 1
    bias = euler_bias(problem, steps, h, most=8)
    assert bias is not None
    assert bias.value == pytest.approx(known, rel=0.04)  # to first order, without the discount
    assert 0 < bias.error < 0.03 * abs(bias.value)
    assert bias.clear == bias.value


def test_a_bias_is_known_only_with_a_solution_along_free_paths() -> None:
    assert euler_bias(HestonCall(), 5, 0.2) is None
    assert euler_bias(ArithmeticBasketCall(3), 5, 0.2) is None


def test_the_error_of_a_bias_is_the_spread_over_seeds() -> None:
    problem = GeometricBasketCall(2)
    found = [euler_bias(problem, 10, 0.01, most=8, seed=seed) for seed in range(12)]
    values, errors = zip(*(bias for bias in found if bias is not None), strict=True)
    assert statistics.stdev(values) == pytest.approx(statistics.fmean(errors), rel=0.6)
    clear = [bias.clear for bias in found if bias is not None]
    assert clear == [v if abs(v) >= 2 * e else None for v, e in zip(values, errors, strict=True)]
    assert None in clear


def test_a_bias_below_its_noise_is_stored_as_its_error_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([Bias(-1e-4, 9e-5), Bias(-1e-4, 1e-5)])
    lengths = []

    def sampled(case: Problem, time_steps: int, step: float, **size: int) -> Bias:
        lengths.append(step)
        return next(given)

    monkeypatch.setattr(pde, "euler_bias", sampled)
    case = BlackScholesBarenblatt(3)
    found = pde.biases(case, preset(case, time_steps=20, ahead=0.5))
    assert lengths == pytest.approx([0.05, 0.025])
    assert found == {
        "euler_bias": None,
        "euler_bias_error": 9e-5,
        "bias_ahead": -1e-4,
        "bias_ahead_error": 1e-5,
    }


def test_stored_biases_stand_out_from_their_errors(project_root: Path) -> None:
    result = json.loads((project_root / "benchmarks" / "results" / "pde.json").read_text())
    for row, name in itertools.product(result["accuracy"]["rows"], ("euler_bias", "bias_ahead")):
        value, error = row[name], row[f"{name}_error"]
        assert value is None or abs(value) >= 2 * error
        assert (error is None) == (row["problem"] in ("heston", "arithmetic-basket"))


def test_time_to_an_error() -> None:
    history = [{"seconds": 2.0, "path_error": 0.1}, {"seconds": 3.0, "path_error": 0.01}]
    assert pde.seconds_to(history, 0.05) == 5.0
    assert pde.seconds_to(history, 1e-3) is None


@pytest.mark.slow
def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pde.json"
    assert program.main(["pde", "--smoke", "--out", str(out), "--figures", str(tmp_path)]) == 0
    result = json.loads(out.read_text())
    assert [part for part in pde.PARTS if result[part]["rows"]] == list(pde.PARTS)
    assert all(row["loss_off"] < 1e-5 for row in result["speed"]["rows"])
    assert {path.name for path in tmp_path.glob("*.png")} == {"pde_d.png", "pde_N.png", "pde_tnn.png"}
    console = Console(file=io.StringIO(), width=160)
    result["bars"] = pde.judge(result)
    pde.show(result, console)
    assert {bar["what"].split(",")[0] for bar in result["bars"]} >= {"bsb loss off", "bsb 3 path_mean"}
    assert "unknown parts" not in capsys.readouterr().err


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown parts spede"):
        program.main(["pde", "--smoke", "--parts", "spede"])
