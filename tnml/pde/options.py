"""The options for solving an equation, and the recipes of the named problems."""

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import nn

from tnml.checks import keep_number, keep_whole, one_of, whole
from tnml.errors import InputError
from tnml.loop.options import AVERAGES, SCHEDULES, check_device
from tnml.nn import TNN
from tnml.pde.ansatz.ansatz import CLOSED, TERMINALS, Ansatz
from tnml.pde.ansatz.bases import structure_of
from tnml.pde.ansatz.network import make_network, start_at_zero
from tnml.pde.coupling import decoupled
from tnml.pde.equations.table import EQUATIONS
from tnml.pde.losses.deep_bsde import DeepBSDE
from tnml.pde.problem import Problem
from tnml.training import LoopOptions

LOSS_NAMES = ("auto", "euler", "unbiased", "multistep", "deep-bsde")
NETWORKS = ("dense", "tnn")
NOISES = ("normal", "signs", "sobol")
DTYPES = MappingProxyType({"float32": torch.float32, "float64": torch.float64})

_NAMED = {
    "loss": LOSS_NAMES,
    "terminal": ("auto", *TERMINALS),
    "network": NETWORKS,
    "noise": NOISES,
    "group_noise": ("normal", "signs", "design"),
    "dtype": tuple(DTYPES),
    "schedule": SCHEDULES,
    "average": AVERAGES,
    "first": ("tt", "dense"),
}
# What may change when a run is resumed: `max_seconds` matters only when a run begins.
_MAY_CHANGE = frozenset(
    {"device", "devices", "chunk", "checkpoint_seconds", "max_seconds", "tensorboard", "seconds"}
)
# Options younger than some stored runs, which had the default: they identify a run where they differ from it.
_YOUNGER = frozenset({"stretch"})
# What describes the network behind u(t, x), which "deep-bsde" does not have.
_OF_THE_NETWORK = ("terminal", "network", "width", "depth", "rank", "activation", "first", "stretch")


@dataclass(frozen=True, kw_only=True)
class SolveOptions:
    """The options of `tnml.pde.solve`; a wrong value raises when the object is made.

    Args:
        loss: "euler" (the residual of Euler steps, FBSNN), "unbiased" (the product of two independent groups
            of residuals, Un-EM), "multistep" (all steps to the horizon together), "deep-bsde" (a network for
            the gradient at each time step; gives u(0, x0) only), or "auto": unbiased. A coupled drift moves
            into the driver, see `tnml.pde.coupling`, except for "euler", whose paths are then those of the
            solution.
        group: of "unbiased" only: noises in each of its two groups.
        group_noise: of "unbiased" only: the kind of noise in those groups: "signs" or "normal", see
            `tnml.pde.increments`; or "design", which replaces the two groups by one of sign vectors that
            leave hardly any noise, see `tnml.pde.paths.noise.sign_design`: for few dimensions, since it has
            at least 2 d vectors.
        ahead: of "unbiased" only: how far it looks ahead from every point, as a fraction of a time step,
            above 0 and at most 1; see `tnml.pde.UnbiasedLoss`.
        relative: of "unbiased" only: whether its residuals are divided by |u|, for solutions far from zero.
        terminal: how u(T, x) = g(x) is met: "soft" (by the loss only), "multiplicative" (g times 1 + (T - t)
            network), "additive" (g plus (T - t) network), "smoothed" (as additive, on g smoothed by the
            diffusion), "kinks" (as smoothed, with kinks and jumps across planes in closed form), "quadratic"
            (on the solution among quadratic functions), or "auto": smoothed; for a problem of one's own
            without `smoothed_terminal` kinks, where there are any or g varies in one direction only; or soft
            for "euler" if the problem is coupled. It and the options of the network below must keep their
            defaults for "deep-bsde", which has networks of its own and no u.
        network: "dense", or "tnn", whose layers are tensor trains; not used if a module is given.
        width: of its hidden layers.
        depth: how many hidden layers it has.
        rank: of the tensor trains, "tnn" only.
        activation: see `tnml.nn.TNN`.
        first: kind of the first layer of "tnn", "tt" or "dense".
        stretch: factor of the first layer's starting weights: above 1 for solutions that oscillate.
        paths: in a batch, over all processes together.
        time_steps: from 0 to the horizon.
        noise: "normal", "sobol" or "signs", see `tnml.pde.increments`.
        antithetic: whether paths come in pairs of opposite noise.
        iterations: optimisation steps; rounded up to a multiple of `reports`.
        max_seconds: how long training may take: before it starts, the time of an iteration is measured and
            `iterations` reduced to what fits, so that the schedule still reaches its end; then rounded down
            to a multiple of `reports`. None sets no limit. A resumed run keeps the number it began with.
        seconds: how long solving shall take, instead of a number of iterations: short runs of a few
            strategies are compared by `Solution.check`, and the best continues; see `tnml.pde.search`.
        reports: rows of the history, with u(0, x0) and, if the truth is known, the error.
        lr: highest learning rate of Adam.
        schedule: of the learning rate, see `tnml.training.LoopOptions`.
        average: "ema" keeps a moving average of the weights, which is the result; "none" does not.
        ema_decay: of that average.
        clip_norm: largest norm of a gradient; None clips nothing.
        dtype: "float32" or "float64".
        chunk: the largest number of network inputs in memory at once, but at least those of one path; None:
            all. It changes time and memory, not the result.
        seed: of starting weights and paths.
        device: "auto", "cpu", "cuda" or "cuda:1".
        devices: processes, one device each.
        checkpoint_seconds: longest time without a checkpoint.
        tensorboard: also write TensorBoard event files to the run's folder.

    Raises:
        InputError: a value is out of its range or a name is unknown.

    Example:
        >>> SolveOptions(iterations=100).lr
        0.003
        >>> SolveOptions(terminal="smooth")
        Traceback (most recent call last):
        tnml.errors.InputError: unknown terminal 'smooth'; did you mean 'smoothed' ... Choose from: ...
    """

    loss: str = "auto"
    group: int = 3
    group_noise: str = "signs"
    ahead: float = 0.1
    relative: bool = False
    terminal: str = "auto"
    network: str = "dense"
    width: int = 64
    depth: int = 3
    rank: int = 4
    activation: str = "silu"
    first: str = "tt"
    stretch: float = 1.0
    paths: int = 16
    time_steps: int = 50
    noise: str = "normal"
    antithetic: bool = False
    iterations: int = 2000
    max_seconds: float | None = None
    seconds: float | None = None
    reports: int = 20
    lr: float = 3e-3
    schedule: str = "cosine"
    average: str = "ema"
    ema_decay: float = 0.99
    clip_norm: float | None = None
    dtype: str = "float32"
    chunk: int | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    checkpoint_seconds: float | None = 60.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name, known in _NAMED.items():
            one_of(name, getattr(self, name), known)
        sizes = ("group", "width", "depth", "rank", "paths", "time_steps", "iterations", "reports", "devices")
        keep_whole(self, *sizes, least=1)
        keep_whole(self, "seed")
        if self.chunk is not None:
            keep_whole(self, "chunk", least=1)
        keep_number(self, "ema_decay", least=0.0, below=1.0)
        limits = ("max_seconds", "seconds", "clip_norm", "checkpoint_seconds")
        given = [name for name in limits if getattr(self, name) is not None]
        keep_number(self, "lr", "ahead", "stretch", *given, above=0.0)
        if self.ahead > 1:
            raise InputError(f"ahead is a fraction of a time step, above 0 and at most 1; got {self.ahead}")
        if self.antithetic and self.paths % 2:
            raise InputError(f"antithetic paths come in pairs, got paths={self.paths}; take an even number")
        check_device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of network and paths."""
        return DTYPES[self.dtype]

    def loop(self, iterations: int | None = None) -> tuple[LoopOptions, int]:
        """The options of the loop, whose epochs are the rows of the history, and how many steps an epoch has.

        Args:
            iterations: instead of those of the options.

        Example:
            >>> loop, steps = SolveOptions(iterations=50, reports=20).loop()
            >>> loop.epochs, steps
            (20, 3)
        """
        total = self.iterations if iterations is None else whole("iterations", iterations, 1)
        epochs = min(self.reports, total)
        loop = LoopOptions(
            epochs=epochs,
            lr=self.lr,
            schedule=self.schedule,
            average=self.average,
            ema_decay=self.ema_decay,
            clip_norm=self.clip_norm,
            seed=self.seed,
            device=self.device,
            devices=self.devices,
            checkpoint_seconds=self.checkpoint_seconds,
            tensorboard=self.tensorboard,
        )
        return loop, -(-total // epochs)

    def make_network(self, dim: int) -> TNN:
        """A network from (t, x) to u as the options say, see `tnml.pde.ansatz.network.make_network`.

        Args:
            dim: space coordinates of the problem.

        Example:
            >>> SolveOptions(network="tnn", width=16, depth=2).make_network(7).widths
            (8, 16, 16, 1)
        """
        return make_network(
            self.network,
            dim,
            hidden=[self.width] * self.depth,
            rank=self.rank,
            activation=self.activation,
            first=self.first,
            stretch=self.stretch,
        )

    def make_model(self, problem: Problem, network: nn.Module | None = None) -> Ansatz | DeepBSDE:
        """What is trained, in the options' dtype: a `DeepBSDE` for that loss, else an `Ansatz`.

        Args:
            problem: the equation.
            network: instead of the options' one.

        Raises:
            InputError: the network does not suit the problem.

        Example:
            >>> from tnml.pde import BlackScholesBarenblatt
            >>> SolveOptions().make_model(BlackScholesBarenblatt(3)).terminal
            'smoothed'
        """
        problem = self.on_paths(problem)
        if self.loss == "deep-bsde":
            if network is not None:
                raise InputError("the loss 'deep-bsde' makes its own networks; leave network out")
            return DeepBSDE(problem, self.time_steps).to(self.torch_dtype)
        terminal = self._terminal(problem)
        if network is None:
            network = made = self.make_network(problem.dim)
            if terminal in CLOSED:
                start_at_zero(made)
        return Ansatz(network.to(self.torch_dtype), problem, terminal)

    def on_paths(self, problem: Problem) -> Problem:
        """The equation as it is solved: with a coupled drift in the driver, unless the loss is "euler".

        Example:
            >>> from tnml.pde import HeatEquation
            >>> heat = HeatEquation(2)
            >>> SolveOptions().on_paths(heat) is heat
            True
        """
        return problem if self.loss == "euler" else decoupled(problem)

    def settled(self, problem: Problem, *, loss: str | None = None) -> Self:
        """The options with every "auto" of loss and terminal condition replaced by what it means here.

        Args:
            problem: the equation.
            loss: "own" for a loss that these options do not name. Their own loss is then not checked against
                the rest and becomes "auto"; "deep-bsde" stays, since it says what is trained.

        Raises:
            InputError: loss and problem, loss and terminal condition, or loss and network do not go together.

        Example:
            >>> from tnml.pde import BlackScholesBarenblatt
            >>> SolveOptions().settled(BlackScholesBarenblatt(3)).loss
            'unbiased'
        """
        problem = self.on_paths(problem)
        terminal = self._terminal(problem)
        if loss == "own" and self.loss != "deep-bsde":
            return dataclasses.replace(self, loss="auto", terminal=terminal)
        chosen = "unbiased" if self.loss == "auto" else self.loss
        if chosen == "deep-bsde":
            self._check_deep_bsde()
            return self
        if chosen == "unbiased" and terminal == "soft":
            raise InputError(
                "the loss 'unbiased' does not look at the horizon: take a hard terminal condition, "
                f"{', '.join(name for name in TERMINALS if name != 'soft')}, or loss='euler'"
            )
        return dataclasses.replace(self, loss=chosen, terminal=terminal)

    def _terminal(self, problem: Problem) -> str:
        if self.terminal != "auto":
            return self.terminal
        if problem.coupled:
            return "soft"
        own = problem.options is None and problem.smoothed_terminal is None
        return "kinks" if own and any(part is not None for part in structure_of(problem)) else "smoothed"

    def _check_deep_bsde(self) -> None:
        for name in _OF_THE_NETWORK:
            if getattr(self, name) != _DEFAULTS[name]:
                raise InputError(
                    f"{name}={getattr(self, name)!r} has no meaning for the loss 'deep-bsde', which makes "
                    f"its own networks and steps to the horizon; leave it at {_DEFAULTS[name]!r}"
                )

    def record(self) -> dict[str, Any]:
        """The options as a flat dictionary of numbers, strings and None.

        Example:
            >>> SolveOptions().record()["paths"]
            16
        """
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, str | int | float]:
        """What has to be the same when a run is resumed.

        Example:
            >>> "device" in SolveOptions().identity()
            False
        """
        return {
            name: value if isinstance(value, str | int | float) else str(value)
            for name, value in self.record().items()
            if name not in _MAY_CHANGE and not (name in _YOUNGER and value == _DEFAULTS[name])
        }


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(SolveOptions)}


def preset(problem: Problem | str, **changes: Any) -> SolveOptions:
    """The options that suit a named problem; the defaults for any other, and for problems of one's own.

    Args:
        problem: a problem or its name.
        changes: options with other values.

    Raises:
        InputError: an option or the name is unknown, or a value out of range.

    Example:
        >>> preset("bsb", iterations=10).terminal
        'multiplicative'
    """
    if isinstance(problem, str):
        one_of("problem", problem, EQUATIONS)
        name = problem
    else:
        name = problem.name if problem.options is not None else ""
    for change in changes:
        one_of("option", change, _DEFAULTS)
    recipe = EQUATIONS[name].recipe if name in EQUATIONS else {}
    if changes.get("loss") == "deep-bsde":
        recipe = {option: value for option, value in recipe.items() if option not in _OF_THE_NETWORK}
    return SolveOptions(**{**recipe, **changes})
