"""Where every core of a chain lies in one flat weight vector."""

import functools
import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tnml.checks import entries, whole
from tnml.errors import InputError


@dataclass(frozen=True)
class ChainShape:
    """The physical dimension and the bonds of a chain that is cut in two at its label site.

        1 - A - A - .. - A - left[-1]   label   right[0] - A - .. - A - 1
            |   |        |                                 |        |
            d   d        d                                 d        d

    Every core lies as `(d, l, r)` in one flat weight vector, site after site, so a uniform stretch is the
    stack `(n, d, l, r)` without a copy, and ragged chains need no padding.

    Args:
        physical: physical dimension d of every site.
        left: bonds of the left half, from 1 at the outer end to the label site; one more than its sites.
        right: bonds of the right half, from the label site to 1 at the outer end.

    Attributes:
        bonds: `(l, r)` of every core.
        sizes: number of weights of every core.
        offsets: first weight of every core, and the end.
        widest: the largest bond.
        n_bond_indices: sum of all bonds.
        key: the shape as text, runs folded, as an operator's schema accepts it; `from_key` reads it back.

    Raises:
        InputError: an outer bond is not 1, or a bond or d is not positive.

    Example:
        >>> shape = ChainShape(physical=2, left=(1, 2, 3), right=(3, 1))
        >>> shape.n_sites, shape.label_site, shape.n_weights, shape.key
        (3, 2, 22, '2;1,2,3;3,1')
    """

    physical: int
    left: tuple[int, ...]
    right: tuple[int, ...]
    # What follows from them, computed when the shape is made: code that torch.compile traces can read
    # attributes, but not fill a cache that takes a lock.
    bonds: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    sizes: tuple[int, ...] = field(init=False, repr=False, compare=False)
    offsets: tuple[int, ...] = field(init=False, repr=False, compare=False)
    widest: int = field(init=False, repr=False, compare=False)
    n_bond_indices: int = field(init=False, repr=False, compare=False)
    key: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("left", "right"):
            given = tuple(whole(f"every bond of {name}", bond) for bond in entries(getattr(self, name)) or ())
            object.__setattr__(self, name, given)
        object.__setattr__(self, "physical", whole("physical", self.physical))
        every = self.left + self.right
        if self.physical < 1 or not self.left or not self.right or min(every) < 1:
            raise InputError(f"bonds and physical dimension must be positive, got {self}")
        if self.left[0] != 1 or self.right[-1] != 1:
            raise InputError(f"the outer bonds must be 1, got {self.left[0]} and {self.right[-1]}")
        bonds = tuple(itertools.pairwise(self.left)) + tuple(itertools.pairwise(self.right))
        sizes = tuple(self.physical * left * right for left, right in bonds)
        for name, value in (
            ("bonds", bonds),
            ("sizes", sizes),
            ("offsets", tuple(itertools.accumulate(sizes, initial=0))),
            ("widest", max(every)),
            ("n_bond_indices", sum(every)),
            ("key", ";".join([str(self.physical), _fold(self.left), _fold(self.right)])),
        ):
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return hash(self.key)  # a string keeps its hash: shapes are looked up in every call

    @property
    def label_site(self) -> int:
        """Number of sites left of the label core."""
        return len(self.left) - 1

    @property
    def n_sites(self) -> int:
        """Number of sites of both halves."""
        return len(self.left) + len(self.right) - 2

    @property
    def n_weights(self) -> int:
        """Number of weights of all cores."""
        return self.offsets[-1]

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def from_key(key: str) -> "ChainShape":
        """The shape that `key` names.

        Example:
            >>> ChainShape.from_key("2;1,4*3;4,1").left
            (1, 4, 4, 4)
        """
        physical, left, right = key.split(";")
        return ChainShape(int(physical), _unfold(left), _unfold(right))

    @property
    def flops_forward(self) -> int:
        """Multiplications and additions of one sample's forward pass: 2 d l r per site."""
        return 2 * sum(self.sizes)

    def split(self, weight: Tensor) -> list[Tensor]:
        """Every core as a view `(d, l, r)` of the flat weight vector.

        Example:
            >>> import torch
            >>> [tuple(c.shape) for c in ChainShape(2, (1, 3), (3, 1)).split(torch.zeros(12))]
            [(2, 1, 3), (2, 3, 1)]
        """
        pieces = weight.split(self.sizes)
        return [
            p.view(self.physical, left, right) for p, (left, right) in zip(pieces, self.bonds, strict=True)
        ]

    def join(self, cores: list[Tensor]) -> Tensor:
        """The flat weight vector of cores `(d, l, r)`; the inverse of `split`, differentiable.

        Example:
            >>> import torch
            >>> ChainShape(2, (1, 3), (3, 1)).join([torch.ones(2, 1, 3), torch.ones(2, 3, 1)]).shape
            torch.Size([12])
        """
        return torch.cat([core.reshape(-1) for core in cores])


def _fold(bonds: tuple[int, ...]) -> str:
    runs = ((value, sum(1 for _ in group)) for value, group in itertools.groupby(bonds))
    return ",".join(str(value) if count == 1 else f"{value}*{count}" for value, count in runs)


def _unfold(text: str) -> tuple[int, ...]:
    runs = (run.partition("*") for run in text.split(","))
    return tuple(itertools.chain.from_iterable([int(value)] * int(count or 1) for value, _, count in runs))
