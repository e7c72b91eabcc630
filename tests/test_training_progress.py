"""Progress output: one line per epoch or sweep in a file, a live line on a terminal."""

import io
import re

import pytest
import torch
from rich.console import Console
from torch import nn

from tnml.loop import progress as progress_module
from tnml.nn import MPSLayer
from tnml.training import ProgressReporter, SweepOptions, TrainOptions, sweep_classifier, train_classifier


def trained(reporter, epochs=3):
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    options = TrainOptions(epochs=epochs, batch_size=5, validation=0.2, device="cpu")
    return train_classifier(nn.Linear(2, 2), x, (x[:, 0] > x[:, 1]).long(), options, progress=reporter)


def test_a_file_gets_one_line_per_epoch():
    log = io.StringIO()
    result = trained(ProgressReporter(log))
    lines = log.getvalue().splitlines()
    assert len(lines) == 3
    for line, row in zip(lines, result.history, strict=True):
        assert line.startswith(
            f"epoch {row['epoch']}/3  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}"
        )
        assert f"val_accuracy {row['val_accuracy']:.4f}" in line
        assert "samples/s" in line
        assert "\x1b" not in line


def test_the_default_is_the_standard_output(capsys):
    trained(ProgressReporter(), epochs=2)
    output, errors = capsys.readouterr()
    assert (output.count("\n"), errors) == (2, "")


def test_a_terminal_gets_a_live_line(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        progress_module,
        "Console",
        lambda file: Console(file=file, force_terminal=True, width=150, legacy_windows=False),
    )
    monkeypatch.setattr(progress_module, "_REFRESH", 0.0)
    result = trained(ProgressReporter(screen))
    text = screen.getvalue()
    assert "epoch 1/3" in text
    assert f"val_accuracy {result.history[-1]['val_accuracy']:.4f}" in text
    assert "samples/s" in text
    assert "0:00:00" in text
    assert text.rstrip().count("\n") <= 2  # the line is redrawn, not repeated
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l") == 1  # the cursor comes back


def test_the_terminal_comes_back_after_an_error(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        progress_module, "Console", lambda file: Console(file=file, force_terminal=True, width=80)
    )

    class Breaks(nn.Linear):
        def forward(self, x):
            if self.training:
                raise RuntimeError("broken")
            return super().forward(x)

    x = torch.zeros(4, 2)
    reporter = ProgressReporter(screen)
    with pytest.raises(RuntimeError, match="broken"):
        train_classifier(
            Breaks(2, 2), x, torch.zeros(4, dtype=torch.int64), TrainOptions(device="cpu"), progress=reporter
        )
    assert "\x1b[?25h" in screen.getvalue()


def swept(reporter, sweeps=2):
    x = torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
    options = SweepOptions(sweeps=sweeps, max_bond=3, validation=0.2, device="cpu")
    layer = MPSLayer(5, 2, bond_dim=1)
    return sweep_classifier(layer, x, (x[:, 0] > x[:, 1]).long(), options, progress=reporter)


def test_a_file_gets_one_line_per_sweep():
    log = io.StringIO()
    result = swept(ProgressReporter(log, unit="sweep"))
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    for line, row in zip(lines, result.history, strict=True):
        assert line.startswith(f"sweep {row['sweep']}/2  loss {row['loss']:.4f}  largest_bond 3  mean_bond ")
        assert f"val_accuracy {row['val_accuracy']:.4f}" in line
        assert line.endswith(f"  {row['seconds']:.1f} s")
        assert (line.count("sweep"), line.count("seconds"), line.count("samples/s")) == (1, 0, 0)


def test_a_terminal_shows_the_bond_of_a_sweep(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        progress_module,
        "Console",
        lambda file: Console(file=file, force_terminal=True, width=150, legacy_windows=False),
    )
    monkeypatch.setattr(progress_module, "_REFRESH", 0.0)
    result = swept(ProgressReporter(screen, unit="sweep"))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n")
    drawn = [line for line in text.split("\n") if " bond " in line]
    assert len(drawn) >= len(result.bonds)
    for row in result.bonds:
        numbers = f"bond {row['bond']}  loss {row['loss']:.4f}  bond_dim {row['bond_dim']}  largest_bond "
        assert any(line.startswith(f"sweep {row['sweep']}/2 ") and numbers in line for line in drawn), row
    assert re.search(r"\d:\d\d:\d\d\s*$", drawn[-1])  # time to go
    assert f"val_loss {result.history[-1]['val_loss']:.4f}" in text
    assert "samples/s" not in text
    assert screen.getvalue().count("\x1b[?25h") == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, "3"),
        (3.0, "3.0000"),
        (0.123456, "0.1235"),
        (0.0, "0.0000"),
        (4.2e-9, "4.2e-09"),
        (-2e-5, "-2.0e-05"),
    ],
)
def test_numbers_in_few_digits(value, shown):
    log = io.StringIO()
    ProgressReporter(log, unit="round").epoch({"round": 1, "number": value}, epochs=12)
    assert log.getvalue() == f"round  1/12  number {shown}\n"
