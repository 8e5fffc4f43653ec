"""The processes of one training run: how many, on how many machines, and started by what."""

import os
from typing import NamedTuple

from issl.training.lightning import LightningEnvironment, SLURMEnvironment


class Launcher(NamedTuple):
    """`per_node` processes on each of `nodes` machines, started by srun; without `nodes`, on this one by Lightning."""

    per_node: int = 1
    nodes: int | None = None

    @property
    def size(self) -> int:
        return self.per_node * (self.nodes or 1)

    def helpers(self) -> int:
        """Decoding processes for each training process: one per core, minus one for itself, but at least 1."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        given = int(os.environ.get("SLURM_CPUS_PER_TASK", cores))  # by srun to each process, with or without binding
        own = min(cores, given) if self.nodes else cores // self.per_node
        return max(own - 1, 1)

    def environment(self) -> LightningEnvironment | SLURMEnvironment:
        """Lightning's source of process ranks.

        Without srun, Lightning must not read Slurm's variables: it would take the job's one task for its only rank, and
        train on part of the data. issl requeues jobs itself (issl/jobs/allocation.py).
        """
        return SLURMEnvironment(auto_requeue=False) if self.nodes else LightningEnvironment()


SINGLE_PROCESS = Launcher()
