"""The benchmark of replicas in its smallest form: equal losses, no time is judged."""

import io
import json
from pathlib import Path

from rich.console import Console

from benchmarks import __main__ as program
from benchmarks import replicas


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "replicas.json"
    assert program.main(["replicas", "--smoke", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    assert (row["sites"], row["bond_dim"], row["replicas"]) == (4, 2, 3)
    assert row["losses_off"] < 1e-5
    console = Console(file=io.StringIO(), width=160)
    replicas.show(result, console)
    assert "losses off" in console.file.getvalue()  # type: ignore[attr-defined]


def test_bars_judge_the_sizes_they_are_for() -> None:
    rows = [
        {"sites": n, "bond_dim": bond, "losses_off": off, "times_faster": {"median": faster}}
        for n, bond, off, faster in (
            (10, 4, 1e-7, 9.0),
            (32, 16, 2e-5, 4.0),
            (196, 4, 0.0, 1.0),
            (32, 32, 0.0, 1.0),
        )
    ]
    assert [bar["passed"] for bar in replicas.bars(rows)] == [False, True, False]
