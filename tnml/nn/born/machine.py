"""The Born machine as a PyTorch module: an amplitude, its norm, and the log-likelihood they make."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tnml.checks import whole
from tnml.contraction.norm import chain_log_norm
from tnml.errors import InputError
from tnml.features import FeatureMap, feature_map
from tnml.files import FORMAT, write_model
from tnml.nn.born.basis import density_map, identity_path, live
from tnml.nn.born.questions import Questions
from tnml.nn.born.start import starting_product, with_noise
from tnml.nn.born.state import BornState
from tnml.nn.computed import check_plain, effective_state
from tnml.nn.entry import check_input, on_the_cpu, placed, refuse_scripting
from tnml.nn.mps.layer import MPSLayer
from tnml.randomness import seeded


class BornMachine(Questions, nn.Module):
    """A probability density p(x) = sum_h |psi_h(x)|² / Z over columns, by a matrix product state psi.

    `forward` gives log p, so that `tnml.training.train_density` trains it by maximum likelihood. Columns with
    "one-hot" features are discrete: p is a probability, and a value is `level / (levels - 1)`. All others are
    numbers in [0, 1], and p is a density with respect to them; their features are made orthonormal, so that Z
    is the squared norm of psi. With `classes` there is one column more, the last: the class, 0 to
    classes - 1, a site of the chain like the others; a negative number stands for an unknown class.

    Args:
        n_sites: number of columns n, without the class.
        bond_dim: largest bond dimension, or all of them; see `MPSLayer`.
        classes: number of classes; None: there is no class.
        hidden: values h of a hidden variable in the middle of the chain, over which p is summed (a
            purification): a mixture of `hidden` states that share all cores but one.
        features: as of `MPSLayer`; a map of columns gives each its own, of which some may be discrete.
        order: site order, a name or a permutation; see `tnml.features.site_order`.
        shape: `(height, width)` of the image behind the sites, for the order.
        class_site: number of sites left of the class and the hidden variable; None takes the middle.
        noise: standard deviation of the noise on the starting path; None chooses it.
        dtype: "float32", .. or the torch dtype, real or complex; None: torch's default.
        device: where the parameters live; None: torch's default.
        engine: of the amplitude; see `MPSLayer`.
        seed: seed of the initial noise.

    Raises:
        InputError: an argument is out of range.

    Cost: of a batch that of `MPSLayer`; of the norm 2 n d chi^3 multiply-adds a batch, 5 with the gradient.

    Source: Han et al., Phys. Rev. X 8, 031012 (arXiv 1709.01662); with a hidden variable Glasser et al.,
    arXiv 1907.03741.

    Example:
        >>> machine = BornMachine(4, bond_dim=2)
        >>> every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
        >>> round(machine(every).exp().sum().item(), 5)
        1.0
    """

    __prepare_scriptable__ = refuse_scripting

    def __init__(
        self,
        n_sites: int,
        bond_dim: int | Sequence[int] = 10,
        *,
        classes: int | None = None,
        hidden: int = 1,
        features: str | Mapping[str, Any] | Callable[[Tensor], Tensor] | FeatureMap = "one-hot",
        order: str | Sequence[int] = "raster",
        shape: tuple[int, int] | None = None,
        class_site: int | None = None,
        noise: float | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        engine: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.classes = None if classes is None else whole("classes", classes, 2)
        self.hidden = whole("hidden", hidden, 1)
        self._noise, self._seed = noise, seed
        with on_the_cpu():
            fmap = density_map(feature_map(features))
        self.psi = MPSLayer(
            n_sites,
            (self.classes or 1) * self.hidden,
            bond_dim,
            features=fmap,
            order=order,
            shape=shape,
            label_site=class_site,
            dtype=dtype,
            device=device,
            engine=engine,
            seed=seed,
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Starts again from the seed, at the uniform density with a little noise.

        Raises:
            InputError: pruning or a parametrization computes a parameter.
        """
        check_plain(self.psi, "reset it")
        if self.psi.weight.is_meta:
            return
        with on_the_cpu():
            path = identity_path(self.psi)
            spread = path.abs().clamp_min(0.1)
        self._start_at(path, spread)

    @torch.no_grad()
    def start_(self, x: Tensor, weight: Tensor | None = None) -> Self:
        """This machine, set to the product of the columns' own densities, with a little noise.

        Each site starts at the amplitude of largest likelihood for its column alone, smoothed by half a
        sample for every level; noise is in proportion to what the samples show.

        Args:
            x: some hundred samples or more, as for `forward`.
            weight: `[b]`, at least 0: how often each sample counts; None counts all alike.

        Raises:
            InputError: the shape does not fit.

        Example:
            >>> machine = BornMachine(2, bond_dim=2, noise=0.0).start_(torch.tensor([[1.0, 0.0]] * 49))
            >>> machine(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).exp().detach()
            tensor([[0.9801],
                    [0.0099]])
        """
        inputs, labels = self._columns(x)
        features = self.psi.local_features(inputs)
        path, spread = starting_product(features, live(self.psi), weight)
        self._start_at(path, spread)
        if labels is not None:
            known = labels[labels >= 0].cpu()
            counts = 1.0 + torch.bincount(known, minlength=self.classes or 1).double()
            shares = (counts / counts.mean()).sqrt().repeat_interleave(self.hidden)
            self.psi.label.mul_(shares.to(self.psi.label).unsqueeze(1))
        return self

    def _start_at(self, path: Tensor, spread: Tensor) -> None:
        """Gives the chain a product state `[n, d]` and noise in proportion to `spread` `[n, d]`."""
        psi = self.psi
        with on_the_cpu():
            weight, label = with_noise(
                psi.chain_shape,
                psi.out_features,
                path,
                spread * live(psi),
                self._noise,
                psi.dtype,
                seeded(self._seed),
            )
        psi.weight.copy_(placed(weight, psi.weight.device))
        psi.label.copy_(placed(label, psi.label.device))

    @property
    def n_columns(self) -> int:
        """Columns of a sample: the sites, and the class where there is one."""
        return self.psi.n_sites + (self.classes is not None)

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b 1"]:
        """The logarithm of p `[b, 1]` of samples `[b, n]`; a negative class is not known.

        b is any number of axes. For columns without a value use `log_prob`.

        Raises:
            InputError: the shape does not fit, or a class does not exist.
        """
        inputs, labels = self._columns(x)
        log = self.log_joint(inputs)
        if labels is None:
            return log
        known = log.gather(-1, labels.clamp(min=0))
        return torch.where(labels >= 0, known, log.logsumexp(-1, keepdim=True))

    def log_joint(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b c"]:
        """The logarithm of p(x, class) `[b, c]` of every class; one column where there are none.

        Args:
            x: samples without the class.

        Raises:
            InputError: the shape does not fit.

        Example:
            >>> machine = BornMachine(2, classes=3, noise=0.0)
            >>> round(machine.log_joint(torch.zeros(1, 2)).exp().sum().item(), 5)  # of four samples
            0.25
        """
        value, log_scale = self.psi.log_forward(x)
        size = value.abs()
        log = 2 * size.clamp_min(torch.finfo(size.dtype).tiny).log()
        if self.hidden > 1:
            log = log.unflatten(-1, (-1, self.hidden)).logsumexp(-1)
        return log + (2 * log_scale - self.log_partition()).unsqueeze(-1)

    def log_partition(self) -> Float[Tensor, ""]:
        """The logarithm of Z, differentiable; Z is the squared norm of psi.

        Example:
            >>> round(BornMachine(4, noise=0.0).log_partition().item(), 4)  # psi is 1 at all 16 states
            2.7726
        """
        return chain_log_norm(self.psi.weight, self.psi.label, self.psi.chain_shape)

    def exact(self) -> BornState:
        """What the questions are asked of: the cores in double precision, without gradient."""
        return BornState.of(self.psi, self.classes, self.hidden)

    def _columns(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The inputs of the sites and, where there are classes, the class `[b, 1]` of each sample."""
        check_input(x)
        if x.shape[-1:] != (self.n_columns,):
            raise InputError(f"expected samples [b, {self.n_columns}], got {list(x.shape)}")
        if self.classes is None:
            return x, None
        labels = x[..., -1:].round().long()
        if bool((labels >= self.classes).any()):
            raise InputError(
                f"the last column is the class, 0 to {self.classes - 1} or negative, got {int(labels.max())}"
            )
        return x[..., :-1], labels

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this machine (not its weights), ready for JSON."""
        known = self.psi.config
        kept = ("n_sites", "bond_dim", "features", "order", "shape", "dtype", "engine")
        return {
            **{name: known[name] for name in kept},
            "class_site": self.psi.label_site,
            "classes": self.classes,
            "hidden": self.hidden,
        }

    def identity(self) -> dict[str, Any]:
        """What has to be the same where a run is resumed."""
        return {**self.psi.identity(), "classes": self.classes, "hidden": self.hidden}

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the machine to one safetensors file; `tnml.load` reads it.

        Raises:
            InputError: the file cannot be written, or the feature map is a user's function.
        """
        facts = {"format": FORMAT, "kind": "born-machine", "network": self.psi.network, "config": self.config}
        write_model(path, effective_state(self), facts)

    @classmethod
    def restored(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """The machine with this configuration and state dict, as a file has them.

        Raises:
            InputError: an argument is out of range.
            RuntimeError: torch's own, where the state does not fit.
        """
        machine = cls(**config)
        machine.load_state_dict(dict(state))
        return machine

    def extra_repr(self) -> str:
        """Classes and hidden values."""
        return f"classes={self.classes}, hidden={self.hidden}"
