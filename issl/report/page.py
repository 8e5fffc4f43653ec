"""The comparison as Markdown, from the content of reproduction.json."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from issl.jobs import provenance
from issl.report.results import SELECTIONS
from issl.report.tables import ABSENT, Grid, digits, markdown_table
from issl.report.templates import render

Report = Mapping[str, Any]

NUMBERS = (
    *("published", "reproduced, selected on test", "selected on held-out train", "gap"),
    *("seeds", "difference", "tolerance", "verdict"),
)
CLAIMS = ("experiment", "claim", "selected on test", "corrected", "selected on held-out train", "corrected")
EVIDENCE = ("experiment", "claim", "of what", "published", "selected on test", "selected on held-out train")
NOISE = ("data", "labels", "metric", "standard deviation of one run", "degrees of freedom")
RUNS = (
    *("run", "seed", "used by", "device", "precision", "hours", "images/s", "GB", "online accuracy"),
    *("commit", "code", "data"),
)


def page(report: Report) -> str:
    """The whole page."""
    changed_paths = {result["path"] for result in report["changed"]}
    tested = [claim["test_selected"] for claim in report["claims"]]
    evidence = [row for claim in report["claims"] for row in _evidence(claim, report["comparable"])]
    claims = [_claim(claim) for claim in report["claims"]]
    runs = [_run(run, changed_paths) for run in sorted(report["runs"], key=lambda run: (run["run"], run["seed"]))]
    return render(
        "reproduction.md.j2",
        report=report,
        counted={kind: _counted(counts, VERDICTS[kind.partition("_")[0]]) for kind, counts in report["counts"].items()},
        numbers=list(_numbers(report)),
        claims=markdown_table(Grid(CLAIMS, claims), left=range(6)) if claims else "",
        remarks=[
            f"{claim['claim']}: {outcome['remark']}"
            for claim, outcome in zip(report["claims"], tested)
            if outcome and outcome["remark"]
        ],
        undecided=[
            f"{claim['experiment']}, {claim['claim']}: {outcome['deciding']}"
            for claim, outcome in zip(report["claims"], tested)
            if outcome and outcome["deciding"]
        ],
        noise=markdown_table(Grid(NOISE, [_noise(kind) for kind in report["noise"]]), left=(0, 2)),
        evidence=markdown_table(Grid(EVIDENCE, evidence), left=(0, 1, 2)) if evidence else "",
        runs=markdown_table(Grid(RUNS, runs), left=(0, 2, 3, 4, 9, 10, 11)) if runs else "",
        hours=sum(run["seconds"] for run in report["runs"]) / 3600,
        versions=sorted({provenance.listed(run["versions"]) for run in report["runs"]}),
        changed=_changed(report),
        leftovers=_some(report["leftovers"]),
        unsteady=[
            f"{run['run']}, seed {run['seed']}: {change}"
            for run in report["runs"]
            for change in provenance.changes(run.get("attempts", ()))
        ],
    )


VERDICTS = {  # in the plural
    "numbers": {"agrees": "agree", "differs": "differ", "not comparable": "not comparable", "not run": "not run"},
    "claims": {"holds": "hold", "fails": "fail", "undecided": "undecided", "not run": "not run"},
}


def _counted(counts: Mapping[str, int], plurals: Mapping[str, str]) -> str:
    found = [(counts.get(verdict, 0), verdict, plural) for verdict, plural in plurals.items()]
    return ", ".join(f"{n} {verdict if n == 1 else plural}" for n, verdict, plural in found if n) or "none"


def _numbers(report: Report) -> Iterator[dict[str, Any]]:
    """The section on the numbers of each experiment."""
    for experiment in dict.fromkeys(number["experiment"] for number in report["numbers"]):
        rows = [number for number in report["numbers"] if number["experiment"] == experiment]
        also, reason = report["also"].get(experiment, {}), report["not_run"].get(experiment, "")
        axes = _axes(*report["axes"].get(experiment, ("", "")))
        yield {
            "name": experiment,
            "source": rows[0]["source"],
            "precision": rows[0]["precision"],
            "also": also,
            "reason": reason,
            "table": _only_published(rows) if reason else _compared(rows, axes, also),
        }


def _only_published(rows: Sequence[Mapping[str, Any]]) -> str:
    """Published numbers without a counterpart: a row for each line, and its columns."""
    found = {(row["line"], row["column"]): digits(row["published"], row["precision"]) for row in rows}
    lines, columns = (dict.fromkeys(names) for names in zip(*found))
    body = [(line, *(found.get((line, column), ABSENT) for column in columns)) for line in lines]
    return markdown_table(Grid(("", *(column or NUMBERS[0] for column in columns)), body))


def _compared(rows: Sequence[Mapping[str, Any]], axes: str, also: Mapping[str, Any]) -> str:
    """A row for each published number, with the results beside it."""
    header = (axes, NUMBERS[0], *(f"{NUMBERS[0]}, {label}" for label in also), *NUMBERS[1:])
    return markdown_table(Grid(header, [_number(row, also) for row in rows]), left=(0, len(header) - 1))


def _axes(line: str, column: str | None) -> str:
    """Heading of the first column: empty if it has only the names of lines."""
    return f"{AXES.get(line, line)}, {AXES.get(column, column)}" if column else ""


AXES = {"dim": "dimension", "n_labels": "labels"}


def _number(number: Mapping[str, Any], also: Mapping[str, Any]) -> tuple[str, ...]:
    ours = number["reproduced"]
    name = f"{number['line']}, {number['column']}" if number["column"] else number["line"]
    others = (
        digits(number["also"][label], other["precision"]) if label in number["also"] else ABSENT
        for label, other in also.items()
    )
    first = (name, digits(number["published"], number["precision"]), *others)
    if ours is None:
        return (*first, *[ABSENT] * 6, number["verdict"])
    return (
        *first,
        *(_accuracy(ours, selection) for selection in SELECTIONS),
        f"{ours['test_selected'] - ours['val_selected']:.1f}",
        str(ours["seeds"]),
        f"{ours['test_selected'] - number['published']:+.1f}",
        ABSENT if number["tolerance"] is None else f"{number['tolerance']:.2f}",
        number["verdict"],
    )


def _accuracy(ours: Mapping[str, Any], selection: str) -> str:
    """With its standard error over seeds or, of one seed, the interval of its test images."""
    value, error, interval = (ours[f"{selection}{part}"] for part in ("", "_sem", "_interval"))
    if interval is not None:
        return f"{value:.1f} ({interval[0]:.1f} to {interval[1]:.1f})"
    return f"{value:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _claim(claim: Mapping[str, Any]) -> tuple[str, ...]:
    by_selection = [claim[selection] or claim for selection in SELECTIONS]
    return (claim["experiment"], claim["claim"], *(o[key] for o in by_selection for key in ("verdict", "corrected")))


def _noise(kind: Mapping[str, Any]) -> tuple[str, ...]:
    labels = f"{100 * kind['fraction']:g} %"
    return (kind["data"], labels, kind["metric"], f"{kind['deviation']:.2g}", str(kind["freedom"]))


def _evidence(claim: Mapping[str, Any], comparable: bool) -> Iterator[tuple[str, ...]]:
    """A row for each test of a claim; contrasts that were only published are included if results are comparable."""
    by_selection = [
        {test["what"]: _test(test) for test in (claim[selection] or {"tests": ()})["tests"]} for selection in SELECTIONS
    ]
    names = dict.fromkeys([*by_selection[0], *(claim["published"] if comparable else ())])
    for what in names:
        published = f"{claim['published'][what]:+.1f}" if what in claim["published"] else ABSENT
        tested = (test.get(what, ABSENT) for test in by_selection)
        yield (claim["experiment"], claim["claim"], what or "difference", published, *tested)


def _test(test: Mapping[str, Any]) -> str:
    if test["value"] is None:
        return f"too few runs ({test['n']})"
    if test["p"] is None:
        return f"{test['value']:+.1f}, n = {test['n']}"
    p = f"p = {test['p']:.2g}" if test["p"] >= 0.001 else "p < 0.001"
    value = f"{test['value']:+.2f}" if test["error"] is None else f"{test['value']:+.1f} ± {test['error']:.1f}"
    return f"{value}, n = {test['n']}, {p}"


def _run(run: Mapping[str, Any], changed: Collection[str]) -> tuple[str, ...]:
    return (
        run["run"],
        str(run["seed"]),
        ", ".join(run["experiments"]),
        run["device"],
        run["precision"],
        f"{run['seconds'] / 3600:.2g}",
        _measured(run["images_per_second"], digits=0),
        f"{run['peak_memory_gb']:.1f}",
        _measured(run["test_online_acc"], digits=1, scale=100),
        _commit(run["git"]),
        _code(run, changed),
        run["data"]["images"][:8],
    )


def _measured(value: float | None, digits: int, scale: int = 1) -> str:
    """A number that an untrained encoder does not have."""
    return ABSENT if value is None else f"{scale * value:.{digits}f}"


def _commit(git: Mapping[str, Any] | None) -> str:
    return f"{git['commit'][:8]}{'+' if git['dirty'] else ''}" if git else "none"


def _code(run: Mapping[str, Any], changed: Collection[str]) -> str:
    if len({attempt["code"] for attempt in run.get("attempts", ())}) > 1:
        return "changed while it ran"
    return "changed since" if run["path"] in changed else "as now"


def _changed(report: Report) -> list[str]:
    """Results of other code, grouped by the modules that changed: a list by file would be long."""
    groups: dict[str, list[str]] = {}
    for result in report["changed"]:
        modules = result["modules"]
        what = "not on record" if modules is None else ", ".join(modules)
        groups.setdefault(f"{result['stage']}: {what}", []).append(result["path"])
    return [f"{what} ({len(paths)}): {_some(paths)}" for what, paths in groups.items()]


def _some(paths: Sequence[str], most: int = 20) -> str:
    names = ", ".join(f"`{path}`" for path in paths[:most])
    return names + (f" and {len(paths) - most} more" if len(paths) > most else "")
