"""A network made, copied, saved, trained, resumed, compiled and inspected by what knows only the contract."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import complete
from torch import Tensor, nn

import tnml
from contract.network_member import Member
from tnml.cli import main
from tnml.diagnostics import Tracker
from tnml.errors import InputError
from tnml.estimators import MPSClassifier
from tnml.files import read_model, write_model
from tnml.nn import NETWORKS, make_layer
from tnml.nn.networks import can, compressible
from tnml.training import TrainOptions, sweep_classifier, train_classifier, train_replicas

QUICK = {"lr": 0.05, "batch_size": 16, "schedule": "constant", "device": "cpu"}

COMPILED = """
import copy, torch
{program}
torch.manual_seed(0)
for dropout in (0.0, 0.3):
    layer = Layer(5, 3, order=[2, 0, 4, 1, 3], site_dropout=dropout, **{options!r})
    layer = layer.train(dropout > 0)
    twin, x = copy.deepcopy(layer), torch.rand(4, 5)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    plain = layer(x)
    torch.manual_seed(1)
    found = compiled(x)
    plain.square().sum().backward()
    found.square().sum().backward()
    assert torch.allclose(found, plain, rtol=1e-4, atol=1e-5)
    for one, other in zip(layer.parameters(), twin.parameters()):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-4)
print("the same")
"""


def samples() -> tuple[Tensor, Tensor]:
    """Three classes that differ at every site."""
    y = torch.arange(60) % 3
    noise = torch.rand(60, 5, generator=torch.Generator().manual_seed(4))
    return (0.4 * y.unsqueeze(1) + 0.2 * noise).clamp(0, 1), y


class LivesAsALayer(Member):
    def test_the_configuration_rebuilds_it(self) -> None:
        layer, x = self.generic(order=[3, 1, 4, 0, 2], site_dropout=0.25).eval(), self.inputs()
        config = json.loads(json.dumps(layer.config))
        again = type(layer)(**config).eval()
        again.load_state_dict(layer.state_dict())
        assert torch.equal(again(x), layer(x))
        assert again.config == layer.config
        assert again.identity() == layer.identity()
        assert set(layer.config) - set(layer.identity()) == set(layer.may_change)
        named = {name: value for name, value in config.items() if name not in ("n_sites", "out_features")}
        made = make_layer({"name": self.network, **named}, 5, 3).eval()
        made.load_state_dict(layer.state_dict())
        assert torch.equal(made(x), layer(x))

    def test_an_own_feature_map_has_an_identity_and_no_configuration(self) -> None:
        layer = self.make(features=own_map)
        assert layer(self.inputs()).shape == (4, 3)
        assert layer.identity()["features"] == "own_map with 2 components"
        assert "dtype" in layer.identity()
        with pytest.raises(InputError, match="a function, which no file can hold"):
            _ = layer.config

    def test_options_are_checked_by_the_table(self) -> None:
        (option, value), *_ = self.unknown.items()
        with pytest.raises(InputError, match=f"unknown option of network '{self.network}' '{option}'"):
            make_layer({"name": self.network, option: value}, 5, 3)
        with pytest.raises(InputError, match=f"network '{self.network}' has no {option}, got {value!r}"):
            make_layer(self.network, 5, 3, **{option: value})
        assert make_layer(self.network, 5, 3, usual={option: value}, **{option: value}).n_sites == 5
        with pytest.raises(
            InputError, match=r"site_dropout is given twice, as 0\.25 with the network and as 0\.5"
        ):
            make_layer({"name": self.network, "site_dropout": 0.25}, 5, 3, site_dropout=0.5)
        for name, bad in (("n_sites", 0), ("out_features", 2.5)):
            sizes = {"n_sites": 5, "out_features": 3, name: bad}
            with pytest.raises(InputError, match=f"{name} must be a whole number, at least 1, got {bad}"):
                NETWORKS[self.network].layer(**sizes)

    def test_the_same_seed_is_the_same_layer(self) -> None:
        before = torch.get_rng_state()
        one, same, other = self.make(seed=4), self.make(seed=4), self.make(seed=5)
        assert torch.equal(torch.get_rng_state(), before), "a layer draws from a generator of its own"
        pairs = list(zip(one.parameters(), same.parameters(), other.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b, _ in pairs)
        assert not all(torch.equal(a, c) for a, _, c in pairs)

    def test_a_file_holds_every_bit(self, tmp_path: Path) -> None:
        layer, x = self.generic(order=[3, 1, 4, 0, 2]), self.inputs()
        path = tmp_path / "layer.safetensors"
        layer.save(path)
        again = tnml.load(path)
        assert type(again) is type(layer)
        assert {n: t.tolist() for n, t in again.state_dict().items()} == {
            n: t.tolist() for n, t in layer.state_dict().items()
        }
        assert torch.equal(again(x), layer(x))
        tensors, metadata = read_model(path)
        assert (metadata["format"], metadata["kind"], metadata["network"]) == (1, "layer", self.network)
        write_model(path, tensors, {**metadata, "network": "no-such-thing"})
        with pytest.raises(InputError, match=r"unknown network in .* 'no-such-thing'.* Choose from: mps"):
            tnml.load(path)

    def test_states_load_whatever_the_size(self) -> None:
        layer, x = self.generic(order=[3, 1, 4, 0, 2]), self.inputs()
        state = copy.deepcopy(layer.state_dict())
        for change in ({"seed": 9}, *self.others):
            fresh = self.make(**change)
            fresh(x).sum().backward()
            parameters = [id(p) for p in fresh.parameters()]
            fresh.load_state_dict(state)
            assert torch.equal(fresh(x), layer(x))
            assert [id(p) for p in fresh.parameters()] == parameters, "an optimiser would hold the old ones"
            assert fresh.identity() == layer.identity()
            fresh(x).sum().backward()
            nested = nn.Sequential(self.make(**change))
            nested.load_state_dict({f"0.{name}": value for name, value in state.items()})
            assert torch.equal(nested(x), layer(x))
        outputs = self.make(5, 2)
        before = copy.deepcopy(outputs.state_dict())
        with pytest.raises(RuntimeError, match="size mismatch"):
            outputs.load_state_dict(state)
        assert outputs(x).shape == (4, 2)
        assert all(outputs.state_dict()[n].shape == before[n].shape for n in before)

    def test_a_reset_is_a_fresh_layer(self) -> None:
        layer, fresh = (make(order=[3, 1, 4, 0, 2]) for make in (self.generic, self.make))
        assert not all(torch.equal(a, b) for a, b in zip(layer.parameters(), fresh.parameters(), strict=True))
        identities = [id(p) for p in layer.parameters()]
        layer.reset_parameters()
        assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), fresh.parameters(), strict=True))
        assert [id(p) for p in layer.parameters()] == identities

    def test_copies_are_whole_and_their_own(self) -> None:
        layer, x = self.generic(order=[3, 1, 4, 0, 2]), self.inputs()
        expected = layer(x).detach()
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(twin(x), expected)
            with torch.no_grad():
                for parameter in twin.parameters():
                    parameter.zero_()
            assert torch.equal(layer(x), expected)

    def test_it_follows_a_change_of_dtype(self) -> None:
        layer, x = self.generic(), self.inputs()
        expected = layer(x)
        single = copy.deepcopy(layer).float()
        assert single.dtype == torch.float32
        assert single.config["dtype"] == "float32"
        assert single(x.float()).dtype == torch.float32
        bound = self.bound(single, single.local_features(x.float()))
        assert bool(((single(x.float()) - expected).abs() <= 4 * bound).all())

    def test_it_trains_and_resumes_to_the_same_bits(self, tmp_path: Path) -> None:
        x, y = samples()
        whole, halves = (self.make(dtype="float32", site_dropout=0.1) for _ in range(2))
        result = train_classifier(whole, x, y, TrainOptions(epochs=8, **QUICK))
        assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
        train_classifier(halves, x, y, TrainOptions(epochs=3, **QUICK), run_dir=tmp_path)
        fresh = self.make(dtype="float32", site_dropout=0.1)
        train_classifier(fresh, x, y, TrainOptions(epochs=8, **QUICK), run_dir=tmp_path, resume=True)
        for one, other in zip(whole.parameters(), fresh.parameters(), strict=True):
            assert torch.equal(one, other)

    def test_a_run_is_not_resumed_onto_another_network(self, tmp_path: Path) -> None:
        x, y = samples()

        def train(module: nn.Module, *, resume: bool = True) -> None:
            options = TrainOptions(epochs=1, **QUICK)
            train_classifier(module, x, y, options, run_dir=tmp_path, resume=resume)

        train(self.make(dtype="float32"), resume=False)
        train(self.make(dtype="float32", seed=5))
        changes = [{"order": [3, 1, 4, 0, 2]}, {"site_dropout": 0.1}, {"dtype": "float64"}, *self.others]
        for change in changes:
            with pytest.raises(InputError, match=r"belongs to another run: .* in the checkpoint, .* now"):
                train(self.make(**{"dtype": "float32", **change}))

        class Other(type(self.make())):  # type: ignore[misc]
            pass

        with pytest.raises(InputError, match=f"module: '{type(self.make()).__name__}' in the checkpoint"):
            train(Other(5, 3, **{**self.options, "dtype": "float32"}))

    def test_an_estimator_holds_it(self, tmp_path: Path) -> None:
        x, y = samples()
        model = MPSClassifier(epochs=20, lr=0.05, device="cpu", random_state=0)
        model.network = {"name": self.network, **self.options}
        model.fit(x.numpy(), y.numpy())
        assert type(model.layer_) is NETWORKS[self.network].layer
        assert model.score(x.numpy(), y.numpy()) > 0.5
        expected = model.predict_proba(x.numpy())
        model.save(tmp_path / "model.safetensors")
        assert read_model(tmp_path / "model.safetensors")[1]["network"] == self.network
        for again in (tnml.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))):
            assert type(again.layer_) is type(model.layer_)
            np.testing.assert_array_equal(again.predict_proba(x.numpy()), expected)
        if not NETWORKS[self.network].sweeps:
            swept = MPSClassifier(solver="dmrg")
            swept.network = self.network
            with pytest.raises(InputError, match=f"trains an MPSLayer, got network '{self.network}'"):
                swept.fit(x.numpy(), y.numpy())

    def test_solvers_and_compression_say_who_can(self) -> None:
        (x, y), layer = samples(), self.make(dtype="float32")
        name = type(layer).__name__
        if not can(layer, "sweeps"):
            with pytest.raises(InputError, match=f"sweeps train an MPSLayer, got {name}"):
                sweep_classifier(layer, x, y)
        if not can(layer, "replicas"):
            with pytest.raises(InputError, match=f"layer 0 must be an MPSLayer, got {name}"):
                train_replicas([layer], x, y, task="classification")
        if hasattr(layer, "compressed"):
            smaller, error = compressible(layer).compressed(max_bond=1)
            assert max(smaller.bond_dims) == 1
            assert error >= 0
        else:
            with pytest.raises(InputError, match=f"compression needs an MPSLayer, got {name}"):
                compressible(layer)

    def test_diagnostics_know_it(self) -> None:
        layer = self.generic()
        row = Tracker()(nn.ModuleDict({"net": layer}))
        assert row["net.log_norm"] == pytest.approx(layer.log_norm())
        assert row["net.entropy_max"] >= row["net.entropy_mean"] >= 0

    def test_the_command_line_trains_and_inspects_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        spec = json.dumps({"name": self.network, **self.options})
        quick = ["--train.epochs", "1", "--data.pool", "2", "--device", "cpu", "--out", str(tmp_path / "run")]
        assert main(["train", "digits", "--model.network", spec, *quick]) == 0
        told = capsys.readouterr().out
        assert f"{self.network.upper()} of bond dimension" in told
        figure = tmp_path / "bonds.png"
        assert main(["inspect", str(tmp_path / "run"), "--figure", str(figure)]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert f"network: {self.network} ({NETWORKS[self.network].layer.__name__})" in told
        assert "entropy: largest" in told
        assert figure.stat().st_size > 0
        assert main(["evaluate", str(tmp_path / "run"), "digits"]) == 0

    @pytest.mark.gpu
    def test_it_gives_the_same_on_cuda(self) -> None:
        layer, x = self.generic(order=[3, 1, 4, 0, 2]).eval(), self.inputs()
        twin = copy.deepcopy(layer).cuda()
        bound = self.bound(layer, layer.local_features(x))
        assert bool(((twin(x.cuda()).cpu() - layer(x)).abs() <= 2 * bound).all())
        twin(x.cuda()).sum().backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in twin.parameters())
        fresh = self.make().cuda()
        fresh.load_state_dict(layer.state_dict())
        assert torch.equal(fresh(x.cuda()), twin(x.cuda()))
        assert twin.log_norm() == pytest.approx(layer.log_norm())

    @pytest.mark.slow
    def test_it_compiles(self) -> None:
        code = COMPILED.format(program=self.program, options={**self.options, "dtype": "float32"})
        assert complete(["-c", code]) == "the same\n"


def own_map(x: Tensor) -> Tensor:
    return torch.stack([1 - x, x], -1)
