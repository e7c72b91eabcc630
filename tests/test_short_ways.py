"""The short ways through autograd give the bits of the long ones; code kept on disk is safe."""

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tnml.contraction import ChainShape, chain_flat, labelled_chain
from tnml.contraction.transforms import plain
from tnml.errors import InputError
from tnml.loop.optim import take_step
from tnml.nn import MPSLayer
from tnml.torch_private import fused_adam_
from tnml.training import TrainOptions, train_classifier, train_regressor
from tnml.training.losses import CrossEntropy

SHORT = (
    ("tnml.contraction.chain.operator", "plain", lambda *_: False),
    ("tnml.contraction.chain.labelled", "plain", lambda *_: False),
    ("tnml.training.losses.cross_entropy", "plain", lambda *_: False),
    ("tnml.loop.step", "take_step", lambda optimizer: optimizer.step()),
)
SITES, CLASSES, OUTPUTS = 5, 3, 2
OPTIONS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "sgd"},
    {"optimizer": "lbfgs"},
    {"average": "ema", "clip_norm": 0.1},
    {"batch_size": 39},  # the last batch has one sample
]
LAYERS: list[dict[str, Any]] = [
    {"dtype": "float64"},
    {"engine": "torch"},
    {"bond_dropout": 0.2, "site_dropout": 0.1},
    {"label_site": 0},
    {"label_site": 5, "bond_dim": 1},
]


@contextmanager
def long_way() -> Iterator[None]:
    """Inside, all goes through the registry of operators, torch's own graph and the optimiser's own step."""
    with ExitStack() as stack:
        for module, name, instead in SHORT:
            stack.enter_context(mock.patch.object(importlib.import_module(module), name, instead))
        yield


@pytest.fixture(autouse=True)
def no_native_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have rounding of their own; `test_native_steps.py` is about them."""
    monkeypatch.setattr("tnml.training.short.MOST_WORK", 0)


def trained(task: str, options: dict[str, Any], layer: dict[str, Any], *, weighted: bool) -> Any:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(40, SITES, generator=generator)
    labels = torch.randint(0, CLASSES, (40,), generator=generator)
    targets = torch.randn(40, OUTPUTS, generator=generator)
    weight = torch.rand(40, generator=generator) + 0.1 if weighted else None
    chosen = TrainOptions(**{"epochs": 2, "batch_size": 16, "lr": 0.01, "device": "cpu", **options})
    outputs, train, y = (
        (CLASSES, train_classifier, labels)
        if task == "classification"
        else (OUTPUTS, train_regressor, targets)
    )
    module = MPSLayer(SITES, outputs, **{"bond_dim": 4, **layer})
    result = train(module.rescale_(x.to(module.dtype)), x, y, chosen, sample_weight=weight)
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in result.history]
    return result.state, rows


CASES = [
    *((task, options, {}, False) for task in ("classification", "regression") for options in OPTIONS),
    *((task, {}, layer, False) for task in ("classification", "regression") for layer in LAYERS),
    *((task, {}, {}, True) for task in ("classification", "regression")),
    ("classification", {"label_smoothing": 0.05}, {}, False),
    ("classification", {"label_smoothing": 0.3, "batch_size": 1}, {}, False),
    ("classification", {"label_smoothing": 0.05}, {"dtype": "float64"}, False),
    ("classification", {"label_smoothing": 0.05}, {}, True),
]


@pytest.mark.parametrize(("task", "options", "layer", "weighted"), CASES)
def test_a_training_has_the_bits_of_the_long_way(
    task: str, options: dict[str, Any], layer: dict[str, Any], weighted: bool
) -> None:
    state, rows = trained(task, options, layer, weighted=weighted)
    with long_way():
        expected, expected_rows = trained(task, options, layer, weighted=weighted)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert rows == expected_rows


def test_the_long_way_is_another_one() -> None:
    layer = MPSLayer(4, 2)
    assert "Labelled" in type(layer.contract(torch.rand(3, 4, 2))[0].grad_fn).__name__
    with long_way():
        assert "Labelled" not in type(layer.contract(torch.rand(3, 4, 2))[0].grad_fn).__name__


@pytest.mark.parametrize("engine", ["torch", "native", "reference"])
@pytest.mark.parametrize("ends", [(3, 2), (1, 4), (4, 1), (1, 1)])
def test_gradients_of_a_labelled_chain(
    ends: tuple[int, int], engine: str, generator: torch.Generator
) -> None:
    """All three gradients, with column-major ends, against the graph of the products."""
    shape = ChainShape(2, (1, ends[0]), (ends[1], 1))
    for samples in (1, 2, 9):
        inputs = [
            torch.rand(samples, 2, 2, generator=generator),
            torch.randn(shape.n_weights, generator=generator),
            torch.randn(ends[0], 3, ends[1], generator=generator),
        ]
        found, expected = ([t.clone().requires_grad_() for t in inputs] for _ in range(2))
        value, exponent = labelled_chain(*found, shape, engine)
        left, right, other = chain_flat(expected[0], expected[1], shape, engine)
        both = (left @ expected[2].reshape(ends[0], -1)).view(-1, 3, ends[1])
        truth = torch.bmm(both, right.unsqueeze(-1)).squeeze(-1)
        assert torch.equal(value, truth)
        assert torch.equal(exponent, other.sum(0))
        gradient = torch.randn(value.shape, generator=generator)
        value.backward(gradient)
        truth.backward(gradient)
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(found, expected, strict=True))


def test_a_labelled_chain_can_be_differentiated_twice(generator: torch.Generator) -> None:
    shape = ChainShape(2, (1, 2, 3), (2, 1))
    inputs = [
        torch.rand(2, 3, 2, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.randn(shape.n_weights, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.randn(3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_(),
    ]

    def value(*tensors: Tensor) -> Tensor:
        return labelled_chain(*tensors, shape)[0]  # type: ignore[misc, arg-type]

    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_smoothed_cross_entropy(generator: torch.Generator) -> None:
    for dtype in (torch.float32, torch.float64):
        outputs = torch.randn(7, 4, generator=generator, dtype=dtype)
        y = torch.randint(0, 4, (7,), generator=generator)
        ours, torchs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
        loss, truth = CrossEntropy(0.1).mean(ours, y), cross_entropy(torchs, y, label_smoothing=0.1)
        assert torch.equal(loss, truth)
        (loss * 0.3).backward()
        (truth * 0.3).backward()
        assert torch.equal(ours.grad, torchs.grad)
    free = outputs.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda free: CrossEntropy(0.1).mean(free, y), free)


def test_hooks_of_an_optimiser_are_called() -> None:
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.ones(2)
    optimizer, called = torch.optim.Adam([weight], fused=True), []
    optimizer.step()
    assert fused_adam_(optimizer)
    own = optimizer.register_step_post_hook(lambda *_: called.append("own"))
    take_step(optimizer)
    own.remove()
    every = torch.optim.optimizer if hasattr(torch.optim, "optimizer") else None
    register = importlib.import_module("torch.optim.optimizer").register_optimizer_step_pre_hook
    handle = register(lambda *_: called.append("every"))
    take_step(optimizer)
    handle.remove()
    assert every is None or called
    assert called == ["own", "every"]
    assert optimizer.state[weight]["step"] == 4


def test_what_is_plain() -> None:
    x = torch.ones(2)
    assert plain(x, torch.nn.Parameter(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert not plain(x)

    class Own(Tensor):
        pass

    assert not plain(x.as_subclass(Own))
    assert not plain(torch.ones(2, device="meta"))


def test_object_code_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = importlib.import_module("tnml.contraction.chain.objects")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "code"))
    source = tmp_path / "source.py"
    source.write_text("one")
    store = objects.ObjectStore("kind", [source])
    assert store.read("name") is None
    assert store.write("name", b"code") == b"code"
    assert objects.ObjectStore("kind", [source]).read("name") == b"code"
    (file,) = (tmp_path / "code").iterdir()
    source.write_text("two")
    assert objects.ObjectStore("kind", [source]).read("name") is None  # of another source
    file.write_bytes(file.read_bytes()[:-1])
    assert store.read("name") is None  # cut off
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert store.write("name", b"code") == b"code"  # a folder that cannot be made is no error
    assert store.read("name") is None


def test_the_engine_starts_without_numba(tmp_path: Path) -> None:
    workers = importlib.import_module("tnml.contraction.chain.workers")
    assert workers.worker("forward_worker").address
    for name in ("forward_worker", "backward_worker", "replicas_worker", "steps_worker"):
        assert workers.worker(name).address  # compiled now, where the code is not on disk yet
        assert workers._store().read(name) is not None, "numba's help is needed by this worker"


def test_gradients_to_be_differentiated_count_every_path_once(generator: torch.Generator) -> None:
    """As without a second derivative, where the inputs of a chain depend on each other."""
    layer = MPSLayer(4, 4, bond_dim=3, noise=0.5, dtype="float64")
    x = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    shape = ChainShape(2, (1, 2, 3), (3, 1))
    weight = torch.randn(shape.n_weights, generator=generator, dtype=torch.float64, requires_grad=True)

    def nested() -> Tensor:
        return layer(layer(x).sigmoid()).square().sum()

    def shared() -> Tensor:
        features = weight[:6].reshape(1, 3, 2) * torch.ones(2, 1, 1)
        label = weight[:18].reshape(3, 2, 3)
        value = chain_flat(features, weight, shape)
        return labelled_chain(features, weight, label, shape)[0].square().sum() + value.left.square().sum()

    for function, inputs in ((nested, list(layer.parameters())), (shared, [weight])):
        once = torch.autograd.grad(function(), inputs)
        again = torch.autograd.grad(function(), inputs, create_graph=True)
        for one, other in zip(once, again, strict=True):
            assert (one - other).abs().max() <= 1e-12 * one.abs().max()


def test_no_sample_has_a_gradient_of_zero() -> None:
    layer = MPSLayer(4, 4)
    layer(torch.zeros(0, 4)).sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_lazily_negated_tensors_are_written_out(generator: torch.Generator) -> None:
    shape = ChainShape(2, (1, 2, 3), (3, 1))
    weight = torch.randn(shape.n_weights, generator=generator, requires_grad=True)
    label = torch.randn(3, 2, 3, generator=generator)
    features = torch.randn(3, 3, 2, dtype=torch.complex64, generator=generator).conj().imag
    assert features.is_neg()
    assert torch.equal(
        labelled_chain(features, weight, label, shape)[0],
        labelled_chain(features.resolve_neg(), weight, label, shape)[0],
    )
    assert torch.equal(
        chain_flat(features, weight.detach(), shape).left,
        chain_flat(features.resolve_neg(), weight.detach(), shape).left,
    )


@pytest.mark.usefixtures("unchecked")
def test_a_chain_with_its_label_core_checks_what_it_is_given(generator: torch.Generator) -> None:
    shape = ChainShape(2, (1, 2, 3), (3, 1))
    weight, label = torch.ones(shape.n_weights, requires_grad=True), torch.ones(3, 2, 3)
    features = torch.ones(2, 3, 2)
    for call, match in (
        (lambda: labelled_chain(torch.ones(2, 5, 2), weight, label, shape), r"expected features \[b, 3, 2\]"),
        (lambda: labelled_chain(features, weight, label, shape, "nativ"), "unknown engine 'nativ'"),
        (lambda: labelled_chain(features.double(), weight, label, shape), "convert one of them"),
        (lambda: labelled_chain(features, weight, label.double(), shape), "label core is torch.float64"),
        (lambda: labelled_chain(features.half(), weight, label, shape), "convert one of them"),
    ):
        with pytest.raises(InputError, match=match):
            call()
