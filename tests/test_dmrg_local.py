"""The local problem of a bond, against einsum, autograd and numpy's least squares."""

import numpy as np
import pytest
import torch
from bounds import assert_same_sums
from torch.nn.functional import cross_entropy, one_hot

from tnml.training.dmrg import local
from tnml.training.dmrg import sides as sides_module
from tnml.training.dmrg.local import BondOutputs, Objective
from tnml.training.dmrg.metric import Metric, data_metric
from tnml.training.dmrg.sides import Side
from tnml.training.dmrg.solvers import SOLVE
from tnml.training.losses import CrossEntropy, SquaredError

GIVEN_RIDGE = [name for name in SOLVE if name != "evidence"]  # it has its own: test_dmrg_evidence.py

LOSSES = {"cross-entropy": CrossEntropy(), "mse": SquaredError()}
ATOL = {"newton-cg": 1e-7, "cg": 1e-7, "als": 1e-7, "lbfgs": 1e-6}
SHAPES = [(7, 4, 3, 2), (7, 2, 3, 4), (7, 3, 1, 3), (300, 1, 2, 5), (1, 5, 2, 1)]  # b, p, c, q


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sides(b, p, q, seed=0):
    return rand(b, p, seed=seed), rand(b, q, seed=seed + 1)


def autograd_loss(name, outputs, targets):
    """Mean over the samples, by torch's own losses."""
    if name == "cross-entropy":
        return cross_entropy(outputs, targets)
    return (outputs - targets).pow(2).mean(1).mean()


def bond_outputs(left, right, *metrics):
    return BondOutputs(Side(left, None, left=True), Side(right, None, left=False), *metrics)


def targets_of(name, b, c, seed=5):
    if name == "mse":
        return rand(b, c, seed=seed)
    return rand(b, c, seed=seed).softmax(1)


def problem(name="mse", *, b=60, p=4, c=3, q=3, ridge=0.0, proximal=0.0):
    """The label leg is part of the tensor."""
    left, right = sides(b, p, q)
    objective = Objective(
        bond_outputs(left, right),
        targets_of(name, b, c),
        LOSSES[name],
        rand(p, c, q, seed=9),
        ridge,
        proximal,
    )
    return left, right, objective


def whole_objective(name, left, right, objective, tensor):
    outputs = torch.einsum("bp,pcq,bq->bc", left, tensor, right)
    away = (tensor - objective.start).pow(2).sum()
    penalty = objective.ridge * tensor.pow(2).sum() + objective.proximal * away
    return autograd_loss(name, outputs, objective.targets) + penalty / 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("chunk", [1 << 24, 1], ids=["one chunk", "chunks of 64"])
def test_outputs_and_adjoint_against_einsum(shape, chunk, monkeypatch):
    monkeypatch.setattr(local, "_CHUNK_BYTES", chunk)
    b, p, c, q = shape
    left, right = sides(b, p, q)
    tensor, weights = rand(p, c, q, seed=3), rand(b, c, seed=4)
    outputs = bond_outputs(left, right)
    assert outputs.swapped == (q > p)
    expected = np.einsum("bp,pcq,bq->bc", left, tensor, right)
    np.testing.assert_allclose(outputs(tensor), expected, rtol=1e-12, atol=1e-12)
    back = np.einsum("bp,bc,bq->pcq", left, weights, right)
    np.testing.assert_allclose(outputs.adjoint(weights), back, rtol=1e-12, atol=1e-11)
    inner = (outputs(tensor) * weights).sum(), (outputs.adjoint(weights) * tensor).sum()
    assert torch.isclose(*inner, rtol=1e-10)


# Where the label core is: part of the tensor, left of it or right of it.
PLACES = {"inside": "bp,pkq,bq->bk", "left": "bcp,pkq,bq->bc", "right": "bp,pkq,bcq->bc"}


def placed(place, b, p, c, q):
    """Sides, a tensor and weights of outputs for a label core in this place."""
    left = rand(b, c, p, seed=1) if place == "left" else rand(b, p, seed=1)
    right = rand(b, c, q, seed=2) if place == "right" else rand(b, q, seed=2)
    return left, right, rand(p, c if place == "inside" else 1, q, seed=3), rand(b, c, seed=4)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("chunk", [1 << 24, 1], ids=["one chunk", "chunks of 64"])
def test_the_label_core_may_be_elsewhere_and_coordinates_white(place, shape, white, chunk, monkeypatch):
    monkeypatch.setattr(local, "_CHUNK_BYTES", chunk)
    b, p, c, q = shape
    left, right, tensor, weights = placed(place, b, p, c, q)
    metrics, sides_used = (Metric(), Metric()), (left, right)
    if white:
        metrics = data_metric(rand(20, p, seed=6), 0.1), data_metric(rand(20, q, seed=7), 0.1)
        sides_used = left @ metrics[0].inverse, right @ metrics[1].inverse
    outputs = bond_outputs(left, right, metrics)
    legs = PLACES[place]
    expected = np.einsum(legs, sides_used[0], tensor, sides_used[1])
    np.testing.assert_allclose(outputs(tensor), expected, rtol=1e-9, atol=1e-9)
    one, two = legs.split("->")[0].split(",")[::2]
    summed = one + "," + legs.split("->")[1] + "," + two + "->pq"
    if place == "inside":
        back = np.einsum("bp,bk,bq->pkq", sides_used[0], weights, sides_used[1])
    else:
        back = np.einsum(summed, sides_used[0], weights, sides_used[1])[:, None]
    np.testing.assert_allclose(outputs.adjoint(weights), back, rtol=1e-9, atol=1e-8)
    matrix, columns = outputs.matrix().numpy(), tensor.permute(0, 2, 1).reshape(p * q, -1).numpy()
    np.testing.assert_allclose((matrix @ columns).reshape(b, c), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("chunk", [1 << 24, 1], ids=["one chunk", "chunks of 64"])
def test_sides_may_keep_the_features_of_their_site_apart(place, chunk, monkeypatch):
    """Left p = (m d), right q = (d m), as the features multiplied out say."""
    monkeypatch.setattr(local, "_CHUNK_BYTES", chunk)
    b, d, m, c = 70, 2, 3, 4
    left, right, tensor, weights = placed(place, b, m, c, m)
    tensor = rand(m * d, tensor.shape[1], d * m, seed=3)
    one, two = rand(b, d, seed=11), rand(b, d, seed=12)
    wide_left = np.einsum("b...m,bd->b...md", left, one).reshape(*left.shape[:-1], m * d)
    wide_right = np.einsum("b...m,bd->b...dm", right, two).reshape(*right.shape[:-1], d * m)
    sides = Side(left, one, left=True), Side(right, two, left=False)
    for side, wide in zip(sides, (wide_left, wide_right), strict=True):
        assert (len(side), side.width, side.has_label) == (b, m * d, wide.ndim == 3)
        np.testing.assert_allclose(side.vectors, wide, rtol=1e-12)
        np.testing.assert_allclose(torch.cat([part.vectors for part in side.split(33)]), wide, rtol=1e-12)
        assert torch.equal(side.some(), side.vectors)
    outputs, legs = BondOutputs(*sides), PLACES[place]
    expected = np.einsum(legs, wide_left, tensor, wide_right)
    np.testing.assert_allclose(outputs(tensor), expected, rtol=1e-9, atol=1e-9)
    inner = (expected * weights.numpy()).sum()
    assert (outputs.adjoint(weights) * tensor).sum().item() == pytest.approx(inner, rel=1e-9)
    columns = tensor.permute(0, 2, 1).flatten(0, 1).numpy()
    np.testing.assert_allclose((outputs.matrix().numpy() @ columns).reshape(b, c), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(5000, 3), (5000, 10, 3)], ids=str)
def test_some_samples_stand_for_all_but_none_of_the_outputs_is_left_out(shape, monkeypatch):
    monkeypatch.setattr(sides_module, "_MOST_ROWS", 2500)
    side = Side(rand(*shape), rand(5000, 2, seed=1), left=True)
    some, whole = side.some(), side.vectors
    assert some.shape[1:] == whole.shape[1:]
    assert 250 <= len(some) <= 2500
    rows = {tuple(row) for row in whole.flatten(1).tolist()}
    assert all(tuple(row) in rows for row in some.flatten(1).tolist())


def test_a_tensor_that_is_not_contiguous():
    left, right = sides(9, 3, 4)
    tensor = rand(4, 2, 3).permute(2, 1, 0)
    weights = rand(2, 9, seed=2).T
    outputs = bond_outputs(left, right)
    for found, legs, tensors, terms in (
        (outputs(tensor), "bp,pcq,bq->bc", (left, tensor, right), 3 * 4),
        (outputs.adjoint(weights), "bp,bc,bq->pcq", (left, weights, right), 9),
    ):
        magnitude = np.einsum(legs, *(t.abs() for t in tensors))
        assert_same_sums(found, np.einsum(legs, *tensors), magnitude, terms + 1)  # two products, a sum


@pytest.mark.parametrize("name", LOSSES)
def test_losses_against_autograd(name):
    loss, b, c = LOSSES[name], 5, 4
    targets = targets_of(name, b, c)
    outputs, direction = 3 * rand(b, c, seed=1), rand(b, c, seed=2)
    for row in range(b):
        truth = targets[row : row + 1]

        def value(f, truth=truth):
            return autograd_loss(name, f.unsqueeze(0), truth)

        at = outputs[row]
        one, bent = outputs[row : row + 1], direction[row : row + 1]
        assert torch.isclose(loss.values(one, truth)[0], value(at), rtol=1e-12)
        gradient = torch.func.grad(value)(at)
        assert torch.allclose(loss.gradient(one, truth)[0], gradient, rtol=1e-10, atol=1e-12)
        hessian = torch.autograd.functional.hessian(value, at)
        assert torch.allclose(loss.curvature(one, truth, bent)[0], hessian @ bent[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 2], [1, 1]])
def test_cross_entropy_of_labels_is_torchs(labels):
    outputs, y = 40 * rand(2, 3), torch.tensor(labels)
    found = CrossEntropy().values(outputs, one_hot(y, 3).double())
    assert torch.allclose(found, cross_entropy(outputs, y, reduction="none"), rtol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("ridge", "proximal"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
def test_the_objective_and_its_derivatives_against_autograd(name, ridge, proximal):
    left, right, objective = problem(name, b=12, ridge=ridge, proximal=proximal)
    tensor, direction = rand(4, 3, 3, seed=20), rand(4, 3, 3, seed=21)

    def value(b):
        return whole_objective(name, left, right, objective, b)

    assert objective(tensor) == pytest.approx(value(tensor).item(), rel=1e-12)
    outputs = objective.outputs(tensor)
    gradient = objective.gradient(outputs, tensor)
    assert torch.allclose(gradient, torch.func.grad(value)(tensor), rtol=1e-10, atol=1e-12)
    hessian = torch.autograd.functional.hessian(value, tensor)
    bent = objective.curvature(outputs, objective.outputs(direction), direction)
    assert torch.allclose(bent, torch.tensordot(hessian, direction, 3), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "solver"), [(n, s) for n in LOSSES for s in GIVEN_RIDGE if (n, s) != ("cross-entropy", "als")]
)
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_every_solver_lowers_the_objective(name, solver, scale):
    left, right, objective = problem(name, ridge=1e-3)
    if solver != "als":
        objective.proximal = 0.1
    objective.start = objective.start * scale
    before = objective(objective.start)
    for iterations in (1, 4):
        tensor, outputs = SOLVE[solver](objective, iterations)
        assert torch.allclose(outputs, torch.einsum("bp,pcq,bq->bc", left, tensor, right), atol=1e-9 * scale)
        assert objective(tensor) < before


def design(left, right):
    """The matrix whose rows are the products of the two sides."""
    return np.einsum("bp,bq->bpq", left, right).reshape(len(left), -1)


def by_label_last(tensor):
    return tensor.permute(0, 2, 1).reshape(-1, tensor.shape[1]).numpy()


@pytest.mark.parametrize("solver", GIVEN_RIDGE)
def test_least_squares_is_numpys(solver):
    left, right, objective = problem("mse")
    tensor, _ = SOLVE[solver](objective, 200)
    expected = np.linalg.lstsq(design(left, right), objective.targets.numpy(), rcond=None)[0]
    np.testing.assert_allclose(by_label_last(tensor), expected, atol=ATOL[solver])


@pytest.mark.parametrize("solver", GIVEN_RIDGE)
def test_ridge_and_proximal_solve_the_normal_equations(solver):
    """The mean over samples and outputs gives 2 / (b c) before the products."""
    proximal = 0.0 if solver == "als" else 0.2
    left, right, objective = problem("mse", ridge=0.05, proximal=proximal)
    tensor, _ = SOLVE[solver](objective, 200)
    matrix, scale = design(left, right), 2 / objective.targets.numel()
    normal = scale * matrix.T @ matrix + (0.05 + proximal) * np.eye(matrix.shape[1])
    wanted = scale * matrix.T @ objective.targets.numpy() + proximal * by_label_last(objective.start)
    np.testing.assert_allclose(by_label_last(tensor), np.linalg.solve(normal, wanted), atol=ATOL[solver])


@pytest.mark.parametrize("place", ["left", "right"])
@pytest.mark.parametrize("solver", GIVEN_RIDGE)
def test_least_squares_with_the_label_core_elsewhere(place, solver):
    """All outputs share one tensor; with metrics the ridge is on its white coordinates."""
    b, p, c, q = 40, 4, 3, 3
    left, right, start, targets = placed(place, b, p, c, q)
    metrics = data_metric(rand(20, p, seed=6), 0.1), data_metric(rand(20, q, seed=7), 0.1)
    objective = Objective(bond_outputs(left, right, metrics), targets, LOSSES["mse"], start, 0.05, 0.0)
    tensor, _ = SOLVE[solver](objective, 200)
    one, two = PLACES[place].split("->")[0].split(",")[::2]
    white = np.einsum(f"{one},{two}->bcpq", left @ metrics[0].inverse, right @ metrics[1].inverse)
    matrix, scale = white.reshape(b * c, p * q), 2 / (b * c)
    normal = scale * matrix.T @ matrix + 0.05 * np.eye(p * q)
    expected = np.linalg.solve(normal, scale * matrix.T @ targets.numpy().ravel())
    np.testing.assert_allclose(tensor.flatten(), expected, atol=ATOL[solver])


@pytest.mark.parametrize("rank", [5, 12])
def test_als_takes_the_least_norm_where_there_are_many(rank):
    """Fewer samples than unknowns, or samples that repeat."""
    left, right, objective = problem("mse", b=rank)
    if rank == 5:
        left, right = left.repeat(8, 1), right.repeat(8, 1)
        objective.outputs, objective.targets = bond_outputs(left, right), objective.targets.repeat(8, 1)
    tensor, _ = SOLVE["als"](objective, 1)
    expected = np.linalg.pinv(design(left, right), rcond=1e-10) @ objective.targets.numpy()
    np.testing.assert_allclose(by_label_last(tensor), expected, rtol=1e-4, atol=1e-5)


def test_als_in_single_precision_is_solved_in_double():
    left, right, objective = problem("mse")
    expected, _ = SOLVE["als"](objective, 1)
    objective.outputs = bond_outputs(left.float(), right.float())
    objective.targets, objective.start = objective.targets.float(), objective.start.float()
    found, outputs = SOLVE["als"](objective, 1)
    assert (found.dtype, outputs.dtype) == (torch.float32, torch.float32)
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_newton_reaches_the_minimum_of_cross_entropy():
    """Repeated steps end where autograd says that the gradient vanishes."""
    left, right, objective = problem("cross-entropy", ridge=0.02)
    for _ in range(30):
        objective.start, _ = SOLVE["newton-cg"](objective, 30)
    gradient = torch.func.grad(lambda b: whole_objective("cross-entropy", left, right, objective, b))
    assert gradient(objective.start).abs().max() < 1e-8


@pytest.mark.parametrize("solver", SOLVE)
def test_nothing_to_do_changes_nothing(solver):
    """Targets that are met already, with an all-zero tensor among them."""
    left, right, objective = problem("mse")
    for start in (objective.start, torch.zeros_like(objective.start)):
        objective.start = start
        objective.targets = torch.einsum("bp,pcq,bq->bc", left, start, right)
        tensor, outputs = SOLVE[solver](objective, 5)
        assert torch.allclose(tensor, start, atol=1e-6)
        assert torch.isfinite(outputs).all()
