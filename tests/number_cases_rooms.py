"""Calls of the newer rooms with numbers: networks, densities, moments, instruments; see `number_cases`."""

import dataclasses
from typing import Any

import numpy as np
import torch
from number_cases import Case, X, Y, layer
from number_cases_runs import EQUATION, PATHS, equation

from tnml import MPSDensity, MPSGenerativeClassifier, diagnostics, explain, pde, training
from tnml import nn as networks
from tnml.training.dmrg.likelihood import USUAL

SITES = {"n_sites": 6, "out_features": 2, "bond_dim": 3, "noise": 0.25, "seed": 3, "shape": (2, 3)}
ORDER = {"order": (3, 1, 2, 0, 5, 4)}
DENSE = {
    "in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2,
}  # fmt: skip
CONV = {**DENSE, "rank": 2, "std": 0.25}
DENSITY = {
    "bond_dim": 2, "hidden": 1, "image_shape": (2, 3), "noise": 0.25, "epochs": 2, "batch_size": 5,
    "lr": 0.125, "sweeps": 2, "max_error": 0.125, "validation_fraction": 0.25, "patience": 2,
    "order": (3, 1, 2, 0, 5, 4),
}  # fmt: skip
BITS = (X > 0.5).long()
GAPS = torch.where(BITS > 0, torch.nan, 0.0).numpy()


def density(**parameters: Any) -> Any:
    given = {"bond_dim": 2, "epochs": 2, "random_state": 0, "image_shape": (2, 3), **parameters}
    return MPSDensity(**given).fit(BITS.numpy()).score_samples(BITS.numpy())


def swept_density(**parameters: Any) -> Any:
    given = {"bond_dim": 2, "sweeps": 1, "random_state": 0, "solver": "dmrg", **parameters}
    return MPSDensity(**given).fit(BITS.numpy()).score_samples(BITS.numpy())


def fitted() -> MPSDensity:
    return MPSDensity(bond_dim=2, epochs=2, random_state=0).fit(BITS.numpy())


def generative(**parameters: Any) -> Any:
    given = {"bond_dim": 2, "epochs": 2, "random_state": 0, "image_shape": (2, 3), **parameters}
    return MPSGenerativeClassifier(**given).fit(BITS.numpy(), Y.numpy()).predict_proba(BITS.numpy())


def drawn(**numbers: Any) -> Any:
    model = MPSGenerativeClassifier(bond_dim=2, epochs=2, random_state=0).fit(BITS.numpy(), Y.numpy())
    return np.nan_to_num(model.sample(**numbers), nan=-1)


def swept_machine(**numbers: Any) -> Any:
    machine = networks.BornMachine(6, 2)
    options = dataclasses.replace(USUAL, sweeps=2, device="cpu", validation=0.25)
    training.sweep_density(machine, BITS, options, **numbers)
    return machine


def square(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (outputs[:, 0] - y).square().mean()


def extremes(**numbers: Any) -> Any:
    found = diagnostics.hessian_extremes(layer(), square, X.double(), Y, **numbers)
    return found.largest, found.smallest, found.ritz


def curve(**numbers: Any) -> Any:
    given = {"sizes": (2, 4), "draws": 1, "steps": 2, **numbers}
    return diagnostics.batch_hessian_curve(layer(), square, X.double(), Y, **given).largest


def automaton(**numbers: Any) -> Any:
    flip = torch.stack([torch.eye(2), torch.eye(2).flip(0)])
    return networks.UniformMPS.from_automaton(torch.tensor([1.0, 0.0]), flip, torch.eye(2), **numbers)


CURVE = diagnostics.BatchCurve(sizes=(2,), largest=(2.0,), smallest=(0.0,), whole=1.0, slope=2.0)

CASES: dict[str, Case] = {
    # networks
    "BlockMPS": Case(
        networks.BlockMPS,
        {**SITES, **ORDER, "head_bond": 3, "channels": 2, "kernel": (2, 1), "site_dropout": 0.25},
    ),
    "DeepMPS": Case(
        networks.DeepMPS,
        {
            **SITES,
            **ORDER,
            "channels": (2, 3),
            "kernel": 1,
            "stride": 1,
            "bond_dropout": 0.25,
            "site_dropout": 0.25,
        },
    ),
    "PatchMPS": Case(
        networks.PatchMPS,
        {
            "kernel": (2, 1),
            "stride": 1,
            "channels": 3,
            "bond_dim": 2,
            "shape": (2, 3),
            "noise": 0.25,
            "bond_dropout": 0.25,
            "seed": 3,
        },
    ),
    "RingMPS": Case(networks.RingMPS, {**SITES, **ORDER, "label_site": 2, "site_dropout": 0.25}),
    "TreeLayer": Case(networks.TreeLayer, {**SITES, **ORDER, "site_dropout": 0.25}),
    "UniformMPS": Case(networks.UniformMPS, {**SITES, **ORDER, "label_site": 2, "site_dropout": 0.25}),
    "UniformMPS, padding": Case(
        lambda **n: networks.UniformMPS(6, 2, features={"name": "one-hot", "dim": 3}, **n), {"padding": 2}
    ),
    "UniformMPS.from_automaton": Case(automaton, {"n_sites": 5}),
    "BornMachine": Case(
        networks.BornMachine,
        {
            "n_sites": 6,
            "bond_dim": 3,
            "classes": 2,
            "hidden": 2,
            "class_site": 1,
            "noise": 0.25,
            "seed": 3,
            "shape": (2, 3),
            **ORDER,
        },
    ),
    **{
        f"{kind.__name__}": Case(lambda kind=kind, **n: seeded(kind, **n), CONV)
        for kind in (networks.TTConv1d, networks.TTConv2d, networks.TTConv3d)
    },
    # densities
    "MPSDensity": Case(density, {k: v for k, v in DENSITY.items() if k not in ("sweeps", "max_error")}),
    "MPSDensity, ": Case(swept_density, {"sweeps": 2, "max_error": 0.125}),
    "MPSDensity, threshold": Case(
        lambda **n: (
            MPSDensity(bond_dim=2, epochs=2, random_state=0, **n).fit(BITS.numpy()).predict(BITS.numpy())
        ),
        {"contamination": 0.25},
    ),
    "MPSDensity.conditional": Case(
        lambda **n: fitted().conditional(BITS.numpy(), **n).density, {"column": 2}
    ),
    "MPSDensity.impute": Case(
        lambda **n: np.nan_to_num(fitted().impute(GAPS, "draw", **n), nan=-1), {"random_state": 3}
    ),
    "MPSDensity.sample": Case(
        lambda **n: np.nan_to_num(fitted().sample(**n), nan=-1), {"n_samples": 4, "random_state": 3}
    ),
    "MPSGenerativeClassifier": Case(
        generative, {k: v for k, v in DENSITY.items() if k not in ("sweeps", "max_error")}
    ),
    "MPSGenerativeClassifier, swept": Case(
        lambda **n: generative(solver="dmrg", **n), {"sweeps": 2, "max_error": 0.125}
    ),
    "MPSGenerativeClassifier.sample": Case(drawn, {"n_samples": 4, "random_state": 3}),
    "sweep_density": Case(swept_machine, {"patience": 2}),
    # explanations
    "moments": Case(
        lambda **n: explain.moments(layer(), X.double(), **n).covariance,
        {"order": 2, "target": (1,), "memory_gb": 0.5},
    ),
    "squared_gradients": Case(
        lambda **n: explain.squared_gradients(layer(), X.double(), **n), {"target": (1,)}
    ),
    "IndependentInputs.of_columns": Case(
        lambda **n: (
            explain.moments(layer(), explain.IndependentInputs.of_columns(layer(), X.double(), **n)).mean
        ),
        {"order": 2},
    ),
    # instruments
    "hessian_extremes": Case(extremes, {"steps": 4, "seed": 3}),
    "batch_hessian_curve": Case(curve, {"sizes": (2, 5), "draws": 2, "steps": 3, "seed": 3}),
    "scale_lr": Case(diagnostics.scale_lr, {"lr": 0.25, "b_from": 2, "b_to": 8}),
    "scale_lr, rmt": Case(
        lambda **n: diagnostics.scale_lr(0.25, 2, 8, "rmt", curve=CURVE, **n), {"samples": 16}
    ),
    "porter_thomas": Case(lambda **n: diagnostics.porter_thomas(X, **n).smooth, {"window": 3}),
    "rmt_filter": Case(lambda **n: diagnostics.rmt_filter(X, **n), {"keep": 2}),
    "rmt_filter, share": Case(lambda **n: diagnostics.rmt_filter(X, **n), {"keep": 0.25}),
    "spectral_alignment": Case(lambda **n: diagnostics.spectral_alignment(X, Y, **n).clean, {"k": 3}),
    "ridge_head": Case(lambda **n: diagnostics.ridge_head(X, Y, **n), {"beta": 0.25, "classes": 3}),
    "ams": Case(lambda **n: diagnostics.ams(X[:, 0], Y, **n).ams, {"regularisation": 2.5}),
    # equations
    "Burgers": Case(equation(pde.Burgers), {"dim": 3, "horizon": 0.5}),
    "CoupledDoubleWell": Case(
        equation(pde.CoupledDoubleWell), {"dim": 3, "weight": 0.25, "seed": 3, "horizon": 0.5}
    ),
    "CoxIngersollRossBond": Case(
        equation(pde.CoxIngersollRossBond),
        {"dim": 3, "start": 0.125, "reversion": 0.5, "mean": 0.0625, "volatility": 0.25, "horizon": 0.5},
    ),
    "DefaultRisk": Case(equation(pde.DefaultRisk), {"dim": 3, "horizon": 0.5}),
    "DoubleWell": Case(
        equation(pde.DoubleWell), {"dim": 3, "height": 0.25, "weight": 0.125, "horizon": 0.25}
    ),
    "LinearQuadraticControl": Case(
        equation(pde.LinearQuadraticControl), {"dim": 3, "seed": 2, "horizon": 0.5}
    ),
    "ReactionDiffusion": Case(
        equation(pde.ReactionDiffusion), {"dim": 3, "frequency": 2.5, "base": 0.25, "horizon": 0.5}
    ),
    "TwoRates": Case(equation(pde.TwoRates), {"dim": 3, "horizon": 0.5}),
    "MultistepLoss": Case(lambda **n: pde.MultistepLoss(**n)(EQUATION.exact, EQUATION, PATHS), {"chunk": 3}),
    "TTOptions": Case(
        pde.TTOptions,
        {
            "passes": 3,
            "paths": 64,
            "time_steps": 5,
            "points": 4,
            "degree": 2,
            "rank": 3,
            "cutoff": 0.125,
            "sweeps": 2,
            "seed": 5,
            "max_seconds": 9.5,
        },
    ),
    "SolveOptions, a search": Case(pde.SolveOptions, {"seconds": 9.5, "stretch": 2.5}),
    "solve": Case(
        lambda **n: (
            pde.solve(
                EQUATION,
                options=pde.TTOptions(passes=1, paths=16, time_steps=2, points=2, degree=1, rank=1),
                **n,
            ).options.max_seconds
        ),
        {"seconds": 90.5},
    ),
}


def seeded(kind: Any, **numbers: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(**numbers)
