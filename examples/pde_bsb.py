"""The Black-Scholes-Barenblatt equation in 100 dimensions: two minutes on one thread, .005 % off.

python examples/pde_bsb.py
"""

import sys

import torch

from tnml.pde import BlackScholesBarenblatt, preset, solve
from tnml.training import ProgressReporter


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    problem = BlackScholesBarenblatt(dim=5 if smoke else 100)
    changes = {"iterations": 60, "time_steps": 10, "paths": 8, "lr": 1e-2} if smoke else {}
    options = preset(problem, device="cpu", **changes)
    solution = solve(problem, options=options, reporter=ProgressReporter())

    errors = solution.relative_error()
    for name, value in solution.summary(errors):
        print(f"{name:<34} {value}")

    x = torch.rand(3, problem.dim)
    truth = problem.exact(torch.full((3, 1), 0.5), x)[:, 0]
    print("u(t=0.5) at three points:", solution.u(0.5, x), "truth:", truth.numpy())
    print("its gradient there:", solution.gradient(0.5, x).shape)
    assert errors.path_mean < (0.05 if smoke else 0.002)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
