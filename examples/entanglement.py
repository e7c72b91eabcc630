"""Where in an image a classifier carries information: entropies along the chain and over the pixels.

python examples/entanglement.py
python examples/entanglement.py mnist
"""

import sys
from dataclasses import replace

import numpy as np

import tnml
from tnml.nn import MPSLayer
from tnml.report import entanglement_figure, save_figure
from tnml.training import train_classifier
from tnml.training.presets import preset


def main(smoke: bool = False) -> None:
    """Runs the example on the digits; `smoke` makes it short."""
    show("digits", smoke)


def show(data: str, smoke: bool = False) -> None:
    """Trains on a data set, prints its entropies and draws them."""
    train, test = (tnml.data.load(data, split=split) for split in ("train", "test"))
    assert train.image_shape is not None
    recipe = preset(data)
    options = replace(recipe.train, epochs=5) if smoke else recipe.train
    layer = MPSLayer(train.x.shape[1], 10, shape=train.image_shape, **recipe.model)
    result = train_classifier(
        layer, train.x, train.y, options, x_test=test.x, y_test=test.y, image_shape=train.image_shape
    )
    print(f"test accuracy: {result.test['accuracy']:.4f}")

    # The weights as one quantum state of n + 1 sites, the label core among them: each of its n bonds has
    # Schmidt values, and the entropy of their squares says how much the two sides share.
    state = layer.to_state()
    entropies = state.to("float64").entropies().numpy(force=True)
    bond = int(entropies.argmax())
    print(f"largest entropy: {entropies[bond]:.3f} nats, at bond {bond + 1} of {len(entropies)}")
    print(f"effective bond dimension there: {np.exp(entropies[bond]):.1f} of {state.bond_dims[bond + 1]}")

    # Each site owns the bond on its side of the label core; the site order says which pixel it is.
    picture = np.empty(len(entropies))
    picture[layer.order.numpy(force=True)] = entropies
    picture = picture.reshape(train.image_shape)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    print(f"pixel of that bond: row {row}, column {column}")

    shape = layer.chain_shape
    figure = entanglement_figure(
        shape.left, shape.right, entropies.tolist(), picture, title=f"Entanglement of a classifier of {data}"
    )
    save_figure(figure, f"entanglement-{data}.png")
    print(f"figure: entanglement-{data}.png")

    smaller, error = layer.compressed(max_error=0.01)
    print(f"bond dimension for a relative error of {error:.4f}: {max(smaller.bond_dims)}")
    assert result.test["accuracy"] > (0.8 if smoke else 0.95)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    show(words[0] if words else "digits", smoke="--smoke" in sys.argv)
