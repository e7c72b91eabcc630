"""The extremes of the Hessian, how they grow as batches shrink, and learning rates that follow.

Source: Granziol, Zohren and Roberts, Learning rates as a function of batch size: a random matrix theory
approach to neural network training, JMLR 23 (2022), arXiv 2006.09092. The law of batches was checked
numerically; that Adam's rate grows with the square root is theirs, and unchecked.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tnml.checks import entries, number, whole
from tnml.diagnostics.isolation import device_beside, undisturbed
from tnml.errors import InputError, choose
from tnml.randomness import seeded

LossOf = Callable[[Tensor, Tensor], Tensor]
KINDS = ("hessian", "ggn")
RULES = ("linear", "sqrt", "rmt")


@dataclass(frozen=True, kw_only=True)
class HessianExtremes:
    """What Lanczos iterations tell of a Hessian's spectrum.

    Attributes:
        largest: largest eigenvalue found.
        smallest: smallest one.
        ritz: `[m]` Ritz values, ascending.
        weights: `[m]` their shares in the density of eigenvalues, which add up to 1.
    """

    largest: float
    smallest: float
    ritz: Tensor
    weights: Tensor


@dataclass(frozen=True, kw_only=True)
class BatchCurve:
    """The mean largest and smallest eigenvalues of batches of several sizes, and the law they follow.

    Attributes:
        sizes: samples in a batch.
        largest: mean largest eigenvalues over the batches drawn.
        smallest: mean smallest ones.
        whole: the largest eigenvalue with all samples, lambda.
        slope: c of `lambda + c (1 / B - 1 / N)`, by least squares.
    """

    sizes: tuple[int, ...]
    largest: tuple[float, ...]
    smallest: tuple[float, ...]
    whole: float
    slope: float

    def at(self, size: float, samples: int) -> float:
        """The largest eigenvalue that the law gives for batches of `size` among `samples`."""
        return self.whole + self.slope * (1 / size - 1 / samples)


def hessian_extremes(
    model: nn.Module,
    loss: LossOf,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 30,
    kind: str = "hessian",
    seed: int = 0,
) -> HessianExtremes:
    """The extreme eigenvalues of the Hessian of the mean loss with respect to all trainable parameters.

    Lanczos iterations with full reorthogonalisation from a random vector, in double precision but for the
    model itself. The model is in eval mode and left as it was.

    Args:
        model: `[b, ...]` to outputs.
        loss: (outputs, targets) to the mean loss, such as `torch.nn.functional.cross_entropy`.
        x: `[b, ...]` inputs.
        y: their targets.
        steps: iterations; at most the number of parameters are made.
        kind: "hessian", or "ggn": the Gauss-Newton part J' H_loss J, which is never negative for a convex
            loss.
        seed: of the first vector.

    Raises:
        InputError: no parameter can be trained, or the loss is not finite.

    Cost: two backward passes a step, and the vectors of all steps in memory.

    Source: Lanczos; arXiv 2006.09092.

    Example:
        >>> line = nn.Linear(2, 1, bias=False)
        >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1)
        >>> found = hessian_extremes(line, nn.functional.mse_loss, x, y)
        >>> round(found.largest, 4), round(found.smallest, 4)
        (9.0, 1.0)
    """
    choose("kind", kind, dict.fromkeys(KINDS))
    count = whole("steps", steps, 1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise InputError("no parameter of the model can be trained: there is no Hessian")
    device = device_beside(model, x)
    with undisturbed(model), torch.inference_mode(False), torch.enable_grad():
        x, y = x.to(device, copy=True), y.to(device, copy=True)  # autograd refuses tensors of inference mode
        product = _product(model, loss, x, y, parameters, kind)
        size = sum(p.numel() for p in parameters)
        diagonal, beside = _lanczos(product, size, min(count, size), seed)
    values, vectors = torch.linalg.eigh(torch.diag(diagonal) + torch.diag(beside, 1) + torch.diag(beside, -1))
    return HessianExtremes(
        largest=float(values[-1]), smallest=float(values[0]), ritz=values, weights=vectors[0].square()
    )


def batch_hessian_curve(
    model: nn.Module,
    loss: LossOf,
    x: Tensor,
    y: Tensor,
    sizes: Sequence[int],
    *,
    draws: int = 24,
    steps: int = 30,
    seed: int = 0,
) -> BatchCurve:
    """How the extreme eigenvalues of batches depend on their size.

    Args:
        model: `[b, ...]` to outputs.
        loss: (outputs, targets) to the mean loss.
        x: `[n, ...]` all samples.
        y: their targets.
        sizes: of batches, drawn with replacement.
        draws: batches of each size.
        steps: see `hessian_extremes`.
        seed: of the draws.

    Returns:
        The means, and the law fitted to them: the excess over the whole data's eigenvalue falls as 1 / B.
        Where classes hardly overlap, few samples carry the curvature and the law fails.

    Raises:
        InputError: a size or count is out of range.

    Cost: `draws` times `steps` times two backward passes for each size.

    Source: arXiv 2006.09092, theorem 1.

    Example:
        >>> x, y = torch.randn(64, 2), torch.randn(64, 1)
        >>> curve = batch_hessian_curve(nn.Linear(2, 1), nn.functional.mse_loss, x, y, [4, 16], draws=2)
        >>> len(curve.largest), curve.slope == curve.slope
        (2, True)
    """
    count = whole("draws", draws, 1)
    wanted = tuple(whole("sizes", size, 1) for size in entries(sizes) or [])
    if not wanted:
        raise InputError("sizes must hold at least one number of samples")
    generator = seeded(seed)
    means = []
    for size in wanted:
        found = []
        for _ in range(count):
            rows = torch.randint(len(x), (size,), generator=generator).to(x.device)
            found.append(hessian_extremes(model, loss, x[rows], y[rows.to(y.device)], steps=steps, seed=seed))
        means.append([sum(getattr(f, name) for f in found) / count for name in ("largest", "smallest")])
    full = hessian_extremes(model, loss, x, y, steps=steps, seed=seed).largest
    inverse = torch.tensor([1 / size - 1 / len(x) for size in wanted], dtype=torch.float64)
    excess = torch.tensor([largest - full for largest, _ in means], dtype=torch.float64)
    slope = float((inverse @ excess) / (inverse @ inverse)) if bool(inverse.any()) else 0.0
    largest, smallest = zip(*means, strict=True)
    return BatchCurve(sizes=wanted, largest=largest, smallest=smallest, whole=full, slope=slope)


def scale_lr(
    lr: float,
    b_from: int,
    b_to: int,
    rule: str = "linear",
    *,
    curve: BatchCurve | None = None,
    samples: int | None = None,
) -> float:
    """The learning rate for another batch size.

    Args:
        lr: that does well with batches of `b_from`.
        b_from: samples in a batch there.
        b_to: samples in a batch here.
        rule: "linear", for SGD with small batches; "sqrt", for Adam and its like; "rmt": by the largest
            eigenvalue of batches of either size, linear in B until it saturates, for SGD.
        curve: of "rmt": what `batch_hessian_curve` found.
        samples: of "rmt": in the training data.

    Raises:
        InputError: a number is out of range, or "rmt" comes without a curve.

    Source: arXiv 2006.09092, sections 3 and 4.

    Example:
        >>> scale_lr(0.1, 64, 256), scale_lr(0.1, 64, 256, "sqrt")
        (0.4, 0.2)
    """
    choose("rule", rule, dict.fromkeys(RULES))
    rate = number("lr", lr, above=0.0)
    before, after = whole("b_from", b_from, 1), whole("b_to", b_to, 1)
    if rule == "linear":
        return rate * after / before
    if rule == "sqrt":
        return rate * math.sqrt(after / before)
    if curve is None or samples is None:
        raise InputError("rule='rmt' needs curve=batch_hessian_curve(...) and samples=, the size of the data")
    count = whole("samples", samples, 1)
    return rate * curve.at(before, count) / curve.at(after, count)


def _product(
    model: nn.Module, loss: LossOf, x: Tensor, y: Tensor, parameters: list[nn.Parameter], kind: str
) -> Callable[[Tensor], Tensor]:
    """The product of the Hessian, or of its Gauss-Newton part, with a vector over all parameters."""
    outputs = model(x)
    if kind == "ggn":
        return _gauss_newton(outputs, lambda free: loss(free, y), parameters)
    value = loss(outputs, y)
    if not bool(torch.isfinite(value)):
        raise InputError(f"the loss is {float(value.detach())}; its Hessian says nothing")
    slopes = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
    flat = torch.cat([slope.reshape(-1) for slope in slopes])

    def product(vector: Tensor) -> Tensor:
        found = torch.autograd.grad(
            flat, parameters, vector.to(flat), retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in found]).double().cpu()

    return product


def _gauss_newton(
    outputs: Tensor, loss: Callable[[Tensor], Tensor], parameters: list[nn.Parameter]
) -> Callable[[Tensor], Tensor]:
    """`J' H J v`: J v is the derivative of J' w with respect to w."""
    w = torch.zeros_like(outputs, requires_grad=True)
    back = torch.autograd.grad(outputs, parameters, w, create_graph=True, materialize_grads=True)
    free = outputs.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(free), free, create_graph=True)
    flat = torch.cat([part.reshape(-1) for part in back])

    def product(vector: Tensor) -> Tensor:
        (ahead,) = torch.autograd.grad(flat, w, vector.to(flat), retain_graph=True)
        (bent,) = torch.autograd.grad(slope, free, ahead, retain_graph=True)
        found = torch.autograd.grad(outputs, parameters, bent, retain_graph=True, materialize_grads=True)
        return torch.cat([part.reshape(-1) for part in found]).double().cpu()

    return product


def _lanczos(product: Callable[[Tensor], Tensor], size: int, steps: int, seed: int) -> tuple[Tensor, Tensor]:
    """Diagonal `[m]` and secondary diagonal `[m - 1]` of the matrix in the Krylov space, m <= steps."""
    vector = torch.randn(size, generator=seeded(seed), dtype=torch.float64)
    basis = (vector / vector.norm()).unsqueeze(0)
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    while True:
        ahead = product(basis[-1])
        diagonal.append(ahead @ basis[-1])
        if len(diagonal) == steps:
            break
        for _ in range(2):  # twice is enough: what rounding left of the others goes with the second time
            ahead = ahead - basis.T @ (basis @ ahead)
        length = ahead.norm()
        if float(length) <= 1e-10 * max(1.0, float(torch.stack(diagonal).abs().max())):
            break  # the space is exhausted
        beside.append(length)
        basis = torch.cat([basis, (ahead / length).unsqueeze(0)])
    return torch.stack(diagonal), torch.stack(beside) if beside else torch.zeros(0, dtype=torch.float64)
