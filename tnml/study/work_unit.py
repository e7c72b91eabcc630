"""What is handed out to a worker: one run, or several that are done together."""

import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tnml.checks import is_whole
from tnml.errors import InputError
from tnml.study.grid import Study, function_of
from tnml.study.plain_values import canonical, plain, run_id
from tnml.study.store import STUDY, Store


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Runs that one call of a function does. All that a worker needs to know.

    Args:
        folder: of the study, as every worker sees it.
        function: "package.module:function".
        runs: the options of each run.
        together: whether the function takes a list of runs (a `group_runner`) or one.
        tries: how many times the runs may be tried in all.
        tried: how many times they were tried and failed.

    Example:
        >>> Unit(folder=".", function="m:f", runs=({"seed": 0},), together=False).ids
        ('bd0488843468e63c',)
    """

    folder: str
    function: str
    runs: tuple[Mapping[str, Any], ...]
    together: bool
    tries: int = 1
    tried: int = 0

    @property
    def ids(self) -> tuple[str, ...]:
        """The names of the runs."""
        return tuple(run_id(options) for options in self.runs)


def perform(unit: Unit) -> dict[str, str | None]:
    """Does the runs of a unit that are not done yet, and stores what they return or how they failed.

    Waits for any other worker at the same runs; what that one finished is not done again.

    Returns:
        For each run None, or the last line of its error.

    Raises:
        InputError: the folder of the study is not there.
    """
    store = Store(unit.folder)
    if not (store.folder / STUDY).is_file():
        raise InputError(
            f"this worker sees no study in {unit.folder}; give a --folder on a disk that all workers share"
        )
    with store.working(unit.ids):
        left = [options for options in unit.runs if not store.done(run_id(options))]
        errors: dict[str, str | None] = dict.fromkeys(unit.ids)
        if not left:
            return errors
        ids = [run_id(options) for options in left]
        folders = [store.begin(options) for options in left]
        try:
            results = _results(unit, [plain(options) for options in left], folders)
            for identity, result in zip(ids, results, strict=True):
                store.finish(identity, result)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a run may fail in any way: the study goes on)
            text = traceback.format_exc()
            for identity in ids:
                if not store.done(identity):
                    store.fail(identity, text)
                    errors[identity] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return errors


def _results(unit: Unit, options: list[dict[str, Any]], folders: list[Path]) -> Sequence[Mapping[str, Any]]:
    function = function_of("group_runner" if unit.together else "runner", unit.function)
    if not unit.together:
        return [function(options[0], folders[0])]
    results = function(options, folders)
    if not isinstance(results, Sequence) or len(results) != len(options):
        raise InputError(f"{unit.function} must return a list of {len(options)} results, one for each run")
    return results


def units(
    study: Study,
    runs: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    *,
    replicas: int | str = "auto",
    workers: int = 1,
    retries: int = 0,
) -> list[Unit]:
    """The runs as they are handed out.

    Args:
        study: says which function does them and which runs may be done together.
        runs: the options of those to do.
        folder: of the study.
        replicas: how many runs are done together at most, where the study can; "auto" takes all that differ
            in `group` only, and splits them where there would be fewer units than workers.
        workers: how many units can be done at once.
        retries: how many more times a run that failed is tried.

    Raises:
        InputError: `replicas` is neither "auto" nor a whole number of at least 1.

    Example:
        >>> grid = {"d": [2, 4], "seed": range(3)}
        >>> study = Study(name="a", runner="m:f", grid=grid, group=("seed",), group_runner="m:g")
        >>> [len(unit.runs) for unit in units(study, study.options(), ".")]
        [3, 3]
        >>> len(units(study, study.options(), ".", replicas=1))
        6
    """
    check_replicas(replicas)
    place, tries = os.path.abspath(folder), 1 + retries  # noqa: PTH100 (no links resolved)
    if study.group_runner is None or replicas == 1:
        return [_single(study.runner, place, options, tries) for options in runs]
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for options in runs:
        rest = canonical({name: value for name, value in options.items() if name not in study.group})
        alike.setdefault(rest, []).append(options)
    found = []
    for members in alike.values():
        most = -(-len(members) // -(-workers // len(alike))) if isinstance(replicas, str) else replicas
        for part in (members[i : i + most] for i in range(0, len(members), most)):
            if len(part) == 1:
                found.append(_single(study.runner, place, part[0], tries))
            else:
                together = Unit(
                    folder=place, function=study.group_runner, runs=tuple(part), together=True, tries=tries
                )
                found.append(together)
    return found


def check_replicas(replicas: object) -> None:
    """Raises unless it is "auto" or a whole number of at least 1.

    Raises:
        InputError: it is not.

    Example:
        >>> check_replicas(8)
    """
    if replicas != "auto" and not is_whole(replicas, 1):
        raise InputError(f"replicas must be 'auto' or a whole number, at least 1, got {replicas!r}")


def after_failure(unit: Unit, failed: Sequence[str], runner: str) -> list[Unit]:
    """The units that try the failed runs once more; empty where they were tried often enough.

    Runs that failed together are tried again one by one, whatever the number of retries: one of them may
    have taken the others along.
    """
    runs = [options for options in unit.runs if run_id(options) in failed]
    tried = 0 if unit.together else unit.tried + 1
    if tried >= unit.tries:
        return []
    return [_single(runner, unit.folder, options, unit.tries, tried) for options in runs]


def _single(runner: str, folder: str, options: Mapping[str, Any], tries: int, tried: int = 0) -> Unit:
    return Unit(folder=folder, function=runner, runs=(options,), together=False, tries=tries, tried=tried)
