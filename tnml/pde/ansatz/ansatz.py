"""What a network means: u(t, x) with its terminal condition, standardised inputs, and fast derivatives."""

import math

import torch
from torch import Tensor, nn

from tnml.checks import one_of, whole
from tnml.errors import InputError
from tnml.pde.ansatz.bases import KinkBase, QuadraticBase, left_to_learn
from tnml.pde.ansatz.network import check_network, make_network
from tnml.pde.ansatz.network_derivatives import Network, network_gradient, network_slope
from tnml.pde.ansatz.smoothing import smoothed, smoothing_nodes
from tnml.pde.derivatives import reverse_gradient
from tnml.pde.paths.pilot import sample_paths, terminal_values
from tnml.pde.problem import Problem

TERMINALS = ("soft", "multiplicative", "additive", "smoothed", "kinks", "quadratic")
CLOSED = ("kinks", "quadratic")  # those that may leave the network little to do, which then starts at zero
_SCALINGS = ("paths", "none")


class Ansatz(nn.Module):
    """A solution `u(t, x)` made of a network N of standardised (t, x).

    | terminal | u(t, x) | u(T, x) |
    |---|---|---|
    | "soft" | c + s N | is learnt through the loss |
    | "multiplicative" | g(x) (1 + (T - t) N) | g(x); for g that does not vanish |
    | "additive" | g(x) + (T - t) s (N + a) | g(x) |
    | "smoothed" | S(t, x) + (T - t) s (N + a) | g(x) |
    | "kinks" | S'(t, x) + (T - t) s (N + a) | g(x) |
    | "quadratic" | g(x) + q(t, x) - q(T, x) + (T - t) s (N + a) | g(x) |

    S is the problem's `smoothed_terminal`, or else the mean of g over a few fixed values of X_T given x. It
    can do most of the work: `base` is what u would be without a network, for comparison. The offset a
    is learnt; c and s are fixed numbers, the mean and deviation of g(X_T); for "additive" and "smoothed" s is
    that deviation over T, and for "kinks" and "quadratic" what these miss along a few paths. For "additive" a
    starts where u(0, x0) is the mean of g(X_T), otherwise at zero. S' is S with kinks and
    jumps across planes in closed form, see `tnml.pde.ansatz.kinks`; q solves the equation among quadratic
    functions, see `tnml.pde.ansatz.quadratic`.

    Args:
        network: anything that maps `[m, d + 1]`, time first, to `[m, 1]`; or "dense" or "tnn" for one of the
            default size. Only the parameters of a module are trained.
        problem: gives g, T and the paths that the constants are taken from.
        terminal: how the terminal condition is met.
        scaling: "paths": inputs have mean 0 and deviation 1 along a few simulated paths, and c and s are as
            above; "none": inputs as they are, c = 0 and s = 1.
        nodes: values of X_T for S, an even number.

    Raises:
        InputError: the network has batch norm or dropout, or a wrong shape; an argument is out of range.

    Example:
        >>> from tnml.pde import HamiltonJacobiBellman
        >>> problem = HamiltonJacobiBellman(3)
        >>> u = Ansatz(make_network("dense", 3, hidden=(8,)), problem, "additive")
        >>> x = torch.rand(5, 3)
        >>> torch.equal(u(torch.ones(5, 1), x), problem.g(x))
        True
    """

    shift: Tensor
    factor: Tensor
    offset: Tensor
    scale: Tensor
    nodes: Tensor | None

    def __init__(
        self,
        network: Network | str,
        problem: Problem,
        terminal: str = "soft",
        *,
        scaling: str = "paths",
        nodes: int = 8,
    ) -> None:
        super().__init__()
        if isinstance(network, str):
            network = make_network(network, problem.dim)
        elif not callable(network):
            raise InputError(f"network must be a module, a function or a name, got {type(network).__name__}")
        if isinstance(network, nn.Module):
            check_network(network)
        self.network = network
        self.problem = problem
        self.terminal = one_of("terminal", terminal, TERMINALS)
        self.scaling = one_of("scaling", scaling, _SCALINGS)
        if whole("nodes", nodes, 2) % 2:
            raise InputError(f"nodes come in pairs; give an even number of at least 2, got {nodes}")
        learnt = (
            [p for p in network.parameters() if p.is_floating_point()]
            if isinstance(network, nn.Module)
            else []
        )
        like = learnt[0] if learnt else torch.zeros(0)
        dtype = like.dtype
        self._set_constants(scaling == "paths", nodes, dtype)
        self.to(like.device)
        self._check_shapes()

    def _set_constants(self, scaled: bool, nodes: int, dtype: torch.dtype) -> None:
        """The buffers, computed in double precision."""
        problem, d = self.problem, self.problem.dim
        shift, factor = torch.zeros(d + 1, dtype=torch.float64), torch.ones(d + 1, dtype=torch.float64)
        offset, scale, drift = 0.0, 1.0, 0.0
        if scaled:
            paths = sample_paths(problem)
            x = paths.x.flatten(0, 1)
            deviation = x.std(0)
            shift[0], factor[0] = problem.horizon / 2, math.sqrt(12) / problem.horizon
            shift[1:] = x.mean(0)
            factor[1:] = 1 / torch.where(deviation > 1e-12, deviation, 1.0)
            ends = terminal_values(problem, paths)
            if self.terminal == "soft":
                offset = ends.mean().item()
            spread = ends.std().item()
            if self.terminal != "multiplicative" and spread > 1e-9 * ends.abs().mean().item():
                scale = spread if self.terminal == "soft" else spread / problem.horizon
            if self.terminal == "additive":
                drift = ((ends.mean() - problem.g(paths.x[:1, 0])) / (problem.horizon * scale)).item()
        self.known = self._known(nodes)
        if scaled and self.known is not None:
            scale = left_to_learn(problem, self.known, spread) / problem.horizon
        own_nodes = self.terminal == "smoothed" and problem.smoothed_terminal is None
        found = smoothing_nodes(problem, nodes, sample_paths(problem)).to(dtype) if own_nodes else None
        self.register_buffer("shift", shift.to(dtype))
        self.register_buffer("factor", factor.to(dtype))
        self.register_buffer("offset", torch.tensor(offset, dtype=dtype))
        self.register_buffer("scale", torch.tensor(scale, dtype=dtype))
        self.register_buffer("nodes", found)
        learns = self.terminal in ("additive", "smoothed", *CLOSED)
        self.a = nn.Parameter(torch.full((1,), drift, dtype=dtype)) if learns else None

    def _known(self, nodes: int) -> nn.Module | None:
        """The module behind `base`, if there is one."""
        if self.terminal == "kinks":
            return KinkBase(self.problem, nodes)
        return QuadraticBase(self.problem) if self.terminal == "quadratic" else None

    @torch.no_grad()
    def _check_shapes(self) -> None:
        wanted = self.problem.dim + 1
        given = getattr(self.network, "widths", (wanted,))[0]
        if given != wanted:
            raise InputError(
                f"the network has {given} inputs; {self.problem.name!r} needs {wanted}: t and "
                f"{self.problem.dim} coordinates"
            )
        x = self.shift[None, 1:].expand(2, -1)
        try:
            y = self.network(self._inputs(x.new_zeros(2, 1), x))
        except RuntimeError as error:
            raise InputError(f"the network does not take inputs [m, {wanted}], t and x: {error}") from error
        if not isinstance(y, Tensor) or y.shape != (2, 1):
            came = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise InputError(f"the network must map [m, {wanted}] to [m, 1]; two points gave {came}")

    @property
    def hard(self) -> bool:
        """Whether u(T, x) = g(x) whatever the network says."""
        return self.terminal != "soft"

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """`u(t, x) [m, 1]` at `t [m, 1]` and `x [m, d]`."""
        return self.base(t, x) + self._weight(t, x) * self._with_offset(self.network(self._inputs(t, x)))

    def base(self, t: Tensor, x: Tensor) -> Tensor:
        """What u would be with N + a = 0, `[m, 1]`: the terminal value, smoothed or not, or a constant."""
        if self.terminal == "soft":
            return self.offset.expand(len(x), 1)
        if self.known is not None:
            found: Tensor = self.known(t, x)
            return found
        if self.terminal != "smoothed":
            return self.problem.g(x)
        if self.nodes is None:
            own = self.problem.smoothed_terminal
            return self.problem.g(x) if own is None else own(t, x)
        return smoothed(self.problem, self.nodes, t, x)

    def value_and_slope(self, t: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`u [m, 1]` and its derivative along v, `v . Du [m, 1]`, by forward mode through the network.

        What does not depend on the network is differentiated separately, without a graph. If t or x carry a
        graph, as on the paths of coupled problems, everything goes into one graph.
        """
        if _has_graph(t, x):
            y, z = self._whole_gradient(t, x)
            return y, (z * v).sum(1, keepdim=True)
        n, dn = network_slope(
            self.network, self._inputs(t, x), torch.cat([torch.zeros_like(t), v * self.factor[1:]], 1)
        )
        known, slope = self._base_and_slope(t, x, v)
        return self._combined(t, x, known, slope, n, dn, v)

    def value_and_gradient(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """`u [m, 1]` and `Du [m, d]`, by reverse mode through the network; see `value_and_slope`."""
        if _has_graph(t, x):
            return self._whole_gradient(t, x)
        n, dn = network_gradient(self.network, self._inputs(t, x))
        known, slope = self._base_and_slope(t, x, None)
        return self._combined(t, x, known, slope, n, dn[:, 1:] * self.factor[1:], None)

    def _combined(
        self, t: Tensor, x: Tensor, known: Tensor, slope: Tensor, n: Tensor, dn: Tensor, v: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Value and derivative by the product rule."""
        weight = (
            self._weight(t, x) if self.terminal != "multiplicative" else (self.problem.horizon - t) * known
        )
        value = known + weight * self._with_offset(n)
        if self.terminal == "multiplicative":  # the only weight that depends on x
            slope = slope * (1 + (self.problem.horizon - t) * n)
        return value, slope + weight * dn

    def _base_and_slope(self, t: Tensor, x: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor]:
        """`base` and its gradient, or its derivative along v, outside of every graph."""
        with torch.no_grad():
            if self.terminal == "soft":
                return self.base(t, x), torch.zeros_like(x if v is None else t)
            if self.terminal == "smoothed" or self.known is not None:
                value, gradient = reverse_gradient(lambda x: self.base(t, x), x)
            else:
                value, gradient = self.problem.g(x), self.problem.g_gradient(x)
            return value, gradient if v is None else (gradient * v).sum(1, keepdim=True)

    def _whole_gradient(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return reverse_gradient(lambda x: self(t, x), x)

    def _weight(self, t: Tensor, x: Tensor) -> Tensor:
        """What N (+ a) is multiplied by, `[m, 1]`."""
        if self.terminal == "soft":
            return self.scale
        left = self.problem.horizon - t
        return left * self.problem.g(x) if self.terminal == "multiplicative" else left * self.scale

    def _with_offset(self, n: Tensor) -> Tensor:
        return n if self.a is None else n + self.a

    def _inputs(self, t: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([t, x], 1)
        return both if self.scaling == "none" else (both - self.shift) * self.factor

    def extra_repr(self) -> str:
        """Problem and terminal condition."""
        return f"{self.problem.name!r}, dim={self.problem.dim}, terminal={self.terminal!r}"


def _has_graph(t: Tensor, x: Tensor) -> bool:
    return (t.requires_grad or x.requires_grad) and torch.is_grad_enabled()
