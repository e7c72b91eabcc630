"""The chain against dense tensors: values, gradients, double gradients, transformations, hazards."""

import importlib
import subprocess
import sys
import threading

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from tnml.contraction import ChainShape, chain, chain_flat
from tnml.contraction.reference import reference_chain
from tnml.errors import InputError
from tnml.shapes import growing_bonds

chain_module = importlib.import_module(
    "tnml.contraction.chain"
)  # the package shows the function of this name

SHAPES = {
    "uniform": ChainShape(2, (1, 2, 4, 4), (4, 4, 2, 1)),
    "uniform d=3, odd": ChainShape(3, (1, 3, 3), (3, 3, 3, 1)),
    "ragged": ChainShape(2, (1, 3, 2, 5), (4, 1, 2, 1)),
    "ragged d=4": ChainShape(4, (1, 2), (3, 5, 1)),
    "label at the left end": ChainShape(2, (1,), (3, 4, 2, 1)),
    "label at the right end": ChainShape(5, (1, 4, 3), (1,)),
    "one site": ChainShape(2, (1, 3), (1,)),
    "wide": ChainShape(2, (1, 9, 17), (33, 5, 1)),
}
ENGINES = [
    ("torch", torch.float64),
    ("torch", torch.float32),
    ("native", torch.float32),
    ("reference", torch.float64),
]
BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}


def instance(
    shape: ChainShape, generator: torch.Generator, batch: int = 5, dtype: torch.dtype = torch.float64
):
    """Random features, weights and incoming gradients in double precision, then rounded to `dtype`."""
    double = torch.complex128 if dtype.is_complex else torch.float64
    features = torch.randn(batch, shape.n_sites, shape.physical, generator=generator, dtype=double).to(dtype)
    weight = torch.randn(shape.n_weights, generator=generator, dtype=double).to(dtype)
    left = torch.randn(batch, shape.left[-1], generator=generator, dtype=double).to(dtype)
    right = torch.randn(batch, shape.right[0], generator=generator, dtype=double).to(dtype)
    return features, weight, left, right


def true_vectors(features: Tensor, weight: Tensor, shape: ChainShape, engine: str) -> tuple[Tensor, Tensor]:
    value = chain_flat(features, weight, shape, engine)
    scale = torch.exp2(value.exponent).unsqueeze(-1).to(value.left.dtype)
    return value.left * scale[0], value.right * scale[1]


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


@pytest.mark.parametrize(("start", "typical", "worst"), [("identity", 1e-4, 1e-3), ("random", 1e-4, 1e-2)])
def test_ten_thousand_sites_in_single_precision(start, typical, worst, generator):
    """Random cores amplify rounding (their products are ill-conditioned), an identity path does not."""
    n, chi = 10_000, 6
    shape = ChainShape(2, growing_bonds(n // 2, 2, chi), growing_bonds(n // 2, 2, chi)[::-1])
    x = torch.rand(20, n, generator=generator)
    features = torch.stack([1 - x, x], -1)
    weight = torch.randn(shape.n_weights, generator=generator)
    if start == "identity":
        weight *= 0.3 / (n * chi) ** 0.5
        for core in shape.split(weight):
            core.add_(torch.eye(*core.shape[1:]))
    double = weight.double().requires_grad_(True)
    truth = chain_flat(features.double(), double, shape, "torch")
    log_norms = sum(half.square().sum(1).log().sum() for half in truth[:2])
    (expected,) = torch.autograd.grad(log_norms, double)
    assert start == "identity" or truth.exponent.abs().min() > 1000  # far outside single precision
    for engine in ("torch", "native"):
        single = weight.clone().requires_grad_(True)
        value = chain_flat(features, single, shape, engine)
        shift = torch.exp2(value.exponent.double() - truth.exponent).unsqueeze(-1)
        for half in range(2):
            error = (value[half].double() * shift[half] - truth[half]).norm(dim=1) / truth[half].norm(dim=1)
            assert error.median().item() <= typical
            assert error.max().item() <= worst
        sum(half.square().sum(1).log().sum() for half in value[:2]).backward()
        assert torch.isfinite(single.grad).all()
        assert oracles.relative(single.grad, expected) <= worst


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
    for a, b in zip(found, expected):
        assert torch.equal(a, b), engine
print("compiled")
"""


def test_torch_compile_takes_the_operator_whole():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.stdout == "compiled\n", done.stderr


def test_operator_passes_pytorchs_own_checks(generator):
    shape = SHAPES["uniform"]
    features, weight, *_ = instance(shape, generator)
    for engine, dtype in (("torch", torch.float64), ("native", torch.float32)):
        given = features.to(dtype).requires_grad_(True), weight.to(dtype).requires_grad_(True)
        torch.library.opcheck(
            torch.ops.tnml.chain.default,
            (*given, shape.key, engine, True),
            test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
        )
    assert torch.ops.tnml.chain.default is not None


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


def test_without_numba_one_warning_and_the_torch_engine(monkeypatch, generator):
    def broken(name: str):
        raise ImportError(f"no module named numba, needed by {name}")

    features, weight, *_ = instance(SHAPES["uniform"], generator, dtype=torch.float32)
    expected = chain_flat(features, weight, SHAPES["uniform"], "torch").left
    monkeypatch.setattr(chain_module.importlib, "import_module", broken)
    chain_module.native_engine.cache_clear()
    try:
        with pytest.warns(
            RuntimeWarning, match="native engine is not available .*using the torch engine"
        ) as seen:
            for engine in ("auto", "native", "auto"):
                assert torch.equal(chain_flat(features, weight, SHAPES["uniform"], engine).left, expected)
        assert len(seen) == 1
    finally:
        chain_module.native_engine.cache_clear()


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
