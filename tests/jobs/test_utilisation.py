"""How busy a GPU is, sampled while a block runs."""

import logging
import threading
import time

import pynvml
import pytest
import torch

from issl.jobs.utilisation import Watch

GPU = torch.device("cuda", 0)


def told(monkeypatch, answers):
    """Lets the driver give these answers, one after the other; returns an event that is set after the last one."""
    left, done = list(answers), threading.Event()

    def utilization(device):
        assert device == GPU
        answer = left.pop(0) if left else answers[-1]
        if not left:
            done.set()
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    return done


def test_the_mean_of_all_samples_is_given(monkeypatch):
    done = told(monkeypatch, [0, 100, 80, 60])
    with Watch(GPU, period=1e-3) as watch:
        assert done.wait(60)
        while len(watch.samples) < 4:
            time.sleep(1e-3)
    assert watch.samples[:4] == [0, 100, 80, 60] and watch.percent == sum(watch.samples) / len(watch.samples)
    assert not watch.thread.is_alive()


@pytest.mark.parametrize("error", [pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED), RuntimeError("no driver")])
def test_a_gpu_that_does_not_tell_is_named_in_the_log_and_harms_nothing(monkeypatch, caplog, error):
    caplog.set_level(logging.INFO)
    told(monkeypatch, [error])
    with Watch(GPU, period=1e-3) as watch:
        watch.thread.join(60)
    assert watch.percent is None
    [line] = caplog.messages
    assert line.startswith("cuda:0 does not tell how busy it is") and str(error) in line


def test_on_the_cpu_nothing_is_sampled(monkeypatch):
    told(monkeypatch, [RuntimeError("asked")])
    with Watch(torch.device("cpu"), period=1e-3) as watch:
        time.sleep(0.01)
    assert watch.percent is None and watch.thread.ident is None


def test_an_error_in_the_block_comes_through_and_ends_the_thread(monkeypatch):
    told(monkeypatch, [50])
    with pytest.raises(ValueError, match="of the job"), Watch(GPU, period=1e-3) as watch:
        raise ValueError("of the job")
    assert not watch.thread.is_alive()
