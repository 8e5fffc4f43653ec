"""Weights files: read without running any code in them, and loaded strictly."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from issl.errors import UserError

SHOWN = 3  # keys of each kind to name in an error


def read_torch(path: Path) -> dict[str, Tensor]:
    """Reads a flat state dict of torch.save to the CPU. Raises UserError for any other content, and never runs it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds objects other than tensors, not loaded because they could run code; delete the file, and "
            "get it from a source you trust"
        ) from error
    except Exception as error:  # the type depends on the damage: a dozen have been seen
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: damaged, or not a torch.save file ({reason}); delete it and get it again") from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise UserError(f"{path}: not a flat state dict, which maps names to tensors; get the right file")
    return content


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a .safetensors file, on the CPU, and its metadata. Raises UserError if it cannot be read."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_notes(path: Path) -> dict[str, str]:
    """Only the metadata of a .safetensors file. Raises UserError if it cannot be read."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it, then make or get it again") from error


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Loads a state dict into a network with exactly these names and shapes.

    Raises UserError that counts and names missing, surplus and differently shaped tensors; nothing is loaded then.
    """
    wanted = network.state_dict()
    shapes = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in tensors and tensors[key].shape != wanted[key].shape
    ]
    complaints = [
        _count("missing", [key for key in wanted if key not in tensors]),
        _count("surplus", [key for key in tensors if key not in wanted]),
        _count("of another shape", shapes),
    ]
    if wrong := [complaint for complaint in complaints if complaint]:
        raise UserError(f"{source}: not the {len(wanted)} tensors of this encoder: {'; '.join(wrong)}")
    network.load_state_dict(tensors)


def _count(kind: str, keys: Sequence[str]) -> str | None:
    """``5 missing (conv1.weight, bn1.weight, bn1.bias, ...)``."""
    more = ", ..." if len(keys) > SHOWN else ""
    return f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{more})" if keys else None
