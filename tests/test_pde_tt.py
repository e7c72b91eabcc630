"""`method="tt"`: the fit of a tensor train, the equations along paths, and the solutions."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse import diags
from scipy.sparse.linalg import expm_multiply

from tnml.errors import InputError
from tnml.loop.results import TrainingDiverged
from tnml.pde import HamiltonJacobiBellman, HeatEquation, Problem, Solution, SolveOptions, TTOptions, solve
from tnml.pde.aposteriori.linearised import walk
from tnml.pde.backward_tt.additive import ridged
from tnml.pde.backward_tt.network import FunctionalTrain, hermite
from tnml.pde.backward_tt.regression import FitOptions, fit
from tnml.pde.backward_tt.samples import Samples, samples
from tnml.training.dmrg.evidence import evidence

SMALL = TTOptions(passes=2, paths=64, time_steps=8, points=4, degree=2, dtype="float64")


def half_square(t, x, y, z):
    return z.square().sum(1, keepdim=True) / 2


def pull(x, *, eta):
    return eta * (x - 1).square().sum(1, keepdim=True)


def wells(t, x, *, coupling):
    """Minus the gradient of `sum_ij C_ij (x_i^2 - 1) (x_j^2 - 1)`."""
    coupling = coupling.to(x)
    return -2 * x * ((x.square() - 1) @ (coupling + coupling.T))


def double_well(dim, horizon, coupling, eta):
    """Richter, Sallandt, Nüsken, arXiv 2102.11830, section 5.2: `u = -ln E exp(-g(X_T))`, from -1."""
    return Problem(
        name="double well",
        dim=dim,
        horizon=horizon,
        x0=-1.0,
        terminal=partial(pull, eta=eta),
        drift=partial(wells, coupling=coupling),
        diffusion=1.0,
        driver=half_square,
    )


def single_well(horizon, kappa, eta, points=1501, end=3.0):
    """`-ln E exp(-eta (X_T - 1)^2)` in one dimension, by finite differences in space, exact in time."""
    x, h = np.linspace(-end, end, points, retstep=True)
    drift = -4 * kappa * x * (x * x - 1)
    up, down = 0.5 / h**2 + drift[:-1] / (2 * h), 0.5 / h**2 - drift[1:] / (2 * h)
    middle = np.full(points, -1 / h**2)
    middle[0], middle[-1] = -up[0], -down[-1]
    found = expm_multiply(
        diags([down, middle, up], [-1, 0, 1]).tocsr() * horizon, np.exp(-eta * (x - 1) ** 2)
    )
    return -math.log(np.interp(-1.0, x, found))


def evaluated(cores, features):
    """A tensor train at every sample, by numpy; features `[n, d, b]`."""
    found = np.ones((features.shape[2], 1))
    for core, own in zip(cores, features.numpy(), strict=True):
        found = np.einsum("bl,db,ldr->br", found, own, core.numpy())
    return found[:, 0]


def test_features_and_their_slopes():
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    found = hermite(x, 4)
    columns = np.polynomial.hermite_e.hermevander(x.numpy(), 3) / np.sqrt([1, 1, 2, 6])
    np.testing.assert_allclose(found, columns, rtol=1e-13, atol=1e-13)
    train, along = FunctionalTrain(2, degree=3).double(), torch.full((2, 7), 2.0, dtype=torch.float64)
    features, slopes = train.features_and_slopes(torch.stack([x, x]), along)
    torch.testing.assert_close(features[1].T, found)
    at = x.clone().requires_grad_()
    for k in range(1, 4):
        (slope,) = torch.autograd.grad(hermite(at, 4)[:, k].sum(), at)
        torch.testing.assert_close(slopes[1, k], 2 * slope)
    assert not slopes[:, 0].any()


def test_a_train_is_its_cores():
    generator = torch.Generator().manual_seed(0)
    dims = [1, 2, 3, 2, 1]
    cores = [torch.randn(a, 3, b, generator=generator).double() for a, b in pairwise(dims)]
    train = FunctionalTrain(4, degree=2).double()
    train.adopt(cores)
    x = torch.randn(6, 4, generator=generator).double()
    wanted = evaluated(cores, hermite(x.T.contiguous(), 3).movedim(-1, 1))
    np.testing.assert_allclose(train(x)[:, 0].detach(), wanted, rtol=1e-12)
    assert train.ranks == [2, 3, 2]
    again = FunctionalTrain(4, degree=2).double()
    again.load_state_dict(train.state_dict())
    again.adopt(again.cores)
    torch.testing.assert_close(again(x), train(x))


def test_a_fit_finds_a_function_of_low_rank():
    x = torch.randn(5, 800, generator=torch.Generator().manual_seed(1)).double()
    features = hermite(x, 3).movedim(-1, 1).contiguous()
    wanted = x[0] * x[3] + x[1].square() - 2 * x[2] * x[4] + 3
    zero = [torch.zeros(1, 3, 1).double()] * 5
    found = fit(zero, features, wanted, FitOptions(sweeps=6, cutoff=1e-6))
    np.testing.assert_allclose(evaluated(found.cores, features), wanted, atol=5e-3)
    assert found.residual < 1e-3
    alone = fit(zero, features, wanted, FitOptions(sweeps=1, max_rank=1))
    assert alone.residual > 0.5, "rank one cannot"


def test_the_ridge_is_that_of_the_evidence():
    generator = torch.Generator().manual_seed(2)
    design = torch.randn(60, 5, generator=generator).double()
    wanted = design @ torch.arange(5.0).double() + 3 * torch.randn(60, generator=generator).double()
    found, exact = ridged(design, wanted), evidence(design, wanted.unsqueeze(1))
    distance = float((found.mean - exact.mean[:, 0]).norm() / exact.mean.norm())
    assert distance < 0.02
    assert found.noise == pytest.approx(float(exact.noise.sqrt()), rel=0.02)
    assert float(ridged(design, 0 * wanted).mean.abs().max()) == 0


def test_the_equations_along_paths_are_their_sums():
    generator = torch.Generator().manual_seed(3)
    m, n = 3, 4
    discount = 1 + torch.rand(m, n, generator=generator).double()
    chosen = torch.tensor([[0, 2], [0, 3], [0, 1]])
    empty = torch.zeros(m, n, 1)
    found = Samples(t=empty, x=empty, noise=empty, discount=discount, rest=discount, chosen=chosen)
    value, slope = (torch.randn(2, m * n, generator=generator).double() for _ in range(2))
    rows = found.rows(value, slope)
    for q in range(2):
        for i, (path, at) in enumerate((j, int(time)) for j in range(m) for time in chosen[j]):
            later = [discount[path, k] / discount[path, at] * slope[q, path * n + k] for k in range(at, n)]
            torch.testing.assert_close(rows[q, i], value[q, path * n + at] + sum(later))


def test_heun_steps_are_of_second_order():
    """The mean of X_T for `dX = -X^2 dt + sigma dW` without noise has a closed form."""
    errors = []
    for steps in (8, 16):
        problem = Problem(
            name="decay",
            dim=1,
            horizon=1.0,
            x0=1.0,
            terminal=lambda x: x,
            diffusion=1.0,
            drift=lambda t, x: -(x**2),
        )
        none = torch.zeros(1, steps, 1, dtype=torch.float64)
        ends = [walk(problem, lambda t, x: 0 * x, none, heun=heun).raw.item() for heun in (False, True)]
        errors.append([abs(end - 0.5) for end in ends])
    assert errors[0][0] / errors[1][0] == pytest.approx(2, rel=0.1)
    assert errors[0][1] / errors[1][1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("problem", "truth", "bar"),
    [
        (HeatEquation(4), 8.0, 1e-9),  # a sum of squares: exactly in the class, and its base exact
        (HamiltonJacobiBellman(10), None, 1e-2),
        (double_well(4, 0.5, 0.1 * torch.eye(4), 0.05), 4 * single_well(0.5, 0.1, 0.05), 1e-2),
    ],
    ids=["heat", "hjb", "well"],
)
def test_solutions(problem, truth, bar):
    solution = solve(problem, method="tt", options=SMALL)
    truth = problem.true_value().value if truth is None else truth
    assert abs(solution.value / truth - 1) < bar
    assert solution.loss == "tt"
    assert [row["pass"] for row in solution.history] == [1, 2]
    assert max(solution.ranks) == solution.history[-1]["largest_rank"]
    found = solution.check(paths=256)
    assert found.interval[0] - bar * truth < truth < found.interval[1] + bar * truth
    step = 1e-5 * np.eye(problem.dim)
    at = np.full(problem.dim, -0.8)
    there = [(solution.u(0.1, at + e) - solution.u(0.1, at - e)) / 2e-5 for e in step]
    np.testing.assert_allclose(solution.gradient(0.1, at), there, rtol=1e-5, atol=1e-7)
    assert "ranks" in dict(solution.summary(check=found))


def test_a_run_resumes_to_the_same_bits(tmp_path):
    problem = HamiltonJacobiBellman(3)
    whole = solve(problem, method="tt", options=SMALL)
    half = TTOptions(**{**{k: v for k, v in SMALL.record().items() if k != "method"}, "passes": 1})
    solve(problem, options=half, run_dir=tmp_path / "run")
    resumed = solve(problem, options=SMALL, run_dir=tmp_path / "run", resume=True)
    assert resumed.value == whole.value
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
    )
    with pytest.raises(InputError, match="degree"):
        solve(problem, options=TTOptions(degree=4), run_dir=tmp_path / "run", resume=True)
    resumed.save(tmp_path / "u.safetensors")
    loaded = Solution.load(tmp_path / "u.safetensors")
    points = np.linspace(-1, 1, 12).reshape(4, 3)
    np.testing.assert_array_equal(loaded.u(0.3, points), whole.u(0.3, points))
    assert loaded.options == SMALL
    assert loaded.ranks == whole.ranks


def test_what_does_not_go_together_is_refused():
    heat = HeatEquation(2)
    for given, words in (
        ({"network": "tnn"}, "leave network, loss and start out"),
        ({"loss": "euler"}, "leave network, loss and start out"),
        ({"start": solve(heat, options=SMALL)}, "leave network, loss and start out"),
        ({"options": SolveOptions()}, "TTOptions"),
    ):
        with pytest.raises(InputError, match=words):
            solve(heat, method="tt", **given)
    with pytest.raises(InputError, match="method='tt'"):
        solve(heat, method="network", options=TTOptions())
    with pytest.raises(InputError, match="unknown method 'tts'"):
        solve(heat, method="tts")
    for wrong in ({"terminal": "soft"}, {"rank": 0}, {"cutoff": 1.0}, {"dtype": "half"}, {"paths": 3}):
        with pytest.raises(InputError):
            TTOptions(**wrong)
    blows = Problem(
        name="blows", dim=1, horizon=1.0, x0=3.0, terminal=lambda x: x, diffusion=1.0, drift=lambda t, x: x**5
    )
    with pytest.raises(InputError, match="not finite"):
        solve(blows, method="tt", options=SMALL)
    assert issubclass(TrainingDiverged, InputError)


def test_samples_have_the_mean_of_the_solution():
    """The heat equation with `g = |x|^2`: `u = |x|^2 + 2 (T - t) d`, whatever the approximation is."""
    heat = HeatEquation(3)
    v = TTOptions(terminal="additive", dtype="float64").make_model(heat)
    with torch.no_grad():
        found = samples(heat, v, paths=32, time_steps=6, points=3, seed=0, number=0)
    truth = heat.exact(found.t.flatten(0, 1), found.x.flatten(0, 1)).view_as(found.rest)
    off = found.rest - truth
    assert float(off.abs().max()) < 1e-11, "the base bends alike everywhere: no noise is left"
    assert found.chosen[:, 0].eq(0).all()
    assert all(len(set(row.tolist())) == 4 for row in found.chosen)


@pytest.mark.slow
def test_a_hundred_dimensions():
    solution = solve(HamiltonJacobiBellman(100), method="tt")
    assert abs(solution.value / solution.true_value.value - 1) < 5e-5
    assert solution.relative_error(paths=64).path_mean < 3e-4


@pytest.mark.slow
def test_fifty_double_wells():
    problem = double_well(50, 0.5, 0.1 * torch.eye(50), 0.05)
    solution = solve(problem, options=TTOptions(paths=512))
    assert abs(solution.value / (50 * single_well(0.5, 0.1, 0.05)) - 1) < 1e-3
