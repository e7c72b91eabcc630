"""The layer against two independent contractors of the same network: tensornetwork (numpy) and opt_einsum."""

from itertools import pairwise

import numpy as np
import opt_einsum
import oracles
import pytest
import tensornetwork as tn
import torch

from tnml.nn import MPSLayer

CASES = [(1, 0, "float64"), (5, 0, "float64"), (6, 3, "float64"), (7, 7, "float64"), (6, 2, "complex128")]


def tensors(layer: MPSLayer, x: torch.Tensor) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    cores = [core.detach().numpy() for core in layer.cores]
    return cores, layer.label_core.detach().numpy(), layer.local_features(x).detach().numpy()


@pytest.fixture(params=CASES, ids=str)
def case(request, generator):
    sites, label_site, dtype = request.param
    layer = MPSLayer(sites, 3, 4, label_site=label_site, noise=0.5, dtype=dtype)
    return layer, torch.rand(2, sites, generator=generator, dtype=torch.float64)


def test_tensornetwork_contracts_to_the_same_outputs(case):
    layer, x = case
    cores, label, features = tensors(layer, x)
    expected = []
    for sample in features:
        middle = tn.Node(label, backend="numpy")
        nodes = [tn.Node(core, backend="numpy") for core in cores]
        pixels = [tn.Node(vector, backend="numpy") for vector in sample]
        for node, pixel in zip(nodes, pixels, strict=True):
            node[1] ^ pixel[0]
        row = [*nodes[: layer.label_site], middle, *nodes[layer.label_site :]]
        for left, right in pairwise(row):
            left[2] ^ right[0]
        ends = [tn.Node(np.ones(1), backend="numpy") for _ in range(2)]
        row[0][0] ^ ends[0][0]
        row[-1][2] ^ ends[1][0]
        network = [*row, *pixels, *ends]
        expected.append(tn.contractors.greedy(network, output_edge_order=[middle[1]]).tensor)
    assert oracles.relative(layer(x).detach(), np.stack(expected)) <= 1e-12


def test_opt_einsum_contracts_to_the_same_outputs(case):
    layer, x = case
    cores, label, features = tensors(layer, x)
    cut, operands = layer.label_site, []
    bond = iter(range(100))
    here = next(bond)
    first, label_axis = here, 900
    for site in range(len(cores) + 1):
        if site == cut:
            after = next(bond)
            operands += [label, (here, label_axis, after)]
            here = after
        if site < len(cores):
            after = next(bond)
            operands += [cores[site], (here, 300 + site, after), features[:, site], (901, 300 + site)]
            here = after
    operands += [np.ones(1), (first,), np.ones(1), (here,)]
    expected = opt_einsum.contract(*operands, (901, label_axis), optimize="greedy")
    assert oracles.relative(layer(x).detach(), expected) <= 1e-12
