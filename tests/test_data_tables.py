"""Tables: columns by name, what is a number and what is missing, the split, the range; and refusals."""

import builtins
import csv
import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from tnml.data import from_npz, from_table, load
from tnml.data.scaling import to_unit
from tnml.data.table_files import column_of
from tnml.data.tables import read_table
from tnml.errors import InputError
from tnml.estimators.scaling import scale

N = 40


@pytest.fixture
def frame() -> pd.DataFrame:
    """Numbers, truth values and text of the names that the tests below know."""
    rng = np.random.default_rng(11)
    return pd.DataFrame(
        {
            "area": rng.uniform(20, 120, N).round(3),
            "rooms": rng.integers(1, 6, N),
            "garden": rng.integers(0, 2, N).astype(bool),
            "city": np.array(["Bern", "Basel"])[np.arange(N) % 2],
            "price": rng.uniform(1e5, 1e6, N),
        }
    )


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_are_what_pandas_says(frame: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    path = write(frame, tmp_path / f"flats.{ending}")
    every = from_table(path, "all", target="price", drop=["city"])
    assert (every.name, every.split, every.image_shape, len(every)) == ("flats", "all", None, N)
    assert every.feature_names == ("area", "rooms", "garden")
    numbers = frame[["area", "rooms", "garden"]].to_numpy(float)
    assert np.array_equal(every.y, frame["price"].to_numpy())
    train = from_table(path, target="price", drop=["city"])
    assert every.feature_range is not None
    assert train.feature_range is not None
    assert np.array_equal(every.feature_range, train.feature_range)
    low, high = train.feature_range
    expected = np.clip((numbers - low) / (high - low), 0, 1)
    np.testing.assert_allclose(every.x, expected, rtol=1e-6, atol=1e-7)
    assert (train.x.min(0), train.x.max(0)) == (pytest.approx(0), pytest.approx(1))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_quarter_is_that_of_arrays(frame: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    """Of labels a stratified one, of real targets a plain one, as `from_npz` holds it out."""
    path = write(frame, tmp_path / f"flats.{ending}")
    numbers = frame[["area", "rooms"]].to_numpy(float)
    for target, more in (("city", ["garden", "price"]), ("price", ["garden", "city"])):
        np.savez(tmp_path / "a.npz", x=numbers, y=frame[target].to_numpy(str if target == "city" else float))
        for split in ("train", "test"):
            ours = from_table(path, split, target=target, drop=more)
            theirs = from_npz(tmp_path / "a.npz", split, scale=(0, 200))
            assert np.array_equal(ours.y, theirs.y)
            assert ours.provenance.count("a stratified quarter") == (target == "city")


def test_the_range_is_that_of_the_training_part_and_beyond_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    values = (np.arange(N) - 4.0) % N  # row 4, which is held out, has the lowest one
    path.write_text("a,b,y\n" + "".join(f"{v},7,{v}\n" for v in values))
    train, test = (from_table(path, split, target="y") for split in ("train", "test"))
    low, high = train.y.min(), train.y.max()
    assert train.feature_range is not None
    assert train.feature_range.tolist() == [[low, 7], [high, 7]]
    assert np.array_equal(test.x[:, 0], np.clip((test.y - low) / (high - low), 0, 1).astype(np.float32))
    assert test.y.max() > high or test.y.min() < low, "the split is such that something has to be cut off"
    assert not train.x[:, 1].any(), "a constant column is 0"
    raw = np.stack([test.y, np.full(len(test), 7.0)], 1)
    assert np.array_equal(test.x, scale(raw, train.feature_range)), "the same bits as those of estimators"
    assert np.array_equal(test.x, to_unit(raw, train.feature_range))


def test_another_table_by_names_and_the_same_range(frame: pd.DataFrame, tmp_path: Path) -> None:
    first = from_table(write(frame, tmp_path / "a.csv"), target="price", drop=["city", "garden"])
    assert first.feature_names is not None
    turned = frame[frame.columns[::-1]].assign(more="x")
    other = from_table(
        write(turned, tmp_path / "b.csv"),
        "train",
        target="price",
        columns=first.feature_names,
        scale=first.feature_range,
    )
    assert np.array_equal(first.x, other.x)
    wide = from_table(tmp_path / "a.csv", "all", target="price", columns=["area"], scale=(0, 240))
    np.testing.assert_allclose(wide.x[:, 0], frame["area"] / 240, rtol=1e-6)
    with pytest.warns(UserWarning, match="cut off"):
        cut = from_table(tmp_path / "a.csv", "all", target="price", columns=["area"], scale=(0, 60))
    np.testing.assert_allclose(cut.x[:, 0], np.minimum(frame["area"] / 60, 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", " 2 ", "-3"], np.array([1, 2, -3])),
        (["1", "2.5", "1e3"], np.array([1, 2.5, 1000])),
        (["True", "false"], np.array([True, False])),
        (["true", "1"], np.array(["true", "1"])),
        (["1_000", "2"], np.array(["1_000", "2"])),
        (["9" * 30], np.array([1e30])),
        (["a", "NA", "none"], np.array(["a", "NA", "none"])),
    ],
)
def test_cells_become_what_they_look_like(cells: list[str], values: Any) -> None:
    column = column_of(cells)
    assert column.missing is None
    assert column.values.dtype.kind == values.dtype.kind
    assert np.array_equal(column.values, values)


@pytest.mark.parametrize("gap", ["", " ", "NA", "n/a", "NaN", "null", "None"])
def test_gaps_among_numbers(gap: str) -> None:
    assert column_of(["1", "2.5", gap, "4"]).missing == 3
    assert column_of([gap, gap]).missing == 1


def test_arrow_types(tmp_path: Path) -> None:
    names = {
        "small": pa.array([1, 2, 3], pa.uint8()),
        "large": pa.array([2**63, 1, 2], pa.uint64()),
        "half": pa.array(np.array([0.5, 1, 2], np.float16)),
        "money": pa.array([decimal.Decimal("1.25")] * 3),
        "truth": pa.array([True, False, True]),
        "word": pa.array(["a", "b", "a"]).dictionary_encode(),
        "day": pa.array([datetime.date(2020, 1, 1)] * 3),
        "gap": pa.array([1.0, None, 3.0]),
        "nan": pa.array([1.0, 2.0, float("nan")]),
        "void": pa.nulls(3),
        "__index_level_0__": pa.array([7, 8, 9]),
    }
    parquet.write_table(pa.table(names), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.names == [name for name in names if name != "__index_level_0__"]
    x = table.numbers(["small", "large", "half", "money", "truth"])
    assert x.tolist() == [[1, 2**63, 0.5, 1.25, 1], [2, 1, 1, 1.25, 0], [3, 2, 2, 1.25, 1]]
    assert table.target("word").tolist() == ["a", "b", "a"]
    assert table.target("truth").dtype == bool
    assert table.target("small").dtype == np.int64
    for name, row in (("gap", 2), ("nan", 3), ("void", 1)):
        with pytest.raises(InputError, match=rf"row {row} of .* no value in column '{name}'"):
            table.numbers([name])
    with pytest.raises(InputError, match=r"holds date32.* in column 'day', .*; drop it or encode it"):
        table.numbers(["day"])
    with pytest.raises(InputError, match=r"the target 'day' .* holds date32"):
        table.target("day")


def test_whole_numbers_as_real_targets(tmp_path: Path) -> None:
    """Each of them once: as labels they could not be stratified."""
    y = np.arange(12)
    np.savez(tmp_path / "t.npz", x=np.linspace(0, 1, 12)[:, None], y=y)
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{v / 11},{v}\n" for v in y))
    with pytest.raises(InputError, match="has one member"):
        load(tmp_path / "t.csv", target="y")
    table = load(tmp_path / "t.csv", target="y", real_targets=True)
    archive = load(tmp_path / "t.npz", real_targets=True)
    assert table.y.dtype == archive.y.dtype == np.float64
    assert np.array_equal(table.y, archive.y)
    assert load("digits", real_targets=True).y.dtype == np.float64


def text(content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(content)

    return make


GOOD = "a,b,y\n" + "1,2,0\n3,4,1\n" * 4
REFUSED: dict[str, tuple[Callable[[Path], None], str, dict[str, Any], str]] = {
    "no file": (lambda path: None, "t.csv", {"target": "y"}, r"no table at .*t\.csv; check the path"),
    "kind": (text(GOOD), "t.xlsx", {"target": "y"}, r"is no table; .* ends in \.csv or \.parquet"),
    "target": (text(GOOD), "t.csv", {"target": "yy"}, r"unknown column .*'yy'; did you mean 'y'\?.*a, b, y"),
    "drop": (text(GOOD), "t.csv", {"target": "y", "drop": ["aa"]}, r"'aa'; did you mean 'a'\?"),
    "columns": (text(GOOD), "t.csv", {"target": "y", "columns": ["a", "c", "d"]}, r"has no columns 'c', 'd'"),
    "both": (text(GOOD), "t.csv", {"target": "y", "columns": ["y"]}, "cannot be both feature and target"),
    "nothing left": (text(GOOD), "t.csv", {"target": "y", "drop": ["a", "b"]}, "no column left as a feature"),
    "split": (text(GOOD), "t.csv", {"target": "y", "split": "tset"}, r"'tset'; did you mean 'test'\?"),
    "scale": (text(GOOD), "t.csv", {"target": "y", "scale": "minmax"}, "'auto', must be a pair .* 'minmax'"),
    "scale ends": (text(GOOD), "t.csv", {"target": "y", "scale": (3, 1)}, "'auto', must be a pair"),
    "scale shape": (text(GOOD), "t.csv", {"target": "y", "scale": [[0, 1]]}, "'auto', must be a pair"),
    "text": (
        text(GOOD.replace("2", "two")),
        "t.csv",
        {"target": "y"},
        "holds text in column 'b', and a feature has to be a number; drop it or encode it as numbers",
    ),
    "texts": (text("a,b,y\nu,v,1\nu,v,2\n"), "t.csv", {"target": "y"}, "in columns 'a', 'b', .* drop them"),
    "gap": (text(GOOD + "5,,1\n"), "t.csv", {"target": "y"}, r"row 9 of .*t\.csv has no value in column 'b'"),
    "gap in the target": (text(GOOD + "5,6,\n"), "t.csv", {"target": "y"}, "row 9 .* in column 'y'"),
    "infinite": (text(GOOD + "5,inf,1\n"), "t.csv", {"target": "y"}, "row 9 .* is infinite in column 'b'"),
    "infinite target": (
        text(GOOD + "5,6,-inf\n"),
        "t.csv",
        {"target": "y"},
        "row 9 .* infinite in column 'y'",
    ),
    "text as a real target": (
        text(GOOD.replace("0", "no")),
        "t.csv",
        {"target": "y", "real_targets": True},
        "column 'y': real targets must be numbers",
    ),
    "ragged": (text(GOOD + "5,6\n"), "t.csv", {"target": "y"}, r"line 10: expected 3 cells .* got 2"),
    "empty": (text(""), "t.csv", {"target": "y"}, "holds no sample"),
    "only names": (text("a,y\n"), "t.csv", {"target": "y"}, "holds no sample"),
    "no name": (text(",a,y\n0,1,2\n"), "t.csv", {"target": "y"}, "column 1 of .* has no name; .* index"),
    "twice": (text("a,a,y\n0,1,2\n"), "t.csv", {"target": "y"}, "two columns called 'a'"),
    "semicolons": (text("a;y\n0;1\n"), "t.csv", {"target": "y"}, "has one column, 'a;y'; separate"),
    "not text": (
        lambda path: path.write_bytes(b"a,y\n\xff\xfe,1\n"),
        "t.csv",
        {"target": "y"},
        "not a readable CSV file",
    ),
    "not Parquet": (text(GOOD), "t.parquet", {"target": "y"}, "is not a readable Parquet file"),
    "no rows in Parquet": (
        lambda path: parquet.write_table(pa.table({"y": pa.array([], pa.int8())}), path),
        "t.parquet",
        {"target": "y"},
        "holds no sample",
    ),
    "far apart": (
        text("a,y\n" + "-1e308,1\n1.7e308,1\n" * 4),
        "t.csv",
        {"target": "y"},
        "further apart than",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    make, file, options, says = REFUSED[name]
    make(tmp_path / file)
    with pytest.raises(InputError, match=says) as caught:
        from_table(tmp_path / file, **options)
    assert "\n" not in str(caught.value)


def test_a_table_wants_a_target(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(GOOD)
    with pytest.raises(InputError, match="its target has to be named; choose one of its columns: a, b, y"):
        load(tmp_path / "t.csv")


def test_parquet_says_what_to_install(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = write(frame, tmp_path / "t.parquet"), builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs the package pyarrow.* `python -m pip install pyarrow`"):
        from_table(path, target="price")


def test_a_csv_needs_neither_pandas_nor_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text(GOOD)
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        assert not name.startswith(("pandas", "pyarrow"))
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert len(from_table(tmp_path / "t.csv", "all", target="y")) == 8


def test_odd_but_good_text(tmp_path: Path) -> None:
    """A byte order mark, quotes with a comma and a line break in a name, blank lines, blanks around."""
    with open(tmp_path / "t.csv", "w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([" a ", "b, in\nm²", "y"])
        for row in range(8):
            writer.writerow([row, row / 2, row % 2])
            stream.write("\r\n")
    found = from_table(tmp_path / "t.csv", "all", target="y")
    assert found.feature_names == ("a", "b, in\nm²")
    assert found.y.tolist() == [0, 1] * 4
    some = found.subset([0, 2])
    assert (some.feature_names, len(some)) == (found.feature_names, 2)
