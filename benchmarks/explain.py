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
    sizes = dataclasses.replace(sizes, turns=options.turns or sizes.turns)
    name = "digits" if options.smoke else "mnist"
    train, test = load(name, split="train"), load(name, split="test")
    with console.status("training") as status:
        layer, accuracy = trained(name, train, test, options.smoke, options.epochs)
        x = torch.from_numpy(test.x)
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
        mean = torch.from_numpy(
            train.x[:: max(1, len(train) // BACKGROUND)].astype(np.float64).mean(0)
        ).float()
        result |= {"data": name, "test_accuracy": accuracy, "bond_dim": max(layer.bond_dims)}
        status.update("checking the answers")
        result["checks"] = checks(layer, x[:10], mean)
        console.print(f"trained to a test accuracy of {accuracy:.4f}, answers: {result['checks']}")
        if not answers_are_right(result["checks"]):
            result["errors"].append("the exact values are wrong, so nothing was timed")
            return result
        status.update("times of the exact values")
        result["times"] = times(layer, x, mean, sizes)
        status.update("samplers")
        result["samplers"], result["not_installed"] = samplers(
            layer, x[: sizes.images], mean, sizes, console.print
        )
        status.update("insertion and deletion")
        steps = min(STEPS, layer.n_sites)
        result["curves"] = areas(layer, x[: sizes.curves], mean, steps, sizes.kernel)
        result["curve_images"], result["kernel_evaluations"] = sizes.curves, sizes.kernel
    result["bars"] = bars(result)
    return result


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
    layer: MPSLayer, x: Tensor, mean: Tensor, sizes: Sizes, tell: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each sampler and number of evaluations; and what is not installed. All on one thread."""
    wide = copy.deepcopy(layer).double()
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    missing: list[str] = []
    with threads(1):
        for image in x:
            with torch.no_grad():
                place = int(layer(image[None]).argmax())
            column = torch.eye(layer.out_features)[:, place]
            exact = shapley(wide, image[None].double(), mean[None].double(), place, nodes=32)
            true = exact.values[0, :, 0].numpy()
            ours = by_nodes(layer, image, mean, place, true)
            game = Image(layer, image, mean, column)
            for evaluations, name, call in _calls(game, sizes.evaluations):
                game.evaluations, start = 0, time.perf_counter()
                values = call()
                seconds = time.perf_counter() - start
                row = compared(values, true, seconds, ours)
                tell(f"{name}, {evaluations} evaluations: {row['error']:.1e} in {seconds:.3g} s")
                found.setdefault((name, evaluations), []).append({**row, "made": game.evaluations})
            if not of_package(game, 1):
                missing = ["shap"]
    return [_row(name, evaluations, each) for (name, evaluations), each in found.items()], missing


def _calls(game: Image, evaluations: tuple[int, ...]) -> Iterator[tuple[int, str, Callable[[], Any]]]:
    """(evaluations, name, function) of all that is compared; the last two integrate over pixels."""
    for number in evaluations:
        yield number, "KernelSHAP, numpy", lambda number=number: kernel_shap(game, number)
        yield number, "permutations, numpy", lambda number=number: permutation_shap(game, number)
        for name, call in of_package(game, number).items():
            yield number, name, call
    black = torch.zeros_like(game.mean)
    yield 50, "integrated gradients from the mean", lambda: integrated_gradients(game, game.mean)
    yield 50, "integrated gradients from black", lambda: integrated_gradients(game, black)


def by_nodes(
    layer: MPSLayer, image: Tensor, mean: Tensor, place: int, true: Any
) -> dict[int, tuple[float, float]]:
    """Error and seconds (median of five) of the exact method with 1, 2, 4 and 8 nodes."""
    found = {}
    for nodes in (1, 2, 4, 8):

        def call(nodes: int = nodes) -> Any:
            return shapley(layer, image[None], mean[None], place, nodes=nodes)

        values = call().values[0, :, 0].numpy()
        found[nodes] = error_of(values, true), summary(timed(call, 5)["wall"])["median"]
    return found


def error_of(values: Any, true: Any) -> float:
    """The length of the error, divided by the length of the true values."""
    return float(np.linalg.norm(values - true) / np.linalg.norm(true))


def compared(
    values: Any, true: Any, seconds: float, ours: Mapping[int, tuple[float, float]]
) -> dict[str, float]:
    """Error and time, and how much faster the exact method is where it is at least as accurate.

    For the error of the exact values themselves the time of a sampler is extrapolated: its error falls with
    the root of its time.
    """
    error = error_of(values, true)
    enough = [nodes for nodes, (own, _) in ours.items() if own <= error]
    nodes = min(enough, default=max(ours))
    best, least = ours[max(ours)]
    return {
        "error": error,
        "seconds": seconds,
        "nodes": nodes,
        "times_faster": seconds / ours[nodes][1],
        "times_faster_extrapolated": seconds * max(1.0, error / best) ** 2 / least,
    }


def _row(name: str, evaluations: int, each: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "name": name,
        "evaluations": evaluations,
        **{key: summary([row[key] for row in each]) for key in each[0]},
    }


def bars(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bars: seconds, single precision, and times faster than every sampler at equal error."""
    one, many = (result["times"][key]["wall"]["median"] for key in ("one_image", "many_images"))
    found = [
        _at_most("one image, all classes, one thread (s)", one, ONE_IMAGE),
        _at_most(f"{result['times']['many']} images, all classes, two threads (s)", many, MANY_IMAGES),
        _at_most("single precision, largest error", result["checks"]["single_precision"], SINGLE),
    ]
    for row in result["samplers"]:
        if not row["name"].startswith("integrated"):
            faster = row["times_faster"]["median"]
            what = f"{row['name']}, {row['evaluations']} evaluations, times faster at equal error"
            found.append({"what": what, "measured": faster, "at_least": RATIO, "passed": faster >= RATIO})
    return found


def _at_most(what: str, measured: float, limit: float) -> dict[str, Any]:
    return {"what": what, "measured": measured, "at_most": limit, "passed": measured <= limit}


def show(result: dict[str, Any], console: Console) -> None:
    """The answers, the tables and the bars."""
    console.print("\n" + in_words(result["machine"]))
    console.print(
        f"{result['data']}, bond dimension {result['bond_dim']}, test accuracy {result['test_accuracy']:.4f}"
    )
    c = result["checks"]
    console.print(
        f"all coalitions of 8 sites: off by {c['enumerated']:.0e}; single precision, {c['nodes']} nodes: off "
        f"by {c['single_precision']:.1e}\ngap of the sum: single {c['gap_single']:.1e}, double "
        f"{c['gap_8_nodes']:.0e} with 8 nodes, {c['gap_16_nodes']:.0e} with 16"
    )
    for text in result["errors"]:
        console.print(f"[red]{text}[/red]")
    if "times" not in result:
        return
    spent = result["times"]
    for title, key in (
        ("one image, one thread", "one_image"),
        (f"{spent['many']} images, two threads", "many_images"),
    ):
        wall, cpu = spent[key]["wall"], spent[key]["cpu"]["median"]
        console.print(
            f"{title}, {spent['classes']} classes: {1e3 * wall['median']:.1f} ms "
            f"({1e3 * wall['min']:.1f}-{1e3 * wall['max']:.1f}), CPU {1e3 * cpu:.1f} ms"
        )
    console.print(_sampler_table(result))
    for name in result["not_installed"]:
        console.print(f"{name}: not installed here, not measured")
    console.print(_curve_table(result))
    for bar in result["bars"]:
        bound = f"at most {bar['at_most']:g}" if "at_most" in bar else f"at least {bar['at_least']:g}"
        verdict = "[green]pass[/green]" if bar["passed"] else "[red]miss[/red]"
        console.print(f"{bar['what']}: {bar['measured']:.4g} ({bound}): {verdict}")


def _sampler_table(result: Mapping[str, Any]) -> Table:
    table = Table(title="One output of an image, one thread: median (min-max) of the images")
    for heading in (
        "",
        "evaluations",
        "error",
        "seconds",
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
            f"{row['seconds']['median']:.3g}",
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
