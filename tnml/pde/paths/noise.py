"""Increments of Brownian motion that depend on seed, step and path only, however many processes draw them."""

import copy
import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from tnml.checks import number, one_of, whole
from tnml.errors import InputError
from tnml.randomness import Stream, generator

_BLOCK = 16  # paths drawn from one generator; even, so that a pair of antithetic paths is in one block
_METHODS = ("normal", "signs", "sobol")


def increments(
    m: int,
    n: int,
    d: int,
    dt: float,
    *,
    seed: int,
    step: int,
    antithetic: bool = False,
    method: str = "normal",
    first: int = 0,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "m n d"]:
    """Independent increments of mean zero and variance `dt` for `m` paths of `n` steps in `d` dimensions.

    A path's numbers depend on (seed, step, stream, its index) only: the paths 50 to 99 drawn by a second
    process are those that one process draws after the first 50. They are drawn on the CPU, so they are
    also the same for every device.

    Args:
        m: paths.
        n: steps of a path.
        d: dimensions.
        dt: variance of an increment, the length of a time step.
        seed: of the run.
        step: of the run; every step has numbers of its own.
        antithetic: the paths 2 j and 2 j + 1 are each other's negative.
        method: "normal"; "sobol": normal numbers from a randomly shifted Sobol sequence, the coarsest
            features of a path first (Brownian bridge); "signs": +-sqrt(dt), which has the moments up to the
            third of a normal number and no noise in its square.
        first: index of the first path.
        stream: separates uses that need numbers of their own at one step.
        dtype: float32 and float64 give different numbers.
        device: where the result goes.

    Raises:
        InputError: a size or `dt` is not positive, or n d is beyond the 21,201 dimensions of "sobol".

    Example:
        >>> whole = increments(40, 5, 2, 0.1, seed=0, step=3)
        >>> part = increments(20, 5, 2, 0.1, seed=0, step=3, first=20)
        >>> torch.equal(part, whole[20:])
        True
    """
    m, n, d, first = whole("m", m, 1), whole("n", n, 1), whole("d", d, 1), whole("first", first)
    number("dt", dt, above=0.0)
    one_of("method", method, _METHODS)
    if antithetic:  # path i is half path i // 2, with its sign
        low, high = first // 2, (first + m + 1) // 2
        half = _standard(high - low, n, d, seed, step, stream, method, low, dtype)
        both = torch.stack([half, -half], 1).flatten(0, 1)
        drawn = both[first - 2 * low :][:m]
    else:
        drawn = _standard(m, n, d, seed, step, stream, method, first, dtype)
    return drawn.mul(math.sqrt(dt)).to(device)


@functools.lru_cache(maxsize=32)
def sign_design(d: int) -> Float[Tensor, "k d"]:
    """Sign vectors whose moments up to the third are those of a standard normal vector of length d.

    The rows of a Hadamard matrix of the least order m, a power of two, that is at least d, cut to d columns,
    and their negatives: k = 2 m. The mean over them of a function of a small increment has no noise except in
    the fourth derivatives.

    Source: Sylvester's construction of Hadamard matrices.

    Example:
        >>> sign_design(2).tolist()
        [[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]]
    """
    rows = torch.ones(1, 1)
    while len(rows) < d:
        rows = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), rows)
    return torch.cat([rows, -rows])[:, :d].contiguous()


def _standard(
    m: int, n: int, d: int, seed: int, step: int, stream: int, method: str, first: int, dtype: torch.dtype
) -> Tensor:
    """Numbers of variance one, `[m, n, d]`."""
    if method == "sobol":
        return _sobol(m, n, d, seed, step, stream, first).to(dtype)
    blocks = range(first // _BLOCK, -(-(first + m) // _BLOCK))
    drawn = torch.empty(len(blocks) * _BLOCK, n, d, dtype=dtype)
    for place, block in enumerate(blocks):
        source = generator(seed, step, block, Stream.NORMAL + 16 * stream)
        part = drawn[place * _BLOCK : (place + 1) * _BLOCK]
        if method == "normal":
            part.normal_(generator=source)
        else:
            part.random_(0, 2, generator=source).mul_(2).sub_(1)
    start = first - blocks[0] * _BLOCK
    return drawn[start : start + m]


def _sobol(m: int, n: int, d: int, seed: int, step: int, stream: int, first: int) -> Tensor:
    if n * d > torch.quasirandom.SobolEngine.MAXDIM:
        raise InputError(
            f"method='sobol' reaches {torch.quasirandom.SobolEngine.MAXDIM} dimensions, steps x dimensions "
            f"is {n * d}; use method='normal' or fewer steps"
        )
    engine = copy.copy(_sobol_engine(n * d))
    engine.quasi = engine.quasi.clone()  # drawing changes this state
    points = (
        engine.fast_forward(first).draw(m, dtype=torch.float64)
        if first
        else engine.draw(m, dtype=torch.float64)
    )
    source = generator(seed, step, 0, Stream.SOBOL + 16 * stream)
    shift = torch.rand(n * d, dtype=torch.float64, generator=source)
    uniform = ((points + shift) % 1.0).clamp(1e-15, 1 - 1e-15)
    return torch.einsum("kn,mkd->mnd", bridge(n), torch.special.ndtri(uniform).view(m, n, d))


@functools.lru_cache(maxsize=8)
def _sobol_engine(dimensions: int) -> torch.quasirandom.SobolEngine:
    """An engine before its first point. Draw from copies only, so that no two threads share one."""
    return torch.quasirandom.SobolEngine(dimensions)


@functools.lru_cache(maxsize=32)
def bridge(n: int) -> Float[Tensor, "n n"]:
    """The orthogonal matrix of a Brownian bridge over `n` equal steps, one feature of the path per row.

    Normal numbers z become increments z @ matrix. The first row is the path's end, the next ones how it
    deviates at the middle, at the middles of the halves, and so on.

    Source: Caflisch, Morokoff, Owen, J. Comput. Finance 1 (1997) 27; as an orthogonal matrix, our own form.

    Example:
        >>> bridge(2)
        tensor([[ 0.7071,  0.7071],
                [ 0.7071, -0.7071]], dtype=torch.float64)
    """
    rows = [torch.full((n,), n**-0.5, dtype=torch.float64)]
    level = [(0, n)]
    while level:
        below = []
        for low, high in level:
            if high - low < 2:
                continue
            middle = (low + high) // 2
            a, b = middle - low, high - middle
            row = torch.zeros(n, dtype=torch.float64)
            row[low:middle] = (b / (a * (a + b))) ** 0.5
            row[middle:high] = -((a / (b * (a + b))) ** 0.5)
            rows.append(row)
            below += [(low, middle), (middle, high)]
        level = below
    return torch.stack(rows)
