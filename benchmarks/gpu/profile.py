"""Where the time of a step goes: augmentation, the host, and a device that waits.

torch.profiler records a few steps of the real loop as a Chrome trace. There, everything that the device does has the
correlation of the host's call that launched it, and `record_function` marks what the host was doing.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu.session import EXECUTION, Line, Piece, Session
from benchmarks.measure import ROUNDS
from benchmarks.pretraining import noise, short_epochs
from issl.spec.run import RunSpec
from issl.training.lightning import pl

METHODS = ("dissl", "cissl")
STEPS = 20  # that are recorded, and of each epoch that is timed before them
WINDOW, AUGMENTATION = "recorded steps", "augmentation"
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
CALLS = ("cuda_runtime", "cuda_driver")
MOST_KERNELS = 8

Event = Mapping[str, Any]  # of a Chrome trace: times are in microseconds


def pieces(session: Session) -> Iterator[Piece]:
    """One for each method."""
    for method in METHODS:
        yield Piece(method, 1, partial(lines, method, session.methods[method], session))


def lines(method: str, run: RunSpec, session: Session) -> list[Line]:
    """Milliseconds of a step: without the profiler, the median of epochs; with it, the mean of recorded steps.

    Raises RuntimeError if the profiler sees nothing of a GPU.
    """
    steps = min(session.most(STEPS), session.n_images // run.optim.batch_size)
    timed = session.most(ROUNDS)
    recorder = Recorder(epoch=1 + timed)
    *epochs, _ = short_epochs(run, noise(run, session.n_images), steps, 2 + timed, EXECUTION, [recorder])
    parts = shares(recorder.events)
    if session.device.type == "cuda" and not parts["device_busy"]:
        raise RuntimeError("the profiler saw nothing of the GPU: does this machine permit CUPTI?")
    step = 1000 * median(epochs[1:]) / steps
    about = {"method": method, "precision": session.precision, "batch_size": run.optim.batch_size, "step_ms": step}
    per_step = {f"{name}_ms": value / 1000 / steps for name, value in parts.items()}
    on_device = {"augmentation_share": None, "idle_share": None}
    if parts["device_busy"]:
        on_device["augmentation_share"] = parts["augmentation_on_device"] / parts["device_busy"]
        on_device["idle_share"] = max(0.0, 1 - per_step["device_busy_ms"] / step)  # of the step without the profiler
    return [about | per_step | on_device | {"n": timed, "kernels_ms": kernels(recorder.events, steps)}]


class Recorder(pl.Callback):
    """Profiles one epoch; `events` are then those of its trace."""

    def __init__(self, epoch: int):
        self.epoch, self.events = epoch, []

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        views = module.source.views

        def marked(*arguments: Any) -> torch.Tensor:
            with record_function(AUGMENTATION):
                return views(*arguments)

        module.source.views = marked

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            on_device = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self.profiler = profile(activities=[ProfilerActivity.CPU, *on_device])
            self.window = record_function(WINDOW)
            self.profiler.__enter__()
            self.window.__enter__()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.window.__exit__(None, None, None)
            self.profiler.__exit__(None, None, None)
            with tempfile.TemporaryDirectory() as folder:
                trace = Path(folder, "trace.json")
                self.profiler.export_chrome_trace(str(trace))
                self.events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]


# --- of a trace ------------------------------------------------------------------------------------------------------


def shares(events: Iterable[Event]) -> dict[str, float]:
    """Microseconds of the recorded steps.

    `host` is when the host does not wait for the device, `device_busy` when the device does anything, and
    `augmentation_on_device` what it does for calls within the augmentation.
    """
    spans = [event for event in events if event.get("ph") == "X"]
    (window,) = (event for event in spans if event["name"] == WINDOW and event["cat"] == "user_annotation")
    augmentation = [event for event in spans if event["name"] == AUGMENTATION and event["cat"] == "user_annotation"]
    calls = [event for event in spans if event["cat"] in CALLS]
    on_device = [event for event in spans if event["cat"] in ON_DEVICE]
    waits = [event for event in calls if "Synchronize" in event["name"] and event["tid"] == window["tid"]]
    augmenting = {
        call["args"].get("correlation") for call in calls if any(_within(call, marked) for marked in augmentation)
    }
    return {
        "profiled": window["dur"],
        "host": window["dur"] - covered(waits, window),
        "device_busy": covered(on_device, window),
        "augmentation_on_host": sum(event["dur"] for event in augmentation),
        "augmentation_on_device": covered(
            [event for event in on_device if event["args"].get("correlation") in augmenting], window
        ),
    }


def covered(events: Sequence[Event], window: Event) -> float:
    """Microseconds of the window in which at least one of the events lasts."""
    first, last = window["ts"], window["ts"] + window["dur"]
    total, reached = 0.0, first
    for event in sorted(events, key=lambda each: each["ts"]):
        begin, end = max(event["ts"], reached), min(event["ts"] + event["dur"], last)
        total += max(0.0, end - begin)
        reached = max(reached, end)
    return total


def _within(event: Event, outer: Event) -> bool:
    return event["tid"] == outer["tid"] and outer["ts"] <= event["ts"] <= outer["ts"] + outer["dur"]


def kernels(events: Iterable[Event], steps: int) -> dict[str, float]:
    """The kernels that take longest, and their milliseconds in a step."""
    total: Counter[str] = Counter()
    for event in events:
        if event.get("cat") in ON_DEVICE:
            total[event["name"][:100]] += event["dur"]
    return {name: microseconds / 1000 / steps for name, microseconds in total.most_common(MOST_KERNELS)}
