"""`tnml pde`: parabolic equations by name, solved, measured and drawn."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

import yaml
from jsonargparse import ArgumentParser

from tnml import report
from tnml.checks import whole
from tnml.cli.actions import Action, act
from tnml.cli.console import complain, facts, rank, say, table
from tnml.cli.parsing import MAX_SEED, new_parser, parse
from tnml.cli.pde_request import PdeRequest, read_request
from tnml.cli.runs import MODEL, OPTIONS, RUNS, discard_unused, next_free, remove_leftovers
from tnml.errors import InputError
from tnml.files import user_path, write_text
from tnml.pde import Check, Problem, Solution, SolveOptions, solve
from tnml.pde.equations.table import PROBLEMS, problem
from tnml.pde.losses.deep_bsde import hidden_widths
from tnml.training import ProgressReporter

CHECK = "check.json"
INTERRUPTED = 130
LEAST_SECONDS = 10.0  # of a check, at least; else a tenth of the training time
MOST_PATHS = 100_000
ABOUT = (
    "Parabolic equations in many dimensions, solved by networks along random paths. `tnml pde ACTION --help` "
    "shows the options of an action, `tnml pde solve NAME --help` also those of a problem."
)
EXAMPLES = (
    "tnml pde list",
    "tnml pde solve bsb --problem.dim 10",
    "tnml pde evaluate runs/bsb-001",
    "tnml pde figure runs/bsb-001 --out bsb.png",
)


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml pde` with these arguments.

    Raises:
        InputError: an argument is invalid.

    Example:
        >>> run(["list", "--all"])
        Traceback (most recent call last):
        tnml.errors.InputError: unknown option --all. See `tnml pde --help`
    """
    return act("tnml pde", ABOUT, ACTIONS, EXAMPLES, words)


def _list(words: Sequence[str]) -> int:
    """Shows every problem with its defaults."""
    parse(new_parser("tnml pde list", "Lists the problems known by name.", ["tnml pde list"]), words)
    rows = []
    for name, maker in PROBLEMS.items():
        made = maker()
        about = (maker.__doc__ or "").strip().splitlines()[0]
        rows.append([name, str(made.dim), f"{made.horizon:g}", _known(made), about])
    say(_left(["name", "dim", "horizon", "truth", "equation"], rows))
    say("\nnext: tnml pde solve NAME; `tnml pde solve NAME --help` shows --problem.* and all other options")
    return 0


def _known(made: Problem) -> str:
    if made.exact is not None:
        return "everywhere"
    return "at (0, x0)" if made.reference is not None else "not known"


def _left(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under a heading, all aligned left."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _solve(words: Sequence[str]) -> int:
    """Solves a problem; options, checkpoints, metrics and the model file go into the folder of the run."""
    request = read_request(words)
    made = problem(request.name, **request.problem)
    options = request.solve.settled(made)  # raises before anything is written
    main, folder = rank() == 0, request.resume
    try:
        if folder is None:
            folder = _folder(request, claim=main)
        elif main:
            remove_leftovers(folder)
        say(_opening(options, made, folder, resumed=request.resume is not None))
        try:
            solution = solve(
                made,
                options=request.solve,
                run_dir=folder,
                resume=request.resume is not None,
                reporter=ProgressReporter(),
            )
        except InputError:
            if main and request.resume is None:
                discard_unused(folder)
            raise
    except KeyboardInterrupt:
        if folder is None:
            raise
        if main:
            complain(f"stopped; continue with `tnml pde solve --resume {quote(str(folder))}`", title="tnml")
        return INTERRUPTED
    if main:
        model = folder / MODEL
        solution.save(model)
        check = solution.checked or solution.check(seconds=max(LEAST_SECONDS, solution.seconds / 10))
        write_text(folder / CHECK, json.dumps(check.record(), indent=2) + "\n")
        say(
            f"\n{_final(solution, check)}\n\nmodel: {model}\n"
            f"next: tnml pde figure {quote(str(folder))} --out {made.name}.png"
        )
    return 0


def _folder(request: PdeRequest, *, claim: bool) -> Path:
    """The folder of a new run with its `options.yaml`; made by one process only."""
    out = request.out
    if not claim:
        return out or RUNS / "unnamed"
    if out is not None and (out / OPTIONS).exists():
        raise InputError(
            f"{out} already holds a run; continue it with --resume {out}, or choose another --out"
        )
    folder = out or next_free(RUNS, request.name)
    remove_leftovers(folder)
    write_text(folder / OPTIONS, yaml.safe_dump(request.record(), sort_keys=False))
    return folder


def _opening(options: SolveOptions, made: Problem, folder: Path, *, resumed: bool = False) -> str:
    """A description of the run, shown before it starts."""
    if options.loss == "deep-bsde":
        loss = "deep-bsde loss"
        layers = " and ".join(map(str, hidden_widths(made.dim)))
        kind = f"one for each of {options.time_steps - 1} time steps, hidden layers of {layers}, tanh"
    else:
        loss = f"{options.loss} loss, {options.terminal} terminal condition"
        kind = f"{options.network}, {options.depth} hidden layers of {options.width}, {options.activation}"
        if options.network == "tnn":
            kind += f", rank {options.rank}"
    loop, steps = options.loop()
    count = f"{loop.epochs * steps:,} iterations"
    if options.max_seconds is not None:
        count += f", or as many as fit into {options.max_seconds:g} s"
    if options.seconds is not None:
        count = f"strategies compared for {options.seconds:g} s"
    elif resumed:
        count = "as many iterations as the run began with"
    return facts(
        [
            ("problem", f"{made.name}, d = {made.dim}, horizon {made.horizon:g}"),
            ("network", kind),
            ("training", f"{loss}, {count}"),
            ("paths", f"{options.paths} of {options.time_steps} steps each"),
            ("run", f"{folder} (Ctrl-C stops it, --resume continues it)"),
        ]
    )


def _final(solution: Solution, check: Check, paths: int = 256, sets: int = 4, seed: int = 0) -> str:
    """The table that is shown at the end."""
    rows = solution.summary(solution.relative_error(paths=paths, sets=sets, seed=seed), check)
    head = f"{solution.problem.name}, d = {solution.problem.dim}"
    return table([head, ""], rows)


def _evaluate(words: Sequence[str]) -> int:
    """Measures a stored solution."""
    parser = _model_parser("evaluate", "Measures a solution against the truth, along fresh paths.")
    parser.add_argument("--paths", type=int, default=256, help="number of paths, in all sets together")
    parser.add_argument(
        "--sets", type=int, default=4, help="number of independent sets of paths, for the spread"
    )
    parser.add_argument("--check_paths", type=int, default=1024, help="number of paths of the check")
    parser.add_argument("--seed", type=int, default=0, help="seed of the paths")
    asked = parse(parser, words)
    whole("--check_paths", asked.check_paths, 16, MOST_PATHS)
    whole("--sets", asked.sets, 2, 1000)
    whole("--paths", asked.paths, asked.sets, MOST_PATHS)
    whole("--seed", asked.seed, 0, MAX_SEED)
    solution = _opened(asked.model)
    check = solution.check(paths=asked.check_paths, seed=asked.seed)
    say(_final(solution, check, asked.paths, asked.sets, asked.seed))
    return 0


def _figure(words: Sequence[str]) -> int:
    """Draws a stored solution."""
    parser = _model_parser(
        "figure", "Draws a solution along paths, its error against time, and the training."
    )
    parser.add_argument(
        "--out", type=str, metavar="FILE", required=True, help="where to write the figure: .png, .pdf or .svg"
    )
    parser.add_argument("--paths", type=int, default=5, help="number of paths to draw")
    parser.add_argument("--seed", type=int, default=0, help="seed of the paths")
    asked = parse(parser, words)
    whole("--paths", asked.paths, 1, 100)
    whole("--seed", asked.seed, 0, MAX_SEED)
    report.figure_format(asked.out)
    solution = _opened(asked.model)
    report.save_figure(report.solution_figure(solution, paths=asked.paths, seed=asked.seed), asked.out)
    say(f"figure: {asked.out}")
    return 0


def _model_parser(action: str, description: str) -> ArgumentParser:
    extra = " --out solution.png" if action == "figure" else ""
    parser = new_parser(
        f"tnml pde {action} MODEL [options]", description, [f"tnml pde {action} runs/bsb-001{extra}"]
    )
    parser.add_argument("model", metavar="MODEL", help="a model file, or the folder of a run")
    return parser


def _opened(path: str) -> Solution:
    """The solution in a model file, or in the folder of a run."""
    place = user_path(path)
    if place.is_dir():
        place = place / MODEL
        if not place.exists():
            raise InputError(
                f"{path} holds no {MODEL}; is its run unfinished? "
                f"`tnml pde solve --resume {path}` continues it"
            )
    return Solution.load(place)


ACTIONS: Mapping[str, Action] = {
    "list": Action("the problems known by name", _list),
    "solve": Action("solve one and keep the solution in a model file", _solve),
    "evaluate": Action("measure a solution against the truth, along fresh paths", _evaluate),
    "figure": Action("draw a solution along paths, its error against time, and the training", _figure),
}
