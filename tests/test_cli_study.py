"""`tnml study`: list, run, status, resume, table, report, and bad input."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tnml import report
from tnml.cli import main
from tnml.study import Store, Study, run_id, shipped

Capture = pytest.CaptureFixture[str]
MINE = """
name: mine
about: numbers
runner: study_runs:one
grid: {x: [1, 2], seed: [0, 1]}
fixed: {pause: 0.0, log: null}
smoke: {x: [5], seed: [0]}
"""
HERE = ["--workers", "0"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project_root: Path) -> Path:
    """An empty folder with a study in `mine.yaml`."""
    monkeypatch.syspath_prepend(str(project_root / "tests" / "programs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path


def rows(folder: str) -> list[str]:
    return (Path(folder) / "table.csv").read_text().splitlines()[1:]


def test_run_status_and_table(capsys: Capture) -> None:
    assert main(["study", "run", "mine.yaml", "--folder", "out", *HERE]) == 0
    shown = capsys.readouterr().out
    assert "study:  mine, 4 runs" in shown
    assert "run 4/4  running 0  failed 0" in shown
    assert shown.splitlines()[-1] == "next: tnml study report out"
    assert [row.split(",")[-1] for row in rows("out")] == ["33.0", "36.0", "63.0", "66.0"]
    assert main(["study", "status", "out"]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()[1:5]] == [
        *(["done:", "4"], ["running:", "0"], ["failed:", "0"], ["waiting:", "0"])
    ]
    assert "next" not in shown
    (Path("out") / "table.csv").unlink()
    assert main(["study", "table", "out"]) == 0
    assert "table.csv (4 runs)" in capsys.readouterr().out
    assert len(rows("out")) == 4


def test_smoke_and_seeds_have_their_folders() -> None:
    assert main(["study", "run", "mine.yaml", "--smoke", *HERE]) == 0
    assert [row.split(",")[-1] for row in rows("runs/study-mine-smoke")] == ["153.0"]
    assert main(["study", "run", "mine.yaml", "--seeds", "3", *HERE]) == 0
    assert len(rows("runs/study-mine")) == 6
    assert main(["study", "run", "mine.yaml", "--seeds", "3", "--smoke", "--folder", "s", *HERE]) == 0
    assert len(rows("s")) == 3


def test_failures_and_resume(place: Path, capsys: Capture) -> None:
    study = Study(name="moods", runner="study_runs:moody", grid={"kind": ["fine", "once", "always"]})
    (place / "moods.yaml").write_text(json.dumps(study.record()))
    assert main(["study", "run", "moods.yaml", "--folder", "out", "--retries", "0", *HERE]) == 1
    shown = capsys.readouterr().out
    assert f"runs/{run_id({'kind': 'once'})}/error.txt: OSError: not the first time" in shown
    assert shown.splitlines()[-1] == "next: tnml study resume out tries the failed runs again"
    assert main(["study", "status", "out"]) == 0
    assert "failed 1 times: OSError: not the first time" in capsys.readouterr().out
    assert main(["study", "resume", "out", *HERE]) == 1
    assert len(rows("out")) == 2
    assert main(["study", "status", "out"]) == 0
    shown = capsys.readouterr().out
    assert f"runs/{run_id({'kind': 'always'})} failed 3 times: ValueError: this one never works" in shown
    assert shown.splitlines()[-1] == "next: tnml study resume out"


def test_replicas(place: Path) -> None:
    record = {"group": ["seed"], "group_runner": "study_runs:together"}
    (place / "mine.yaml").write_text(MINE + json.dumps(record)[1:-1].replace(', "', '\n"'))
    for count, groups in (("auto", 2), ("1", 0), ("2", 2)):
        assert main(["study", "run", "mine.yaml", "--folder", count, "--replicas", count, *HERE]) == 0
        assert len(list(Path(count).rglob("together.txt"))) == groups
    assert rows("auto") == rows("1") == rows("2")


def test_list(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    known: Mapping[str, Study] = {
        "mine": Study(name="mine", runner="study_runs:one", grid={"x": [1, 2]}, about="a")
    }
    monkeypatch.setattr(shipped, "STUDIES", known)
    monkeypatch.setattr("tnml.cli.study.STUDIES", known)
    assert main(["study", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "mine  2 runs (2 with --smoke)  a"
    assert main(["study"]) == 2
    assert "resume: continue the study in a folder" in " ".join(capsys.readouterr().out.split())


def test_report_is_written(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(
        report, "study_page", lambda folder: made.append(folder) or folder / "x", raising=False
    )
    Store("out").keep(Study(name="a", runner="m:f", grid={"x": [1]}))
    assert main(["study", "report", "out"]) == 0
    assert made == [Path("out")]
    assert capsys.readouterr().out == f"report: {Path('out') / 'x'}\n"


def test_ctrl_c(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tnml.cli.study.run_study", stopped)
    assert main(["study", "run", "mine.yaml", "--folder", "a b", *HERE]) == 130
    assert capsys.readouterr().err == "tnml: stopped; continue with `tnml study resume 'a b'`\n"


BAD = {
    "action": (["rnu"], "unknown action of tnml study 'rnu'; did you mean 'run'"),
    "no name": (["run"], "the following arguments are required: study"),
    "name": (["run", "overfiting"], "unknown study 'overfiting'"),
    "file": (["run", "nowhere.yaml"], "cannot read the study in nowhere.yaml: No such file"),
    "option": (["run", "mine.yaml", "--worker", "2"], "unknown option --worker; did you mean --workers"),
    "type": (["run", "mine.yaml", "--workers", "two"], "option --workers"),
    "workers": (["run", "mine.yaml", "--workers", "-1"], "--workers must be a whole number, from 0"),
    "retries": (["run", "mine.yaml", "--retries", "-1"], "--retries must be a whole number, from 0"),
    "seeds": (["run", "mine.yaml", "--seeds", "0"], "--seeds must be a whole number, from 1"),
    "replicas": (["run", "mine.yaml", "--replicas", "all", *HERE], "replicas must be 'auto' or"),
    "both": (["run", "mine.yaml", "--scheduler", "tcp://x:1", *HERE], "workers are those of the scheduler"),
    "no study": (["status", "nowhere"], "there is no study in nowhere: it holds no study.json"),
    "nothing to resume": (["resume", "nowhere"], "there is no study in nowhere"),
    "no table": (["table", "nowhere"], "there is no study in nowhere"),
    "no report": (["report", "nowhere"], "there is no study in nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name: str, capsys: Capture, place: Path) -> None:
    words, message = BAD[name]
    assert main(["study", *words]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert complaint.count("\n") == 1
    assert [path.name for path in place.iterdir()] == ["mine.yaml"], "a failed command leaves nothing behind"
