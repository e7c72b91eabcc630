"""The engines of replica chains against loops in float64, on chains of every kind."""

import numpy as np
import pytest
import torch
from bounds import assert_same_sums
from torch.nn.functional import cross_entropy as torch_cross_entropy

from tnml.contraction import ChainShape
from tnml.contraction.chain.replicas import replica_chains
from tnml.errors import InputError
from tnml.training.losses import CrossEntropy, LabelSquaredError, SquaredError

SHAPES = {
    "mirrored": ChainShape(2, (1, 2, 3, 3), (3, 3, 2, 1)),
    "odd": ChainShape(2, (1, 2, 4), (4, 4, 2, 1)),
    "ragged": ChainShape(3, (1, 3, 5, 2), (4, 1)),
    "label first": ChainShape(2, (1,), (3, 2, 1)),
    "label last": ChainShape(2, (1, 2, 3), (1,)),
    "long": ChainShape(2, (1, *[4] * 20), (*[4] * 20, 1)),
    "one by one": ChainShape(1, (1, 1), (1, 1)),
}


def half_vectors(features, cores):
    """What enters every core of a half and what leaves it: lists over sites of [b, bond], float64."""
    vectors = [np.ones((len(features), 1))]
    for site, core in enumerate(cores):
        vectors.append(np.einsum("be,bl,elr->br", features[:, site], vectors[-1], core))
    return vectors


def core_gradients(features, cores, adjoint):
    """Gradients of sum(adjoint * leaving) with respect to the cores of a half."""
    vectors, found = half_vectors(features, cores), []
    for site in range(len(cores) - 1, -1, -1):
        found.append(np.einsum("be,bl,br->elr", features[:, site], vectors[site], adjoint))
        adjoint = np.einsum("be,br,elr->bl", features[:, site], adjoint, cores[site])
    return found[::-1]


@pytest.mark.parametrize(
    ("engine", "dtype"), [("native", "float32"), ("torch", "float32"), ("torch", "float64")]
)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_vectors_and_gradients(name, engine, dtype, threads, generator):
    shape, kind = SHAPES[name], getattr(torch, dtype)
    count, batch, spare = 5, 19, 3
    weight = torch.randn(count, shape.n_weights + spare, generator=generator, dtype=kind)
    gradient = torch.full_like(weight, 7.0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        chains = replica_chains(shape, weight, batch, gradient=gradient, engine=engine)
        for _ in range(2):  # the same memory serves again
            weight.normal_(generator=generator)
            chains.features.copy_(torch.rand(chains.features.shape, generator=generator, dtype=kind) + 0.1)
            exponent = chains.forward()
            chains.grad_left.normal_(generator=generator)
            chains.grad_right.normal_(generator=generator)
            # towards the true vectors, on one scale for both engines: of left times right alone
            left, right = chains.left.clone(), chains.right.clone()
            chains.backward()
            for replica in range(count):
                rows = [t[replica].double().numpy() for t in (chains.features, left, right, exponent)]
                check(shape, weight[replica], rows, chains, replica, gradient[replica], dtype)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(gradient[:, shape.n_weights :], torch.full((count, spare), 7.0, dtype=kind))


def check(shape, weight, rows, chains, replica, gradient, dtype):
    features, left, right, exponent = rows
    cores = [core.double().numpy() for core in shape.split(weight[: shape.n_weights])]
    place = shape.label_site
    mirrored = [core.transpose(0, 2, 1) for core in cores[place:][::-1]]
    halves = [(features[:, :place], cores[:place]), (features[:, place:][:, ::-1], mirrored)]
    most = [(np.abs(half[0]), [np.abs(core) for core in half[1]]) for half in halves]
    # at a site two products and a sum, there and back; at last a sum over the batch
    widest = max(max(core.shape[1:]) for core in cores) if cores else 1
    operations = 2 * shape.n_sites * (shape.physical * widest + 1) + len(features) + 2
    true = [half_vectors(*half)[-1] for half in halves]
    powers = [
        np.round(np.log2(np.abs(t).max(1, keepdims=True) / np.abs(f).max(1, keepdims=True)))
        for t, f in zip(true, (left, right), strict=True)
    ]
    scales = [np.exp2(power) for power in powers]
    for found, vector, scale, half in zip((left, right), true, scales, most, strict=True):
        assert_same_sums(found * scale, vector, half_vectors(*half)[-1], operations, dtype)
    np.testing.assert_array_equal((powers[0] + powers[1])[:, 0], exponent)
    incoming = [g[replica].double().numpy() for g in (chains.grad_left, chains.grad_right)]
    adjoints = [g / s for g, s in zip(incoming, scales, strict=True)]
    wanted, largest = (
        [core_gradients(*half, adjoint) for half, adjoint in zip(given, g, strict=True)]
        for given, g in ((halves, adjoints), (most, map(np.abs, adjoints)))
    )
    found = shape.split(gradient[: shape.n_weights])
    for one, core, bound in zip(found, *map(joined, (wanted, largest)), strict=True):
        assert_same_sums(one, core, bound, operations, dtype)


def joined(halves):
    """The gradients of both halves as they lie in the chain."""
    return halves[0] + [core.transpose(0, 2, 1) for core in halves[1][::-1]]


def test_long_chains_neither_overflow_nor_vanish(generator):
    shape = ChainShape(2, (1, *[3] * 400), (*[3] * 400, 1))
    for size in (0.03, 30.0):
        weight = size * torch.randn(2, shape.n_weights, generator=generator)
        for engine in ("native", "torch"):
            chains = replica_chains(shape, weight, 4, gradient=torch.empty_like(weight), engine=engine)
            chains.features.fill_(1.0)
            exponent = chains.forward()
            assert torch.isfinite(chains.left).all()
            assert (chains.left.abs().amax(2) > 1e-20).all()
            assert (exponent.abs() > 1000).all()


def test_forward_only_chains_are_the_same(generator):
    shape = SHAPES["odd"]
    weight = torch.randn(3, shape.n_weights, generator=generator)
    kept = replica_chains(shape, weight, 33, gradient=torch.empty_like(weight))
    bare = replica_chains(shape, weight, 33)
    for chains in (kept, bare):
        chains.features.copy_(torch.linspace(0, 1, chains.features.numel()).view(chains.features.shape))
    assert torch.equal(kept.forward(), bare.forward())
    assert torch.equal(kept.left, bare.left)
    assert torch.equal(kept.right, bare.right)


@pytest.mark.parametrize(
    ("weight", "more", "text"),
    [
        (torch.ones(3, 7), {}, "expected real weights"),
        (torch.ones(3, 8, dtype=torch.complex64), {}, "expected real weights"),
        (torch.ones(3, 8), {"batch": 0}, "at least one sample"),
        (torch.ones(3, 8).double(), {"engine": "native"}, "native engine takes float32"),
        (torch.ones(3, 8), {"engine": "nativ"}, "unknown engine"),
        (torch.ones(3, 8), {"gradient": torch.ones(2, 8)}, "gradient must be"),
    ],
)
def test_bad_input(weight, more, text):
    with pytest.raises(InputError, match=text):
        replica_chains(ChainShape(2, (1, 2), (2, 1)), weight, **{"batch": 5, **more})


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_losses_and_their_gradients(smoothing, generator):
    outputs = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randint(3, (2, 5), generator=generator)
    target = torch.eye(3, dtype=torch.float64)[y]
    expected = [torch_cross_entropy(o, t, label_smoothing=smoothing) for o, t in zip(outputs, y, strict=True)]
    for loss, targets, wanted in (
        (CrossEntropy(smoothing), y, torch.stack(expected)),
        (LabelSquaredError(), y, (outputs - target).square().mean((1, 2))),
        (SquaredError(), target, (outputs - target).square().mean((1, 2))),
    ):
        mean, gradient = loss.mean_and_gradient(outputs.detach(), targets)
        torch.testing.assert_close(mean, wanted.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), outputs)[0])
        if loss.for_labels:
            right = loss.metrics(outputs, targets)["accuracy"].sum(1)
            assert right.tolist() == (outputs.argmax(2) == y).sum(1).tolist()
