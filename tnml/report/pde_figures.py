"""What a solved equation looks like: u along paths, its error against time, the training."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tnml.checks import whole
from tnml.pde import Check, Solution

_MEASURED = 64  # paths behind the error against time
_LETTERS = 120  # of a line of doubts


def solution_figure(
    solution: Solution, *, paths: int = 5, seed: int = 0, check: Check | None = None
) -> Figure:
    """Three pictures: u along a few fresh paths with the truth, the error against time, and the training.

    The second is left out if the truth is not known along paths. The interval of the check is drawn at
    time 0 of the first, and its doubts are written below.

    Args:
        solution: what `tnml.pde.solve` returned.
        paths: how many are drawn.
        seed: of the paths.
        check: of `Solution.check`; None makes one with its defaults.

    Raises:
        InputError: fewer than one path.

    Example:
        >>> from tnml.pde import BlackScholesBarenblatt, preset, solve
        >>> options = preset("bsb", iterations=4, paths=4, time_steps=3, width=4, device="cpu")
        >>> figure = solution_figure(solve(BlackScholesBarenblatt(2), options=options))
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['t', 't', 'seconds']
    """
    whole("paths", paths, 1)
    known = solution.problem.exact is not None
    figure = Figure(figsize=(5.0 * (2 + known), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = iter(figure.subplots(1, 2 + known))
    found = check or solution.check(seed=seed)
    _draw_paths(next(panels), solution, paths, seed, found)
    if known:
        _draw_errors(next(panels), solution, seed)
    _draw_training(next(panels), solution)
    figure.suptitle(f"{solution.problem.name}, d = {solution.problem.dim}")
    words = "\n".join(line for flag in found.flags for line in textwrap.wrap(str(flag), _LETTERS))
    figure.supxlabel(words or "check passed", fontsize="small")
    return figure


def cost_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], what: str, cost: str, title: str
) -> Figure:
    """A cost against a size on logarithmic axes, with a line of slope one next to each curve.

    Args:
        curves: name and (sizes, costs) of each.
        what: name of the size.
        cost: name of the cost.
        title: above the figure.

    Example:
        >>> cost_figure({"loss": ([10, 100], [0.1, 0.8])}, "d", "seconds", "Cost").axes[0].get_xscale()
        'log'
    """
    figure = Figure(figsize=(5.5, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, (sizes, costs) in curves.items():
        (line,) = axes.plot(sizes, costs, marker="o", label=name)
        straight = [costs[-1] * size / sizes[-1] for size in sizes]
        axes.plot(sizes, straight, color=line.get_color(), linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel=what, ylabel=cost, title=title)
    axes.legend()
    return figure


def _draw_paths(axes: Axes, solution: Solution, paths: int, seed: int, check: Check) -> None:
    found = solution.along_paths(paths, seed)
    times = found.times.cpu().numpy()
    for number, u in enumerate(found.u.cpu().numpy()):
        axes.plot(times, u, color=f"C{number % 10}", label="u" if number == 0 else None)
        if found.exact is not None:
            label = "truth" if number == 0 else None
            axes.plot(
                times,
                found.exact[number].cpu().numpy(),
                color="black",
                linestyle="--",
                linewidth=1,
                label=label,
            )
    if check.interval is not None:
        low, high = check.interval
        middle = (low + high) / 2
        axes.errorbar([0.0], [middle], yerr=[(high - low) / 2], color="red", capsize=4, label="95 % interval")
    axes.set(xlabel="t", ylabel="u(t, X)", title="along paths")
    axes.legend()


def _draw_errors(axes: Axes, solution: Solution, seed: int) -> None:
    found = solution.along_paths(_MEASURED, seed)
    if found.exact is None:
        return
    scale = found.exact.square().mean(0).sqrt()
    error = ((found.u - found.exact).square().mean(0).sqrt() / scale).cpu().numpy()
    shown = np.where(error > 1e-3 * error.max(), error, np.nan)  # none at the horizon, where it is given
    axes.plot(found.times.cpu().numpy(), shown, color="C0")
    axes.set(yscale="log", xlabel="t", title=f"relative L2 error over {_MEASURED} paths")


def _draw_training(axes: Axes, solution: Solution) -> None:
    """The loss, and the errors if the truth is known; a loss below zero is shown by its size."""
    seconds = list(itertools.accumulate(row.get("seconds", 0.0) for row in solution.history))
    names = {"loss": "|loss|", "error": "error at (0, x0)", "path_error": "error along paths"}
    for name, label in names.items():
        values = [abs(row[name]) for row in solution.history if name in row]
        if len(values) == len(seconds) and values:
            axes.plot(seconds, values, marker=".", label=label)
    axes.set(yscale="log", xlabel="seconds", title="training")
    if solution.history:
        axes.legend()
