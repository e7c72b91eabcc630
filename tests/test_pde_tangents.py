"""Tangents of drivers and how far they are from them, against differences and numbers worked out by hand."""

import math

import pytest
import torch

from tnml.pde import LogNormal, Problem
from tnml.pde.aposteriori.bounds import distance
from tnml.pde.aposteriori.curvature import Curvature, curvature
from tnml.pde.aposteriori.linearised import tangent, volatility_moved

DOUBLE = torch.float64
LINEAR = Curvature("linear", 0.0, 0.0, None)


def square(x):
    return x.square().sum(1, keepdim=True)


def own(**changes):
    given = {"name": "mine", "dim": 2, "horizon": 1.0, "x0": 1.0, "terminal": square, "diffusion": 1.0}
    return Problem(**{**given, **changes})


def test_the_tangent_is_that_of_differences():
    problem = own(driver=lambda t, x, y, z: y**3 * z.square().sum(1, keepdim=True) + t)
    t, x, y, z = (torch.rand(5, k, dtype=DOUBLE) for k in (1, 2, 1, 2))
    found, h = tangent(problem, t, x, y, z), 1e-6
    step = torch.tensor([[0.0, h]], dtype=DOUBLE)
    by_y = (problem.phi(t, x, y + h, z) - problem.phi(t, x, y - h, z)) / (2 * h)
    by_z = (problem.phi(t, x, y, z + step) - problem.phi(t, x, y, z - step)) / (2 * h)
    torch.testing.assert_close(found.b, by_y, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(found.c[:, 1:], by_z, rtol=1e-7, atol=1e-8)
    assert torch.equal(found.phi, problem.phi(t, x, y, z))


def test_the_shapes_of_drivers():
    points = [
        torch.rand(8, k, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) for k in (1, 2, 1, 2)
    ]

    def near(**changes):
        return curvature(own(**changes), *points, near_y=0.2, near_z=0.2)

    assert near(driver_value=lambda t, x, y: t * y + x[:, :1], driver_direction=lambda t, x: x) == LINEAR
    assert near() == LINEAR
    assert near(driver_value=lambda t, x, y: y**2)[:1] == ("convex",)
    assert near(driver=lambda t, x, y, z: -z.square().sum(1, keepdim=True)).shape == "concave"
    assert near(driver=lambda t, x, y, z: y * z.sum(1, keepdim=True)).shape == "neither"
    assert near(driver_value=lambda t, x, y: y.detach() ** 2).shape != "linear", "hidden from autograd"


def test_the_change_of_slope_at_a_kink_is_in_units_of_the_noise():
    """Two rates: c jumps by `.02 x`, which is `.02 / .2` in each of the two noises."""

    def phi(t, x, y, z):
        e = (x * z).sum(1, keepdim=True)
        return 0.04 * y - 0.02 * (e - y).clamp(min=0)

    problem = own(diffusion=None, log_normal=LogNormal(0.06, 0.2), driver=phi)
    x = torch.tensor([[1.0, 2.0]], dtype=DOUBLE).expand(4, 2)
    y = torch.full((4, 1), 3.0, dtype=DOUBLE)
    found = curvature(problem, 0 * y, x, y, torch.ones_like(x) * 0.999, near_y=0.1, near_z=0.3)
    assert found.shape == "concave"
    assert found.of_z == pytest.approx(0.1 * math.sqrt(2), rel=1e-9)
    assert found.of_y == pytest.approx(0.02, rel=1e-9)


def test_noise_that_does_not_reach_a_direction_gives_no_bound():
    problem = own(
        diffusion=torch.tensor([1.0, 0.0]), driver=lambda t, x, y, z: z.square().sum(1, keepdim=True)
    )
    x = torch.ones(4, 2, dtype=DOUBLE)
    found = curvature(problem, x[:, :1], x, x[:, :1], x, near_y=0.1, near_z=0.1)
    assert found.of_z == math.inf
    assert distance(torch.tensor([1.0, 2.0]), found, 1.0, 0.1) == math.inf


def test_volatilities_move_together():
    factor = torch.tensor([[0.3, 0.4], [0.0, 0.1]], dtype=DOUBLE)
    for given, norms in ((0.2, [0.3]), (torch.tensor([0.1, 0.2]), [0.2, 0.3]), (factor, [0.6, 0.2])):
        made = own(diffusion=None, log_normal=LogNormal(0.0, given))
        moved = torch.as_tensor(volatility_moved(made, 0.1).log_normal.factor, dtype=DOUBLE)
        size = moved.norm(dim=1) if moved.dim() == 2 else moved.flatten()
        assert size.tolist() == pytest.approx(norms)
