"""A study in one process: results, failures, interruptions, groups, and the table."""

import csv
import io
import threading
from pathlib import Path
from typing import Any

import pytest

from tnml.errors import InputError
from tnml.study import Store, Study, StudyProgress, Table, read_table, run, run_id
from tnml.study.progress import StudyView
from tnml.study.work_unit import Unit, perform

STUDY = Study(
    name="a", runner="study_runs:one", grid={"x": [3, 1], "seed": [0, 1]}, fixed={"pause": 0.0, "log": None}
)
MOODY = "study_runs:moody"
OBJECT = (
    "tnml.errors.InputError: result.value must be made of numbers, texts, None, lists and dictionaries, "
    "got object"
)


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch, project_root: Path) -> None:
    monkeypatch.syspath_prepend(str(project_root / "tests" / "programs"))


def here(study: Study, folder: Path, **options: Any) -> Table:
    return run(study, folder=folder, workers=0, **options)


def moods(*kinds: str) -> Study:
    return Study(name="moods", runner=MOODY, grid={"kind": list(kinds)})


def tries(folder: Path, kind: str) -> int:
    return len((Store(folder).run_folder(run_id({"kind": kind})) / "tries").read_text())


def test_every_run_and_the_table(tmp_path: Path) -> None:
    table = here(STUDY, tmp_path)
    assert table.columns == ["run", "x", "seed", "pause", "log", "value"]
    expected = [(x, seed, 30.0 * x + 3 * seed + 3) for x in (3, 1) for seed in (0, 1)]
    found = [table.column(name) for name in ("x", "seed", "value")]
    assert list(zip(*found, strict=True)) == expected
    assert table.column("run") == [run_id(options) for options in STUDY.options()]
    assert (table.failed, table.waiting) == ({}, 0)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(int(r["x"]), int(r["seed"]), float(r["value"])) for r in rows] == expected
    history = Store(tmp_path).result(table.rows[0]["run"])["history"]  # type: ignore[index]
    assert [row["value"] for row in history] == [30.0, 31.0, 32.0]


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    logged = Study(name="a", runner="study_runs:one", grid=STUDY.grid, fixed={"pause": 0.0, "log": str(log)})
    first = here(logged, tmp_path / "s").text()
    store = Store(tmp_path / "s")
    again = store.run_folder(run_id(logged.options()[2])) / "result.json"
    again.unlink()
    (store.folder / "table.csv").unlink()
    assert here(logged, tmp_path / "s").text() == first == (store.folder / "table.csv").read_text()
    lines = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(lines) == sorted([*(run_id(o) for o in logged.options()), again.parent.name])
    grown = Study(name="a", runner=logged.runner, grid={"x": [3, 1, 2], "seed": [0, 1]}, fixed=logged.fixed)
    assert len(here(grown, tmp_path / "s").rows) == 6
    assert len(log.read_text().splitlines()) == 7


def test_a_run_goes_on_from_what_it_saved(tmp_path: Path) -> None:
    folder = Store(tmp_path).run_folder(run_id(STUDY.options()[0]))
    folder.mkdir(parents=True)
    (folder / "steps.json").write_text("[1000.0, 1000.0]")
    assert here(STUDY, tmp_path).column("value")[0] == 2000.0 + 32.0


def test_a_damaged_record_of_the_study_is_written_again(tmp_path: Path) -> None:
    before = here(STUDY, tmp_path)
    (tmp_path / "study.json").write_text("{")
    assert list(here(STUDY, tmp_path).rows) == list(before.rows)
    assert Store(tmp_path).study().name == "a"


def test_a_quick_trial_runs_in_this_process(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say what a quick trial changes"):
        run(STUDY, folder=tmp_path / "none", smoke=True)
    quick = Study(name="a", runner=STUDY.runner, grid=STUDY.grid, fixed=STUDY.fixed, smoke={"x": [2]})
    table = run(quick, folder=tmp_path / "quick", smoke=True)  # no worker process would find study_runs
    assert [row["x"] for row in table.rows] == [2, 2]


def test_failures_do_not_stop_a_study(tmp_path: Path) -> None:
    table = here(moods("always", "once", "exits", "fine", "list", "object"), tmp_path, retries=1)
    assert table.column("kind") == ["once", "fine"]
    assert sorted(table.failed.values()) == [
        "SystemExit: 3",
        "ValueError: this one never works",
        "tnml.errors.InputError: a runner must return a dictionary, got list",
        OBJECT,
    ]
    assert [tries(tmp_path, kind) for kind in ("always", "once", "exits", "fine")] == [2, 2, 2, 1]
    store = Store(tmp_path)
    failed = run_id({"kind": "always"})
    assert store.failures(failed) == 2
    assert store.error(failed).count("Traceback (most recent call last)") == 2
    assert here(store.study(), tmp_path, retries=0).failed.keys() == table.failed.keys()
    assert [tries(tmp_path, kind) for kind in ("always", "once", "fine")] == [3, 2, 1]


def test_an_interrupted_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import study_runs  # on the path that the fixture set

    def interrupted(options: dict[str, Any], folder: Path) -> dict[str, Any]:
        if options["kind"] == "b":
            raise KeyboardInterrupt
        return {"value": 1}

    monkeypatch.setattr(study_runs, "moody", interrupted)
    with pytest.raises(KeyboardInterrupt):
        here(moods("a", "b", "c"), tmp_path)
    assert (tmp_path / "table.csv").read_text().splitlines()[1:] == [f"{run_id({'kind': 'a'})},a,1"]
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(Path(study_runs.__file__).parent))
    table = here(moods("a", "b", "c"), tmp_path)
    assert table.column("kind") == ["a", "b", "c"]


def grouped(xs: list[int]) -> Study:
    return Study(
        name="g",
        runner="study_runs:one",
        grid={"x": xs, "seed": [0, 1, 2]},
        fixed=STUDY.fixed,
        group=("seed",),
        group_runner="study_runs:together",
    )


def test_groups_give_the_same_table(tmp_path: Path) -> None:
    study = grouped([1, 2])
    together, alone = here(study, tmp_path / "a"), here(study, tmp_path / "b", replicas=1)
    assert together.text() == alone.text()
    notes = [sorted(p.read_text() for p in (tmp_path / n).rglob("together.txt")) for n in "ab"]
    assert notes == [["3", "3"], []]


def test_a_group_that_fails_is_done_one_by_one(tmp_path: Path) -> None:
    table = here(grouped([12, 13]), tmp_path, retries=0)
    assert table.column("value") == [30.0 * x + 3 * seed + 3 for x in (12, 13) for seed in (0, 1, 2)]
    store = Store(tmp_path)
    assert [store.failures(identity) for identity in table.column("run")] == [0, 0, 0, 1, 1, 1]


def test_two_workers_at_one_run(tmp_path: Path) -> None:
    """A worker that outlived its driver is waited for; its result is taken."""
    study = Study(name="s", runner="study_runs:slow", grid={"until": [str(tmp_path / "go")]})
    store, options = Store(tmp_path / "s"), study.options()[0]
    store.keep(study)
    unit = Unit(folder=str(store.folder), function=study.runner, runs=(options,), together=False)
    errors: list[dict[str, str | None]] = []
    workers = [threading.Thread(target=lambda: errors.append(perform(unit))) for _ in range(2)]
    for worker in workers:
        worker.start()
    begun = store.run_folder(run_id(options)) / "begun"
    while not begun.exists():
        workers[0].join(0.01)
    begun.unlink()
    assert store.state(run_id(options)) == "running"
    assert not workers[1].join(0.2), "one waits"
    (tmp_path / "go").touch()
    for worker in workers:
        worker.join()
    assert errors == [{run_id(options): None}] * 2
    assert not begun.exists(), "the second worker did not begin"


def test_a_worker_without_the_folder(tmp_path: Path) -> None:
    unit = Unit(folder=str(tmp_path / "no"), function=MOODY, runs=({"kind": "a"},), together=False)
    with pytest.raises(InputError, match=r"sees no study in .*give a --folder on a disk that all workers"):
        perform(unit)


def test_columns_of_a_table(tmp_path: Path) -> None:
    study = Study(name="t", runner="m:f", grid={"x": [1, 2]}, fixed={"train": {"lr": 0.1, "sizes": [3, 4]}})
    store = Store(tmp_path)
    store.keep(study)
    first, second = study.options()
    for options, result in (
        (first, {"x": 1, "train": {"lr": 0.1}, "fit": {"loss": 1e-7, "deep": {"a": None}}, "kind": "a"}),
        (second, {"x": 5, "fit": {"loss": 0.5}, "kind": 3, "best": [1, 2], "history": [{"epoch": 1}]}),
    ):
        store.begin(options)
        store.finish(run_id(options), result)
    table = read_table(store)
    names = ["run", "x", "train.lr", "train.sizes", "fit.loss", "fit.deep.a", "kind", "result.x", "best"]
    assert table.columns == names
    assert [table.column(name) for name in names[1:]] == [
        *(
            [1, 2],
            [0.1, 0.1],
            [[3, 4], [3, 4]],
            [1e-7, 0.5],
            [None, None],
            ["a", 3],
            [None, 5],
            [None, [1, 2]],
        )
    ]
    assert table.text().splitlines()[1].partition(",")[2] == '1,0.1,"[3, 4]",1e-07,,a,,'
    with pytest.raises(InputError, match="no column 'los'; it has run, x"):
        table.column("los")


def test_tables_for_other_programs(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is in the extra `study`")
    pytest.importorskip("pyarrow", reason="pyarrow is in the extra `study`")
    rows = [
        {"run": "a", "e": 0.1, "n": 1, "mixed": "x"},
        {"run": "b", "e": float("nan"), "mixed": 2, "l": [1]},
    ]
    table = Table(["run", "e", "n", "mixed", "l"], rows)
    table.write(tmp_path)
    frame = pandas.read_parquet(tmp_path / "table.parquet")
    assert list(frame.columns) == table.columns
    assert frame["e"][0] == 0.1
    assert frame["e"].isna().tolist() == [False, True]
    assert frame["mixed"].tolist() == ["x", "2"]
    assert frame["l"][1] == "[1]"
    assert table.frame()["n"][0] == 1
    first = (tmp_path / "table.parquet").read_bytes()
    table.write(tmp_path)
    assert (tmp_path / "table.parquet").read_bytes() == first
    Table(["run"], []).write(tmp_path)
    assert (tmp_path / "table.csv").read_text() == "run\n"


def test_what_a_person_sees(tmp_path: Path) -> None:
    shown = io.StringIO()
    here(moods("fine", "always"), tmp_path, reporter=StudyProgress(shown))
    failed = run_id({"kind": "always"})
    lines = [line.partition("  to go")[0] for line in shown.getvalue().splitlines()]
    error = "ValueError: this one never works"
    assert lines == [
        "run 1/2  running 1  failed 0",
        f"run {failed} failed, is tried again: {error}",
        f"run {failed} failed: {error}",
        "run 2/2  running 0  failed 1",
    ]


def test_time_to_go() -> None:
    view = StudyView(total=20, kept=5, done=8, failed=1, seconds=12.0)
    assert view.to_go == pytest.approx(12.0 / 4 * 11)
    assert StudyView(total=20, kept=5, done=5, seconds=3.0).to_go is None


def test_a_terminal_gets_a_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    screen = Terminal()
    progress = StudyProgress(screen)
    progress.start(StudyView(total=4))
    progress.update(StudyView(total=4, done=1, running=2, seconds=30.0))
    progress.failed("abc", "ValueError: [red]x", again=False)
    progress.stop()
    assert "run 1/4" in screen.getvalue()
    assert "to go 1 min 30 s" in screen.getvalue()
    assert "run abc failed: ValueError: [red]x" in screen.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "workers must be a whole number, at least 0, got -1"),
        ({"workers": True}, "workers must be a whole number"),
        ({"retries": 0.5}, "retries must be a whole number, at least 0, got 0.5"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "workers are those of the scheduler"),
        ({"workers": 0, "replicas": "some"}, "replicas must be 'auto' or"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        run(STUDY, folder=tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("runner", ["no_such_module:f", "study_runs:no_such", "study_runs:SELF_TEST"])
def test_functions_that_are_none(runner: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is its folder on PYTHONPATH|is no function but a Study"):
        run(Study(name="a", runner=runner, grid={"x": [1]}), folder=tmp_path / "s", workers=0)
    assert not (tmp_path / "s").exists()
