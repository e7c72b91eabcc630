"""What the engines must survive: threads, shared memory, odd batches, zeros, a missing numba."""

import builtins
import importlib
import math
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import oracles
import pytest
import torch
from chain_cases import SHAPES, instance
from children import wait_until
from numba.core.event import trigger_event
from torch._subclasses.fake_tensor import FakeTensorMode

from tnml.contraction import ChainShape, chain_flat
from tnml.contraction.chain.reference import reference_chain
from tnml.contraction.chain.scanned import scanned_chain
from tnml.shapes import growing_bonds

loading = importlib.import_module("tnml.contraction.chain.loading")


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


TEAM = """
import torch
from tnml.contraction import ChainShape, chain_flat
from tnml.shapes import growing_bonds
generator = torch.Generator().manual_seed(0)
found = []
for label in (20, 33):
    shape = ChainShape(2, growing_bonds(label, 2, 5), growing_bonds(40 - label, 2, 5)[::-1])
    features = torch.rand(70, 40, 2, generator=generator).requires_grad_()
    weight = torch.randn(shape.n_weights, generator=generator).requires_grad_()
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        value = chain_flat(features, weight, shape, "native")
        gradients = torch.autograd.grad(value.left.sum() + value.right.sum(), (weight, features))
        found.append((value.left, value.right, *gradients))
        assert all(torch.equal(a, b) for a, b in zip(found[-1], found[0])), threads
    found.clear()
print("alike")
"""


@pytest.mark.parametrize(
    "setting",
    [
        "OMP_THREAD_LIMIT=1",
        pytest.param("OMP_THREAD_LIMIT=2", marks=pytest.mark.slow),
        pytest.param("OMP_DYNAMIC=true", marks=pytest.mark.slow),
    ],
)
def test_openmp_may_give_fewer_threads_than_asked_for(setting):
    name, value = setting.split("=")
    done = subprocess.run(
        [sys.executable, "-c", TEAM],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, name: value},
    )
    assert done.stdout == "alike\n", done.stderr


def test_inference_by_several_threads_at_different_rows(generator):
    """Threads that share a half must not meet in memory, though the bonds near the ends differ."""
    shape = ChainShape(2, (1, 4), (7, 3, 9, 2, 5, 1))
    features, weight, *_ = instance(shape, generator, batch=200, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = chain_flat(features, weight, shape, "native")
        torch.set_num_threads(3)
        for _ in range(1500):
            found = chain_flat(features, weight, shape, "native")
            assert torch.equal(found.left, expected.left)
            assert torch.equal(found.right, expected.right)
    finally:
        torch.set_num_threads(before)


def test_without_openmp_python_threads_take_a_half_each(monkeypatch, generator):
    native = loading.native_engine()
    shape = ChainShape(2, growing_bonds(12, 2, 5), growing_bonds(30, 2, 5)[::-1])
    features, weight, *_ = instance(shape, generator, batch=40, dtype=torch.float32)

    def results():
        w = weight.clone().requires_grad_(True)
        value = chain_flat(features, w, shape, "native")
        (value.left.sum() + value.right.sum()).backward()
        return value.left.detach(), value.right.detach(), w.grad

    expected = results()
    monkeypatch.setattr(native, "_openmp", lambda: None)
    monkeypatch.setattr(native.torch, "get_num_threads", lambda: 4)
    assert all(torch.equal(a, b) for a, b in zip(results(), expected, strict=True))


FORK = """
import importlib, os, signal, torch
import tnml.contraction
from tnml.contraction import ChainShape, chain_flat
torch.set_num_threads(2)
a = torch.ones(600, 600); a @ a; (torch.ones(10**6) * 2).sum()
child = os.fork()
if child == 0:
    signal.alarm(60)
    importlib.import_module("tnml.contraction.chain.native").ALONE = 0  # so that it would use threads
    value = chain_flat(torch.ones(40, 2, 2), torch.ones(8), ChainShape(2, (1, 2), (2, 1)), "native")
    os._exit(0 if value.left[0, 0].item() == 2.0 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_computes_alone_instead_of_hanging():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False)
    assert done.stdout == "0\n", done.stderr


@pytest.mark.parametrize("scales", [(1e-37, 1e4), (1e37, 1e-5), (3e-39, 1.0)])
def test_extreme_vectors_and_features_are_rescaled(scales):
    """The vector after eight sites is near the end of float32, the ninth feature pulls the other way."""
    shape = ChainShape(1, (1,) * 13, (1,))
    features = torch.ones(2, 12, 1)
    features[:, 7], features[:, 8] = scales
    value = chain_flat(features, torch.ones(12), shape, "native")
    truth = torch.tensor(scales, dtype=torch.float32).double().log2().sum()
    assert value.left[0, 0].double().log2() + value.exponent[0, 0] == pytest.approx(truth.item(), abs=2e-5)


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


def test_a_failure_while_tracing_is_not_remembered(monkeypatch):
    def broken(name: str):
        raise AttributeError(f"a mode that traces came into the way of {name}")

    loading._loaded_once.cache_clear()
    with monkeypatch.context() as patch, FakeTensorMode():
        patch.setattr(loading.importlib, "import_module", broken)
        with pytest.warns(RuntimeWarning, match="not available .*a mode that traces"):
            assert loading.native_engine() is None
    assert loading.native_engine().__name__ == "tnml.contraction.chain.native"


def test_the_engine_is_loaded_with_pythons_own_functions(monkeypatch):
    """torch.export replaces them for its time; numba, loaded then, fails or compiles the replacements."""

    def import_module(name: str):
        seen.append((max, math.pow))
        return importlib.import_module(name)

    own, other, seen = (max, math.pow), (lambda *_: 7, lambda x, y: x**y), []
    monkeypatch.setattr(loading, "importlib", SimpleNamespace(import_module=import_module))
    loading._loaded_once.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "max", other[0])
        patch.setattr(math, "pow", other[1])
        assert loading.native_engine() is not None
        assert (max, math.pow) == other
    assert set(seen) == {own}


def test_without_numba_one_warning_and_the_torch_engine(monkeypatch, generator):
    def broken(name: str):
        raise ImportError(f"no module named numba, needed by {name}")

    features, weight, *_ = instance(SHAPES["uniform"], generator, dtype=torch.float32)
    expected = chain_flat(features, weight, SHAPES["uniform"], "torch").left
    monkeypatch.setattr(loading.importlib, "import_module", broken)
    loading._loaded_once.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="not available .*using the torch engine"):
            first = chain_flat(features, weight, SHAPES["uniform"], "auto").left
        again = chain_flat(features, weight, SHAPES["uniform"], "native").left  # a second warning would raise
        assert torch.equal(first, expected)
        assert torch.equal(again, expected)
    finally:
        loading._loaded_once.cache_clear()


def test_the_note_of_compiling_comes_with_compiling_alone(monkeypatch, caplog):
    """Reading numba's cache may be slow where other processes work, too, and is no reason for a note."""
    monkeypatch.setattr(loading, "ANNOUNCE_AFTER", 0.0)
    with loading._note_of_compiling(), trigger_event("numba:compiler_lock"):
        assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())
    assert not caplog.messages
    with loading._note_of_compiling(), trigger_event("numba:compile"), trigger_event("numba:compile"):
        wait_until(lambda: caplog.messages)
    assert caplog.messages == ["tnml: compiling the native engine, once, about 10 seconds"]


@pytest.mark.slow
def test_no_note_where_the_cache_is_read():
    program = "from importlib import import_module; o = import_module('tnml.contraction.chain.loading')"
    program += "; o.ANNOUNCE_AFTER = 0.0; assert o.native_engine()"
    for _ in range(2):  # the first may have to compile
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_chain_as_a_loop_equals_the_recurrence(shape, generator):
    features, weight, *_ = instance(shape, generator)
    found = scanned_chain(features, weight, shape)
    expected = reference_chain(features, weight, shape)
    for half in range(2):
        one, other = (v[half] * torch.exp2(v[2][half]).unsqueeze(1) for v in (found, expected))
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10 * float(other.abs().max()))
