"""The chain against dense tensors: values, gradients, double gradients, transformations, hazards."""

import numpy as np
import oracles
import pytest
import torch
from chain_cases import BOUND, ENGINES, SHAPES, instance, true_vectors
from forks import complete
from torch import Tensor

from tnml.contraction import ChainShape, chain, chain_flat
from tnml.errors import InputError
from tnml.shapes import growing_bonds


def numpy_cores(weight: Tensor, shape: ChainShape) -> tuple[list[np.ndarray], list[np.ndarray]]:
    wide = weight.to(torch.complex128 if weight.dtype.is_complex else torch.float64)
    cores = [core.transpose(0, 1).detach().numpy() for core in shape.split(wide)]
    return cores[: shape.label_site], cores[shape.label_site :]


def dense_vectors(features: Tensor, weight: Tensor, shape: ChainShape) -> tuple[np.ndarray, np.ndarray]:
    left, right = numpy_cores(weight, shape)
    wide = features.detach().to(torch.complex128 if weight.dtype.is_complex else torch.float64).numpy()
    mirrored = [core.transpose(2, 1, 0) for core in reversed(right)]
    label = shape.label_site
    return oracles.half_chain(wide[:, :label], left), oracles.half_chain(wide[:, label:][:, ::-1], mirrored)


@pytest.mark.parametrize(("engine", "dtype"), ENGINES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_values_and_gradients_equal_dense_tensors(shape, engine, dtype, generator):
    features, weight, of_left, of_right = instance(shape, generator, dtype=dtype)
    features.requires_grad_(True)
    weight.requires_grad_(True)
    left, right = true_vectors(features, weight, shape, engine)
    dense_left, dense_right = dense_vectors(features, weight, shape)
    assert oracles.relative(left.detach(), dense_left) <= BOUND[dtype]
    assert oracles.relative(right.detach(), dense_right) <= BOUND[dtype]

    ((left * of_left).sum() + (right * of_right).sum()).backward()
    cores = [c for half in numpy_cores(weight, shape) for c in half]
    label, wide = shape.label_site, features.detach().double().numpy()

    def loss(changed: list[np.ndarray], inputs: np.ndarray = wide) -> float:
        mirrored = [core.transpose(2, 1, 0) for core in reversed(changed[label:])]
        total = (oracles.half_chain(inputs[:, :label], changed[:label]) * of_left.double().numpy()).sum()
        return (
            total
            + (oracles.half_chain(inputs[:, label:][:, ::-1], mirrored) * of_right.double().numpy()).sum()
        )

    # The loss is the sum of two functions, each linear in its own half's cores: drop the other half's part.
    zeroed_left, zeroed_right = np.zeros_like(of_left), np.zeros_like(of_right)
    kept = of_left, of_right
    for site, gradient in enumerate(shape.split(weight.grad)):
        of_left, of_right = (
            (kept[0], torch.tensor(zeroed_right)) if site < label else (torch.tensor(zeroed_left), kept[1])
        )
        expected = oracles.gradient_of_core(loss, cores, site).transpose(1, 0, 2)
        assert oracles.relative(gradient, expected) <= BOUND[dtype], f"core {site}"
    for site in range(shape.n_sites):
        of_left, of_right = (
            (kept[0], torch.tensor(zeroed_right)) if site < label else (torch.tensor(zeroed_left), kept[1])
        )
        for e in range(shape.physical):
            for b in range(len(wide)):
                unit = wide.copy()
                unit[b, site] = np.eye(shape.physical)[e]
                rest = wide.copy()
                rest[b, site] = 0
                expected = loss(cores, unit) - loss(cores, rest)
                found = features.grad[b, site, e].item()
                assert abs(found - expected) <= BOUND[dtype] * max(1.0, np.abs(features.grad.numpy()).max())


@pytest.mark.parametrize("shape", [SHAPES["uniform"], SHAPES["ragged"], SHAPES["label at the left end"]])
def test_gradcheck_and_gradgradcheck(shape, generator):
    features, weight, *_ = instance(shape, generator, batch=2)
    inputs = features.requires_grad_(True), weight.requires_grad_(True)

    def function(f, w):
        return chain_flat(f, w, shape, "torch")[:2]

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_double_backward_of_the_native_engine_equals_double_precision(generator):
    shape = SHAPES["uniform"]
    features, weight, of_left, of_right = instance(shape, generator, dtype=torch.float32)

    def second(dtype: torch.dtype, engine: str) -> Tensor:
        w = weight.to(dtype).requires_grad_(True)
        left, right = true_vectors(features.to(dtype), w, shape, engine)
        loss = (left * of_left.to(dtype)).sum() * (right * of_right.to(dtype)).sum()
        (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), w)[0]

    assert oracles.relative(second(torch.float32, "native"), second(torch.float64, "reference")) <= 1e-5


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_input_gradient_penalty_of_a_frozen_chain(engine, generator):
    shape = SHAPES["ragged"]
    features, weight, *_ = instance(shape, generator, dtype=torch.float32)

    def penalty(f: Tensor, name: str) -> Tensor:
        left, right = true_vectors(f, weight.to(f.dtype), shape, name)
        (slope,) = torch.autograd.grad((left.sum(1) * right.sum(1)).sum(), f, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), f)[0]

    expected = penalty(features.double().requires_grad_(True), "reference")
    assert oracles.relative(penalty(features.requires_grad_(True), engine), expected) <= 1e-5


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_batched_gradients_equal_single_ones(engine, generator):
    shape = SHAPES["uniform"]
    features, weight, *_ = instance(shape, generator, dtype=torch.float32)
    weight.requires_grad_(True)
    left = chain_flat(features, weight, shape, engine).left
    seeds = torch.randn(3, *left.shape, generator=generator)
    (batched,) = torch.autograd.grad(left, weight, seeds, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(left, weight, seed, retain_graph=True)[0] for seed in seeds]
    assert torch.allclose(batched, torch.stack(single), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [SHAPES["uniform"], SHAPES["ragged"], SHAPES["wide"]])
def test_complex_values_and_wirtinger_gradients(shape, generator):
    features, weight, *_ = instance(shape, generator, dtype=torch.complex128)
    left, right = true_vectors(features, weight, shape, "torch")
    dense_left, dense_right = dense_vectors(features, weight, shape)
    assert oracles.relative(left, dense_left) <= 1e-10
    assert oracles.relative(right, dense_right) <= 1e-10

    features.requires_grad_(True)
    weight.requires_grad_(True)
    left, right = true_vectors(features, weight, shape, "torch")
    target = torch.randn(left.shape, generator=generator, dtype=torch.complex128)
    ((left - target).abs().square().sum() + right.abs().square().sum()).backward()

    def loss(w: Tensor, f: Tensor) -> float:
        a, b = dense_vectors(f, w, shape)
        return float((np.abs(a - target.numpy()) ** 2).sum() + (np.abs(b) ** 2).sum())

    for tensor, position in ((weight, 0), (weight, shape.n_weights - 1), (features, 3), (features, 7)):
        for unit in (1.0, 1.0j):
            moved = []
            for sign in (+1, -1):
                change = torch.zeros_like(tensor).view(-1)
                change[position] = sign * 1e-6 * unit
                w, f = (
                    t + change.view_as(t) if t is tensor else t for t in (weight.detach(), features.detach())
                )
                if tensor is weight:
                    w = weight.detach() + change.view_as(weight)
                else:
                    f = features.detach() + change.view_as(features)
                moved.append(loss(w, f))
            slope = (moved[0] - moved[1]) / 2e-6
            entry = tensor.grad.view(-1)[position]
            found = (entry.real if unit == 1.0 else entry.imag).item()
            assert abs(found - slope) <= 1e-4 * max(1.0, abs(slope))


@pytest.mark.parametrize("start", ["identity", "random"])
def test_ten_thousand_sites_in_single_precision(start, generator):
    """Random cores amplify rounding (their products are ill-conditioned), an identity path does not.

    How much is measured in double precision, on weights off by one rounding each: what the engines compute
    is exact for weights off by as many as a site has products and sums, 2 chi + 2.
    """
    n, chi = 10_000, 6
    shape = ChainShape(2, growing_bonds(n // 2, 2, chi), growing_bonds(n // 2, 2, chi)[::-1])
    x = torch.rand(20, n, generator=generator)
    features = torch.stack([1 - x, x], -1)
    weight = torch.randn(shape.n_weights, generator=generator)
    if start == "identity":
        weight *= 0.3 / (n * chi) ** 0.5
        for core in shape.split(weight):
            core.add_(torch.eye(*core.shape[1:]))

    def slope(value, weight):
        """The gradient of the logarithms of the norms of all vectors."""
        return torch.autograd.grad(sum(half.square().sum(1).log().sum() for half in value[:2]), weight)[0]

    def distance(value):
        """Of both halves of every sample from the truth, relative to its norm."""
        shifts = torch.exp2(value.exponent.double() - truth.exponent).unsqueeze(-1)
        halves = zip(value[:2], shifts, truth[:2], strict=True)
        return torch.stack([(v.double() * s - t).norm(dim=1) / t.norm(dim=1) for v, s, t in halves]).detach()

    double = weight.double().requires_grad_(True)
    truth = chain_flat(features.double(), double, shape, "torch")
    expected = slope(truth, double)
    assert start == "identity" or truth.exponent.abs().min() > 1000  # far outside single precision
    off = (torch.rand(weight.shape, generator=generator, dtype=torch.float64) - 0.5) * torch.finfo().eps
    moved = (weight.double() * (1 + off)).requires_grad_(True)
    value, roundings = chain_flat(features.double(), moved, shape, "torch"), 2 * chi + 2
    bound, of_slope = (
        roundings * distance(value),
        2 * roundings * oracles.relative(slope(value, moved), expected),
    )
    assert start == "random" or bound.median() <= 1e-4
    for engine in ("torch", "native"):
        single = weight.clone().requires_grad_(True)
        value = chain_flat(features, single, shape, engine)
        error, found = distance(value), slope(value, single)
        assert error.median() <= bound.median()
        assert error.max() <= bound.max()
        assert torch.isfinite(found).all()
        assert oracles.relative(found, expected) <= of_slope  # there and back


def test_vmap_grad_and_jvp_equal_plain_differentiation(generator):
    shape = SHAPES["ragged"]
    features, weight, *_ = instance(shape, generator)

    def outputs(w, f):
        value = chain_flat(f, w, shape)
        return value.left.sum() + value.right.square().sum()

    expected = torch.autograd.functional.jacobian(lambda w: outputs(w, features), weight)
    assert torch.allclose(torch.func.grad(outputs)(weight, features), expected)
    single = torch.func.vmap(lambda f: outputs(weight, f.unsqueeze(0)))(features)
    assert torch.allclose(single, torch.stack([outputs(weight, f.unsqueeze(0)) for f in features]))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_equals_reverse_mode(generator):
    shape = SHAPES["ragged"]
    features, weight, *_ = instance(shape, generator)
    direction = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)

    def outputs(w):
        value = chain_flat(features, w, shape)
        return value.left.sum() + value.right.square().sum()

    slope = torch.autograd.functional.jacobian(outputs, weight) @ direction
    _, through_func = torch.func.jvp(outputs, (weight,), (direction,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(weight, direction)
        through_dual = torch.autograd.forward_ad.unpack_dual(outputs(dual)).tangent
    assert torch.allclose(through_func, slope)
    assert torch.allclose(through_dual, slope)


COMPILED = """
import torch
from tnml.contraction import ChainShape, chain_flat
shape = ChainShape(2, (1, 2, 4, 4), (4, 4, 2, 1))
generator = torch.Generator().manual_seed(0)
for engine, dtype in (("native", torch.float32), ("auto", torch.float32), ("torch", torch.float64)):
    features = torch.randn(3, 6, 2, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(shape.n_weights, generator=generator).to(dtype).requires_grad_()
    def loss(w, f):
        value = chain_flat(f, w, shape, engine)
        return value.left.square().sum() + value.right.sum()
    expected = torch.autograd.grad(loss(weight, features), (weight, features))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(weight, features), (weight, features))
    more = torch.randn(7, 6, 2, generator=generator).to(dtype)
    dynamic = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    assert torch.allclose(dynamic(weight, more), loss(weight, more))
    for a, b in zip(found, expected):
        assert torch.equal(a, b), engine
print("compiled")
"""


@pytest.mark.slow
def test_torch_compile_takes_the_operator_whole():
    assert complete(["-c", COMPILED]) == "compiled\n"


def test_operator_passes_pytorchs_own_checks(generator):
    shape = SHAPES["uniform"]
    features, weight, *_ = instance(shape, generator)
    for engine, dtype in (("torch", torch.float64), ("native", torch.float32)):
        given = features.to(dtype).requires_grad_(True), weight.to(dtype).requires_grad_(True)
        torch.library.opcheck(
            torch.ops.tnml.chain.default,
            (*given, shape.key, engine, 2),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )
        state = torch.ops.tnml.chain(*given, shape.key, engine, 2)
        turned = given[0].detach().permute(2, 0, 1).contiguous().permute(1, 2, 0)
        arguments = (state[:2], turned, given[1].detach(), shape.key, engine, state[3:], True)
        torch.library.opcheck(
            torch.ops.tnml.chain_backward.default, arguments, test_utils=("test_schema", "test_faketensor")
        )


def test_chain_of_separate_cores_equals_the_dense_tensor(generator):
    cores = [
        torch.randn(s, generator=generator, dtype=torch.float64)
        for s in ((1, 2, 3), (3, 2, 4), (5, 2, 2), (2, 2, 1))
    ]
    features = torch.rand(6, 4, 2, generator=generator, dtype=torch.float64)
    cores[1].requires_grad_(True)
    value = chain(features, cores)
    label = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    logits = torch.einsum("bl,lcr,br->bc", value.left, label, value.right) * value.log_scale.exp().unsqueeze(
        -1
    )
    plain = [core.detach().numpy() for core in cores]
    assert oracles.relative(logits.detach(), oracles.outputs(features, plain[:2], label, plain[2:])) <= 1e-12
    logits.sum().backward()
    assert cores[1].grad.shape == (3, 2, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, w: (f[:, :5], w), r"expected features \[b, 6, 2\]"),
        (lambda f, w: (f, w[:-1]), "expected 104 weights"),
        (lambda f, w: (f.double(), w), "convert one of them"),
        (lambda f, w: (f[0], w), r"expected features \[b, 6, 2\]"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_input_that_does_not_fit_is_refused(change, message, generator):
    features, weight, *_ = instance(SHAPES["uniform"], generator, dtype=torch.float32)
    with pytest.raises(InputError, match=message):
        chain_flat(*change(features, weight), SHAPES["uniform"])


def test_bad_cores_engines_and_shapes_are_refused(generator):
    features, weight, *_ = instance(SHAPES["uniform"], generator)
    with pytest.raises(InputError, match="did you mean 'native'"):
        chain_flat(features, weight, SHAPES["uniform"], "natve")
    with pytest.raises(InputError, match="native engine takes float32 on the CPU"):
        chain_flat(features, weight, SHAPES["uniform"], "native")
    with pytest.raises(InputError, match="core 1 has left bond 4, expected 3"):
        chain(features, [torch.ones(1, 2, 3), torch.ones(4, 2, 2), torch.ones(2, 2, 1)], label_site=2)
    with pytest.raises(InputError, match="label_site must lie in 0 to 1"):
        chain(features, [torch.ones(1, 2, 1)], label_site=2)
    with pytest.raises(InputError, match="outer bonds must be 1"):
        ChainShape(2, (2, 3), (3, 1))
    with pytest.raises(InputError, match="must be positive"):
        ChainShape(2, (1, 0), (3, 1))


def test_keys_round_trip():
    for shape in SHAPES.values():
        assert ChainShape.from_key(shape.key) == shape


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_cuda_equals_cpu(dtype, generator):
    shape = ChainShape(2, growing_bonds(50, 2, 12), growing_bonds(50, 2, 12)[::-1])
    features, weight, *_ = instance(shape, generator, batch=30, dtype=dtype)
    found = []
    for device in ("cpu", "cuda"):
        w = weight.to(device).requires_grad_(True)
        left, right = true_vectors(features.to(device), w, shape, "torch")
        (left.abs().square().sum().log() + right.abs().square().sum().log()).backward()
        found.append(w.grad.cpu())
    assert oracles.relative(found[1], found[0]) <= 1e-4
