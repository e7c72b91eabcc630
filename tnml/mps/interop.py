"""Matrix product states to and from tensornetwork, and its node graphs contracted by tnml.

tensornetwork's pytorch backend does not conjugate: its `conj` returns the tensor unchanged. What it computes
of complex states there (environments, inner products, expectation values) is wrong; on numpy it is right.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import opt_einsum
import torch
from torch import Tensor

from tnml.contraction import einsum
from tnml.errors import InputError, choose
from tnml.mps.state import MatrixProductState

BACKENDS = ("numpy", "pytorch")


def to_finite_mps(state: MatrixProductState, backend: str = "numpy") -> Any:
    """Gives the state as a tensornetwork `FiniteMPS`, tensors `(l, d, r)`, norm and phase included.

    The scale is spread evenly over the cores. Nothing is shared with the state, and nothing is put into
    canonical form: `center_position` is None, as tensornetwork's own canonical form would lose the norm.
    FiniteMPS has no notion of a label core; give `label_site` again on the way back.

    Args:
        state: the state.
        backend: "numpy" (detached, on the CPU) or "pytorch" (gradients flow to the cores).

    Raises:
        InputError: the backend is unknown, or the scale does not fit the dtype.

    Warns:
        UserWarning: a complex state on "pytorch", where tensornetwork does not conjugate.

    Source: Roberts et al., TensorNetwork, arXiv 1905.01330.

    Example:
        >>> from tnml.mps import MatrixProductState
        >>> state = MatrixProductState.random(4, 3)
        >>> to_finite_mps(state).bond_dimensions
        [1, 2, 3, 2, 1]
    """
    tensors = _exported(state, backend)
    return _tensornetwork().FiniteMPS(tensors, canonicalize=False, backend=backend)


def from_finite_mps(finite_mps: Any, *, label_site: int | None = None) -> MatrixProductState:
    """Gives a tensornetwork `FiniteMPS` of the backend "numpy" or "pytorch" as a state; tensors are copied.

    Args:
        finite_mps: tensors `(l, d, r)` with outer bonds 1.
        label_site: the index of the tensor that is the label core, if one is.

    Raises:
        InputError: it is not a FiniteMPS of these backends, or its tensors are not a matrix product state.

    Source: Roberts et al., TensorNetwork, arXiv 1905.01330.

    Example:
        >>> from tnml.mps import MatrixProductState
        >>> state = MatrixProductState.random(4, 3)
        >>> again = from_finite_mps(to_finite_mps(state))
        >>> torch.allclose(again.to_dense(), state.to_dense())
        True
    """
    if not isinstance(finite_mps, _tensornetwork().FiniteMPS):
        raise InputError(f"expected a tensornetwork FiniteMPS, got {type(finite_mps).__name__}")
    name = finite_mps.backend.name
    cores = [_imported(tensor, name, f"tensor {n}") for n, tensor in enumerate(finite_mps.tensors)]
    return MatrixProductState(cores, label_site=label_site)


def to_nodes(state: MatrixProductState, backend: str = "numpy") -> list[Any]:
    """Gives the state as connected tensornetwork nodes, from left to right.

    Axes are named "left", "physical", "right". The end nodes have no outer bond, so the dangling edges are
    the physical ones. The scale is spread evenly over the nodes; nothing is shared with the state.

    Args:
        state: the state.
        backend: "numpy" (detached, on the CPU) or "pytorch" (gradients flow to the cores).

    Raises:
        InputError: the backend is unknown, or the scale does not fit the dtype.

    Warns:
        UserWarning: a complex state on "pytorch", where tensornetwork does not conjugate.

    Source: Roberts et al., TensorNetwork, arXiv 1905.01330.

    Example:
        >>> from tnml.mps import MatrixProductState
        >>> nodes = to_nodes(MatrixProductState.random(3, 2))
        >>> [node.axis_names for node in nodes]
        [['physical', 'right'], ['left', 'physical', 'right'], ['left', 'physical']]
        >>> nodes[0]["right"] is nodes[1]["left"]
        True
    """
    nodes = []
    tensors, names = _exported(state, backend), ["left", "physical", "right"]
    for site, tensor in enumerate(tensors):
        first, last = int(site == 0), site == len(tensors) - 1
        kept = tensor[0] if first else tensor
        kept = kept[..., 0] if last else kept
        axes = names[first : 2 if last else 3]
        nodes.append(_tensornetwork().Node(kept, name=f"site {site}", axis_names=axes, backend=backend))
    for left, right in pairwise(nodes):
        left["right"] ^ right["left"]
    return nodes


def from_nodes(nodes: Sequence[Any], *, label_site: int | None = None) -> MatrixProductState:
    """Gives connected tensornetwork nodes, listed from left to right, as a state; tensors are copied.

    Axes may have any order and any names: the edge to the node before is the left bond, the edge to the node
    after the right bond, the dangling one the physical axis. End nodes may have an outer bond of dimension 1.

    Args:
        nodes: nodes of the backend "numpy" or "pytorch".
        label_site: the index of the node that is the label core, if one is.

    Raises:
        InputError: the nodes are not an open chain; the text names the node and the axis.

    Example:
        >>> from tnml.mps import MatrixProductState
        >>> state = MatrixProductState.random(3, 2)
        >>> torch.allclose(from_nodes(to_nodes(state)).to_dense(), state.to_dense())
        True
    """
    listed = _checked(nodes)
    places = {id(node): site for site, node in enumerate(listed)}
    cores = [_core(listed, site, places) for site in range(len(listed))]
    return MatrixProductState(cores, label_site=label_site)


def contract_nodes(
    nodes: Iterable[Any],
    output_edge_order: Sequence[Any] | None = None,
    *,
    memory_limit: int | None = None,
    optimize: str = "auto",
) -> Tensor:
    """Contracts a small irregular graph of tensornetwork nodes and leaves the graph as it was.

    It is one `tnml.contraction.einsum`: the path is kept for graphs of the same wiring and shapes, and
    gradients flow to nodes of the backend "pytorch". A `CopyNode` becomes one index, so it costs nothing:
    connect the batch axes of all inputs with one to contract a batch.

    Args:
        nodes: every node of the graph, a sequence or a set (which has no order, so the path may be searched
            again); parts that are not connected are multiplied.
        output_edge_order: the dangling edges, in the order of the result's axes. None takes the order of
            `nodes` and of their axes.
        memory_limit: most elements of any tensor made on the way; None: no limit.
        optimize: how the path is searched; see `tnml.contraction.einsum`.

    Raises:
        InputError: an edge leads out of `nodes`, the output edges are not the dangling ones, sizes or
            dtypes do not fit, or the limit is too small.

    Cost: what the path costs.

    Source: Smith and Gray, opt_einsum, Journal of Open Source Software 3, 753 (2018).

    Example:
        >>> import tensornetwork
        >>> a, b = (tensornetwork.Node(torch.ones(2, 3), backend="pytorch") for _ in range(2))
        >>> bond = a[1] ^ b[1]
        >>> contract_nodes([a, b], [b[0], a[0]])
        tensor([[3., 3.],
                [3., 3.]])
    """
    listed = _checked(nodes)
    dangling = [edge for node in listed for edge in node.edges if edge.is_dangling()]
    if output_edge_order is None:
        if len(dangling) > 1 and not isinstance(nodes, Sequence):
            raise InputError(
                f"{len(dangling)} edges dangle and a {type(nodes).__name__} has no order; "
                "give output_edge_order"
            )
        output = dangling
    else:
        output = list(output_edge_order)
        came, expected = Counter(map(id, output)), Counter(map(id, dangling))
        if came != expected:
            raise InputError(
                f"output_edge_order must hold each of the {len(dangling)} dangling edges of the nodes once, "
                f"got {len(output)} edges, {len(came & expected)} of them dangling"
            )
    terms, result, tensors = _expression(listed, output)
    return einsum(f"{','.join(terms)}->{result}", *tensors, memory_limit=memory_limit, optimize=optimize)


def _tensornetwork() -> Any:
    import tensornetwork  # takes a third of a second, and few need it

    return tensornetwork


def _exported(state: MatrixProductState, backend: str) -> list[Any]:
    """Fresh tensors `(l, d, r)` of the backend, whose product is the state with its scale."""
    choose("backend", backend, dict.fromkeys(BACKENDS, True))
    cores = state.cores
    scale = torch.exp(state.log_scale / len(cores)).to(cores[0].dtype)
    lost = (scale == 0) & torch.isfinite(state.log_scale)
    if lost or not torch.isfinite(scale.abs()):
        raise InputError(
            f"the scale exp({state.log_scale.item():g}) over {len(cores)} cores does not fit {scale.dtype}; "
            "convert the normalized state"
        )
    if backend == "numpy":
        return [(core * scale).detach().cpu().numpy() for core in cores]
    if cores[0].is_complex():
        warnings.warn(
            "tensornetwork's pytorch backend does not conjugate complex tensors: inner products and "
            "expectation values it computes of this state are wrong; compute there with backend='numpy'",
            stacklevel=3,
        )
    return [core * scale for core in cores]


def _imported(tensor: Any, backend: str, owner: str) -> Tensor:
    """A copy as a torch tensor; gradients flow to what was a torch tensor."""
    if backend not in BACKENDS:
        raise InputError(f"{owner} is of tensornetwork's backend {backend!r}, expected numpy or pytorch")
    if isinstance(tensor, Tensor):
        return tensor.clone()
    array = np.array(tensor, order="C")
    if array.dtype.kind not in "fc":
        raise InputError(f"{owner} has dtype {array.dtype}, expected floating point or complex numbers")
    return torch.from_numpy(array)


def _checked(nodes: Iterable[Any]) -> list[Any]:
    """The nodes as a list, each one once, all edges within it and of equal dimension at both ends."""
    listed = list(nodes)
    if not listed:
        raise InputError("expected at least one node, got none")
    for number, node in enumerate(listed):
        if not isinstance(node, _tensornetwork().AbstractNode):
            raise InputError(f"expected tensornetwork nodes, got {type(node).__name__} at position {number}")
    places = {id(node): number for number, node in enumerate(listed)}
    for number, node in enumerate(listed):
        if places[id(node)] != number:
            raise InputError(f"{_called(listed, node)} comes twice")
        for axis, edge in enumerate(node.edges):
            for other, there in _ends(edge):
                where = f"axis {axis} of {_called(listed, node)}"
                if id(other) not in places:
                    raise InputError(
                        f"{where} is connected to node {other.name!r}, which is not among the nodes; "
                        "add it or disconnect the edge"
                    )
                if other.shape[there] != node.shape[axis]:
                    raise InputError(
                        f"{where} has dimension {node.shape[axis]}, expected {other.shape[there]} "
                        f"as in axis {there} of {_called(listed, other)}"
                    )
    return listed


def _ends(edge: Any) -> Iterator[tuple[Any, int]]:
    """The nodes and axes that the edge connects: one if it dangles, else two."""
    yield edge.node1, edge.axis1
    if not edge.is_dangling():
        yield edge.node2, edge.axis2


def _called(listed: list[Any], node: Any) -> str:
    number = next(number for number, other in enumerate(listed) if other is node)
    return f"node {number}" if node.name.startswith("__unnamed") else f"node {number} ({node.name!r})"


def _core(listed: list[Any], site: int, places: dict[int, int]) -> Tensor:
    """The node of this site as a core `(l, d, r)`; `places` finds the site of a node."""
    node = listed[site]
    axes: dict[int, list[int]] = {-1: [], 0: [], 1: []}
    for axis, edge in enumerate(node.edges):
        others = [places[id(other)] for other, _ in _ends(edge) if other is not node]
        step = others[0] - site if others else 0
        if step not in axes or edge.is_trace():
            target = _called(listed, listed[site + step])
            raise InputError(
                f"axis {axis} of {_called(listed, node)} is connected to {target}, expected neighbours only; "
                "list the nodes of an open chain from left to right"
            )
        axes[step].append(axis)
    outer = [axis for axis in axes[0] if node.shape[axis] == 1]
    for _ in range((site == 0) + (site == len(listed) - 1)):
        if len(axes[0]) > 1 and outer:
            axes[0].remove(outer.pop())
    for step, what in (
        (-1, "bonds to the node before"),
        (1, "bonds to the node after"),
        (0, "dangling edges"),
    ):
        expected = int(step == 0 or 0 <= site + step < len(listed))
        if len(axes[step]) != expected:
            raise InputError(
                f"{_called(listed, node)} has {len(axes[step])} {what}, expected {expected}; "
                "flatten parallel edges into one and list the nodes from left to right"
            )
    kept = axes[-1] + axes[0] + axes[1]
    gone = [axis for axis in range(len(node.edges)) if axis not in kept]
    tensor = _imported(node.tensor, node.backend.name, _called(listed, node))
    tensor = tensor.permute(*kept, *gone).reshape([node.shape[axis] for axis in kept])
    if site == 0:
        tensor = tensor.unsqueeze(0)
    return tensor.unsqueeze(-1) if site == len(listed) - 1 else tensor


def _expression(listed: list[Any], output: list[Any]) -> tuple[list[str], str, list[Tensor]]:
    """The indices of every tensor and of the result; copy nodes join their edges into one index."""
    copies = {id(node) for node in listed if isinstance(node, _tensornetwork().CopyNode)}
    plain = [node for node in listed if id(node) not in copies]
    numbers = {key: n for n, key in enumerate(dict.fromkeys(id(e) for node in listed for e in node.edges))}
    index = dict(numbers)
    for node in listed:
        if id(node) in copies:
            joined = {index[id(edge)] for edge in node.edges}
            index = {key: min(joined) if number in joined else number for key, number in index.items()}
    result = [index[id(edge)] for edge in output]
    held = {index[id(edge)] for node in plain for edge in node.edges}
    if len(set(result)) < len(result) or not held.issuperset(index.values()):
        index, plain = (
            numbers,
            listed,
        )  # "aa" in the result, or an index that no tensor holds: copies as tensors
    tensors = [_imported(node.tensor, node.backend.name, _called(listed, node)) for node in plain]
    models = [tensor for node, tensor in zip(plain, tensors, strict=True) if id(node) not in copies]
    for place, node in enumerate(plain):
        if id(node) in copies and models:  # numpy's float64, whatever the others are
            tensors[place] = tensors[place].to(models[0])
    symbols = {number: opt_einsum.get_symbol(n) for n, number in enumerate(dict.fromkeys(index.values()))}
    terms = ["".join(symbols[index[id(edge)]] for edge in node.edges) for node in plain]
    return terms, "".join(symbols[index[id(edge)]] for edge in output), tensors
