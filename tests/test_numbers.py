"""Numbers of NumPy and torch in place of Python's, for every number that the public functions take."""

import dataclasses
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from number_cases import CASES as MOST
from number_cases import RECORDS
from number_cases_rooms import CASES as ROOMS
from number_cases_runs import CASES as RUNS

from tnml.nn import MPSLayer, TTLinear

NAMES = json.loads((Path(__file__).parent / "exported_names.json").read_text(encoding="utf-8"))
CASES = {**MOST, **RUNS, **ROOMS}
LEFT_OUT = {"tnml", "tnml.cli", "tnml.report"}  # names of other rooms; texts; stored numbers that are drawn


def same(one: Any, other: Any) -> bool:
    """Whether two results are the same down to the bits and the kinds of numbers."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, torch.nn.Module):
        return repr(one) == repr(other) and same(dict(one.state_dict()), dict(other.state_dict()))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if hasattr(one, "cores"):
        return same([*one.cores, one.log_scale], [*other.cores, other.log_scale])
    return callable(one) or bool(one == other)


def variants(value: Any) -> Iterator[tuple[Any, Any]]:
    """Numbers like this one, each with the one of Python that it has to be taken for."""
    if isinstance(value, int):
        kinds: list[Callable[[int], Any]] = [np.int64, np.int32, np.array, torch.tensor]
        yield from ((kind(value), value) for kind in kinds)
        if 0 <= value < 256:
            yield np.uint8(value), value
    elif isinstance(value, float):
        yield np.float64(value), value
        yield np.float32(value), float(np.float32(value))
    else:
        whole = all(isinstance(entry, int) for entry in value)
        yield np.array(value), list(value)
        yield tuple(map(np.int64 if whole else np.float64, value)), list(value)
        if whole:
            yield torch.tensor(value), list(value)


@pytest.mark.parametrize(("case", "name"), [(case, name) for case in CASES for name in CASES[case].numbers])
def test_any_kind_of_number_is_taken(case: str, name: str) -> None:
    call, numbers = CASES[case].call, CASES[case].numbers
    for given, expected in variants(numbers[name]):
        plain = tuple(expected) if isinstance(expected, list) else expected
        found = call(**{**numbers, name: given})
        assert same(found, call(**{**numbers, name: plain})), (name, given)


def public_numbers() -> Iterator[str]:
    """Every parameter of a public function, class or method that is annotated as a number or numbers."""
    for room, names in NAMES.items():
        if room in LEFT_OUT:
            continue
        for name in names:
            thing = getattr(importlib.import_module(room), name)
            if inspect.isclass(thing):
                yield from _of(name, thing)
                for method, function in inspect.getmembers(thing, callable):
                    if not method.startswith("_") and method in vars(thing):
                        yield from _of(f"{name}.{method}", function)
            elif inspect.isfunction(thing):
                yield from _of(name, thing)


def _of(name: str, function: Any) -> Iterator[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    for parameter in parameters:
        kind = parameter.annotation
        text = kind.__name__ if isinstance(kind, type) else str(kind)
        if re.search(r"\b(int|float)\b", text) and "Callable" not in text and "Mapping" not in text:
            yield f"{name}({parameter.name})"


def test_no_number_is_forgotten() -> None:
    covered = {f"{case.split(', ')[0]}({name})" for case in CASES for name in CASES[case].numbers}
    wanted = {number for number in public_numbers() if number.partition("(")[0] not in RECORDS}
    assert not wanted - covered - RECORDS


def test_a_loop_over_an_array_trains_layers_of_its_sizes() -> None:
    assert [max(MPSLayer(6, 2, chi).bond_dims) for chi in np.arange(2, 7, 2)] == [2, 4, 6]
    assert [TTLinear(16, 16, rank=rank).rank for rank in np.arange(1, 4)] == [1, 2, 3]


@pytest.mark.parametrize("value", [np.bool_(True), np.float64(2.0), "2", None, np.array([2.0])])
def test_other_things_are_no_whole_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"bond_dim must be a whole number, at least 1, got "):
        MPSLayer(4, 2, bond_dim=value)
