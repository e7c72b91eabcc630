"""The tree tensor network as a PyTorch layer."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from tnml.checks import whole
from tnml.contraction.tree import TreeShape, tree_outputs
from tnml.errors import choose
from tnml.features import FeatureMap
from tnml.nn.computed import check_plain
from tnml.nn.entry import on_the_cpu, placed
from tnml.nn.layer import DTYPES, TensorNetworkLayer, neutral_of
from tnml.nn.mps.initialise import fit_path
from tnml.nn.patch.geometry import image_shape
from tnml.nn.tree.shapes import NAMED, checked_tree, image_tree
from tnml.nn.tree.start import starting_nodes
from tnml.randomness import seeded


class TreeLayer(TensorNetworkLayer):
    """`[b, n]` inputs in [0, 1] (or `[b, n, d]` features) to `[b, c]` outputs, by a tree tensor network.

               c
               │
            ┌─root─┐
            │      │
         ┌node┐  ┌node┐       each node multiplies the vectors of its children,
         │    │  │    │       and what comes out is linear in each of them
        phi  phi phi  phi

    Two sites are at most twice the height of the tree apart, 2 log2 n in a binary one.

    Args:
        n_sites: number of sites n, the leaves.
        out_features: number of outputs c.
        bond_dim: largest bond dimension; small subtrees need less.
        tree: "binary" or "quad" halves the image again and again; "chain" joins site after site, as a matrix
            product state does; or nested sequences of site numbers, each once. `information_tree` in
            `tnml.nn.tree.shapes` learns one from samples.
        features: a name, spec, callable or `FeatureMap`; see `tnml.features.feature_map`.
        order: a permutation of the sites. Names of curves through an image leave them in their places.
        shape: `(height, width)` of the image; None takes a square where n is one, else one row.
        noise: standard deviation of the noise on the starting weights; None chooses it.
        site_dropout: probability of skipping a site of a sample in training.
        dtype: "float32", .. or the torch dtype; None: torch's default.
        device: where the parameters live; None: torch's default.
        seed: of the starting weights.

    Raises:
        InputError: an argument is out of range; the text says which and what to do.

    Cost: about n chi^3 multiply-adds a sample forward in a binary tree, fewer near the leaves.

    Source: Liu et al., Machine learning by unitary tensor network of hierarchical tree structure, New J.
    Phys. 21 (2019) 073059, whose trees over images these are; gradients and the start are our own.

    Example:
        >>> layer = TreeLayer(64, 10, bond_dim=5)
        >>> layer(torch.rand(5, 64)).shape, layer.tree_shape.bonds[-3:]
        (torch.Size([5, 10]), (5, 5, 10))
    """

    network = "tree"

    def __init__(
        self,
        n_sites: int,
        out_features: int,
        bond_dim: int = 10,
        *,
        tree: Any = "binary",
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "linear",
        order: str | Sequence[int] = "raster",
        shape: tuple[int, int] | None = None,
        noise: float | None = None,
        site_dropout: float = 0.0,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            n_sites,
            out_features,
            features=features,
            order="raster" if isinstance(order, str) else order,
            shape=shape,
            site_dropout=site_dropout,
        )
        if isinstance(tree, str):
            choose("tree", tree, {name: name for name in NAMED})
            self.tree: Any = tree
            self._nested = image_tree(image_shape(self.n_sites, shape), tree)
        else:
            self._nested = self.tree = checked_tree(tree)
        chosen = choose("dtype", str(dtype or torch.get_default_dtype()).removeprefix("torch."), DTYPES)
        place = torch.get_default_device() if device is None else torch.device(device)
        self._noise, self._seed = noise, seed
        self.tree_shape = self._shape_for(whole("bond_dim", bond_dim, 1))
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(size, dtype=chosen, device=place)) for size in self._sizes()
        )
        self.neutral = self.neutral.to(place)
        self.order = self.order.to(self._place())
        self.reset_parameters()

    def _shape_for(self, bond_dim: int) -> TreeShape:
        return TreeShape.of(self._nested, self.n_sites, self.features.dim, bond_dim, self.out_features)

    def _sizes(self) -> list[tuple[int, int, int]]:
        return [(len(b.nodes), math.prod(b.inner), b.outer) for b in self.tree_shape.batches]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Starts again from the seed, with the present bond dimension; what `rescale_` fitted is undone.

        Raises:
            InputError: pruning or a parametrization computes a parameter.
        """
        check_plain(self, "reset it")
        if not self.weights[0].is_meta:
            self._start(None)

    def _start(self, path: Tensor | None) -> None:
        """Starting weights on the path of the feature map, or on one `[n, d]` that was fitted."""
        with on_the_cpu():
            own, usual = self._site_features(), torch.ones(self.n_sites, self.features.dim)
            kept = own.path(self.n_sites) if path is None else path.cpu()
            squares = own.square_norms(self.n_sites)
            chosen = usual if kept is None else kept
            starts = starting_nodes(
                self.tree_shape, chosen, squares, self._noise, self.dtype, seeded(self._seed)
            )
            neutral = neutral_of(own, self.n_sites, path if path is None else path.cpu())
        for tensor, start in zip((*self.weights, self.neutral), (*starts, neutral), strict=True):
            tensor.copy_(placed(start, tensor.device))

    def contract(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`value [b, c]` and `exponent [b]` of features `[b, n, d]`; the outputs are `value * 2^exponent`."""
        return tree_outputs(features, list(self.weights), self.tree_shape)

    @torch.no_grad()
    def rescale_(self, x: Tensor, weight: Tensor | None = None) -> Self:
        """This layer, scaled at the root so that the outputs of the samples `x` are of order one.

        For feature maps without identity weights the path is fitted to the samples first, which undoes what
        was trained so far.

        Example:
            >>> layer = TreeLayer(64, 10, features="rbf").rescale_(torch.rand(100, 64))
        """
        check_plain(self, "rescale it")
        if self._site_features().path(self.n_sites) is None:
            self._start(fit_path(self.local_features(x).real, weight))
        root = self.weights[-1]
        root.mul_(torch.exp(-self.typical_log_norm(x, weight)).to(root.dtype))
        return self

    def own_config(self) -> dict[str, Any]:
        """Bond dimension and tree."""
        return {"bond_dim": self.tree_shape.bond_dim, "tree": _listed(self.tree)}

    def tensors(self) -> dict[str, Tensor]:
        """Every node as `(l1, l2, .., o)`, children before parents; the root's o are the outputs.

        Example:
            >>> {name: tuple(t.shape) for name, t in TreeLayer(3, 2, tree=((0, 1), 2)).tensors().items()}
            {'node.0': (2, 2, 4), 'node.1': (4, 2, 2)}
        """
        found: dict[int, Tensor] = {}
        for batch, weight in zip(self.tree_shape.batches, self.weights, strict=True):
            for node, own in zip(batch.nodes, weight, strict=True):
                found[node] = own.view(*batch.inner, batch.outer)
        return {f"node.{node}": found[node] for node in sorted(found)}

    @property
    def bond_dims(self) -> list[int]:
        """The dimensions of the bonds above the nodes, of the root its outputs."""
        return list(self.tree_shape.bonds)

    def bonds(self) -> list[Tensor]:
        """Matrices `[k, o]` of the cuts above all nodes but the root, whose Schmidt values are of these cuts.

        Cost: n chi^4, in double precision.

        Example:
            >>> [tuple(found.shape) for found in TreeLayer(4, 2, 3).bonds()]
            [(3, 3), (3, 3)]
        """
        nodes, _ = self._orthogonal()
        above: dict[int, Tensor] = {}
        leaves, last = self.tree_shape.n_leaves, len(nodes) - 1
        for node in range(last, -1, -1):
            tensor = nodes[node]
            if node != last:
                tensor = torch.tensordot(tensor, above[node], ([-1], [1]))
            for place, child in enumerate(self.tree_shape.children[node]):
                if child >= leaves:
                    turned = tensor.movedim(place, -1).flatten(0, -2)
                    above[child - leaves] = torch.linalg.qr(turned, mode="r").R
        return [above[node] for node in range(last)]

    def log_norm(self) -> float:
        """The logarithm of the 2-norm of the weight tensor, computed in double precision."""
        nodes, log = self._orthogonal()
        return float(torch.linalg.vector_norm(nodes[-1]).log() + log)

    def _orthogonal(self) -> tuple[list[Tensor], Tensor]:
        """The nodes in double precision, isometries but for the root, and the log of what was taken out."""
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        nodes = [tensor.detach().cpu().to(wide) for tensor in self.tensors().values()]
        log, leaves = torch.zeros((), dtype=torch.float64), self.tree_shape.n_leaves
        factors: dict[int, Tensor] = {}
        for node, children in enumerate(self.tree_shape.children):
            tensor = nodes[node]
            for place, child in enumerate(children):
                if child >= leaves:
                    tensor = torch.tensordot(factors[child], tensor, ([1], [place])).movedim(0, place)
            if node + 1 < len(nodes):
                size = torch.linalg.vector_norm(tensor)
                log = log + size.log()
                tensor = tensor / size.clamp_min(torch.finfo(torch.float64).tiny)
                isometry, factors[leaves + node] = torch.linalg.qr(tensor.flatten(0, -2))
                tensor = isometry.view(*tensor.shape[:-1], -1)
            nodes[node] = tensor
        return nodes, log

    def adopt_(self, state: Mapping[str, Any], prefix: str) -> None:
        """Adopts the bond dimension from the state, where the tree and the outputs are this layer's."""
        given = [state.get(f"{prefix}weights.{place}") for place in range(len(self.weights))]
        if any(not isinstance(tensor, Tensor) or tensor.dim() != 3 for tensor in given):
            return
        sizes = [tuple(tensor.shape) for tensor in given]  # type: ignore[union-attr]
        if sizes == self._sizes() or sizes[-1][2] != self.out_features:
            return
        before = self.tree_shape
        self.tree_shape = self._shape_for(max((size[2] for size in sizes[:-1]), default=1))
        if self._sizes() != sizes:
            self.tree_shape = before
            return
        for parameter, size in zip(self.weights, sizes, strict=True):
            parameter.data, parameter.grad = parameter.data.new_zeros(size), None

    def extra_repr(self) -> str:
        """Sites, outputs, bond dimension, tree and feature map."""
        kind = self.tree if isinstance(self.tree, str) else "given"
        return (
            f"n_sites={self.n_sites}, out_features={self.out_features}, "
            f"bond_dim={self.tree_shape.bond_dim}, tree={kind!r}, features={self.features.name!r}"
        )


def _listed(tree: Any) -> Any:
    return [_listed(part) for part in tree] if isinstance(tree, tuple) else tree
