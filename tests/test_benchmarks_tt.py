"""The benchmarks of tensor-train layers in their smallest form: answers are checked, no time is judged."""

import argparse
import io
import itertools
import json
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks import __main__ as program
from benchmarks import tnn, tt_compress, tt_linear, tt_peers, tt_svd, tt_table
from benchmarks.tt_worker import Worker, check, inputs, serve
from tnml.contraction import PLANS
from tnml.nn import compress

CASE = tt_peers.Case("30", (2, 5, 3), (3, 2, 4), 7, 3)


def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def settings() -> list[Any]:
    found = []
    for contender in tt_peers.CONTENDERS.values():
        missing = pytest.mark.skipif(
            not contender.installed(), reason=f"{contender.package} is not installed"
        )
        other = pytest.mark.filterwarnings("ignore" if contender.peer else "error")
        for number, setting in enumerate(contender.settings):
            name = f"{contender.name}-{number}"
            found.append(pytest.param(contender, setting, marks=[missing, other], id=name))
    return found


@pytest.mark.parametrize(("contender", "setting"), settings())
def test_every_contender_computes_the_answer(contender: tt_peers.Contender, setting: dict[str, Any]) -> None:
    found = check(contender, setting, CASE)
    assert found["matched"], found
    assert min(found["errors"].values()) > 0, "float32 cannot agree to the last digit: nothing was compared"
    own = {"weight"} if contender.name == "dense" else {"cores"}
    assert set(found["errors"]) == {"outputs", "x", "bias"} | own


def by_loops(cores: list[Tensor]) -> np.ndarray:
    """Every entry of the matrix as a product of small matrices."""
    arrays = [core.numpy() for core in cores]
    rows = itertools.product(*(range(core.shape[1]) for core in arrays))
    columns = list(itertools.product(*(range(core.shape[2]) for core in arrays)))
    return np.array(
        [
            [
                np.linalg.multi_dot([core[:, o, i] for core, o, i in zip(arrays, row, column, strict=True)])[
                    0, 0
                ]
                for column in columns
            ]
            for row in rows
        ]
    )


def test_the_answer_is_that_of_the_definition() -> None:
    instance = tt_peers.make_instance(CASE, seed=4)
    x, outgoing = inputs(CASE)
    x, outgoing = x.detach().double(), outgoing.double()
    weight = by_loops(instance.cores)
    found = tt_peers.answer(instance, x, outgoing)
    np.testing.assert_allclose(found.outputs, x.numpy() @ weight.T + instance.bias.numpy(), atol=1e-12)
    np.testing.assert_allclose(found.x, outgoing.numpy() @ weight, atol=1e-12)
    np.testing.assert_allclose(found.weight, outgoing.numpy().T @ x.numpy(), atol=1e-12)
    np.testing.assert_allclose(found.bias, outgoing.numpy().sum(0), atol=1e-12)
    for number, place in ((0, (0, 2, 1, 2)), (1, (1, 0, 3, 2)), (2, (2, 3, 0, 0))):
        moved = [
            core.clone() for core in instance.cores
        ]  # the matrix is linear in each core: no limit is needed
        moved[number][place] += 1.0
        change = (found.weight.numpy() * (by_loops(moved) - weight)).sum()
        assert found.cores[number][place].item() == pytest.approx(change, abs=1e-12)


def test_the_numbers_of_an_instance_are_of_order_one() -> None:
    case = tt_peers.Case("512", (8, 8, 8), (8, 8, 8), 200, 5)
    x, _ = inputs(case)
    weight = tt_peers.make_instance(case, seed=0).weight()
    assert 0.2 < (x.detach().double() @ weight.T).square().mean() < 5
    assert case.n_weights == sum(core.numel() for core in tt_peers.make_instance(case, seed=0).cores)


class Wrong(tt_peers.Own):
    """Right outputs, one wrong gradient."""

    def gradients(self) -> list[tuple[str, Tensor]]:
        (name, first), *others = super().gradients()
        return [(name, 1.001 * first), *others]


class Deaf(tt_peers.Own):
    """Keeps its gradient of the inputs to itself."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x.detach())


class Forgetful(tt_peers.Own):
    """Tells of one gradient less."""

    def gradients(self) -> list[tuple[str, Tensor]]:
        return super().gradients()[:-1]


def test_wrong_and_missing_gradients_are_noticed() -> None:
    wrong = check(tt_peers.Contender("wrong", Wrong), {}, CASE)
    assert wrong["errors"]["outputs"] < wrong["tolerance"] < wrong["errors"]["cores"]
    assert not wrong["matched"]
    assert not check(tt_peers.Contender("forgetful", Forgetful), {}, CASE)["matched"]
    with pytest.raises(ValueError, match="the inputs got no gradient"):
        check(tt_peers.Contender("deaf", Deaf), {}, CASE)


def test_a_worker_measures_what_it_says() -> None:
    two = tt_peers.Contender("two", tt_peers.Dense, settings=({"threads": "all"}, {"threads": 1}))
    before = torch.get_num_threads()
    worker = Worker(two, CASE)
    assert [trial["threads"] for trial in worker.report["trials"]] == ["all", 1]
    fastest = min(worker.report["trials"], key=lambda trial: trial["seconds"])
    assert worker.report["setting"]["threads"] == fastest["threads"]
    assert worker.report["check"]["matched"]
    assert worker.report["memory"]["peak_bytes"] >= 0
    found = worker.round()
    torch.set_num_threads(before)
    for kind in ("step", "forward"):
        assert all(seconds > 0 for seconds in found[kind]["wall"])
        assert 1 <= len(found[kind]["wall"]) == len(found[kind]["cpu"]) <= 20


def record(name: str, rounds: list[float], memory: int = 100, rank: int = 8) -> dict[str, Any]:
    times = {"median": rounds[0], "min": min(rounds), "max": max(rounds), "count": len(rounds)}
    ins, outs, batch, _ = tt_linear.ROWS["4096"]
    case = {"name": "4096", "ins": ins, "outs": outs, "batch": batch, "rank": rank, "status": "ok"}
    medians = {f"{kind}_round_ms": rounds for kind in ("step", "forward")}
    summaries = {f"{kind}_wall_ms": times for kind in ("step", "forward")}
    return {"implementation": name, **case, **medians, **summaries, "memory": {"peak_bytes": memory}}


def test_ratios_are_taken_within_a_round() -> None:
    found = tt_linear.ratio(record("tnml", [1.0, 20.0, 3.0]), record("dense", [2.0, 40.0, 6.0]), "step")
    assert found == {"median": 0.5, "low": 0.5, "high": 0.5}, "the second round was slow for both"
    assert tt_linear.ratio(record("tnml", [1.0]), record("dense", [4.0]), "step")["median"] == 0.25


def test_bars_of_the_layer() -> None:
    rows = [
        record("dense", [10.0] * 5),
        record("tnml", [5.0] * 5, memory=111),
        record("torchtt", [4.7, 4.8, 5.1, 5.2, 5.3]),
        record("tltorch-factorized", [5.6] * 5),
        record("tltorch-reconstructed", [4.9] * 5),
    ]
    tt_linear.compare(rows)
    bars = {bar["what"]: bar for bar in rows[1]["bars"]}
    assert {what: bar["passed"] for what, bar in bars.items()} == {
        "step_over_dense": True,
        "memory_over_dense": False,
        "torchtt_over_tnml": True,
        "tltorch-factorized_over_tnml": True,
        "tltorch-reconstructed_over_tnml": False,
    }
    assert [what for what, bar in bars.items() if bar.get("equal")] == ["torchtt_over_tnml"]
    assert all("bars" not in row for row in rows if row["implementation"] != "tnml")
    cells = [" ".join(tt_table._cells(row, rows)) for row in rows]
    assert "0.500 <=1.05 [green]pass" in cells[1]
    assert "1.11 <=1.1 [red]miss" in cells[1]
    assert "1.02 >=1.1 [green]equal" in cells[2]
    rows = [record("dense", [10.0], rank=4), record("tnml", [1.5], rank=4)]
    tt_linear.compare(rows)
    assert [bar["passed"] for bar in rows[1]["bars"]] == [False, True], "0.14 at rank 4"


def test_cases_can_be_chosen() -> None:
    options = argparse.Namespace(smoke=False, rows="784,64", ranks="4,16")
    assert [(case.name, case.rank) for case in tt_linear.cases_of(options)] == [
        *(("784", 4), ("784", 16)),
        *(("64", 4), ("64", 16)),
    ]
    every = list(tt_linear.cases_of(argparse.Namespace(smoke=False, rows=None, ranks=None)))
    assert len(every) == 19
    with pytest.raises(SystemExit, match="choose from: 4096, 1024"):
        list(tt_linear.cases_of(argparse.Namespace(smoke=False, rows="4069", ranks=None)))


@pytest.mark.slow
def test_tt_linear_smoke(tmp_path: Path) -> None:
    out = tmp_path / "tt_linear.json"
    assert program.main(["tt_linear", "--smoke", "--only", "dense,tnml", "--out", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    dense, own = result["rows"]
    assert (dense["implementation"], own["implementation"]) == ("dense", "tnml")
    assert (dense["parameters"], own["parameters"]) == (60 * 36, tt_linear.SMOKE.n_weights)
    for row in (dense, own):
        assert row["status"] == "ok"
        assert row["check"]["matched"]
        assert len(row["step_round_ms"]) == 2
        assert 0 < row["step_wall_ms"]["min"] <= row["step_wall_ms"]["median"] <= row["step_wall_ms"]["max"]
    assert dense["over_dense"]["step"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert own["over_dense"]["step"]["median"] > 0
    by_hand = 6 * 16 * 60 * 36  # forward and two products backward of the dense layer
    assert 0 < own["bound"] < 3
    assert own["bound"] * by_hand == pytest.approx(round(own["bound"] * by_hand), abs=0.2), "whole operations"
    assert own["plan"].split()[0] in PLANS
    with pytest.raises(SystemExit, match="choose from: dense, tnml"):
        program.main(["tt_linear", "--smoke", "--only", "dens"])


def test_a_failing_contender_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(instance: tt_peers.Instance, setting: dict[str, Any]) -> tt_peers.Model:
        raise RuntimeError("no such core")

    monkeypatch.setitem(tt_peers.CONTENDERS, "failing", tt_peers.Contender("failing", fail))
    here, there = multiprocessing.Pipe()
    worker = threading.Thread(target=serve, args=(there, "failing", CASE))
    worker.start()
    turn = tt_linear._Turn("failing", CASE, here)
    assert not turn.prepare()
    turn.measure()
    turn.finish()
    worker.join(10)
    assert turn.record["status"] == "failed"
    assert turn.record["reason"] == "RuntimeError in prepare: no such core"
    tt_linear.compare([turn.record])
    assert tt_table.line([turn.record]) == "failing failed"


def test_a_wrong_answer_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, status in (("tnml", "failed"), ("pytest", "ok")):  # of a peer it is only noted
        monkeypatch.setitem(tt_peers.CONTENDERS, "wrong", tt_peers.Contender("wrong", Wrong, package))
        here, there = multiprocessing.Pipe()
        worker = threading.Thread(target=serve, args=(there, "wrong", CASE))
        worker.start()
        turn = tt_linear._Turn("wrong", CASE, here)
        assert turn.prepare() == (status == "ok")
        turn.measure()
        turn.finish()
        worker.join(10)
        assert turn.record["status"] == status
        assert ("note" in turn.record) == ("step_wall_ms" in turn.record) == (status == "ok")


def test_a_package_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tt_peers.Contender("absent", tt_peers.Dense, package="no_such_package")
    monkeypatch.setitem(tt_peers.CONTENDERS, "absent", absent)
    options = argparse.Namespace(smoke=True, only="absent", rows=None, ranks=None, rounds=1)
    result = tt_linear.measure(options, console())
    assert (result["rows"], result["not_installed"]) == ([], ["absent"])


def test_thin_layers_are_the_truncated_svd(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4))
    size = 12 * 4 + 9 * 4 + 9 + 9 * 4 + 4  # rank 4 in the place of the first layer
    thin, ranks = tt_svd.svd_like(model, [0], size)
    assert ranks == [4]
    assert sum(p.numel() for p in thin.parameters()) == size
    u, s, v = np.linalg.svd(model[0].weight.detach().numpy(), full_matrices=False)
    x = torch.rand(5, 12, generator=generator)
    first = x.numpy() @ ((u[:, :4] * s[:4]) @ v[:4]).T + model[0].bias.detach().numpy()
    np.testing.assert_allclose(thin[0](x).detach(), first, atol=1e-5)
    assert thin[2] is not model[2], "the whole model must not be trained along"
    torch.testing.assert_close(thin[2].weight, model[2].weight)


def test_thin_layers_share_one_error_and_are_not_smaller() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 50))
    for size in (600, 900, 1500):
        thin, ranks = tt_svd.svd_like(model, [0, 2], size)
        steps = (70, 90)
        found = sum(p.numel() for p in thin.parameters())
        assert size <= found < size + max(steps)
        assert found == 90 + sum(rank * step for rank, step in zip(ranks, steps, strict=True))


def test_tt_compress_smoke(tmp_path: Path) -> None:
    out, figure = tmp_path / "tt_compress.json", tmp_path / "curve.png"
    words = ["tt_compress", "--smoke", "--out", str(out), "--figure", str(figure)]
    assert program.main(words) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    whole, (trains, thin) = result["whole"], result["rows"]
    assert whole["parameters"] == 64 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10
    assert (trains["layers"], thin["layers"]) == ("tensor trains", "truncated SVD")
    assert trains["parameters"] <= 0.3 * whole["parameters"] <= 1.1 * trains["parameters"]
    assert trains["parameters"] <= thin["parameters"] < trains["parameters"] + 128
    for row in (trains, thin):
        assert row["tuned_accuracy"] > max(0.5, row["cut_accuracy"] - 0.05)
        lost = 100 * (whole["test_accuracy"] - row["tuned_accuracy"])
        assert row["points_lost"] == pytest.approx(lost, abs=1e-3)
    assert trains["ranks"][0] == trains["ranks"][1], "one rank for all layers"
    assert figure.stat().st_size > 10_000


def test_the_largest_rank_is_the_last_that_fits() -> None:
    model = tt_compress.mlp(64, 64, 10)
    rank = tt_compress.largest_rank(model, 0.4)
    sizes = [
        sum(p.numel() for p in compress(model, rank=r, skip=["6"]).model.parameters())
        for r in (rank, rank + 1)
    ]
    assert sizes[0] <= 0.4 * sum(p.numel() for p in model.parameters()) < sizes[1]


def test_the_bars_of_compression() -> None:
    rows = [
        {"layers": layers, "ratio": ratio, "points_lost": lost, "parameters": 10}
        for layers, ratio, lost in (
            (tt_compress.TRAINS, 0.1, 0.4),
            (tt_compress.TRAINS, 0.2, 0.0),
            (tt_compress.SVD, 0.1, 0.0),
        )
    ]
    result = {"whole": {"test_accuracy": 0.984, "parameters": 100}, "rows": rows}
    assert [bar["passed"] for bar in tt_compress.judge(result)] == [True, False]
    rows[0]["points_lost"] = 0.3
    assert [bar["passed"] for bar in tt_compress.judge(result)] == [True, True]
    rows[0]["parameters"] = 11
    assert [bar["passed"] for bar in tt_compress.judge(result)] == [True, False]


@pytest.mark.slow
def test_tnn_smoke(tmp_path: Path) -> None:
    out = tmp_path / "tnn.json"
    assert program.main(["tnn", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    trains, wide, narrow = result["fashion"]
    assert trains["dense_parameters"] == wide["parameters"] > narrow["parameters"] >= trains["parameters"]
    assert narrow["parameters"] - trains["parameters"] < 110, "the narrower width would have too few"
    for row in (trains, wide, narrow):
        assert row["test_accuracy"] > 0.3
    assert [row["network"] for row in result["depth"]] == [
        "3 layers, elu",
        "3 layers, relu",
        "4 layers, plain",
        "4 layers, batch norm",
        "4 layers, skip",
    ]
    for row in result["depth"]:
        steps = [step for step, _ in row["curve"]]
        assert steps == list(range(10, row["steps"] + 1, 10))
        assert row["curve"][-1][1] > row["curve"][0][1] + 0.1, "the watched network is not the trained one"
        reached = [step for step, share in row["curve"] if share >= tnn.TARGET]
        assert row["steps_to_target"] == (reached[0] if reached else None)
    assert len(result["summary"]) == 8
    with pytest.raises(SystemExit, match="choose from: fashion, depth"):
        program.main(["tnn", "--smoke", "--parts", "fashoin"])


def test_widths_of_equal_size() -> None:
    width = tnn.equal_width(5000, 64, 10)
    sizes = [sum(p.numel() for p in tnn.build(dense(w), 0).parameters()) for w in (width - 1, width)]
    assert sizes[0] < 5000 <= sizes[1]


def dense(width: int) -> dict[str, Any]:
    return {"network": "dense", "widths": [64, width, width, 10], "rank": None, "activation": "elu"}


def eight_layers(elu: list[int | None], relu: list[int | None]) -> list[dict[str, Any]]:
    steps = {"elu": elu, "relu": relu}
    return [
        {"network": f"8 layers, {name}", "steps_to_target": count} for name in steps for count in steps[name]
    ]


def test_steps_of_runs_that_never_arrive() -> None:
    assert tnn.median_steps([30, None, 20]) == 30
    assert tnn.median_steps([None, None, 20]) is None
    (bar,) = tnn.bars(eight_layers([50, 40, None], [None, None, 30]))
    assert bar["passed"]
    assert bar["measured"] == 50
    assert not tnn.bars(eight_layers([None, None, 30], [50, 40, None]))[0]["passed"]
    assert not tnn.bars(eight_layers([None], [None]))[0]["passed"], "neither arrived: nothing was shown"
    assert tnn.bars(eight_layers([50], [])) == []
