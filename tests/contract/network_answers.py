"""Exact answers of a network against all coalitions of its sites, by the definition of each value."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from contract.network_member import Member
from tnml.explain import banzhaf, interactions, shapley
from tnml.nn import TensorNetworkLayer

Game = dict[frozenset[int], Tensor]


class ExactAnswers(Member):
    def game(self, layer: TensorNetworkLayer, given: Tensor, others: Tensor) -> Game:
        """Outputs `[b, c]` of every coalition of sites; the others have the features of the background."""
        found = {}
        for size in range(layer.n_sites + 1):
            for members in itertools.combinations(range(layer.n_sites), size):
                inside = torch.zeros(layer.n_sites, dtype=torch.bool)
                inside[list(members)] = True
                found[frozenset(members)] = self.dense(layer, torch.where(inside[:, None], given, others))
        return found

    def games(self, layer: TensorNetworkLayer, x: Tensor, background: Tensor, joint: bool) -> list[Game]:
        """One for each row of the background that is kept together, or one for its means."""
        given, others = (layer.local_features(rows).detach() for rows in (x, background))
        rows = others if joint else others.mean(0, keepdim=True)
        return [self.game(layer, given, row) for row in rows]

    def of_sites(self, layer: TensorNetworkLayer, games: list[Game], value: Callable[..., Tensor]) -> Tensor:
        """`value(game, i)` of each input i, averaged over the games: `[b, n, c]`."""
        place = {int(pixel): site for site, pixel in enumerate(layer.order)}
        each = [
            torch.stack([value(game, place[pixel]) for pixel in range(layer.n_sites)], 1) for game in games
        ]
        return torch.stack(each).mean(0).detach()

    @pytest.mark.parametrize("joint", [False, True])
    @pytest.mark.parametrize("dtype", ["float64", "complex128"])
    def test_shapley_and_banzhaf_values_are_those_of_all_coalitions(self, dtype: str, joint: bool) -> None:
        layer = self.generic(dtype=dtype, order=[2, 0, 4, 1, 3])
        x, background = self.inputs(2), self.inputs(7)[2:]
        n, games = layer.n_sites, self.games(layer, x, background, joint)

        def added(game: Game, site: int, share: Callable[[int], float]) -> Tensor:
            without = [members for members in game if site not in members]
            return sum(share(len(m)) * (game[m | {site}] - game[m]) for m in without)  # type: ignore[return-value]

        def owed(size: int) -> float:
            return math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)

        found = shapley(layer, x, background, joint=joint)
        expected = self.of_sites(layer, games, lambda game, site: added(game, site, owed))
        scale = expected.abs().max()
        assert (found.values - expected).abs().max() <= 1e-12 * scale
        assert found.gap is not None
        assert found.gap <= 1e-12
        assert torch.allclose(found.values.sum(1), found.outputs - found.base, atol=1e-12 * scale.item())

        found = banzhaf(layer, x, background, joint=joint)
        expected = self.of_sites(layer, games, lambda game, site: added(game, site, lambda _: 2.0 ** (1 - n)))
        assert (found.values - expected).abs().max() <= 1e-12 * scale

    @pytest.mark.parametrize("kind", ["shapley-taylor", "shapley", "banzhaf"])
    def test_interactions_are_those_of_all_coalitions(self, kind: str) -> None:
        layer = self.generic(order=[2, 0, 4, 1, 3])
        x, background = self.inputs(2), self.inputs(7)[2:]
        n, games = layer.n_sites, self.games(layer, x, background, joint=False)
        (game,) = games
        share = {
            "shapley-taylor": lambda s: 2 / n / math.comb(n - 1, s),
            "shapley": lambda s: math.factorial(s) * math.factorial(n - s - 2) / math.factorial(n - 1),
            "banzhaf": lambda s: 2.0 ** (2 - n),
        }[kind]

        def of_pair(i: int, j: int) -> Tensor:
            if i == j:
                alone = game[frozenset({i})] - game[frozenset()]
                return alone if kind == "shapley-taylor" else torch.zeros_like(alone)
            without = [m for m in game if not m & {i, j}]
            return sum(  # type: ignore[return-value]
                share(len(m)) * (game[m | {i, j}] - game[m | {i}] - game[m | {j}] + game[m]) for m in without
            )

        place = {int(pixel): site for site, pixel in enumerate(layer.order)}
        rows = [torch.stack([of_pair(place[i], place[j]) for j in range(n)], 1) for i in range(n)]
        expected = torch.stack(rows, 1).detach()
        found = interactions(layer, x, background, kind=kind).values
        assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
