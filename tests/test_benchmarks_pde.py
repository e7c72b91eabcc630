"""The benchmark of equations in its smallest form: both forms of the loss agree, no time is judged."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import pde, pde_speed
from tnml.nn import TNN
from tnml.pde import (
    Ansatz,
    BlackScholesBarenblatt,
    EulerLoss,
    HamiltonJacobiBellman,
    euler_maruyama,
    increments,
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


def test_the_bias_of_euler_steps_is_the_known_one() -> None:
    problem = BlackScholesBarenblatt(7)
    assert pde.euler_bias(problem, 50) == pytest.approx(-2.30e-4, abs=5e-7)
    assert pde.euler_bias(problem, 100) == pytest.approx(-1.15e-4, abs=5e-7)
    assert pde.euler_bias(HamiltonJacobiBellman(7), 50) is None


def test_time_to_an_error() -> None:
    history = [{"seconds": 2.0, "path_error": 0.1}, {"seconds": 3.0, "path_error": 0.01}]
    assert pde.seconds_to(history, 0.05) == 5.0
    assert pde.seconds_to(history, 1e-3) is None


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
