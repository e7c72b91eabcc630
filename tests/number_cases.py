"""What the public functions do with numbers: a call for each, and the numbers that it is tried with."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from tnml import (
    MPSClassifier,
    MPSRegressor,
    contraction,
    data,
    diagnostics,
    explain,
    features,
    mps,
    training,
)
from tnml import nn as networks


class Case(NamedTuple):
    """A call, and its numbers by name."""

    call: Callable[..., Any]
    numbers: dict[str, Any]


# Made by tnml and handed to the user, or for methods that only tnml calls.
RECORDS = {
    "Along", "ChainValue", "CompressReport", "Compressed", "DatasetRecord", "LoopResult", "ParameterCounts",
    "PathErrors", "Paths", "Plan", "Reference", "RunFacts", "Schmidt", "Solution", "StepView", "StudyView",
    "SweepResult", "TTFit", "Table", "TrainResult", "Truncation", "ProgressReporter.epoch", "Reporter.epoch",
    "ClassScores", "RegressionScores", "StudyProgress", "Susceptibility.on_epoch_end",
    "Susceptibility.batch", "Tracker.on_epoch_end",
    "TensorNetworkClassifier", "TensorNetworkRegressor", "TensorNetworkLayer",  # bases of those below
    "Check", "Counterfactual", "Explanation", "Interactions", "TrainingInterrupted",
    "Alignment", "BatchCurve", "BatchCurve.at", "Bulk", "HessianExtremes", "Moments", "PorterThomas",
    "Significance", "IndependentInputs.law", "MarkovInputs.law",
    "TTConv1d.dense", "TTConv2d.dense", "TTConv3d.dense",  # classes of torch
    "DeepBSDELoss", "Dataset", "FeatureMap",  # what functions below make
    "FeatureMap.path", "FeatureMap.reordered", "FeatureMap.square_norms",
    "from_idx", "from_npz", "load(scale)",  # as `from_arrays`
    "TensorNetworkClassifier.from_layer(history)", "TensorNetworkRegressor.from_layer(history)",
    "run",  # of studies: starts processes
}  # fmt: skip

X = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
WIDE = X.repeat(1, 6)[:, :16]
Y = torch.arange(12) % 2
PIXELS = WIDE.numpy()
CORES = [torch.ones(1, 2, 3, 2), torch.ones(2, 2, 2, 1)]
STATE = mps.MatrixProductState.random(6, 4, seed=1)
MPO = [torch.eye(2, dtype=torch.float64).reshape(1, 2, 2, 1)] * 6
Z = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))


def layer(**options: Any) -> networks.MPSLayer:
    return networks.MPSLayer(6, 2, bond_dim=3, dtype="float64", **options)


def noisy(make: Callable[..., Any]) -> Callable[..., Any]:
    """The same call with torch's own generator in the same state."""

    def call(**numbers: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make(**numbers)

    return call


def classifier(**parameters: Any) -> Any:
    shape = parameters.pop("image_shape", (2, 3))
    given = {"bond_dim": 2, "epochs": 1, "dtype": "float64", "random_state": 0, **parameters}
    model = MPSClassifier(image_shape=shape, **given).fit(X.numpy(), Y.numpy())
    return model.predict_proba(X.numpy())


def regressor(**parameters: Any) -> Any:
    given = {"bond_dim": 2, "epochs": 1, "dtype": "float64", "random_state": 0, **parameters}
    return MPSRegressor(**given).fit(X.numpy(), X[:, 0].numpy()).predict(X.numpy())


def explained(function: Callable[..., Any], **numbers: Any) -> Any:
    return function(layer(), X.double(), X.double(), **numbers).values


def swept(kind: Any, **parameters: Any) -> Any:
    given = {"bond_dim": 2, "sweeps": 1, "dtype": "float64", "random_state": 0, **parameters}
    model = kind(solver="dmrg", **given).fit(X.numpy(), Y.numpy())
    return model.predict(X.numpy()), model.history_[0]["loss"]


def unmeasured(seconds: Any) -> Any:
    """A plan without its estimate, which follows rates that may be measured anew."""
    return dataclasses.replace(seconds, seconds=0.0)


def measured(**numbers: Any) -> Any:
    """The susceptibility, on a small net."""
    net = nn.Linear(6, 2)
    probe = diagnostics.Susceptibility(X, **numbers)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net.reset_parameters()
        return probe(net, torch.optim.SGD(net.parameters(), lr=0.1))


def around(kind: Any, **numbers: Any) -> Any:
    names = [] if kind is MPSRegressor else [["no", "yes"]]
    return kind.from_layer(layer(), *names, **numbers).predict(X.numpy())


LOOP = {
    "epochs": 2, "lr": 0.25, "weight_decay": 0.5, "beta1": 0.5, "beta2": 0.75, "eps": 0.125, "momentum": 0.5,
    "lbfgs_iterations": 3, "warmup": 0.5, "decay_every": 2, "decay_factor": 0.5, "clip_norm": 1.5,
    "ema_decay": 0.5, "patience": 2, "devices": 1, "seed": 5, "checkpoint_every": 2,
    "checkpoint_seconds": 9.5,
}  # fmt: skip
SHARED = {
    "bond_dim": 2, "label_site": 2, "noise": 0.25, "bond_dropout": 0.25, "site_dropout": 0.25,
    "image_shape": (2, 3), "feature_range": (-0.5, 1.5), "order": (3, 1, 2, 0, 5, 4), "epochs": 2,
    "batch_size": 5, "lr": 0.125, "weight_decay": 0.5, "clip_norm": 0.5, "validation_fraction": 0.25,
    "patience": 2,
}  # fmt: skip
SWEPT = {"sweeps": 2, "max_error": 0.125, "ridge": 0.25, "proximal": 0.5}

CASES: dict[str, Case] = {
    # contraction
    "chain": Case(
        lambda **n: contraction.chain(X[:, :4, None], [torch.ones(1, 1, 1)] * 4, **n), {"label_site": 2}
    ),
    "einsum": Case(lambda **n: contraction.einsum("ab,bc->ac", X, X.T, **n), {"memory_limit": 500}),
    "tt_linear": Case(lambda **n: contraction.tt_linear(X, CORES, **n), {"out_features": 3}),
    "tt_plans": Case(
        lambda **n: sorted(
            map(str, map(unmeasured, contraction.tt_plans(contraction.TTShape.of_cores(CORES), **n)))
        ),
        {"batch": 5},
    ),
    "ChainShape": Case(contraction.ChainShape, {"physical": 2, "left": (1, 2, 3), "right": (3, 1)}),
    "TTShape": Case(contraction.TTShape, {"ins": (4, 8), "outs": (2, 3), "ranks": (1, 5, 1)}),
    # data
    "load": Case(lambda **n: data.load("digits", **n).x, {"pool": 2, "resize": (3, 5)}),
    "from_arrays": Case(lambda **n: data.from_arrays(PIXELS, Y, **n), {"image_shape": (2, 8)}),
    "from_arrays, scale": Case(lambda **n: data.from_arrays(PIXELS, Y, **n), {"scale": (-0.5, 1.5)}),
    "stratified_split": Case(
        lambda **n: data.stratified_split(Y.numpy(), **n), {"fraction": 0.25, "seed": 3}
    ),
    "pool_images": Case(lambda **n: data.pool_images(PIXELS, **n), {"shape": (4, 4), "factor": 2}),
    "resize_images": Case(lambda **n: data.resize_images(PIXELS, **n), {"shape": (4, 4), "size": (3, 5)}),
    "shift_images": Case(
        lambda **n: data.shift_images(WIDE, offsets=torch.ones(12, 2).long(), **n),
        {"shape": (4, 4), "fill": 0.5},
    ),
    "random_shift": Case(
        lambda **n: data.random_shift(WIDE, generator=torch.Generator().manual_seed(0), **n),
        {"shape": (4, 4), "max_shift": 2, "fill": 0.5},
    ),
    # diagnostics
    "geometric_complexity": Case(
        lambda **n: diagnostics.geometric_complexity(layer(), X.double(), "hutchinson", **n),
        {"n_proj": 2, "seed": 3, "batch_size": 5},
    ),
    "feature_moments": Case(lambda **n: diagnostics.feature_moments("legendre", **n), {"nodes": 9}),
    "memorised": Case(
        lambda **n: diagnostics.memorised(layer(), X.double(), Y, Y.bool(), **n), {"batch_size": 5}
    ),
    "Susceptibility": Case(measured, {"classes": 2, "batch_size": 4, "seed": 3}),
    "select_models": Case(
        diagnostics.select_models, {"zeta": (0.125, 0.125, 0.5), "train_accuracy": (0.75, 0.5, 0.75)}
    ),
    # estimators
    "MPSClassifier": Case(classifier, {**SHARED, "n_estimators": 2, "label_smoothing": 0.25, "max_shift": 1}),
    "MPSClassifier, dmrg": Case(lambda **n: swept(MPSClassifier, **n), {**SWEPT, "bond_dim": 2}),
    "MPSClassifier, schedule": Case(lambda **n: swept(MPSClassifier, **n), {"proximal": (0.5, 0.25)}),
    "MPSRegressor": Case(regressor, {**SHARED, "n_estimators": 2}),
    "MPSRegressor, dmrg": Case(lambda **n: swept(MPSRegressor, **n), SWEPT),
    "TensorNetworkClassifier.from_layer": Case(
        lambda **n: around(MPSClassifier, **n), {"image_shape": (2, 3), "feature_range": (-0.5, 1.5)}
    ),
    "TensorNetworkRegressor.from_layer": Case(
        lambda **n: around(MPSRegressor, **n),
        {"image_shape": (2, 3), "feature_range": (-0.5, 1.5), "y_mean": 0.5, "y_scale": 2.0},
    ),
    # explanations
    **{
        name: Case(functools.partial(explained, getattr(explain, name)), numbers)
        for name, numbers in {
            "shapley": {"target": 1, "nodes": 2},
            "banzhaf": {"target": 1},
            "interactions": {"target": 1, "nodes": 2},
        }.items()
    },
    "partial_dependence": Case(
        lambda **n: explain.partial_dependence(layer(), grid=X[0].double(), background=X.double(), **n),
        {"feature": 2, "target": 1},
    ),
    "individual_dependence": Case(
        lambda **n: explain.individual_dependence(layer(), X.double(), grid=X[0].double(), **n),
        {"feature": 2, "target": 1},
    ),
    "accumulated_effects": Case(
        lambda **n: explain.accumulated_effects(layer(), X.double(), grid=torch.arange(3) / 2, **n),
        {"feature": 2, "target": 1},
    ),
    "counterfactual": Case(
        lambda **n: explain.counterfactual(layer(noise=1.0), X[0].double(), **n),
        {"target": 1, "max_changes": 2},
    ),
    "MPSLayer.grown": Case(lambda **n: layer().grown(**n), {"bond_dim": 4, "noise": 0.25, "seed": 3}),
    # features
    "site_order": Case(features.site_order, {"order": (2, 0, 1, 3), "shape": (2, 2), "n_sites": 4}),
    "site_order, name": Case(lambda **n: features.site_order("snake", **n), {"shape": (2, 2), "n_sites": 4}),
    "feature_map": Case(lambda **n: features.feature_map("fourier", **n).spec, {"dim": 3, "period": 2.0}),
    "feature_map, rbf": Case(lambda **n: features.feature_map("rbf", **n).spec, {"dim": 3, "width": 0.5}),
    # options
    "LoopOptions": Case(training.LoopOptions, LOOP),
    "TrainOptions": Case(
        training.TrainOptions,
        {**LOOP, "batch_size": 5, "label_smoothing": 0.25, "max_shift": 1, "validation": 0.25},
    ),
    "SweepOptions": Case(
        training.SweepOptions,
        {
            "sweeps": 2,
            "tolerance": 0.25,
            "sites": 1,
            "max_bond": 4,
            "max_error": 0.125,
            "damping": 0.5,
            "iterations": 2,
            "label_smoothing": 0.25,
            "ridge": 0.5,
            "proximal": 0.5,
            "noise": 0.25,
            "batch_size": 5,
            "max_shift": 1,
            "validation": 0.25,
            "memory_gb": 1.5,
            "observations": 2.5,
            "seed": 5,
            "checkpoint_seconds": 9.5,
        },
    ),
    "SweepOptions, schedules": Case(training.SweepOptions, {"max_bond": (2, 4), "proximal": (0.5, 0.25)}),
    "SweepOptions.of_sweep": Case(
        lambda **n: training.SweepOptions(max_bond=(2, 4)).of_sweep("max_bond", **n), {"sweep": 1}
    ),
    "SweepOptions.is_settled": Case(
        lambda **n: training.SweepOptions(tolerance=0.25).is_settled(**n), {"losses": (1.0, 0.5)}
    ),
    # matrix product states
    "MatrixProductState": Case(
        lambda **n: mps.MatrixProductState(STATE.cores, **n), {"log_scale": 0.5, "label_site": 2}
    ),
    "MatrixProductState.random": Case(
        mps.MatrixProductState.random, {"n_sites": 4, "bond_dim": 3, "physical": 2, "seed": 5}
    ),
    "MatrixProductState.random, sizes": Case(
        lambda **n: mps.MatrixProductState.random(3, 3, **n), {"physical": (2, 3, 2)}
    ),
    "MatrixProductState.from_dense": Case(
        lambda **n: mps.MatrixProductState.from_dense(torch.eye(4).reshape(2, 2, 2, 2), **n),
        {"max_bond": 2, "max_error": 0.25, "label_site": 1},
    ),
    "MatrixProductState.apply": Case(lambda **n: STATE.apply(MPO, **n), {"max_bond": 2, "max_error": 0.25}),
    "MatrixProductState.canonical": Case(STATE.canonical, {"center": 2}),
    "MatrixProductState.entropies": Case(STATE.entropies, {"order": 2.0}),
    "MatrixProductState.truncate": Case(STATE.truncate, {"max_bond": 2, "max_error": 0.25}),
    "MatrixProductState.truncate, bonds": Case(STATE.truncate, {"max_bond": (1, 2, 3, 2, 1)}),
    "MatrixProductState.reduced_density_matrix": Case(STATE.reduced_density_matrix, {"sites": (3, 1)}),
    "MatrixProductState.correlation": Case(lambda i, j: STATE.correlation(Z, i, Z, j), {"i": 1, "j": 3}),
    "MatrixProductState.mutual_information": Case(STATE.mutual_information, {"i": 1, "j": 3}),
    "MatrixProductState.sample": Case(STATE.sample, {"n_samples": 3, "seed": 5}),
    "MatrixProductState, times": Case(lambda factor: (STATE * factor, factor * STATE), {"factor": 2.5}),
    "MatrixProductState, over": Case(lambda factor: STATE / factor, {"factor": 2.5}),
    "from_finite_mps": Case(
        lambda **n: mps.from_finite_mps(mps.to_finite_mps(STATE), **n), {"label_site": 1}
    ),
    "from_nodes": Case(lambda **n: mps.from_nodes(mps.to_nodes(STATE), **n), {"label_site": 1}),
    "contract_nodes": Case(
        lambda **n: mps.contract_nodes(mps.to_nodes(STATE), **n),
        {"memory_limit": 900},
    ),
    # networks
    "BondDropout": Case(networks.BondDropout, {"p": 0.25}),
    "BondDropout.forward": Case(
        noisy(lambda **n: networks.BondDropout(0.5)(like=torch.ones(()), **n)), {"bond_dim": 5, "first": 2}
    ),
    "SiteDropout": Case(networks.SiteDropout, {"p": 0.25}),
    "MPSLayer": Case(
        networks.MPSLayer,
        {
            "n_sites": 6,
            "out_features": 3,
            "bond_dim": 4,
            "order": (3, 1, 2, 0, 5, 4),
            "shape": (2, 3),
            "label_site": 2,
            "noise": 0.25,
            "bond_dropout": 0.25,
            "site_dropout": 0.25,
            "seed": 5,
        },
    ),
    "MPSLayer, bonds": Case(
        lambda **n: networks.MPSLayer(2, 2, features={"name": "legendre", "dim": n.pop("dim")}, **n),
        {"bond_dim": (1, 2, 3, 1), "dim": 3, "label_site": 1},
    ),
    "MPSLayer.compressed": Case(
        lambda **n: layer(noise=0.5).compressed(**n), {"max_bond": 2, "max_error": 0.25}
    ),
    "MPSLayer.compressed, bonds": Case(
        lambda **n: layer(noise=0.5).compressed(**n), {"max_bond": (1, 2, 2, 2, 2, 1)}
    ),
    "make_layer": Case(
        lambda **n: networks.make_layer("mps", **n), {"n_sites": 4, "out_features": 2, "bond_dim": 3}
    ),
    "TTLinear": Case(
        noisy(networks.TTLinear),
        {
            "in_features": 12,
            "out_features": 6,
            "rank": 2,
            "in_factors": (3, 4),
            "out_factors": (2, 3),
            "std": 0.5,
        },
    ),
    "TTLinear, cores": Case(noisy(lambda **n: networks.TTLinear(12, 12, **n)), {"n_cores": 2, "rank": (3,)}),
    "TTLinear.truncate": Case(
        noisy(lambda **n: networks.TTLinear(12, 12, rank=4).truncate(**n)), {"rank": 2, "max_error": 0.25}
    ),
    "TTLinear.from_linear": Case(
        noisy(lambda **n: networks.TTLinear.from_linear(nn.Linear(12, 6), **n)),
        {"rank": 2, "in_factors": (3, 4), "out_factors": (2, 3)},
    ),
    "TTLinear.from_linear, error": Case(
        noisy(lambda **n: networks.TTLinear.from_linear(nn.Linear(12, 6), **n)),
        {"n_cores": 2, "max_error": 0.5},
    ),
    "TTEmbedding": Case(
        noisy(networks.TTEmbedding),
        {
            "num_embeddings": 12,
            "embedding_dim": 6,
            "rank": 2,
            "row_factors": (3, 4),
            "column_factors": (2, 3),
            "padding_idx": 3,
            "std": 0.5,
        },
    ),
    "TTEmbedding, cores": Case(noisy(lambda **n: networks.TTEmbedding(12, 12, **n)), {"n_cores": 2}),
    "TTEmbedding.truncate": Case(
        noisy(lambda **n: networks.TTEmbedding(12, 12, rank=4).truncate(**n)), {"rank": 2, "max_error": 0.25}
    ),
    "TTEmbedding.from_embedding": Case(
        noisy(lambda **n: networks.TTEmbedding.from_embedding(nn.Embedding(12, 6), **n)),
        {"rank": 2, "row_factors": (3, 4), "column_factors": (2, 3)},
    ),
    "TTEmbedding.from_embedding, error": Case(
        noisy(lambda **n: networks.TTEmbedding.from_embedding(nn.Embedding(12, 6), **n)),
        {"n_cores": 2, "max_error": 0.5},
    ),
    "TNN": Case(
        noisy(networks.TNN), {"widths": (4, 6, 2), "rank": 2, "alpha": 1.0, "dropout": 0.25, "n_cores": 2}
    ),
    "compress": Case(
        noisy(lambda **n: networks.compress(nn.Linear(32, 32), **n).model),
        {"max_error": 0.5, "min_parameters": 10, "n_cores": 2, "batch": 20},
    ),
    "compress, ratio": Case(
        noisy(lambda **n: networks.compress(nn.Linear(32, 32), min_parameters=10, **n).model), {"ratio": 0.5}
    ),
    "compress, rank": Case(
        noisy(lambda **n: networks.compress(nn.Linear(32, 32), min_parameters=10, **n).model), {"rank": 2}
    ),
}
