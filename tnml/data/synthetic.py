"""Synthetic data of known origin: targets by name, and regression and classification samples from them.

| name | target | exact as a matrix product state |
|---|---|---|
| mps | a random matrix product state | with its own bond dimension |
| permuted | the same, its sites visited in a random order | yes, mostly with the largest bond |
| grid | a random grid of tensors (PEPS) | yes, exponential in the width |
| tanh | a random network of one hidden layer | none known |
| parity | the product of signs of x - 1/2 | with bond dimension 1 and one-hot features |

Every sample depends on its seed and index only, so any number of processes draws the same ones.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tnml.checks import is_number, number
from tnml.data import random_table
from tnml.data.hard_targets import grid_teacher, tanh_network
from tnml.data.nlgp import Mixture, gp_match, nlgp, nlgp_covariance, nlgp_mixture
from tnml.data.targets import Target
from tnml.data.teachers import mps_teacher, parity, permuted_teacher
from tnml.errors import InputError, choose

__all__ = [
    "TARGETS",
    "Classification",
    "Mixture",
    "Regression",
    "Target",
    "classification",
    "gp_match",
    "nlgp",
    "nlgp_covariance",
    "nlgp_mixture",
    "regression",
    "target",
]

TARGETS: Mapping[str, Callable[..., Target]] = MappingProxyType(
    {
        "mps": mps_teacher,
        "permuted": permuted_teacher,
        "grid": grid_teacher,
        "tanh": tanh_network,
        "parity": parity,
    }
)
"""The targets known by name."""

THRESHOLDS = ("mean", "median")
KINDS = ("sign", "softmax")


class Regression(NamedTuple):
    """Inputs `x [n, n_sites]`, noisy values `y` and values without noise `clean`, `[n]` or `[n, outputs]`.

    Example:
        >>> x, y, clean = regression(target("mps"), 5, noise=0.1, seed=0)
        >>> x.shape, y.shape, bool((y == clean).any())
        (torch.Size([5, 10]), torch.Size([5]), False)
    """

    x: Tensor
    y: Tensor
    clean: Tensor


class Classification(NamedTuple):
    """Inputs `x [n, n_sites]` and `labels [n]`, int64.

    Example:
        >>> classification(target("mps"), 5, seed=0).labels.dtype
        torch.int64
    """

    x: Tensor
    labels: Tensor


def target(name: str, **options: Any) -> Target:
    """The target of this name.

    Args:
        name: a name of `TARGETS`.
        options: those of the function `TARGETS[name]`: `mps_teacher` and `permuted_teacher` (n_sites,
            bond_dim, features, inputs, outputs, levels, seed), `grid_teacher` (rows, columns, order and the
            like), `tanh_network` (n_sites, width, gain and the like), `parity` (n_sites, sites, inputs).

    Raises:
        InputError: unknown name or option (the nearest known one is named), or a value out of its range.

    Example:
        >>> teacher = target("mps", n_sites=8, bond_dim=3, seed=5)
        >>> teacher.bond_dim, teacher.options["features"]
        (3, 'legendre')
        >>> target("msp")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown target 'msp'; did you mean 'mps'? Choose from: mps, ...
    """
    build = choose("target", name, TARGETS)
    known = inspect.signature(build).parameters
    for option in options:
        choose(f"option of target {name!r}", option, known)
    complete = {option: parameter.default for option, parameter in known.items()} | options
    return dataclasses.replace(build(**complete), name=name, options=complete)


def regression(target: Target, n: int, *, noise: float = 0.0, seed: int, first: int = 0) -> Regression:
    """Samples of a target with normal noise.

    Args:
        target: the function.
        n: samples.
        noise: standard deviation of what is added; targets have unit variance unless they say otherwise.
        seed: of inputs and noise; take another one for test samples.
        first: index of the first sample, for processes that each draw a part.

    Raises:
        InputError: the noise is negative or not finite, or a count is negative.

    Example:
        >>> train = regression(target("mps", n_sites=6), 300, noise=0.1, seed=0)
        >>> 0.08 < float((train.y - train.clean).std()) < 0.12
        True
    """
    noise = number("noise", noise, least=0.0)
    x = target.draw(n, seed=seed, first=first)
    clean = target(x)
    drawn = random_table.normal(n, target.outputs, seed=seed, stream=random_table.NOISE, first=first)
    return Regression(x, clean + noise * torch.from_numpy(drawn).reshape(clean.shape), clean)


def classification(
    target: Target,
    n: int,
    *,
    seed: int,
    kind: str = "sign",
    threshold: str | float = "mean",
    first: int = 0,
) -> Classification:
    """Samples of a target with class labels, without noise; `tnml.data.noise` adds it.

    A layer computes the boundary exactly: of "softmax" with the teacher's bond dimension, of "sign" with that
    of `target.state(minus=...)`: the teacher's for threshold 0, and at most one more for others where the
    features can make a constant (the trigonometric ones cannot).

    Args:
        target: the function; of one output for "sign", of several for "softmax".
        n: samples.
        seed: of the inputs.
        kind: "sign" (label 1 where f(x) > threshold, else 0) or "softmax" (the largest output).
        threshold: "mean" (in closed form where the target has one), "median" (`Target.median`, for classes
            of nearly equal size) or a number. For "sign".
        first: index of the first sample.

    Raises:
        InputError: an unknown name, or the target has the wrong number of outputs.

    Example:
        >>> teacher = target("mps", n_sites=6, seed=1)
        >>> x, labels = classification(teacher, 1000, seed=0, threshold="median")
        >>> 400 < int(labels.sum()) < 600
        True
    """
    choose("kind", kind, dict.fromkeys(KINDS))
    if (kind == "sign") != (target.outputs == 1):
        wanted = "one output" if kind == "sign" else "two outputs or more"
        raise InputError(
            f"kind={kind!r} takes a target with {wanted}, got {target.outputs}; set outputs= of the target"
        )
    level = _level(target, threshold) if kind == "sign" else 0.0
    x = target.draw(n, seed=seed, first=first)
    values = target(x)
    labels = values > level if kind == "sign" else values.argmax(1)
    return Classification(x, labels.to(torch.int64))


def _level(target: Target, threshold: str | float) -> float:
    if is_number(threshold):
        return float(threshold)
    choose("threshold (or a number)", str(threshold), dict.fromkeys(THRESHOLDS))
    return float(target.mean if threshold == "mean" else target.median)
