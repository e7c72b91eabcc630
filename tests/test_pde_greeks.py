"""Greeks: derivatives of a solution that is known in closed form."""

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.pde import BlackScholesBarenblatt, HeatEquation, Solution, SolveOptions


def exact_solution():
    """`|x|^2 + d sigma^2 (T - t)`: additive, a network of zeros, and the offset that is needed."""
    problem = HeatEquation(3)
    options = SolveOptions(terminal="additive", width=4, dtype="float64")
    model = options.make_model(problem)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        model.a.fill_(6 / model.scale)
    return Solution(problem=problem, model=model, options=options)


def test_derivatives_are_those_of_the_closed_form():
    solution = exact_solution()
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    v = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(solution.u(0.25, x), (x**2).sum(-1) + 4.5, rtol=1e-12)
    np.testing.assert_allclose(solution.delta(0.25, x), 2 * x, rtol=1e-12)
    np.testing.assert_allclose(solution.gamma(0.25, x), np.full(x.shape, 2.0), rtol=1e-12)
    np.testing.assert_allclose(solution.theta(0.25, x), np.full((2, 4), -6.0), rtol=1e-12)
    np.testing.assert_allclose(
        solution.hessian_product(0.25, x, v), np.broadcast_to(2 * v, x.shape), rtol=1e-12
    )
    with pytest.raises(InputError, match=r"v must be one vector \[3\], got \[2\]"):
        solution.hessian_product(0.25, x, v[:2])
    with pytest.raises(InputError, match="t must lie in"):
        solution.theta(2.0, x)
    with pytest.raises(InputError, match="vega is for problems with log_normal"):
        solution.vega()


def test_second_derivatives_of_a_network_are_those_of_differences():
    problem = HeatEquation(2)
    options = SolveOptions(width=8, dtype="float64")
    solution = Solution(problem=problem, model=options.make_model(problem), options=options)
    x, h = np.array([[0.3, -0.4]]), 1e-4
    steps = np.eye(2) * h
    rows = np.stack(
        [(solution.gradient(0.2, x + e) - solution.gradient(0.2, x - e))[0] / (2 * h) for e in steps]
    )
    np.testing.assert_allclose(solution.hessian_product(0.2, x, [1.0, 2.0])[0], rows.T @ [1, 2], rtol=1e-5)
    np.testing.assert_allclose(solution.gamma(0.2, x)[0], np.diag(rows), rtol=1e-5)
    slope = (solution.u(0.2 + h, x) - solution.u(0.2 - h, x)) / (2 * h)
    np.testing.assert_allclose(solution.theta(0.2, x), slope, rtol=1e-5)


def test_vega_is_that_of_the_closed_form():
    """u = exp((r + s^2) T) |x0|^2, so vega is 2 s T u; an untrained network only leaves more noise."""
    problem = BlackScholesBarenblatt(2)
    options = SolveOptions(terminal="multiplicative", width=8, dtype="float64")
    solution = Solution(problem=problem, model=options.make_model(problem), options=options)
    found = solution.vega(paths=1000, steps=10)
    expected = 0.8 * problem.true_value().value
    assert abs(found.value - expected) < 4 * found.error
    assert found.error < 0.1 * expected
