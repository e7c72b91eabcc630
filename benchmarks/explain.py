"""Exact Shapley values of a classifier of images: their errors, times and worth, beside sampled ones.

The answers come first: all coalitions of a small network, double precision, and the sum of the values. Times
are one image and all its classes on one thread, and many images on two. The samplers play the same game as
the exact values; their time is compared with that of the exact method with just as many nodes as reach the
same error. See `explain_samplers.py` and `explain_curves.py` for what they are.
"""

import argparse
import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.explain_curves import areas
from benchmarks.explain_samplers import (
    Image,
    enumerated,
    integrated_gradients,
    kernel_shap,
    of_package,
    permutation_shap,
)
from benchmarks.machine import header, in_words, summary, timed
from tnml.data import Dataset, load
from tnml.explain import shapley
from tnml.nn import MPSLayer
from tnml.training import train_classifier
from tnml.training.presets import preset

BACKGROUND, MANY, IMAGES, CURVES, STEPS = 1000, 1000, 3, 300, 28
EVALUATIONS = (10_000, 100_000)
EPOCHS = 4
ONE_IMAGE, MANY_IMAGES, SINGLE, RATIO = 0.025, 12.0, 1e-4, 1000.0  # the bars: seconds, error, times faster
ENUMERATED, EXACT_GAP = 1e-10, 1e-9  # what a right answer is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--quick", action="store_true", help="the real network, with fewer samples of all")
    parser.add_argument("--turns", type=int, default=None, help="samples of each time (default: 15 and 3)")
    parser.add_argument("--images", type=int, default=None, help=f"for samplers (default: {IMAGES})")
    parser.add_argument("--curves", type=int, default=None, help=f"images for curves (default: {CURVES})")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"of the training (default: {EPOCHS})")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    many: int = MANY
    images: int = IMAGES
    curves: int = CURVES
    evaluations: tuple[int, ...] = EVALUATIONS
    kernel: int = 4096
    turns: int = 15


SMOKE = Sizes(many=4, images=1, curves=4, evaluations=(200,), kernel=200, turns=2)
QUICK = Sizes(many=100, images=1, curves=30, evaluations=EVALUATIONS[:1], kernel=2048, turns=5)


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The result: the answers checked, times, samplers, curves, and the bars."""
    result = header("explain", options.smoke)
    sizes = SMOKE if options.smoke else QUICK if options.quick else Sizes()
    asked = {name: getattr(options, name) for name in ("turns", "images", "curves")}
    sizes = dataclasses.replace(sizes, **{name: n for name, n in asked.items() if n is not None})
    name = "digits" if options.smoke else "mnist"
    train, test = load(name, split="train"), load(name, split="test")
    with console.status("training"):
        layer, accuracy = trained(name, train, test, options.smoke, options.epochs)
        x = torch.from_numpy(test.x)
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
        some = train.x[:: max(1, len(train) // BACKGROUND)]
        mean = torch.from_numpy(some.astype(np.float64).mean(0)).float()
    result |= {"data": name, "test_accuracy": accuracy, "bond_dim": max(layer.bond_dims)}
    console.print(f"{name}, bond dimension {result['bond_dim']}, test accuracy {accuracy:.4f}")
    result["checks"] = checks(layer, x[:10], mean)
    console.print(in_one_line(result["checks"]))
    if answers_are_right(result["checks"]):
        try:
            compare(result, layer, x, mean, sizes, console)
        except KeyboardInterrupt:
            result["errors"].append("interrupted: not everything was measured")
        result["bars"] = bars(result)
    else:
        result["errors"].append("the exact values are wrong, so nothing was timed")
    return result


def compare(
    result: dict[str, Any], layer: MPSLayer, x: Tensor, mean: Tensor, sizes: Sizes, console: Console
) -> None:
    """Adds times, curves and samplers to the result, one after the other."""
    result["not_installed"] = [] if find_spec("shap") else ["shap"]
    result["times"] = times(layer, x, mean, sizes)
    for line in times_in_words(result["times"]):
        console.print(line)
    result["curve_images"], result["kernel_evaluations"] = sizes.curves, sizes.kernel
    result["curves"] = {}
    steps = min(STEPS, layer.n_sites)
    for method, found in areas(layer, x[: sizes.curves], mean, steps, sizes.kernel):
        result["curves"][method] = found
        console.print(f"{method}: insertion {found['insertion']['mean']:.4f}")
    each: dict[tuple[str, int], list[dict[str, float]]] = {}
    for method, evaluations, row in samplers(layer, x[: sizes.images], mean, sizes.evaluations):
        each.setdefault((method, evaluations), []).append(row)
        result["samplers"] = [_row(*key, rows) for key, rows in each.items()]
        console.print(f"{method}, {evaluations}: {row['error']:.1e}, {row['cpu_seconds']:.3g} s of CPU")


def trained(name: str, train: Dataset, test: Dataset, smoke: bool, epochs: int) -> tuple[MPSLayer, float]:
    """A classifier by the recipe of the data set with fewer epochs, and its test accuracy."""
    recipe = preset(name, "default")
    options = dataclasses.replace(recipe.train, epochs=1 if smoke else epochs, seed=0, device="cpu")
    model: Mapping[str, Any] = {**recipe.model, **({"bond_dim": 3} if smoke else {})}
    layer = MPSLayer(train.x.shape[1], 10, **{"shape": train.image_shape, **model}, seed=0)
    given = {"x_test": test.x, "y_test": test.y, "image_shape": train.image_shape}
    found = train_classifier(layer, train.x, train.y, options, **given)
    return layer.eval(), found.test["accuracy"]


def checks(layer: MPSLayer, x: Tensor, mean: Tensor) -> dict[str, float]:
    """Errors and gaps of the exact values, in both precisions."""
    small = MPSLayer(8, 3, 4, noise=0.5, dtype="float64")
    generator = torch.Generator().manual_seed(0)
    given, others = torch.rand(2, 8, generator=generator, dtype=torch.float64)
    column = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    whole = enumerated(Image(small, given, others, column), 8)
    ours = shapley(small, given[None], others[None], column[:, None]).values[0, :, 0].numpy()
    wide = copy.deepcopy(layer).double()
    single = shapley(layer, x, mean[None])
    exact, more = (shapley(wide, x.double(), mean[None].double(), nodes=nodes) for nodes in (8, 16))
    largest = float(more.values.abs().max())
    return {
        "enumerated": float(np.abs(ours - whole).max() / np.abs(whole).max()),
        "single_precision": float((single.values - more.values).abs().max()) / largest,
        "gap_single": float(single.gap or 0),
        "gap_8_nodes": float(exact.gap or 0),
        "gap_16_nodes": float(more.gap or 0),
        "nodes": single.nodes,
    }


def answers_are_right(found: Mapping[str, float]) -> bool:
    """Whether there is anything to time."""
    return found["enumerated"] <= ENUMERATED and found["gap_16_nodes"] <= EXACT_GAP


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Inside, torch uses this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def times(layer: MPSLayer, x: Tensor, mean: Tensor, sizes: Sizes) -> dict[str, Any]:
    """Seconds of the values of all classes: of one image on one thread, of many on two."""
    background = mean[None]
    with threads(1):
        shapley(layer, x[:1], background)
        one = timed(lambda: shapley(layer, x[:1], background), sizes.turns)
    with threads(2):
        shapley(layer, x[: min(sizes.many, 50)], background)
        many = timed(lambda: shapley(layer, x[: sizes.many], background), min(3, sizes.turns))
    return {
        "one_image": {kind: summary(samples) for kind, samples in one.items()},
        "many_images": {kind: summary(samples) for kind, samples in many.items()},
        "many": sizes.many,
        "classes": layer.out_features,
    }


def samplers(
    layer: MPSLayer, x: Tensor, mean: Tensor, evaluations: tuple[int, ...]
) -> Iterator[tuple[str, int, dict[str, float]]]:
    """(name, evaluations, numbers) of each sampler and image, on one thread; shap for the first alone."""
    wide = copy.deepcopy(layer).double()
    with threads(1):
        for number, image in enumerate(x):
            with torch.no_grad():
                place = int(layer(image[None]).argmax())
            exact = shapley(wide, image[None].double(), mean[None].double(), place, nodes=32)
            true = exact.values[0, :, 0].numpy()
            ours = by_nodes(layer, image, mean, place, true)
            game = Image(layer, image, mean, torch.eye(layer.out_features)[:, place])
            for count, name, call in _calls(game, evaluations, package=number == 0):
                game.evaluations, wall, cpu = 0, time.perf_counter(), time.process_time()
                values = call()
                spent = time.perf_counter() - wall, time.process_time() - cpu
                yield name, count, {**compared(values, true, *spent, ours), "made": game.evaluations}


def _calls(
    game: Image, evaluations: tuple[int, ...], *, package: bool
) -> Iterator[tuple[int, str, Callable[[], Any]]]:
    """(evaluations, name, function) of all that is compared."""
    black = torch.zeros_like(game.mean)
    yield 50, "integrated gradients from the mean", lambda: integrated_gradients(game, game.mean)
    yield 50, "integrated gradients from black", lambda: integrated_gradients(game, black)
    for number in evaluations:
        yield number, "KernelSHAP, numpy", lambda number=number: kernel_shap(game, number)
        yield number, "permutations, numpy", lambda number=number: permutation_shap(game, number)
    for call in of_package(game, 2 * game.pixels + 2).values() if package else ():
        call()  # the package compiles what it needs when it is first called
    for number in evaluations if package else ():
        for name, call in of_package(game, number).items():
            yield number, name, call


def by_nodes(
    layer: MPSLayer, image: Tensor, mean: Tensor, place: int, true: Any
) -> dict[int, tuple[float, float]]:
    """Error and CPU seconds (median of five) of the exact method with 1, 2, 4 and 8 nodes."""
    found = {}
    for nodes in (1, 2, 4, 8):

        def call(nodes: int = nodes) -> Any:
            return shapley(layer, image[None], mean[None], place, nodes=nodes)

        values = call().values[0, :, 0].numpy()
        found[nodes] = error_of(values, true), summary(timed(call, 5)["cpu"])["median"]
    return found


def error_of(values: Any, true: Any) -> float:
    """The length of the error, divided by the length of the true values."""
    return float(np.linalg.norm(values - true) / np.linalg.norm(true))


def compared(
    values: Any, true: Any, wall: float, cpu: float, ours: Mapping[int, tuple[float, float]]
) -> dict[str, float]:
    """Error and time, and how many times less CPU time the exact method takes where it is as accurate.

    For the error of the exact values themselves the time of a sampler is extrapolated: its error falls with
    the root of its time.
    """
    error = error_of(values, true)
    enough = [nodes for nodes, (own, _) in ours.items() if own <= error]
    nodes = min(enough, default=max(ours))
    best, least = ours[max(ours)]
    return {
        "error": error,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "nodes": nodes,
        "times_faster": cpu / ours[nodes][1],
        "times_faster_extrapolated": cpu * max(1.0, error / best) ** 2 / least,
    }


def _row(name: str, evaluations: int, each: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "name": name,
        "evaluations": evaluations,
        **{key: summary([row[key] for row in each]) for key in each[0]},
    }


def bars(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bars: seconds, single precision, and times faster than every sampler at equal error.

    On one thread CPU time is what a free core takes; of two threads it is the time on the clock.
    """
    found = [_at_most("single precision, largest error", result["checks"]["single_precision"], SINGLE)]
    if "times" in result:
        one, many = result["times"]["one_image"]["cpu"], result["times"]["many_images"]["wall"]
        number = result["times"]["many"]
        found.append(_at_most("one image, all classes, one thread (s of CPU)", one["median"], ONE_IMAGE))
        limit = MANY_IMAGES * number / MANY
        found.append(_at_most(f"{number} images, all classes, two threads (s)", many["median"], limit))
    for row in result.get("samplers", ()):
        if not row["name"].startswith("integrated"):
            faster = row["times_faster"]["median"]
            what = f"{row['name']}, {row['evaluations']} evaluations, times faster at equal error"
            found.append({"what": what, "measured": faster, "at_least": RATIO, "passed": faster >= RATIO})
    return found


def _at_most(what: str, measured: float, limit: float) -> dict[str, Any]:
    return {"what": what, "measured": measured, "at_most": limit, "passed": measured <= limit}


def in_one_line(found: Mapping[str, float]) -> str:
    """The checks in words."""
    return (
        f"all coalitions of 8 sites: off by {found['enumerated']:.0e}; single precision, {found['nodes']} "
        f"nodes: off by {found['single_precision']:.1e}; gap of the sum: single {found['gap_single']:.1e}, "
        f"double {found['gap_8_nodes']:.0e} with 8 nodes, {found['gap_16_nodes']:.0e} with 16"
    )


def times_in_words(spent: Mapping[str, Any]) -> Iterator[str]:
    """A line for one image and one for many."""
    titles = {"one_image": "one image, one thread", "many_images": f"{spent['many']} images, two threads"}
    for key, title in titles.items():
        wall, cpu = spent[key]["wall"], spent[key]["cpu"]
        yield (
            f"{title}, {spent['classes']} classes: {1e3 * wall['median']:.1f} ms "
            f"({1e3 * wall['min']:.1f}-{1e3 * wall['max']:.1f}), CPU {1e3 * cpu['median']:.1f} ms "
            f"({1e3 * cpu['min']:.1f}-{1e3 * cpu['max']:.1f})"
        )


def show(result: dict[str, Any], console: Console) -> None:
    """The answers, the tables and the bars."""
    console.print("\n" + in_words(result["machine"]))
    console.print(
        f"{result['data']}, bond dimension {result['bond_dim']}, test accuracy {result['test_accuracy']:.4f}"
    )
    console.print(in_one_line(result["checks"]))
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")
    for line in times_in_words(result["times"]) if "times" in result else ():
        console.print(line)
    if "samplers" in result:
        console.print(_sampler_table(result))
    for name in result.get("not_installed", ()):
        console.print(f"{name}: not installed here, not measured")
    if "curves" in result:
        console.print(_curve_table(result))
    for bar in result.get("bars", ()):
        bound = f"at most {bar['at_most']:g}" if "at_most" in bar else f"at least {bar['at_least']:g}"
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']}: {bar['measured']:.4g} ({bound}): {verdict}")


def _sampler_table(result: Mapping[str, Any]) -> Table:
    table = Table(title="One output of an image, one thread: median (min-max) of the images")
    for heading in (
        "",
        "evaluations",
        "error",
        "CPU s",
        "nodes",
        "times faster",
        "to 8 nodes, extrapolated",
    ):
        table.add_column(heading, justify="right" if heading else "left")
    for row in result["samplers"]:
        error, faster = row["error"], row["times_faster"]
        table.add_row(
            row["name"],
            f"{row['evaluations']}",
            f"{error['median']:.1e} ({error['min']:.0e}-{error['max']:.0e})",
            f"{row['cpu_seconds']['median']:.3g}",
            f"{row['nodes']['median']:g}",
            f"{faster['median']:.3g} ({faster['min']:.3g}-{faster['max']:.3g})",
            f"{row['times_faster_extrapolated']['median']:.1e}",
        )
    return table


def _curve_table(result: Mapping[str, Any]) -> Table:
    table = Table(title=f"Area under the probability, {result['curve_images']} images (standard error)")
    for heading in ("", "insertion (high is good)", "deletion (low is good)"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, found in result["curves"].items():
        cells = [
            f"{found[kind]['mean']:.4f} ({found[kind]['standard_error']:.4f})"
            for kind in ("insertion", "deletion")
        ]
        evaluations = f", {result['kernel_evaluations']} evaluations" if name == "KernelSHAP" else ""
        table.add_row(name + evaluations, *cells)
    return table
