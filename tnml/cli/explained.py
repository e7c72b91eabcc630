"""Explained samples of a data set: what they and their outputs are called, as lines, figures and files."""

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tnml import report
from tnml.cli.saved import SavedModel
from tnml.data import Dataset
from tnml.estimators import MPSClassifier
from tnml.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN, NAMED = 12, 3  # images in a figure, and features of a sample in its line
CURVES = 3  # features whose curves are on the page


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplainedSamples:
    """An explanation with the model, the samples and the background that it is of.

    Args:
        model: what was explained.
        data: the samples.
        rows: their numbers in the part of the data set.
        background: `[k, n]` training samples in [0, 1].
        outputs: the arguments `target` and `against` of the explanation.
        found: the explanation.
    """

    model: SavedModel
    data: Dataset
    rows: list[int]
    background: npt.NDArray[np.float32]
    outputs: dict[str, Any]
    found: Explanation

    @property
    def names(self) -> list[str]:
        """What the outputs are called."""
        names = [str(name) for name in self.found.names or ()]
        if isinstance(self.model.estimator, MPSClassifier):
            return names
        target = str(self.model.data.get("target") or "prediction")
        return [target] if len(names) == 1 else [f"{target}_{name}" for name in names]

    @property
    def features(self) -> list[str]:
        """What the features are called."""
        return self.model.names or [f"x{site}" for site in range(self.model.layer.n_sites)]

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """(height, width) if the samples are images."""
        shape = self.data.image_shape or self.model.estimator.image_shape
        return None if shape is None or self.model.names is not None else (int(shape[0]), int(shape[1]))

    @property
    def told(self) -> list[int]:
        """For every sample the output that its line and its bars are about: the only one, or the largest."""
        places: list[int] = self.found.outputs.argmax(1).tolist()
        return [0] * len(self.rows) if len(self.names) == 1 else places

    def lines(self, most: int) -> tuple[list[str], list[list[str]]]:
        """A heading and a line for each of the first samples."""
        pixels, features = self.image_shape is not None, self.features
        lines = []
        for place, output in enumerate(self.told[:most]):
            each = self.found.values[place, :, output]
            top = each.abs().argsort(descending=True, stable=True)[:NAMED].tolist()
            parts = ", ".join(f"{features[i]} {float(each[i]):+.4g}" for i in top)
            numbers = [
                f"{float(number):.4g}"
                for number in (self.found.outputs[place, output], self.found.base[output])
            ]
            line = [str(self.rows[place]), shown(self.data.y[place]), self.names[output], *numbers]
            lines.append(line if pixels else [*line, parts])
        head = ["row", "target", "output of", "output", "base"]
        if pixels:
            return head, lines
        width = max(len(line[-1]) for line in lines)
        return [*head, "largest contributions"], [[*line[:-1], line[-1].ljust(width)] for line in lines]

    def figure(self) -> "Figure":
        """Maps of an image's pixels; bars of one sample, points of many, or bars of all outputs."""
        names, values, shape = self.names, self.found.values.numpy(), self.image_shape
        if shape is not None:
            pairs = zip(self.rows[:DRAWN], self.data.y[:DRAWN], strict=True)
            words = [f"row {row}\ntrue {shown(y)}" for row, y in pairs]
            images = self.data.x[:DRAWN].astype(np.float64)
            return report.pixel_figure(values[:DRAWN], images, shape, names, words)
        if len(self.rows) == 1:
            return self._bars()
        if len(names) == 1:
            title = f"Contributions to {names[0]}, {len(self.rows)} samples"
            return report.beeswarm_figure(values[..., 0], self._raw(self.data.x), self.features, title)
        return report.importance_figure(self.found.importance.numpy(), self.features, names)

    def _bars(self) -> "Figure":
        """The largest contributions to one output of the first sample."""
        output, inputs = self.told[0], self._raw(self.data.x[:1])[0]
        words = [f"{name} = {value:.4g}" for name, value in zip(self.features, inputs, strict=True)]
        title = f"Contributions to {self.names[output]}, row {self.rows[0]}"
        values, base = self.found.values[0, :, output].numpy(), float(self.found.base[output])
        return report.contribution_figure(values, words, base, title)

    def curve(self, feature: str) -> "Figure":
        """How the outputs follow one column, over the samples of the background."""
        place = self.features.index(feature)
        found = self.model.ready.dependence(
            self.background, place, grid=np.linspace(0, 1, 101), **self.outputs
        )
        ends = self._raw(np.repeat(found.grid[:, None], self.model.layer.n_sites, axis=1))[:, place]
        observed = self._raw(self.background)[:, place]
        return report.dependence_figure(ends, found.curves, feature, self.names, observed)

    def figures(self) -> list[tuple[str, str, "Figure"]]:
        """Heading, remark and figure of all that the page shows."""
        if self.image_shape is not None:
            note = "Red pixels raise the output, blue ones lower it; the maps of a row share one scale."
            return [("Pixels", note, self.figure())]
        of_all = "All samples of this page; features with the largest mean contribution at the top."
        one = "The features of one sample, with their values; smaller contributions are added up."
        pages = [("Features", of_all, self.figure())] if len(self.rows) > 1 else []
        pages.append(("First sample", one, self._bars()))
        for place in self.found.importance.sum(1).argsort(descending=True, stable=True)[:CURVES].tolist():
            name = self.features[place]
            note = "Grey: single samples of the background while this feature alone changes; red: their mean."
            pages.append((f"Dependence on {name}", note, self.curve(name)))
        return pages

    def _raw(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Inputs in [0, 1] as values of the columns."""
        given, limits = x.astype(np.float64), self.model.limits
        if limits is None or not self.model.scales_itself:
            return given
        values: npt.NDArray[np.float64] = limits[0] + given * (limits[1] - limits[0])
        return values

    def to_json(self, kind: str) -> str:
        """All contributions and what they are of."""
        found = self.found
        record = {
            "kind": kind,
            "data": f"{self.data.name}, {self.data.split}",
            "rows": self.rows,
            "targets": self.data.y.tolist(),
            "features": self.features,
            "names": self.names,
            "base": found.base.tolist(),
            "outputs": found.outputs.tolist(),
            "values": found.values.tolist(),
            "gap": found.gap,
            "nodes": found.nodes,
        }
        return json.dumps(record) + "\n"

    def to_csv(self) -> str:
        """All contributions, a line for each sample and output."""
        text, found = io.StringIO(), self.found
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["row", "target", "name", "output", "base", *self.features])
        for place, row in enumerate(self.rows):
            for output, name in enumerate(self.names):
                numbers = found.outputs[place, output], found.base[output], *found.values[place, :, output]
                told = [f"{float(number):.9g}" for number in numbers]
                writer.writerow([row, shown(self.data.y[place]), name, *told])
        return text.getvalue()


def shown(value: Any) -> str:
    """A target as text.

    Example:
        >>> shown(np.float64(0.25)), shown("cat"), shown(np.int64(3))
        ('0.25', 'cat', '3')
    """
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
