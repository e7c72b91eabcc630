"""A matrix product state learns handwritten digits in a few seconds: fit, score, save, load.

python examples/quickstart.py
"""

import sys
import tempfile
from pathlib import Path

import tnml


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` makes it short."""
    # README: from here
    train = tnml.data.load("digits", split="train")  # arrays in [0, 1], labels, image shape, provenance
    test = tnml.data.load("digits", split="test")

    model = tnml.MPSClassifier(bond_dim=16, epochs=5 if smoke else 30, random_state=0)
    model.fit(train.x, train.y)  # a scikit-learn estimator: labels of any type, Pipeline, GridSearchCV
    accuracy = model.score(test.x, test.y)
    print(f"test accuracy: {accuracy:.4f}")

    path = Path(tempfile.mkdtemp()) / "digits.safetensors"
    model.save(path)  # tensors and JSON, no code
    again = tnml.load(path)
    assert (again.predict(test.x) == model.predict(test.x)).all()
    # README: to here
    assert accuracy > (0.85 if smoke else 0.96)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
