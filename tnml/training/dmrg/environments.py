"""What every sample looks like left and right of a site: contractions kept within a memory budget."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tnml.errors import InputError
from tnml.training.dmrg.sides import Side

_CHUNK_BYTES = 1 << 22  # of an intermediate


class Environments:
    """The contractions of all samples with the sites left of a site, and with those right of it.

    `left(n)` is that of the sites 0 .. n-1, `right(n)` that of the sites n .. N-1, each `[b, l]`, or
    `[b, c, l]` where the label core is among these sites; of no sites it is 1. Where all of them fit the
    budget all are kept. Otherwise every k-th is, and the stretch between two of
    them is recomputed when the sweep enters it.

    Args:
        features: `[b, d]` of each site, None at the label core.
        cores: the cores `(l, d, r)`, the label core `(l, c, r)`; shared with the sweep, which replaces them.
            None at its center.
        widest: the largest bond there will be.
        budget: bytes.
        outputs: c where there is a label core.
        weight: `[b]` of the samples, for second moments; None where all count alike.

    Raises:
        InputError: even the smallest number of kept vectors exceeds the budget.

    Cost: kept memory of n b widest numbers, or 2 sqrt(n) b widest at the least; a step costs b d l r.

    Example:
        >>> features = [torch.ones(4, 2)] * 3
        >>> cores = [torch.ones(1, 2, 2), None, torch.ones(2, 2, 1)]
        >>> around = Environments(features, cores, 2, 10**6)
        >>> around.left(1).shape, around.right(2)[0]
        (torch.Size([4, 2]), tensor([2., 2.]))
    """

    def __init__(
        self,
        features: Sequence[Tensor | None],
        cores: Sequence[Tensor | None],
        widest: int,
        budget: float,
        outputs: int = 1,
        weight: Tensor | None = None,
    ) -> None:
        self._root = None if weight is None else weight.sqrt()
        self.features, self._cores, self._n = features, cores, len(cores)
        some = next(phi for phi in features if phi is not None)
        one = some.new_ones(len(some), 1)
        self._kept: dict[str, dict[int, Tensor]] = {"left": {0: one}, "right": {self._n: one}}
        place = next((site for site, phi in enumerate(features) if phi is None), 0)
        # At most that many of the kept vectors carry the label leg at a time; those in use all may.
        labelled = max(place, self._n - place) / self._n
        size = len(some) * widest * some.element_size()
        self.stride = _stride(self._n, size * (1 + (outputs - 1) * labelled), size * outputs, budget)

    def left(self, site: int) -> Tensor:
        """Of the sites before `site`."""
        return self._get("left", site)

    def right(self, site: int) -> Tensor:
        """Of the sites from `site` on."""
        return self._get("right", site)

    def left_side(self, site: int, *, joined: bool = True) -> Side:
        """What lies left of `site`; `joined`: with the features of the site itself."""
        features = self.features[site] if joined else None
        return Side(self.left(site), features, left=True, root=self._root)

    def right_side(self, site: int, *, joined: bool = True) -> Side:
        """What lies right of `site`; `joined`: with the features of the site itself."""
        features = self.features[site] if joined else None
        return Side(self.right(site + 1), features, left=False, root=self._root)

    def recenter(self, center: int) -> None:
        """The center has moved by one site: what held cores that are gone is forgotten."""
        for at in [at for at in self._kept["left"] if at > center]:
            del self._kept["left"][at]
        for at in [at for at in self._kept["right"] if at <= center]:
            del self._kept["right"][at]

    def kept_bytes(self) -> int:
        """How much memory the kept vectors take."""
        return sum(t.numel() * t.element_size() for side in self._kept.values() for t in side.values())

    def _get(self, side: str, site: int) -> Tensor:
        kept = self._kept[side]
        if site not in kept:
            step = -1 if side == "left" else 1
            start = site
            while start not in kept:
                start += step
            vector = kept[start]
            for at in range(start, site, -step):
                vector = self._advance(side, vector, at)
                if self._stays(at - step, site):
                    kept[at - step] = vector
            for at in [at for at in kept if not self._stays(at, site)]:
                del kept[at]
        return kept[site]

    def _stays(self, at: int, site: int) -> bool:
        """Whether `at` is kept while the sweep is at `site`: every stride-th, and the stretch around."""
        return at % self.stride == 0 or at in (0, self._n) or abs(at - site) <= self.stride

    def _advance(self, side: str, vector: Tensor, at: int) -> Tensor:
        """Over one more site: from left(at) to left(at + 1), or from right(at) to right(at - 1)."""
        site = at if side == "left" else at - 1
        core, phi = self._core(site), self.features[site]
        if side == "right":
            core = core.permute(2, 1, 0)  # from here on both sides read the same
        bond, middle, next_bond = core.shape
        if phi is None:
            flat = core.reshape(bond, middle * next_bond)
            return (vector @ flat).view(len(vector), middle, next_bond)
        flat = core.reshape(bond * middle, next_bond)
        size = max(256, _CHUNK_BYTES // (vector[0].numel() * middle * vector.element_size()))
        parts = zip(vector.split(size), phi.split(size), strict=True)
        return torch.cat([Side(v, p, left=True).vectors @ flat for v, p in parts])

    def _core(self, site: int) -> Tensor:
        core = self._cores[site]
        if core is None:
            raise AssertionError(f"site {site} is the center and has no core of its own")
        return core


def _stride(n_sites: int, mean: float, largest: float, budget: float) -> int:
    """The smallest distance of kept vectors, of these mean and largest bytes, that fits into the budget."""
    least = math.inf
    for stride in range(1, 2 * math.isqrt(n_sites) + 2):
        needed = (
            (n_sites + 1) * mean if stride == 1 else n_sites // stride * mean + (2 * stride + 4) * largest
        )
        if needed <= budget:
            return stride
        least = min(least, needed)
    raise InputError(
        f"the contractions of all samples need at least {least / 1e9:.2g} GB, memory_gb is "
        f"{budget / 1e9:.2g}; raise memory_gb, or lower max_bond or the number of samples"
    )
