"""Tensor-train matrices by their definition: numpy in double precision, entry by entry; nothing of tnml."""

import itertools

import numpy as np


def matrix(cores):
    """`[o, i]`: every entry the product of the slices that its digits name, the first digit leading."""
    cores = [np.asarray(core) for core in cores]
    outs, ins = [core.shape[1] for core in cores], [core.shape[2] for core in cores]
    result = np.zeros((int(np.prod(outs)), int(np.prod(ins))), dtype=np.result_type(*cores, float))
    for row, o in enumerate(itertools.product(*map(range, outs))):
        for column, i in enumerate(itertools.product(*map(range, ins))):
            product = np.ones((1, 1))
            for place, core in enumerate(cores):
                product = product @ core[:, o[place], i[place], :]
            result[row, column] = product[0, 0]
    return result


def unfoldings(dense, outs, ins):
    """For each cut between cores the matrix `[(o1 i1 .. ok ik), (the others)]` of a dense matrix `[o, i]`."""
    count = len(outs)
    legs = np.asarray(dense).reshape(*outs, *ins)
    legs = legs.transpose([axis for k in range(count) for axis in (k, count + k)])
    sizes = np.multiply(outs, ins)
    return [legs.reshape(int(np.prod(sizes[:k])), -1) for k in range(1, count)]


def padded(dense, rows, columns):
    """The matrix with zeros below and to the right."""
    dense = np.asarray(dense)
    return np.pad(dense, ((0, rows - dense.shape[0]), (0, columns - dense.shape[1])))
