"""TTLinear with torch's own tools: state dicts, copies, dtypes, torch.func, torch.compile, two processes."""

import copy
import os
import pickle
import sys

import forks
import numpy as np
import pytest
import torch
from children import child, finish
from torch import nn

from tnml.nn import TTLinear


def test_state_dict_goes_round():
    one, two = TTLinear(12, 8, rank=3), TTLinear(12, 8, rank=3)
    assert sorted(one.state_dict()) == ["bias", "cores.0", "cores.1"]
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.weight, two.weight)
    with pytest.raises(RuntimeError, match=r"\[1, 4, 3, 2\].*\[1, 4, 3, 3\]"):
        TTLinear(12, 8, rank=3).load_state_dict(TTLinear(12, 8, rank=2).state_dict())


def test_cores_may_be_replaced(generator):
    layer, x = (
        TTLinear(12, 8, rank=3, dtype=torch.float64),
        torch.randn(4, 12, generator=generator, dtype=torch.float64),
    )
    layer(x)
    first, last = (core.detach() for core in layer.cores)
    layer.cores[0], layer.cores[1] = nn.Parameter(first[..., :2].clone()), nn.Parameter(last[:2].clone())
    assert layer.ranks == (1, 2, 1)
    weight = np.einsum("loir,rpjs->opij", *(core.detach().numpy() for core in layer.cores)).reshape(8, 12)
    assert np.allclose(layer(x).detach(), x.numpy() @ weight.T + layer.bias.detach().numpy())


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["deepcopy", "pickle"]
)
def test_copies_are_independent(again, generator):
    layer = TTLinear(13, 7, rank=3, plan="left")
    other, x = again(layer), torch.randn(4, 13, generator=generator)
    assert torch.equal(other(x), layer(x))
    assert repr(other) == repr(layer)
    with torch.no_grad():
        other.cores[0].zero_()
    assert layer.weight.any()


def test_dtypes_and_meta(generator):
    layer = TTLinear(12, 8)
    assert layer.to(torch.float64).weight.dtype == torch.float64
    assert layer.half().weight.dtype == torch.float16
    assert TTLinear(12, 8, dtype=torch.bfloat16).weight.isfinite().all()
    meta = TTLinear(12, 8, device="meta")
    assert meta.weight.is_meta
    empty = meta.to_empty(device="cpu")
    empty.reset_parameters()
    assert empty.weight.square().mean().item() == pytest.approx(1 / 36, rel=1e-5)
    assert nn.utils.skip_init(TTLinear, 12, 8).weight.shape == (8, 12)
    x = torch.randn(3, 12, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        y = empty(x)
    assert torch.allclose(y.float(), empty(x), atol=0.05)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_torch_func(generator):
    layer = TTLinear(12, 8, rank=3, dtype=torch.float64)
    parameters = dict(layer.named_parameters())
    x = torch.randn(5, 12, generator=generator, dtype=torch.float64)

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for sample in range(5):
        alone = torch.autograd.grad(loss(parameters, x[sample]), list(parameters.values()))
        assert all(
            torch.allclose(each[name][sample], one) for name, one in zip(parameters, alone, strict=True)
        )
    stacked = {name: torch.stack([p, 2 * p.detach()]) for name, p in parameters.items()}
    both = torch.func.vmap(loss, in_dims=(0, None))(stacked, x)
    assert torch.allclose(both[0], loss(parameters, x))
    direction = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    y, slope = torch.func.jvp(layer, (x,), (direction,))
    assert torch.allclose(y, layer(x))
    assert torch.allclose(slope, direction @ layer.weight.T)
    towards = {name: torch.randn_like(p) for name, p in parameters.items()}
    step = 1e-6
    moved = [{n: p + s * towards[n] for n, p in parameters.items()} for s in (step, -step)]
    _, slope = torch.func.jvp(lambda p: loss(p, x), (parameters,), (towards,))
    assert slope.item() == pytest.approx(
        ((loss(moved[0], x) - loss(moved[1], x)) / (2 * step)).item(), rel=1e-6
    )


ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


COMPILED = """
import torch
from tnml.nn import TTLinear
layer, x = TTLinear(12, 8, rank=3), torch.randn(5, 12, requires_grad=True)
inputs = [x, *layer.parameters()]
expected = torch.autograd.grad(layer(x).square().sum(), inputs)
compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
found = torch.autograd.grad(compiled(x).square().sum(), inputs)
assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected))
padded = TTLinear(13, 7, rank=2, n_cores=3)
dynamic = torch.compile(padded, fullgraph=True, dynamic=True, backend="aot_eager")
for lead in ((5,), (2, 7)):
    x = torch.randn(*lead, 13)
    assert torch.allclose(dynamic(x), padded(x), atol=1e-6)
print("compiled")
"""


@pytest.mark.slow
def test_torch_compile_takes_the_layer_whole():
    assert forks.complete(["-c", COMPILED]) == "compiled\n"


PARALLEL = """
import sys, torch
from torch import distributed, nn
from tnml.nn import TTLinear
rank, store = int(sys.argv[1]), distributed.FileStore(sys.argv[2], 2)
distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
torch.manual_seed(rank)  # the wrapper takes the parameters of rank 0 everywhere
layer = TTLinear(12, 8, rank=3, dtype=torch.float64)
parallel = nn.parallel.DistributedDataParallel(layer)
torch.manual_seed(5)
x = torch.randn(6, 12, dtype=torch.float64)
parallel(x[3 * rank : 3 * rank + 3]).square().mean().backward()
found = [parameter.grad.clone() for parameter in layer.parameters()]
expected = torch.autograd.grad(layer(x).square().mean(), list(layer.parameters()))
assert all(torch.allclose(a, b) for a, b in zip(found, expected))
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
optimizer.step()
print(layer.weight.sum().item())
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_share_gradients(tmp_path):
    program = [sys.executable, "-c", PARALLEL]
    with (
        child([*program, "0", tmp_path / "store"], env=ALONE) as first,
        child([*program, "1", tmp_path / "store"], env=ALONE) as second,
    ):
        assert finish(first) == finish(second) != ""
