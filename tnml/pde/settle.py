"""The first stage of solving: options, network, ansatz and loss are chosen and checked."""

import copy
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tnml.checks import one_of
from tnml.errors import InputError
from tnml.files import user_path
from tnml.loop.checkpoint import load as load_checkpoint
from tnml.loop.loop import CHECKPOINT
from tnml.loop.options import LoopOptions
from tnml.pde.ansatz.ansatz import Ansatz
from tnml.pde.budget import iterations_of, seconds_per_iteration
from tnml.pde.identity import check_same, fingerprint, identity_of
from tnml.pde.losses.deep_bsde import DeepBSDE
from tnml.pde.losses.named import OWN, Loss, loss_of, name_of
from tnml.pde.options import NETWORKS, SolveOptions, preset
from tnml.pde.path_checks import check_functions
from tnml.pde.problem import Problem
from tnml.pde.solution import Solution
from tnml.pde.training_paths import LossOnPaths, PathBatches
from tnml.randomness import Stream, forked_rng, step_seed

_CHECKED = 8  # paths that the problem's functions are tried on


@dataclass(frozen=True, kw_only=True, eq=False)
class Settled:
    """A run in which everything is decided and checked, and nothing trained yet.

    Args:
        problem: the equation.
        options: with every "auto" replaced by what was chosen.
        model: what is trained, with its starting weights.
        start: a copy of these weights.
        loss_on_paths: the loss as the loop calls it.
        loss: its name, "own" for one that the options do not name.
        own_network: whether the network is the user's and not one that the options describe.
        batches: the numbers of paths and steps.
        loop: the options of the loop.
        identity: what has to be the same when the run is resumed.
        run_dir: its folder; None writes nothing.
        resume: whether it continues what is in that folder.
    """

    problem: Problem
    options: SolveOptions
    model: Ansatz | DeepBSDE
    start: Mapping[str, Tensor]
    loss_on_paths: LossOnPaths
    loss: str
    own_network: bool
    batches: PathBatches
    loop: LoopOptions
    identity: Mapping[str, str | int | float]
    run_dir: Path | None
    resume: bool

    @property
    def iterations(self) -> int:
        """Optimisation steps of the whole run."""
        return self.loop.epochs * self.batches.steps_per_epoch


def settle(
    problem: Problem,
    network: nn.Module | str | None = None,
    *,
    loss: Loss | str | None = None,
    options: SolveOptions | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    start: Solution | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Settled:
    """The run that `tnml.pde.solve` does with these arguments; nothing is written.

    Args:
        problem: see `tnml.pde.solve`.
        network: see there.
        loss: see there.
        options: see there.
        run_dir: see there.
        resume: see there.
        start: see there.
        clock: by which a time limit becomes a number of iterations.

    Raises:
        InputError: as `tnml.pde.solve` before its training.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> settled = settle(HeatEquation(2), options=SolveOptions(width=8, iterations=50))
        >>> settled.options.loss, settled.options.terminal, settled.iterations
        ('unbiased', 'smoothed', 60)
    """
    if network is not None and not isinstance(network, nn.Module | str):
        raise InputError(f"network must be a torch.nn.Module or a name, got {type(network).__name__}")
    name = name_of(loss)
    if start is not None:
        if not isinstance(start.options, SolveOptions):
            raise InputError("start was solved by method='tt' and has no network to go on with; leave it out")
        options = options or start.options
        if network is None and start.own_network and isinstance(start.ansatz.network, nn.Module):
            network = copy.deepcopy(start.ansatz.network)
    options, network = _settled_options(problem, network, name, options)
    chosen = loss_of(options, problem.dim) if loss is None or isinstance(loss, str) else loss
    solved = options.on_paths(problem)
    loss_on_paths = LossOnPaths(solved, options, chosen)
    model = _checked_model(loss_on_paths, network)
    folder = None if run_dir is None else user_path(run_dir)
    identity = {**identity_of(solved, chosen, model), **options.identity()}
    if start is not None:
        start_from(model, start.model)
        identity["start"] = fingerprint(dict(start.model.state_dict()))
    stored = _stored_run(folder, identity) if resume else None
    seconds = partial(seconds_per_iteration, model, loss_on_paths, options, clock=clock)
    loop, steps = options.loop(iterations_of(options, seconds, stored))
    return Settled(
        problem=problem,
        options=options,
        model=model,
        start={name: value.clone() for name, value in model.state_dict().items()},
        loss_on_paths=loss_on_paths,
        loss=OWN if name == OWN else options.loss,
        own_network=network is not None,
        batches=PathBatches(options.paths, steps),
        loop=loop,
        identity=identity,
        run_dir=folder,
        resume=resume,
    )


def start_from(model: Ansatz | DeepBSDE, other: Ansatz | DeepBSDE) -> None:
    """Copies the trained parameters of another model, which stays as it is; constants are the model's own.

    Raises:
        InputError: the two have other parameters.

    Example:
        >>> from tnml.pde import HeatEquation
        >>> one, two = (SolveOptions(width=4).make_model(HeatEquation(2)) for _ in range(2))
        >>> start_from(one, two)
        >>> all(bool((a == b).all()) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        True
    """
    known = dict(other.named_parameters())
    mine = dict(model.named_parameters())
    if {name: part.shape for name, part in mine.items()} != {n: part.shape for n, part in known.items()}:
        raise InputError(
            "start has a network of other layers, or is built on the terminal value in another way; use its "
            "options (options=None does), or leave start out"
        )
    with torch.no_grad():
        for name, part in mine.items():
            part.copy_(known[name])


def _settled_options(
    problem: Problem, network: nn.Module | str | None, loss: str | None, options: SolveOptions | None
) -> tuple[SolveOptions, nn.Module | None]:
    """The options with a network and a loss given by name entered, and the network if it is a module."""
    if options is None:
        options = preset(problem) if loss in (None, OWN) else preset(problem, loss=loss)
    if isinstance(network, str):
        options, network = dataclasses.replace(options, network=one_of("network", network, NETWORKS)), None
    if loss is not None and loss != OWN:
        options = dataclasses.replace(options, loss=loss)
    return options.settled(problem, loss=loss), network


def _checked_model(loss_on_paths: LossOnPaths, network: nn.Module | None) -> Ansatz | DeepBSDE:
    """The model with starting weights from the seed; the problem's functions are tried on a few paths."""
    options = loss_on_paths.options
    with forked_rng(torch.device("cpu")):
        torch.manual_seed(step_seed(options.seed, 0, stream=Stream.WEIGHTS))
        model = options.make_model(loss_on_paths.problem, network)
        device = next(model.parameters()).device
        check_functions(model, loss_on_paths.paths_of_step(0, 0, min(_CHECKED, options.paths), device))
    return model


def _stored_run(folder: Path | None, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The checkpoint to continue from, if there is one and it belongs to this run.

    Raises:
        InputError: it belongs to another run.
    """
    if folder is None or not (folder / CHECKPOINT).exists():
        return None
    stored = load_checkpoint(folder / CHECKPOINT)
    check_same(stored, identity, folder / CHECKPOINT)
    return stored
