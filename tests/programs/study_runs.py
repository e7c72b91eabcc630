"""Runners of the studies that the tests run, and the program that a crash test kills."""

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from tnml.study import Study, run

SELF_TEST = Study(
    name="self-test",
    runner="study_runs:one",
    grid={"x": list(range(8)), "seed": [0, 1, 2]},
    fixed={"pause": 0.0, "log": None},
    smoke={"x": [1], "seed": [0]},
)


def one(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A number that depends on the options only, in three steps with a checkpoint after each."""
    kept = folder / "steps.json"
    steps = json.loads(kept.read_text()) if kept.is_file() else []
    while len(steps) < 3:
        time.sleep(options["pause"] / 3)
        steps.append(_number(options, len(steps)))
        part = folder / "steps.part"
        part.write_text(json.dumps(steps))
        os.replace(part, kept)
    if options["log"]:  # one write: the lines of two processes do not mix
        with open(options["log"], "a") as log:
            log.write(f"{folder.name} {uuid.uuid4().hex} {os.getpid()}\n")
    return {"value": sum(steps), "history": [{"epoch": i + 1, "value": v} for i, v in enumerate(steps)]}


def _number(options: dict[str, Any], step: int) -> float:
    return 10.0 * options["x"] + options["seed"] + step  # three of them: 30 x + 3 seed + 3


def together(options: list[dict[str, Any]], folders: list[Path]) -> list[dict[str, Any]]:
    """Several runs at once; leaves a note of how many."""
    (folders[0] / "together.txt").write_text(str(len(options)))
    if any(run["x"] == 13 for run in options):
        raise ValueError("no group with a 13")
    return [one(run, folder) for run, folder in zip(options, folders, strict=True)]


def moody(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Fails in the ways that `options` asks for."""
    tries = folder / "tries"
    count = len(tries.read_text()) if tries.is_file() else 0
    tries.write_text("." * (count + 1))
    kind = options["kind"]
    if kind == "always":
        raise ValueError("this one never works")
    if kind == "once" and count == 0:
        raise OSError("not the first time")
    if kind == "exits":
        sys.exit(3)
    if kind == "kills" or (kind == "kills once" and count == 0):
        os.kill(os.getpid(), 9)
    if kind == "list":
        return [1]  # type: ignore[return-value]  # not a dictionary
    if kind == "object":
        return {"value": object()}
    return {"value": float("nan") if kind == "nan" else 1, "threads": os.environ.get("OMP_NUM_THREADS")}


def slow(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Waits until a file appears."""
    (folder / "begun").touch()
    while not Path(options["until"]).exists():
        time.sleep(0.02)
    return {"pid": os.getpid()}


def main() -> None:
    """Runs a study that is written in JSON in a folder, with that many workers."""
    study, folder, workers = sys.argv[1:]
    table = run(Study.from_record(json.loads(study)), folder=folder, workers=int(workers))
    print(f"rows {len(table.rows)} failed {len(table.failed)}", flush=True)


if __name__ == "__main__":
    main()
