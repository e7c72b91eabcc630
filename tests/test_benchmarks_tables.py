"""The benchmark of tables in its smallest form: no score and no time is judged, and nothing is downloaded."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from benchmarks import __main__ as program
from benchmarks import tables, tables_data, tables_files, tables_methods, tables_run, tables_summary
from benchmarks.tables_methods import JUDGED
from benchmarks.tables_sources import Source, table_of


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "tables.json"
    only = ["--only", f"tnml,{JUDGED},boosting,SVM,linear,conformal boosting"]
    assert program.main(["tables", "--smoke", *only, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    cells = {(cell["task"], cell["set"], cell["method"]): cell for cell in result["cells"]}
    assert len(cells) == 2 * 5 + 2 * 6 + 3
    assert all(cell["splits"] == 2 and "cpu_seconds" in cell for cell in cells.values())
    assert cells["classification", "iris", "SVM"]["score"] > 0.8
    assert 0 < cells["regression", "diabetes", "conformal boosting"]["coverage"] <= 1
    assert cells["ttml", "diabetes", "boosting"]["parameters"] > cells["ttml", "diabetes", "tnml"]["splits"]
    assert not any("accuracy" in bar["what"] for bar in result["bars"]), "two sets are not forty-three"
    screen = console()
    tables.show(result, screen)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "iris*" in text
    assert "wine " in text
    assert "missed" in text or "reached" in text


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def sheet(rows: list[str], strings: list[str]) -> bytes:
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    book = io.BytesIO()
    with zipfile.ZipFile(book, "w") as archive:
        words = "".join(f"<si><t>{word}</t></si>" for word in strings)
        archive.writestr("xl/sharedStrings.xml", f"<sst {space}>{words}</sst>")
        text = f"<worksheet {space}><sheetData>{''.join(rows)}</sheetData></worksheet>"
        archive.writestr("xl/worksheets/sheet1.xml", text)
    return book.getvalue()


def test_cells_of_every_kind_of_file(tmp_path: Path) -> None:
    rows = [
        '<row><c r="A1" t="s"><v>1</v></c><c r="C1" t="s"><v>0</v></c></row>',
        '<row><c r="A2"><v>1.5</v></c><c r="AB2"><v>7</v></c></row>',
        "<row/>",
    ]
    path = wheel(
        tmp_path / "a.whl",
        {
            "k.dat": b"@relation r\n@data\n1, 2\n 3,4\n\n",
            "s.data": b"1  2   3\n",
            "w.xlsx": sheet(rows, ["y", "x"]),
        },
    )
    assert tables_files.cells(path, "k.dat", ",", 0) == [["1", "2"], ["3", "4"]]
    assert tables_files.cells(path, "s.data", None, 0) == [["1", "2", "3"]]
    assert tables_files.cells(path, "w.xlsx", ",", 0) == [["x", "", "y"], ["1.5", *[""] * 26, "7"]]
    assert tables_files.cells(path, "w.xlsx/sheet1", ",", 1)[0][0] == "1.5"


def test_words_become_codes_and_gaps_nan() -> None:
    rows = [["b", "1,5", "low", "0"], ["a", "?", "high", "1"], ["b", "2", "low", "2"]]
    source = Source("here", (3, 2), target=2, drop=(-1,), decimal=",", order=("low", "high"))
    found = table_of(rows, source)
    np.testing.assert_array_equal(found.x, [[1, 1.5], [0, np.nan], [1, 2]])
    np.testing.assert_array_equal(found.y, [0, 1, 0])
    assert found.words == (0,)
    with pytest.raises(ValueError, match="expected"):
        table_of(rows, Source("here", (3, 4), target=2, order=("low", "high")))
    with pytest.raises(ValueError, match="not a number"):
        table_of(rows, Source("here", (3, 3), target=0))


def test_folds_as_shipped_and_never_more_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_data, "MOST_ROWS", 5)
    arrays = io.BytesIO()
    parts = {}
    for fold in range(3):
        parts |= {
            f"x{fold}": np.arange(16, dtype=np.int8).reshape(8, 2),
            f"y{fold}": np.arange(8) + 10 * fold,
        }
        parts |= {f"t{fold}": np.full((2, 2), fold, np.int8), f"u{fold}": np.full(2, fold)}
    np.savez(arrays, **parts)
    path = wheel(tmp_path / "keel.whl", {f"{tables_data.KEEL_FOLDER}a.npz": arrays.getvalue()})
    splits = list(tables_data._folds(path, f"{tables_data.KEEL_FOLDER}a.npz", 2))
    assert [split.number for split in splits] == [0, 1]
    for split in splits:
        assert len(split.x) == len(split.y) == 5
        np.testing.assert_array_equal(split.x[:, 0], 2 * (split.y - 10 * split.number))
        assert (split.x_test == split.number).all()
    assert (np.diff(splits[0].y) > 0).all()
    assert [tables_data.half_of(place) for place in range(3)] == ["judged", "choosing", "judged"]


def test_their_splits_are_those_of_ttml() -> None:
    from sklearn.model_selection import train_test_split

    x, y = np.arange(200.0).reshape(100, 2), np.arange(100.0)
    (first, second) = tables_data._their_splits(lambda: tables_data.Table(x, y), 2)
    rest, test = train_test_split(y, test_size=0.15, random_state=180)
    np.testing.assert_array_equal(second.y_test, test)
    np.testing.assert_array_equal(second.y, train_test_split(rest, test_size=0.15, random_state=180)[0])
    assert not set(first.y) & set(first.y_test)


def test_a_wrong_wheel_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for one in (tables_files.KEEL, tables_files.COMMON):
        (folder / one.name).write_bytes(b"no wheel")
    out = tmp_path / "t.json"
    with pytest.raises(SystemExit) as ended:
        program.main(["tables", "--cache", str(tmp_path), "--out", str(out)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("wrong sha256") == 3
    assert not out.exists(), "a run without data must not replace a result"


def test_offline_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_files.sys, "executable", "/bin/false")
    with pytest.raises(tables_files.NotAvailableError, match="could not be downloaded"):
        tables_files.fetch(tables_files.KEEL, tmp_path)


class Broken:
    """An estimator that cannot be fitted."""

    def fit(self, x: Any, y: Any) -> None:
        raise RuntimeError("no")


def test_the_journal_keeps_what_is_done(tmp_path: Path) -> None:
    (iris,) = (table for table in tables_data.small_sets() if table.name == "iris")
    calls: list[str] = []
    methods: dict[str, Any] = {
        "linear": (tables_methods.PEERS["classification"]["linear"], None),
        "tnml": (lambda words, rows: Broken(), {"bond_dim": 2}),
    }
    path = tmp_path / "journal.jsonl"
    rows = tables_run.run(iris, 2, methods, tables_run.Journal(path), calls.append)
    assert len(rows) == len(calls) == 4
    assert {row["method"] for row in rows if "error" in row} == {"tnml"}
    path.write_bytes(path.read_bytes()[:-9])  # killed while it wrote the last line
    again = tables_run.run(iris, 2, methods, tables_run.Journal(path), calls.append)
    assert len(calls) == 5
    assert [{**row, "date": ""} for row in rows] == [{**row, "date": ""} for row in again]
    methods["tnml"] = (methods["tnml"][0], {"bond_dim": 3})
    tables_run.run(iris, 2, methods, tables_run.Journal(path), calls.append)
    assert len(calls) == 7, "other parameters are another fit"
    assert len(tables_run.Journal(path).rows) == 6


def cell(task: str, name: str, method: str, score: float, **more: Any) -> dict[str, Any]:
    return {
        "task": task,
        "set": name,
        "half": "judged",
        "method": method,
        "splits": 1,
        "score": score,
        **more,
    }


def test_ranks_and_bars() -> None:
    scores = {"boosting": 0.9, "forest": 0.8, "SVM": 0.8, "k-NN": 0.7, "linear": 0.6}
    cells = [cell("classification", "a", name, score, cpu_seconds=1.0) for name, score in scores.items()]
    cells += [
        cell("classification", "a", JUDGED, 0.95, cpu_seconds=3.0),
        cell("classification", "a", "tnml x", 0.1),
    ]
    rank = {
        name: tables_summary.mean_rank(cells, "classification", name) for name in (*scores, JUDGED, "tnml x")
    }
    assert rank == {JUDGED: 1, "boosting": 2, "forest": 3.5, "SVM": 3.5, "k-NN": 5, "linear": 6, "tnml x": 6}
    cells += [cell("regression", "r", name, score, cpu_seconds=1.0) for name, score in scores.items()]
    cells += [cell("regression", "r", JUDGED, 0.75, cpu_seconds=1.0)]
    cells += [cell("regression", "r", tables_methods.INTERVALS, 0.75, coverage=0.95, width=2.0)]
    cells += [cell("regression", "r", "conformal boosting", 0.99, coverage=0.9, width=1.0)]
    cells += [cell("ttml", "airfoil", JUDGED, 0.9, mse=2.0, parameters=50)]
    cells += [cell("ttml", "airfoil", "large boosting", 0.9, mse=2.4, parameters=4000)]
    summary = tables_summary.summaries(cells)
    verdicts = {bar["what"]: bar["passed"] for bar in tables_summary.bars(summary, cells, complete=True)}
    assert verdicts == {
        "classification, all: accuracy": True,
        "classification, all: mean rank": True,
        "classification, judged: mean rank": True,
        "classification, all: median fit over boosting's": False,
        "classification, judged: median fit over boosting's": False,
        "regression, all: mean rank": False,
        "regression, judged: mean rank": False,
        "regression, all: coverage of intervals of 90 %": False,
        "regression, judged: coverage of intervals of 90 %": False,
        "regression, all: median fit over boosting's": True,
        "regression, judged: median fit over boosting's": True,
        "TTML's protocol, airfoil: mean square error": True,
        "TTML's protocol, airfoil: parameters over boosting's": False,
    }
    (mine,) = (
        row
        for row in summary
        if (row["half"], row["method"], row["task"]) == ("all", tables_methods.INTERVALS, "regression")
    )
    assert mine["width_over_boosting"] == 2.0


def test_a_failed_fit_counts_as_zero() -> None:
    rows = [cell("regression", "a", JUDGED, 0.5), {**cell("regression", "a", JUDGED, 0), "error": "no"}]
    del rows[1]["score"]
    (found,) = tables_summary.by_set(rows)
    assert found["score"] == 0.25
    assert found["errors"] == ["no"]


def test_conformal_intervals_cover() -> None:
    random = np.random.default_rng(0)
    x = random.random((600, 2))
    y = x[:, 0] + random.normal(size=600)
    model = tables_methods.ConformalBoosting().fit(x[:400], y[:400])
    low, high = model.predict_interval(x[400:], 0.9)
    assert 0.8 < np.mean((low <= y[400:]) & (y[400:] <= high)) < 0.97
    few = tables_methods.ConformalBoosting().fit(x[:12], y[:12])
    assert few.predict_interval(x[:1], 0.9)[1] - few.predict(x[:1]) == pytest.approx(few.misses_[-1])


def test_parameters_are_counted() -> None:
    x, y = np.arange(8.0)[:, None], np.arange(8) % 2
    assert tables_methods.parameters_of(LogisticRegression().fit(x, y)) == 2
    stump = RandomForestClassifier(3, max_depth=1, random_state=0, bootstrap=False).fit(x, x[:, 0] > 3)
    assert tables_methods.parameters_of(stump) == 3 * (2 + 2 * 2)
    one = HistGradientBoostingRegressor(max_iter=2, max_leaf_nodes=2, min_samples_leaf=1).fit(x, x[:, 0])
    assert tables_methods.parameters_of(one) == 2 * (2 + 2)
    maker = tables_methods.of_tnml("regression", {"bond_dim": 2, "epochs": 1, "scale": "quantile"})
    model = maker((), 8).fit(np.hstack([x, x**2]), x[:, 0])
    assert tables_methods.parameters_of(model) == sum(p.numel() for p in model[-1].layer_.parameters())


def test_further_configurations_are_json() -> None:
    found = tables_methods.configurations(['small={"bond_dim": 2}'])
    assert found["tnml small"] == {"bond_dim": 2}
    assert next(iter(found)) == "tnml tables"
    with pytest.raises(SystemExit, match="NAME"):
        tables_methods.configurations(["small"])
