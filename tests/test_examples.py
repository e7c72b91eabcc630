"""The examples run, show what they promise, and README's Python is the quickstart."""

import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

MOST_LINES = 80


def load_example(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["quickstart", "layer", "tnn"])
def test_example(name: str, project_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_example(project_root / "examples" / f"{name}.py").main(smoke=True)
    assert "test accuracy: 0." in capsys.readouterr().out


def test_entanglement_example(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_example(project_root / "examples" / "entanglement.py").main(smoke=True)
    shown = capsys.readouterr().out
    assert "test accuracy: 0." in shown
    assert "largest entropy:" in shown
    assert (tmp_path / "entanglement-digits.png").stat().st_size > 1000


def test_explain_example(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    load_example(project_root / "examples" / "explain.py").main(smoke=True)
    shown = capsys.readouterr().out
    assert shown.count("test accuracy: 0.") == 2
    assert "contributions [3, 64, 3] add up to the logits" in shown
    for name in ("explain-digits.png", "explain-table.png"):
        assert (tmp_path / name).stat().st_size > 1000


def test_dmrg_example(project_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_example(project_root / "examples" / "dmrg.py").main(smoke=True)
    shown = capsys.readouterr().out
    assert "bonds chosen: [1, 2" in shown
    assert "test accuracy: 0." in shown
    assert re.search(r"relative test error: \de-(0[6-9]|1\d)", shown)


def test_interop_example(project_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_example(project_root / "examples" / "interop.py").main(smoke=True)
    shown = capsys.readouterr().out
    assert "norm: tnml and tensornetwork differ by" in shown
    assert "ring of nodes: 50 outputs, tnml and numpy differ by" in shown


def test_compress_network_example(project_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_example(project_root / "examples" / "compress_network.py").main(smoke=True)
    shown = capsys.readouterr().out
    assert "2 of 3 dense layers replaced" in shown
    assert re.search(r"test accuracy: 0\.\d+ dense, 0\.\d+ compressed, 0\.\d+ after five epochs more", shown)


@pytest.mark.slow
def test_pde_examples(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bsb", "hjb", "own", "option"):
        load_example(project_root / "examples" / f"pde_{name}.py").main(smoke=True)
    shown = capsys.readouterr().out
    assert re.search(r"path error, mean +0\.\d+ %", shown)
    assert re.search(r"tnn +\d+ parameters .* error along paths \d+\.\d+ %", shown)
    assert "without the tax it would be 1.0" in shown
    assert re.search(r"price 7\.\d+, by the formula 7\.9493", shown)
    assert (tmp_path / "basket.png").stat().st_size > 1000


@pytest.mark.usefixtures("data_dir")
def test_mnist_example(project_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_example(project_root / "examples" / "mnist.py").main(smoke=True)
    assert "test accuracy: 0." in capsys.readouterr().out


def test_every_example_is_short_and_tested(project_root: Path) -> None:
    examples = sorted((project_root / "examples").glob("*.py"))
    assert [path.stem for path in examples] == [
        "compress_network",
        "dmrg",
        "entanglement",
        "explain",
        "interop",
        "layer",
        "mnist",
        "pde_bsb",
        "pde_hjb",
        "pde_option",
        "pde_own",
        "quickstart",
        "tnn",
    ]
    for path in examples:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MOST_LINES
        assert f"\npython examples/{path.name}\n" in text
        assert "def main(smoke: bool = False)" in text


def test_readme_shows_the_quickstart(project_root: Path) -> None:
    source = (project_root / "examples" / "quickstart.py").read_text(encoding="utf-8")
    shown = source.split("# README: from here\n")[1].split("    # README: to here")[0]
    shown = textwrap.dedent(shown).replace("epochs=5 if smoke else 30", "epochs=30")
    imports = "import tempfile\nfrom pathlib import Path\n\nimport tnml\n\n"
    readme = (project_root / "README.md").read_text(encoding="utf-8")
    first = re.search(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    assert first is not None
    assert first[1] == imports + shown
