"""Where a job computes, and how precisely: what is asked for, or a clear refusal."""

import contextlib
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from issl.errors import UserError
from issl.jobs import devices
from issl.jobs.execution import Execution

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch):
    """Makes torch say that there is a GPU, with bf16 or without, or that there is none."""

    def build(gpu, bf16=True):
        def supports(including_emulation=True):
            return bf16 or including_emulation  # an older GPU says yes as well, but only emulates

        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supports)

    return build


@pytest.mark.parametrize(
    ("asked", "gpu", "given"),
    [("cpu", False, CPU), ("cpu", True, CPU), ("auto", False, CPU), ("auto", True, GPU), ("gpu", True, GPU)],
)
def test_the_requested_device_is_used(machine, asked, gpu, given):
    machine(gpu)
    assert devices.choose(Execution(device=asked)) == given


def test_a_missing_gpu_is_refused_with_a_remedy(machine):
    machine(gpu=False)
    with pytest.raises(UserError, match=r"no GPU here.*--profile slurm.*execution=\{device: cpu\}"):
        devices.choose(Execution(device="gpu"))


def test_a_gpu_is_required_by_default(machine):
    machine(gpu=False)
    with pytest.raises(UserError, match="no GPU here"):
        devices.choose(Execution())


@pytest.mark.parametrize("where", [CPU, GPU])
@pytest.mark.parametrize("asked", ["bf16", "fp16", "32"])
@pytest.mark.parametrize("bf16", [True, False])
def test_the_requested_precision_is_used_or_refused(machine, where, asked, bf16):
    machine(gpu=where == GPU, bf16=bf16)
    if (asked, where) == ("fp16", CPU):
        with pytest.raises(UserError, match=r"execution\.precision: fp16 needs a GPU"):
            devices.precision(Execution(precision=asked), where)
    else:
        assert devices.precision(Execution(precision=asked), where) == asked


@pytest.mark.parametrize(("bf16", "given"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu_is_native_bf16_or_else_fp16(machine, bf16, given):
    machine(gpu=True, bf16=bf16)
    assert devices.precision(Execution(), GPU) == given


def test_auto_on_the_cpu_is_never_fp16():
    assert devices.precision(Execution(), CPU) in ("bf16", "32")


def test_full_precision_uses_no_autocast():
    for where in (CPU, GPU):
        assert isinstance(devices.autocast(where, "32"), contextlib.nullcontext)


@pytest.mark.parametrize(("kind", "given"), [("bf16", torch.bfloat16), ("32", torch.float32)])
def test_autocast_multiplies_in_the_requested_precision_and_keeps_the_weights(kind, given):
    layer = torch.nn.Linear(3, 2)
    with devices.autocast(CPU, kind):
        assert layer(torch.ones(1, 3)).dtype == given
    assert layer.weight.dtype == torch.float32
    assert layer(torch.ones(1, 3)).dtype == torch.float32  # it ends with the block


@pytest.mark.parametrize(("kind", "given"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_autocast_on_a_gpu_has_the_requested_type(kind, given, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda *arguments: asked.append(arguments))
    devices.autocast(GPU, kind)
    assert asked == [("cuda", given)]


def test_every_precision_of_the_config_has_a_type():
    kinds = set(get_args(Execution.model_fields["precision"].annotation)) - {"auto"}
    assert kinds == devices.DTYPES.keys()


def test_the_cpu_reports_its_number_of_threads():
    assert devices.describe(CPU) == f"CPU, {torch.get_num_threads()} threads"


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_on_the_cpu_is_in_the_systems_unit(monkeypatch, platform, unit):
    counted = SimpleNamespace(ru_maxrss=3_000_000_000 // unit)
    monkeypatch.setattr(resource, "getrusage", lambda whose: counted)
    monkeypatch.setattr(sys, "platform", platform)
    assert devices.peak_memory_gb(CPU) == pytest.approx(3.0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak in a second way")
def test_peak_memory_on_the_cpu_is_at_least_the_kernels_value():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    kib = int(line.split()[1])
    assert devices.peak_memory_gb(CPU) >= 0.99 * kib * 1024 / 1e9


def test_peak_memory_on_a_gpu_is_torchs_allocation(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda where: 5_500_000_000 if where == GPU else 0)
    assert devices.peak_memory_gb(GPU) == 5.5
