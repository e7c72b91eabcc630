"""Training by sweeps over the bonds: the cutoff chooses the bond dimensions, and least squares is exact.

python examples/dmrg.py
"""

import sys

import torch

import tnml
from tnml.training import SweepOptions, sweep_classifier, sweep_regressor


def digits(smoke: bool) -> None:
    """Bonds grow from 1 where the handwritten digits require it."""
    pool = 2 if smoke else 1
    train, test = (tnml.data.load("digits", split=split, pool=pool) for split in ("train", "test"))
    layer = tnml.nn.MPSLayer(train.x.shape[1], 10, bond_dim=1, noise=0.0, order="snake")
    options = SweepOptions(
        label="travels",  # the label leg moves with the pair of sites that is being solved for
        sweeps=3 if smoke else 4,
        max_bond=20,
        max_error=0.02,
        proximal=3.0,
        label_smoothing=0.05,
        device="cpu",
    )
    result = sweep_classifier(layer, train.x, train.y, options, x_test=test.x, y_test=test.y)
    for row in result.history:
        print(f"sweep {row['sweep']}  loss {row['loss']:.4f}  mean bond {row['mean_bond']:.1f}")
    print(f"bonds chosen: {layer.bond_dims}")
    accuracy = result.test["accuracy"]
    print(f"test accuracy: {accuracy:.4f}")
    assert accuracy > (0.8 if smoke else 0.96)


def teacher() -> None:
    """Alternating least squares finds another chain, its bonds included, from values on 1000 points."""
    one = tnml.nn.MPSLayer(8, 1, bond_dim=3, noise=1.0, dtype="float64", seed=1)
    x = torch.rand(1200, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = one(x)

    other = tnml.nn.MPSLayer(8, 1, bond_dim=1, dtype="float64")
    options = SweepOptions(
        loss="mse", solver="als", metric="frobenius", ridge=0.0, max_bond=10, max_error=1e-7, device="cpu"
    )
    sweep_regressor(other, x[:1000], y[:1000], options)
    with torch.no_grad():
        error = (other(x[1000:]) - y[1000:]).norm() / y[1000:].norm()
    print(f"bonds of the teacher: {one.bond_dims}, found: {other.bond_dims}")
    print(f"relative test error: {error.item():.0e}")
    assert error < 1e-5


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    digits(smoke)
    teacher()


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
