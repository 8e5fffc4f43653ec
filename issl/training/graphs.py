"""An encoder in training as CUDA graphs: the host starts a recorded pass with one call, not one for each kernel.

The kernels are the same, so the numbers are too. Only passes of the recorded shape are replayed.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from issl.errors import UserError
from issl.jobs import devices

Encode = Callable[[Tensor], Tensor]  # (n, 3, S, S) -> (n, dim)


def recorded(
    encoder: nn.Module, shapes: Sequence[Sequence[int]], device: torch.device, precision: str, compiled: bool = False
) -> list[Encode]:
    """Records a pass through `encoder`, forwards and backwards, for views of each shape (n, 3, S, S).

    Each pass of a step has memory of its own: its output holds until its next replay. Gradients of a replay must not be
    added to those of an earlier one, whose memory they share. The encoder must be in train mode and on the device, and
    do nothing but compute on it; its weights and buffers stay as they were. With `compiled`, torch.compile comes first.

    Raises UserError if it cannot be compiled on this machine.
    """
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}  # warming up moves the running means
    through = torch.compile(encoder, dynamic=False) if compiled else encoder
    # Recording is done on a stream of its own, so the first gradients of a replay seem to come from another one.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    with _without_collecting(), _compiling() if compiled else nullcontext():
        passes = [Pass(encoder, through, torch.Size(shape), device, precision) for shape in shapes]
    for name, buffer in encoder.named_buffers():
        buffer.copy_(before[name])
    return passes


def forget(passes: list[Encode]) -> None:
    """Frees recorded passes now, for CUDA permits it neither during another recording nor in a forked process."""
    if passes:
        passes.clear()
        gc.collect()  # they are parts of cycles


class Pass:
    """One pass of a step: replayed for training views of the recorded shape, computed for any others."""

    def __init__(self, encoder: nn.Module, through: nn.Module, shape: torch.Size, device: torch.device, precision: str):
        self.encoder, self.shape = encoder, shape
        views = torch.zeros(shape, device=device).contiguous(memory_format=torch.channels_last)
        # Without the cache of autocast: a cast weight must be computed anew in each replay.
        with torch.autocast(device.type, devices.DTYPES[precision], enabled=precision != "32", cache_enabled=False):
            self.replay = torch.cuda.make_graphed_callables(Through(through), (views,))

    def __call__(self, views: Tensor) -> Tensor:
        if self.encoder.training and views.shape == self.shape:
            return self.replay(views)
        return self.encoder(views)


class Through(nn.Module):
    """The same pass as another module, because recording replaces its `forward`."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, views: Tensor) -> Tensor:
        return self.encoder(views)


@contextmanager
def _compiling() -> Iterator[None]:
    """Says in one line why torch.compile fails: often there is no C compiler on the machine."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(
            f"execution.compile: the encoder cannot be compiled on this machine ({reason}); it needs a C compiler, "
            "e.g. gcc; or set 'compile: false'"
        ) from error


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Frees earlier recordings now, for to free one during a recording is an error of CUDA."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
