"""The report of a study: curves and maps against plain numpy, figures, and the page in a real browser."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from study_cases import chain_counts, describe, example_result, example_study, store

from tnml import InputError, report
from tnml.report.study_charts import error_figure, heat_figure
from tnml.report.study_curves import curves_of, heat_maps_of, lower_edge, ticks_of
from tnml.report.study_rows import read_study
from tnml.study import Study

SMALL: dict[str, list[Any]] = {"noise": [0.0, 0.1], "n_train": [100, 300], "bond_dim": [1, 2, 4, 8, 12, 16]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_study(tmp_path_factory.mktemp("study") / "example", **SMALL)


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    pytest.importorskip("plotly", reason="the page needs plotly (extra `report`)")
    return report.study_page(folder)


def test_curves_are_medians_and_ranges_over_seeds(folder: Path) -> None:
    curves = curves_of(read_study(folder).runs)
    assert len(curves) == 2 * 2 * 2 * 2
    assert {tuple(curve.key) for curve in curves} == {("target", "solver", "n_train", "noise")}
    for curve in curves:
        results = [
            [example_result({**curve.key, "bond_dim": bond, "seed": seed}) for seed in range(3)]
            for bond in SMALL["bond_dim"]
        ]
        assert curve.bonds == SMALL["bond_dim"]
        for column in ("train_error", "test_error"):
            values = np.array([[result[column] for result in line] for line in results])
            np.testing.assert_allclose(curve.spreads[column].median, np.median(values, 1), rtol=1e-12)
            np.testing.assert_allclose(curve.spreads[column].low, values.min(1), rtol=1e-12)
            np.testing.assert_allclose(curve.spreads[column].high, values.max(1), rtol=1e-12)
        gap = np.array([[r["test_error"] - r["train_error"] for r in line] for line in results])
        np.testing.assert_allclose(curve.spreads["gap"].median, np.median(gap, 1), rtol=1e-12)
        assert ("zeta" in curve.spreads) == (curve.key["solver"] == "adam")
        assert curve.teacher == (4 if curve.key["target"] == "mps" else None)
        assert curve.error == "mean squared error"


def test_thresholds_stand_where_the_counts_reach_the_samples(folder: Path) -> None:
    for curve in curves_of(read_study(folder).runs):
        sweeps = curve.key["solver"] == "als"
        column = "largest_core" if sweeps else "gauge_free_parameters"
        counts = [chain_counts(10, 2, bond)[column] for bond in curve.bonds]
        expected = np.exp(np.interp(np.log(curve.key["n_train"]), np.log(counts), np.log(curve.bonds)))
        ((name, where),) = curve.thresholds
        assert name == f"{'largest core' if sweeps else 'free parameters'} = samples"
        assert where == pytest.approx(expected, rel=1e-9)


def test_no_threshold_where_the_counts_stay_on_one_side(tmp_path: Path) -> None:
    example_study(tmp_path, n_train=[10], solver=["adam"], target=["mps"], noise=[0.0])
    (curve,) = curves_of(read_study(tmp_path).runs)
    assert not curve.thresholds, "even the smallest chain has more parameters than that"


@pytest.mark.parametrize("along", ["n_train", "noise"])
def test_heat_maps_are_medians(folder: Path, along: str) -> None:
    maps = heat_maps_of(curves_of(read_study(folder).runs), along)
    assert len(maps) == 8
    for heat in maps:
        assert heat.values == SMALL[along]
        expected = [
            [
                np.median(
                    [
                        example_result({**heat.key, along: value, "bond_dim": bond, "seed": seed})[
                            "test_error"
                        ]
                        for seed in range(3)
                    ]
                )
                for bond in heat.bonds
            ]
            for value in heat.values
        ]
        np.testing.assert_allclose(heat.median, expected, rtol=1e-12)


def made(
    folder: Path, options: list[dict[str, Any]], result: Callable[[dict[str, Any]], dict[str, Any]]
) -> Path:
    study = Study(name="made", runner="nobody:run", runs=options)
    for one in study.options():
        store(folder, one, result(one))
    describe(folder, study)
    return folder


def test_other_options_part_the_curves_unless_they_follow(tmp_path: Path) -> None:
    options = [
        {"bond_dim": bond, "lr": lr, "init": 1 / bond, "data_seed": seed}
        for bond in (2, 4)
        for lr in (0.1, 0.2)
        for seed in (0, 1)
    ]
    made(tmp_path, options, lambda one: {"test_error": one["lr"] * one["bond_dim"]})
    curves = curves_of(read_study(tmp_path).runs)
    assert [curve.key for curve in curves] == [{"lr": 0.1}, {"lr": 0.2}]
    assert [curve.spreads["test_error"].median for curve in curves] == [[0.2, 0.4], [0.4, 0.8]]
    assert list(curves[0].spreads) == ["test_error"], "no train error, no gap"


def test_diverged_runs_are_counted_and_not_drawn(tmp_path: Path) -> None:
    values = {0: 0.3, 1: math.nan, 2: math.inf, 3: 0.1}
    made(
        tmp_path,
        [{"bond_dim": 2, "seed": seed} for seed in values],
        lambda one: {"train_error": 0.1, "test_error": values[one["seed"]]},
    )
    (curve,) = curves_of(read_study(tmp_path).runs)
    assert curve.spreads["test_error"] == ([0.2], [0.1], [0.3])
    data = data_of(report.study_page(tmp_path)) if has_plotly() else None
    if data is not None:
        assert data["curves"][0]["note"] == "2 of 4 runs ended without a finite test error: not drawn."
        assert [line[data["columns"].index("test_error")] for line in data["rows"]] == [0.3, None, None, 0.1]


def has_plotly() -> bool:
    try:
        import plotly  # noqa: F401
    except ImportError:
        return False
    return True


def test_where_the_axis_of_errors_ends(folder: Path) -> None:
    for curve in curves_of(read_study(folder).runs):
        test = np.array(curve.spreads["test_error"])
        train = np.array(curve.spreads["train_error"])
        edge = lower_edge(curve)
        assert 0 < edge < test.min()
        assert edge >= test.min() / 2000, "a train error near zero does not squeeze the rest"
        seen = train[(train > 0) & (train > test.min() / 1000)]
        assert (seen > edge).all()
    assert ticks_of([5]) == [5]
    assert ticks_of([]) == []


def test_figures_for_papers(folder: Path, tmp_path: Path) -> None:
    example_study(
        tmp_path / "study", seeds=2, solver=["als"], n_train=[100, 300], noise=[0.0, 0.1], target=["mps"]
    )
    paths = report.study_figures(tmp_path / "study", tmp_path / "out")
    names = ["error-100.png", "error-300.png", "heat-n_train.png", "heat-noise.png"]
    assert [path.name for path in paths] == names
    for path in paths:
        picture = imread(path)
        assert picture.shape[0] > 300
        assert picture.std() > 0.05
    curves = [
        c for c in curves_of(read_study(folder).runs) if c.key["solver"] == "als" and c.key["n_train"] == 300
    ]
    figure = error_figure(curves)
    assert [axes.get_title() for axes in figure.axes] == [
        f"target {target}, noise {noise}" for target in ("mps", "tanh") for noise in ("0", "0.1")
    ]
    axes = figure.axes[1]
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    assert any(np.array_equal(line, curves[1].spreads["test_error"].median) for line in drawn)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low < lower_edge(curves[0]) * 1.001
        assert high > max(max(curve.spreads["test_error"].high) for curve in curves), "nothing is cut off"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "train error",
        "test error",
        "bond dimension of the target",
        "largest core = samples",
    ]
    maps = heat_maps_of(curves_of(read_study(folder).runs), "n_train")
    heat = heat_figure(maps[:1])
    shown = {tuple(map(int, text.get_position())): float(text.get_text()) for text in heat.axes[0].texts}
    for (row, column), value in np.ndenumerate(np.array(maps[0].median)):
        assert shown[column, row] == pytest.approx(value, rel=0.06)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no study\.json"):
        report.study_page(tmp_path)
    describe(tmp_path, Study(name="new", runner="nobody:run", grid={"bond_dim": [2]}))
    with pytest.raises(InputError, match=r"no run of the study .* is finished"):
        report.study_page(tmp_path)
    made(tmp_path / "other", [{"width": 2}], lambda one: {"score": 1.0})
    with pytest.raises(InputError, match="nothing to draw"):
        report.study_figures(tmp_path / "other", tmp_path / "out")
    with pytest.raises(InputError, match="unknown figure format 'jpeg'"):
        report.study_figures(tmp_path / "other", tmp_path / "out", kind="jpeg")
    with pytest.raises(InputError, match="at least one curve"):
        error_figure([])
    with pytest.raises(InputError, match="at least one heat map"):
        heat_figure([])


class Parts(HTMLParser):
    """Scripts of a page, and every address it could load something from."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")
        self.addresses += [f"{tag} {value}" for name, value in attrs if name in ("src", "href", "action")]

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def data_of(path: Path) -> dict[str, Any]:
    parts = Parts()
    parts.feed(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = json.loads(parts.scripts[0])
    return found


def test_the_page_is_one_file_with_everything_in_it(page: Path, folder: Path) -> None:
    assert page == folder / "report.html"
    text = page.read_text(encoding="utf-8")
    parts = Parts()
    parts.feed(text)
    assert not parts.addresses, "nothing is loaded"
    assert len(parts.scripts) == 3
    assert "default-src 'none'" in text
    assert str(folder.parent) not in text, "no path of this machine"
    data = json.loads(parts.scripts[0])
    assert len(data["rows"]) == 2 * 2 * 2 * 2 * 6 * 3
    assert data["warning"].startswith("1 run failed")
    assert "1 run not done yet" in data["warning"]
    assert [reason for _, reason in data["failed"]] == ["MemoryError: <too> large"]
    assert data["commands"].splitlines() == [
        "tnml study run example/study.json --folder example-again",
        "tnml study report example",
    ]
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert json.loads(data["settings"]) == study
    again = report.study_page(folder)
    assert again.read_text(encoding="utf-8") == text


def test_missing_columns_and_odd_names(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="the page needs plotly (extra `report`)")
    made(tmp_path, [{"label": "</script><b>"}], lambda one: {"score": 1.0, "parts": [1, 2]})
    data = data_of(report.study_page(tmp_path))
    assert data["columns"] == ["label", "score", "run"]
    assert data["rows"][0][:2] == ["</script><b>", 1.0]
    assert data["curves"] == []
    assert data["heats"] == {"n_train": [], "noise": []}


def test_long_histories_keep_their_ends(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="the page needs plotly (extra `report`)")
    history = [{"epoch": i, "train_error": 1 / (i + 1), "name": "x"} for i in range(5000)]
    made(tmp_path, [{"bond_dim": 2}], lambda one: {"test_error": 1.0, "history": history})
    data = data_of(report.study_page(tmp_path))
    (kept,) = data["histories"]
    assert list(kept) == ["epoch", "train_error"]
    assert len(kept["epoch"]) == 200
    assert (kept["epoch"][0], kept["epoch"][-1]) == (0, 4999)
    assert "200 rows" in data["thinned"]


READINGS = [
    (
        [0.5, 0.1, 0.9, 0.4],
        "smallest at bond dimension 2 (0.1), rises to 0.9 at 3 and is 0.4 at 4, the largest",
    ),
    ([0.5, 0.1, 0.2, 0.9], "smallest at bond dimension 2 (0.1) and rises to 0.9 at 4."),
    ([0.5, 0.3, 0.2, 0.1], "smallest at bond dimension 4 (0.1), the largest tried."),
    ([0.5, 0.3, 0.1, 0.105], "smallest at bond dimension 3 (0.1)."),
]


@pytest.mark.parametrize(("errors", "expected"), READINGS)
def test_the_sentence_says_what_the_curve_does(tmp_path: Path, errors: list[float], expected: str) -> None:
    pytest.importorskip("plotly", reason="the page needs plotly (extra `report`)")
    made(
        tmp_path,
        [{"bond_dim": bond} for bond in range(1, 5)],
        lambda one: {"test_error": errors[one["bond_dim"] - 1]},
    )
    assert expected in data_of(report.study_page(tmp_path))["curves"][0]["reading"]


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium and finds none on the PATH")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=1500",
    "--enable-logging=stderr",
    "--v=0",
]


def browse(path: Path, profile: Path, *more: str) -> tuple[str, list[str]]:
    """What the browser prints, and the lines of its console."""
    assert BROWSER is not None
    command = [BROWSER, *QUIET, f"--user-data-dir={profile}", *more, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


CLICKS = """
<script>
const box = document.getElementById("error");
const place = box.data.findIndex((trace) => trace.name === "test");
box.emit("plotly_click", { points: [{ customdata: box.data[place].customdata[3] }] });
document.querySelector("#controls select[data-key='1']").value = "1";
document.querySelector("#controls select[data-key='1']").onchange();
const heat = document.getElementById("heat-noise");
heat.emit("plotly_click", { points: [{ pointIndex: [1, 5] }] });
[...document.querySelectorAll("th button")].find((b) => b.textContent.startsWith("test error")).onclick();
document.body.dataset.state = JSON.stringify(state);
document.body.dataset.drawn = JSON.stringify(box.data[place].y);
</script>
"""


@browser
def test_a_reader_clicks_through_the_page(page: Path, tmp_path: Path) -> None:
    clicked = tmp_path / "clicked.html"
    clicked.write_text(
        page.read_text(encoding="utf-8").replace("</body>", f"{CLICKS}</body>"), encoding="utf-8"
    )
    shown, console = browse(clicked, tmp_path / "profile", "--dump-dom")
    assert not console
    body = re.search(r'<body data-ready="yes" data-state="([^"]*)" data-drawn="([^"]*)">', shown)
    assert body, "the page's script came to its end"
    state = json.loads(body[1].replace("&quot;", '"'))
    assert state["at"] == [0, 1, 0, 1], "solver by the list, noise by the heat map"
    assert state["bond"] == 16
    assert "The 3 runs of bond dimension 16, one line for each." in shown
    key = {"target": "mps", "solver": "als", "n_train": 100, "noise": 0.1}
    expected = [
        np.median([example_result({**key, "bond_dim": b, "seed": s})["test_error"] for s in range(3)])
        for b in SMALL["bond_dim"]
    ]
    np.testing.assert_allclose(json.loads(body[2]), expected, rtol=1e-5)
    column = data_of(page)["columns"].index("test_error")
    rows = re.findall(r"<tr(?: class=\"chosen\")?>(<td.*?)</tr>", shown)
    cells = [float(re.findall(r"<td[^>]*>([^<]*)</td>", row)[column]) for row in rows]
    assert len(cells) == 288
    assert cells == sorted(cells), "the click on the heading sorted the table"
    assert shown.count('<tr class="chosen">') == 3
    for part in ("error", "curves", "gap", "heat-n_train", "heat-noise"):
        assert re.search(rf'<div class="plot js-plotly-plot" id="{part}"', shown), f"{part} was drawn"
    assert re.search(r'<section id="part-extra" hidden', shown), "sweeps have no further measures here"


@browser
def test_a_study_without_bond_dimensions_still_has_its_table(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="the page needs plotly (extra `report`)")
    made(tmp_path / "bare", [{"label": "<i>a</i>"}], lambda one: {"score": 1.0})
    shown, console = browse(report.study_page(tmp_path / "bare"), tmp_path / "profile", "--dump-dom")
    assert not console
    assert '<body data-ready="yes">' in shown
    assert "&lt;i&gt;a&lt;/i&gt;" in shown, "text stays text"
    for part in ("error", "curves", "gap", "heat-n_train", "heat-noise", "extra"):
        assert re.search(rf'<section id="part-{part}" hidden', shown), part


@browser
def test_the_page_can_be_looked_at(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    _, console = browse(page, tmp_path / "profile", "--window-size=1200,4200", f"--screenshot={picture}")
    assert not console
    seen = imread(picture)[..., :3]
    assert seen.shape[:2] == (4200, 1200)
    blue, orange = np.array([0, 0x72, 0xB2]) / 255, np.array([0xD5, 0x5E, 0]) / 255
    for color in (blue, orange):
        assert (np.abs(seen - color).max(-1) < 0.02).sum() > 300, "the lines of both errors are there"
    assert seen[:, :40].min() > 0.9, "nothing runs out of the page on the left"
