"""The price of a basket call on ten assets, its deltas, and a figure.

python examples/pde_option.py
"""

import sys
from pathlib import Path

from tnml import report
from tnml.pde import GeometricBasketCall, preset, solve


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    problem = GeometricBasketCall(dim=10)
    changes = {"iterations": 40, "time_steps": 10, "paths": 8} if smoke else {}
    options = preset(problem, device="cpu", **changes)
    solution = solve(problem, options=options)
    price, formula = solution.value, solution.true_value.value
    print(f"price {price:.4f}, by the formula {formula:.4f}: off by {100 * abs(price / formula - 1):.2g} %")
    for spot in (80.0, 100.0, 120.0):
        print(f"all assets at {spot:.0f}: {solution.u(0.0, [spot] * 10):8.4f}")
    print("deltas:", solution.gradient(0.0, [100.0] * 10).round(3))
    report.save_figure(report.solution_figure(solution), "basket.png")
    print(f"figure: {Path('basket.png')}")
    assert abs(price / formula - 1) < (0.1 if smoke else 0.01)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
