"""Uniform chains under the contract of networks: chains of equal cores, automata, sequences of any length."""

import itertools
import math
import re
from typing import Any, ClassVar

import pytest
import torch
from contract.network import NetworkContract
from torch import Tensor

from tnml.errors import InputError
from tnml.nn import MPSLayer, UniformMPS


class Uniform(NetworkContract):
    network = "uniform"
    program = "from tnml.nn import UniformMPS as Layer"
    place: ClassVar = 5

    def weight_tensor(self, layer: Any) -> Tensor:
        """Site by site the same core; the label's leg goes last."""
        tensors = layer.tensors()
        core, found = tensors["core"], tensors["start"].unsqueeze(0)
        for site in range(6):
            own = tensors["label"].transpose(0, 1) if site == self.place else core
            found = torch.einsum("pl,dlr->pdr", found, own).flatten(0, 1)
        found = found @ tensors["end"] if "end" in tensors else found.squeeze(1)
        legs = [core.shape[0]] * 5
        legs.insert(self.place, tensors["label"].shape[1])
        return found.reshape(legs).movedim(self.place, -1)

    def cuts(self, layer: Any) -> list[list[int]]:
        legs = [*range(5)]
        legs.insert(self.place, 5)
        return [legs[:cut] for cut in range(1, 6)]


class TestUniform(Uniform):
    options: ClassVar = {"bond_dim": 3}
    others: ClassVar = [{"bond_dim": 2}]


def test_labels_inside_and_paddings_keep_the_contract() -> None:
    """The label core inside or first, a component without a symbol, a fitted path: numbers again."""

    class Inside(Uniform):
        place: ClassVar = 2
        options: ClassVar = {
            "bond_dim": 4,
            "label_site": 2,
            "features": {"name": "rbf", "dim": 3, "normalise": False},
        }
        others: ClassVar = [{"bond_dim": 2}, {"label_site": 4}]

    class First(Uniform):
        place: ClassVar = 0
        options: ClassVar = {"label_site": 0, "features": {"name": "one-hot", "dim": 3}, "padding": 1}

    for other in (Inside(), First()):
        other.test_outputs_are_those_of_the_dense_tensor("complex128")
        other.test_gradients_are_those_of_the_dense_tensor("float64", 1e-12)
        other.test_rescaled_outputs_are_of_order_one()
        other.test_the_configuration_rebuilds_it()
        other.test_states_load_whatever_the_size()


def test_it_is_a_chain_of_equal_cores() -> None:
    layer = UniformMPS(7, 3, 4, dtype="float64", label_site=3, noise=0.3)
    x = torch.rand(5, 7, dtype=torch.float64)
    chain = MPSLayer.from_state(layer.to_state())
    torch.testing.assert_close(layer(x), chain(x), rtol=1e-12, atol=1e-14)
    layer(x).sum().backward()
    chain(x).sum().backward()
    cores = chain.chain_shape.split(chain.weight.grad)
    assert layer.core.grad is not None
    inner = sum(cores[1:6], torch.zeros_like(cores[1]))
    outer = torch.einsum("dxr,l->dlr", cores[0], layer.start)
    outer = outer + torch.einsum("dlx,r->dlr", cores[6], layer.end)
    torch.testing.assert_close(layer.core.grad, inner + outer, rtol=1e-11, atol=1e-13)


# initial state 0; for every symbol the next state of each; accepting states; the language
TOMITA = {
    "1*": ([[1, 1], [0, 1]], [0], r"1*"),
    "(10)*": ([[2, 0, 2], [1, 2, 2]], [0], r"(10)*"),
    "no 000": ([[1, 2, 3, 3], [0, 0, 0, 3]], [0, 1, 2], r"(?!.*000).*"),
    "even, even": ([[1, 0, 3, 2], [2, 3, 0, 1]], [0], None),
    "parity": ([[0, 1], [1, 0]], [1], None),
}


@pytest.mark.parametrize("name", TOMITA)
def test_regular_languages_exactly(name: str) -> None:
    """Every word of up to seven letters, all lengths at once with padding, and one of 10,000 letters."""
    moves, accepting, pattern = TOMITA[name]
    states = len(moves[0])
    transitions = torch.zeros(2, states, states)
    for symbol, row in enumerate(moves):
        transitions[symbol, torch.arange(states), torch.tensor(row)] = 1
    final = torch.zeros(states, 2)
    final[:, 0] = 1
    final[accepting, 0], final[accepting, 1] = 0, 1
    layer = UniformMPS.from_automaton(torch.eye(states)[0], transitions, final)

    def accepted(word: str) -> bool:
        if name == "parity":
            return word.count("1") % 2 == 1
        if name == "even, even":
            return word.count("0") % 2 == word.count("1") % 2 == 0
        return re.fullmatch(str(pattern), word) is not None

    words = ["".join(w) for length in range(1, 8) for w in itertools.product("01", repeat=length)]
    x = torch.tensor([[float(letter) for letter in word.ljust(7, "1")] for word in words])
    found = layer.sequences(x, torch.tensor([len(word) for word in words]))
    expected = torch.tensor([accepted(word) for word in words]).long()
    assert torch.equal(found, torch.eye(2)[expected])
    long = "10" * 5000
    assert layer.sequences(torch.tensor([[float(letter) for letter in long]]))[0, 1] == accepted(long)


def test_a_padding_is_no_symbol_in_training_either() -> None:
    """Features whose last component is the padding: outputs and gradients are those without it."""
    layer = UniformMPS(6, 2, 3, features={"name": "one-hot", "dim": 3}, padding=2, dtype="float64", noise=0.5)
    words = torch.tensor([[0, 0.5, 0.5, 0, 1, 1], [0.5, 0.5, 0, 0.5, 0.5, 0]], dtype=torch.float64)
    found = layer(words)
    short = layer.sequences(words, torch.tensor([4, 6]))
    torch.testing.assert_close(found, short, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(layer.sequences(words[:1, :4]), found[:1], rtol=1e-12, atol=1e-14)
    assert layer.core.shape == (2, 3, 3)
    grads = [torch.autograd.grad(y[0].sum(), layer.core)[0] for y in (found, short)]
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-14)


def test_ten_thousand_sites() -> None:
    layer, x = UniformMPS(10_000, 2, 3), torch.rand(2, 10_000)
    before, scale = layer.log_forward(x)
    assert bool(torch.isfinite(before).all())
    assert scale.abs().max() < 20
    with torch.no_grad():
        layer.core.mul_(32.0)
    value, log_scale = layer.log_forward(x)
    grown = value.abs().log() + (log_scale - scale).unsqueeze(1) - before.abs().log()
    torch.testing.assert_close(grown, torch.full_like(grown, 50_000 * math.log(2)), rtol=1e-6, atol=0)
    value.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in layer.parameters())


@pytest.mark.usefixtures("unchecked")
def test_bad_input() -> None:
    layer = UniformMPS(4, 2)
    for call, text in (
        (lambda: UniformMPS(4, 2, padding=2), "padding must be a whole number"),
        (lambda: layer.sequences(torch.rand(2, 5), torch.tensor([0, 3])), "expected one length from 1 to 5"),
        (lambda: layer.sequences(torch.rand(2, 5), torch.tensor([3])), "expected one length from 1 to 5"),
        (lambda: layer.sequences(torch.rand(2, 5, 3)), r"expected sequences \[b, t\] or features"),
        (
            lambda: UniformMPS(4, 2, label_site=2).sequences(torch.rand(2, 5)),
            "need the label core at the end",
        ),
        (
            lambda: UniformMPS.from_automaton(torch.ones(2), torch.ones(2, 3, 3), torch.ones(2, 1)),
            r"expected transitions \[d, 2, 2\]",
        ),
    ):
        with pytest.raises(InputError, match=text):
            call()
