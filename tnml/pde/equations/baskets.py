"""The market of a basket: log-normal assets with equal prices, volatilities and correlations."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.pde.checks import check_positive
from tnml.pde.equations.terms import times_y
from tnml.pde.problem import LogNormal


def equal_assets(options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Cholesky factor and covariance of the log-returns per unit of time, from checked options of a basket.

    Args:
        options: "dim", "spot", "strike", "volatility", "correlation" and "horizon".

    Raises:
        InputError: a value is out of range.

    Example:
        >>> prices = {"spot": 1.0, "strike": 1.0, "horizon": 1.0}
        >>> factor, covariance = equal_assets({"dim": 2, "volatility": 0.5, "correlation": 0.5, **prices})
        >>> covariance.tolist()
        [[0.25, 0.125], [0.125, 0.25]]
    """
    dim, correlation, volatility = options["dim"], options["correlation"], options["volatility"]
    check_positive(**{name: options[name] for name in ("spot", "strike", "volatility", "horizon")})
    least = -1 / (dim - 1) if dim > 1 else -1.0
    if not least < correlation < 1:
        raise InputError(
            f"correlation must lie between {least:.4g} and 1 for {dim} assets, got {correlation!r}"
        )
    equal = correlation + (1 - correlation) * torch.eye(dim, dtype=torch.float64)
    return volatility * torch.linalg.cholesky(equal), volatility**2 * equal


def log_normal_market(options: Mapping[str, Any], factor: Tensor) -> dict[str, Any]:
    """What the problems of two baskets share, as arguments of `Problem`.

    Args:
        options: of the basket.
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
