"""A matrix product state as a PyTorch layer, in a training loop of your own.

python examples/layer.py
"""

import sys

import torch
from torch import nn

import tnml


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    train = tnml.data.load("digits", split="train")
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    generator = torch.Generator().manual_seed(0)

    layer = tnml.nn.MPSLayer(n_sites=64, out_features=10, bond_dim=10, order="snake")  # [b, n] -> [b, c]
    optimizer = torch.optim.Adam(layer.parameters(), lr=2e-3)
    for epoch in range(4 if smoke else 20):
        for batch in torch.randperm(len(x), generator=generator).split(50):
            loss = nn.functional.cross_entropy(layer(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}  loss {loss.item():.4f}")

    test = tnml.data.load("digits", split="test")
    with torch.no_grad():
        predicted = layer(torch.from_numpy(test.x)).argmax(1)
    accuracy = (predicted == torch.from_numpy(test.y)).double().mean().item()
    print(f"test accuracy: {accuracy:.4f} with bonds {layer.bond_dims[:6]} ...")
    assert accuracy > (0.8 if smoke else 0.95)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
