"""Losses given to `solve` as objects, and options that a loss has no use for."""

import numpy as np
import pytest
from torch import nn

from tnml.errors import InputError
from tnml.pde import (
    BlackScholesBarenblatt,
    DeepBSDE,
    DeepBSDELoss,
    EulerLoss,
    HamiltonJacobiBellman,
    HestonCall,
    Problem,
    Solution,
    SolveOptions,
    UnbiasedLoss,
    preset,
    solve,
)
from tnml.pde.losses.named import loss_of
from tnml.pde.paths.noise import sign_design
from tnml.pde.training_paths import LossOnPaths

SMALL = {"iterations": 3, "reports": 1, "paths": 4, "time_steps": 4, "width": 8, "device": "cpu"}


def ends(u, problem, paths):
    """A loss of one's own: the terminal value."""
    t, x = paths.points(paths.steps, paths.steps + 1)
    return (u(t, x) - problem.g(x)).square().mean()


def square(x):
    return x.square().sum(1, keepdim=True)


def own(**changes):
    given = {"name": "mine", "dim": 2, "horizon": 1.0, "x0": 1.0, "terminal": square, "diffusion": 1.0}
    return Problem(**{**given, **changes})


@pytest.mark.parametrize(
    ("loss", "terminal", "stored", "said"),
    [
        (EulerLoss(), "soft", "euler", "euler"),
        (EulerLoss(terminal_weight=3.0), "auto", "euler", "euler"),
        (UnbiasedLoss(), "auto", "unbiased", "unbiased"),
        (ends, "soft", "auto", "own"),
        (ends, "auto", "auto", "own"),
    ],
)
def test_an_object_says_which_loss_it_is(loss, terminal, stored, said, tmp_path):
    """Beside the options, whose loss is another."""
    problem = HamiltonJacobiBellman(2)
    solution = solve(problem, loss=loss, options=SolveOptions(**SMALL, terminal=terminal))
    assert (solution.options.loss, solution.loss) == (stored, said)
    assert solution.options.terminal == ("smoothed" if terminal == "auto" else terminal)
    solution.save(tmp_path / "m")
    again = Solution.load(tmp_path / "m")
    assert (again.value, again.loss, again.options) == (solution.value, said, solution.options)


def test_names_are_kept_too():
    problem = HamiltonJacobiBellman(2)
    assert solve(problem, loss="auto", options=SolveOptions(**SMALL)).loss == "unbiased"
    assert solve(problem, options=SolveOptions(**SMALL, loss="euler")).loss == "euler"


def test_unbiased_never_goes_with_a_soft_condition():
    options = SolveOptions(**SMALL, loss="euler", terminal="soft")
    with pytest.raises(InputError, match="does not look at the horizon"):
        solve(HamiltonJacobiBellman(2), loss=UnbiasedLoss(), options=options)


def test_the_object_decides_what_is_trained():
    options = SolveOptions(**{**SMALL, "width": 64})
    solution = solve(HamiltonJacobiBellman(2), loss=DeepBSDELoss(), options=options)
    assert isinstance(solution.model, DeepBSDE)
    assert solution.options.loss == solution.loss == "deep-bsde"


def test_a_coupled_drift_moves_into_the_driver_but_for_euler_steps():
    problem = Problem(
        name="mine",
        dim=2,
        horizon=1.0,
        x0=1.0,
        terminal=square,
        diffusion=1.0,
        coupled_drift=lambda t, x, y, z: z,
    )
    for loss, coupled, terminal in (
        (UnbiasedLoss(), False, "smoothed"),
        (EulerLoss(), True, "soft"),
        (None, False, "smoothed"),
    ):
        solution = solve(problem, loss=loss, options=SolveOptions(**SMALL))
        assert (solution.model.problem.coupled, solution.options.terminal) == (coupled, terminal)
        assert solution.problem is problem
        assert np.isfinite(solution.check(paths=16).value)


def test_the_design_is_for_one_group():
    """Heston's recipe draws a design; two groups need noise, and their own number of it."""
    problem = HestonCall()
    options = preset(problem, **SMALL).settled(problem)
    assert np.isfinite(solve(problem, loss=UnbiasedLoss(), options=options).value)
    design = sign_design(2).double() * (problem.horizon / 4) ** 0.5
    one, two = (LossOnPaths(problem, options, loss).paths_of_step(0, 0, 4).fresh for loss in
                (loss_of(options, 2), UnbiasedLoss(group=5)))  # fmt: skip
    assert one.shape == (4, 4, 4, 2)
    assert two.shape == (4, 4, 10, 2)
    products = one[..., 0] * one[..., 1] / (design[:, 0] * design[:, 1])
    assert bool((products.std(2) < 1e-12).all())  # the design with the signs of one vector
    with pytest.raises(InputError, match=r"needs paths\.fresh"):
        solve(problem, loss=UnbiasedLoss(groups=1, group=3), options=options)


@pytest.mark.parametrize("loss", [3, EulerLoss, ["euler"]])
def test_no_loss(loss):
    with pytest.raises(
        InputError, match=r"loss must be a name .* or a function loss\(ansatz, problem, paths\)"
    ):
        solve(HamiltonJacobiBellman(2), loss=loss, options=SolveOptions(**SMALL))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("terminal", "multiplicative"), ("network", "tnn"), ("width", 16), ("depth", 2), ("rank", 2)],
        *[("activation", "tanh"), ("first", "dense")],
    ],
)
def test_options_that_deep_bsde_has_no_use_for(name, value):
    options = SolveOptions(**{"iterations": 3, "device": "cpu", "loss": "deep-bsde", name: value})
    with pytest.raises(InputError, match=f"{name}='?{value}'? has no meaning for the loss 'deep-bsde'"):
        solve(HamiltonJacobiBellman(2), options=options)


def test_a_recipe_leaves_deep_bsde_alone():
    assert preset("bsb").terminal == "multiplicative"
    assert preset("bsb", loss="deep-bsde").terminal == "auto"
    options = preset("bsb", loss="deep-bsde", **{**SMALL, "width": 64})
    assert isinstance(solve(BlackScholesBarenblatt(2), options=options).model, DeepBSDE)
    with pytest.raises(InputError, match="network='tnn' has no meaning"):
        solve(BlackScholesBarenblatt(2), "tnn", options=options)
    with pytest.raises(InputError, match="makes its own networks"):
        solve(BlackScholesBarenblatt(2), nn.Linear(3, 1), options=options)


def test_a_recipe_is_for_the_named_problem_only():
    assert preset(own(name="bsb")) == SolveOptions()
    assert preset(BlackScholesBarenblatt(2)) == preset("bsb") != SolveOptions()
