"""What a measurement of a matrix product state would show: density matrices, correlations, samples."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Inexact, Int64
from torch import Tensor

from tnml.checks import whole
from tnml.errors import InputError
from tnml.mps.algebra import overlap
from tnml.mps.canonical import canonical, spectrum_entropy
from tnml.mps.checks import check_nonzero, checked_site
from tnml.mps.linalg import rescaled
from tnml.randomness import seeded

LARGEST_INTERMEDIATE = 2**28  # numbers: 2 GB in double precision
LARGEST_DENSITY = 2**12  # rows of a reduced density matrix
CHUNK = 2**22  # entries of the largest intermediate of sampling


class MeasuredState:
    """The measurements among the methods of `MatrixProductState`.

    Example:
        >>> from tnml.mps import MatrixProductState
        >>> issubclass(MatrixProductState, MeasuredState)
        True
    """

    _cores: tuple[Tensor, ...]

    def reduced_density_matrix(self, sites: Sequence[int]) -> Inexact[Tensor, "k k"]:
        """The density matrix of some sites, which need not be neighbours, with trace 1.

        Args:
            sites: different sites; the rows and columns run over their legs in this order, the last fastest.

        Raises:
            InputError: a site does not exist or is named twice, there are too many, or the state is zero.

        Cost: n d chi^3, and chi² for each entry of the matrix; between the first and the last of the sites
            a site takes d chi^3 for each entry of the density matrix of half of the sites.

        Example:
            >>> from tnml.mps import MatrixProductState
            >>> MatrixProductState.from_dense(torch.eye(2)).reduced_density_matrix([1])
            tensor([[0.5000, 0.0000],
                    [0.0000, 0.5000]])
        """
        return reduced_density_matrix(self._cores, sites)

    def expectation(self, operators: Mapping[int, Tensor]) -> Inexact[Tensor, ""]:
        """<psi| O |psi> / <psi|psi> of a product of operators on single sites.

        Args:
            operators: for each site a matrix `(d, d)`, row index (the bra's) first.

        Raises:
            InputError: a site or an operator does not fit, or the state is zero.

        Cost: n d chi^3.

        Example:
            >>> from tnml.mps import MatrixProductState
            >>> up = MatrixProductState.product(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
            >>> up.expectation({0: torch.diag(torch.tensor([1.0, -1.0]))})
            tensor(1.)
        """
        return expectation(self._cores, operators)

    def correlation(self, a: Tensor, i: int, b: Tensor, j: int) -> Inexact[Tensor, ""]:
        """The connected correlation <a_i b_j> - <a_i><b_j> of matrices `a` on site i and `b` on site j.

        Raises:
            InputError: as `expectation`.
        """
        i, j = (checked_site(site, len(self._cores)) for site in (i, j))
        together = {i: a @ b} if i == j else {i: a, j: b}
        return self.expectation(together) - self.expectation({i: a}) * self.expectation({j: b})

    def mutual_information(self, i: int, j: int) -> Float[Tensor, ""]:
        """S_i + S_j - S_ij of two different sites, in nats.

        Raises:
            InputError: as `reduced_density_matrix`.

        Example:
            >>> from tnml.mps import MatrixProductState
            >>> round(float(MatrixProductState.from_dense(torch.eye(2)).mutual_information(0, 1)), 4)
            1.3863
        """
        densities = [self.reduced_density_matrix(sites) for sites in ([i], [j], [i, j])]
        parts = [spectrum_entropy(torch.linalg.eigvalsh(density)) for density in densities]
        return parts[0] + parts[1] - parts[2]

    def sample(self, n_samples: int, *, seed: int = 0) -> Int64[Tensor, "b n"]:
        """Independent configurations drawn from |psi(s)|² / <psi|psi>, exactly; no gradient.

        Raises:
            InputError: `n_samples` is not positive, or the state is zero.

        Cost: b n d chi² for b samples, after one canonical form.

        Source: Ferris and Vidal, arXiv 1201.3974.

        Example:
            >>> from tnml.mps import MatrixProductState
            >>> MatrixProductState.product(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).sample(2)
            tensor([[1, 0],
                    [1, 0]])
        """
        return sample(self._cores, n_samples, seed)

    def log_probability(self, configurations: Int64[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """log(|psi(s)|² / <psi|psi>) `[b]` of configurations s `[b, n]`, float64; -inf where it vanishes.

        Raises:
            InputError: the configurations are not of this state, or the state is zero.

        Cost: b n d chi².

        Example:
            >>> from tnml.mps import MatrixProductState
            >>> state = MatrixProductState.product(torch.tensor([[3.0, 4.0]]))
            >>> state.log_probability(torch.tensor([[0], [1]])).exp()
            tensor([0.3600, 0.6400], dtype=torch.float64)
        """
        return log_probability(self._cores, configurations)


def reduced_density_matrix(cores: Sequence[Tensor], sites: Sequence[int]) -> Inexact[Tensor, "k k"]:
    """See `MeasuredState.reduced_density_matrix`.

        k ─┐         ┌─ k'
           left ═══ right         from both ends to a bond in the middle, then one matrix product
        b ─┘         └─ b'

    Example:
        >>> reduced_density_matrix([torch.tensor([[[3.0], [4.0]]])], [0])
        tensor([[0.3600, 0.4800],
                [0.4800, 0.6400]])
    """
    chosen = [checked_site(site, len(cores)) for site in sites]
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"expected one or more different sites, got {chosen}")
    first, last = min(chosen), max(chosen)
    middle = _balanced(cores, sorted(chosen))
    cores, _ = canonical(cores, first)
    check_nonzero(cores[first])
    # Sites outside are isometries, so that the bonds of ket and bra are the same there.
    left = _environment(cores, range(first, middle), chosen, cores[first].shape[0])
    mirrored = [core.permute(2, 1, 0) for core in cores]
    way = range(last, middle - 1, -1)
    right = _environment(mirrored, way, chosen, cores[last].shape[2], before=True)
    left = left / (_traced(left) * _traced(right)).sum().real
    k, b, l, m = right.shape
    found = left.flatten(0, 1).flatten(1) @ right.reshape(k * b, l * m).T
    found = found.reshape(*left.shape[:2], k, b).transpose(1, 2).reshape(left.shape[0] * k, -1)
    ordered = sorted(chosen)
    if chosen == ordered:
        return found
    dims = [cores[site].shape[1] for site in ordered]
    places = [ordered.index(site) for site in chosen]
    legs = [*places, *(len(places) + place for place in places)]
    return found.reshape(dims * 2).permute(legs).reshape(found.shape)


def _balanced(cores: Sequence[Tensor], sites: Sequence[int]) -> int:
    """The first site of the right half, where both halves have about as many rows.

    Raises:
        InputError: the matrix, or what is needed on the way to it, is too large.
    """
    rows = [1]
    for site in sites:
        rows.append(rows[-1] * cores[site].shape[1])
    size = rows[-1]
    if size > LARGEST_DENSITY:
        raise InputError(
            f"a density matrix of {size} rows is too large (most: {LARGEST_DENSITY}); take fewer sites"
        )
    half = min(range(len(rows)), key=lambda i: max(rows[i], size // rows[i]))
    widest = max(core.shape[2] for core in cores[sites[0] : sites[-1] + 1])
    needed = (max(rows[half], size // rows[half]) * widest) ** 2
    if needed > LARGEST_INTERMEDIATE:
        raise InputError(
            f"a density matrix of {size} rows over bonds of {widest} needs {needed:.1e} numbers on the way "
            f"(most: {LARGEST_INTERMEDIATE:.1e}); take fewer sites or truncate the state"
        )
    return sites[half] if half < len(sites) else sites[-1] + 1


def _environment(
    cores: Sequence[Tensor], way: Sequence[int], chosen: Sequence[int], bond: int, *, before: bool = False
) -> Inexact[Tensor, "k b l m"]:
    """Ket and bra of the sites of a way: the legs of those chosen, and the bonds at its end.

        k ─┐     ┌─ l ── core ── r
           │ env │        │ d            a chosen site leaves d and e open: they join k and b;
           │     │        │ e            at any other site d = e is summed
        b ─┘     └─ m ── bra* ── t

    Args:
        cores: those of the way in its direction, `(l, d, r)`.
        way: sites, in the order in which they are contracted.
        chosen: the sites that keep their legs.
        bond: the dimension of the bond where the way begins.
        before: whether legs come before those that are there, as on the way back.
    """
    env = torch.eye(bond, dtype=cores[0].dtype, device=cores[0].device)[None, None]
    for site in way:
        core, bra = cores[site], cores[site].conj()
        half = torch.tensordot(env, core, ([2], [0]))  # [k, b, m, d, r]
        if site not in chosen:
            env = torch.tensordot(half, bra, ([2, 3], [0, 1]))
            continue
        env = torch.tensordot(half, bra, ([2], [0]))  # [k, b, d, r, e, t]
        k, b, d, r, e, t = env.shape
        env = env.permute(2, 0, 4, 1, 3, 5) if before else env.permute(0, 2, 1, 4, 3, 5)
        env = env.reshape(k * d, b * e, r, t)
    return env


def _traced(env: Inexact[Tensor, "k b l m"]) -> Inexact[Tensor, "l m"]:
    """An environment with the legs of ket and bra summed."""
    return env.diagonal(dim1=0, dim2=1).sum(-1)


def expectation(cores: Sequence[Tensor], operators: Mapping[int, Tensor]) -> Inexact[Tensor, ""]:
    """See `MeasuredState.expectation`.

    Example:
        >>> expectation([torch.tensor([[[3.0], [4.0]]])], {0: torch.diag(torch.tensor([1.0, 2.0]))})
        tensor(1.6400)
    """
    ket = list(cores)
    for site, operator in operators.items():
        core = ket[checked_site(site, len(ket))]
        d = core.shape[1]
        if not isinstance(operator, Tensor) or operator.shape != (d, d) or operator.dtype != core.dtype:
            raise InputError(
                f"the operator on site {site} must be a [{d}, {d}] tensor of {core.dtype}, "
                f"got {_told(operator)}"
            )
        ket[site] = torch.einsum("de,ler->ldr", operator, core)
    below, log_below = overlap(cores, cores)
    check_nonzero(below)
    above, log_above = overlap(cores, ket)
    return above / below.real * (log_above - log_below).exp().to(above.dtype)


@torch.no_grad()
def sample(cores: Sequence[Tensor], n_samples: int, seed: int = 0) -> Int64[Tensor, "b n"]:
    """See `MeasuredState.sample`.

    Example:
        >>> sample([torch.tensor([[[0.0], [4.0]]])], 2).tolist()
        [[1], [1]]
    """
    n_samples = whole("n_samples", n_samples, 1)
    cores, _ = canonical([core.detach() for core in cores], 0)
    check_nonzero(cores[0])
    generator = seeded(seed)
    size = max(1, CHUNK // max(core.shape[1] * core.shape[2] for core in cores))
    sizes = [min(size, n_samples - start) for start in range(0, n_samples, size)]
    return torch.cat([_sample_chunk(cores, b, generator) for b in sizes])


def _sample_chunk(cores: Sequence[Tensor], b: int, generator: torch.Generator) -> Tensor:
    device = cores[0].device
    vector, found = cores[0].new_ones(b, 1), []
    rows = torch.arange(b, device=device)
    for core in cores:
        spread = torch.tensordot(vector, core, 1)  # [b, d, r]
        weight = torch.linalg.vector_norm(spread, dim=2).double().square()
        total = weight.cumsum(1)
        draw = torch.rand(b, dtype=torch.float64, generator=generator).to(device) * total[:, -1]
        # The first place whose sum is above the draw; never one of weight zero.
        choice = torch.searchsorted(total, draw.unsqueeze(1), right=True).squeeze(1)
        last = (weight > 0).long().mul(torch.arange(1, weight.shape[1] + 1, device=device)).amax(1) - 1
        choice = torch.minimum(choice, last)
        found.append(choice)
        vector = spread[rows, choice] / weight[rows, choice].sqrt().unsqueeze(1).to(core.dtype)
    return torch.stack(found, dim=1)


def log_probability(cores: Sequence[Tensor], configurations: Int64[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """See `MeasuredState.log_probability`.

    Example:
        >>> log_probability([torch.tensor([[[3.0], [4.0]]])], torch.tensor([[1]])).exp()
        tensor([0.6400], dtype=torch.float64)
    """
    _check_configurations(cores, configurations)
    value, log_norm = overlap(cores, cores)
    check_nonzero(value)
    configurations = configurations.to(cores[0].device)
    b = configurations.shape[0]
    rows = torch.arange(b, device=cores[0].device)
    vector = cores[0].new_ones(b, 1)
    log = torch.zeros(b, dtype=torch.float64, device=cores[0].device)
    for site, core in enumerate(cores):
        scaled, up = rescaled(core)
        vector = torch.tensordot(vector, scaled, 1)[rows, configurations[:, site]]
        size = torch.linalg.vector_norm(vector.detach(), dim=1)
        size = torch.where(size > 0, size, torch.ones_like(size))
        vector = vector / size.unsqueeze(1).to(vector.dtype)
        log = log + up + size.double().log()
    weight = vector.squeeze(1).abs().square().double()
    possible = weight > 0
    logs = torch.where(possible, torch.where(possible, weight, 1.0).log(), -torch.inf)
    return logs + 2 * log - value.real.double().log() - log_norm


def _check_configurations(cores: Sequence[Tensor], configurations: Tensor) -> None:
    dims = [core.shape[1] for core in cores]
    shaped = isinstance(configurations, Tensor) and configurations.dim() == 2
    if not shaped or configurations.shape[1] != len(dims) or configurations.dtype != torch.int64:
        raise InputError(
            f"expected configurations as an int64 tensor [b, {len(dims)}], got {_told(configurations)}"
        )
    limits = torch.tensor(dims, device=configurations.device)
    if bool(((configurations < 0) | (configurations >= limits)).any()):
        raise InputError("a configuration names an index that its site does not have; expected 0 to d - 1")


def _told(value: object) -> str:
    return f"{list(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
