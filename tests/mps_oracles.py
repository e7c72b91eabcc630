"""Independent oracles of matrix product states: dense numpy tensors by definition; nothing of tnml."""

import itertools

import numpy as np


def dense(cores, log_scale=0.0):
    """The tensor `[d_0, .., d_{n-1}]` of cores `(l, d, r)`, entry by entry of the product of matrices."""
    cores = [np.asarray(core) for core in cores]
    dims = [core.shape[1] for core in cores]
    result = np.zeros(dims, dtype=np.result_type(*cores, float))
    for index in itertools.product(*map(range, dims)):
        matrix = np.eye(1)
        for core, i in zip(cores, index, strict=True):
            matrix = matrix @ core[:, i, :]
        result[index] = matrix[0, 0]
    return result * np.exp(float(log_scale))


def of(state):
    """The dense tensor of anything that has cores and a log scale."""
    return dense([core.detach().numpy() for core in state.cores], state.log_scale)


def schmidt(tensor):
    """Normalised singular values across every cut."""
    found = []
    for cut in range(1, tensor.ndim):
        s = np.linalg.svd(tensor.reshape(int(np.prod(tensor.shape[:cut])), -1), compute_uv=False)
        found.append(s / np.linalg.norm(s))
    return found


def entropy(probabilities, order=1.0):
    p = np.asarray(probabilities)
    p = p[p > 1e-300]
    if order == 1:
        return float(-(p * np.log(p)).sum())
    if np.isinf(order):
        return float(-np.log(p.max()))
    return float(np.log((p**order).sum()) / (1 - order))


def density(tensor, sites):
    """The reduced density matrix of some sites, in the order given, with trace 1."""
    rest = [axis for axis in range(tensor.ndim) if axis not in sites]
    size = int(np.prod([tensor.shape[s] for s in sites]))
    matrix = tensor.transpose([*sites, *rest]).reshape(size, -1)
    return matrix @ matrix.conj().T / np.linalg.norm(matrix) ** 2


def mutual_information(tensor, i, j):
    parts = [entropy(np.linalg.eigvalsh(density(tensor, sites))) for sites in ([i], [j], [i, j])]
    return parts[0] + parts[1] - parts[2]


def applied(tensor, operators):
    """A product of matrices on single sites, applied to the tensor."""
    for site, matrix in operators.items():
        tensor = np.moveaxis(np.tensordot(matrix, tensor, axes=(1, site)), 0, site)
    return tensor


def expectation(tensor, operators):
    return np.vdot(tensor, applied(tensor, operators)) / np.vdot(tensor, tensor)


def dense_operator(mpo):
    """The matrix `[prod o, prod i]` of operator cores `(l, o, i, r)`."""
    total = np.ones((1, 1, 1))  # rows, columns, bond
    for core in map(np.asarray, mpo):
        total = np.einsum("xya,aoib->xoyib", total, core)
        total = total.reshape(total.shape[0] * total.shape[1], -1, core.shape[3])
    return total[:, :, 0]


def ghz(n):
    tensor = np.zeros([2] * n)
    tensor[(0,) * n] = tensor[(1,) * n] = 1.0
    return tensor


def w_state(n):
    tensor = np.zeros([2] * n)
    for site in range(n):
        tensor[tuple(int(s == site) for s in range(n))] = 1.0
    return tensor


def relative(a, b):
    """|a - b| / |b| in the 2-norm."""
    a, b = np.asarray(a), np.asarray(b)
    return np.linalg.norm((a - b).ravel()) / max(np.linalg.norm(b.ravel()), 1e-300)
