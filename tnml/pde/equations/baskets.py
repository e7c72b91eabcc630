"""The market of a basket: log-normal assets with equal prices, volatilities and correlations."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.pde.checks import as_number
from tnml.pde.equations.terms import times_y
from tnml.pde.problem import LogNormal


def basket_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a basket, checked.

    Args:
        given: "dim", "spot", "strike", "rate", "volatility", "correlation" and "horizon".

    Raises:
        InputError: a value is out of range.

    Example:
        >>> given = {"dim": 2, "spot": 1.0, "strike": 1.0, "rate": 0.0, "volatility": 0.5, "horizon": 1.0}
        >>> basket_options({**given, "correlation": -2.0})
        Traceback (most recent call last):
        tnml.errors.InputError: correlation must lie between -1 and 1 for 2 assets, got -2.0
    """
    dim = whole("dim", given["dim"], 1)
    limits = dict.fromkeys(("spot", "strike", "volatility", "horizon"), 0.0)
    numbers = {name: value for name, value in given.items() if name != "dim"}
    options = {"dim": dim} | {n: as_number(n, value, above=limits.get(n)) for n, value in numbers.items()}
    correlation, least = options["correlation"], -1 / (dim - 1) if dim > 1 else -1.0
    if not least < correlation < 1:
        raise InputError(
            f"correlation must lie between {least:.4g} and 1 for {dim} assets, got {correlation!r}"
        )
    return {**options, "dim": dim}


def equal_assets(options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Cholesky factor and covariance of the log-returns per unit of time.

    Args:
        options: of the basket, from `basket_options`.

    Example:
        >>> equal_assets({"dim": 2, "volatility": 0.5, "correlation": 0.5})[1].tolist()
        [[0.25, 0.125], [0.125, 0.25]]
    """
    dim, correlation, volatility = options["dim"], options["correlation"], options["volatility"]
    equal = correlation + (1 - correlation) * torch.eye(dim, dtype=torch.float64)
    return volatility * torch.linalg.cholesky(equal), volatility**2 * equal


def log_normal_market(options: Mapping[str, Any], factor: Tensor) -> dict[str, Any]:
    """What the problems of two baskets share, as arguments of `Problem`.

    Args:
        options: of the basket, from `basket_options`.
        factor: from `equal_assets`.

    Example:
        >>> options = {"dim": 2, "rate": 0.05, "horizon": 1.0, "spot": 100.0}
        >>> log_normal_market(options, torch.eye(2))["x0"]
        100.0
    """
    rate = options["rate"]
    return {
        "dim": options["dim"],
        "horizon": options["horizon"],
        "x0": float(options["spot"]),
        "log_normal": LogNormal(rate, factor),
        "driver_value": partial(times_y, rate=rate),
        "discount": rate,
    }
