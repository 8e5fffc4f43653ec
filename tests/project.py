"""What many tests need to speak of the project as a whole: where it is, its workflow, its plan."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

# Snakemake's Slurm plugin asks for the cluster's configuration. Where a controller is installed and does not answer,
# each call would wait ten seconds for it; an empty file fails at once.
NO_SLURM = {"SLURM_CONF": os.devnull}


def copy_config(folder: Path) -> None:
    """Gives a folder the project's config.yaml, presets and experiments, to plan and to run in."""
    shutil.copy(PROJECT / "config.yaml", folder)
    for beside in ("presets", "experiments"):
        shutil.copytree(PROJECT / beside, folder / beside)


def snakemake(folder: Path, *arguments: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Runs the project's workflow in a folder that has a config.yaml of its own; with `check`, it must succeed."""
    command = [str(word) for word in ("-s", PROJECT / "Snakefile", "--directory", folder, *arguments)]
    with tempfile.TemporaryDirectory() as streams:
        request = {
            "arguments": command,
            "environment": {**os.environ, **NO_SLURM, "PYTHONPATH": "", **environment},
            "stdout": f"{streams}/stdout",
            "stderr": f"{streams}/stderr",
        }
        server = _server()
        print(json.dumps(request), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        out, err = (Path(request[name]).read_text() for name in ("stdout", "stderr"))
    assert not check or status == 0, out + err
    return subprocess.CompletedProcess(command, status, out, err)


@cache
def _server() -> subprocess.Popen:
    """The process that forks each snakemake of this test process."""
    script = Path(__file__).with_name("snakemake_server.py")
    server = subprocess.Popen(
        [sys.executable, "-P", script],  # -P: the project's modules, not those of tests/
        env={**os.environ, **NO_SLURM, "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    @atexit.register
    def end() -> None:
        server.stdin.close()
        server.wait()

    return server


def planned(folder: Path, *arguments: object) -> dict[str, int]:
    """Number of jobs that a dry run of the workflow plans, by rule."""
    output = snakemake(folder, "--dry-run", *arguments).stdout
    if "Nothing to be done" in output:
        return {}
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output, re.DOTALL | re.MULTILINE)
    return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}
