"""A tensor neural network learns handwritten digits, compared with a dense network of the same widths.

python examples/tnn.py
"""

import sys

import torch
from torch import nn

import tnml
from tnml.nn import TNN


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    train, test = (tnml.data.load("digits", split=split) for split in ("train", "test"))
    x, y, x_test, y_test = map(torch.from_numpy, (train.x, train.y, test.x, test.y))
    mean, std = x.mean(), x.std()
    x, x_test = (x - mean) / std, (x_test - mean) / std  # the starting weights expect variance one

    accuracies = {}
    for name, rank in {"tensor trains": 4, "dense": None}.items():
        torch.manual_seed(0)
        network = TNN([64, 256, 256, 256, 10], rank=rank, activation="elu", skip=True)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3 if rank else 1e-3)  # cores: larger steps
        for _ in range(5 if smoke else 30):
            for batch in torch.randperm(len(x)).split(100):
                loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            accuracies[name] = (network(x_test).argmax(1) == y_test).double().mean().item()
        print(f"{name}: {network.n_parameters:,} parameters, test accuracy: {accuracies[name]:.4f}")
    assert accuracies["tensor trains"] > (0.9 if smoke else 0.95)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
