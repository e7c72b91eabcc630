"""How a local problem is solved: Newton by conjugate gradients, nonlinear ones, L-BFGS, least squares.

The last one with the ridge of the options, or with the one of largest evidence.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.mps.linalg import robust_svd
from tnml.training.dmrg.evidence import evidence
from tnml.training.dmrg.local import Objective

Solver = Callable[[Objective, int], tuple[Tensor, Tensor]]

_HALVINGS = 12
_RELATIVE_RIDGE = 1e-10  # of the largest squared singular value: what "least norm" means in rounded numbers
_LARGEST = 2e8  # entries of the matrix of a least squares problem: 1.6 GB in double precision


def newton_cg(objective: Objective, iterations: int) -> tuple[Tensor, Tensor]:
    """The local tensor after one Newton step, and its outputs.

    The step solves H x = -g by at most `iterations` steps of conjugate gradients, which for a convex loss
    also regularise: directions of large curvature come first. It is halved until the objective falls.

    Cost: 2 + iterations applications of the map and as many of its adjoint.

    Source: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.1.
    """
    start = objective.start
    outputs = objective.outputs(start)
    residual = objective.gradient(outputs, start).neg_()
    step, moved = torch.zeros_like(start), torch.zeros_like(outputs)
    direction = residual.clone()
    norm = residual.square().sum()
    first = norm.item()
    for _ in range(iterations):
        if not norm.item() > 1e-20 * first or first == 0:
            break
        ahead = objective.outputs(direction)
        bent = objective.curvature(outputs, ahead, direction)
        curvature = (direction * bent).sum()
        if not curvature.item() > 0:
            break
        length = norm / curvature
        step.addcmul_(direction, length)
        moved.addcmul_(ahead, length)
        residual = residual - length * bent
        norm, before = residual.square().sum(), norm
        direction = residual + (norm / before) * direction
    return _shortened(objective, outputs, step, moved, 1.0)


def nonlinear_cg(objective: Objective, iterations: int) -> tuple[Tensor, Tensor]:
    """The local tensor after `iterations` steps of Polak-Ribière conjugate gradients, and its outputs.

    The length of a step is that of Newton along the line, halved until the objective falls. For least
    squares these are the steps of the linear method.

    Cost: each iteration one application of the map to the direction, and two of its adjoint.

    Source: Nocedal and Wright, Numerical Optimization (2006), section 5.2.
    """
    tensor, outputs = objective.start, objective.outputs(objective.start)
    gradient = objective.gradient(outputs, tensor)
    direction = -gradient
    for _ in range(iterations):
        slope = (gradient * direction).sum().item()
        if not slope < 0:
            direction = -gradient
            slope = -gradient.square().sum().item()
            if slope == 0:
                break
        ahead = objective.outputs(direction)
        curvature = (direction * objective.curvature(outputs, ahead, direction)).sum().item()
        length = -slope / curvature if curvature > 0 else 1.0
        tensor, outputs = _shortened(objective, outputs, direction, ahead, length, tensor)
        before, gradient = gradient, objective.gradient(outputs, tensor)
        beta = (gradient * (gradient - before)).sum() / before.square().sum().clamp_min(1e-38)
        direction = beta.clamp_min(0) * direction - gradient
    return tensor, outputs


def lbfgs(objective: Objective, iterations: int) -> tuple[Tensor, Tensor]:
    """The local tensor after `iterations` steps of `torch.optim.LBFGS`, and its outputs."""
    tensor = objective.start.clone().requires_grad_()
    # Its own limits are absolute ones: they would end the training where losses are small.
    optimizer = torch.optim.LBFGS(
        [tensor],
        max_iter=iterations,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        with torch.no_grad():
            outputs = objective.outputs(tensor)
            tensor.grad = objective.gradient(outputs, tensor)
            return torch.tensor(objective.at(outputs, tensor), dtype=torch.float64)

    optimizer.step(closure)
    found = tensor.detach()
    return found, objective.outputs(found)


def least_squares(objective: Objective, iterations: int) -> tuple[Tensor, Tensor]:
    """The exact minimum of the mean squared error plus the ridge, of least norm where there are many.

    Computed in double precision by the SVD of `BondOutputs.matrix`.

    Raises:
        InputError: that matrix has more than 2e8 entries.

    Cost: b p q min(b, p q) times a constant of about ten.

    Source: alternating least squares for tensor trains: Holtz, Rohwedder and Schneider, SIAM J. Sci.
    Comput. 34 (2012).
    """
    matrix, wanted = _system(objective)
    u, s, vh = robust_svd(matrix)
    ridge = 0.5 * objective.ridge * wanted.numel() + _RELATIVE_RIDGE * s[0].square()
    damped = s / (s.square() + ridge).clamp_min(torch.finfo(torch.float64).tiny)
    return _solved(objective, vh.T @ (damped.unsqueeze(1) * (u.T @ wanted)))


def most_evident(objective: Objective, iterations: int) -> tuple[Tensor, Tensor]:
    """The mean of the posterior under the ridge of largest evidence, for each target by itself.

    The objective's own ridge is not used. See `tnml.training.dmrg.evidence`.

    Raises:
        InputError: the matrix of the problem has more than 2e8 entries.
    """
    matrix, wanted = _system(objective)
    count = objective.observations * len(wanted)
    return _solved(objective, evidence(matrix, wanted, count).mean)


def _system(objective: Objective) -> tuple[Tensor, Tensor]:
    """A linear problem as its matrix `[b, p q]` and its right sides `[b, c]`, in double precision."""
    p, c, q = objective.start.shape
    targets = objective.targets
    rows = targets.numel() // c
    if rows * p * q > _LARGEST:
        raise InputError(
            f"least squares would need a matrix of {rows} x {p * q} entries, more than {_LARGEST:.0e}; "
            "lower max_bond or batch_size, or choose solver='newton-cg' with more iterations"
        )
    matrix, wanted = objective.outputs.matrix(), targets.double().reshape(rows, c)
    if objective.weight is not None:
        root = objective.weight.double().sqrt().repeat_interleave(rows // len(targets)).unsqueeze(1)
        matrix, wanted = matrix * root, wanted * root
    return matrix, wanted


def _solved(objective: Objective, solution: Tensor) -> tuple[Tensor, Tensor]:
    """A solution `[p q, c]` as a local tensor, and its outputs."""
    p, c, q = objective.start.shape
    tensor = solution.view(p, q, c).transpose(1, 2).to(objective.start.dtype).contiguous()
    return tensor, objective.outputs(tensor)


SOLVE: dict[str, Solver] = {
    "newton-cg": newton_cg,
    "cg": nonlinear_cg,
    "lbfgs": lbfgs,
    "als": least_squares,
    "evidence": most_evident,
}


def _shortened(
    objective: Objective,
    outputs: Tensor,
    step: Tensor,
    moved: Tensor,
    length: float,
    tensor: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The tensor moved by `length` times `step`, halved until the objective is not above where it was."""
    tensor = objective.start if tensor is None else tensor
    before = objective.at(outputs, tensor)
    for _ in range(_HALVINGS):
        trial, there = tensor.add(step, alpha=length), outputs.add(moved, alpha=length)
        if objective.at(there, trial) <= before:
            return trial, there
        length /= 2
    return tensor, outputs
