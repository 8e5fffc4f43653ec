"""Device and precision of a job."""

import contextlib
import resource
import sys
import time

import torch

from issl.errors import UserError
from issl.jobs.execution import Execution

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "32": torch.float32}


def choose(execution: Execution) -> torch.device:
    """The device that `execution.device` asks for. Raises UserError if that is a GPU and there is none."""
    if execution.device == "cpu" or (execution.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "no GPU here, but config.yaml sets execution.device: gpu; run on a machine with one (--profile slurm), "
            "or use the CPU: --config 'execution={device: cpu}'"
        )
    return torch.device("cuda", torch.cuda.current_device())


def precision(execution: Execution, device: torch.device) -> str:
    """The precision, a key of `DTYPES`, with `auto` resolved for this device. Raises UserError for fp16 on the CPU."""
    if execution.precision == "fp16" and device.type == "cpu":
        raise UserError("execution.precision: fp16 needs a GPU; on the CPU use bf16, 32 or auto")
    if execution.precision != "auto":
        return execution.precision
    if device.type == "cpu":
        return "bf16" if _cpu_multiplies_bf16() else "32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; emulated bf16 is slower than float32."""
    if not hasattr(torch.cpu, "get_capabilities"):  # older torch cannot tell
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Mixed precision; nothing for "32"."""
    return contextlib.nullcontext() if precision == "32" else torch.autocast(device.type, DTYPES[precision])


def describe(device: torch.device) -> str:
    """Name of the hardware, for provenance."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def usage(
    device: torch.device, precision: str, started: float, gpu_percent: float | None
) -> dict[str, str | float | None]:
    """Device, precision, run time, memory and how busy a GPU was, for provenance; `started` is `time.monotonic()`."""
    return {
        "device": describe(device),
        "precision": precision,
        "seconds": time.monotonic() - started,
        "peak_memory_gb": peak_memory_gb(device),
        "gpu_percent": gpu_percent,
    }


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory of this process so far in 10^9 bytes: allocated by torch on the GPU, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
