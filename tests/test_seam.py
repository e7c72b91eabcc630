"""A network, a loss and a diagnostic that tnml does not know, each in one file, from end to end.

They are put into the three tables and nothing else: the command line, the estimators, model files, resumed
runs and the report of a study take them without a line changed.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_diagnostic
import toy_loss
import toy_network
import yaml
from safetensors.torch import load_file

import tnml
from tnml.cli import main
from tnml.diagnostics import CALLBACKS
from tnml.loop.results import TrainingInterrupted
from tnml.nn import NETWORKS, make_layer
from tnml.report.study_html import page_data
from tnml.report.study_rows import read_study
from tnml.study import Study, run
from tnml.training import TrainOptions, train_regressor
from tnml.training.losses import LOSSES

Capture = pytest.CaptureFixture[str]
LOSS = {"name": "power", "power": 3.0}
TRAIN = [
    *("train", "flats.csv", "--task", "regression", "--target", "price", "--device", "cpu"),
    *("--model.network", "toy", "--model.options", "{rank: 3}", "--train.loss", "{name: power, power: 3.0}"),
    *("--callbacks", "[spread, tracker]", "--train.epochs", "8", "--train.lr", "0.02"),
]


def samples(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(n, 4))
    return x, 5 + 3 * x[:, 0] - 2 * x[:, 1] * x[:, 2]


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "toy", toy_network.TOY)
    monkeypatch.setitem(LOSSES, "power", toy_loss.ROW)
    monkeypatch.setitem(CALLBACKS, "spread", toy_diagnostic.ROW)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x, y = samples()
    lines = [",".join(map(repr, map(float, [*row, target]))) for row, target in zip(x, y, strict=True)]
    Path("flats.csv").write_text("a,b,c,d,price\n" + "\n".join(lines))
    return tmp_path


def column(run_dir: str, name: str) -> list[float]:
    with open(Path(run_dir) / "metrics.csv", newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream)]


def facts_of(text: str) -> dict[str, str]:
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def test_it_trains_and_the_numbers_are_written(here: Path, capsys: Capture) -> None:
    assert main([*TRAIN, "--out", "run"]) == 0
    shown = capsys.readouterr().out
    assert "TOY of bond dimension 3" in shown
    assert all("toy_spread" in line for line in shown.splitlines() if line.startswith("epoch"))
    spreads = column("run", "toy_spread")
    assert len(spreads) == 8
    assert column("run", "toy_largest_spread") == [max(spreads[: i + 1]) for i in range(8)]
    assert len(column("run", "log_norm")) == 8
    loss = column("run", "loss")
    assert loss[-1] < loss[0]
    stored = yaml.safe_load(Path("run/options.yaml").read_text())
    assert (stored["model"]["network"], stored["model"]["options"]) == ("toy", {"rank": 3})
    assert (stored["train"]["loss"], stored["callbacks"]) == (LOSS, ["spread", "tracker"])
    model = tnml.load("run/model.safetensors")
    assert isinstance(model, tnml.MPSRegressor)
    assert type(model.layer_) is toy_network.ToyLayer
    assert model.layer_.label.shape == (1, 3)


def test_a_stopped_run_resumes_to_the_same_bits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, count = toy_diagnostic.Spread.__call__, 0

    def stop_at_four(self: Any, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return call(self, *args)

    assert main([*TRAIN, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(toy_diagnostic.Spread, "__call__", stop_at_four)
        assert main([*TRAIN, "--out", "cut"]) == 130
    assert not Path("cut/model.safetensors").exists()
    assert main(["train", "--resume", "cut"]) == 0
    whole, cut = (load_file(Path(run) / "model.safetensors") for run in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    for name in ("toy_spread", "toy_largest_spread", "log_norm_growth", "loss"):
        assert column("cut", name) == column("whole", name)


def test_evaluate_predict_inspect_and_compress(here: Path, capsys: Capture) -> None:
    assert main([*TRAIN, "--train.epochs", "80", "--out", "run"]) == 0
    x, _ = samples(20, seed=1)
    np.savetxt("new.csv", x[:, ::-1], delimiter=",", header="d,c,b,a", comments="")
    capsys.readouterr()
    assert main(["predict", "run", "new.csv"]) == 0
    found = [float(line.split(",")[1]) for line in capsys.readouterr().out.splitlines()[1:]]
    model = tnml.load("run/model.safetensors")
    assert isinstance(model, tnml.MPSRegressor)
    low, high = model.feature_range_  # type: ignore[misc]
    unit = torch.tensor(np.clip((x - low) / (high - low), 0, 1), dtype=torch.float32)
    dense = toy_product(model.layer_, unit) * model.y_scale_[0] + model.y_mean_[0]
    np.testing.assert_allclose(found, dense, rtol=1e-5)
    assert main(["evaluate", "run", "--figure", "p.svg"]) == 0
    assert float(facts_of(capsys.readouterr().out)["R2"]) > 0.5
    assert main(["inspect", "run"]) == 0
    shown = facts_of(capsys.readouterr().out)
    assert shown["network"] == "toy (ToyLayer)"
    assert float(shown["toy_spread"]) == pytest.approx(column("run", "toy_spread")[-1], rel=1e-5)
    assert main(["compress", "run", "--max_bond", "2"]) == 2
    assert "compression needs" in capsys.readouterr().err


def toy_product(layer: Any, x: torch.Tensor) -> np.ndarray:
    """The network's formula by einsum, on features (1 - x, x)."""
    values = np.stack([1 - x.numpy(), x.numpy()], -1).astype(float)[:, layer.order.numpy()]
    vectors, label = layer.vectors.detach().double().numpy(), layer.label.detach().double().numpy()
    return np.einsum("bnd,ndr->bnr", values, vectors).prod(1) @ label[0]


def test_options_that_the_network_does_not_have(here: Path, capsys: Capture) -> None:
    for words, says in (
        (["--model.bond_dim", "7"], "network 'toy' has no bond_dim, got 7"),
        (["--model.options", "{rnak: 3}"], "'rnak'; did you mean 'rank'?"),
        (["--model.network", "tyo"], "unknown network 'tyo'; did you mean 'toy'?"),
        (["--solver", "dmrg"], "does not go with --solver dmrg"),
        (["--callbacks", "[sprad]"], "unknown callback 'sprad'; did you mean 'spread'?"),
    ):
        assert main([*TRAIN, *words, "--out", "run"]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
        assert not Path("run").exists()
    words = ["--task", "regression", "--target", "price", "--solver", "dmrg", "--model.network", "toy"]
    assert main(["train", "flats.csv", *words, "--out", "run"]) == 2
    assert "--solver dmrg trains an MPSLayer, got network 'toy'" in capsys.readouterr().err


def test_the_estimator_takes_all_three() -> None:
    x, y = samples()
    model = tnml.MPSRegressor(
        network={"name": "toy", "rank": 3}, loss=LOSS, epochs=80, lr=0.02, batch_size=16, random_state=0
    )
    spread = toy_diagnostic.Spread(torch.tensor(x, dtype=torch.float32))
    model.fit(x, y, callbacks=[spread])
    assert [row["toy_largest_spread"] for row in model.history_][-1] == spread.largest > 0
    assert type(model.layer_) is toy_network.ToyLayer
    assert model.score(x, y) > 0.5


def test_a_run_resumes_in_python_and_refuses_another_network(tmp_path: Path) -> None:
    x, y = samples()
    options = TrainOptions(loss=LOSS, epochs=3, batch_size=16, device="cpu", schedule="constant")
    layer = make_layer({"name": "toy", "rank": 3}, 4, 1)

    def stop(view: Any) -> None:
        if view.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted):
        train_regressor(layer, x, y, options, run_dir=tmp_path, on_step=stop)
    for other in ("mps", {"name": "toy", "rank": 2}):
        with pytest.raises(tnml.InputError, match="in the checkpoint"):
            train_regressor(make_layer(other, 4, 1), x, y, options, run_dir=tmp_path, resume=True)
    again = make_layer({"name": "toy", "rank": 3}, 4, 1)
    assert len(train_regressor(again, x, y, options, run_dir=tmp_path, resume=True).history) == 3


def watched(options: Any, folder: Path) -> dict[str, Any]:
    """The runner of the study below: trains the toy network and returns what the toy diagnostic measured."""
    del folder
    x, y = samples(seed=options["seed"])
    layer = make_layer({"name": "toy", "rank": options["bond_dim"]}, 4, 1, seed=options["seed"])
    training = TrainOptions(loss=LOSS, epochs=3, lr=0.02, batch_size=16, device="cpu")
    spread = toy_diagnostic.Spread(torch.tensor(x, dtype=torch.float32))
    result = train_regressor(layer, x, y - y.mean(), training, callbacks=[spread])
    return {"toy_spread": result.history[-1]["toy_spread"], "train_loss": result.history[-1]["loss"]}


def test_a_study_shows_the_diagnostic_on_its_page(tmp_path: Path) -> None:
    study = Study(name="toys", runner=f"{__name__}:watched", grid={"bond_dim": [1, 2, 3], "seed": [0, 1]})
    table = run(study, folder=tmp_path, workers=0)
    assert not table.failed
    page = page_data(read_study(tmp_path), tmp_path)
    figures = {figure["name"]: figure["lines"] for figure in page["extra"]}
    assert figures["toy_spread"] == [("toy_spread", "toy spread")]
    place = page["columns"].index("toy_spread")
    assert [row[place] for row in page["rows"]] == table.column("toy_spread")
