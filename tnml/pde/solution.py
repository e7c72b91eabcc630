"""A solved equation: u and its gradient anywhere, their errors, and a file that keeps them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tnml.errors import InputError
from tnml.files import FORMAT, read_model, write_model
from tnml.loop.results import Row
from tnml.nn.computed import effective_state
from tnml.pde.accuracy import Along, PathErrors, fresh_paths, path_errors, values_along, values_and_truth
from tnml.pde.ansatz.ansatz import Ansatz
from tnml.pde.aposteriori.check import check, check_steps
from tnml.pde.aposteriori.result import Check
from tnml.pde.backward_tt.network import FunctionalTrain
from tnml.pde.backward_tt.options import TTOptions, options_of
from tnml.pde.equations.table import problem as named_problem
from tnml.pde.greeks import Greeks, Values
from tnml.pde.losses.deep_bsde import DeepBSDE
from tnml.pde.options import SolveOptions
from tnml.pde.paths.simulation import Paths
from tnml.pde.problem import Problem, Reference
from tnml.randomness import forked_rng

KIND = "pde-solution"
_POINTS = 2**14  # points evaluated at once
_ROUNDING = 1e-6  # of the horizon, by which times in float32 may miss it
_TRIED = 2**12  # paths behind the trivial answer if the truth is not known


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution(Greeks):
    """A solved equation, as `tnml.pde.solve` returns it.

    Args:
        problem: the equation.
        model: the trained module, on the CPU: an `Ansatz`, or a `DeepBSDE`, which knows u(0, x0) and u along
            paths that start there only.
        options: with which it was solved, "auto" replaced by what was chosen.
        history: a row per report: "loss", "u0" and, if the truth is known, "error" at (0, x0) and
            "path_error"; see `tnml.training.LoopResult`.
        seconds: of training.
        iterations: optimisation steps done.
        own_network: whether the network is the user's and not one that the options describe.
        loss: the name of the loss: "euler", "unbiased", "deep-bsde", or "own" for one that the options do not
            name. None: that of the options.
        strategy: what was chosen if `seconds` were given, in words; None otherwise.
        trials: the strategies that were tried then, with their checks as plain numbers and words.
        checked: the check that the choice rests on; None in a solution that was loaded.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt
        >>> problem, options = BlackScholesBarenblatt(3), SolveOptions(terminal="multiplicative", width=8)
        >>> solution = Solution(problem=problem, model=options.make_model(problem), options=options)
        >>> solution.u(1.0, [[1.0, 2.0, 2.0]])  # the terminal value
        array([9.], dtype=float32)
        >>> solution.gradient(0.5, np.ones((4, 3))).shape
        (4, 3)
    """

    problem: Problem
    model: Ansatz | DeepBSDE
    options: SolveOptions | TTOptions
    history: Sequence[Row] = field(default_factory=list)
    seconds: float = 0.0
    iterations: int = 0
    own_network: bool = False
    loss: str | None = None
    strategy: str | None = None
    trials: Sequence[Mapping[str, Any]] = ()
    checked: Check | None = None

    def u(self, t: Values, x: Values) -> npt.NDArray[np.floating[Any]]:
        """The solution at any points.

        Args:
            t: times: one number, or of any shape that broadcasts with x's without its last axis.
            x: points `[..., d]`.

        Returns:
            `[...]`: one number for each point.

        Raises:
            InputError: shapes do not fit, a number is not finite, or a time is outside [0, T].
        """
        ansatz = self.ansatz
        return self._mapped(lambda t, x: ansatz(t, x)[:, 0], t, x).numpy()

    def gradient(self, t: Values, x: Values) -> npt.NDArray[np.floating[Any]]:
        """Du at any points: the arguments of `u`, the result `[..., d]`.

        Raises:
            InputError: shapes do not fit, a number is not finite, or a time is outside [0, T].
        """
        ansatz = self.ansatz
        return self._mapped(lambda t, x: ansatz.value_and_gradient(t, x)[1], t, x).numpy()

    @property
    def ansatz(self) -> Ansatz:
        """The function u as a module.

        Raises:
            InputError: the loss "deep-bsde" gives none.
        """
        if not isinstance(self.model, Ansatz):
            raise InputError(
                "the loss 'deep-bsde' gives u(0, x0) and u along paths from there, not at any (t, x); "
                "use .value and .along_paths(), or another loss"
            )
        return self.model

    @property
    def value(self) -> float:
        """u(0, x0)."""
        if isinstance(self.model, DeepBSDE):
            return self.model.value
        return float(self.u(0.0, self.problem.start(torch.float64)))

    @property
    def true_value(self) -> Reference | None:
        """The truth at (0, x0), if it is known."""
        return self.problem.true_value()

    @property
    def n_parameters(self) -> int:
        """How many numbers were trained."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def ranks(self) -> list[int]:
        """The ranks of the tensor train of `method="tt"`, from time to the last coordinate; else empty."""
        network = self.model.network if isinstance(self.model, Ansatz) else None
        return network.ranks if isinstance(network, FunctionalTrain) else []

    def relative_error(self, *, paths: int = 256, sets: int = 4, seed: int = 0) -> PathErrors:
        """The errors at (0, x0) and along fresh paths, and those of simpler answers.

        Args:
            paths: over all sets.
            sets: independent sets of paths, whose spread is given.
            seed: of the paths; they differ from those of training for every seed.

        Raises:
            InputError: fewer than two sets, or fewer paths than sets.
        """
        u = self.model if isinstance(self.model, Ansatz) else None
        return path_errors(
            self._on_paths,
            self.value,
            u.base if u is not None and u.hard else None,
            self.problem,
            paths=paths,
            time_steps=self.options.time_steps,
            sets=sets,
            seed=seed,
            dtype=self._like.dtype,
            solution=u,
        )

    @torch.no_grad()
    def along_paths(self, paths: int = 5, seed: int = 0) -> Along:
        """The solution along a few fresh paths, next to the truth if it is known.

        Args:
            paths: how many.
            seed: of the noise.
        """
        part = fresh_paths(
            self.problem,
            paths,
            self.options.time_steps,
            seed=seed,
            dtype=self._like.dtype,
            solution=self.model if isinstance(self.model, Ansatz) else None,
        )
        return values_and_truth(self._on_paths, self.problem, part)

    def check(
        self,
        *,
        paths: int = 1024,
        seconds: float | None = None,
        seed: int = 0,
        tolerance: float = 0.01,
    ) -> Check:
        """What fresh paths say about the solution without the truth: an interval, and doubts in words.

        On paths of the equation whose driver is replaced by its tangent at (u, Du), the mean of `g(X_T) - int
        phi dt - int Du' sigma dW`, discounted as the tangent says, corrects u(0, x0); the variance that is
        left measures the error of Du. For a linear driver the result is unbiased whatever the network is. For
        a convex or concave one it is a bound, which becomes an interval together with a dual bound; for any
        other driver the interval is estimated from how much the driver's slopes change nearby. The time steps
        are halved, and their bias is extrapolated away.

        Args:
            paths: the largest number of paths, at least 16; the standard error falls with their square root.
            seconds: no further batch of 256 paths is started after this time; None sets no limit, so that the
                result follows from the solution and the seed alone.
            seed: of the paths; they differ from those of training for every seed.
            tolerance: relative error above which there is a doubt.

        Raises:
            InputError: an argument is out of range.

        Source: see `tnml.pde.aposteriori.linearised` and `tnml.pde.aposteriori.bounds`.
        """
        if isinstance(self.model, DeepBSDE):
            return check_steps(self.problem, self.model, paths=paths, seed=seed, tolerance=tolerance)
        like = self._like
        return check(
            self.problem, self.model, self.value, time_steps=self.options.time_steps, dtype=like.dtype,
            device=like.device, history=self.history, paths=paths, seconds=seconds, seed=seed,
            tolerance=tolerance,
        )  # fmt: skip

    def summary(self, errors: PathErrors | None = None, check: Check | None = None) -> list[tuple[str, str]]:
        """Names and values as readable text: u(0, x0), the truth, its check, errors, parameters, time.

        If the truth is not known, the trivial answer is given for comparison, see `Problem.trivial`.

        Args:
            errors: of `relative_error`; None measures them.
            check: of `check`; None takes the one that a choice of strategies rests on, or makes one with its
                defaults.
        """
        truth, found = self.true_value, errors or self.relative_error()
        rows = [("u(0, x0)", f"{self.value:.8g}")]
        if truth is None:
            rows.append(("truth", "not known"))
            if not self.problem.coupled:
                trivial = self.problem.trivial(_TRIED)
                rows.append(("trivial answer", f"{trivial.value:.6g} +- {trivial.error:.1g}"))
        else:
            bar = f" +- {truth.error:.1g}" if truth.error else ""
            rows.append(("truth", f"{truth.value:.10g}{bar} ({truth.source})"))
        rows += (check or self.checked or self.check()).summary()
        if self.strategy is not None:
            rows.append(("strategy", self.strategy))
        named = {
            "error at (0, x0)": found.at_start,
            "path error, mean": found.path_mean,
            "path error, spread of sets": found.spread,
            "path error, max": found.path_max,
            "error of the trivial answer": found.trivial,
            "error of the terminal value alone, at (0, x0)": found.terminal_at_start,
            "error of the terminal value alone, mean": found.terminal_mean,
        }
        rows += [(name, percent(value)) for name, value in named.items() if value is not None]
        rows.append(("parameters", f"{self.n_parameters:,}"))
        if ranks := self.ranks:
            rows.append(("ranks", f"up to {max(ranks)}, mean {sum(ranks) / len(ranks):.3g}"))
        rows.append(("time", f"{self.seconds:.1f} s, {self.iterations:,} iterations"))
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file of tensors and JSON; `Solution.load` reads it.

        For a problem or network of your own the file keeps the weights only; pass the same one to `load`.

        Args:
            path: by convention it ends in `.safetensors`.

        Raises:
            InputError: the file cannot be written.
        """
        own = self.problem.options is None
        metadata = {
            "format": FORMAT,
            "kind": KIND,
            "problem": {
                "name": self.problem.name,
                "dim": self.problem.dim,
                "options": None if own else dict(self.problem.options or {}),
            },
            "own_network": self.own_network,
            "loss": self.loss,
            "options": self.options.record(),
            "history": list(self.history),
            "seconds": self.seconds,
            "iterations": self.iterations,
            **({} if self.strategy is None else {"strategy": self.strategy, "trials": list(self.trials)}),
        }
        state = self.model.state_dict() if self.own_network else effective_state(self.model)
        write_model(path, state, metadata)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        problem: Problem | None = None,
        network: nn.Module | None = None,
    ) -> Self:
        """The solution in a file that `save` wrote.

        Args:
            path: of the file.
            problem: the problem, if it is one of your own; None makes the named one again.
            network: a network of the same layers, if it is one of your own; it receives the weights.

        Raises:
            InputError: no such file, a damaged one, or another kind of model; a problem or network of your
                own is needed and not given, or does not fit.
        """
        tensors, metadata = read_model(path)
        if metadata.get("kind") != KIND:
            raise InputError(
                f"{path} holds a {metadata.get('kind', 'file of another kind')!r}, expected the solution of "
                "an equation; use tnml.load"
            )
        return cls.from_file(path, tensors, metadata, problem=problem, network=network)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, Any],
        *,
        problem: Problem | None = None,
        network: nn.Module | None = None,
    ) -> Self:
        """What `load` returns, from the contents of a file; its path is used in messages."""
        if metadata.get("format") != FORMAT:
            raise InputError(f"{path} has format {metadata.get('format')!r}, this tnml reads {FORMAT}")
        try:
            options = options_of(metadata["options"])
            chosen = _problem(path, metadata["problem"], problem)
            if network is None and metadata["own_network"]:
                raise InputError(f"{path} was made with a network of your own; pass one as network=")
            with forked_rng(torch.device("cpu")):
                model = options.make_model(chosen, network)
            model.load_state_dict(tensors)
            return cls(
                problem=chosen,
                model=model.eval(),
                options=options,
                history=[dict(row) for row in metadata["history"]],
                seconds=float(metadata["seconds"]),
                iterations=int(metadata["iterations"]),
                own_network=bool(metadata["own_network"]),
                loss=metadata.get("loss"),
                strategy=metadata.get("strategy"),
                trials=[dict(trial) for trial in metadata.get("trials", ())],
            )
        except InputError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} does not fit ({error}); it may be damaged, or made with another network or problem"
            ) from error

    def _on_paths(self, paths: Paths) -> Tensor:
        return values_along(self.model, paths) if isinstance(self.model, Ansatz) else self.model(paths)

    @property
    def _like(self) -> Tensor:
        """A number of the dtype and on the device of the ansatz."""
        return next(iter(self.model.parameters()))

    def _mapped(self, function: Callable[[Tensor, Tensor], Tensor], t: Values, x: Values) -> Tensor:
        """`function` of rows of t and x, in chunks, in the shape of the points."""
        like = self._like
        points = torch.as_tensor(x, dtype=like.dtype, device=like.device)
        times = torch.as_tensor(t, dtype=like.dtype, device=like.device)
        if points.dim() == 0 or points.shape[-1] != self.problem.dim:
            raise InputError(
                f"x must be [..., {self.problem.dim}], a row for each point, got {list(points.shape)}"
            )
        try:
            shape = torch.broadcast_shapes(times.shape, points.shape[:-1])
        except RuntimeError as error:
            raise InputError(
                f"t {list(times.shape)} does not broadcast with the points {list(points.shape[:-1])}; "
                "give one time, or one for each point"
            ) from error
        if not bool(points.isfinite().all()) or not bool(times.isfinite().all()):
            raise InputError("t and x must be finite")
        horizon = self.problem.horizon
        outside = times[(times < -_ROUNDING * horizon) | (times > (1 + _ROUNDING) * horizon)]
        if len(outside):
            raise InputError(
                f"t must lie in [0, {horizon:g}], from the start to the horizon, got {float(outside[0]):g}; "
                "the equation says nothing about other times"
            )
        rows = points.expand((*shape, -1)).reshape(-1, self.problem.dim)
        column = times.expand(shape).reshape(-1, 1)
        with torch.no_grad():
            parts = [
                function(column[i : i + _POINTS], rows[i : i + _POINTS]) for i in range(0, len(rows), _POINTS)
            ]
            found = torch.cat(parts) if parts else function(column, rows)
        return found.reshape((*shape, *found.shape[1:])).detach().cpu()


def percent(error: float) -> str:
    """A relative error as readable text.

    Example:
        >>> percent(1.234e-4)
        '0.0123 %'
    """
    return f"{100 * error:.3g} %"


def _problem(path: str | os.PathLike[str], stored: Mapping[str, Any], given: Problem | None) -> Problem:
    """The problem of a file: the one given, or the named one."""
    if given is not None:
        if given.dim != stored["dim"]:
            raise InputError(f"{path} has dim {stored['dim']}, the problem given has {given.dim}")
        return given
    if stored["options"] is None:
        raise InputError(f"{path} solves a problem of your own, {stored['name']!r}; pass it as problem=")
    return named_problem(stored["name"], **stored["options"])
