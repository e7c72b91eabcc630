"""What a study runs: a grid of options, what is fixed, extra runs, and the function that does one run."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml

from tnml.checks import whole
from tnml.errors import InputError, choose
from tnml.study.plain_values import canonical, plain, run_id

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
RUNS = "runs"  # as a key of `smoke`: the extra runs


@dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of runs, all done by one function; checked when it is made.

    Args:
        name: letters, digits, "-", "_" and ".".
        runner: "package.module:function", a function `(options: dict, folder: Path) -> dict`. It has to be
            at a module's top level, where every worker can import it. What it returns (numbers, texts, lists,
            and `history`, a list of dictionaries) is stored; what it writes into the folder stays there, and
            is there again when an interrupted run is started again.
        grid: names of options and the values each takes; every combination is a run, the last name fastest.
        fixed: options that are the same in all runs.
        runs: more runs, each the options in which it differs from `fixed`.
        smoke: what a quick trial changes: other values of the grid (a list), of fixed options (which
            count for the extra runs, too), or, under the name "runs", other extra runs.
        group: names of options in which runs may differ and still be done together ("seed",).
        group_runner: "package.module:function" that does such runs at once, a function
            `(options: list[dict], folders: list[Path]) -> list[dict]`; None does them one by one.
        about: one line that says what the study is.

    Raises:
        InputError: a name or a value cannot be used.

    Example:
        >>> study = Study(name="widths", runner="my.runs:one", grid={"bond_dim": [2, 4], "seed": range(3)})
        >>> len(study.options()), study.options()[1]
        (6, {'bond_dim': 2, 'seed': 1})
    """

    name: str
    runner: str
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    runs: Sequence[Mapping[str, Any]] = ()
    smoke: Mapping[str, Any] = field(default_factory=dict)
    group: tuple[str, ...] = ()
    group_runner: str | None = None
    about: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise InputError(
                f"a study's name is made of letters, digits, '-', '_' and '.', got {self.name!r}"
            )
        _check_function("runner", self.runner)
        if self.group_runner is not None:
            _check_function("group_runner", self.group_runner)
        for name in ("grid", "fixed", "smoke"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name} must map names to values, got {type(getattr(self, name)).__name__}")
        for name, values in self.grid.items():
            _check_values(name, values)
        _check_runs(self.runs)
        if twice := sorted(set(self.grid) & set(self.fixed)):
            raise InputError(f"{twice[0]!r} is in the grid and fixed; leave it out of one of them")
        self._check_group()
        _check_smoke(self)
        found = [canonical(options) for options in self._all()]
        if not found:
            raise InputError(f"the study {self.name} has no runs; give it a grid, or runs")

    def _check_group(self) -> None:
        if isinstance(self.group, str) or not isinstance(self.group, Sequence):
            raise InputError(f'group must be a tuple of names such as ("seed",), got {self.group!r}')
        known = dict.fromkeys([*self.grid, *self.fixed, *(name for run in self.runs for name in run)])
        for name in self.group:
            choose("option in group", name, known)
        if self.group_runner is not None and not self.group:
            raise InputError('group_runner needs group, the options in which its runs differ: ("seed",)')

    def _all(self) -> Iterator[dict[str, Any]]:
        if self.grid:
            for values in itertools.product(*self.grid.values()):
                yield {**self.fixed, **dict(zip(self.grid, values, strict=True))}
        for run in self.runs:
            yield {**self.fixed, **run}

    def options(self) -> list[dict[str, Any]]:
        """The options of every run, each run once: first the grid, then the extra runs.

        Example:
            >>> Study(name="a", runner="m:f", grid={"seed": [0, 1]}, runs=[{"seed": 1}]).options()
            [{'seed': 0}, {'seed': 1}]
        """
        found: dict[str, dict[str, Any]] = {}
        for options in self._all():
            found.setdefault(run_id(options), plain(options))
        return list(found.values())

    def option_names(self) -> list[str]:
        """The names of all options: those of the grid, the fixed ones, those of extra runs.

        Example:
            >>> Study(name="a", runner="m:f", grid={"seed": [0]}, fixed={"lr": 0.1}).option_names()
            ['seed', 'lr']
        """
        return list(dict.fromkeys([*self.grid, *self.fixed, *(name for run in self.runs for name in run)]))

    def smoked(self) -> "Study":
        """The quick trial of this study: `smoke` put in, under the same name.

        Example:
            >>> full = Study(name="a", runner="m:f", grid={"seed": range(9)}, smoke={"seed": [0]})
            >>> len(full.smoked().options())
            1
        """
        changes = dict(self.smoke)
        runs = changes.pop(RUNS, self.runs)
        grid = {name: changes.pop(name, values) for name, values in self.grid.items()}
        return replace(
            self,
            grid=grid,
            fixed={**self.fixed, **changes},
            runs=[{**run, **{n: v for n, v in changes.items() if n in run}} for run in runs],
            smoke={},
        )

    def seeded(self, count: int) -> "Study":
        """This study with the seeds 0 to `count` - 1.

        Raises:
            InputError: `count` is less than 1, or there are no seeds in the grid.

        Example:
            >>> len(Study(name="a", runner="m:f", grid={"seed": [0]}).seeded(5).options())
            5
        """
        if "seed" not in self.grid:
            raise InputError(f"the grid of {self.name} has no seed; its options are {list(self.grid)}")
        count = whole("the number of seeds", count, 1)
        return replace(self, grid={**self.grid, "seed": list(range(count))})

    def record(self) -> dict[str, Any]:
        """The study as `study.json` keeps it and `from_record` reads it.

        Example:
            >>> study = Study(name="a", runner="m:f", grid={"seed": range(2)})
            >>> Study.from_record(study.record()).options()
            [{'seed': 0}, {'seed': 1}]
        """
        taken: dict[str, Any] = plain({f.name: getattr(self, f.name) for f in fields(self)}, "study")
        return taken

    @classmethod
    def from_record(cls, content: Mapping[str, Any], source: str = "study") -> "Study":
        """A study from a dictionary.

        Args:
            content: values by the names of the arguments.
            source: what the error should call it.

        Raises:
            InputError: unknown or missing names, or values that cannot be used.

        Example:
            >>> Study.from_record({"name": "a", "runer": "m:f"})
            Traceback (most recent call last):
            tnml.errors.InputError: study: unknown entry 'runer'; did you mean 'runner'... Choose from: ...
        """
        known = {f.name: f for f in fields(cls)}
        try:
            for name in content:
                choose("entry", name, known)
            if missing := [name for name in ("name", "runner") if name not in content]:
                raise InputError(f"the entry {missing[0]} is missing")
            values = dict(content)
            if isinstance(values.get("group"), list):
                values["group"] = tuple(values["group"])
            values["runs"] = values.get("runs", [])
            return cls(**values)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """YAML where 1e-3 is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def read_study_file(path: Path) -> Study:
    """The study in a YAML file, its entries those of `Study`.

    Raises:
        InputError: no such file, not YAML, or not a study.

    Example:
        >>> read_study_file(Path("nowhere.yaml"))
        Traceback (most recent call last):
        tnml.errors.InputError: cannot read the study in nowhere.yaml: No such file ...; check the path
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise InputError(f"cannot read the study in {path}: {reason}; check the path") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML ({error}); correct it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a study: name, runner, grid, fixed")
    return Study.from_record(content, str(path))


def function_of(what: str, text: str) -> Callable[..., Any]:
    """The function "package.module:function".

    Raises:
        InputError: it cannot be imported, or is not a function.

    Example:
        >>> function_of("runner", "math:sqrt")(4.0)
        2.0
    """
    _check_function(what, text)
    try:
        found = resolve_name(text)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"cannot load the {what} {text!r} ({error}); is its folder on PYTHONPATH, its name right?"
        ) from error
    if not callable(found):
        raise InputError(f"the {what} {text!r} is no function but a {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # `callable` has looked at it


def _check_function(what: str, text: object) -> None:
    if not isinstance(text, str) or not FUNCTION.fullmatch(text):
        raise InputError(f"{what} must be 'package.module:function', got {text!r}")


def _check_values(name: str, values: object) -> None:
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if not is_list and not hasattr(values, "tolist"):
        raise InputError(f"the grid needs a list of values for {name!r}, got {values!r}; write [{values!r}]")
    if len(values) == 0:  # type: ignore[arg-type]  # a list or an array
        raise InputError(f"the grid has no values for {name!r}; give some, or leave it out")


def _check_runs(runs: object) -> None:
    if isinstance(runs, str) or not isinstance(runs, Sequence):
        raise InputError(f"runs must be a list of options, got {runs!r}")
    for run in runs:
        if not isinstance(run, Mapping):
            raise InputError(f"each of runs must map names to values, got {run!r}")


def _check_smoke(study: Study) -> None:
    known = dict.fromkeys([*study.grid, *study.fixed, RUNS])
    for name, value in study.smoke.items():
        choose("option in smoke", name, known)
        if name in study.grid:
            _check_values(name, value)
        elif name == RUNS:
            _check_runs(value)
