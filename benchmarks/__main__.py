"""The command that measures: ``python -m benchmarks [NAME ...]``."""

import importlib
import json
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks import measure
from benchmarks.markdown import line, made_on, number
from issl.cli import run
from issl.errors import UserError, nearest
from issl.jobs.files import whole, write_json, write_text

# Name of a row -> module and function that measure it, in the order of the table. Modules are imported when they are
# needed: one that cannot be imported fails alone.
BENCHMARKS = {
    "pretrain_cpu": ("pretraining", "cpu"),
    "pretrain_cpu_ceiling": ("pretraining", "cpu"),
    "pretrain_gpu_pil_dissl": ("pretraining", "gpu"),
    "pretrain_gpu_ceiling_dissl": ("pretraining", "gpu"),
    "pretrain_gpu_pil_cissl": ("pretraining", "gpu"),
    "pretrain_gpu_ceiling_cissl": ("pretraining", "gpu"),
    "augment_pil": ("augmentation", "views"),
    "augment_kornia": ("augmentation", "views"),
    "augment_kornia_gpu": ("augmentation", "views"),
    "prepare": ("preparing", "images"),
    "decode_central": ("decoding", "images"),
    "decode_m2": ("decoding", "images"),
    "decode_m6": ("decoding", "images"),
    "decode_m8": ("decoding", "images"),
    "probes_512": ("probing", "grid"),
    "probes_2048": ("probing", "grid"),
    "transfer_logistic": ("transfer", "logistic"),
    "transfer_svm": ("transfer", "svm"),
    "transfer_logistic_large": ("transfer", "large"),
    "transfer_svm_large": ("transfer", "large"),
    "scaling_batch": ("scaling", "steps"),
    "scaling_dim": ("scaling", "steps"),
    "scaling_classes": ("scaling", "steps"),
    "scaling_heads": ("scaling", "heads"),
    "scaling_images": ("scaling", "images"),
    "scaling_prepare": ("stages", "images"),
    "scaling_featurize": ("stages", "images"),
    "scaling_probe": ("stages", "images"),
    "scaling_aggregate": ("stages", "results"),
    "scaling_runs": ("workflow", "planning_by_runs"),
    "scaling_seeds": ("workflow", "planning_by_seeds"),
    "memory_dissl": ("memory", "peaks"),
    "memory_features": ("memory", "peaks"),
    "plan": ("workflow", "planning"),
    "startup": ("workflow", "startup"),
    "startup_optimizer": ("workflow", "startup"),
    "startup_warm": ("workflow", "startup"),
    "noop": ("workflow", "tiny"),
    "demo": ("workflow", "tiny"),
}

Record = dict[str, Any]
COLUMNS = ("benchmark", "unit", "ours", "beside", "ratio", "to reach", "reached?", "n", "spread")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="results/bench.json", show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=measure.ROUNDS, show_default=True)
def bench(names: tuple[str, ...], out: Path, rounds: int) -> None:
    """Measure all benchmarks, or those named and what is measured with them.

    Writes the rows as JSON, and beside it the same as a Markdown table. Rows that are not measured anew stay.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(f"unknown benchmark '{name}', {nearest(name, BENCHMARKS)}")
    records, failed = read(out), []
    for (module, function), its_names in groups(names or BENCHMARKS).items():
        click.echo(f"{', '.join(its_names)} ...", err=True)
        with going_on(its_names, failed):
            for row in getattr(importlib.import_module(f"benchmarks.{module}"), function)(rounds):
                records = merge(records, [row.record()])
                write(records, out)  # at once: what was measured is not lost if a later benchmark is interrupted
    if any(record["name"].startswith("scaling_") for record in records):
        with going_on(["the plot of scaling"], failed):
            plot = importlib.import_module("benchmarks.curves").plot
            for kind in ("pdf", "png"):
                with whole(out.with_name(f"{out.stem}_scaling.{kind}")) as path:
                    plot(records, path)
    click.echo(table(records))
    if failed:
        raise UserError(f"failed, see above: {', '.join(failed)}")


@contextmanager
def going_on(names: Sequence[str], failed: list[str]) -> Iterator[None]:
    """Shows an error at once, adds what it concerns to `failed`, and lets the others have their turn."""
    try:
        yield
    except Exception:
        traceback.print_exc()
        failed += names


def groups(names: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """The functions behind the names, each once, with all names that it measures."""
    places = dict.fromkeys(BENCHMARKS[name] for name in names)
    return {place: [name for name, its in BENCHMARKS.items() if its == place] for place in places}


# --- records ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Record]:
    """The records of earlier calls. Raises UserError if the file holds something else."""
    if not path.exists():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [record for record in records if record["name"]]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a list of measurements ({error!r}): move it away") from None


def merge(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """Old records with the new ones in the place of those of the same name, in the order of the table."""
    replaced = {record["name"] for record in new}
    merged = [record for record in old if record["name"] not in replaced] + list(new)
    order = list(BENCHMARKS)
    return sorted(merged, key=lambda record: order.index(record["name"]) if record["name"] in order else len(order))


def write(records: Sequence[Record], out: Path) -> None:
    """Writes the records, and the table beside them."""
    write_json(out, records)
    write_text(out.with_suffix(".md"), table(records))


# --- table -----------------------------------------------------------------------------------------------------------


def table(records: Sequence[Record]) -> str:
    """Markdown: a line a benchmark, then for what machines and versions they hold."""
    lines = [line(COLUMNS), line("---" for _ in COLUMNS), *(line(_cells(record)) for record in records)]
    places: dict[str, list[str]] = {}
    for record in records:
        places.setdefault(made_on(record), []).append(record["name"])
    for place, names in places.items():
        lines += ["", place if len(places) == 1 else f"{', '.join(names)}: {place}"]
    return "\n".join(lines) + "\n"


def _cells(record: Record) -> list[str]:
    about = [record["name"], record["unit"]]
    if record["not_measured"]:
        return [*about, f"not measured: {record['not_measured']}", record["beside"], "", record["to_reach"], "", "", ""]
    peer = "" if record["peer"] is None else f"{number(record['peer'])} ({record['beside']})"
    more = record["details"].get("seconds_more")
    return [
        *about,
        number(record["ours"]),
        peer or record["beside"],
        "" if record["ratio"] is None else f"{record['ratio']:.2f}",
        record["to_reach"] + ("" if more is None else f": {more:.1f} s"),
        {None: "", True: "yes", False: "**no**"}[record["reached"]],
        str(record["n"]),
        "" if record["spread"] is None else f"{record['spread']:.1%}",
    ]


def main() -> None:
    """Runs the command."""
    run(bench)


if __name__ == "__main__":
    main()
