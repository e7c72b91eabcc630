"""More calls of public functions with numbers: training, equations and studies; see `number_cases`."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from number_cases import Case, X, Y, layer, noisy

import tnml
from tnml import pde, training

EQUATION = pde.HeatEquation(dim=2)
DW = pde.increments(8, 4, 2, 0.25, seed=0, step=0)
FRESH = pde.increments(8, 16, 2, 0.25, seed=0, step=0, stream=1).view(8, 4, -1, 2)
PATHS = pde.euler_maruyama(EQUATION, DW, fresh=FRESH)


def trained(train: Callable[..., Any], options: Any, *targets: Any, **numbers: Any) -> Any:
    made = layer()
    train(made, X.double(), *targets, options, **numbers)
    return made


def replicas(**numbers: Any) -> Any:
    options = training.TrainOptions(epochs=2, device="cpu")
    made = [layer(seed=seed) for seed in (0, 1)]
    training.train_replicas(made, X, Y, options, task="classification", x_test=X, y_test=Y, **numbers)
    return made


def equation(make: Callable[..., Any]) -> Callable[..., Any]:
    """What there is of the problem that is made."""

    def call(**numbers: Any) -> Any:
        made = make(**numbers)
        return made.dim, made.horizon, made.x0, made.options, made.g(X[:, : made.dim])

    return call


def hidden(**numbers: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return pde.DeepBSDE(EQUATION, **numbers)


@functools.cache
def solution() -> pde.Solution:
    options = pde.SolveOptions(iterations=2, reports=1, paths=4, time_steps=3, width=4, depth=1, device="cpu")
    return pde.solve(EQUATION, options=options)


def quarter(t: torch.Tensor, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return 0.25 * y


def square(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(1, keepdim=True)


BASKET = {
    "dim": 2, "spot": 1.0, "strike": 1.25, "rate": 0.5, "volatility": 0.25, "correlation": 0.5,
    "horizon": 0.5,
}  # fmt: skip
HESTON = {
    "spot": 1.0, "strike": 1.25, "horizon": 0.5, "rate": 0.25, "v0": 0.25, "kappa": 1.5, "theta": 0.25,
    "xi": 0.5, "rho": -0.5,
}  # fmt: skip

CASES: dict[str, Case] = {
    "Solution.check": Case(
        lambda **n: solution().check(**{"paths": 64, **n}).value,
        {"paths": 64, "seconds": 100.0, "seed": 3, "tolerance": 0.25},
    ),
    # training
    "train_classifier": Case(
        lambda **n: trained(
            training.train_classifier, training.TrainOptions(epochs=1, max_shift=1, device="cpu"), Y, **n
        ),
        {"image_shape": (2, 3)},
    ),
    "sweep_classifier": Case(
        lambda **n: trained(
            training.sweep_classifier, training.SweepOptions(sweeps=1, max_shift=1, device="cpu"), Y, **n
        ),
        {"image_shape": (2, 3)},
    ),
    "truncate_layer": Case(
        lambda **n: training.truncate_layer(layer(noise=0.5), X.double(), **n),
        {"max_bond": 2, "max_error": 0.25, "damping": 0.5, "memory_gb": 0.5},
    ),
    "train_replicas": Case(replicas, {"test_every": 1}),
    "worth_it": Case(lambda **n: training.worth_it(layer(), **n), {"replicas": 3, "batch_size": 5}),
    "evaluate": Case(lambda **n: training.evaluate(layer(), X.double(), Y, **n), {"batch_size": 5}),
    # equations
    "AllenCahn": Case(equation(pde.AllenCahn), {"dim": 3, "horizon": 0.5}),
    "ArithmeticBasketCall": Case(equation(pde.ArithmeticBasketCall), BASKET),
    "BlackScholesBarenblatt": Case(
        equation(pde.BlackScholesBarenblatt), {"dim": 3, "sigma": 0.25, "rate": 0.125, "horizon": 0.5}
    ),
    "GeometricBasketCall": Case(equation(pde.GeometricBasketCall), BASKET),
    "HamiltonJacobiBellman": Case(equation(pde.HamiltonJacobiBellman), {"dim": 3, "horizon": 0.5}),
    "HeatEquation": Case(equation(pde.HeatEquation), {"dim": 3, "sigma": 0.25, "horizon": 0.5}),
    "HestonCall": Case(equation(pde.HestonCall), HESTON),
    "Problem": Case(
        equation(lambda **n: pde.Problem(name="mine", terminal=square, driver=quarter, **n)),
        {"dim": 3, "horizon": 0.5, "x0": 0.25, "diffusion": 1.5, "discount": 0.25},
    ),
    "Problem.step": Case(
        lambda **n: EQUATION.step(torch.zeros(5, 1), X[:5, :2], dw=X[5:10, :2], **n), {"dt": 0.25}
    ),
    "Problem.trivial": Case(EQUATION.trivial, {"samples": 64, "steps": 3, "seed": 5}),
    "monte_carlo": Case(lambda **n: pde.monte_carlo(EQUATION, **n), {"samples": 64, "steps": 3, "seed": 5}),
    "LogNormal": Case(
        lambda **n: equation(
            lambda: pde.Problem(
                name="mine", dim=2, horizon=1.0, x0=1.0, terminal=square, log_normal=pde.LogNormal(**n)
            )
        )(),
        {"rate": 0.25, "factor": 0.5},
    ),
    "Ansatz": Case(noisy(lambda **n: pde.Ansatz("dense", EQUATION, "smoothed", **n)), {"nodes": 6}),
    "DeepBSDE": Case(noisy(hidden), {"steps": 3, "hidden": (4, 5)}),
    "EulerLoss": Case(
        lambda **n: pde.EulerLoss(**n)(EQUATION.exact, EQUATION, PATHS), {"terminal_weight": 0.5, "chunk": 3}
    ),
    "UnbiasedLoss": Case(
        lambda **n: pde.UnbiasedLoss(**n)(EQUATION.exact, EQUATION, PATHS),
        {"group": 2, "groups": 2, "ahead": 1.0, "chunk": 3},
    ),
    "SolveOptions": Case(
        pde.SolveOptions,
        {
            "group": 2,
            "ahead": 0.25,
            "width": 8,
            "depth": 2,
            "rank": 3,
            "paths": 6,
            "time_steps": 5,
            "iterations": 9,
            "max_seconds": 9.5,
            "reports": 3,
            "lr": 0.25,
            "ema_decay": 0.5,
            "clip_norm": 1.5,
            "chunk": 4,
            "seed": 5,
            "devices": 1,
            "checkpoint_seconds": 9.5,
        },
    ),
    "SolveOptions.loop": Case(pde.SolveOptions().loop, {"iterations": 50}),
    "SolveOptions.make_network": Case(noisy(pde.SolveOptions(network="tnn").make_network), {"dim": 3}),
    "increments": Case(
        pde.increments,
        {"m": 4, "n": 3, "d": 2, "dt": 0.25, "seed": 5, "step": 3, "first": 2, "stream": 1},
    ),
    "Paths.part": Case(PATHS.part, {"first": 1, "end": 3}),
    "Paths.points": Case(PATHS.points, {"first": 1, "end": 3}),
    "euler_maruyama": Case(lambda **n: pde.euler_maruyama(EQUATION, DW, **n), {"t0": 0.25}),
    "Solution.relative_error": Case(
        lambda **n: solution().relative_error(**n), {"paths": 8, "sets": 2, "seed": 5}
    ),
    "Solution.along_paths": Case(lambda **n: solution().along_paths(**n), {"paths": 3, "seed": 5}),
    # studies
    "Study.seeded": Case(tnml.study.Study(name="a", runner="m:f", grid={"seed": [0]}).seeded, {"count": 3}),
}
