"""What a study runs: its options and their names, quick trials, files, units, and bad input."""

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tnml.errors import InputError
from tnml.study import STUDIES, Study, find_study, run_id
from tnml.study.grid import read_study_file
from tnml.study.plain_values import canonical, plain
from tnml.study.work_unit import after_failure, units

GRID = {"bond_dim": [2, 4, 8], "seed": [0, 1]}


def study(**changes: Any) -> Study:
    return Study(**{"name": "a", "runner": "m:f", "grid": GRID, "fixed": {"lr": 0.1}, **changes})


def test_the_grid_in_order() -> None:
    expected = [{"lr": 0.1, "bond_dim": d, "seed": s} for d, s in itertools.product([2, 4, 8], [0, 1])]
    assert study().options() == expected
    extra = [{"bond_dim": 16, "lr": 0.2}, {"bond_dim": 2, "seed": 1}]
    assert study(runs=extra).options() == [*expected, {"lr": 0.2, "bond_dim": 16}], "each run once"
    assert study(grid={}, runs=extra[:1]).options() == [{"lr": 0.2, "bond_dim": 16}]
    assert study(runs=[{"depth": 2}]).option_names() == ["bond_dim", "seed", "lr", "depth"]


def test_the_name_of_a_run_is_the_sum_of_its_json() -> None:
    text = '{"a":[1,2.5,null,true],"b":{"c":"é","d":1e-07},"lr":0.1}'
    options = {"lr": 0.1, "b": {"d": 1e-7, "c": "é"}, "a": (1, 2.5, None, True)}
    assert canonical(options) == text
    assert run_id(options) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert run_id({"n": 1}) != run_id({"n": 1.0})
    arrays = {
        "lr": np.float64(0.1),
        "b": {"c": "é", "d": 1e-7},
        "a": [np.int64(1), 2.5, None, np.bool_(True)],
    }
    assert run_id(arrays) == run_id(options)
    assert plain({"x": torch.tensor([[1, 2]]), "r": range(2)}) == {"x": [[1, 2]], "r": [0, 1]}


def test_a_quick_trial() -> None:
    full = study(
        runs=[{"bond_dim": 32, "seed": 0, "lr": 0.3}, {"bond_dim": 64}],
        smoke={"bond_dim": [2], "lr": 0.5, "runs": [{"bond_dim": 16, "lr": 0.9}, {"bond_dim": 3}]},
    )
    expected = [{"bond_dim": 2, "seed": 0}, {"bond_dim": 2, "seed": 1}, {"bond_dim": 16}, {"bond_dim": 3}]
    assert full.smoked().options() == [{"lr": 0.5, **options} for options in expected]
    assert len(full.options()) == 8
    assert full.smoked().name == "a"
    assert full.smoked().smoked() == full.smoked()
    assert len(full.seeded(5).options()) == 3 * 5 + 2


def test_a_study_from_a_file(tmp_path: Path) -> None:
    text = """
name: mine
runner: my.runs:one
grid: {lr: [1e-3, 2.5E+1, -1e4, 3], name: [e-3, "12"]}
fixed: {epochs: 3}
group: [name]
group_runner: my.runs:many
"""
    (tmp_path / "s.yaml").write_text(text)
    found = find_study(tmp_path / "s.yaml")
    assert found.grid == {"lr": [0.001, 25.0, -10000.0, 3], "name": ["e-3", "12"]}
    assert found.group == ("name",)
    assert Study.from_record(found.record()) == found
    assert find_study(found) is found


def test_shipped_studies_are_whole() -> None:
    for name, known in STUDIES.items():
        assert known.name == name
        assert find_study(name) is known
        assert 0 < len(known.smoked().options()) <= len(known.options())


def test_runs_that_are_done_together() -> None:
    grid = {"bond_dim": [2, 4], "seed": list(range(6))}
    grouped = study(grid=grid, group=("seed",), group_runner="m:g")
    runs = grouped.options()

    def sizes(**options: Any) -> list[int]:
        return [len(unit.runs) for unit in units(grouped, runs, "f", **options)]

    assert sizes() == [6, 6]
    assert sizes(workers=3) == [3, 3, 3, 3], "no worker is left without work"
    assert sizes(replicas=4) == [4, 2, 4, 2]
    assert sizes(replicas=1) == [1] * 12
    made = units(grouped, runs[:7], "f")
    assert [(unit.function, unit.together) for unit in made] == [("m:g", True), ("m:f", False)]
    assert [options for unit in made for options in unit.runs] == runs[:7]
    alone = study(grid=grid, group=("seed",))
    assert {unit.function for unit in units(alone, runs, "f")} == {"m:f"}


def test_failures_are_tried_again_alone() -> None:
    grouped = study(grid={"seed": [0, 1, 2]}, group=("seed",), group_runner="m:g")
    (group,) = units(grouped, grouped.options(), "f", retries=1)
    first = after_failure(group, group.ids[1:], "m:f")
    assert [unit.ids for unit in first] == [(group.ids[1],), (group.ids[2],)]
    assert [(unit.function, unit.together) for unit in first] == [("m:f", False)] * 2
    (second,) = after_failure(first[0], first[0].ids, "m:f")
    assert after_failure(second, second.ids, "m:f") == [], "one try and one retry alone"
    (group,) = units(grouped, grouped.options(), "f", retries=0)
    assert len(after_failure(group, group.ids, "m:f")) == 3, "nobody is lost with the group"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": "a/b"}, "name is made of letters"),
    "no function": ({"runner": "my.runs.one"}, "runner must be 'package.module:function'"),
    "group function": ({"group_runner": "x", "group": ("seed",)}, "group_runner must be"),
    "group missing": ({"group_runner": "m:g"}, "group_runner needs group"),
    "group text": ({"group": "seed"}, "group must be a tuple"),
    "group unknown": ({"group": ("sed",)}, "unknown option in group 'sed'; did you mean 'seed'"),
    "grid list": ({"grid": [1]}, "grid must map names to values"),
    "grid text": (
        {"grid": {"kind": "abc"}},
        r"needs a list of values for 'kind', got 'abc'; write \['abc'\]",
    ),
    "grid number": ({"grid": {"seed": 3}}, "needs a list of values for 'seed'"),
    "grid empty": ({"grid": {"seed": []}}, "no values for 'seed'"),
    "no runs": ({"grid": {}}, "has no runs"),
    "twice": ({"fixed": {"seed": 0}}, "'seed' is in the grid and fixed"),
    "runs": ({"runs": {"seed": 0}}, "runs must be a list"),
    "run": ({"runs": [3]}, "each of runs must map"),
    "smoke unknown": ({"smoke": {"bond_dmi": [2]}}, "unknown option in smoke 'bond_dmi'; did you mean"),
    "smoke value": ({"smoke": {"bond_dim": 2}}, "needs a list of values for 'bond_dim'"),
    "infinite": ({"fixed": {"lr": float("inf")}}, "options.lr must be finite"),
    "object": ({"fixed": {"lr": object()}}, "options.lr must be made of numbers"),
    "key": ({"fixed": {"a": {1: 2}}}, "options.a: names must be texts"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_studies(name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(InputError, match=message):
        study(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid YAML"),
        ("[1]", "must hold a study"),
        ("name: a", "the entry runner is missing"),
        ("{name: a, runner: 'm:f', gird: {}}", "unknown entry 'gird'; did you mean 'grid'"),
        ("{name: a, runner: 'm:f', runs: 3}", "runs must be a list"),
    ],
)
def test_bad_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_study_file(path)
    assert str(path) in str(raised.value)


def test_bad_numbers() -> None:
    with pytest.raises(InputError, match="unknown study 'overfiting'"):
        find_study("overfiting")
    with pytest.raises(InputError, match="cannot read the study in no/where: No such file"):
        find_study("no/where")
    with pytest.raises(InputError, match="has no seed"):
        study(grid={"d": [1]}).seeded(3)
    with pytest.raises(InputError, match="number of seeds must be a whole number, at least 1, got 0"):
        study().seeded(0)
    for replicas in (0, "all", True, 1.5):
        with pytest.raises(InputError, match="replicas must be 'auto' or"):
            units(study(), [], "f", replicas=replicas)  # type: ignore[arg-type]
