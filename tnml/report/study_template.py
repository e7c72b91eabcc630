"""The page of a study from its assets: one template, one style sheet and the scripts that draw."""

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

TEMPLATE, STYLE = "study.html", "study.css"
SCRIPTS = ("study_axes.js", "study_figures.js", "study_table.js")  # in this order: one builds on the other


def asset(name: str) -> str:
    """The text of one of the files in `report/assets`, which the wheel ships.

    Example:
        >>> asset("study.css").splitlines()[1]
        '* { box-sizing: border-box; }'
    """
    return files("tnml.report").joinpath("assets", name).read_text(encoding="utf-8")


def page(title: str, data: str, plotly: str) -> str:
    """One HTML file with everything that is needed to show it.

    Args:
        title: plain text, escaped here.
        data: JSON without `<`.
        plotly: the source of plotly.js.

    Example:
        >>> page("a < b", "{}", "").splitlines()[:2]
        ['<!DOCTYPE html>', '<html lang="en">']
        >>> "<title>a &lt; b</title>" in page("a < b", "{}", "")
        True
    """
    environment = Environment(
        loader=FunctionLoader(asset), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(TEMPLATE).render(
        title=title,
        data=data,
        plotly=plotly,
        style=asset(STYLE),
        script="".join(map(asset, SCRIPTS)),
    )
