"""Peak memory: of a pretraining step at its largest, and of probes on features that are larger than most memory.

Each is measured once, in a process of its own.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Row
from issl.jobs.execution import Execution
from issl.spec.encoding import Encoding
from issl.spec.probe import Linear, ProbeGrid
from issl.spec.run import RunSpec

SEED = 1
LARGEST_GB, LARGEST_RATIO = 24, 2
N_FEATURES, N_TEST, DIM, CLASSES = 100_000, 2_000, 8192, 200

DISSL = Row("memory_dissl", "GB", f"<= {LARGEST_GB} GB", "a GPU with 24 GB; C = 16384, z = 8192, batch 512, ResNet-18")
FEATURES = Row(
    "memory_features", "GB", f"< {LARGEST_RATIO} x the features", f"the features: {N_FEATURES} x {DIM} float16"
)
NAMES = (DISSL.name, FEATURES.name)

DISSL_RUN = RunSpec.model_validate(
    {
        "data": {"kind": "synthetic", "classes": 64, "train_per_class": 16, "test_per_class": 1, "image_size": 64},
        "objective": {"name": "dissl", "classes": 16384},
        "encoder": {"arch": "resnet18", "dim": 8192, "head": "expand"},
        "optim": {"batch_size": 512, "epochs": 1, "warmup_epochs": 0},
    }
)


def peaks(rounds: int) -> list[Row]:
    """Both rows; `rounds` has no effect, since a peak does not scatter."""
    with tempfile.TemporaryDirectory() as folder:
        return [of_dissl(DISSL_RUN), of_features(Path(folder), N_FEATURES, N_TEST, DIM, CLASSES)]


def of_dissl(run: RunSpec) -> Row:
    """One epoch of the real loop; on a GPU what torch allocated there, on the CPU what was resident, in bf16."""
    found = _child("dissl", run.model_dump_json())
    peak = found["gpu_gb"] if torch.cuda.is_available() else found["resident_gb"]
    return replace(
        DISSL, ours=peak, peer=LARGEST_GB, ratio=LARGEST_GB / peak, reached=peak <= LARGEST_GB, n=1, details=found
    )


def of_features(folder: Path, n: int, n_test: int, dim: int, classes: int) -> Row:
    """An epoch of three probes on n features in `folder`, which this fills; details tell what an import alone takes.

    Pages of the mapped files count where they are resident.
    """
    from benchmarks.probing import pixels
    from issl.probing import shards

    labels = np.arange(n) % classes
    pixels(folder / "data", labels, n - n_test, classes)
    draws = np.random.default_rng(SEED)
    for start in range(0, n, shards.ROWS):
        z = draws.random((min(shards.ROWS, n - start), dim), np.float32).astype(np.float16)
        shards.write(folder / "features", start, z)
    size = 2 * n * dim / 1e9
    found = _child("probes", str(folder))
    peak = found["resident_gb"]
    details = found | {"features_gb": size, "import_gb": _child("import")["resident_gb"]}
    return replace(
        FEATURES, ours=peak, peer=size, ratio=size / peak, reached=peak < LARGEST_RATIO * size, n=1, details=details
    )


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# --- in the process that is measured ---------------------------------------------------------------------------------


def _pretrain(run: str) -> None:
    from issl import data
    from issl.training.pretrain import pretrain

    spec = RunSpec.model_validate_json(run)
    with tempfile.TemporaryDirectory() as name:
        data.prepare(spec.data, Path(name) / "data", progress=False)
        execution = Execution(device="auto", precision="bf16", progress=False)
        pretrain(spec, SEED, Path(name) / "data", Path(name) / "out", execution)


def _probe(folder: str) -> None:
    from benchmarks.probing import PIXELS
    from issl.probing.job import Job, probe

    grid = ProbeGrid(probes=tuple(Linear(kind="linear", weight_decay=d, epochs=1) for d in (1e-4, 1e-5, 1e-6)))
    paths = (Path(folder) / name for name in ("features", "data", "scores.csv"))
    encoding = Encoding(data=PIXELS, resize=1, crop=1)
    probe(grid, SEED, Job("drawn", encoding, *paths, 1, Execution(device="auto", progress=False)))


def _import() -> None:
    import issl.probing.heads
    import issl.probing.job  # noqa: F401


def resident_gb() -> float:
    """Largest resident memory of this process in 10^9 bytes.

    Asked of Linux's /proc where there is one: `getrusage` would count the process that started this one as well.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        from issl.jobs.devices import peak_memory_gb

        return peak_memory_gb(torch.device("cpu"))
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    {"dissl": _pretrain, "probes": _probe, "import": _import}[what](*rest)
    on_gpu = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
    print(json.dumps({"resident_gb": resident_gb(), "gpu_gb": on_gpu}))
