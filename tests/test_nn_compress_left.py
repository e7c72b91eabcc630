"""compress: which dense layers are left alone, and what the report says of them."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from tnml.nn import compress


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


class Own(nn.Linear):
    """A subclass may do anything with its weight."""


def pruned(layer):
    with torch.no_grad():  # else it cannot be copied, see below
        prune.l1_unstructured(layer, "weight", amount=0.5)
    return layer


def hooked(layer):
    layer.register_forward_hook(lambda module, x, y: y + 1)
    return layer


def overridden(layer):
    layer.forward = torch.square
    return layer


def buffered(layer):
    layer.register_buffer("seen", torch.zeros(3))
    return layer


def nested(layer):
    layer.adapter = nn.Linear(64, 2)
    return layer


def scaled(layer):
    layer.scale = nn.Parameter(torch.ones(64))
    return layer


def named(layer):
    layer.role = "query"
    return layer


def infinite(layer):
    layer.weight.data[0, 0] = math.inf
    return layer


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: parametrizations.weight_norm(nn.Linear(64, 64)), "its weight is parametrised"),
        (lambda: pruned(nn.Linear(64, 64)), "its weight is parametrised"),
        (lambda: Own(64, 64), "Own is a subclass of Linear"),
        (lambda: hooked(nn.Linear(64, 64)), "it has hooks"),
        (lambda: overridden(nn.Linear(64, 64)), "it has hooks"),
        (lambda: buffered(nn.Linear(64, 64)), "it has buffers or modules of its own"),
        (lambda: nested(nn.Linear(64, 64)), "it has buffers or modules of its own"),
        (lambda: scaled(nn.Linear(64, 64)), "it has parameters or attributes of its own"),
        (lambda: named(nn.Linear(64, 64)), "it has parameters or attributes of its own"),
        (lambda: infinite(nn.Linear(64, 64)), "its weights are not finite real numbers"),
        (lambda: nn.Linear(64, 64, dtype=torch.complex64), "its weights are not finite real numbers"),
        (lambda: nn.Linear(64, 62, bias=False), "fewer than 4,096 parameters"),
    ],
)
def test_layers_that_are_left_say_why(layer, reason):
    model = nn.ModuleDict({"kept": layer(), "other": nn.Linear(64, 64)})
    smaller, report = compress(model, rank=3)
    assert [row.reason for row in report.rows if "adapter" not in row.name] == [reason, ""]
    assert type(smaller["kept"]) is type(model["kept"])
    row = report.rows[0]
    assert (row.replaced, row.error, row.shape) == (False, 0.0, None)
    assert row.parameters_before == row.parameters_after
    assert f"left: {reason}" in str(report)
    if reason != "its weights are not finite real numbers":
        x = torch.randn(3, 64)
        assert torch.equal(smaller["kept"](x), model["kept"](x))


@pytest.mark.parametrize("way", ["same parameter", "same memory", "buffer", "one row", "transposed"])
def test_a_weight_that_is_used_elsewhere_stays(way):
    model = nn.ModuleDict({"table": nn.Embedding(100, 64), "head": nn.Linear(64, 100)})
    if way == "same parameter":
        model["head"].weight = model["table"].weight
    elif way == "same memory":
        model["head"].weight.data = model["table"].weight.data
    elif way == "buffer":
        model.register_buffer("seen", model["head"].weight.detach())
    elif way == "one row":
        model.register_buffer("seen", model["head"].weight.detach()[99])
    else:
        model["table"].weight.data = torch.zeros(64, 100).T
        model["head"].weight.data = model["table"].weight.data.T.reshape(100, 64)
    smaller, report = compress(model, rank=3)
    assert [row.reason for row in report.rows] == ["its parameters are used elsewhere too"]
    assert isinstance(smaller["head"], nn.Linear)


def test_slices_of_one_vector_are_not_shared():
    """Every parameter lies in one storage then, each in numbers of its own."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
    nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(model.parameters()).detach(), model.parameters()
    )
    assert len({parameter.untyped_storage().data_ptr() for parameter in model.parameters()}) == 1
    assert compress(model, rank=3).report.n_replaced == 3
    model[2].weight.data = model[0].weight.data.view(-1).as_strided((64, 64), (64, 1), 64)  # ends in the bias
    report = compress(model, rank=3).report
    assert [row.reason for row in report.rows] == [
        "its parameters are used elsewhere too",
        "",
        "its parameters are used elsewhere too",
    ]


def test_a_model_without_numbers_says_so():
    report = compress(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).to("meta"), rank=3).report
    assert [row.reason for row in report.rows] == ["it is on the meta device, without numbers"] * 2


def test_sparse_buffers_and_marks_of_libraries_hold_nothing_back():
    model = nn.Sequential(nn.Linear(64, 64))
    model.register_buffer("graph", torch.eye(3).to_sparse())
    model[0]._is_initialised = True
    assert compress(model, rank=np.int64(3), batch=np.int64(7), n_cores=np.int64(2)).report.n_replaced == 1
