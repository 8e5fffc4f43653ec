"""Runs snakemake in forks of a process that has imported it: a dry run then takes a third of a second instead of three.

Each fork is the real command line on the real Snakefile, in a fresh state that ends with it. Requests come as lines of
JSON on standard input (see `serve`); the exit status of each goes to standard output.
"""

import json
import os
import sys
from importlib import import_module

import snakemake.cli

# Snakemake and the Snakefile import these on their way, which every fork would pay for.
USED_LATER = (
    "issl.config.plan",
    "issl.jobs.environment",
    "issl.jobs.fingerprint",
    "issl.jobs.locks",
    "jsonschema",
    "nbformat",
    "requests",
    "snakemake.profiles",
    "snakemake.storage",
)
PLUGINS = ("Executor", "Logger", "Report", "Scheduler", "Storage")


def serve() -> None:
    """Answers requests until standard input ends."""
    for module in USED_LATER:
        import_module(module)
    for kind in PLUGINS:
        registry = import_module(f"snakemake_interface_{kind.lower()}_plugins.registry")
        getattr(registry, f"{kind}PluginRegistry")()  # imports the plugins of this kind
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(arguments: list[str], environment: dict[str, str], stdout: str, stderr: str) -> None:
    """Replaces this process's environment and standard streams and becomes `snakemake ARGUMENTS...`."""
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, stdout, os.O_WRONLY | os.O_CREAT),
        (2, stderr, os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags), descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  without the requests that the buffer of the old one may hold
    sys.argv = ["snakemake", *arguments]
    snakemake.cli.main(arguments)  # always raises SystemExit


if __name__ == "__main__":
    serve()
