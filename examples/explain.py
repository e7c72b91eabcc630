"""Why the model says so: exact maps of handwritten digits, and what moves the diagnosis in a table.

python examples/explain.py

The contributions are Shapley values. Those of neural networks have to be estimated from many thousand
evaluations; outputs of a tensor network are linear in the features of each site, so they come from a few
passes, exactly. Writes explain-digits.png and explain-table.png.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer

import tnml
from tnml.report import beeswarm_figure, pixel_figure, save_figure

CLASSES = (3, 5, 8)


def digits(smoke: bool) -> None:
    """One image each of three digits, and which pixels speak for and against each of the three."""
    name = "digits" if smoke else "mnist"
    train, test = tnml.data.load(name, split="train"), tnml.data.load(name, split="test")
    settings = {"epochs": 2, "bond_dim": 4} if smoke else {"epochs": 2}
    model = tnml.MPSClassifier(image_shape=train.image_shape, random_state=0, **settings)
    model.fit(train.x, train.y)
    print(f"test accuracy: {model.score(test.x, test.y):.4f}")
    right = model.predict(test.x) == test.y
    rows = [int(np.flatnonzero(right & (test.y == digit))[0]) for digit in CLASSES]
    found = model.explain(test.x[rows], target=list(CLASSES))  # compared with the mean training image
    print(f"contributions {list(found.values.shape)} add up to the logits, up to {found.gap:.0e} of them")
    figure = pixel_figure(
        found.values.numpy(),
        test.x[rows].astype(np.float64),
        test.image_shape,
        [f"for {digit}" for digit in CLASSES],
        title="Exact Shapley values: red speaks for a class, blue against it",
    )
    save_figure(figure, "explain-digits.png")


def table(smoke: bool) -> None:
    """The measurements of a tumour that make it look malignant."""
    data = load_breast_cancer(as_frame=True)
    x, y = data.data, np.where(data.target == 0, "malignant", "benign")
    train = np.random.default_rng(0).random(len(x)) < 0.75
    settings = {"epochs": 5, "bond_dim": 4} if smoke else {"bond_dim": 8}
    model = tnml.MPSClassifier(features="auto", random_state=0, **settings).fit(x[train], y[train])
    print(f"test accuracy: {model.score(x[~train], y[~train]):.4f}")
    found = model.explain(x, target="malignant", against="benign")
    values, inputs = found.values[..., 0].numpy(), x.to_numpy(dtype=np.float64)
    title = "What makes a tumour look malignant: exact Shapley values of the log odds"
    save_figure(beeswarm_figure(values, inputs, found.features, title), "explain-table.png")


def main(smoke: bool = False) -> None:
    """Both figures, of small models if `smoke`."""
    digits(smoke)
    table(smoke)


if __name__ == "__main__":
    main()
