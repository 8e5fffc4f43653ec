"""Freed memory serves the next tensor instead of going back to the system."""

import platform
import resource
import subprocess
import sys

import pytest
import torch

from issl.jobs import memory

PAGES = 2**26 // resource.getpagesize()

# `tensors` prints the page faults of each of 24 tensors of 64 MiB, which are filled with zeros and freed.
TENSORS = """
def tensors():
    for _ in range(24):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
def resident():
    return int(open("/proc/self/statm").read().split()[1])
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")


def printed(code):
    """Numbers that a process of its own prints."""
    code = f"import resource, torch\nfrom issl.jobs import memory\n{TENSORS}\ndevice = torch.device('cpu')\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


@glibc
def test_later_tensors_take_the_pages_of_earlier_ones():
    faults = printed("with memory.reused(device): tensors()")
    # The first few still take new pages. Where the system uses huge pages, a tensor has 32 faults instead of 16 384.
    assert faults[0] > 10 > max(faults[12:])


@glibc
def test_memory_goes_back_at_the_end():
    before, after, *later = printed(
        "print(resident())\nwith memory.reused(device):\n  kept = [torch.zeros(2**24) for _ in range(4)]\n  del kept\n"
        "print(resident())\ntensors()"
    )
    assert after < before + PAGES
    assert min(later) > 10  # as without: the reason for all this


def test_a_gpu_and_another_c_library_are_left_alone(monkeypatch):
    with memory.reused(torch.device("cuda")):
        pass
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    with memory.reused(torch.device("cpu")):
        pass
