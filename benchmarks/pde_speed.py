"""The Euler loss in one network call against the sequential form of FBSNN, and cost against d and N.

The sequential form is reimplemented here: N + 1 network calls one after the other, each followed by a
gradient with respect to x, as in Raissi's program. The losses and gradients of both are compared first.
"""

import gc
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import peak_resident, reset_peak, resident, summary
from tnml.nn import TNN
from tnml.pde import (
    Ansatz,
    BlackScholesBarenblatt,
    EulerLoss,
    HamiltonJacobiBellman,
    Problem,
    SolveOptions,
    euler_maruyama,
    increments,
    preset,
)
from tnml.pde.losses.named import loss_of
from tnml.pde.training_paths import LossOnPaths

MAKERS = {"bsb": BlackScholesBarenblatt, "hjb": HamiltonJacobiBellman}


def sequential_loss(u: Ansatz, problem: Problem, dw: Tensor, *, published: bool = False) -> Tensor:
    """FBSNN's loss as a sum over paths, step by step with Euler's paths.

    With `published` as the published programs have it: sigma is a matrix for every path (of problems whose
    sigma is diagonal), and the graph goes through the whole path.
    """
    m, n, d = dw.shape
    dt = problem.horizon / n

    def net(k: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.full((m, 1), k * dt, dtype=dw.dtype)
        y = u(t, x)
        (z,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return t, y, z

    x = problem.start(dw.dtype).expand(m, d).clone().requires_grad_()
    t, y, z = net(0, x)
    loss = dw.new_zeros(())
    for k in range(n):
        if published:
            matrix = torch.diag_embed(problem.sigma(t, x, torch.ones_like(x)))
            noise = (matrix @ dw[:, k, :, None])[:, :, 0]
        else:
            noise = problem.sigma(t, x, dw[:, k])
        predicted = y + problem.phi(t, x, y, z) * dt + (z * noise).sum(1, keepdim=True)
        x = x + problem.mu(t, x) * dt + noise
        if not published:
            x = x.detach().requires_grad_()
        t, y, z = net(k + 1, x)
        loss = loss + (y - predicted).square().sum()
    miss = (y - problem.g(x)).square().sum()
    return loss + miss + (z - problem.g_gradient(x)).square().sum()


def speed(*, smoke: bool, turns: int) -> dict[str, Any]:
    """Seconds of one loss with its gradient in both forms, in turns, and memory at M and 2 M."""
    dim, m, n, width = (5, 8, 4, 16) if smoke else (100, 100, 50, 256)
    rows = []
    for name, make in MAKERS.items():
        problem = make(dim)
        torch.manual_seed(0)
        network = TNN([dim + 1, *[width] * 4, 1], rank=None, activation="sin")
        u = Ansatz(network, problem, "soft", scaling="none")
        loss = EulerLoss(reduction="sum")

        def noise(paths: int, step: int = 0, problem: Problem = problem) -> Tensor:
            return increments(paths, n, problem.dim, problem.horizon / n, seed=0, step=step)

        def one_call(dw: Tensor, u: Ansatz = u, problem: Problem = problem, loss: EulerLoss = loss) -> Tensor:
            return loss(u, problem, euler_maruyama(problem, dw, steps="euler"))

        def stepped(dw: Tensor, u: Ansatz = u, problem: Problem = problem) -> Tensor:
            return sequential_loss(u, problem, dw)

        def as_published(dw: Tensor, u: Ansatz = u, problem: Problem = problem) -> Tensor:
            return sequential_loss(u, problem, dw, published=True)

        forms = {"one call": one_call, "sequential": stepped, "as published": as_published}
        values, gradients = {}, {}
        for form, call in forms.items():
            values[form], gradients[form] = _with_gradient(call, noise(m), u)
        first = "one call"
        off = max(abs(values[form] / values[first] - 1) for form in forms)
        gradient_off = max(
            float((gradients[form] - gradients[first]).norm() / gradients[first].norm()) for form in forms
        )
        times: dict[str, list[float]] = {form: [] for form in forms}
        products: list[float] = []
        for turn in range(turns):
            products.append(_products(m * (n + 1), [dim + 1, *[width] * 4, 1]))
            for form, call in forms.items():
                dw = noise(m, turn)
                begin = time.perf_counter()
                _with_gradient(call, dw, u)
                times[form].append(time.perf_counter() - begin)
        memory = {form: [_memory(call, noise(k * m), u) for k in (1, 2)] for form, call in forms.items()}
        medians = {form: summary(times[form])["median"] for form in forms}
        rows.append(
            {
                "problem": name,
                "dim": dim,
                "paths": m,
                "time_steps": n,
                "loss_off": off,
                "gradient_off": gradient_off,
                "seconds": {form: summary(times[form]) for form in forms},
                "products": summary(products),
                "times_faster_at_most": medians["as published"] / summary(products)["median"],
                "times_faster": medians["sequential"] / medians["one call"],
                "times_faster_than_published": medians["as published"] / medians["one call"],
                "bytes": memory,
            }
        )
    return {"rows": rows}


def _products(points: int, widths: list[int]) -> float:
    """Seconds of the matrix products that every form has to do, in the shapes of one call.

    Value and slope go through each layer forward, and both go back, to inputs and to weights: six products.
    """
    pairs = [(torch.rand(points, i), torch.rand(i, o)) for i, o in itertools.pairwise(widths)]
    begin = time.perf_counter()
    for _ in range(6):
        for x, weight in pairs:
            torch.mm(x, weight)
    return time.perf_counter() - begin


def cost(*, smoke: bool, turns: int) -> dict[str, Any]:
    """Seconds per iteration of the default recipe against d and against N."""
    dims = (5, 10) if smoke else (10, 50, 100, 250, 500)
    steps = (4, 8) if smoke else (10, 25, 50, 100, 200)
    changes = {"width": 8, "paths": 4} if smoke else {}
    rows = []
    for name, make in MAKERS.items():
        for what, size in [*(("d", d) for d in dims), *(("N", n) for n in steps)]:
            problem = make(size if what == "d" else dims[len(dims) // 2])
            n = size if what == "N" else (4 if smoke else 50)
            options = preset(problem, time_steps=n, device="cpu", **changes).settled(problem)
            rows.append({"problem": name, "what": what, "size": size, **_iteration(problem, options, turns)})
    return {"rows": rows}


def _iteration(problem: Problem, options: SolveOptions, turns: int) -> dict[str, Any]:
    """Seconds and memory of an iteration: paths, loss, gradient."""
    on_paths = LossOnPaths(problem, options, loss_of(options, problem.dim))
    torch.manual_seed(0)
    model = options.make_model(problem)
    index = torch.arange(options.paths)

    def once(number: int) -> None:
        model.zero_grad()
        on_paths(model, index, torch.full_like(index, number)).backward()

    once(0)
    reset_peak()
    before = resident()
    times = []
    for turn in range(turns):
        begin = time.perf_counter()
        once(turn)
        times.append(time.perf_counter() - begin)
    return {"seconds": summary(times), "bytes": max(0, peak_resident() - before)}


def _with_gradient(call: Callable[[Tensor], Tensor], dw: Tensor, u: nn.Module) -> tuple[float, Tensor]:
    u.zero_grad()
    value = call(dw)
    value.backward()
    found = [p.grad.reshape(-1) for p in u.parameters() if p.grad is not None]
    return value.item(), torch.cat(found)


def _memory(call: Callable[[Tensor], Tensor], dw: Tensor, u: nn.Module) -> int:
    """Most bytes beyond what was there before, over one loss with its gradient."""
    gc.collect()
    reset_peak()
    before = resident()
    _with_gradient(call, dw, u)
    return max(0, peak_resident() - before)
