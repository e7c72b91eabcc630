"""The ring under the contract of networks: the trace of dense products; and long rings."""

import math
from typing import Any, ClassVar

import pytest
import torch
from contract.network import NetworkContract
from torch import Tensor

from tnml.contraction.chain.reference import reference_chain
from tnml.contraction.ring import added, digits, ring_ends, ring_shape
from tnml.errors import InputError
from tnml.nn import RingMPS


class Rings(NetworkContract):
    network = "ring"
    program = "from tnml.nn import RingMPS as Layer"

    def weight_tensor(self, layer: Any) -> Tensor:
        """Core by core with the first bond kept, its trace at the end; the label's leg goes last."""
        tensors = layer.tensors()
        bond = tensors["label"].shape[0]
        found = torch.eye(bond, dtype=tensors["label"].dtype).unsqueeze(0)
        for core in tensors.values():
            found = torch.einsum("pal,ldr->pdar", found, core).flatten(0, 1)
        legs = [core.shape[1] for core in tensors.values()]
        return torch.einsum("paa->p", found).reshape(legs).movedim(list(tensors).index("label"), -1)

    def cuts(self, layer: Any) -> list[list[int]]:
        legs = [*range(layer.n_sites)]
        legs.insert(layer.label_site, layer.n_sites)
        return [legs[:cut] for cut in range(1, len(legs))]


class TestRing(Rings):
    options: ClassVar = {"bond_dim": 3}
    others: ClassVar = [{"bond_dim": 2}, {"label_site": 1}]


def test_a_fitted_path_and_other_sizes() -> None:
    """Features without identity weights, bond 1, the label at an end: numbers and states once more."""

    class Other(Rings):
        options: ClassVar = {
            "bond_dim": 4,
            "features": {"name": "rbf", "dim": 3, "normalise": False},
            "label_site": 0,
        }

    class One(Rings):
        options: ClassVar = {"bond_dim": 1, "features": "trigonometric", "label_site": 5}

    for other in (Other(), One()):
        other.test_outputs_are_those_of_the_dense_tensor("complex128")
        other.test_gradients_are_those_of_the_dense_tensor("float64", 1e-12)
        other.test_rescaled_outputs_are_of_order_one()
        other.test_the_configuration_rebuilds_it()
        other.test_a_zero_tensor_has_no_spectrum()


@pytest.mark.parametrize(("physical", "bond"), [(2, 5), (3, 4), (2, 8), (5, 3), (2, 1)])
def test_the_ends_are_unit_vectors(physical: int, bond: int) -> None:
    before, after, address = ring_ends(physical, bond, torch.float64)
    shape = ring_shape(physical, bond, 0, 0)
    assert address.shape == (bond, digits(physical, bond), physical)
    rows = torch.cat([address, address.flip(1)], 1)
    left, right, _ = reference_chain(rows, torch.cat([before, after]), shape)
    assert torch.equal(left, torch.eye(bond).double())
    assert torch.equal(right, torch.eye(bond).double())


def test_one_component_makes_no_digits() -> None:
    with pytest.raises(InputError, match="needs features of dimension 2 or more, got 1"):
        RingMPS(4, 2, 2, features=lambda x: x.unsqueeze(-1))


def test_a_ring_of_ten_thousand_sites() -> None:
    """Fresh, outputs are the trace of the label core; and with cores grown by 2^5 each, their logarithm."""
    layer, x = RingMPS(10_000, 2, 3, noise=0.0), torch.rand(2, 10_000)
    expected = torch.einsum("aca->c", layer.label.detach())
    torch.testing.assert_close(layer(x).detach(), expected.expand(2, 2), rtol=1e-2, atol=0)
    with torch.no_grad():
        layer.weight.mul_(32.0)
    value, log_scale = layer.log_forward(x)
    grown = value.detach().abs().log() + log_scale.unsqueeze(1) - expected.abs().log()
    torch.testing.assert_close(grown, torch.full_like(grown, 50_000 * math.log(2)), rtol=1e-6, atol=0)
    value.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in layer.parameters())
    assert math.isfinite(layer.log_norm())


def test_sums_of_scaled_terms() -> None:
    value = torch.tensor([[[0.0]], [[3.0]], [[2.0**-100]]])
    exponent = torch.tensor([[900.0], [-200.0], [-99.0]])
    found, top = added(value, exponent)  # 3 2^-200 + 2^-199 = 5 2^-200
    assert found.item() * 2.0 ** (top.item() + 200) == 5.0
    nothing, _ = added(torch.zeros(2, 1, 1), torch.full((2, 1), 7.0))
    assert nothing.item() == 0.0
