"""What several tests of trainings need."""

from contextlib import contextmanager

import pytest

from issl.training import pretrain


class Killed(BaseException):
    """Stands for the end of the process: nothing may handle it."""


@pytest.fixture
def killed_at(monkeypatch):
    """Gives a context in which a training must die at a step, (epoch, batch), before it computes anything of it."""

    @contextmanager
    def kill(step):
        original = pretrain.Pretraining.training_step

        def killed(module, batch, batch_idx):
            if (module.current_epoch, batch_idx) == step:
                raise Killed
            return original(module, batch, batch_idx)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(pretrain.Pretraining, "training_step", killed)
            yield

    return kill
