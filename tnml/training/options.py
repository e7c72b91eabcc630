"""What can be chosen about supervised training, checked once when it is written down."""

from dataclasses import dataclass

from tnml.checks import number, whole
from tnml.errors import InputError, choose
from tnml.loop.options import LoopOptions

LOSSES = ("cross-entropy", "mse")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(LoopOptions):
    """The options of supervised training: those of the loop, and how the data are used.

    Args:
        batch_size: samples per step, over all processes together; the last batch of an epoch may be smaller.
        loss: "cross-entropy" (labels) or "mse" (mean squared error; labels become one-hot targets).
        label_smoothing: share of the target spread evenly over the classes, cross-entropy only.
        max_shift: shift each training image by up to this many pixels at random in both directions.
        validation: fraction of the training samples held out; measured after every epoch, stratified by
            class.

    Raises:
        InputError: a value is out of its range, or `patience` watches a held-out part that does not exist.

    Example:
        >>> TrainOptions(epochs=2, batch_size=64, validation=0.1, patience=5).batch_size
        64
    """

    batch_size: int = 100
    loss: str = "cross-entropy"
    label_smoothing: float = 0.0
    max_shift: int = 0
    validation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("batch_size", self.batch_size, 1)
        whole("max_shift", self.max_shift, 0)
        choose("loss", self.loss, dict.fromkeys(LOSSES))
        number("label_smoothing", self.label_smoothing, least=0.0, below=1.0)
        number("validation", self.validation, least=0.0, below=1.0)
        if self.label_smoothing and self.loss != "cross-entropy":
            raise InputError(
                f"label_smoothing goes with loss='cross-entropy', got loss={self.loss!r}; set it to 0"
            )
        if self.patience is not None and not self.validation:
            raise InputError("patience needs a held-out part to watch, got validation=0; try validation=0.1")
