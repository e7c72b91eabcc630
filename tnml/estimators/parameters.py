"""The parameters of every estimator, written once; and the decorator that makes a class with them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, dataclass_transform

from tnml.estimators.docstrings import with_entries_of

T = TypeVar("T")


@dataclass_transform(eq_default=False, kw_only_default=True, field_specifiers=(dataclasses.field,))
def estimator(cls: type[T]) -> type[T]:
    """The class as a scikit-learn estimator whose parameters are its fields and those of its bases.

    `__init__` with its real signature comes from `dataclasses`, so `get_params`, `clone` and `help` see every
    parameter; the docstring inherits the descriptions of parameters and attributes that it does not have
    itself.

    Args:
        cls: fields are annotated names with defaults; a field of a base may get a different default.

    Example:
        >>> @estimator
        ... class Small(Parameters):
        ...     '''Few bonds.
        ...
        ...     Args:
        ...         bond_dim: a small number.
        ...     '''
        ...
        ...     bond_dim: int = 2
        >>> Small(lr=0.1).bond_dim, "engine: of the contraction" in Small.__doc__
        (2, True)
    """
    made: type[T] = dataclasses.dataclass(eq=False, repr=False, kw_only=True)(cls)
    if cls.__doc__ is not None:  # python -OO has none
        made.__doc__ = with_entries_of(cls.__doc__, [base.__doc__ or "" for base in cls.__mro__[1:]])
    return made


@estimator
class Parameters:
    """The parameters of a network, its training and its inputs, for any task.

    Args:
        bond_dim: largest bond dimension, the capacity of the model.
        network: a name of `tnml.nn.NETWORKS`, or a mapping with the name and options of that network. A
            parameter that the network does not have must keep its default.
        preset: "tables" gives features, bonds, decay and steps that suit tables, and several networks: `fit`
            tries candidates on a held-out part and fits the best one to all samples; `choice_` tells which.
            Parameters that do not have their defaults stay as they are. `solver="gradient"` only.
        n_estimators: number of networks with different starting weights, whose probabilities or predictions
            are averaged; `solver="gradient"` only. Small networks together take little more time than one.
        member_orders: sequences of the features on the chains of `n_estimators` networks: the "same", or
            "random" ones for all but the first.
        solver: "gradient" (stochastic gradient descent), "dmrg" (sweeps; on a single feature, which has no
            bond, gradients) or, for real targets, "als" (sweeps of exact least squares, with the ridge, the
            noise and the bonds of largest evidence, and error bars). "als" needs several samples for each
            feature: with fewer, predictions can be far outside of the range of the targets.
        features: local feature map, see `tnml.features.feature_map`. "linear" makes the outputs linear in
            each feature while the others are fixed, {"name": "polynomial", "dim": 4} makes them cubic. "auto"
            looks at each column: text, truth values, pandas' categories and numbers with few distinct values
            become "one-hot" of the categories seen (if more than 16, the rarest share one); other numbers are
            replaced by Legendre functions of their quantiles, more functions for more samples; for options,
            as in {"name": "auto", "map": "hat"}, see `tnml.estimators.automatic.Automatic`. A mapping such
            as {"age": "legendre", 3: "one-hot"}, by names or numbers of columns, sets it for some columns.
            With both, any column may have missing values (NaN, None), also in `predict`: the outputs are then
            the mean over that column's training values, and unknown categories count as missing. All features
            of the training samples are held in memory. A mapping with a "name" is one map for all columns.
        order: the sequence of the features on the chain, see `tnml.features.site_order`; or
            "mutual-information", which puts columns that depend on each other side by side, greedily. "auto"
            is "mutual-information" if each column has its own `features`; else "snake" with an `image_shape`
            or for 16, 25, 36, ... features, and the order of the columns otherwise.
        image_shape: (height, width) if a sample is an image; None takes a square when one is needed.
        label_site: number of sites left of the label core; None is the middle.
        noise: standard deviation of the noise on the starting cores; None chooses it from the chain.
        bond_dropout: probability of dropping a bond index in training.
        site_dropout: probability of skipping a feature of a sample in training.
        feature_range: what becomes 0 and 1. "auto": 0 and 1 if all training values lie between them,
            else each feature's lowest and highest training value; a pair (low, high) for all features; None
            leaves values unchanged. Unless None, values outside are clipped, also in `predict`.
        clip: what to do, in any method, if more than 1 % of the values lie outside `feature_range` by more
            than a tenth of it: "warn", "silent", or "error" instead of clipping them.
        loss: a name of `tnml.training.losses.LOSSES`, or a mapping with the name and options of that loss,
            such as {"name": "huber", "delta": 0.5}; None is "cross-entropy" for labels and "mse" for real
            targets. `solver="dmrg"` needs a convex loss with curvature.
        epochs: passes over the data; None means about 1000 steps, in 10 to 200 epochs.
        batch_size: samples per step; None is a hundredth of the samples, between 32 and 100. With "dmrg",
            samples per half sweep; None takes all, but at most 10,000, drawn again each time.
        lr: peak learning rate; None is 2 / steps (times 100 / features² for fewer than 10), at most 0.02
            and 0.2 / features, but at least 3e-4; divided by the mean sum of |phi_d| if that is above 1;
            1 for "lbfgs".
        optimizer: "adam", "adamw", "sgd" or "lbfgs".
        weight_decay: decoupled for "adamw", else an L2 penalty.
        decay_to: what `weight_decay` pulls to: "zero", or "path", cores that let every sample through
            unchanged, and a label core of zeros: it damps products of many features more than the features
            themselves. "path" is for `network="mps"`.
        schedule: of the learning rate, "one-cycle", "cosine", "constant" or "step".
        clip_norm: largest norm of the gradient; None for no limit.
        average: "ema" keeps a moving average of the weights, "none" does not.
        validation_fraction: share of the samples held out, at random, stratified by label; `history_` has the
            results on it (with `preset` in the last row alone), and intervals and temperatures of
            probabilities are computed from it.
        patience: epochs without a better `monitor` after which training stops and the best weights are
            restored; None never stops.
        monitor: the column of `history_` that `patience` watches; callbacks may add columns.
        monitor_mode: "min" if lower is better, "max" if higher is better; "auto" takes "max" for names with
            "accuracy" in them.
        sweeps: over all bonds and back, not for `solver="gradient"`; None is 5 for real targets; for labels
            it continues while a sweep lowers the loss by 2 % or more, for at most 20 sweeps; with up to 5,000
            samples, at most as long as a trial on three quarters of them predicts the other quarter better.
        max_error: not for `solver="gradient"`: at each bond singular values are dropped while they make up
            less than this share of the norm, so that bonds are as large as the data need, up to `bond_dim`;
            one number, or one for each sweep, the last one for all that follow. None is 0.003 for real
            targets, 0 for "als", and 0.01 for labels; with fewer than 30 features and at least 5 sweeps it
            is 0.1 for labels, or 0.05 with more than 12 features and more than 4 classes.
        proximal: `solver="dmrg"` only: holds back the steps at the bonds, see `tnml.training.SweepOptions`;
            one number, or one for each sweep, the last one for all that follow. None is 1 for real targets
            and 3 for labels; with fewer than 30 features and at least 5 sweeps, it is 3, 1, 0.3 and then 0.1
            for labels, because a sweep over few bonds makes few steps.
        ridge: `solver="dmrg"` only: weight of the mean square output in the loss, which keeps the outputs
            small when there are few samples; for c classes it is multiplied by 2 / c.
        dtype: "float32" or "float64".
        engine: of the contraction, see `tnml.nn.MPSLayer`.
        device: "cpu", "cuda", "cuda:1", or "auto" for CUDA if it is available.
        warm_start: let `fit` continue from the last fit instead of starting a new one; it keeps the feature
            range of the first fit, and its classes or the mean and scale of its targets. A larger `bond_dim`
            widens the bonds without changing the outputs at first; `network`, `features` and whatever else
            the model was made with cannot change, nor can they from one `partial_fit` to the next.
        verbose: show progress.
        random_state: None, a number or a `numpy.random.RandomState`; a number makes `fit` repeatable.

    Example:
        >>> Parameters(8, solver="dmrg").sweeps is None
        True
    """

    bond_dim: int = dataclasses.field(default=20, kw_only=False)
    network: Any = "mps"
    preset: str | None = None
    n_estimators: int = 1
    member_orders: str = "same"
    solver: str = "gradient"
    features: Any = "linear"
    order: str | Sequence[int] = "auto"
    image_shape: tuple[int, int] | None = None
    label_site: int | None = None
    noise: float | None = None
    bond_dropout: float = 0.0
    site_dropout: float = 0.0
    feature_range: str | tuple[float, float] | None = "auto"
    clip: str = "warn"
    loss: Any = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: str = "adam"
    weight_decay: float = 0.0
    decay_to: str = "zero"
    schedule: str = "one-cycle"
    clip_norm: float | None = None
    average: str = "none"
    validation_fraction: float = 0.0
    patience: int | None = None
    monitor: str = "val_loss"
    monitor_mode: str = "auto"
    sweeps: int | None = None
    max_error: float | Sequence[float] | None = None
    proximal: float | Sequence[float] | None = None
    ridge: float = 1e-3
    dtype: str = "float32"
    engine: str = "auto"
    device: str = "cpu"
    warm_start: bool = False
    verbose: bool = False
    random_state: Any = None
