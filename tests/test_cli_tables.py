"""Tables on the command line: train, evaluate and predict by the names of columns, and what is refused."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tnml
from tnml.cli import main
from tnml.data import from_table
from tnml.errors import InputError
from tnml.nn import MPSLayer

Capture = pytest.CaptureFixture[str]
QUICK = ["--train.epochs", "30", "--train.lr", "0.02", "--model.bond_dim", "4", "--device", "cpu"]
PRICE = [
    "train",
    "flats.csv",
    "--task",
    "regression",
    "--target",
    "price",
    "--data.drop",
    "[id, city]",
    *QUICK,
]
CITY = ["train", "flats.csv", "--target", "city", "--data.drop", "[id]", *QUICK]
COLUMNS = ["area", "rooms", "garden"]


def flats(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    area, rooms, garden = rng.uniform(20, 120, n), rng.integers(1, 6, n), rng.integers(0, 2, n) > 0
    price = 3e5 + 5e3 * area + 4e4 * rooms + 9e4 * garden + 1e3 * rng.normal(size=n)
    city = np.where(area + 20 * rooms > 130, "Bern", "Basel")
    columns = {
        "id": np.arange(n),
        "area": area,
        "rooms": rooms,
        "garden": garden,
        "city": city,
        "price": price,
    }
    return pd.DataFrame(columns)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    flats(200, 1).to_csv("flats.csv", index=False)
    flats(50, 2).to_csv("more.csv", index=False)
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs `price` and `city`, which tests only read."""
    folder = tmp_path_factory.mktemp("runs")
    flats(200, 1).to_csv(folder / "flats.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*PRICE, "--out", "price"]) == 0
        assert main([*CITY, "--out", "city"]) == 0
    return folder


def facts_of(text: str) -> dict[str, str]:
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def load(path: Path) -> Any:
    return tnml.load(path / "model.safetensors")


def r2(truth: Any, predicted: Any) -> float:
    return float(1 - ((truth - predicted) ** 2).mean() / ((truth - truth.mean()) ** 2).mean())


def predictions(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))[1:]


def test_the_model_file_takes_the_table_as_it_is(runs: Path) -> None:
    """In Python, too: a frame with the same columns, not scaled by anybody."""
    frame, model = flats(200, 1), load(runs / "price")
    assert model.feature_names_in_.tolist() == COLUMNS
    test = from_table(runs / "flats.csv", "test", target="price", drop=["id", "city"])
    rows = np.flatnonzero(np.isin(frame["price"], test.y))
    assert len(rows) == 50
    assert model.data_["results"]["test R2"] == pytest.approx(
        r2(test.y, model.predict(frame[COLUMNS].iloc[rows])), rel=1e-12
    )
    train = np.delete(np.arange(200), rows)
    limits = frame[COLUMNS].to_numpy(float)[train]
    assert np.array_equal(model.feature_range_, [limits.min(0), limits.max(0)])
    assert {"target": "price", "drop": ["id", "city"]}.items() <= model.data_.items()
    assert model.data_["results"]["test R2"] > 0.8


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_evaluate_finds_the_columns_by_name(runs: Path, here: Path, capsys: Capture, ending: str) -> None:
    """In another order, of another kind of file, with columns more."""
    frame = flats(50, 2)
    turned = frame[frame.columns[::-1]].assign(colour="red")
    turned.to_csv("t.csv", index=False) if ending == "csv" else turned.to_parquet("t.parquet")
    assert main(["evaluate", str(runs / "price"), f"t.{ending}", "--split", "all"]) == 0
    shown, note = capsys.readouterr()
    expected = r2(frame["price"], load(runs / "price").predict(frame[COLUMNS]))
    assert facts_of(shown)["R2"] == f"{expected:.4f}"
    assert f"note: column colour of t.{ending} is not used\n" in note
    assert main(["evaluate", str(runs / "city"), f"t.{ending}", "--split", "all"]) == 0
    shown, note = capsys.readouterr()
    model = load(runs / "city")
    right = model.predict(frame[["area", "rooms", "garden", "price"]]) == frame["city"]
    assert facts_of(shown)["accuracy"] == f"{right.mean():.4f}"
    assert right.mean() > 0.8


def test_evaluate_without_data_takes_the_held_out_quarter(runs: Path, capsys: Capture) -> None:
    for name, number in (("price", "R2"), ("city", "accuracy")):
        capsys.readouterr()
        assert main(["evaluate", str(runs / name)]) == 0
        shown, note = capsys.readouterr()
        results = load(runs / name).data_["results"]
        assert facts_of(shown)[number] == f"{results[f'test {number}']:.4f}"
        assert "note" not in note, "columns that were dropped in training are no news"


def test_another_target_column(runs: Path, here: Path, capsys: Capture) -> None:
    frame = flats(50, 2).rename(columns={"price": "cost"})
    frame.to_csv("t.csv", index=False)
    assert main(["evaluate", str(runs / "price"), "t.csv"]) == 2
    assert "unknown column of t.csv 'price'" in capsys.readouterr().err
    assert main(["evaluate", str(runs / "price"), "t.csv", "--split", "all", "--target", "cost"]) == 0
    expected = r2(frame["cost"], load(runs / "price").predict(frame[COLUMNS]))
    assert facts_of(capsys.readouterr().out)["R2"] == f"{expected:.4f}"


def test_predict_needs_no_target_and_no_order(runs: Path, here: Path, capsys: Capture) -> None:
    frame = flats(20, 3)
    expected = load(runs / "price").predict(frame[COLUMNS])
    for columns, unused in ((COLUMNS, None), (["garden", "area", "rooms", "price"], "price")):
        frame[columns].to_csv("new.csv", index=False)
        frame[columns].to_parquet("new.parquet")
        for file in ("new.csv", "new.parquet"):
            assert main(["predict", str(runs / "price"), file]) == 0
            shown, note = capsys.readouterr()
            found = [float(row[1]) for row in predictions(shown)]
            np.testing.assert_allclose(found, expected, rtol=1e-8)
            assert (f"note: column {unused} of {file} is not used" in note) == (unused is not None)
    frame[[*COLUMNS, "price"]].to_csv("new.csv", index=False)
    assert main(["predict", str(runs / "city"), "new.csv"]) == 0
    labels = [row[1] for row in predictions(capsys.readouterr().out)]
    assert labels == load(runs / "city").predict(frame[[*COLUMNS, "price"]]).tolist()


def test_values_beyond_the_training_range_are_cut_off(runs: Path, here: Path, capsys: Capture) -> None:
    model = load(runs / "price")
    low, high = model.feature_range_
    Path("new.csv").write_text("garden,rooms,area\n-5,-5,-5\n9,99,1e6\n")
    assert main(["predict", str(runs / "price"), "new.csv"]) == 0
    found = [float(row[1]) for row in predictions(capsys.readouterr().out)]
    ends = pd.DataFrame([low, high], columns=COLUMNS)
    np.testing.assert_allclose(found, model.predict(ends), rtol=1e-8)


def test_lines_of_numbers_without_names_go_by_their_order(runs: Path, here: Path, capsys: Capture) -> None:
    frame = flats(5, 4)
    frame[COLUMNS].astype(float).to_csv("new.csv", index=False, header=False)
    assert main(["predict", str(runs / "price"), "new.csv"]) == 0
    found = [float(row[1]) for row in predictions(capsys.readouterr().out)]
    np.testing.assert_allclose(found, load(runs / "price").predict(frame[COLUMNS]), rtol=1e-8)


def test_a_model_fitted_in_python_on_a_frame(here: Path, capsys: Capture) -> None:
    frame = flats(60, 5)
    model = tnml.MPSRegressor(bond_dim=2, epochs=2, random_state=0).fit(frame[COLUMNS], frame["price"])
    model.save("own.safetensors")
    assert main(["predict", "own.safetensors", "flats.csv"]) == 0
    shown, note = capsys.readouterr()
    expected = model.predict(flats(200, 1)[COLUMNS])
    np.testing.assert_allclose([float(row[1]) for row in predictions(shown)], expected, rtol=1e-8)
    assert "columns id, city, price of flats.csv are not used" in note
    assert main(["evaluate", "own.safetensors", "flats.csv"]) == 2
    assert "does not say which column is the target; choose one with --target" in capsys.readouterr().err
    assert main(["evaluate", "own.safetensors", "flats.csv", "--target", "price", "--split", "all"]) == 0
    assert facts_of(capsys.readouterr().out)["R2"] == f"{r2(flats(200, 1)['price'], expected):.4f}"


def test_compress_and_inspect(runs: Path, here: Path, capsys: Capture) -> None:
    words = ["--max_bond", "2", "--norm", "samples", "--out", "small.safetensors"]
    assert main(["compress", str(runs / "price"), *words]) == 0
    small, large, frame = tnml.load("small.safetensors"), load(runs / "price"), flats(50, 2)
    assert small.feature_names_in_.tolist() == COLUMNS
    assert np.array_equal(small.feature_range_, large.feature_range_)
    assert r2(large.predict(frame[COLUMNS]), small.predict(frame[COLUMNS])) > 0.9
    capsys.readouterr()
    assert main(["inspect", "small.safetensors", "more.csv"]) == 0
    shown = facts_of(capsys.readouterr().out)
    assert (shown["kind"], shown["columns"]) == ("regressor of 1 target: price", "area, rooms, garden")
    assert "outputs on 13 samples (more, test)" not in shown  # a heading without a colon
    assert shown["compressed"].startswith("from bond dimension 4")


TRAIN: dict[str, tuple[list[str], str]] = {
    "no target": (["flats.csv"], "name the column to predict with --target, one of: id, area, rooms, garden"),
    "unknown target": (["flats.csv", "--target", "prize"], "'prize'; did you mean 'price'?"),
    "unknown column": (
        ["flats.csv", "--target", "price", "--data.drop", "[ids]"],
        "'ids'; did you mean 'id'?",
    ),
    "text": (
        ["flats.csv", "--target", "price", "--task", "regression"],
        "holds text in column 'city', and a feature has to be a number; drop it or encode it as numbers",
    ),
    "text as a real target": (["flats.csv", "--target", "city", "--task", "regression"], "must be numbers"),
    "real targets as labels": (
        ["flats.csv", "--target", "price", "--data.drop", "[city]"],
        "--task regression",
    ),
    "pooling": (["flats.csv", "--target", "city", "--data.pool", "2"], "is a table; --data.pool and"),
    "no file": (["none.csv", "--target", "y"], "no table at none.csv; check the path"),
    "a gap": (["gaps.csv", "--target", "y"], "row 2 of gaps.csv has no value in column 'a'"),
    "digits": (["digits", "--target", "y"], "--target y names columns of a table"),
}


@pytest.mark.parametrize("name", TRAIN)
def test_training_refuses(here: Path, capsys: Capture, name: str) -> None:
    Path("gaps.csv").write_text("a,y\n1,0\n,1\n3,0\n4,1\n")
    words, says = TRAIN[name]
    assert main(["train", *words, "--out", "run"]) == 2
    error = capsys.readouterr().err.replace(f"{here}/", "")
    assert says in error
    assert error.count("\n") == 1
    assert not Path("run").exists()


USE: dict[str, tuple[list[str], str]] = {
    "a column is missing": (
        ["predict", "price", "less.csv"],
        "less.csv has no column 'rooms'; it has id, area,",
    ),
    "columns are missing": (["evaluate", "price", "other.csv"], "no columns 'area', 'rooms', 'garden'"),
    "a scale": (
        ["evaluate", "price", "more.csv", "--scale", "[0,1]"],
        "scales the columns .* leave --scale out",
    ),
    "a scale to predict": (["predict", "price", "more.csv", "--scale", "[0,1]"], "leave --scale out"),
    "arrays for a table": (
        ["evaluate", "price", "toy.npz"],
        "was trained on a table; give a .csv or .parquet",
    ),
    "a table for arrays": (["evaluate", "plain.safetensors", "more.csv"], "has no column names"),
    "a target of arrays": (
        ["evaluate", "plain.safetensors", "toy.npz", "--target", "y"],
        "--target names a col",
    ),
    "text in a feature": (["predict", "price", "words.csv"], "holds text in column 'rooms'"),
    "a gap": (["predict", "price", "gaps.csv"], "row 1 of gaps.csv has no value in column 'rooms'"),
    "a label that is new": (
        ["evaluate", "city", "new.csv", "--split", "all"],
        "the label Chur, the model knows Ba",
    ),
}


@pytest.mark.parametrize("name", USE)
def test_models_refuse(runs: Path, here: Path, capsys: Capture, name: str) -> None:
    frame = flats(10, 6)
    frame.drop(columns="rooms").to_csv("less.csv", index=False)
    frame[["price", "id"]].to_csv("other.csv", index=False)
    frame.assign(rooms="many").to_csv("words.csv", index=False)
    frame.assign(rooms=np.nan).to_csv("gaps.csv", index=False)
    frame.assign(city="Chur").to_csv("new.csv", index=False)
    np.savez("toy.npz", x=np.linspace(0, 1, 24).reshape(8, 3), y=np.arange(8) % 2)
    layer = MPSLayer(3, 2, bond_dim=2)
    tnml.MPSClassifier.from_layer(layer, [0, 1]).save("plain.safetensors")
    (command, model, *rest), says = USE[name]
    place = str(runs / model) if model in ("price", "city") else model
    assert main([command, place, *rest]) == 2
    shown, error = capsys.readouterr()
    assert shown == ""
    assert re.search(says, error), error
    assert error.count("\n") == 1


def test_names_that_look_like_numbers(here: Path) -> None:
    frame = flats(60, 8).rename(columns={"area": "2020", "rooms": "1e3", "id": "true"})
    frame.to_csv("t.csv", index=False)
    words = [
        "train",
        "t.csv",
        "--target",
        "price",
        "--task",
        "regression",
        "--train.epochs",
        "1",
        "--device",
        "cpu",
    ]
    assert main([*words, "--data.drop", "[2020, city, 'true']", "--out", "run"]) == 0
    assert load(Path("run")).feature_names_in_.tolist() == ["1e3", "garden"]
    assert main(["train", "--config", "run/options.yaml", "--data.drop", "city", "--out", "more"]) == 0
    assert load(Path("more")).feature_names_in_.tolist() == ["true", "2020", "1e3", "garden"]
    words[words.index("price")] = "2020"
    assert main([*words, "--data.drop", "city", "--out", "year"]) == 0
    assert load(Path("year")).data_["target"] == "2020"


def test_a_resumed_run_reads_the_table_again(here: Path, capsys: Capture) -> None:
    assert main([*PRICE, "--out", "run"]) == 0
    before = load(Path("run")).predict(flats(50, 2)[COLUMNS])
    Path("run/model.safetensors").unlink()
    assert main(["train", "--resume", "run"]) == 0
    assert np.array_equal(load(Path("run")).predict(flats(50, 2)[COLUMNS]), before)
    Path("run/model.safetensors").unlink()
    flats(200, 9).to_csv("flats.csv", index=False)
    assert main(["train", "--resume", "run"]) == 2
    assert "data checksum" in capsys.readouterr().err


def test_estimators_around_a_layer_check_range_and_names() -> None:
    layer, names = MPSLayer(3, 1, bond_dim=2), ["a", "b", "c"]
    limits = np.array([[0.0, 1, 2], [1, 3, 6]])
    made = tnml.MPSRegressor.from_layer(layer, feature_range=limits, feature_names=names)
    assert made.feature_names_in_.tolist() == names
    frame = pd.DataFrame([[0.5, 2, 4]], columns=names)
    plain = tnml.MPSRegressor.from_layer(layer).predict([[0.5, 0.5, 0.5]])
    assert np.array_equal(made.predict(frame), plain)
    with pytest.raises(InputError, match="expected 3 feature names, got 2"):
        tnml.MPSRegressor.from_layer(layer, feature_names=["a", "b"])
    for wrong in (limits[:, :2], -limits, np.full((2, 3), np.nan)):
        with pytest.raises(InputError, match="feature_range must be a pair"):
            tnml.MPSRegressor.from_layer(layer, feature_range=wrong)
