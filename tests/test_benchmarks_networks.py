"""The benchmark of networks in its smallest form: equal answers, no time is judged."""

import io
import json
from pathlib import Path

from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import networks


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "networks.json"
    assert program.main(["networks", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert [row["contender"] for row in result["rows"]] == [
        name for peer in ("matrices", "matrices", "nodes", "matrices", "Conv2d") for name in ("tnml", peer)
    ]
    assert all(row["status"] == "ok" and row["off"] < 1e-4 for row in result["rows"])
    console = Console(file=io.StringIO(), width=180)
    networks.show(result, console)
    assert "nearest" in console.file.getvalue()  # type: ignore[attr-defined]


def test_bars() -> None:
    rows = [
        {"case": case, "network": case[:4], "contender": name, "times_slower": {"median": slower}}
        for case, name, slower in (
            ("ring", "tnml", 1.0), ("ring", "a", 30.0), ("ring", "b", 9.0),
            ("conv", "tnml", 1.0), ("conv", "Conv2d", 1.5), ("conv", "c", 0.5),
        )
    ]  # fmt: skip
    found = [(bar["measured"], bar["passed"]) for bar in networks.bars(rows)]
    assert found == [(9.0, False), (1.5, True)]
