"""Saved models: one function reads every kind of file that `save` writes."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tnml.checks import is_whole
from tnml.errors import InputError, choose
from tnml.estimators import MPSClassifier, MPSDensity, MPSGenerativeClassifier, MPSRegressor
from tnml.files import FORMAT, read_model
from tnml.nn import NETWORKS, BornMachine, TensorNetworkLayer
from tnml.nn.networks import restored_layer

if TYPE_CHECKING:
    from tnml.pde import Solution

Model = MPSClassifier | MPSRegressor | MPSDensity | MPSGenerativeClassifier | TensorNetworkLayer | BornMachine


def load(path: str | PathLike[str]) -> "Model | Solution":
    """The model in a file written by `save`: what was saved comes back, with the same predictions.

    Only tensors and JSON are read; nothing is unpickled, no code from the file runs. The model is on the CPU.
    A solved equation of your own, or with a network of your own, needs `tnml.pde.Solution.load`.

    Args:
        path: a safetensors file of tnml.

    Raises:
        InputError: no such file; a damaged one; not a model of tnml; one of a newer format; or one of a
            network that is not in `tnml.nn.NETWORKS`.

    Example:
        >>> import tempfile, pathlib
        >>> model = MPSClassifier(epochs=1).fit([[0.0], [1.0]], ["no", "yes"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(pathlib.Path(folder) / "model.safetensors")
        ...     load(pathlib.Path(folder) / "model.safetensors").classes_.tolist()
        ['no', 'yes']
    """
    tensors, metadata = read_model(path)
    version = metadata.get("format")
    if not is_whole(version, 1):
        raise InputError(
            f"{path} names no format version, got {version!r}; expected a file written by `save`"
        )
    if version > FORMAT:
        raise InputError(
            f"{path} has format {version}, this tnml reads up to {FORMAT}; install a newer tnml "
            f"(the file was written by {metadata.get('tnml', 'an unknown version')})"
        )
    kind = choose(f"kind of model in {path}", metadata.get("kind", ""), {**_READERS, _SOLUTION: None})
    if kind is None:
        from tnml.pde import Solution  # loads the solver

        return Solution.from_file(path, tensors, metadata)
    choose(f"network in {path}", metadata.get("network", "mps"), NETWORKS)
    try:
        return kind(tensors, metadata)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise InputError(
            f"{path} does not hold what a {metadata['kind']} needs ({error}); it may be damaged, save again"
        ) from error


def _read_layer(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> TensorNetworkLayer:
    return restored_layer(metadata.get("network", "mps"), metadata["config"], tensors)


def _read_born(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> BornMachine:
    return BornMachine.restored(metadata["config"], tensors)


_SOLUTION = "pde-solution"
_READERS: Mapping[str, Callable[[Mapping[str, Tensor], Mapping[str, Any]], Model]] = {
    "classifier": MPSClassifier._from_file,
    "regressor": MPSRegressor._from_file,
    "layer": _read_layer,
    "born-machine": _read_born,
    "density": MPSDensity._from_file,
    "generative-classifier": MPSGenerativeClassifier._from_file,
}
