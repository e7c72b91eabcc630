"""An equation of your own: functions of batches, one record, and a file that stores the solution.

Here particles are pulled towards the origin, dX = -X dt + sqrt(2) dW, and pay a tax on their value:

    u_t + Laplace(u) - x . Du = r u + c u^3,    u(1, x) = |x|^2 / d

python examples/pde_own.py
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from tnml.pde import Problem, Solution, SolveOptions, solve

RATE, CUBE, DIM = 0.1, 0.2, 10


def to_origin(t: Tensor, x: Tensor) -> Tensor:
    """The drift `[m, d]`."""
    return -x


def tax(t: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The driver `[m, 1]`: what the right side of the equation adds."""
    return RATE * y + CUBE * y**3


def mean_square(x: Tensor) -> Tensor:
    """The terminal value `[m, 1]`."""
    return x.square().mean(1, keepdim=True)


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    problem = Problem(
        name="taxed",
        dim=DIM,
        horizon=1.0,
        x0=1.0,
        terminal=mean_square,
        drift=to_origin,
        diffusion=2**0.5,  # a number, a diagonal, a matrix, or a function (t, x, v) -> sigma(t, x) v
        driver_value=tax,
    )
    changes = {"iterations": 60, "time_steps": 10, "paths": 8, "lr": 1e-2} if smoke else {}
    options = SolveOptions(device="cpu", **changes)
    solution = solve(problem, options=options)
    print(f"u(0, x0) = {solution.value:.5f}; without the tax it would be {problem.trivial().value:.5f}")

    x = torch.randn(4, DIM, generator=torch.Generator().manual_seed(0))
    print("u at four points:", solution.u(0.5, x))
    print("|Du| there:", (solution.gradient(0.5, x) ** 2).sum(1) ** 0.5)
    with tempfile.TemporaryDirectory() as folder:
        solution.save(Path(folder) / "taxed.safetensors")
        again = Solution.load(Path(folder) / "taxed.safetensors", problem=problem)
    assert again.value == solution.value
    assert 0 < solution.value < problem.trivial().value


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
