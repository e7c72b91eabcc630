"""What every task has to do. A new member gives data, a model and how it is trained."""

from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch
from torch import nn

from tnml.errors import InputError
from tnml.training import TrainOptions
from tnml.training.losses import LOSSES
from tnml.training.samples import samples_for
from tnml.training.tasks import TASKS


class TaskContract(ABC):
    """Subclass it as `TestMine(TaskContract)`.

    Attributes:
        name: of the task.
        bad_targets: targets for eight inputs and two outputs that are refused, with a part of the text.
    """

    name: str
    bad_targets: dict
    outputs = 2

    @abstractmethod
    def data(self):
        """Inputs `[8, 3]` and targets."""

    @abstractmethod
    def train(self, model, x, y, options, **given):
        """The result of the public function that trains for this task."""

    def model(self):
        torch.manual_seed(0)
        return nn.Linear(3, self.outputs)

    @pytest.fixture
    def task(self):
        return TASKS[self.name]

    def test_its_usual_loss_is_one_of_its_losses(self, task):
        assert self.name in LOSSES[task.default_loss]
        assert TrainOptions().loss_for(task) == LOSSES[task.default_loss][self.name]()

    def test_a_run_measures_what_its_monitors_name(self, task):
        x, y = self.data()
        options = TrainOptions(epochs=1, device="cpu", validation=0.5)
        row = self.train(self.model(), x, y, options).history[0]
        assert set(task.monitors) == set(row) - {"epoch", "lr", "seconds", "samples_per_second"}
        for monitor in task.monitors:
            options = TrainOptions(epochs=1, device="cpu", validation=0.5, patience=1, monitor=monitor)
            assert self.train(self.model(), x, y, options).best_epoch == 1

    def test_targets_follow_the_inputs(self, task):
        x, y = self.data()
        found = samples_for(task, self.model(), x, y)
        assert len(found.y) == len(found.x) == len(x)
        assert found.outputs == self.outputs
        part, held = found.parts(0.5, seed=0)
        assert sorted([*part.index.tolist(), *held.index.tolist()]) == list(range(len(x)))
        assert torch.equal(found.y[part.index], part.y)
        assert torch.equal(found.x[held.index], held.x)

    def test_bad_targets_are_refused(self, task):
        x, _ = self.data()
        for y, text in self.bad_targets.values():
            with pytest.raises(InputError, match=text):
                samples_for(task, self.model(), x, y)

    def test_shifts_belong_to_images(self, task):
        x, y = self.data()
        options = TrainOptions(epochs=1, device="cpu", max_shift=1)
        if not task.from_images:
            with pytest.raises(InputError, match="are for classifiers"):
                self.train(self.model(), x, y, options)

    def test_resuming_with_other_targets_is_refused(self, task, tmp_path):
        x, y = self.data()
        options = TrainOptions(epochs=1, device="cpu")
        self.train(self.model(), x, y, options, run_dir=tmp_path / "run")
        with pytest.raises(InputError, match="data checksum"):
            self.train(self.model(), x[::-1].copy(), y, options, run_dir=tmp_path / "run", resume=True)


def inputs():
    return np.random.RandomState(0).random_sample((8, 3)).astype(np.float32)
