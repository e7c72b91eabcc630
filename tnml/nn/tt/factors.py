"""How the sizes of a matrix factor over the cores of a tensor train, and which ranks they allow."""

import functools
import math
from collections.abc import Iterator, Sequence

from tnml.checks import entries, is_whole, whole
from tnml.contraction import TTShape
from tnml.errors import InputError

MOST_CORES = 6
_TWO_CORES = 1024  # up to this size two cores, above it three
_UNEQUAL = 1.25  # factors may add up to this much more than equal ones


def matrix_shape(
    in_features: int,
    out_features: int,
    rank: int | Sequence[int],
    n_cores: int | None = None,
    in_factors: Sequence[int] | None = None,
    out_factors: Sequence[int] | None = None,
    *,
    names: tuple[str, str, str, str] = ("in_features", "out_features", "in_factors", "out_factors"),
) -> TTShape:
    """The sizes of the cores of a matrix `[out_features, in_features]`; what is not given is chosen.

    Chosen factors of the inputs ascend and those of the outputs descend: the largest of one meets the
    smallest of the other, which makes the fewest weights.

    Args:
        in_features: columns of the matrix.
        out_features: rows of the matrix.
        rank: largest rank, or one for each place between two cores (with or without the outer 1s).
        n_cores: 1 to 6; None takes as many as there are factors given, else 2 where both sizes are at most
            1024, else 3.
        in_factors: their product is at least `in_features`; what is more is padding.
        out_factors: the same for `out_features`.
        names: how errors call the sizes and factors.

    Raises:
        InputError: a number is not a positive integer, or the factors or ranks do not fit.

    Example:
        >>> matrix_shape(784, 512, 8)
        TTShape(ins=(28, 28), outs=(32, 16), ranks=(1, 8, 1))
        >>> matrix_shape(6, 10, 100, in_factors=(2, 3)).ranks
        (1, 6, 1)
    """
    in_features, out_features = whole(names[0], in_features, 1), whole(names[1], out_features, 1)
    n_cores = checked_n_cores(n_cores)
    given_ins = _checked_factors(names[2], in_features, in_factors)
    given_outs = _checked_factors(names[3], out_features, out_factors)
    counts = {len(factors) for factors in (given_ins, given_outs) if factors} | ({n_cores} - {None})
    if len(counts) > 1:
        raise InputError(
            f"{names[2]}, {names[3]} and n_cores must agree on the number of cores, "
            f"got {in_factors}, {out_factors} and {n_cores}"
        )
    usual = 2 if max(in_features, out_features) <= _TWO_CORES else 3
    count = next((count for count in counts if count is not None), usual)
    ins = given_ins or equal_factors(in_features, count)
    outs = given_outs or equal_factors(out_features, count)[::-1]
    return TTShape(ins, outs, fitting_ranks(rank, [o * i for o, i in zip(outs, ins, strict=True)]))


@functools.cache
def equal_factors(size: int, n_cores: int) -> tuple[int, ...]:
    """`n_cores` ascending factors of `size`, or of the next larger number that has nearly equal ones.

    Nearly equal: their sum is at most a quarter more than that of equal factors. Among the factors of one
    number those with the smallest sum are taken.

    Example:
        >>> equal_factors(784, 2), equal_factors(1021, 2), equal_factors(10, 2)
        ((28, 28), (31, 33), (2, 5))
    """
    padded = size
    while True:
        best = min(_factorings(padded, n_cores, 1), key=sum)
        if sum(best) <= _UNEQUAL * n_cores * padded ** (1 / n_cores):
            return best
        padded += 1


def fitting_ranks(rank: int | Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """All ranks 1, r1, .., 1 of cores with `sizes` entries per pair of ranks, as far as they are of use.

    A rank larger than the matrix left or right of it allows would be redundant.

    Args:
        rank: the largest rank, or the inner ranks one by one (with or without the outer 1s).
        sizes: output times input factor of every core.

    Raises:
        InputError: a rank is not a positive integer, or their number does not fit.

    Example:
        >>> fitting_ranks(10, [4, 4, 4]), fitting_ranks([2, 9], [4, 4, 4])
        ((1, 4, 4, 1), (1, 2, 4, 1))
    """
    inner = len(sizes) - 1
    wanted = checked_rank(rank)
    given = [wanted] * inner if isinstance(wanted, int) else list(wanted)
    if not isinstance(wanted, int) and len(given) == inner + 2 and given[0] == given[-1] == 1:
        given = given[1:-1]
    if len(given) != inner:
        raise InputError(
            f"{len(sizes)} cores have {inner} ranks between them, got {len(given)}; "
            f"give one number or {inner}"
        )
    ranks = [1, *given, 1]
    for k in range(1, inner + 1):
        ranks[k] = min(ranks[k], ranks[k - 1] * sizes[k - 1])
    for k in range(inner, 0, -1):
        ranks[k] = min(ranks[k], ranks[k + 1] * sizes[k])
    return tuple(ranks)


def checked_rank(rank: int | Sequence[int]) -> int | tuple[int, ...]:
    """A rank, or ranks one by one, as Python's own integers.

    Raises:
        InputError: one is not a positive integer.

    Example:
        >>> checked_rank(3), checked_rank([2, 4])
        (3, (2, 4))
    """
    listed = entries(rank)
    if listed is None:
        return whole("rank", rank, 1)
    return tuple(whole("every rank", one, 1) for one in listed)


def checked_n_cores(n_cores: int | None) -> int | None:
    """A number of cores as Python's own integer; None stays None.

    Raises:
        InputError: it is not an integer from 1 to 6.

    Example:
        >>> checked_n_cores(3)
        3
    """
    return None if n_cores is None else whole("n_cores", n_cores, 1, MOST_CORES)


def factors_text(size: int, factors: Sequence[int]) -> str:
    """A size and its factors, as layers print them.

    Example:
        >>> factors_text(256, (16, 16)), factors_text(101, (6, 17))
        ('256 = 16 x 16', '101 -> 102 = 6 x 17 (padded)')
    """
    product, text = math.prod(factors), " x ".join(map(str, factors))
    return f"{size} = {text}" if product == size else f"{size} -> {product} = {text} (padded)"


def _factorings(size: int, count: int, smallest: int) -> Iterator[tuple[int, ...]]:
    """Every way to write `size` as `count` ascending factors of at least `smallest`."""
    if count == 1:
        yield (size,)
        return
    first = smallest
    while first**count <= size:
        if size % first == 0:
            yield from ((first, *rest) for rest in _factorings(size // first, count - 1, first))
        first += 1


def _checked_factors(what: str, size: int, given: Sequence[int] | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    factors = tuple(entries(given) or ())
    if not 1 <= len(factors) <= MOST_CORES or not all(is_whole(factor, 1) for factor in factors):
        raise InputError(f"{what} must be 1 to {MOST_CORES} integers of at least 1, got {given!r}")
    factors = tuple(int(factor) for factor in factors)
    if math.prod(factors) < size:
        raise InputError(
            f"the product of {what} must be at least {size}, got {' x '.join(map(str, factors))} = "
            f"{math.prod(factors)}; what is more than {size} is padding"
        )
    return factors
