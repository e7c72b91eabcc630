"""`tnml explain`: what it prints, writes and draws, against the estimator; and what it refuses."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tnml
from tnml.cli import main
from tnml.data import from_table, load

Capture = pytest.CaptureFixture[str]
QUICK = ["--train.epochs", "2", "--model.bond_dim", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on digits of 4 x 4 pixels, and on labels and prices in a table."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    area, rooms = rng.uniform(20, 120, 80), rng.integers(1, 6, 80)
    city = np.where(area > 90, "Bern", np.where(rooms > 3, "Basel", "Chur"))
    pd.DataFrame({"area": area, "rooms": rooms, "city": city, "price": area * rooms}).to_csv(
        folder / "flats.csv", index=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "digits", "--data.pool", "2", *QUICK, "--out", "digits"]) == 0
        table = ["train", "flats.csv", *QUICK]
        assert main([*table, "--target", "city", "--data.drop", "[price]", "--out", "city"]) == 0
        price = ["--task", "regression", "--target", "price", "--data.drop", "[city]"]
        assert main([*table, *price, "--out", "price"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)


def estimator(name: str):
    return tnml.load(f"{name}/model.safetensors")


def test_images(capsys: Capture) -> None:
    assert main(["explain", "digits", "--rows", "3:6", "--figure", "maps.svg", "--out", "values.json"]) == 0
    shown = capsys.readouterr().out
    written = json.loads(Path("values.json").read_text())
    train, test = (load("digits", split=split, pool=2) for split in ("train", "test"))
    chosen = [place * len(train) // 1000 for place in range(1000)]
    found = estimator("digits").explain(test.x[3:6], train.x[chosen])
    np.testing.assert_allclose(written["values"], found.values, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(written["outputs"], found.outputs, rtol=1e-6)
    assert written["targets"] == test.y[3:6].tolist()
    assert written["names"] == [str(digit) for digit in range(10)]
    assert "data:       digits, test: 3 of 451 samples" in shown
    assert "background: 1000 of 1346 training samples" in shown
    best = int(found.outputs[0].argmax())
    row = next(line.split() for line in shown.splitlines() if line.startswith("3 "))
    assert row[1:3] == [str(test.y[3]), str(best)]
    assert float(row[3]) == pytest.approx(float(found.outputs[0, best]), rel=1e-3)
    assert Path("maps.svg").read_text().count("<image") == 3 * 11


def test_tables_of_classes(capsys: Capture) -> None:
    asked = ["explain", "city", "flats.csv", "--split", "all", "--rows", "1,5"]
    assert main([*asked, "--label", "Bern", "--against", "Chur", "--out", "values.csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(Path("values.csv").read_text())))
    assert [(row["row"], row["name"]) for row in rows] == [("1", "Bern - Chur"), ("5", "Bern - Chur")]
    train, every = (from_table("flats.csv", target="city", drop=["price"], split=s) for s in ("train", "all"))
    limits = train.feature_range
    raw = [limits[0] + part.x * (limits[1] - limits[0]) for part in (every, train)]
    found = estimator("city").explain(
        pd.DataFrame(raw[0][[1, 5]], columns=["area", "rooms"]),
        pd.DataFrame(raw[1], columns=["area", "rooms"]),
        target="Bern",
        against="Chur",
    )
    for place, name in enumerate(("area", "rooms")):
        np.testing.assert_allclose(
            [float(row[name]) for row in rows], found.values[:, place, 0], rtol=1e-3, atol=1e-5
        )
    assert "largest contributions" in capsys.readouterr().out
    assert (
        main([*asked, "--figure", "bars.png"])
        == main(["explain", "city", "--rows", "2", "--figure", "one.png"])
        == 0
    )
    assert Path("bars.png").stat().st_size > 1000 < Path("one.png").stat().st_size


def test_tables_of_numbers(capsys: Capture) -> None:
    swarm = ["explain", "price", "--rows", ":", "--figure", "swarm.svg"]
    assert main(swarm) == 0
    shown = capsys.readouterr().out
    assert "price" in shown
    assert "Contributions to price" in Path("swarm.svg").read_text()
    assert main(["explain", "price", "--feature", "area", "--figure", "curve.svg", "--kind", "banzhaf"]) == 0
    shown = capsys.readouterr().out
    assert "gap" not in shown
    assert "Outputs while area changes" in Path("curve.svg").read_text()
    assert main(["explain", "city", "--rows", "0:9", "--page", "why.html"]) == 0
    page = Path("why.html").read_text()
    assert page.count("<img ") == 4, "all samples, the first one, and two curves"
    assert page.count("<tr><td>") == 9


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["city", "--label", "Berm"], "unknown class 'Berm'; did you mean 'Bern'?"),
        (["price", "--label", "3"], "--label names a class"),
        (["city", "--rows", "0:0"], "chooses none of the 20 samples"),
        (["city", "--rows", "2,99"], "or one that does not exist"),
        (["city", "--rows", "some"], "--rows must be first:last"),
        (["city", "--rows", "1:9:0"], "--rows must be first:last"),
        (["city", "--feature", "area"], "say where to plot it with --figure"),
        (["city", "--feature", "aera", "--figure", "a.png"], "did you mean 'area'?"),
        (["city", "--out", "values.txt"], "unknown format of --out 'txt'"),
        (["city", "--figure", "maps.jpeg"], "unknown figure format 'jpeg'"),
        (["city", "--page", "why.pdf"], "unknown format of --page 'pdf'"),
        (["city", "--kind", "shapely"], "did you mean 'shapley'?"),
        (["city", "--background", "0"], "--background must be"),
    ],
)
def test_bad_input(words: list[str], text: str, capsys: Capture) -> None:
    assert main(["explain", *words]) == 2
    assert text in capsys.readouterr().err
