"""Callbacks: their numbers in the row of an epoch, their memory in checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tnml.errors import InputError
from tnml.loop.protocols import Callback, StatefulCallback
from tnml.loop.results import Row


def called(
    callbacks: Sequence[Callback], module: nn.Module, optimizer: torch.optim.Optimizer | None, row: Row
) -> Row:
    """The numbers that callbacks give for an epoch; each sees the row with the numbers of those before it.

    Args:
        callbacks: in their order.
        module: with the weights that count.
        optimizer: of the training; None where there is none.
        row: of the epoch so far; a callback gets a copy.

    Raises:
        InputError: a callback returns something other than numbers by name, or the name of a number that is
            already there.

    Example:
        >>> twice = lambda module, optimizer, row: {"twice": 2 * row["loss"]}
        >>> called([twice], nn.Identity(), None, {"loss": 3.0})
        {'twice': 6.0}
    """
    found: Row = {}
    for callback in callbacks:
        given = callback(module, optimizer, {**row, **found})
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise InputError(
                f"a callback must return a mapping from names to numbers, or None, got {type(given).__name__}"
            )
        for name, value in given.items():
            if name in row or name in found:
                raise InputError(f"a callback gave {name!r}, which is measured already; give it another name")
            try:
                found[str(name)] = float(value)
            except (TypeError, ValueError) as error:
                raise InputError(f"a callback gave {name!r}: {value!r}, expected a number") from error
    return found


def callback_states(callbacks: Sequence[Callback]) -> list[dict[str, Any] | None]:
    """What the callbacks remember, for a checkpoint; None for one that remembers nothing.

    Example:
        >>> callback_states([lambda module, optimizer, row: None])
        [None]
    """
    return [c.state_dict() if isinstance(c, StatefulCallback) else None for c in callbacks]


def restore_callbacks(callbacks: Sequence[Callback], states: Sequence[Mapping[str, Any] | None]) -> None:
    """Restores what the callbacks remembered, provided there are as many as there were.

    Example:
        >>> restore_callbacks([], [])
    """
    if len(callbacks) != len(states):
        return  # different callbacks: they start from here
    for callback, state in zip(callbacks, states, strict=True):
        if state is not None and isinstance(callback, StatefulCallback):
            callback.load_state_dict(state)
