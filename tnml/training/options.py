"""What can be chosen about supervised training, checked once when it is written down."""

from dataclasses import dataclass
from typing import Any

from tnml.checks import keep_number, keep_whole
from tnml.errors import InputError
from tnml.loop.options import LoopOptions
from tnml.training.losses import Loss, loss_of
from tnml.training.losses.table import check_loss, loss_record
from tnml.training.tasks import Task


@dataclass(frozen=True, kw_only=True)
class TrainOptions(LoopOptions):
    """The options of supervised training: those of the loop, and how the data are used.

    Args:
        batch_size: samples per step, over all processes together; the last batch of an epoch may be smaller,
            but a single sample left over joins the batch before it.
        loss: a name of `tnml.training.losses.LOSSES`: "cross-entropy" or "focal" (labels), "mse" (mean
            squared error; labels become one-hot targets), "huber" or "quantile" (real targets); or a mapping
            with options, such as `{"name": "huber", "delta": 0.5}`. None is the task's own: "cross-entropy"
            for labels, "mse" for real targets.
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
    loss: str | dict[str, Any] | None = None
    label_smoothing: float = 0.0
    max_shift: int = 0
    validation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_whole(self, "batch_size", least=1)
        keep_whole(self, "max_shift")
        if self.loss is not None:
            check_loss(self.loss)
        keep_number(self, "label_smoothing", "validation", least=0.0, below=1.0)
        if self.label_smoothing and self.loss not in (None, "cross-entropy"):
            raise InputError(
                f"label_smoothing goes with loss='cross-entropy', got loss={self.loss!r}; set it to 0"
            )
        if self.patience is not None and not self.validation and self.monitor.startswith("val_"):
            raise InputError("patience needs a held-out part to watch, got validation=0; try validation=0.1")

    def record(self) -> dict[str, Any]:
        """As `LoopOptions.record`; a loss that is not named is written as "cross-entropy", as ever.

        Example:
            >>> TrainOptions().record()["loss"]
            'cross-entropy'
        """
        # Checkpoints of earlier versions hold this name where nobody chose one, for regressors, too.
        return {**super().record(), "loss": loss_record(self.loss or "cross-entropy")}

    def loss_for(self, task: Task) -> Loss:
        """The loss of a task with these options.

        Raises:
            InputError: the loss named is not one of this task, or keeps numbers of every sample and would be
                trained by several processes or by a line search.

        Example:
            >>> from tnml.training.tasks import CLASSIFICATION
            >>> TrainOptions(label_smoothing=0.1).loss_for(CLASSIFICATION)
            CrossEntropy(smoothing=0.1)
        """
        chosen = task.default_loss if self.loss is None else self.loss
        loss = loss_of(chosen, task.name, label_smoothing=self.label_smoothing)
        if loss.by_sample and (self.optimizer == "lbfgs" or self.devices > 1):
            raise InputError(
                f"loss={chosen!r} keeps numbers of every sample, which take one step a batch in one process; "
                "set devices to 1 and take another optimizer than 'lbfgs'"
            )
        return loss


def check_for_task(task: Task, options: object) -> None:
    """Raises where options that only labelled images have are set for another task.

    Raises:
        InputError: `max_shift` or `label_smoothing` is not 0.

    Example:
        >>> from tnml.training.tasks import REGRESSION
        >>> check_for_task(REGRESSION, TrainOptions())
    """
    asked = any(getattr(options, name) for name in ("max_shift", "label_smoothing"))
    if asked and not task.from_images:
        raise InputError("max_shift and label_smoothing are for classifiers; set them to 0")
