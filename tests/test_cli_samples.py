"""Arrays that are no samples, given to `tnml predict`: one line of error, without a warning before it."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

import tnml
from tnml.cli import main

ARRAYS: dict[str, tuple[npt.NDArray[np.generic], str]] = {
    "single": (np.array(3.0), r"holds a single value; expected an array \[n, sites\]"),
    "text": (np.array([list("abcd")]), r"must hold real numbers, got dtype <U1"),
    "dates": (np.array([["2020-02-29"] * 4], "M8[D]"), r"must hold real numbers, got dtype datetime64"),
    "records": (np.zeros(3, [("a", "f4")]), r"must hold real numbers"),
    "complex": (np.full((2, 4), 1j), r"must hold real numbers, got dtype complex128"),
    "NaN": (np.full((2, 4), np.nan), r"holds 8 NaN or infinite values"),
    "infinite": (np.array([[0, 1, np.inf, 1]]), r"holds 1 NaN or infinite value"),
    "empty": (np.zeros((0, 4)), r"x is empty"),
    "one row": (np.zeros(4), r"must be \[n, sites\] or images"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two classifiers: one takes values in [0, 1], one scales raw values itself."""
    folder, x, y = tmp_path_factory.mktemp("models"), np.linspace(0, 1, 48).reshape(12, 4), np.arange(12) % 3
    paths = {"plain": folder / "plain.safetensors", "scaling": folder / "scaling.safetensors"}
    for factor, path in zip((1, 16), paths.values(), strict=True):
        tnml.MPSClassifier(bond_dim=2, epochs=1, random_state=0).fit(factor * x, y).save(path)
    return paths


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("kind", ["plain", "scaling"])
@pytest.mark.parametrize("name", ARRAYS)
def test_one_line(
    name: str,
    kind: str,
    suffix: str,
    models: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    array, pattern = ARRAYS[name]
    file = tmp_path / f"new.{suffix}"
    if suffix == "npy":
        np.save(file, array)
    else:
        np.savez(file, x=array)
    assert main(["predict", str(models[kind]), str(file)]) == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert re.fullmatch(r"error: [^\n]+\n", errors), errors
    assert re.search(pattern, errors), errors


def test_values_at_the_ends_of_the_range_are_taken(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, top in (("plain", 1.0), ("scaling", 16.0)):
        np.save(tmp_path / "new.npy", np.array([[0, top, 0, top]]))
        assert main(["predict", str(models[kind]), str(tmp_path / "new.npy")]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", ["evaluate", "compress --max_bond 1", "inspect"])
def test_a_model_that_encodes_columns_is_for_python(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be given raw numbers for places of categories."""
    path, x = tmp_path / "model.safetensors", np.array([["a"], ["b"]] * 4, dtype=object)
    tnml.MPSClassifier(features="auto", bond_dim=2, epochs=1).fit(x, [0, 1] * 4).save(path)
    command, *options = words.split()
    assert main([command, str(path), "x.csv", *options]) == 2
    assert "encodes the columns itself; use model.predict(X)" in capsys.readouterr().err


def test_tables_for_a_model_that_encodes_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are found by name; numbers that were categories of text stay text; empty cells are gaps."""
    frame = pd.DataFrame({"code": ["1", "2"] * 20, "size": np.arange(40.0), "free": [True, False] * 20})
    frame.loc[3, "size"] = np.nan
    path, table = tmp_path / "model.safetensors", tmp_path / "new.csv"
    model = tnml.MPSClassifier(features="auto", bond_dim=2, epochs=20, random_state=0)
    model.fit(frame, np.where(frame["size"] > 20, "big", "small")).save(path)
    table.write_text("id,free,code,size\n7,True,1,3.5\n8,FALSE,2,39\n9,,,NA\n")
    asked = pd.DataFrame({"code": ["1", "2", None], "size": [3.5, 39, np.nan], "free": [1.0, 0.0, np.nan]})
    expected = model.predict_proba(asked)
    for made in (table, tmp_path / "new.parquet"):
        if made.suffix == ".parquet":
            pytest.importorskip("pyarrow")
            asked.to_parquet(made)
        assert main(["predict", str(path), str(made)]) == 0
        shown, said = capsys.readouterr()
        lines = [line.split(",") for line in shown.split()]
        assert lines[0] == ["index", "label", "p_big", "p_small"]
        np.testing.assert_allclose(
            np.array([line[2:] for line in lines[1:]], dtype=float), expected, atol=1e-5
        )
        assert ("column id of" in said) == (made == table)
    for content, match in (
        ("free,code\n1,2\n", "unknown column of new.csv 'size'"),
        ("free,code,size\n1,2,x\n", "row 1: column 'size' held numbers in training and holds 'x'"),
    ):
        table.write_text(content)
        assert main(["predict", str(path), str(table)]) == 2
        assert match in capsys.readouterr().err
    assert main(["predict", str(path), str(table), "--scale", "[0,1]"]) == 2
    assert main(["predict", str(path), "x.npy"]) == 2
    errors = capsys.readouterr().err
    assert "leave --scale out" in errors
    assert "give them as .csv or .parquet" in errors
    tnml.MPSClassifier(features="auto", bond_dim=2, epochs=1).fit(frame.to_numpy(object), [0, 1] * 20).save(
        path
    )
    table.write_text("a,b\n1,2\n")
    assert main(["predict", str(path), str(table)]) == 2
    assert "has 2 columns, the model was trained on 3 without names" in capsys.readouterr().err
    table.write_text("a,b,c\n1,2,true\n")
    assert main(["predict", str(path), str(table)]) == 0
