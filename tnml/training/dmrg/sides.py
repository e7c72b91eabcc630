"""One side of a local problem: what the samples look like there, multiplied out only where that is small."""

import torch
from jaxtyping import Float
from torch import Tensor

_MOST_ROWS = 20_000  # vectors that a second moment is taken from


class Side:
    """The vectors of all samples on one side of a local tensor, `[b, p]`, or `[b, c, p]` with the label core.

    They are the contraction with the sites further out, times the features of the site of the local tensor
    on this side where there is one. With the label core on this side that product is never formed: it is
    taken of what is multiplied with it, which has no label leg.

    Args:
        outer: `[b, m]` or `[b, c, m]`, the contraction with the sites further out.
        features: `[b, d]` of the site itself, or None.
        left: whether this is the left side: p = (m d), on the right side p = (d m).
        root: `[b]` roots of the samples' weights, for second moments; None where all count alike.

    Example:
        >>> Side(torch.ones(5, 3), torch.ones(5, 2), left=True).width
        6
    """

    def __init__(
        self,
        outer: Float[Tensor, "b *c m"],
        features: Float[Tensor, "b d"] | None,
        *,
        left: bool,
        root: Float[Tensor, " b"] | None = None,
    ) -> None:
        self.has_label = outer.dim() == 3
        self._root = root
        self._is_left = left
        self._outer = outer
        self._features = features
        self.width = outer.shape[-1] * (1 if features is None else features.shape[1])
        # Without a label leg the product is small, and every iteration of the solver needs it.
        if features is not None and not self.has_label:
            self._outer, self._features = _joined(outer, features, left=left), None

    def __len__(self) -> int:
        return len(self._outer)

    @property
    def vectors(self) -> Tensor:
        """All of them, multiplied out, `[b, p]` or `[b, c, p]`."""
        if self._features is None:
            return self._outer
        return _joined(self._outer, self._features, left=self._is_left)

    def some(self) -> Tensor:
        """At most about 20,000 of them, evenly spread, multiplied out, times the roots of their weights."""
        # With a label leg each sample brings c vectors, so fewer samples are taken.
        step = -(-self._outer[..., 0].numel() // _MOST_ROWS)
        features = None if self._features is None else self._features[::step]
        found = Side(self._outer[::step], features, left=self._is_left).vectors
        if self._root is None:
            return found
        return found * self._root[::step].view(-1, *[1] * (found.dim() - 1))

    def split(self, size: int) -> "list[Side]":
        """Chunks of `size` samples."""
        outer = self._outer.split(size)
        if self._features is None:
            return [Side(part, None, left=self._is_left) for part in outer]
        features = self._features.split(size)
        return [Side(o, f, left=self._is_left) for o, f in zip(outer, features, strict=True)]

    def dot(self, vectors: Float[Tensor, "b p"]) -> Float[Tensor, "b c"]:
        """The product with one vector for each sample; with the label core on this side only.

        Example:
            >>> Side(torch.ones(1, 2, 3), torch.tensor([[1.0, 2.0]]), left=True).dot(torch.ones(1, 6))
            tensor([[9., 9.]])
        """
        # The features go into the given vectors, which have no label leg: c times less work than `vectors`.
        if self._features is not None:
            d = self._features.shape[1]
            parts = vectors.view(len(vectors), -1, d).unbind(2) if self._is_left else vectors.chunk(d, 1)
            vectors = parts[0] * self._features[:, :1]
            for i in range(1, d):  # d is small: this is far quicker than a batched matrix product
                vectors = torch.addcmul(vectors, parts[i], self._features[:, i : i + 1])
        return torch.bmm(self._outer, vectors.unsqueeze(2)).squeeze(2)

    def weighted(self, weights: Float[Tensor, "b c"]) -> Float[Tensor, "b p"]:
        """The sum over the label leg with these weights: the adjoint of `dot`.

        Example:
            >>> Side(torch.ones(1, 2, 3), torch.tensor([[1.0, 2.0]]), left=False).weighted(torch.ones(1, 2))
            tensor([[2., 2., 2., 4., 4., 4.]])
        """
        summed = (weights.unsqueeze(2) * self._outer).sum(1)  # twice as quick as a batched product
        return summed if self._features is None else _joined(summed, self._features, left=self._is_left)


def _joined(vectors: Tensor, features: Tensor, *, left: bool) -> Tensor:
    """The product of the vectors of each sample with its features, in the order of the side."""
    if vectors.dim() == 3:
        features = features.unsqueeze(1)  # [b, 1, d]: the same for every index of the label leg
    if left:
        return (vectors.unsqueeze(-1) * features.unsqueeze(-2)).flatten(-2)
    return (features.unsqueeze(-1) * vectors.unsqueeze(-2)).flatten(-2)
