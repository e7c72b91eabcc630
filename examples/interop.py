"""A state converted to tensornetwork and back, and a graph of tensornetwork nodes contracted for a batch.

python examples/interop.py
"""

import sys

import numpy as np
import tensornetwork
import torch

import tnml
from tnml.mps import MatrixProductState, contract_nodes, from_finite_mps, to_finite_mps


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    state = MatrixProductState.random(8 if smoke else 30, bond_dim=8, dtype="complex128")

    # tensornetwork computes with its numpy backend: its pytorch backend does not conjugate.
    finite_mps = to_finite_mps(state)
    again = from_finite_mps(finite_mps)
    lost = abs(1 - state.fidelity(again).item())
    print(f"there and back: 1 - fidelity {lost:.1e}")
    norm = finite_mps.canonicalize(normalize=False)
    difference = abs(state.norm().item() - norm) / norm
    print(f"norm: tnml and tensornetwork differ by {difference:.1e}")

    # A ring of three nodes, each with an input of its own; the copy node carries the batch through.
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(3, 50, 2, generator=generator, dtype=torch.float64)
    cores = torch.randn(3, 4, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    ring = [tensornetwork.Node(core, backend="pytorch") for core in cores]
    vectors = [tensornetwork.Node(x, backend="pytorch") for x in inputs]
    batch = tensornetwork.CopyNode(4, 50, backend="pytorch")
    for n in range(3):
        ring[n][2] ^ ring[(n + 1) % 3][0]
        ring[n][1] ^ vectors[n][1]
        vectors[n][0] ^ batch[n]
    outputs = contract_nodes([*ring, *vectors, batch], [batch[3]])
    outputs.square().sum().backward()  # gradients reach the tensors of the nodes

    arrays = [*cores.detach().numpy(), *inputs.numpy()]
    expected = np.einsum("aib,bjc,cka,ni,nj,nk->n", *arrays)
    error = np.abs(outputs.detach().numpy() - expected).max() / np.abs(expected).max()
    print(f"ring of nodes: {len(outputs)} outputs, tnml and numpy differ by {error:.1e}")

    same = tnml.contraction.einsum("aib,bjc,cka,ni,nj,nk->n", *cores, *inputs)
    print(f"the same as a string: difference {(same - outputs).abs().max().item():.1e}")
    assert max(lost, difference, error) < 1e-10
    assert cores.grad is not None


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
