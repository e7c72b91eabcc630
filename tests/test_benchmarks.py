"""The benchmarks in their smallest form: answers are checked, the JSON is as promised; no time is judged."""

import argparse
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from benchmarks import __main__ as program
from benchmarks import chain, chain_table, compress, contenders, imports, machine, mnist, reference
from benchmarks.chain_worker import Case, Worker, check

MACHINE = {"cpu", "cores", "memory_gb", "system", "simd", "python", "torch", "threads"}
CASE = Case(n_sites=12, batch=6, bond_dim=5)


def console() -> Console:
    return Console(file=io.StringIO(), width=140)


def settings() -> list[Any]:
    found = []
    for contender in contenders.CONTENDERS.values():
        missing = pytest.mark.skipif(
            not contender.installed(), reason=f"{contender.package} is not installed"
        )
        other = pytest.mark.filterwarnings("ignore" if contender.peer else "error")
        for number, setting in enumerate(contender.settings):
            found.append(
                pytest.param(contender, setting, marks=[missing, other], id=f"{contender.name}-{number}")
            )
    return found


@pytest.mark.parametrize(("contender", "setting"), settings())
def test_every_contender_computes_the_reference(
    contender: contenders.Contender, setting: dict[str, Any]
) -> None:
    found = check(contender, setting, CASE)
    assert found["matched"], found
    assert found["logits"] > 0, "float32 cannot agree with float64 to the last digit: nothing was compared"


def test_the_reference_is_the_dense_contraction() -> None:
    instance = reference.make_instance(4, 3, 2, seed=0, noise=0.5)
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b, c, d = instance.cores
    letters = "bi,bj,bk,bm,ipq,jqr,rcs,kst,mtu->bc"
    phi = reference.embed(x).unbind(1)
    dense = torch.einsum(letters, *phi, a, b, instance.label, c, d)
    found, gradients = reference.answer(instance, x, torch.ones(5, 2))
    assert machine.relative_error(found, dense) < 1e-12
    assert [g.shape for g in gradients] == [t.shape for t in (*instance.cores, instance.label)]


def test_padding_keeps_the_function() -> None:
    instance = reference.make_instance(6, 4, 3, seed=0)
    features = reference.embed(
        torch.rand(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )
    cores, label = instance.padded()
    ends = [cores[0][:1], *cores[1:-1], cores[-1][..., :1]]
    padded = reference.outputs([core.transpose(0, 1) for core in ends], label, features)
    assert torch.allclose(padded, reference.outputs(instance.cores, instance.label, features), atol=1e-12)


class Wrong(contenders.PlainLoop):
    """Right outputs, one wrong gradient."""

    def gradients(self) -> list[Tensor]:
        first, *others = super().gradients()
        return [first * 1.001, *others]


def test_a_wrong_gradient_is_noticed() -> None:
    found = check(contenders.Contender("wrong", lambda i, _: Wrong(i)), {}, CASE)
    assert found["logits"] < found["tolerance"] < found["gradients"]
    assert not found["matched"]


def test_work_counts_the_instance() -> None:
    instance = reference.make_instance(9, 6, 10, seed=0)
    work = chain.work_of(Case(9, 7, 6))
    assert work["weights"] == instance.n_weights
    assert work["flops_forward"] == 2 * 7 * instance.n_weights
    entering = [core.shape[1] for core in instance.cores[:4]] + [core.shape[2] for core in instance.cores[4:]]
    assert work["bytes"] == 4 * (instance.n_weights + 7 * sum(entering))


def test_a_worker_measures_what_it_says() -> None:
    worker = Worker(contenders.CONTENDERS["loop"], CASE, trial_seconds=0.0, gemm_size=32)
    assert len(worker.report["trials"]) == 1, "no time for more than one trial"
    assert worker.report["finite"]
    assert worker.report["memory"]["peak_bytes"] >= 0
    found = worker.round()
    assert found["gemm"] > 0
    for kind in ("step", "forward"):
        assert all(seconds > 0 for seconds in found[kind]["wall"])
        assert len(found[kind]["wall"]) == len(found[kind]["cpu"]) <= 10


def record(
    name: str, milliseconds: float, percent: float = 1.0, memory: float = 1.0, **case: int
) -> dict[str, Any]:
    times = {"median": milliseconds, "min": milliseconds, "max": milliseconds, "count": 1}
    return {
        "implementation": name,
        "n_sites": 784,
        "batch": 100,
        "bond_dim": 20,
        **case,
        "status": "ok",
        "step_wall_ms": times,
        "step_cpu_ms": times,
        "forward_wall_ms": times,
        "step_percent_of_peak": percent,
        "memory": {"peak_bytes": 10, "ratio": memory},
    }


def test_ratios_and_bars() -> None:
    rows = [
        record("native", 2.0, percent=36.0, memory=2.1),
        record("loop", 30.0),
        record("tensorkrowch", 51.0),
        record("torchmps", 49.0),
    ]
    chain.compare(rows)
    assert rows[0]["times_faster_than_loop"] == {"name": "loop", "step": 15.0, "forward": 15.0}
    assert rows[0]["times_faster_than_best_peer"] == {"name": "torchmps", "step": 24.5, "forward": 24.5}
    verdicts = {bar["what"]: bar["passed"] for bar in rows[0]["bars"]}
    assert verdicts == {"percent_of_peak": True, "times_faster_than_best_peer": False, "memory_ratio": False}
    assert "bars" not in rows[1]
    cells = " ".join(chain_table._cells(rows[0]))
    assert "36.0 >=35 [green]pass" in cells
    assert "2.10 <=2 [red]miss" in cells


def test_bars_are_for_the_sizes_they_name() -> None:
    rows = [record("native", 2.0, n_sites=20)]
    chain.compare(rows)
    assert rows[0]["bars"] == []


@pytest.mark.slow
def test_chain_smoke(tmp_path: Path) -> None:
    out = tmp_path / "chain.json"
    assert program.main(["chain", "--smoke", "--only", "native,torch,loop", "--out", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    check_header(result, "chain")
    assert [row["implementation"] for row in result["rows"]] == ["native", "torch", "loop"]
    for row in result["rows"]:
        assert row["status"] == "ok"
        assert row["check"]["matched"]
        assert row["finite"]
        assert row["memory"]["ratio"] >= 0
        for name in ("step_wall_ms", "step_cpu_ms", "forward_wall_ms", "forward_cpu_ms", "gemm_gflops"):
            found = row[name]
            assert 0 <= found["min"] <= found["median"] <= found["max"]
            assert found["count"] >= 2
        flops = 3 * chain.work_of(Case(row["n_sites"], row["batch"], row["bond_dim"]))["flops_forward"]
        share = flops / (row["step_wall_ms"]["median"] * 1e-3) / (row["gemm_gflops"]["median"] * 1e9)
        assert row["step_percent_of_peak"] == pytest.approx(100 * share, rel=1e-4)
    assert result["rows"][0]["times_faster_than_loop"]["step"] > 0


def test_a_peer_that_needs_too_much_is_skipped() -> None:
    options = argparse.Namespace(smoke=True, rounds=1, gigabytes=1e-9, trial_seconds=0.0)
    rows = chain.measure_case(CASE, [contenders.CONTENDERS["tensorkrowch"]], options)
    assert rows[0]["status"] == "skipped"
    assert "GB" in rows[0]["reason"]
    chain.compare(rows)
    assert "skipped" in chain_table.line(rows)


@pytest.mark.slow
def test_a_failing_contender_is_recorded() -> None:
    options = argparse.Namespace(smoke=True, rounds=1, gigabytes=1.0, trial_seconds=0.0)
    absent = contenders.CONTENDERS["torchmps"]
    if absent.installed():
        pytest.skip("torchmps is installed here")
    (row,) = chain.measure_case(CASE, [absent], options)
    assert row["status"] == "failed"
    assert "torchmps" in row["reason"]


def test_unknown_names_end_with_the_known_ones() -> None:
    with pytest.raises(SystemExit, match="choose from: native, torch"):
        program.main(["chain", "--smoke", "--only", "nativ"])
    with pytest.raises(SystemExit):
        program.main(["chian"])


@pytest.mark.slow
def test_imports_smoke(tmp_path: Path) -> None:
    out = tmp_path / "imports.json"
    status = program.main(["imports", "--smoke", "--out", str(out)])
    result = json.loads(out.read_text(encoding="utf-8"))
    check_header(result, "imports")
    assert status == (1 if result["errors"] else 0)
    rows = {row["program"]: row for row in result["rows"]}
    median = {name: row["seconds"]["median"] for name, row in rows.items()}
    added = rows["import tnml"]["beyond_torch"]
    assert added == pytest.approx(median["import tnml"] - median["import torch"], abs=1e-4)
    assert rows["import tnml"]["bars"][0]["passed"] == (added < imports.BAR)


def test_a_program_that_fails_is_told() -> None:
    assert "ModuleNotFoundError" in imports._run(["-c", "import nothing_of_this_name"])[1]
    assert imports._run(["-c", "pass"])[1] == ""
    assert imports._run(["-c", "pass", "--help"])[1] == "it showed no help"


def test_mnist_smoke(tmp_path: Path) -> None:
    out = tmp_path / "mnist.json"
    assert program.main(["mnist", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    check_header(result, "mnist")
    (row,), (entry,) = result["rows"], result["recipes"]
    assert row["test_accuracy"] > 0.15, "better than guessing"
    assert row["epochs"] == row["options"]["epochs"] == 2
    assert row["n_train"] + row["n_test"] == 1797
    assert entry["accuracy"] == dict.fromkeys(("mean", "min", "max"), row["test_accuracy"])


def test_a_recipe_is_held_to_its_worst_seed() -> None:
    rows = [
        {"recipe": "mnist:default", "seed": s, "test_accuracy": a, "train_seconds": 90.0}
        for s, a in enumerate((0.984, 0.9829, 0.985))
    ]
    (entry,) = mnist.summarise(rows)
    assert {bar["what"]: bar["passed"] for bar in entry["bars"]} == {"accuracy": False, "seconds": True}
    assert entry["bars"][0]["measured"] == 0.9829


@pytest.mark.slow
def test_compress_smoke(tmp_path: Path) -> None:
    out, figure = tmp_path / "compress.json", tmp_path / "compress.png"
    assert program.main(["compress", "--smoke", "--out", str(out), "--figure", str(figure)]) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    check_header(result, "compress")
    whole, rows = result["whole"], result["rows"]
    assert whole["test_accuracy"] > 0.5
    assert [row["bond_dim"] for row in rows] == [6, 3]
    assert rows[1]["parameters"] < rows[0]["parameters"] <= whole["parameters"]
    for kind in ("", "tensor_"):
        assert rows[0][f"{kind}relative_error"] < 1e-6 < rows[1][f"{kind}relative_error"] < 1
        assert rows[0][f"{kind}truncated_accuracy"] == pytest.approx(whole["test_accuracy"], abs=0.005)
    for row in rows:
        lost = 100 * (whole["test_accuracy"] - row["tuned_accuracy"])
        assert row["tuned_points_lost"] == pytest.approx(lost, abs=1e-3)
    assert result["fine_tune_options"]["epochs"] == 1
    assert figure.stat().st_size > 1000


def test_the_bar_of_compress_is_at_half_the_bond_dimension() -> None:
    rows = [{"bond_dim": bond, "tuned_points_lost": lost} for bond, lost in ((20, 0.0), (10, 0.6), (5, 3.0))]
    (bar,) = compress.judge(rows, 20)
    assert (bar["measured"], bar["passed"]) == (0.6, False)
    assert compress.judge(rows, 21) == []


def test_json_is_finite_and_names_no_machine(tmp_path: Path) -> None:
    out = tmp_path / "numbers.json"
    machine.write_json(
        out, {"a": math.inf, "b": (1 / 3, math.nan), 3: 10**12, **machine.header("chain", True)}
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["a"], found["b"], found["3"]) == (None, [0.333333, None], 10**12)
    assert set(found["machine"]) == MACHINE
    text = out.read_text(encoding="utf-8")
    assert str(Path.home()) not in text
    assert str(Path(__file__).parent.parent) not in text


def test_memory_is_seen() -> None:
    machine.reset_peak()
    before = machine.resident()
    block = torch.ones(8_000_000)
    grown = machine.peak_resident() - before
    assert 31e6 < grown < 64e6
    del block


def test_kept_results_are_whole(project_root: Path) -> None:
    kept = sorted((project_root / "benchmarks" / "results").glob("*.json"))
    for path in kept:
        check_header(json.loads(path.read_text(encoding="utf-8")), path.stem)


def check_header(result: dict[str, Any], name: str) -> None:
    assert result["format"] == machine.FORMAT
    assert result["benchmark"] in name  # a dataset may come before it: fashion_mnist_default
    assert set(result["machine"]) >= MACHINE
    assert isinstance(result["errors"], list)


def test_the_table_of_the_benchmarks_names_every_one(project_root: Path) -> None:
    text = (project_root / "benchmarks" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert [row for row in rows if row in program.NAMES] == sorted(program.NAMES)
