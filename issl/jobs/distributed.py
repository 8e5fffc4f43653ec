"""One training run in several processes: the collectives that the objectives and batch norm need.

Every process (rank) holds an equal share of the images of the global batch, both views of an image on one rank, and
gradients are averaged over ranks (DDP). Losses are means over a rank's own rows, so this average equals the gradient
of one process with the whole batch, provided that tensors gathered from other ranks carry gradient back to them. In a
single process everything here is the identity.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as carrying  # collectives that gradients pass through

from issl.errors import UserError


def world_size() -> int:
    """Number of processes of this training run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_rank_zero() -> bool:
    """Whether this process writes files; works before the process group is initialised."""
    # Lightning numbers the processes that it starts; srun numbers those of a job step.
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def share(batch: Tensor) -> Tensor:
    """This rank's part of a batch, (B, ...) -> (B / ranks, ...): equal and contiguous, in the order of the ranks.

    Raises UserError if the batch size is not a multiple of the number of ranks.
    """
    ranks = world_size()
    if len(batch) % ranks:
        raise UserError(
            f"a batch of {len(batch)} images cannot be split equally among {ranks} processes: change optim.batch_size, "
            "or hardware.pretrain.gpus and nodes, so that every batch can be, the last of an epoch included"
        )
    return batch.chunk(ranks)[rank()] if ranks > 1 else batch


def all_gather_views(x: Tensor, views: int = 2) -> Tensor:
    """Gathers V views from all ranks, (Vb, ...) -> (VB, ...): view 1 of every image, then view 2 ...; with gradient."""
    if world_size() == 1:
        return x
    by_rank = [part.chunk(views) for part in carrying.all_gather(x.contiguous())]
    return torch.cat([part for view in zip(*by_rank) for part in view])


def columns(rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions of this rank's 2b = `rows` rows in `all_gather_views`, and of their other views: (2b,), (2b,).

    Raises ValueError if the number of rows is odd.
    """
    if rows % 2:
        raise ValueError(f"{rows} rows cannot be two views of the same images")
    own, every = rows // 2, rows // 2 * world_size()
    first = torch.arange(own, device=device) + rank() * own
    return torch.cat([first, first + every]), torch.cat([first + every, first])


def mean(x: Tensor) -> Tensor:
    """Mean of a tensor over ranks, with gradient."""
    return carrying.all_reduce(x.contiguous()) / world_size() if world_size() > 1 else x


def agreed(wish: bool) -> bool:
    """The first rank's decision, on every rank, so that all ranks do the same."""
    if world_size() == 1:
        return wish
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    answer = torch.tensor([wish], dtype=torch.uint8, device=device)
    dist.broadcast(answer, src=0)
    return bool(answer.item())


def synchronised(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with batch norms over the global batch (in train mode); same weights, same state dict."""
    if world_size() == 1:
        return module
    # timm has batch norms with an activation inside, which both replacements below leave out.
    inside = {name: part.act for name, part in module.named_modules() if is_batch_norm(part) and hasattr(part, "act")}
    if device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    else:
        for part in filter(is_batch_norm, [*module.modules()]):
            part.__class__ = GlobalBatchNorm
    for name, act in inside.items():
        module.get_submodule(name).register_forward_hook(_Then(act))
    return module


def is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


class _Then:
    """A hook that applies an activation to a module's output."""

    def __init__(self, act: nn.Module):
        self.act = act

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.act(output)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all ranks, for the CPU: torch's SyncBatchNorm does not run there."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # (n, C) or (n, C, H, W)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        rows = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        center = mean(x.mean(rows))  # (C,)
        variance = mean((x - center.view(shape)).square().mean(rows))  # (C,), of the global batch
        n = x.numel() // x.shape[1] * world_size()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(center, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = (variance + self.eps).rsqrt()
        normal = (x - center.view(shape)) * scale.view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)
