"""Diagnostics by name: what the command line can measure after every epoch or sweep of a run.

To add one, write a function from `RunFacts` to a callback (see `tnml.training.run`) and put it into
`CALLBACKS`. It raises `InputError` where the diagnostic does not suit the run, before anything is trained.

Example:
    >>> def largest_input(facts):
    ...     return lambda module, optimizer, row: {"largest_input": float(facts.x_train.max())}
    >>> CALLBACKS["largest-input"] = largest_input
    >>> facts = RunFacts(x_train=torch.ones(2, 4), x_test=torch.ones(1, 4), outputs=2, task="regression")
    >>> callbacks_of(["largest-input"], facts)[0](torch.nn.Identity(), None, {})
    {'largest_input': 1.0}
    >>> del CALLBACKS["largest-input"]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tnml.diagnostics.susceptibility import Susceptibility
from tnml.diagnostics.tracker import Tracker
from tnml.errors import InputError, choose
from tnml.loop.callbacks import callback_states, called, restore_callbacks
from tnml.loop.protocols import Callback
from tnml.loop.results import Row


@dataclass(frozen=True, kw_only=True, eq=False)
class RunFacts:
    """What a diagnostic may want to know about a run that is about to begin.

    Args:
        x_train: `[n, sites]` inputs to train on, in [0, 1].
        x_test: `[n, sites]` inputs of the test set.
        outputs: number of the model's outputs: the classes of a classifier.
        task: "classification" or "regression".
        solver: "gradient", or "dmrg" for sweeps, which have no optimiser.
        seed: of the run.

    Example:
        >>> RunFacts(x_train=torch.rand(3, 4), x_test=torch.rand(1, 4), outputs=2, task="regression").seed
        0
    """

    x_train: Tensor
    x_test: Tensor
    outputs: int
    task: str
    solver: str = "gradient"
    seed: int = 0


def _tracker(facts: RunFacts) -> Callback:
    """Norms and entropies of the network; the Schmidt values themselves have no place in a table."""
    del facts
    return Tracker(spectra=False)


def _susceptibility(facts: RunFacts) -> Callback:
    """How readily a step fits random labels of the test inputs."""
    if facts.task != "classification":
        raise InputError(f"susceptibility fits random labels, which {facts.task} has not; leave it out")
    if facts.solver != "gradient":
        raise InputError("susceptibility makes a step of the optimiser, which sweeps have not; leave it out")
    return Susceptibility(facts.x_test, facts.outputs, seed=facts.seed)


CALLBACKS: dict[str, Callable[[RunFacts], Callback]] = {
    "tracker": _tracker,
    "susceptibility": _susceptibility,
}
"""Every diagnostic by name. A row may be added from outside; see the docstring of this module."""


def callbacks_of(names: Sequence[str], facts: RunFacts) -> "list[NamedCallbacks]":
    """The callbacks of these names for a run, as one that remembers by name; none where there is no name.

    Raises:
        InputError: a name is unknown, or a diagnostic does not suit the run.

    Example:
        >>> facts = RunFacts(x_train=torch.rand(3, 4), x_test=torch.rand(1, 4), outputs=1, task="regression")
        >>> callbacks_of(["traker"], facts)
        Traceback (most recent call last):
        tnml.errors.InputError: unknown callback 'traker'; did you mean 'tracker'? Choose from: ...
    """
    found = {name: choose("callback", name, CALLBACKS)(facts) for name in names}
    return [NamedCallbacks(found)] if found else []


class NamedCallbacks:
    """Several callbacks as one. A resumed run may have others: those of the same name go on where they were.

    Args:
        callbacks: by name, called in this order.

    Example:
        >>> both = NamedCallbacks({"one": lambda *_: {"a": 1.0}, "two": lambda m, o, row: {"b": row["a"]}})
        >>> both(nn.Identity(), None, {})
        {'a': 1.0, 'b': 1.0}
    """

    def __init__(self, callbacks: Mapping[str, Callback]) -> None:
        self.callbacks = dict(callbacks)

    def __call__(self, module: nn.Module, optimizer: torch.optim.Optimizer | None, row: Row) -> Row:
        """The numbers of all of them."""
        return called(list(self.callbacks.values()), module, optimizer, row)

    def state_dict(self) -> dict[str, Any]:
        """What they remember, by name."""
        return dict(zip(self.callbacks, callback_states(list(self.callbacks.values())), strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Gives each back what the one of its name remembered."""
        for name, callback in self.callbacks.items():
            restore_callbacks([callback], [state.get(name)])
