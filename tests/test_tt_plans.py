"""Every plan for a tensor-train matrix against the dense matrix in double precision; the choice of plans."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tnml.contraction import PLANS, Plan, TTShape, tt_linear, tt_matrix, tt_plans
from tnml.contraction.tt import costs, plans
from tnml.contraction.tt.rates import TYPICAL, Rates
from tnml.errors import InputError

SHAPES = [
    TTShape((2, 3), (3, 2), (1, 3, 1)),
    TTShape((4,), (5,), (1, 1)),
    TTShape((2, 3, 2), (2, 2, 3), (1, 2, 3, 1)),
    TTShape((2, 2, 3, 2), (3, 2, 2, 2), (1, 3, 4, 2, 1)),
    TTShape((2, 3), (1, 7), (1, 9, 1)),
    TTShape((1, 1, 2), (2, 1, 1), (1, 1, 2, 1)),
]


def random_cores(shape: TTShape, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    sizes = zip(shape.ranks, shape.outs, shape.ins, shape.ranks[1:], strict=False)
    return [torch.randn(size, dtype=dtype, generator=generator, requires_grad=True) for size in sizes]


def dense(cores: Sequence[Tensor]) -> np.ndarray:
    """The matrix entry by entry: the product of the cores' slices, in numpy."""
    arrays = [core.detach().numpy() for core in cores]
    outs, ins = [a.shape[1] for a in arrays], [a.shape[2] for a in arrays]
    matrix = np.empty((math.prod(outs), math.prod(ins)), dtype=arrays[0].dtype)
    for row in range(len(matrix)):
        for column in range(matrix.shape[1]):
            value = np.ones((1, 1))
            for array, o, i in zip(
                arrays, np.unravel_index(row, outs), np.unravel_index(column, ins), strict=True
            ):
                value = value @ array[:, o, i, :]
            matrix[row, column] = value[0, 0]
    return matrix


@pytest.mark.parametrize("shape", SHAPES)
def test_matrix_is_the_product_of_slices(shape: TTShape) -> None:
    cores = random_cores(shape)
    np.testing.assert_allclose(tt_matrix(cores).detach().numpy(), dense(cores), rtol=0, atol=1e-13)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_plan_is_the_dense_product(shape: TTShape, cut: int, batch: int, plan: str) -> None:
    outputs, inputs = max(1, shape.out_size - cut), max(1, shape.in_size - cut)
    cores = random_cores(shape)
    x = torch.randn(batch, inputs, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outputs, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(batch, outputs, dtype=torch.float64)
    y = tt_linear(x, cores, bias, out_features=outputs, plan=plan)
    weight = torch.from_numpy(dense(cores))[:outputs, :inputs]
    torch.testing.assert_close(y, x @ weight.t() + bias, rtol=0, atol=1e-12)
    found = torch.autograd.grad(y, [x, bias, *cores], gradient)
    expected = torch.autograd.grad(
        x @ tt_matrix(cores)[:outputs, :inputs].t() + bias, [x, bias, *cores], gradient
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("shape", SHAPES[1:4])
def test_every_derivative_of_every_plan(shape: TTShape, plan: str) -> None:
    cores = random_cores(shape)
    x = torch.randn(2, shape.in_size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(shape.out_size, dtype=torch.float64, requires_grad=True)

    def product(x: Tensor, bias: Tensor, *cores: Tensor) -> Tensor:
        return tt_linear(x, cores, bias, plan=plan)

    assert torch.autograd.gradcheck(
        product, (x, bias, *cores), check_batched_grad=True, check_forward_ad=True
    )
    assert torch.autograd.gradgradcheck(product, (x, bias, *cores))


@pytest.mark.parametrize("plan", ["dense", "slices", "left", "right"])
def test_frozen_parts_get_no_gradient(plan: str) -> None:
    shape = SHAPES[2]
    weight = torch.randn(5, shape.out_size, dtype=torch.float64)
    for frozen in range(shape.n_cores + 1):
        tensors = [torch.randn(5, shape.in_size, dtype=torch.float64), *random_cores(shape)]
        tensors = [t.detach().requires_grad_(number != frozen) for number, t in enumerate(tensors)]
        (tt_linear(tensors[0], tensors[1:], plan=plan) * weight).sum().backward()
        assert tensors[frozen].grad is None
        trained = [t for number, t in enumerate(tensors) if number != frozen]
        loss = (tensors[0] @ tt_matrix(tensors[1:]).t() * weight).sum()
        for found, expected in zip(
            (t.grad for t in trained), torch.autograd.grad(loss, trained), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("plan", PLANS)
def test_chunks_and_strided_operands(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of few samples (or slices), inputs that are no contiguous block, expanded gradients."""
    monkeypatch.setattr(plans, "CACHED", (256,))
    plans.list_plans.cache_clear()
    plans.choose_plan.cache_clear()
    shape = TTShape((3, 4), (4, 6), (1, 5, 1))
    cores = random_cores(shape)
    x = torch.randn(12, 23, dtype=torch.float64).t()[1:, :].requires_grad_()
    y = tt_linear(x, cores, plan=plan)
    expected = x @ tt_matrix(cores).t()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(y.sum(), [x, *cores]),
        torch.autograd.grad(expected.sum(), [x, *cores]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
    chosen = plans.choose_plan(shape, 22, plan, 8, True, TYPICAL)
    assert plan not in ("left", "slices") or chosen.chunk < 6  # else this test would show nothing
    plans.list_plans.cache_clear()
    plans.choose_plan.cache_clear()


def test_complex_numbers() -> None:
    shape = SHAPES[2]
    for plan in PLANS:
        cores = random_cores(shape, torch.complex128)
        x = torch.randn(3, shape.in_size, dtype=torch.complex128, requires_grad=True)
        y, expected = tt_linear(x, cores, plan=plan), x @ tt_matrix(cores).t()
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
        weight = torch.randn_like(y)
        for one, other in zip(
            torch.autograd.grad(y, [x, *cores], weight),
            torch.autograd.grad(expected, [x, *cores], weight),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_autocast_and_meta() -> None:
    shape = TTShape((4, 4), (4, 4), (1, 3, 1))
    cores = [core.float() for core in random_cores(shape)]
    for plan in PLANS:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = tt_linear(torch.ones(3, 16), cores, plan=plan)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), torch.ones(3, 16) @ tt_matrix(cores).t(), rtol=0.1, atol=0.5)
        bias = torch.ones(16, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert tt_linear(torch.ones(3, 16), cores, bias, plan=plan).dtype == torch.bfloat16
        meta = tt_linear(torch.ones(3, 16, device="meta"), [core.to("meta") for core in cores], plan=plan)
        assert meta.shape == (3, 16)


def test_the_choice_follows_the_sizes() -> None:
    """Core by core for a large matrix of small rank, slices where the rank is large, W where the batch is."""

    def choice(shape: TTShape, batch: int) -> Plan:
        return plans.choose_plan(shape, batch, "auto", 4, True, TYPICAL)

    assert choice(TTShape((16,) * 3, (16,) * 3, (1, 4, 4, 1)), 128).name in ("left", "right")
    assert choice(TTShape((16,) * 3, (16,) * 3, (1, 32, 32, 1)), 128).name == "slices"
    assert choice(TTShape((8, 8), (8, 8), (1, 8, 1)), 5000).name == "dense"
    assert choice(TTShape((4,), (6,), (1, 1)), 5).name == "dense"


def test_no_plan_takes_more_memory_than_the_dense_layer() -> None:
    for ins, outs, batch, ranks in [
        ((16, 16, 16), (16, 16, 16), 128, (2, 4, 8, 16, 32)),
        ((32, 32), (32, 32), 128, (2, 4, 8, 16)),
        ((16, 16), (16, 16), 5000, (2, 4, 8)),
        ((28, 28), (32, 16), 128, (2, 4, 8, 16)),
    ]:
        inputs, outputs = math.prod(ins), math.prod(outs)
        for rank in ranks:
            shape = TTShape(ins, outs, (1, *(rank,) * (len(ins) - 1), 1))
            plan = plans.choose_plan(shape, batch, "auto", 4, True, TYPICAL)
            whole = plan.memory + 4 * (2 * shape.n_weights + batch * (inputs + outputs))
            assert whole <= 1.1 * 4 * (2 * inputs * outputs + batch * (inputs + outputs)), (shape, plan)


def test_operations_are_those_of_the_closed_form() -> None:
    """b i o_k r_(k-1) r_k multiplications a core for equal factors; three times that with the gradient."""
    shape, batch = TTShape((16,) * 3, (16,) * 3, (1, 4, 4, 1)), 128
    forward = 2 * batch * 4096 * 16 * (4 + 16 + 4)
    for gradient in (False, True):
        walks = [
            plan
            for plan in plans.list_plans(shape, batch, 4, gradient, TYPICAL)
            if plan.name in ("left", "right") and plan.groups == (1, 1, 1) and plan.keep == gradient
        ]
        assert walks
        assert {plan.flops for plan in walks} == {forward * (3 if gradient else 1)}


def test_plans_are_listed_by_time_and_printed() -> None:
    found = tt_plans(TTShape((4, 4, 4), (4, 4, 4), (1, 3, 3, 1)), 50)
    seconds = [plan.seconds for plan in found]
    assert seconds == sorted(seconds)
    assert {plan.name for plan in found} == set(PLANS) - {"auto"}
    assert {plan.groups for plan in found if plan.name == "left"} == {(1, 1, 1), (1, 2), (2, 1)}
    assert "MFLOP" in str(found[0])


def test_a_plan_that_needs_two_cores_falls_back_to_one_product() -> None:
    for name in ("left", "right", "slices", "middle", "path"):
        assert plans.choose_plan(TTShape((4,), (6,), (1, 1)), 5, name, 4, True, TYPICAL).name == "dense"


def test_planning_a_huge_matrix_is_quick() -> None:
    shape = TTShape((10,) * 6, (10,) * 6, (1, 2, 2, 2, 2, 2, 1))
    found = plans.list_plans(shape, 4, 4, True, TYPICAL)
    assert found[0].memory < 1e9
    assert len(found) < 1000


def test_rates_grow_with_the_work() -> None:
    found = Rates(1e11, 8.0, 1e10, 0.0, 1e-8, 1e-6)
    assert found.product(1, 512, 512, 512, 4) == pytest.approx(1e-6 + 2 * 512**3 * (1 + 8 / 512) / 1e11)
    assert found.product(8, 4, 4, 4, 4) > 8e-8
    assert found.copy(1000, 8) == pytest.approx(1e-6 + 1.6e-6)
    assert costs.merged(TTShape((2, 3, 5), (7, 2, 2), (1, 4, 6, 1)), (3,)).ranks == (1, 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"plan": "lefft"}, "unknown plan 'lefft'; did you mean 'left'"),
        ({"x": torch.ones(2, 13)}, r"expected inputs \[b, 12\] or fewer, got \[2, 13\]"),
        ({"out_features": 13}, "out_features must lie in 1 to 12, got 13"),
        ({"out_features": 0}, "out_features must lie in 1 to 12, got 0"),
        ({"bias": torch.ones(5)}, r"expected a bias of 12 numbers, got \[5\]"),
        (
            {"x": torch.ones(2, 12, dtype=torch.float64)},
            "inputs are torch.float64 on cpu, a core or the bias torch.float32",
        ),
        ({"cores": [torch.ones(1, 3, 4)]}, r"core 0 must be a tensor of shape \(l, o, i, r\)"),
        ({"cores": [torch.ones(1, 3, 4, 2), torch.ones(3, 4, 3, 1)]}, "core 1 has left rank 3, expected 2"),
        ({"cores": [torch.ones(2, 3, 4, 1)]}, "the outer ranks must be 1, got 2 and 1"),
        ({"cores": []}, "expected as many input as output factors"),
        ({"x": torch.ones(12)}, r"expected inputs \[b, 12\], got \[12\]"),
        ({"bias": torch.ones(12, dtype=torch.float64)}, "a core or the bias torch.float64"),
    ],
)
def test_bad_input(change: dict[str, object], text: str, unchecked: None) -> None:
    arguments = {"x": torch.ones(2, 12), "cores": [torch.ones(1, 3, 4, 2), torch.ones(2, 4, 3, 1)], **change}
    with pytest.raises(InputError, match=text):
        tt_linear(**arguments)  # type: ignore[arg-type]


def test_bad_shapes() -> None:
    with pytest.raises(InputError, match="one rank more"):
        TTShape((2, 2), (2,), (1, 1))
    with pytest.raises(InputError, match=r"every entry of ins must be .* got 0"):
        TTShape((2, 0), (2, 2), (1, 1, 1))
    with pytest.raises(InputError, match=r"every entry of ins must be a whole number, at least 1, got 2\.0"):
        TTShape((2.0, 2), (2, 2), (1, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="batch must be a whole number, at least 1, got 0"):
        tt_plans(TTShape((2, 2), (2, 2), (1, 1, 1)), 0)
    assert hash(TTShape([2, 2], [2, 2], [1, 1, 1])) == hash(TTShape((2, 2), (2, 2), (1, 1, 1)))  # type: ignore[arg-type]
