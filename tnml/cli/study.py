"""`tnml study`: many runs over a grid of options, started, continued, monitored and reported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from tnml import report
from tnml.checks import whole
from tnml.cli.actions import Action, act
from tnml.cli.console import complain, facts, say
from tnml.cli.parsing import new_parser, parse
from tnml.files import user_path
from tnml.study import STUDIES, StudyProgress, Table, default_folder, find_study, read_table, run_id
from tnml.study import run as run_study
from tnml.study.grid import Study
from tnml.study.store import Store

FAILED, INTERRUPTED = 1, 130
MOST = 100_000
ABOUT = (
    "Many runs over a grid of options, on all cores or a Dask cluster. A study may be stopped, or crash, at "
    "any time: what is finished is kept, and the same command continues it. `tnml study ACTION --help` shows "
    "the options of an action."
)
EXAMPLES = (
    "tnml study list",
    "tnml study run NAME --smoke",
    "tnml study run mine.yaml --folder results --workers 2",
    "tnml study status results",
    "tnml study resume results",
    "tnml study report results",
)


def run(words: Sequence[str]) -> int:
    """The exit code of `tnml study` with these arguments: 0, or 1 if runs have failed.

    Raises:
        InputError: an argument is invalid.

    Example:
        >>> run(["status", "nowhere"])
        Traceback (most recent call last):
        tnml.errors.InputError: there is no study in nowhere: it holds no study.json; check the path
    """
    return act("tnml study", ABOUT, ACTIONS, EXAMPLES, words)


def _list(words: Sequence[str]) -> int:
    """Shows every study that is known by name."""
    parse(new_parser("tnml study list", "Lists the studies known by name.", ["tnml study list"]), words)
    width = max((len(name) for name in STUDIES), default=0)
    for name, study in STUDIES.items():
        runs, quick = len(study.options()), len(study.smoked().options())
        say(f"{name:<{width}}  {runs} runs ({quick} with --smoke)  {study.about}".rstrip())
    say("next: tnml study run NAME --smoke, or a study of your own: tnml study run FILE.yaml")
    return 0


def _run(words: Sequence[str]) -> int:
    """Does all runs of a study that are not finished yet."""
    parser = new_parser(
        "tnml study run STUDY [options]",
        "Does all runs of a study. What is finished is kept: the same command continues a study that was "
        "stopped, and adds runs for new values in its grid.",
        [line for line in EXAMPLES if " run " in line],
    )
    parser.add_argument("study", metavar="STUDY", help="a name from `tnml study list`, or a YAML file")
    parser.add_argument(
        "--folder",
        type=str,
        metavar="FOLDER",
        help="folder of the study; null: runs/study-NAME, or -NAME-smoke",
    )
    parser.add_argument("--smoke", action="store_true", help="a quick trial: few and short runs")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1; null: those of the study")
    _add_workers(parser)
    asked = parse(parser, words)
    study = find_study(asked.study)
    if asked.smoke:
        study = study.smoked()
    if asked.seeds is not None:
        study = study.seeded(whole("--seeds", asked.seeds, 1, MOST))
    folder = default_folder(study, smoke=asked.smoke) if asked.folder is None else user_path(asked.folder)
    return _go(study, folder, asked)


def _resume(words: Sequence[str]) -> int:
    """Continues the study in a folder."""
    parser = _folder_parser("resume", "Continues a study that was stopped; failed runs are tried again.")
    _add_workers(parser)
    asked = parse(parser, words)
    return _go(Store(asked.folder).study(), user_path(asked.folder), asked)


def _add_workers(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes; null: one per core; 0: only this process",
    )
    parser.add_argument(
        "--scheduler",
        type=str,
        metavar="ADDRESS",
        help="a Dask scheduler, tcp://host:8786; null: this machine",
    )
    parser.add_argument("--retries", type=int, default=1, help="how many more times a failed run is tried")
    parser.add_argument(
        "--replicas",
        type=str,
        default="auto",
        help="largest number of runs trained together; auto: what the study allows",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="wait for another process that runs this study, instead of an error",
    )


def _go(study: Study, folder: Path, asked: Namespace) -> int:
    """Runs the study in the folder, with the options of `_add_workers`."""
    if asked.workers is not None:
        whole("--workers", asked.workers, 0, MOST)
    whole("--retries", asked.retries, 0, MOST)
    replicas: Any = int(asked.replicas) if asked.replicas.isdecimal() else asked.replicas
    runs = len(study.options())
    say(
        facts(
            [
                ("study", f"{study.name}, {runs} runs"),
                ("folder", f"{folder} (Ctrl-C stops it, resume continues it)"),
            ]
        )
    )
    busy = Store(folder).driver()
    if asked.wait and busy:
        say(f"waiting for the process that runs this study: {busy}")
    try:
        table = run_study(
            study,
            folder=folder,
            scheduler=asked.scheduler,
            workers=asked.workers,
            retries=asked.retries,
            replicas=replicas,
            wait=asked.wait,
            reporter=StudyProgress(),
        )
    except KeyboardInterrupt:
        complain(f"stopped; continue with `tnml study resume {quote(str(folder))}`", title="tnml")
        return INTERRUPTED
    say()
    return _closing(table, folder)


def _closing(table: Table, folder: Path) -> int:
    """Shows what is done, and what to do next."""
    say(facts([("done", len(table.rows)), ("failed", len(table.failed)), ("table", folder / "table.csv")]))
    for identity, error in table.failed.items():
        say(f"  runs/{identity}/error.txt: {error}")
    if table.failed:
        say(f"next: tnml study resume {quote(str(folder))} tries the failed runs again")
        return FAILED
    say(f"next: tnml study report {quote(str(folder))}")
    return 0


def _folder_parser(action: str, description: str) -> ArgumentParser:
    parser = new_parser(f"tnml study {action} FOLDER", description, [f"tnml study {action} runs/study-NAME"])
    parser.add_argument("folder", metavar="FOLDER", help="folder of the study")
    return parser


def _status(words: Sequence[str]) -> int:
    """Counts the runs."""
    asked = parse(_folder_parser("status", "Shows the progress of a study, and why runs failed."), words)
    store = Store(asked.folder)
    study = store.study()
    counts = store.counts(study)
    driver = store.driver()
    say(
        facts(
            [
                ("study", f"{study.name}, {counts.total} runs"),
                *((name, getattr(counts, name)) for name in counts._fields),
                ("run by", driver or "no process now"),
            ]
        )
    )
    for options in study.options():
        identity = run_id(options)
        if store.state(identity) == "failed":
            last = store.error(identity).strip().splitlines()[-1]
            say(f"  runs/{identity} failed {store.failures(identity)} times: {last}")
    if driver is None and counts.done < counts.total:
        say(f"next: tnml study resume {quote(asked.folder)}")
    return 0


def _table(words: Sequence[str]) -> int:
    """Writes the table again; also while the study runs."""
    asked = parse(_folder_parser("table", "Writes table.csv and table.parquet of the finished runs."), words)
    table = read_table(Store(asked.folder))
    for path in table.write(user_path(asked.folder)):
        say(f"table: {path} ({len(table.rows)} runs)")
    return 0


def _report(words: Sequence[str]) -> int:
    """Writes the page about the study; also while it runs."""
    asked = parse(_folder_parser("report", "Writes one HTML page about the finished runs."), words)
    Store(asked.folder).study()  # raises if there is no study
    say(f"report: {report.study_page(user_path(asked.folder))}")
    return 0


ACTIONS: Mapping[str, Action] = {
    "list": Action("the studies known by name", _list),
    "run": Action("do all runs of a study; finished runs are kept", _run),
    "status": Action("how many runs are done, running, failed and waiting, and why some failed", _status),
    "resume": Action("continue the study in a folder", _resume),
    "table": Action("write the table of the finished runs again", _table),
    "report": Action("write one HTML page about the finished runs", _report),
}
