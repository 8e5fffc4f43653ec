"""The parts of ``python -m benchmarks.gpu_evidence``: one module each, whose `pieces` are measured one by one."""
