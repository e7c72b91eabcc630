"""The page's template, style and scripts: they parse, nothing of them is left out, and text is escaped."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tnml.report.explanation_html import EXPLANATION
from tnml.report.study_template import SCRIPTS, STYLE, TEMPLATE, asset, page

NODE = shutil.which("node")
SOURCES = {**{name: asset(name) for name in SCRIPTS}, "all.js": "".join(map(asset, SCRIPTS))}
LEFTOVERS = re.compile(r"\bconsole\.log\b|\bdebugger\b|\bvar\s")


@pytest.fixture(scope="module")
def assets(project_root: Path) -> Path:
    return project_root / "tnml" / "report" / "assets"


def check(source: str, place: Path) -> str:
    """What node says of a script that it does not run; empty where it parses."""
    assert NODE is not None
    place.write_text(source, encoding="utf-8")
    return subprocess.run([NODE, "--check", place], capture_output=True, text=True, check=False).stderr


def test_every_asset_is_on_the_page(assets: Path) -> None:
    names = {path.name for path in assets.iterdir() if not path.name.startswith(".")}
    assert names == {TEMPLATE, STYLE, *SCRIPTS, EXPLANATION}
    text = page("mine", "{}", "/* plotly */")
    assert all(asset(name).strip() in text for name in (STYLE, *SCRIPTS))
    assert "<script>/* plotly */</script>" in text
    assert "{{" not in text
    assert "{#" not in text


def test_a_title_is_escaped_and_scripts_are_not() -> None:
    text = page("</title><script>1 && 2</script>", '{"a": "&"}', "1 && 2 < 3;")
    assert "<title>&lt;/title&gt;&lt;script&gt;1 &amp;&amp; 2&lt;/script&gt;</title>" in text
    assert '<script type="application/json" id="data">{"a": "&"}</script>' in text
    assert "<script>1 && 2 < 3;</script>" in text


@pytest.mark.skipif(NODE is None, reason="needs node to parse JavaScript and finds none on the PATH")
@pytest.mark.parametrize("name", SOURCES)
def test_scripts_parse(name: str, tmp_path: Path) -> None:
    """Each script, and all of them as one, as the browser gets them: no name is there twice."""
    assert not check(SOURCES[name], tmp_path / name)
    assert "SyntaxError" in check(SOURCES[name] + "const = 1;\n", tmp_path / name), "node would notice"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_hold_no_leftovers(name: str) -> None:
    found = [line for line in asset(name).splitlines() if LEFTOVERS.search(line)]
    assert not found, "no printing, no breakpoints; `const` and `let` in place of `var`"


def test_leftovers_would_be_noticed() -> None:
    assert all(LEFTOVERS.search(text) for text in ('console.log("x")', "  debugger;", "var a = 1;"))
    assert not LEFTOVERS.search("const variable = 1, vary = 2; // variance")
