"""Keeps a replication beside the docs: ``python -m benchmarks.replication results/mini --out docs/replication``."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.measure import machine
from issl.cli import run
from issl.errors import UserError
from issl.jobs import provenance
from issl.jobs.files import write_text
from issl.upkeep.runs import finished

KEPT = ("*.md", "*.csv", "*.png")  # what a code host shows, and what other programs read
RUNS = "runs.jsonl"

_folder = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("root", type=_folder)
@click.option("--out", type=_folder, default=Path("docs/replication"), show_default=True)
def keep(root: Path, out: Path) -> None:
    """Copy the figures, tables, comparison and records of the finished results in ROOT, and head them with a README.

    Run it on the machine that made them, for the README names the machine.
    """
    if not (root / "reproduction.md").exists():
        raise UserError(f"{root}: has no reproduction.md; make it first: snakemake {root.name}")
    if out.exists() and not (out / RUNS).exists():
        raise UserError(f"{out}: holds something else than a replication, and would be replaced: choose another --out")
    records = [each.record for each in finished([root])]
    n_scores = len(list(root.rglob("probes/*/*.json")))
    files = sorted(path for pattern in KEPT for path in root.glob(pattern))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, out / path.name)
    write_text(out / RUNS, "".join(json.dumps(record) + "\n" for record in records))
    write_text(out / "README.md", readme(root.name, records, n_scores, machine(), [path.name for path in files]))


def readme(
    preset: str, records: Sequence[Mapping[str, Any]], n_scores: int, hardware: Mapping[str, Any], files: Sequence[str]
) -> str:
    """The page on top: what was run, on what, and what is here."""
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    lines = [
        f"# Preset {preset}, as it was run",
        "",
        f"    snakemake {preset}",
        "",
        "`python -m benchmarks.replication` wrote this folder from the finished results; nothing in it is edited.",
        "",
        "| | |",
        "|---|---|",
        f"| runs | {len(records)}: {len({record['run'] for record in records})} settings, "
        f"seeds {_distinct(sorted(record['seed'] for record in records))} |",
        f"| probe jobs | {n_scores} |",
        f"| machine | {hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB; {gpus} |",
        f"| device and precision of a run | {_distinct(record['device'] for record in records)}; "
        f"{_distinct(record['precision'] for record in records)} |",
        f"| pretraining | {sum(record['seconds'] for record in records) / 3600:.1f} hours of such devices in all |",
        f"| versions | {_distinct(_versions(record) for record in records)} |",
        f"| commit | {_distinct(_commit(record) for record in records)} |",
        "",
        "[reproduction.md](reproduction.md) has the verdicts; "
        f"[{RUNS}]({RUNS}) has each run's `run.json`, one on a line; each `.csv` is the tidy form of the figure or "
        "table of its name.",
        "",
    ]
    lines += [f"![{name.removesuffix('.png')}]({name})" for name in files if name.endswith(".png")]
    return "\n".join(lines) + "\n"


def _distinct(values: Any) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _versions(record: Mapping[str, Any]) -> str:
    return " then ".join(dict.fromkeys(provenance.listed(attempt["versions"]) for attempt in record["attempts"]))


def _commit(record: Mapping[str, Any]) -> str:
    state = record["git"]
    return f"`{state['commit'][:8]}`{' with edits' * state['dirty']}" if state else "not from a checkout"


if __name__ == "__main__":
    run(keep)
