"""Problems when they are made: functions that mix the batch, contradictions, refusals, arrays, dtypes."""

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.pde import HeatEquation, LogNormal, Problem, SolveOptions, solve
from tnml.pde.identity import fingerprint

SMALL = {"iterations": 2, "reports": 1, "paths": 4, "time_steps": 4, "width": 8, "device": "cpu"}
MATRIX = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)


def square(x):
    return x.square().sum(1, keepdim=True)


def own(**changes):
    given = {"name": "mine", "dim": 2, "horizon": 1.0, "x0": 1.0, "terminal": square, "diffusion": 1.0}
    return Problem(**{**given, **changes})


MIXED = {
    "terminal": ({"terminal": lambda x: square(x) + x.mean()}, "terminal"),
    "terminal_gradient": ({"terminal_gradient": lambda x: 2 * x * len(x) / 3}, "the gradient of terminal"),
    "diffusion": ({"diffusion": lambda t, x, v: v * x.max()}, "diffusion"),
    "drift": ({"drift": lambda t, x: x - x.mean(0)}, "the drift"),
    "driver": ({"driver": lambda t, x, y, z: y - y.mean()}, "driver"),
    "driver_value": ({"driver_value": lambda t, x, y: y / len(y)}, "driver"),
    "driver_direction": ({"driver_direction": lambda t, x: x / x.norm()}, "driver_direction"),
    "random": ({"driver_value": lambda t, x, y: torch.rand_like(y)}, "driver"),
}


@pytest.mark.parametrize("what", MIXED)
def test_functions_that_mix_the_batch_are_found(what):
    changes, name = MIXED[what]
    with pytest.raises(InputError, match=f"{name} gives a point a different value in a batch than alone"):
        own(**changes)


def test_what_is_given_twice_is_compared():
    with pytest.raises(InputError, match="terminal_gradient is not the gradient of terminal"):
        own(terminal_gradient=lambda x: x)
    with pytest.raises(InputError, match=r"exact\(T, x\) is not the terminal value: at T = 1"):
        own(exact=lambda t, x: square(x) + 2 * (2 - t))
    with pytest.raises(InputError, match=r"phi grows by 0\.2 when y grows by 1 at t = 0\.25"):
        own(driver_value=lambda t, x, y: 0.1 * y * (1 + 4 * t), discount=0.1)
    own(exact=lambda t, x: square(x) + 2 * (1 - t), terminal_gradient=lambda x: 2 * x)
    kink = {"terminal": lambda x: (x.sum(1, keepdim=True) - 2).clamp(min=0)}  # at x0 itself
    own(terminal_gradient=lambda x: (x.sum(1, keepdim=True) > 2) * torch.ones_like(x), **kink)
    own(exact=lambda t, x: square(x) / (1 - t), driver_value=lambda t, x, y: y)  # no value at T: not compared


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"jumps": 0.1}, "jumps: paths are continuous"),
        ({"coupled_diffusion": lambda: 0}, "coupled_diffusion: sigma must not depend on the solution"),
        ({"hessian": True}, "hessian: the driver may depend on u and Du, not on D2u"),
        ({"driver": lambda t, x, y, z, h: y}, "driver takes 5 arguments: .* not on D2u"),
        ({"diffusion": lambda t, x, v, y: v}, "diffusion takes 4 arguments: sigma must not"),
        ({"terminal": lambda x: x}, "u has only one, systems of equations are not solved"),
        ({"teminal": square}, "unknown argument of Problem 'teminal'; did you mean 'terminal'"),
    ],
)
def test_what_is_not_solved_is_refused_by_name(changes, text):
    with pytest.raises(InputError, match=text):
        own(**changes)


def test_constants_may_be_arrays():
    for given in (np.ones(2), np.eye(2), np.float32(0.5), np.array([1, 2])):
        made = own(diffusion=given, x0=np.array([1.0, 2.0]))
        v = torch.ones(3, 2)
        expected = np.ones((3, 2)) @ given.T if np.ndim(given) == 2 else given * np.ones((3, 2))
        np.testing.assert_allclose(made.sigma(v[:, :1], v, v), expected)
    made = own(diffusion=None, log_normal=LogNormal(np.array([0.1, 0.2]), np.float64(0.3)))
    assert torch.equal(made.log_normal.rate, torch.tensor([0.1, 0.2], dtype=torch.float64))
    with pytest.raises(InputError, match="diffusion must be a number or a tensor"):
        own(diffusion=np.ones(3))


def test_constants_in_double_precision_are_right_in_single():
    changes = {
        "terminal": lambda x: square(x @ MATRIX),
        "drift": lambda t, x: x @ MATRIX,
        "driver_value": lambda t, x, y: y * MATRIX[0, :1],
        "driver_direction": lambda t, x: x @ MATRIX,
    }
    made, x = own(**changes), torch.rand(5, 2)
    t, y = torch.zeros(5, 1), torch.ones(5, 1)
    for found in (made.g(x), made.g_gradient(x), made.mu(t, x), made.phi(t, x, y, x)):
        assert found.dtype == torch.float32
    torch.testing.assert_close(made.g(x).double(), square(x.double() @ MATRIX), rtol=1e-6, atol=1e-7)
    assert solve(made, options=SolveOptions(**SMALL)).iterations == 2
    assert fingerprint(made.terminal) == fingerprint(changes["terminal"]), (
        "stored runs know the function itself"
    )
    assert own().terminal is square


def test_a_digital_payoff_needs_no_gradient():
    for terminal in (lambda x: (x[:, :1] > 1).to(x), lambda x: torch.ones_like(x[:, :1])):
        made = own(terminal=terminal)
        assert not made.g_gradient(torch.rand(4, 2)).any()
        assert solve(made, options=SolveOptions(**SMALL)).iterations == 2


def test_the_starting_point_alone_has_to_be_finite():
    """Points near x0 show what mixes; a border next to x0 is no fault."""
    own(terminal=lambda x: torch.where(x > 1, torch.nan, x).sum(1, keepdim=True))
    assert HeatEquation(3).dim == 3
