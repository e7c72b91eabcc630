"""Independent oracles: numpy in double precision, by definition rather than by algorithm; nothing of tnml."""

import itertools

import numpy as np


def dense_half(cores):
    """The full tensor `[d, .., d, r]` of cores `(l, d, r)`, the left bond of the first being 1."""
    tensor = np.ones((1,))
    for core in cores:
        tensor = np.tensordot(tensor, core, axes=(-1, 0))
    return tensor


def half_chain(features, cores):
    """`[b, r]`: the full tensor of the cores applied to product features `[b, n, d]`, entry by entry."""
    features, cores = np.asarray(features), [np.asarray(core) for core in cores]
    batch, sites, physical = features.shape
    result = np.zeros(
        (batch, cores[-1].shape[2] if cores else 1), dtype=np.result_type(features, *cores, float)
    )
    tensor = dense_half(cores)
    for index in itertools.product(range(physical), repeat=sites):
        weight = (
            np.prod([features[:, s, e] for s, e in enumerate(index)], axis=0) if index else np.ones(batch)
        )
        result += weight[:, None] * tensor[index][None, :]
    return result


def outputs(features, left, label, right):
    """`[b, c]` of a matrix product state with label core `(l, c, r)` between two halves of cores."""
    at = len(left)
    mirrored = [np.asarray(core).transpose(2, 1, 0) for core in reversed(right)]
    from_left = half_chain(np.asarray(features)[:, :at], left)
    from_right = half_chain(np.asarray(features)[:, at:][:, ::-1], mirrored)
    return np.einsum("bl,lcr,br->bc", from_left, np.asarray(label), from_right)


def gradient_of_core(function, cores, site):
    """Derivative of a scalar function of cores that is linear in each: its value with each unit core."""
    gradient = np.zeros(cores[site].shape, dtype=np.result_type(*cores, float))
    for index in np.ndindex(*cores[site].shape):
        unit = np.zeros_like(cores[site])
        unit[index] = 1
        gradient[index] = function([*cores[:site], unit, *cores[site + 1 :]])
    return gradient


def relative(a, b):
    """|a - b| / |b| in the 2-norm."""
    a, b = np.asarray(a), np.asarray(b)
    return np.linalg.norm((a - b).ravel()) / max(np.linalg.norm(b.ravel()), 1e-300)
