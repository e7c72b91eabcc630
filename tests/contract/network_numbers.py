"""Outputs, derivatives and spectra of a network against its dense tensor, which PyTorch differentiates."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

import tnml
from contract.network_member import Member, TensorMember
from tnml.diagnostics import count_parameters, schmidt, singular_values
from tnml.errors import InputError
from tnml.nn import NETWORKS, TensorNetworkLayer
from tnml.nn.layer import Chain
from tnml.randomness import part_of_batch

DTYPES = ["float32", "float64", "complex64", "complex128"]


def assert_close(found: Tensor, expected: Tensor, share: float) -> None:
    """Equal to a share of the largest entry: for derivatives, which are sums like the outputs."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= share * expected.abs().max()


class RightNumbers(Member):
    def test_it_keeps_the_contract(self) -> None:
        layer = self.make()
        assert NETWORKS[layer.network].layer is type(layer)
        assert layer.network == self.network
        finals = {n for n, v in vars(TensorNetworkLayer).items() if getattr(_function(v), "__final__", False)}
        assert {"forward", "log_forward", "local_features", "config", "save", "identity"} <= finals
        own = [vars(cls) for cls in type(layer).__mro__[: type(layer).__mro__.index(TensorNetworkLayer)]]
        assert not finals & set().union(*own), "a final method is overridden"
        assert set(inspect.signature(type(layer)).parameters) >= {"n_sites", "out_features"}
        assert {p.dtype for p in layer.parameters()} == {torch.float64} == {layer.dtype}

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_outputs_are_those_of_the_dense_tensor(self, dtype: str) -> None:
        layer = self.generic(dtype=dtype, order=[2, 0, 4, 1, 3]).eval()
        x = self.inputs(dtype=layer.dtype.to_real())
        wide = self.widened(layer)
        features = layer.local_features(x).to(wide.dtype)
        expected, bound = self.dense(wide, features).detach(), self.bound(layer, layer.local_features(x))
        outputs = layer(x)
        assert outputs.dtype == layer.dtype
        assert bool(((outputs - expected).abs() <= bound).all())
        assert torch.equal(layer(layer.features(x).to(layer.dtype)), outputs), "features instead of inputs"
        value, log_scale = layer.log_forward(x)
        assert not log_scale.requires_grad
        # exp of a logarithm l loses l roundings
        wanted = 4 * torch.finfo(layer.dtype).eps * (1 + log_scale.abs().max())
        assert bool(((value * log_scale.exp().unsqueeze(1) - outputs).abs() <= wanted * outputs.abs()).all())

    def test_the_order_permutes_the_inputs(self) -> None:
        order = [3, 1, 4, 0, 2]
        ordered, plain, x = self.generic(order=order).eval(), self.generic().eval(), self.inputs()
        assert torch.equal(ordered(x), plain(x[:, order]))
        assert not torch.equal(ordered(x), plain(x))

    def test_a_part_of_a_batch_is_a_part_of_the_whole(self) -> None:
        layer, x = self.generic().eval(), self.inputs(9)
        bound = self.bound(layer, layer.local_features(x))
        parts = torch.cat([layer(x[:4]), layer(x[4:8]), layer(x[8:])])
        assert bool(((parts - layer(x)).abs() <= 2 * bound).all())
        assert layer(x[:0]).shape == (0, 3)

    @pytest.mark.parametrize(
        ("dtype", "share"), [("float32", 1e-4), ("float64", 1e-12), ("complex128", 1e-12)]
    )
    def test_gradients_are_those_of_the_dense_tensor(self, dtype: str, share: float) -> None:
        layer = self.generic(dtype=dtype).eval()
        wide = self.widened(layer)
        features = layer.local_features(self.inputs(dtype=layer.dtype.to_real())).requires_grad_()
        copied = features.detach().to(wide.dtype).requires_grad_()
        mix = torch.tensor([[1.0, -2.0, 0.5]])
        found = torch.autograd.grad((layer(features) * mix).abs().sum(), [features, *layer.parameters()])
        expected = torch.autograd.grad(
            (self.dense(wide, copied) * mix).abs().sum(), [copied, *wide.parameters()]
        )
        for one, other in zip(found, expected, strict=True):
            assert_close(one.to(other.dtype), other, share)

    def test_gradcheck_and_the_second_derivative(self) -> None:
        layer = self.generic().eval()
        features = layer.local_features(self.inputs(2)).requires_grad_()
        parameters = list(layer.parameters())
        names = [name for name, _ in layer.named_parameters()]

        def outputs(features: Tensor, *values: Tensor) -> Tensor:
            return functional_call(layer, dict(zip(names, values, strict=True)), (features,))

        assert torch.autograd.gradcheck(outputs, (features, *parameters), fast_mode=True)
        assert torch.autograd.gradgradcheck(outputs, (features, *parameters), fast_mode=True)

    def test_functional_transforms(self) -> None:
        layer, other, x = self.generic().eval(), self.generic(seed=3).eval(), self.inputs()
        weights = dict(other.named_parameters())
        called = functional_call(layer, weights, (x,))
        assert torch.equal(called, other(x))

        def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(layer, weights, (x.unsqueeze(0),)).square().sum()

        each = vmap(grad(loss), in_dims=(None, 0))({n: w.detach() for n, w in weights.items()}, x)
        for place, sample in enumerate(x):
            expected = torch.autograd.grad(
                other(sample.unsqueeze(0)).square().sum(), list(other.parameters())
            )
            for name, gradient in zip(weights, expected, strict=True):
                assert_close(each[name][place], gradient, 1e-12)

    def test_a_zero_tensor_has_no_spectrum(self) -> None:
        layer = self.make()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.zero_()
        with pytest.raises(InputError, match=r"zero|finite"):
            schmidt(layer)
        assert layer.log_norm() == -math.inf

    def test_geometric_complexity(self) -> None:
        layer, x = self.generic().eval(), self.inputs(3)
        x.requires_grad_()
        expected = sum(
            torch.autograd.grad(self.dense(layer, layer.local_features(x))[b, c], x)[0][b].square().sum()
            for b in range(3)
            for c in range(3)
        )
        found = tnml.diagnostics.geometric_complexity(layer, x.detach())
        assert float(found) == pytest.approx(float(expected) / 3, rel=1e-10)
        moments = torch.eye(layer.features.dim, dtype=torch.float64)
        if isinstance(layer, Chain):
            assert tnml.diagnostics.mps_geometric_complexity(layer, moments, moments) > 0
        else:
            with pytest.raises(InputError, match="closed form is that of a chain, got"):
                tnml.diagnostics.mps_geometric_complexity(layer, moments, moments)

    def test_site_dropout_holds_the_neutral_vector(self) -> None:
        layer, x = self.generic(site_dropout=0.4), self.inputs(6)
        plain, features = layer.eval()(x), layer.local_features(x)
        assert torch.equal(layer(x), plain)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            draws = torch.rand(6, 5)
            torch.manual_seed(3)
            dropped = layer.train()(x)
            torch.manual_seed(3)
            with part_of_batch(2, 3, 6):
                part = layer(x[2:5])
        assert 0 < int((draws < 0.4).sum()) < 30
        held = torch.where((draws < 0.4).unsqueeze(-1), layer.neutral.double(), features)
        bound = self.bound(layer, features.abs() + held.abs())
        assert bool(((dropped - self.dense(layer, held)).abs() <= bound).all())
        assert bool(((part - dropped[2:5]).abs() <= 2 * bound[2:5]).all())
        assert not torch.equal(dropped, plain)

    def test_rescaled_outputs_are_of_order_one(self) -> None:
        layer, x = self.generic(), self.inputs(25)
        assert layer.train().rescale_(x) is layer
        assert layer.training
        sizes = layer.eval()(x).detach().square().mean(1).sqrt()
        assert sizes.median().item() == pytest.approx(1, rel=1e-12)

    def test_weights_of_samples_are_repetitions(self) -> None:
        x = self.inputs(9)
        times = torch.tensor([0, 3, 1, 1, 2, 0, 5, 1, 1])
        weighted = self.generic().rescale_(x, times.double())
        repeated = self.generic().rescale_(x.repeat_interleave(times, 0))
        plain, ones = self.generic().rescale_(x), self.generic().rescale_(x, torch.ones(9))
        for a, b, c, d in zip(*(m.parameters() for m in (weighted, repeated, plain, ones)), strict=True):
            assert_close(a, b, 1e-8)  # least squares whose condition is up to 1e6, see `fit_path`
            assert_close(d, c, 1e-8)
        for bad in (torch.ones(8), -torch.ones(9), torch.zeros(9), torch.full((9,), torch.nan)):
            with pytest.raises(InputError, match="weight"):
                self.generic().rescale_(x, bad)

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize("shape", [(4, 6), (6,), (4, 5, 7), (4, 7, 2), (4, 5, 2, 1)])
    def test_inputs_of_another_shape_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match=r"expected inputs \[b, 5\] or features \[b, 5, \d\], got"):
            self.make()(torch.zeros(shape, dtype=torch.float64))


class OneTensor(TensorMember):
    """Of networks that are one tensor: outputs linear in every site's features, and spectra of its cuts."""

    @pytest.mark.parametrize("factor", [16.0, 1 / 16])
    def test_the_scale_of_many_sites(self, factor: float) -> None:
        """Outputs are linear in every site's features: all times 16 moves the logarithm by n log 16."""
        layer = self.make(600, 2, dtype="float32").eval()
        x = self.inputs(3, 600, torch.float32)
        features = layer.features(x)
        (value, log), (large, larger) = layer.log_forward(features), layer.log_forward(features * factor)
        grown = large.abs().log() + larger.unsqueeze(1) - value.abs().log() - log.unsqueeze(1)
        # a sum of 600 logarithms in float32, and exponents that may be split at other sites
        torch.testing.assert_close(
            grown, torch.full_like(grown, 600 * math.log(factor)), rtol=1e-5, atol=1e-3
        )
        large.sum().backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in layer.parameters())

    @pytest.mark.parametrize("dtype", ["float64", "complex128"])
    def test_spectra_and_norm_are_those_of_the_dense_tensor(self, dtype: str) -> None:
        layer = self.generic(dtype=dtype)
        tensor = self.weight_tensor(layer).detach().numpy()
        found = schmidt(layer)
        assert found.log_norm == pytest.approx(np.log(np.linalg.norm(tensor)), abs=1e-9)
        cuts = self.cuts(layer)
        assert len(found.values) == len(cuts) > 0
        for values, legs in zip(found.values, cuts, strict=True):
            rest = [leg for leg in range(tensor.ndim) if leg not in legs]
            rows = math.prod(tensor.shape[leg] for leg in legs)
            matrix = tensor.transpose(*legs, *rest).reshape(rows, -1)
            expected = np.linalg.svd(matrix, compute_uv=False)
            expected = expected / np.linalg.norm(expected)
            assert values.dtype == torch.float64
            assert values.square().sum().item() == pytest.approx(1, rel=1e-9)
            many = max(len(values), len(expected))
            padded = [np.pad(v, (0, many - len(v))) for v in (values.numpy(), expected)]
            # the roots of an overlap matrix lose half of the digits
            np.testing.assert_allclose(*padded, atol=1e-7)
        probabilities = [v[v > 0].square() for v in found.values]
        entropies = [-(p * p.log()).sum().item() for p in probabilities]
        np.testing.assert_allclose(found.entropies, entropies, atol=1e-12)
        assert list(singular_values(layer)) == [f"bond.{place}" for place in range(len(cuts))]
        assert count_parameters(layer).n_parameters == sum(p.numel() for p in layer.parameters())


def _function(value: object) -> object:
    return value.fget if isinstance(value, property) else value
