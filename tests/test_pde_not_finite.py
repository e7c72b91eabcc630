"""Functions that are not finite somewhere: named before training, or when it breaks off, and only there."""

import pytest
import torch

from tnml.errors import InputError
from tnml.pde import EulerLoss, GeometricBasketCall, Paths, Problem, SolveOptions, solve
from tnml.pde.path_checks import check_functions
from tnml.training import TrainingDiverged

SMALL = {"iterations": 60, "reports": 3, "paths": 8, "time_steps": 8, "width": 8, "device": "cpu"}
COUPLED = {"coupled_drift": lambda t, x, y, z: -0.1 * z}


def square(x):
    return x.square().sum(1, keepdim=True)


def own(**changes):
    given = {"name": "mine", "dim": 3, "horizon": 1.0, "x0": 1.0, "terminal": square, "diffusion": 1.0}
    return Problem(**{**given, **changes})


def late(t, x, *more):
    return torch.where(t > 0.3, torch.nan, 0.0) * x[:, :1]


def far(bound):
    return lambda t, x, *more: torch.where(x[:, :1] > bound, torch.nan, 0.0)


@pytest.mark.parametrize("more", [{}, COUPLED])
def test_a_driver_that_is_nan_late(more):
    with pytest.raises(
        InputError, match=r"the driver is not finite at t = 0\.375 .*correct the problem"
    ) as found:
        solve(own(driver=late, **more), options=SolveOptions(**SMALL))
    assert not isinstance(found.value, TrainingDiverged)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"driver": far(3.0)}, "the driver is"),
        ({"driver": far(2.5), **COUPLED}, "the driver is"),
        ({"coupled_drift": lambda t, x, y, z: far(3.0)(t, x) * x}, "the drift is"),
    ],
)
@pytest.mark.parametrize("steps", [8, 5])
def test_what_the_first_paths_do_not_show_is_named_when_training_breaks_off(changes, what, steps):
    options = SolveOptions(
        **{**SMALL, "time_steps": steps, "paths": 4, "seed": 1, "terminal": "soft"}, loss="euler"
    )
    with pytest.raises(InputError, match=f"{what} not finite at t = .*training diverged in epoch") as found:
        solve(own(**changes), options=options)
    assert isinstance(found.value.__cause__, TrainingDiverged)


@pytest.mark.parametrize("terminal", ["soft", "additive", "smoothed"])
@pytest.mark.parametrize("loss", ["euler", "deep-bsde"])
@pytest.mark.parametrize(
    ("changes", "what", "time"),
    [
        ({"drift": lambda t, x: far(3.0)(t, x) * x}, "the drift", 0.2),
        ({"diffusion": lambda t, x, v: v + far(3.0)(t, x)}, "the diffusion", 0.2),
        ({"driver": far(3.0)}, "the driver", 0.2),
        ({"terminal": lambda x: square(x) + far(9.0)(x, x)}, "terminal", 0.4),
        ({"terminal_gradient": lambda x: 2 * x + far(9.0)(x, x)}, "the gradient of terminal", 0.4),
    ],
)
def test_which_function_where(changes, what, time, loss, terminal):
    """A made path: 1, 4 at t = .2, 10 from t = .4 on; only losses that ask a function are examined for it."""
    if loss == "deep-bsde" and (terminal != "soft" or what.startswith("the gradient")):
        return
    network = {"width": 64} if loss == "deep-bsde" else {"width": 8, "terminal": terminal}
    options = SolveOptions(loss=loss, time_steps=5, **network)
    finite = [1.0, 4.0, 10.0, 10.0, 10.0, 10.0]
    x = torch.tensor(finite)[None, :, None].expand(2, -1, 3).clone()
    if what.startswith(("terminal", "the gradient")):
        time = 0.4 if terminal == "additive" else 1.0
    dw = torch.full((2, 5, 3), 0.1)
    paths = Paths(times=torch.linspace(0, 1, 6), dt=0.2, x=x, dw=dw, sdw=dw)
    model = options.make_model(own(**changes)) if what not in ("the drift", "the diffusion") else None
    if model is None:  # its constants are taken from paths that are finite
        model = options.make_model(own())
        model.problem = own(**changes)
    if what == "the gradient of terminal" and terminal == "smoothed":
        check_functions(model, paths)  # which takes the gradient of the mean over nodes
        return
    with pytest.raises(InputError, match=rf"^{what} is not finite at t = {time:g} on"):
        check_functions(model, paths)


def test_a_terminal_value_that_is_nan_on_some_path():
    with pytest.raises(InputError, match=r"terminal is not finite at t = 1, \|x\| = "):
        solve(own(terminal=lambda x: square(x) + far(3.5)(x, x)), options=SolveOptions(**SMALL))


def test_a_learning_rate_that_is_too_high_stays_to_blame():
    with pytest.raises(TrainingDiverged, match="try a lower lr"):
        solve(own(), options=SolveOptions(**SMALL, lr=1e30))


def test_a_driver_is_not_asked_at_the_horizon():
    problem = own(driver=lambda t, x, y, z: y / (1 - t).sqrt())
    assert solve(problem, options=SolveOptions(**{**SMALL, "iterations": 3})).iterations == 3


def test_a_driver_is_asked_with_the_u_of_the_model():
    """The terminal value of an option is zero at most points, u is not."""
    call = GeometricBasketCall(2)
    problem = own(
        dim=2,
        x0=[130.0, 130.0],
        terminal=lambda x: call.terminal(x) + 0.0,
        diffusion=lambda t, x, v: 0.5 * x * v,
        driver=lambda t, x, y, z: y.abs() * y.abs().log(),
    )
    options = SolveOptions(**{**SMALL, "iterations": 3}, terminal="soft", loss="euler")
    x = torch.full((2, 2), 60.0)
    assert bool(problem.phi(x[:, :1], x, problem.g(x), x).isnan().all())
    assert torch.isfinite(torch.tensor(solve(problem, options=options).value))


def test_deep_bsde_is_examined_too():
    options = SolveOptions(**{**SMALL, "width": 64}, loss="deep-bsde")
    with pytest.raises(InputError, match=r"the driver is not finite at t = 0\.375"):
        solve(own(driver=late), options=options)


def test_a_loss_of_ones_own_that_is_nan_is_not_blamed_on_the_problem():
    def loss(u, problem, paths):
        return EulerLoss()(u, problem, paths) * torch.nan

    with pytest.raises(TrainingDiverged):
        solve(own(), loss=loss, options=SolveOptions(**{**SMALL, "iterations": 3}))
