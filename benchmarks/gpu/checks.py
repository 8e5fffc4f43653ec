"""Whether the GPU computes what the CPU does: the tests that need one, and a step of every method in low precision."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor

from benchmarks.gpu.session import PROJECT, Line, Piece, Session
from benchmarks.pretraining import Method
from issl.data.datasets import synthetic
from issl.spec.data import Synthetic
from issl.spec.run import RunSpec
from issl.views import augment
from issl.views.random import generator

GPU_TESTS = (
    "tests/training/test_graphs.py::test_replayed_steps_equal_computed_ones",
    "tests/training/test_graphs.py::test_a_training_learns_the_same_from_a_recording",
    "tests/views/test_ahead.py::test_a_gpu_gets_the_same_batches_though_steps_are_slow",
    "tests/views/test_ahead.py::test_an_error_reaches_the_step_that_would_use_the_batch",
    "tests/views/test_ahead.py::test_a_training_that_ends_early_closes_its_batches",
    "tests/views/test_augment.py::test_a_gpu_gives_the_same_views_without_waiting",
)
PRECISIONS = ("32", "bf16", "fp16")
LARGEST_SCALE = 16  # power of two: where torch's gradient scaler begins


def pieces(session: Session) -> Iterator[Piece]:
    """The tests, then each method."""
    yield Piece("tests", 1, outcomes)
    for method, run in session.methods.items():
        yield Piece(method, 1, partial(steps, method, run, session.device))


def outcomes() -> list[Line]:
    """What pytest says of each test that skips without a GPU. Raises RuntimeError if it cannot run them."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *GPU_TESTS]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(f"pytest exited with status {done.returncode}:\n{done.stdout}{done.stderr}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    return [{"test": case.get("name"), "outcome": case[0].tag if len(case) else "passed", "n": 1} for case in cases]


def steps(method: str, run: RunSpec, device: torch.device) -> list[Line]:
    """A step in each precision beside one in float32 throughout, on the same views and initial weights.

    Errors are relative: of the loss, and of all gradients as one vector. As in training, convolutions of "32" may use
    TF32. `loss_after` is that of the same views after the step. A gradient scaler starts at 2 ** `scale`.
    """
    views = views_of(run, device)
    with float32_throughout():
        loss, gradient, _, _ = step(run, views, device, "32")
    lines = []
    for precision in PRECISIONS:
        found, its_gradient, loss_after, scale = step(run, views, device, precision)
        errors = {
            "loss_error": abs(found - loss) / abs(loss),
            "gradient_error": ((its_gradient - gradient).norm() / gradient.norm()).item(),
        }
        about = {"method": method, "precision": precision, "loss": found, **errors}
        lines.append(about | {"loss_after": loss_after, "scale": scale, "n": 1})
    return lines


def views_of(run: RunSpec, device: torch.device) -> Tensor:
    """Two views of each of a batch of synthetic images: (2B, 3, S, S)."""
    batch, size = run.optim.batch_size, run.data.image_size
    spec = Synthetic(kind="synthetic", classes=16, train_per_class=-(-batch // 16), test_per_class=1, image_size=size)
    images = torch.from_numpy(synthetic.read(spec).open()(0, batch)).to(device)  # (B, S, S, 3)
    return augment.two_views(images.permute(0, 3, 1, 2), run.augment, generator("views of a step"))


def step(run: RunSpec, views: Tensor, device: torch.device, precision: str) -> tuple[float, Tensor, float, int | None]:
    """Loss, clipped gradients as one vector, loss after the step, and for fp16 the power of two that scaled the loss.

    A gradient scaler skips a step that overflows, and halves its scale; here each try has the initial weights.
    Raises RuntimeError if a gradient is not finite at any scale.
    """
    half = precision == "fp16"
    for power in range(LARGEST_SCALE, -1 if half else LARGEST_SCALE - 1, -1):
        method = Method(run, device, precision)
        method.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**power, enabled=half)
        losses: list[float] = []
        method.objective.register_forward_hook(lambda *call, losses=losses: losses.append(call[-1].loss.item()))
        method.step(views)
        if half and method.scaler.get_scale() < 2.0**power:  # clipping has hidden the overflow from the gradients
            continue
        parameters = [parameter for parameter in method.parameters if parameter.grad is not None]
        gradient = torch.cat([parameter.grad.flatten().float() for parameter in parameters])
        if gradient.isfinite().all():
            method.backward(views)
            return losses[0], gradient, losses[1], power if half else None
    raise RuntimeError(f"{run.objective.name} in {precision}: the gradient is not finite")


@contextmanager
def float32_throughout() -> Iterator[None]:
    """Convolutions without TF32, which torch allows by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
