"""Numbers that users give: what counts as one, what comes back, and one wording for all of them."""

import ast
import math
import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tnml
from tnml import checks
from tnml.errors import InputError
from tnml.mps import MatrixProductState
from tnml.nn import MPSLayer, TTLinear
from tnml.training import SweepOptions, TrainOptions

PACKAGE = Path(tnml.__file__).parent

WHOLE = [
    *(3, 10**30, np.int8(3), np.int64(3), np.uint16(3), np.array(3), torch.tensor(3), torch.tensor([3])),
    torch.tensor(3, dtype=torch.uint8),
]
NO_WHOLE = [
    *(True, False, np.True_, torch.tensor(True), np.array(True)),
    *(3.0, np.float64(3.0), torch.tensor(3.0), Fraction(3), 3j, math.nan, math.inf),
    *("3", b"3", None, [3], (3,), {}, np.array([3, 4]), torch.tensor([3, 4])),
]
REAL = [3, 0.5, 0, -2.5, np.float32(0.5), np.float64(0.5), np.int64(3), Fraction(1, 2)]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float64("nan")]
NO_NUMBER = [True, np.True_, "0.5", None, [0.5], 1j, torch.tensor([0.5, 0.5]), {}]


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_of_any_kind_become_integers_of_python(value):
    found = checks.whole("n", value, 1)
    assert type(found) is int
    assert found == (10**30 if value is WHOLE[1] else 3)
    assert checks.is_whole(value, 1)


@pytest.mark.parametrize("value", NO_WHOLE, ids=repr)
def test_anything_else_is_no_whole_number(value):
    assert not checks.is_whole(value)
    with pytest.raises(InputError) as caught:
        checks.whole("n", value)
    assert str(caught.value) == f"n must be a whole number, at least 0, got {value!r}"


@pytest.mark.parametrize(
    ("least", "most", "inside", "outside", "rule"),
    [
        (0, None, [0, 1, 10**20], [-1], "at least 0"),
        (2, None, [2], [1, 0, -5], "at least 2"),
        (-3, 4, [-3, 0, 4], [-4, 5], "from -3 to 4"),
        (7, 7, [7], [6, 8], "from 7 to 7"),
    ],
)
def test_limits_of_whole_numbers_belong_to_the_range(least, most, inside, outside, rule):
    for kind in (int, np.int64):
        for value in inside:
            assert abs(value) > 2**62 or checks.whole("n", kind(value), least, most) == value
        for value in outside:
            assert not checks.is_whole(kind(value), least, most)
            with pytest.raises(InputError, match=f"^n must be a whole number, {rule}, got "):
                checks.whole("n", kind(value), least, most)


@pytest.mark.parametrize("value", REAL, ids=repr)
def test_real_numbers_of_any_kind_become_floats(value):
    found = checks.number("x", value)
    assert type(found) is float
    assert found == float(value)
    assert checks.is_number(value)


@pytest.mark.parametrize("value", NO_NUMBER + NOT_FINITE, ids=repr)
def test_anything_else_is_no_finite_number(value):
    assert checks.is_number(value) == any(value is one for one in NOT_FINITE)
    with pytest.raises(InputError) as caught:
        checks.number("x", value)
    assert str(caught.value) == f"x must be a finite number, got {value!r}"


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "rule"),
    [
        ({"above": 0.0}, [1e-300, 5], [0, -1, math.inf, math.nan], "above 0"),
        ({"least": 0.0}, [0, 5], [-1e-300], "at least 0"),
        ({"least": 0.0, "below": 1.0}, [0, 0.999], [1, -0.1], "at least 0 and below 1"),
        ({"above": 0.0, "most": 2.0}, [1, 2], [0, 2.1], "above 0 and at most 2"),
    ],
)
def test_limits_of_numbers(limits, inside, outside, rule):
    assert [checks.number("x", value, **limits) for value in inside] == [float(value) for value in inside]
    for value in outside:
        with pytest.raises(InputError) as caught:
            checks.number("x", value, **limits)
        assert str(caught.value) == f"x must be a number, {rule}, got {value!r}"


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, True, "0.5", None])
def test_probabilities_lie_between_zero_and_one(value):
    assert checks.probability("p", 0) == 0.0
    assert checks.probability("p", np.float32(0.5)) == 0.5
    assert checks.probability("p", 1, one=True) == 1.0
    with pytest.raises(InputError, match="p must be a number, at least 0 and below 1, got 1"):
        checks.probability("p", 1)
    for one in (True, False):
        with pytest.raises(InputError, match="p must be a number, at least 0 and "):
            checks.probability("p", value, one=one)


def test_one_of_names_the_nearest():
    assert checks.one_of("loss", "mse", ["cross-entropy", "mse"]) == "mse"
    for wrong in ("msee", 3, None):
        with pytest.raises(InputError, match=f"unknown loss {wrong!r}.*Choose from: cross-entropy, mse"):
            checks.one_of("loss", wrong, ["cross-entropy", "mse"])  # type: ignore[arg-type]


def test_fields_are_kept_as_numbers_of_python():
    record = SimpleNamespace(a=np.int64(2), b=torch.tensor(3), c=np.float32(0.5), d=1)
    checks.keep_whole(record, "a", "b", least=2)
    checks.keep_number(record, "c", "d", least=0.5)
    assert [(type(value), value) for value in vars(record).values()] == [
        (int, 2),
        (int, 3),
        (float, 0.5),
        (int, 1),
    ]
    with pytest.raises(InputError, match="a must be a whole number, at least 3, got 2"):
        checks.keep_whole(record, "a", least=3)


def _numbers(values):
    for value in values:
        yield from _numbers(value) if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize(
    "options",
    [
        TrainOptions(
            epochs=np.int64(2), seed=np.uint8(3), lr=np.float64(0.1), batch_size=np.int32(5),
            patience=np.int64(1), validation=np.float32(0.5), max_shift=np.int64(1), clip_norm=np.float64(1),
        ),
        SweepOptions(
            sweeps=np.int64(2), sites=np.int64(1), seed=np.int64(3), max_bond=np.int64(4),
            batch_size=np.int64(5), iterations=np.int64(2), max_shift=np.int64(1), proximal=np.float32(1),
        ),
        SweepOptions(max_bond=[np.int64(4), 5], proximal=(np.float64(0.5), 1)),
    ],
)  # fmt: skip
def test_options_hold_nothing_but_numbers_of_python(options):
    assert {type(value) for value in _numbers(options.record().values())} <= {
        int,
        float,
        str,
        bool,
        type(None),
    }


def test_networks_take_the_integers_of_numpy():
    six, three = np.int64(6), np.int64(3)
    layer = MPSLayer(
        six, three, np.int64(4), label_site=np.int64(2), shape=(np.int64(2), three), seed=np.int64(5)
    )
    same = MPSLayer(6, 3, 4, label_site=2, shape=(2, 3), seed=5)
    assert torch.equal(layer.weight, same.weight)
    assert torch.equal(layer.label, same.label)
    numbers = [layer.n_sites, layer.out_features, layer.label_site, *layer.bond_dims]
    assert {type(value) for value in numbers} == {int}
    assert repr(layer.config) == repr(same.config)
    assert torch.equal(
        MatrixProductState.random(six, three, np.int64(2), seed=np.int64(1)).cores[2],
        MatrixProductState.random(6, 3, 2, seed=1).cores[2],
    )
    assert TTLinear(six, three, rank=np.int64(2)).extra_repr() == TTLinear(6, 3, rank=2).extra_repr()


# Functions that may ask for a kind of number, and why.
ASKING = {
    ("checks.py", "_index"),
    ("checks.py", "is_number"),
    ("checks.py", "whole"),
    ("estimators/columns.py", "_told"),  # numbers of columns, or their names
    ("estimators/tables.py", "_column"),  # cells of a table, which may hold anything
    ("features/named.py", "_build_rbf"),  # for a switch
    ("mps/algebra.py", "_checked_factor"),  # real or complex
    ("study/plain_values.py", "plain"),  # the type decides what is written
    ("pde/checks.py", "check_dim"),
    ("pde/checks.py", "check_positive"),
}


def _asks_for_numbers(node: ast.AST) -> bool:
    """Whether it is `operator.index`, or `isinstance` with a kind of number but not with texts beside it."""
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) == "operator.index"
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"):
        return False
    kinds = {name.strip().split(".")[-1] for name in re.split(r"[|,()]", ast.unparse(node.args[1]))}
    return bool(kinds & {"bool", "integer", "Integral", "Real", "Number"}) and "str" not in kinds


def test_numbers_are_checked_in_one_place():
    asking = {
        (path.relative_to(PACKAGE).as_posix(), function.name)
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef) and any(map(_asks_for_numbers, ast.walk(function)))
    }
    assert not asking - ASKING, "numbers that users give are checked by tnml/checks.py"


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(value, bool) or not isinstance(value, int) or value < 1",
        "isinstance(value, Integral) and value >= 1",
        "not isinstance(value, int | np.integer | bool)",
        "operator.index(value)",
    ],
)
def test_such_checks_are_noticed(line):
    assert any(map(_asks_for_numbers, ast.walk(ast.parse(line))))
