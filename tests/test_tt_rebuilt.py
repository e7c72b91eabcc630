"""Writing to the matrix of a tensor-train layer raises, reading it in any way does not."""

import copy
import io
import operator
import pickle

import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.nn import TTEmbedding, TTLinear

LAYERS = {
    "linear": lambda: TTLinear(12, 8, rank=3),
    "one core": lambda: TTLinear(12, 8, n_cores=1),
    "embedding": lambda: TTEmbedding(20, 6, padding_idx=1),
}
WRITES = {
    "xavier": nn.init.xavier_uniform_,
    "zeros": nn.init.zeros_,
    "data": lambda w: w.data.zero_(),
    "a row": lambda w: w.data[1].zero_(),
    "an item": lambda w: operator.setitem(w, 0, 0.0),
    "plus": lambda w: operator.iadd(w, 1),
    "divided": lambda w: operator.itruediv(w, 2),
    "out": lambda w: torch.mul(torch.ones(w.shape), 2, out=w),
    "a view": lambda w: w.view(-1).fill_(2.0) if w.is_contiguous() else w.T.fill_(2.0),
    "transposed": lambda w: nn.init.normal_(w.T),
    "one of its rows": lambda w: w.unbind()[0].mul_(3),
    "detached": lambda w: w.detach().copy_(torch.ones(w.shape)),
    "many": lambda w: torch._foreach_zero_([w]),
    "frozen": lambda w: w.requires_grad_(False),
    "new data": lambda w: setattr(w, "data", torch.ones(w.shape)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_a_write_raises_and_changes_nothing(make, write) -> None:
    layer = make()
    before = layer.weight.clone()
    with torch.no_grad(), pytest.raises(InputError, match=r"rebuilt from its cores .* change `cores`"):
        write(layer.weight)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_it_is_not_set_or_shared(make) -> None:
    layer = make()
    for value in (nn.Parameter(torch.ones(8, 12)), torch.ones(8, 12)):
        with pytest.raises(InputError, match="rebuilt from its cores and cannot be set or shared"):
            layer.weight = value
    with pytest.raises(TypeError):
        nn.Linear(12, 8).weight = layer.weight


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_reading_is_free(make) -> None:
    layer = make()
    weight = layer.weight
    plain = weight.clone()
    assert type(plain) is torch.Tensor
    plain.zero_()
    assert bool(layer.weight.any())
    dense = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        dense.weight.copy_(layer.weight)
    assert torch.equal(dense.weight, layer.weight)
    (2 * layer.weight).square().sum().backward()
    expected = torch.autograd.grad(layer.weight.square().sum(), list(layer.cores))
    for core, gradient in zip(layer.cores, expected, strict=True):
        torch.testing.assert_close(core.grad, 4 * gradient)
    fixed = layer.weight.detach()
    buffer = io.BytesIO()
    torch.save(fixed, buffer)
    buffer.seek(0)
    for again in (copy.deepcopy(fixed), pickle.loads(pickle.dumps(fixed)), torch.load(buffer)):
        assert type(again) is torch.Tensor
        assert torch.equal(again, fixed)
    assert layer.weight.numpy(force=True).shape == tuple(weight.shape)
    assert repr(layer.weight).startswith("tensor(")
    assert torch.stack([layer.weight, layer.weight]).shape == (2, *weight.shape)
