"""Floating-point operations of a training step and of an encoder, counted without computing them."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path

from issl.errors import UserError
from issl.jobs.files import write_json
from issl.spec.encoder import Encoder, ResNet
from issl.spec.run import RunSpec
from issl.spec.shape import Shape
from issl.spec.value import short_hash

CACHE = Path("results/.planning/flops.json")


def of_step(run: RunSpec) -> float:
    """Operations of one step of a run, forwards and backwards, for its whole batch; a multiply-add counts as two."""
    shape = json.dumps(
        [part.canonical() for part in (run.objective, run.encoder, run.augment)]
        + [run.data.image_size, run.optim.batch_size]
    )
    return _cached("step " + shape, lambda: _of_step(run))


def of_image(encoder: Shape | Encoder, pixels: int) -> float:
    """Operations of encoding one square image of `pixels` pixels a side."""
    shape = encoder
    if isinstance(encoder, ResNet):  # counted once with the released models of its shape
        shape = Shape(**{field.name: getattr(encoder, field.name) for field in fields(Shape)})
    return _cached(f"image {shape!r} {pixels}", lambda: _of_image(shape, pixels))


def _cached(key: str, count: Callable[[], float]) -> float:
    """A count, from the file that keeps counts; counting takes a second, as it imports torch."""
    try:
        known = json.loads(CACHE.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none yet, or it is being replaced: it can be made again
        known = {}
    name = short_hash(key)
    if name not in known:
        _announce()
        known[name] = count()
        with suppress(UserError, OSError):  # somebody else's results, say: the next call counts again
            write_json(CACHE, known)
    return known[name]


@cache
def _announce() -> None:
    print(f"counting the operations of each run's step, once, for {CACHE}", file=sys.stderr)


def _of_step(run: RunSpec) -> float:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from issl import objectives
    from issl.models import encoders
    from issl.objectives.base import Clock

    batch = run.optim.batch_size
    encoder = encoders.build(run.encoder, run.data.image_size)
    objective = objectives.build(run.objective, run.encoder.dim, encoder)
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        of_arrays = [(2, run.data.image_size), (run.augment.number - 2, run.data.image_size)]
        sizes = [(view.number, view.size) for view in run.augment.views] or of_arrays
        views = [torch.empty(number * batch, 3, size, size) for number, size in sizes if number]
        z = torch.cat([encoder(group) for group in views])
        labels = {"labels": torch.zeros(batch, dtype=torch.long)} if run.objective.name == "supervised" else {}
        objective(z, views[0], Clock(0, 1, 0, 1), **labels).loss.backward()
    return float(counter.get_total_flops())


def _of_image(encoder: Shape | Encoder, pixels: int) -> float:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from issl.models import encoders

    network = encoders.build(encoder, pixels).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, pixels, pixels))
    return float(counter.get_total_flops())
