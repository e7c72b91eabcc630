"""One HTML file that shows explanations: what was compared with what, figures, and a line for each sample."""

import base64
import io
import os
from collections.abc import Sequence

from jinja2 import Environment, FunctionLoader, StrictUndefined
from matplotlib.figure import Figure

from tnml.errors import InputError
from tnml.files import user_path, write_text
from tnml.report.study_template import STYLE, asset

EXPLANATION = "explanation.html"
_DPI = 130


def explanation_page(
    path: str | os.PathLike[str],
    title: str,
    facts: Sequence[tuple[str, object]],
    figures: Sequence[tuple[str, str, Figure]],
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    adds_up: bool = True,
) -> None:
    """Writes a page that holds everything it needs: it works without a network and has no scripts.

    Args:
        path: of an .html file.
        title: of the page.
        facts: names and values, shown at the top.
        figures: for each a heading, a sentence about it and the figure.
        head: headings of the table of samples.
        rows: its lines.
        adds_up: whether contributions add up to the outputs, as Shapley values do.

    Raises:
        InputError: another ending, or the file cannot be written.

    Example:
        >>> explanation_page("page.pdf", "Why", [], [], [], [])
        Traceback (most recent call last):
        tnml.errors.InputError: expected a page with the ending .html, got page.pdf
    """
    if user_path(path).suffix.lower() != ".html":
        raise InputError(f"expected a page with the ending .html, got {os.fspath(path)}")
    pictures = []
    for heading, note, figure in figures:
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=_DPI)
        pictures.append((heading, note, base64.b64encode(stream.getvalue()).decode("ascii")))
    environment = Environment(
        loader=FunctionLoader(asset), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    text = environment.get_template(EXPLANATION).render(
        title=title,
        style=asset(STYLE),
        facts=facts,
        figures=pictures,
        head=head,
        rows=rows,
        adds_up=adds_up,
    )
    write_text(path, text)
