"""What the engines must survive: threads, shared memory, odd batches, zeros, a missing numba."""

import importlib
import threading

import oracles
import pytest
import torch
from chain_cases import SHAPES, instance

from tnml.contraction import ChainShape, chain_flat
from tnml.contraction.reference import reference_chain
from tnml.shapes import growing_bonds

chain_module = importlib.import_module("tnml.contraction.chain")  # the package shows the function `chain`


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_two_forwards_before_a_backward_do_not_share_memory(engine, generator):
    shape = SHAPES["wide"]
    instances = [instance(shape, generator, dtype=torch.float32) for _ in range(4)]
    alone = []
    for features, weight, *_ in instances:
        w = weight.clone().requires_grad_(True)
        chain_flat(features, w, shape, engine).left.sum().backward()
        alone.append(w.grad.clone())
    weights = [weight.clone().requires_grad_(True) for _, weight, *_ in instances]
    losses = [chain_flat(i[0], w, shape, engine).left.sum() for i, w in zip(instances, weights, strict=True)]
    for loss in reversed(losses):
        loss.backward()
    for weight, expected in zip(weights, alone, strict=True):
        assert torch.equal(weight.grad, expected)


def test_native_result_does_not_depend_on_the_number_of_threads(generator):
    shape = ChainShape(2, growing_bonds(33, 2, 5), growing_bonds(68, 2, 5)[::-1])
    features, weight, *_ = instance(shape, generator, batch=70, dtype=torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 4, 7, 4, 7, 3):
            torch.set_num_threads(threads)
            f, w = features.clone().requires_grad_(True), weight.clone().requires_grad_(True)
            value = chain_flat(f, w, shape, "native")
            (value.left.sum() + value.right.sum()).backward()
            found.append((value.left.detach(), value.exponent, w.grad, f.grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


def test_native_engine_from_many_python_threads_at_once(generator):
    shape = SHAPES["wide"]
    features, weight, *_ = instance(shape, generator, batch=40, dtype=torch.float32)
    expected = chain_flat(features, weight, shape, "native").left
    wrong = []

    def work():
        for _ in range(20):
            if not torch.equal(chain_flat(features, weight, shape, "native").left, expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_strided_features_empty_batches_and_many_samples(engine, generator):
    shape = SHAPES["uniform"]
    features, weight, *_ = instance(shape, generator, batch=1100, dtype=torch.float32)
    turned = features.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    weight.requires_grad_(True)
    a, b = chain_flat(features, weight, shape, engine), chain_flat(turned, weight, shape, engine)
    assert torch.equal(a.left, b.left)
    ga = torch.autograd.grad(a.left.sum(), weight)[0]
    truth = weight.detach().double().requires_grad_(True)
    left, _, exponent = reference_chain(features.double(), truth, shape)
    shift = torch.exp2(exponent[0] - a.exponent[0].double()).unsqueeze(-1)
    gb = torch.autograd.grad((left * shift).sum(), truth)[0]
    assert oracles.relative(ga, gb) <= 1e-5
    empty = chain_flat(features[:0], weight, shape, engine)
    assert empty.left.shape == (0, 4)
    assert torch.autograd.grad(empty.left.sum(), weight)[0].abs().max() == 0


def test_zero_and_non_finite_inputs_stay_what_they_are():
    shape = ChainShape(2, growing_bonds(20, 2, 3), growing_bonds(20, 2, 3)[::-1])
    features = torch.ones(3, 40, 2)
    features[0, 7] = 0
    features[1, 7] = float("nan")
    for engine in ("torch", "native", "reference"):
        value = chain_flat(features, torch.ones(shape.n_weights), shape, engine)
        assert value.left[0].abs().max() == 0
        assert torch.isnan(value.left[1]).all()
        assert torch.isfinite(value.left[2]).all()


def test_without_numba_one_warning_and_the_torch_engine(monkeypatch, generator):
    def broken(name: str):
        raise ImportError(f"no module named numba, needed by {name}")

    features, weight, *_ = instance(SHAPES["uniform"], generator, dtype=torch.float32)
    expected = chain_flat(features, weight, SHAPES["uniform"], "torch").left
    monkeypatch.setattr(chain_module.importlib, "import_module", broken)
    chain_module.native_engine.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="not available .*using the torch engine"):
            first = chain_flat(features, weight, SHAPES["uniform"], "auto").left
        again = chain_flat(features, weight, SHAPES["uniform"], "native").left  # a second warning would raise
        assert torch.equal(first, expected)
        assert torch.equal(again, expected)
    finally:
        chain_module.native_engine.cache_clear()
