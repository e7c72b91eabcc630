"""Losses of parabolic equations step by step: one call and one gradient per time step; nothing of tnml.

`u` maps t [m, 1] and x [m, d] to [m, 1]. `equation` has the functions mu(t, x, y, z), sigma(t, x, v),
phi(t, x, y, z), g(x) and the number horizon. Everything is done in the order in which the papers write it.
"""

import math

import torch


def value_and_gradient(u, t, x):
    """Y and Z at one time, Z with its graph."""
    if not x.requires_grad:
        x = x.clone().requires_grad_()
    y = u(t, x)
    (z,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    return y, z


def terminal_gradient(g, x):
    x = x if x.requires_grad else x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(g(x).sum(), x, create_graph=True)
    return gradient


def euler_loss(u, equation, dw, x0, *, path=None, soft=True, inside=lambda x: x):
    """The sum over paths of the squared residuals of Euler steps, and of the terms at T if `soft`.

    `path [m, n + 1, d]` says where the paths go if their steps are not Euler's; u, phi and g are asked at
    `inside` of a state.
    """
    m, n, _ = dw.shape
    dt = equation.horizon / n
    x = x0.expand(m, -1)
    total = 0.0
    for k in range(n):
        t = torch.full((m, 1), k * dt, dtype=dw.dtype)
        seen = inside(x)
        y, z = value_and_gradient(u, t, seen)
        noise = equation.sigma(t, x, dw[:, k])
        phi = equation.phi(t, seen, y, z)
        step = equation.mu(t, x, y, z) * dt + noise
        x = x + step if path is None else path[:, k + 1]
        last_t = torch.full((m, 1), (k + 1) * dt if k + 1 < n else equation.horizon, dtype=dw.dtype)
        following = u(last_t, inside(x))
        for j in range(m):
            total = total + (following[j] - y[j] - phi[j] * dt - z[j] @ noise[j]).square().sum()
    if soft:
        x = inside(x)
        y, z = value_and_gradient(u, last_t, x)
        total = total + (y - equation.g(x)).square().sum()
        total = total + (z - terminal_gradient(equation.g, x)).square().sum()
    return total


def two_group_loss(u, equation, path, fresh, *, relative=False, groups=2, ahead=1.0, typical=0.0):
    """The mean over all points of R_1 R_2 / h^2, h = ahead dt; `fresh [m, n, groups k, d]` of all groups.

    Relative ones are divided by |u|, at least a thousandth of its mean along the path and of `typical`.
    """
    m, n, count, _ = fresh.shape
    dt, h = equation.horizon / n, ahead * equation.horizon / n
    total = 0.0
    with torch.no_grad():
        sizes = [u(torch.full((m, 1), k * dt, dtype=path.dtype), path[:, k]).abs() for k in range(n)]
        least = 1e-3 * torch.maximum(sum(sizes) / n, torch.tensor(float(typical), dtype=path.dtype))
    for k in range(n):
        t = torch.full((m, 1), k * dt, dtype=path.dtype)
        later = torch.full((m, 1), k * dt + h, dtype=path.dtype)
        x = path[:, k]
        y, z = value_and_gradient(u, t, x)
        phi = equation.phi(t, x, y, z)
        means = []
        for members in torch.arange(count).chunk(groups):
            residual = 0.0
            for j in members:
                noise = equation.sigma(t, x, fresh[:, k, j] * math.sqrt(ahead))
                there = x + equation.mu(t, x, y, z) * h + noise
                residual = residual + u(later, there) - y - phi * h - (z * noise).sum(1, keepdim=True)
            means.append(residual / len(members) / (torch.maximum(sizes[k], least) if relative else 1.0))
        total = total + (means[0] * means[-1]).sum()
    return total / (m * n * h**2)


def deep_bsde_loss(y0, gradient_at, equation, dw, path):
    """The sum over paths of |Y_N - g(X_N)|^2, Y stepped forward with `gradient_at(k, x) [m, d]`."""
    m, n, _ = dw.shape
    dt = equation.horizon / n
    y = y0.expand(m, 1)
    for k in range(n):
        t, x = torch.full((m, 1), k * dt, dtype=dw.dtype), path[:, k]
        z = gradient_at(k, x)
        y = y + equation.phi(t, x, y, z) * dt + (z * equation.sigma(t, x, dw[:, k])).sum(1, keepdim=True)
    return (y - equation.g(path[:, -1])).square().sum()


def brownian_bridge(z):
    """Brownian motion at 1, .., n from normal numbers z, by halving: each midpoint given its neighbours."""
    n = len(z)
    w = {0: 0.0, n: math.sqrt(n) * float(z[0])}
    level, used = [(0, n)], 1
    while level:
        below = []
        for low, high in level:
            if high - low < 2:
                continue
            middle = (low + high) // 2
            a, b = middle - low, high - middle
            mean = (b * w[low] + a * w[high]) / (a + b)
            w[middle] = mean + math.sqrt(a * b / (a + b)) * float(z[used])
            used += 1
            below += [(low, middle), (middle, high)]
        level = below
    return [w[k] for k in range(n + 1)]
