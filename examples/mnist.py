"""MNIST in Python with the recipe of `tnml train mnist`; the data are downloaded if they are missing.

python examples/mnist.py
"""

import sys
from dataclasses import replace

import tnml
from tnml.nn import MPSLayer
from tnml.training import ProgressReporter, train_classifier
from tnml.training.presets import preset


def main(smoke: bool = False) -> None:
    """Runs the example; `smoke` uses a few small images and few epochs."""
    pool = 4 if smoke else 1
    train = tnml.data.load("mnist", split="train", pool=pool)
    test = tnml.data.load("mnist", split="test", pool=pool)
    recipe = preset("mnist")
    options, samples = recipe.train, len(train)
    if smoke:
        options, samples = replace(options, epochs=4, lr=5e-3), 5000

    layer = MPSLayer(train.x.shape[1], 10, shape=train.image_shape, **recipe.model)
    result = train_classifier(
        layer,
        train.x[:samples],
        train.y[:samples],
        options,
        x_test=test.x,
        y_test=test.y,
        image_shape=train.image_shape,
        progress=ProgressReporter(),
    )
    print(f"test accuracy: {result.test['accuracy']:.4f} in {result.seconds:.0f} seconds")

    model = tnml.MPSClassifier.from_layer(layer, range(10), image_shape=train.image_shape)
    assert model.score(test.x, test.y) == result.test["accuracy"]
    assert result.test["accuracy"] > (0.6 if smoke else 0.98)


if __name__ == "__main__":
    main(smoke="--smoke" in sys.argv)
