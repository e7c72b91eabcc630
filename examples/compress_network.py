"""A dense network is trained, compressed to a tenth of its parameters, and trained for a few more epochs.

python examples/compress_network.py
python examples/compress_network.py --mnist
"""

import sys

import torch
from torch import nn

import tnml


def fit(model: nn.Module, data: tnml.data.Dataset, epochs: int, lr: float) -> None:
    """Trains the model. Any loop works, as tensor-train layers are ordinary modules."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(50):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: tnml.data.Dataset) -> float:
    """The fraction of images that the model classifies correctly."""
    right = model(torch.from_numpy(data.x)).argmax(1) == torch.from_numpy(data.y)
    return right.double().mean().item()


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    torch.manual_seed(0)
    name = "mnist" if "--mnist" in sys.argv else "digits"
    train, test = (tnml.data.load(name, split=split) for split in ("train", "test"))

    wide = 256 if smoke else 512
    inputs = train.x.shape[1]
    model = nn.Sequential(
        nn.Linear(inputs, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 10)
    )
    fit(model, train, epochs=8 if smoke or name == "mnist" else 20, lr=1e-3)
    dense = accuracy(model, test)

    smaller, report = tnml.nn.compress(model, ratio=0.1, skip=["4"])  # a copy; the last layer stays dense
    print(report)
    cut = accuracy(smaller, test)
    fit(smaller, train, epochs=5, lr=5e-3)  # tensor trains allow larger steps
    tuned = accuracy(smaller, test)
    print(f"test accuracy: {dense:.4f} dense, {cut:.4f} compressed, {tuned:.4f} after five epochs more")
    assert tuned > (0.9 if smoke else 0.95)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
