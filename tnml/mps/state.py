"""The matrix product state as a value: cores, a logarithmic scale, and what can be asked of it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tnml.checks import is_whole
from tnml.errors import InputError
from tnml.mps import algebra, canonical
from tnml.mps.checks import check_state_cores, checked_dtype, checked_log_scale, checked_site, shortened
from tnml.mps.measure import MeasuredState


class MatrixProductState(MeasuredState):
    """A matrix product state: exp(log_scale) times the product of its cores.

    It is immutable: every operation returns a new one (do not write into its tensors). All of them let
    gradients through to the cores, except sampling. The scale is kept as a logarithm, so that states of
    thousands of sites have norms and overlaps (`log_norm`, `log_inner`) where plain numbers would overflow.

    Args:
        cores: tensors `(l, d, r)`, outer bonds 1, of one dtype and on one device. The physical dimension d
            may differ from site to site.
        log_scale: real logarithm of a factor in front.
        label_site: index of the core whose physical leg is a class label, or None. The algebra treats
            that core as any other.

    Raises:
        InputError: the cores do not fit each other, or hold NaN or infinite values.

    Source: Schollwöck, arXiv 1008.3477, section 4.

    Example:
        >>> state = MatrixProductState([torch.ones(1, 2, 3), torch.ones(3, 2, 1)])
        >>> state
        MatrixProductState(n_sites=2, physical_dims=[2, 2], bond_dims=[1, 3, 1], dtype=float32)
        >>> round(float(state.norm()), 4)
        6.0
    """

    def __init__(
        self, cores: Sequence[Tensor], *, log_scale: float | Tensor = 0.0, label_site: int | None = None
    ) -> None:
        check_state_cores(cores)
        self._cores = tuple(core.resolve_conj() for core in cores)  # numpy does not accept lazy conjugates
        self.label_site = None if label_site is None else checked_site(label_site, self.n_sites, "label_site")
        self.log_scale = checked_log_scale(log_scale, self.device)

    @property
    def cores(self) -> list[Tensor]:
        """The cores `(l, d, r)`."""
        return list(self._cores)

    @property
    def n_sites(self) -> int:
        """The number of cores, a label core included."""
        return len(self._cores)

    @property
    def physical_dims(self) -> list[int]:
        """The physical dimension of every site."""
        return [core.shape[1] for core in self._cores]

    @property
    def bond_dims(self) -> list[int]:
        """All n_sites + 1 bond dimensions; the outer ones are 1."""
        return [1, *(core.shape[2] for core in self._cores)]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the cores."""
        return self._cores[0].dtype

    @property
    def device(self) -> torch.device:
        """The device of the cores."""
        return self._cores[0].device

    def __len__(self) -> int:
        return self.n_sites

    def __repr__(self) -> str:
        label = "" if self.label_site is None else f", label_site={self.label_site}"
        return (
            f"MatrixProductState(n_sites={self.n_sites}, physical_dims={shortened(self.physical_dims)}, "
            f"bond_dims={shortened(self.bond_dims)}, dtype={str(self.dtype).removeprefix('torch.')}{label})"
        )

    # makers

    @classmethod
    def random(
        cls,
        n_sites: int,
        bond_dim: int,
        physical: int | Sequence[int] = 2,
        *,
        kind: str = "gaussian",
        dtype: str | torch.dtype = "float64",
        device: str | torch.device | None = None,
        seed: int = 0,
    ) -> "MatrixProductState":
        """A random state with bonds `bond_dim`, smaller near the ends where more would be redundant.

        Args:
            n_sites: number of sites.
            bond_dim: largest bond dimension.
            physical: physical dimension, or that of every site.
            kind: "gaussian" (independent entries; the squared norm is 1 on average) or "isometric" (random
                isometries; the norm is 1).
            dtype: "float32", "float64", "complex64", "complex128" or the torch dtype.
            device: where the cores live.
            seed: the same seed gives the same state in every dtype of its kind and on every device.

        Example:
            >>> MatrixProductState.random(5, 3).bond_dims
            [1, 2, 3, 3, 2, 1]
        """
        cores = algebra.random_cores(n_sites, bond_dim, physical, kind, checked_dtype(dtype), seed)
        return cls([core.to(device) for core in cores])

    @classmethod
    def product(cls, vectors: Tensor | Sequence[Tensor]) -> "MatrixProductState":
        """The product state of one vector per site: a tensor `[n, d]` or a sequence of vectors.

        Raises:
            InputError: they are not vectors of one dtype.

        Example:
            >>> MatrixProductState.product(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).to_dense()
            tensor([[0., 1.],
                    [0., 0.]])
        """
        for site, vector in enumerate(vectors):
            if not isinstance(vector, Tensor) or vector.dim() != 1:
                came = list(vector.shape) if isinstance(vector, Tensor) else type(vector).__name__
                raise InputError(f"vector {site} must be a tensor of shape [d], got {came}")
        return cls([vector.reshape(1, -1, 1) for vector in vectors])

    @classmethod
    def from_dense(
        cls,
        tensor: Inexact[Tensor, "..."],
        *,
        max_bond: int | Sequence[int] | None = None,
        max_error: float | None = None,
        label_site: int | None = None,
    ) -> "MatrixProductState":
        """The state of a dense tensor `[d_0, .., d_{n-1}]`, exact or truncated as by `truncate`.

        Raises:
            InputError: the tensor has no axis, is not of a floating dtype, or a limit is out of range.

        Cost: that of n singular value decompositions of the whole tensor.

        Source: Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295, algorithm 1 (TT-SVD).

        Example:
            >>> MatrixProductState.from_dense(torch.eye(2)).bond_dims
            [1, 2, 1]
        """
        if not isinstance(tensor, Tensor):
            raise InputError(f"expected a torch tensor, got {type(tensor).__name__}; use torch.as_tensor")
        checked_dtype(tensor.dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise InputError("the dense tensor holds NaN or infinite values; remove them")
        cores, log = canonical.from_dense(tensor, max_bond, max_error)
        return cls(cores, log_scale=log, label_site=label_site)

    # algebra

    def to_dense(self) -> Inexact[Tensor, "..."]:
        """The tensor `[d_0, .., d_{n-1}]`, of 2^28 entries at most."""
        return algebra.to_dense(self._cores, self.log_scale)

    def inner(self, other: "MatrixProductState") -> Inexact[Tensor, ""]:
        """<self|other>, this state conjugated; it may overflow where `log_inner` does not.

        Example:
            >>> state = MatrixProductState.product(torch.tensor([[3.0, 4.0]]))
            >>> state.inner(state)
            tensor(25.)
        """
        value, log = self._overlap(other)
        return value * log.exp().to(value.dtype)

    def log_inner(self, other: "MatrixProductState") -> tuple[Tensor, Tensor]:
        """<self|other> as its phase (the sign, for real states) and the log of its absolute value."""
        value, log = self._overlap(other)
        size = value.abs()
        return torch.where(size > 0, value / size.clamp(min=1e-30), value), size.double().log() + log

    def log_norm(self) -> Float[Tensor, ""]:
        """The logarithm of the norm, float64; -inf for the zero state."""
        value, log = algebra.overlap(self._cores, self._cores)
        return (value.real.clamp(min=0).double().log() + log) / 2 + self.log_scale

    def norm(self) -> Float[Tensor, ""]:
        """The norm, in the real dtype of the cores; it may overflow where `log_norm` does not.

        Of a difference of nearly equal states it is known to the root of the rounding error only, as it
        comes from a contraction of the squared norm; `canonical(0)` first keeps full precision.
        """
        return self.log_norm().exp().to(self._cores[0].real.dtype)

    def fidelity(self, other: "MatrixProductState") -> Float[Tensor, ""]:
        """|<self|other>|² over both squared norms, float64; between 0 and 1.

        Raises:
            InputError: one of the states is zero, or they do not fit each other.
        """
        value, log = self._overlap(other)
        norms = self._nonzero_log_norm() + other._nonzero_log_norm()
        return value.abs().square().double() * (2 * (log - norms)).exp()

    def log_fidelity(self, other: "MatrixProductState") -> Float[Tensor, ""]:
        """The logarithm of `fidelity`; far from -inf also for long states that are nearly orthogonal."""
        norms = self._nonzero_log_norm() + other._nonzero_log_norm()
        return 2 * (self.log_inner(other)[1] - norms)

    def normalized(self) -> "MatrixProductState":
        """This state divided by its norm; the cores stay as they are.

        Raises:
            InputError: the state is zero.
        """
        return self._with(self._cores, self.log_scale - self._nonzero_log_norm())

    def __add__(self, other: "MatrixProductState") -> "MatrixProductState":
        self._check_peer(other)
        cores, log = algebra.add(self._cores, self.log_scale, other._cores, other.log_scale)
        return self._with(cores, log)

    def __radd__(self, other: object) -> "MatrixProductState":
        if is_whole(other, 0, 0):  # where sum() begins
            return self
        return NotImplemented

    def __sub__(self, other: "MatrixProductState") -> "MatrixProductState":
        return self + (-other)

    def __mul__(self, factor: complex | Tensor) -> "MatrixProductState":
        cores, log = algebra.scale(self._cores, factor)
        return self._with(cores, self.log_scale + log)

    __rmul__ = __mul__

    def __truediv__(self, divisor: complex | Tensor) -> "MatrixProductState":
        cores, log = algebra.divide(self._cores, divisor)
        return self._with(cores, self.log_scale + log)

    def __neg__(self) -> "MatrixProductState":
        return self * -1.0

    def hadamard(self, other: "MatrixProductState") -> "MatrixProductState":
        """The entrywise product; the bonds multiply.

        Example:
            >>> state = MatrixProductState.product(torch.tensor([[3.0, 4.0]]))
            >>> state.hadamard(state).to_dense().round()
            tensor([ 9., 16.])
        """
        self._check_peer(other)
        cores, log = algebra.hadamard(self._cores, other._cores)
        return self._with(cores, self.log_scale + other.log_scale + log)

    def apply(
        self,
        mpo: Sequence[Tensor],
        *,
        max_bond: int | Sequence[int] | None = None,
        max_error: float | None = None,
    ) -> "MatrixProductState":
        """A matrix product operator applied to this state; the bonds multiply, then `truncate` as asked.

        Args:
            mpo: cores `(l, o, i, r)`, the output leg before the input leg, outer bonds 1.
            max_bond: see `truncate`.
            max_error: see `truncate`.

        Raises:
            InputError: the operator does not fit, or a limit is out of range.
        """
        applied = self._with(algebra.apply(self._cores, mpo), self.log_scale)
        if max_bond is None and max_error is None:
            return applied
        return applied.truncate(max_bond=max_bond, max_error=max_error).state

    def conj(self) -> "MatrixProductState":
        """The complex conjugate."""
        return self._with([core.conj() for core in self._cores], self.log_scale)

    def to(
        self, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None
    ) -> "MatrixProductState":
        """This state in another dtype or on another device.

        Raises:
            InputError: the dtype is unknown, or real for a complex state.
        """
        chosen = self.dtype if dtype is None else checked_dtype(dtype)
        if self.dtype.is_complex and not chosen.is_complex:
            raise InputError(
                f"a complex state cannot become {chosen}; take real parts of what you compute from it"
            )
        return self._with([core.to(device, chosen) for core in self._cores], self.log_scale.to(device))

    def detach(self) -> "MatrixProductState":
        """This state, cut off from the graph of autograd."""
        return self._with([core.detach() for core in self._cores], self.log_scale.detach())

    # canonical forms

    def canonical(self, center: int) -> "MatrixProductState":
        """The same state, its cores isometries left and right of `center`; the norm is in `log_scale`.

        Raises:
            InputError: there is no such site.

        Cost: n d chi^3.

        Example:
            >>> core = MatrixProductState.random(4, 3).canonical(3).cores[1]
            >>> torch.allclose(torch.einsum("ldr,lds->rs", core, core), torch.eye(3, dtype=core.dtype))
            True
        """
        cores, log = canonical.canonical(self._cores, center)
        return self._with(cores, self.log_scale + log)

    def vidal(self) -> tuple[list[Tensor], list[Tensor]]:
        """The normalised state as Γ_0 λ_0 Γ_1 .. Γ_{n-1}: cores Γ `(l, d, r)` and Schmidt values λ."""
        return canonical.vidal(self._cores)

    def schmidt_values(self) -> list[Tensor]:
        """The Schmidt values of the n_sites - 1 inner bonds, descending, their squares adding up to 1."""
        return canonical.schmidt_values(self._cores)

    def entropies(self, order: float = 1.0) -> Float[Tensor, " n"]:
        """The entanglement entropy of every inner bond, in nats: von Neumann's, or that of Rényi.

        Example:
            >>> MatrixProductState.from_dense(torch.eye(2)).entropies()
            tensor([0.6931])
        """
        found = canonical.entropies(self.schmidt_values(), order)
        return found if self.n_sites > 1 else found.to(self.device, self._cores[0].real.dtype)

    def effective_bond_dims(self) -> Float[Tensor, " n"]:
        """exp(entropy) of every inner bond: how many equal Schmidt values would be as entangled."""
        return self.entropies().exp()

    def truncate(
        self, *, max_bond: int | Sequence[int] | None = None, max_error: float | None = None
    ) -> "Truncation":
        """The state with smaller bonds, and the relative error that was really made.

        Args:
            max_bond: largest bond dimension, one number or one for each inner bond; None sets no limit.
            max_error: largest relative error |psi - psi'| / |psi| of the whole state; every bond may lose the
                weight max_error² / (n_sites - 1). None drops only what rounding cannot tell from zero.

        Raises:
            InputError: a limit is out of range.

        Cost: n d chi^3.

        Source: Schollwöck, arXiv 1008.3477, section 4.5; Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295.

        Example:
            >>> state, error, discarded = MatrixProductState.from_dense(torch.eye(2)).truncate(max_bond=1)
            >>> state.bond_dims, round(error, 4)
            ([1, 1, 1], 0.7071)
        """
        cores, log, lost = canonical.truncate(self._cores, max_bond, max_error)
        error = min(sum(lost), 1.0) ** 0.5  # rounding may add up to more
        return Truncation(self._with(cores, self.log_scale + log), error, lost)

    def _with(self, cores: Sequence[Tensor], log_scale: Tensor) -> "MatrixProductState":
        return MatrixProductState(cores, log_scale=log_scale, label_site=self.label_site)

    def _overlap(self, other: "MatrixProductState") -> tuple[Tensor, Tensor]:
        self._check_peer(other)
        value, log = algebra.overlap(self._cores, other._cores)
        return value, log + self.log_scale + other.log_scale

    def _nonzero_log_norm(self) -> Tensor:
        log_norm = self.log_norm()
        if not bool(torch.isfinite(log_norm)):
            raise InputError("the state is zero, so it cannot be normalised or compared")
        return log_norm

    def _check_peer(self, other: object) -> None:
        if not isinstance(other, MatrixProductState):
            raise InputError(f"expected a MatrixProductState, got {type(other).__name__}")
        for what in ("physical_dims", "dtype", "device"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise InputError(f"the states differ in {what}: {mine} and {theirs}; convert one of them")


class Truncation(NamedTuple):
    """What `MatrixProductState.truncate` found.

    Attributes:
        state: the truncated state.
        error: the relative error |psi - psi'| / |psi|.
        discarded: the weight lost at every inner bond, relative to |psi|²; they add up to error².

    Example:
        >>> MatrixProductState.random(6, 8).truncate(max_bond=3).state.bond_dims
        [1, 2, 3, 3, 3, 2, 1]
    """

    state: MatrixProductState
    error: float
    discarded: list[float]
