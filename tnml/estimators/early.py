"""How many sweeps a fit makes: as many as held-out samples are predicted best after."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tnml.loop.results import Row, TrainingInterrupted
from tnml.nn import MPSLayer
from tnml.training import SweepOptions
from tnml.training.samples import split_rows

MOST_SAMPLES = 5000  # with more, sweeps hardly learn samples by heart
_LEAST_SAMPLES = 40
_SHARE = 0.25  # held out
_PATIENCE = 3  # sweeps without a better one


class _EnoughError(Exception):
    """Ends the sweeps of a trial."""


def stopped_early(
    swept: Callable[..., Any],
    layer: MPSLayer,
    x: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    options: SweepOptions,
    given: Mapping[str, Any],
) -> SweepOptions:
    """The options with as many sweeps as are best for a quarter of the samples, held out of a trial.

    On few samples every sweep fits their noise a little better. If the last sweep of the trial was its best,
    or there are too few samples of a class, the options stay as they are. Samples that the fit itself holds
    out are not looked at.

    Args:
        swept: trains a layer.
        layer: before training; it stays as it is.
        x: inputs.
        labels: of the samples.
        options: of the fit.
        given: `sample_weight` and `image_shape` of the fit.

    Raises:
        KeyboardInterrupt: after Ctrl-C.

    Cost: up to three sweeps more than the best number, on three quarters of the samples.
    """
    keep = split_rows(len(x), torch.from_numpy(labels), options.validation, options.seed)[0].numpy()
    rarest = np.unique(labels[keep], return_counts=True)[1].min()
    if rarest < 2 or not _LEAST_SAMPLES <= len(keep) <= MOST_SAMPLES:
        return options
    weight = given.get("sample_weight")
    given = {**given, "sample_weight": None if weight is None else weight[keep]}
    losses = _losses(swept, layer, x[keep], labels[keep], options, given)
    best = int(np.argmin(losses)) + 1
    return options if best == len(losses) else dataclasses.replace(options, sweeps=best, tolerance=None)


def _losses(
    swept: Callable[..., Any],
    layer: MPSLayer,
    x: npt.NDArray[Any],
    labels: npt.NDArray[np.int64],
    options: SweepOptions,
    given: Mapping[str, Any],
) -> list[float]:
    """The losses of held-out samples, sweep after sweep, until there was no better one for a while."""
    losses: list[float] = []

    def watch(module: nn.Module, optimizer: None, row: Row) -> None:
        del module, optimizer
        losses.append(float(row["val_loss"]))
        if len(losses) - 1 - int(np.argmin(losses)) >= _PATIENCE:
            raise _EnoughError

    held_out = dataclasses.replace(options, validation=_SHARE)
    try:
        with suppress(_EnoughError):
            swept(copy.deepcopy(layer), x, labels, held_out, **given, callbacks=[watch])
    except TrainingInterrupted as stop:  # there is no model yet that could be kept
        raise KeyboardInterrupt from stop
    return losses
