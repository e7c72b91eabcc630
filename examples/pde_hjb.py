"""The Hamilton-Jacobi-Bellman equation in 100 dimensions, solved by a dense and by a tensor-train network.

The trivial answer is already close, so look at the errors along paths and at the terminal value alone.

python examples/pde_hjb.py
"""

import sys

from tnml.pde import HamiltonJacobiBellman, preset, solve


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    problem = HamiltonJacobiBellman(dim=5 if smoke else 100)
    changes = {"iterations": 60, "time_steps": 10, "paths": 8, "lr": 1e-2} if smoke else {}
    for network in ("dense", "tnn"):
        options = preset(problem, network=network, device="cpu", **changes)
        solution = solve(problem, options=options)
        errors = solution.relative_error()
        print(
            f"{network:<6} {solution.n_parameters:>6} parameters  {solution.seconds:5.1f} s  "
            f"u(0, x0) = {solution.value:.6f}, truth {solution.true_value.value:.6f}  "
            f"error along paths {100 * errors.path_mean:.3g} %"
        )
    print(f"the smoothed terminal value alone: {100 * errors.terminal_mean:.3g} % along paths")
    print(f"the trivial answer: {100 * errors.trivial:.3g} % at (0, x0)")
    assert errors.path_mean < errors.terminal_mean


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
