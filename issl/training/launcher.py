"""The processes of one training: how many, on how many machines, and who starts them."""

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
        """Processes that each of the crew may have decode for it: one a core that it has, but for its own."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        given = int(os.environ.get("SLURM_CPUS_PER_TASK", cores))  # by srun to each process, bound to them or not
        own = min(cores, given) if self.nodes else cores // self.per_node
        return max(own - 1, 1)

    def environment(self) -> LightningEnvironment | SLURMEnvironment:
        """What tells Lightning the number of each process.

        Without srun Lightning must not look at Slurm's variables: it would take the job's one task for its only rank,
        and train on a part of the data. Requeueing is issl's own (issl/jobs/allocation.py).
        """
        return SLURMEnvironment(auto_requeue=False) if self.nodes else LightningEnvironment()


SINGLE_PROCESS = Launcher()
