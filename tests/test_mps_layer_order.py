"""The whole numbers in a layer's state, its order and its bonds: copied, loaded, never averaged."""

import copy

import pytest
import torch

from tnml.nn import MPSLayer

NAMES = ["weight", "label", "order", "layout", "neutral"]


def snake(**more) -> MPSLayer:
    return MPSLayer(64, 10, 4, order="snake", shape=(8, 8), noise=0.1, **more)


def test_a_state_has_the_names_of_earlier_files_and_buffers_have_no_integers() -> None:
    layer = snake()
    assert list(layer.state_dict()) == NAMES
    assert [name for name, _ in layer.named_buffers()] == ["neutral"]
    assert layer.state_dict()["order"].dtype == layer.state_dict()["layout"].dtype == torch.int64
    layer.state_dict()["order"].zero_()
    assert layer.order.sum() == 64 * 63 // 2, "a state dict holds a copy"


def test_a_state_of_the_version_with_buffers_loads_and_it_reads_ours() -> None:
    class Earlier(torch.nn.Module):
        """What a state was loaded into when order and layout were buffers."""

        def __init__(self) -> None:
            super().__init__()
            like = snake().state_dict()
            for name in NAMES[:2]:
                self.register_parameter(name, torch.nn.Parameter(torch.zeros_like(like[name])))
            for name in NAMES[2:]:
                self.register_buffer(name, torch.zeros_like(like[name]))

    layer, earlier, x = snake(), Earlier(), torch.rand(3, 64)
    earlier.load_state_dict(layer.state_dict())
    again = MPSLayer(64, 10, 3)
    again.load_state_dict(earlier.state_dict())
    assert torch.equal(again(x), layer(x))
    assert again.config["order"] == layer.order.tolist()


def test_an_average_of_states_is_rounded_or_refused() -> None:
    layer, x = snake(), torch.rand(3, 64)
    state = layer.state_dict()
    averaged = {name: 0.9 * value + 0.1 * value for name, value in state.items()}
    again = MPSLayer(64, 10, 4)
    again.load_state_dict(averaged)
    torch.testing.assert_close(again(x), layer(x))
    for name, value, says in (
        ("order", 63, "order is not a permutation of 0..63"),
        ("layout", 4, "layout does not belong"),
    ):
        cut = {**state, name: state[name] - (state[name] == value).long()}  # 62.9999 became 62
        fresh = MPSLayer(64, 10, 4, order="snake", shape=(8, 8))
        with pytest.raises(RuntimeError, match=f"{says}.*must not be averaged"):
            fresh.load_state_dict(cut)
        assert torch.equal(fresh.order, layer.order)
        assert fresh.bond_dims == layer.bond_dims


def test_missing_and_misshapen_numbers_are_torchs_errors() -> None:
    state = snake().state_dict()
    without = {name: value for name, value in state.items() if name != "order"}
    with pytest.raises(RuntimeError, match=r'Missing key.*"order"'):
        snake().load_state_dict(without)
    assert snake().load_state_dict(without, strict=False).missing_keys == ["order"]
    with pytest.raises(RuntimeError, match="size mismatch for order"):
        snake().load_state_dict({**state, "order": state["order"][:-1]})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"other"'):
        snake().load_state_dict({**state, "other": state["order"]})
    nested = {f"0.{name}": value for name, value in state.items()}
    assert torch.nn.Sequential(snake()).load_state_dict(nested).missing_keys == []


def test_the_order_survives_a_move_that_loses_the_numbers() -> None:
    layer, x = snake(), torch.rand(3, 64)
    state = copy.deepcopy(layer.state_dict())
    layer.to("meta").to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(layer(x), snake()(x))
    again = snake().to("meta").to_empty(device="cpu")
    again.reset_parameters()
    assert torch.equal(again(x), snake()(x))


@pytest.mark.parametrize("options", [{}, {"features": "trigonometric"}, {"dtype": "complex64"}, {"seed": 5}])
def test_a_reset_is_the_start(options) -> None:
    layer = MPSLayer(9, 3, 4, **options)
    start = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.fill_(3.0)
    layer.reset_parameters()
    assert all(torch.equal(value, start[name]) for name, value in layer.state_dict().items())


def test_a_reset_undoes_the_fit_to_samples() -> None:
    spec = {"name": "rbf", "dim": 3, "normalise": False}
    layer, fresh = (MPSLayer(9, 3, 4, features=spec) for _ in range(2))
    layer.rescale_(torch.rand(30, 9))
    assert not torch.equal(layer.weight, fresh.weight)
    layer.reset_parameters()
    assert torch.equal(layer.weight, fresh.weight)
    assert torch.equal(layer.neutral, fresh.neutral)


def test_modules_pickled_with_buffers_are_read() -> None:
    """As earlier versions pickled whole layers: the order and the layout among the buffers."""
    layer = MPSLayer(6, 2, bond_dim=3, order=[3, 1, 5, 0, 2, 4])
    state = dict(vars(layer))
    state["_buffers"] = {"order": state.pop("order"), **state["_buffers"]}
    if "layout" in state:
        state["_buffers"]["layout"] = state.pop("layout")
    del state["_as_given"]
    old = MPSLayer.__new__(MPSLayer)
    old.__setstate__(state)
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(old(x), layer(x))
    assert "order" not in dict(old.named_buffers())
    assert old.state_dict().keys() == layer.state_dict().keys()
