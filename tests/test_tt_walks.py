"""The hand-written adjoints of walks and slices in every variant, and what they keep in memory."""

import itertools

import pytest
import torch
from forks import complete
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tnml.contraction import PLANS, TTShape, tt_linear, tt_matrix
from tnml.contraction.tt.core_by_core import Walk, step_matrices, walk_steps
from tnml.contraction.tt.plans import choose_plan, list_plans
from tnml.contraction.tt.rates import TYPICAL, rates_of
from tnml.contraction.tt.slices import Slices, halves

SHAPE = TTShape((2, 3, 4), (3, 2, 5), (1, 4, 3, 1))


def cores_of(shape: TTShape) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    sizes = zip(shape.ranks, shape.outs, shape.ins, shape.ranks[1:], strict=False)
    return [torch.randn(size, dtype=torch.float64, generator=generator, requires_grad=True) for size in sizes]


def inputs(batch: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(batch, size, dtype=torch.float64, generator=generator, requires_grad=True)


def agree(found: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("left", "keep", "chunk"), list(itertools.product([True, False], [True, False], [1, 3, 7, 50]))
)
@pytest.mark.parametrize("frozen", [None, 0, 1, 2, 3])
def test_walk(left: bool, keep: bool, chunk: int, frozen: int | None) -> None:
    x, cores = inputs(7, SHAPE.in_size), cores_of(SHAPE)
    if frozen is not None:
        [x, *cores][frozen].requires_grad_(False)
    rest = [c for *_, c in walk_steps(SHAPE, left=left)]
    trained = [t for t in (x, *cores) if t.requires_grad]
    y = Walk.apply(x, chunk, keep, rest, *step_matrices(cores, left=left))
    expected = x @ tt_matrix(cores).t()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(y)
    agree(torch.autograd.grad(y, trained, weight), torch.autograd.grad(expected, trained, weight))


@pytest.mark.parametrize(
    ("first", "keep", "block"), list(itertools.product([1, 2], [True, False], [1, 2, 3, 50]))
)
@pytest.mark.parametrize("frozen", [None, 0, 1, 3])
def test_slices(first: int, keep: bool, block: int, frozen: int | None) -> None:
    x, cores = inputs(7, SHAPE.in_size), cores_of(SHAPE)
    if frozen is not None:
        [x, *cores][frozen].requires_grad_(False)
    trained = [t for t in (x, *cores) if t.requires_grad]
    y = Slices.apply(x, *halves(cores, first), block, keep)
    expected = x @ tt_matrix(cores).t()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(y)
    agree(torch.autograd.grad(y, trained, weight), torch.autograd.grad(expected, trained, weight))


@pytest.mark.parametrize("plan", PLANS)
def test_cores_that_depend_on_the_inputs(plan: str) -> None:
    """As in a network that makes the weights of another: no path of the gradient counts twice."""
    base, x = cores_of(SHAPE), inputs(4, SHAPE.in_size)

    def loss(own: bool) -> Tensor:
        cores = [core * (1 + 0.3 * x.sum()) for core in base]
        y = tt_linear(x, cores, plan=plan) if own else x @ tt_matrix(cores).t()
        return y.square().sum()

    for create_graph in (False, True):
        (found,) = torch.autograd.grad(loss(True), x, create_graph=create_graph)
        (expected,) = torch.autograd.grad(loss(False), x, create_graph=create_graph)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("plan", PLANS)
def test_empty_batches_in_every_derivative(plan: str) -> None:
    x, cores = inputs(0, SHAPE.in_size), cores_of(SHAPE)
    loss = tt_linear(x, cores, plan=plan).square().sum()
    gradients = torch.autograd.grad(loss, [x, *cores], create_graph=True)
    (second,) = torch.autograd.grad(sum(g.square().sum() for g in gradients[1:]), cores[0])
    assert gradients[0].shape == (0, SHAPE.in_size)
    assert not second.any()
    plain = [core.detach() for core in cores]
    assert torch.func.vmap(lambda row: tt_linear(row[None], plain, plan=plan)[0])(x.detach()).shape == (0, 30)


@pytest.mark.parametrize("plan", ["slices", "left", "right"])
def test_backward_twice_and_changes_in_place(plan: str) -> None:
    x, cores = inputs(5, SHAPE.in_size), cores_of(SHAPE)
    y = tt_linear(x, cores, plan=plan)
    first = torch.autograd.grad(y.sum(), [x, *cores], retain_graph=True)
    second = torch.autograd.grad(y.sum(), [x, *cores])
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(y.sum(), x)
    copy = x.detach().clone().requires_grad_()
    y = tt_linear(copy * 1, cores, plan=plan).relu_()  # what a plan returns is no view
    twice = copy * 2
    y = tt_linear(twice, cores, plan=plan)
    twice.mul_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_slice_of_one_output_can_be_changed_in_place() -> None:
    shape = TTShape((2, 3), (1, 6), (1, 2, 1))
    x, cores = inputs(3, 6), cores_of(shape)
    y = torch.relu_(tt_linear(x, cores, plan="slices"))
    expected = torch.relu(x @ tt_matrix(cores).t())
    assert 0 < expected.count_nonzero() < expected.numel()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    agree(torch.autograd.grad(y.sum(), [x, *cores]), torch.autograd.grad(expected.sum(), [x, *cores]))


def peak(work: object) -> int:
    """The most bytes that tensors took beyond those there were."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()  # type: ignore[operator]
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes), default=0)


@pytest.mark.parametrize("rank", [2, 8, 24])
@pytest.mark.parametrize("gradient", [False, True])
def test_memory_is_that_of_the_estimate(rank: int, gradient: bool) -> None:
    """What tensors take is at most a quarter more than the plan says, and never above the dense layer's."""
    shape, batch = TTShape((8, 8, 16), (8, 8, 16), (1, rank, rank, 1)), 32
    cores = [core.detach().float().requires_grad_() for core in cores_of(shape)]
    x = torch.randn(batch, 1024, requires_grad=True)
    plan = choose_plan(shape, batch, "auto", 4, gradient, rates_of(torch.device("cpu"), torch.float32))

    def step() -> None:
        with torch.set_grad_enabled(gradient):
            y = tt_linear(x, cores, plan=plan)
        if gradient:
            y.sum().backward()
        x.grad = None
        for core in cores:
            core.grad = None

    step()
    outside = 4 * (batch * 1024 * (1 + 2 * gradient) + shape.n_weights * gradient)
    taken = peak(step)
    assert taken <= 1.25 * plan.memory + outside, plan
    dense = 4 * ((1 + gradient) * 1024**2 + batch * 1024 * (1 + 2 * gradient))
    assert taken + 4 * shape.n_weights <= 1.1 * dense, plan


def test_nothing_is_kept_without_gradients() -> None:
    shape = TTShape((16, 16), (16, 16), (1, 16, 1))
    assert not any(
        plan.keep for plan in list_plans(shape, 64, 4, False, TYPICAL) if plan.name in ("left", "slices")
    )
    x, cores = torch.randn(64, 256), [core.detach().float() for core in cores_of(shape)]
    rest = [c for *_, c in walk_steps(shape, left=True)]
    matrices = step_matrices(cores, left=True)
    whole = peak(lambda: Walk.apply(x, 4, True, rest, *matrices))
    assert whole < 4 * 64 * 256 * (
        1 + 16 / 4
    )  # the outputs and the states of some chunks; all were 16 times x


def test_what_is_kept_can_be_moved_away() -> None:
    """Tensors kept for the backward pass pass through torch's hooks, as those of `save_on_cpu` do."""
    shape = TTShape((16, 16), (16, 16), (1, 4, 1))
    cores = [core.detach().float().requires_grad_() for core in cores_of(shape)]
    seen: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        seen.append(tensor.numel())
        return tensor

    rest, matrices = [16, 1], step_matrices(cores, left=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = Walk.apply(torch.randn(8, 256), 8, True, rest, *matrices)
    y.sum().backward()
    assert max(seen) == 8 * 256 * 4


COMPILED = """
import torch
from tnml.contraction import PLANS, tt_linear
cores = [torch.randn(1, 4, 3, 5, requires_grad=True), torch.randn(5, 2, 4, 1, requires_grad=True)]
for plan in PLANS:
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: tt_linear(x, cores, plan=plan), fullgraph=True, backend="aot_eager"
    )
    for batch in (2, 5):
        x = torch.randn(batch, 12, requires_grad=True)
        y, expected = compiled(x), tt_linear(x, cores, plan=plan)
        torch.testing.assert_close(y, expected)
        weight = torch.randn_like(y)
        for one, other in zip(
            torch.autograd.grad(y, [x, *cores], weight), torch.autograd.grad(expected, [x, *cores], weight)
        ):
            torch.testing.assert_close(one, other)
print("same")
"""


@pytest.mark.slow
def test_torch_compile_takes_every_plan_whole() -> None:
    assert complete(["-c", COMPILED]) == "same\n"
