"""The comparison for people: Markdown from what reproduction.json says."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from issl.report.tables import ABSENT, Grid, markdown_table

Report = Mapping[str, Any]

NUMBERS = (
    *("published", "reproduced, chosen on test", "chosen on held-out train", "gap"),
    *("seeds", "difference", "tolerance", "verdict"),
)
CLAIMS = ("experiment", "claim", "chosen on test", "chosen on held-out train")
EVIDENCE = ("experiment", "claim", "of what", "published", "chosen on test", "chosen on held-out train")
EVIDENCE_MEANS = "In points, each ± its standard error. n counts seeds, and runs where it is a rank correlation."
RUNS = (
    *("run", "seed", "used by", "device", "precision", "hours", "images/s", "GB", "online accuracy"),
    *("commit", "code", "data"),
)


def page(report: Report) -> str:
    """The whole page."""
    sections = (
        _head(report),
        _how_to_read(report),
        *_numbers(report),
        _claims(report),
        _without_numbers(report),
        _runs(report),
        _changed(report),
        _leftovers(report),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(report: Report) -> str:
    numbers, claims = (_counted(report["counts"][kind], order) for kind, order in VERDICTS.items())
    lines = [
        f"# Reproduced beside published: preset *{report['preset']}*",
        f"Published numbers: {numbers}. Claims: {claims}.",
    ]
    if not report["comparable"]:
        lines.append(
            "**The settings are not the paper's: no number here is comparable with a published one.** The claims are "
            "tested all the same, on these results; a claim that fails here says nothing against the paper."
        )
    return "\n\n".join(lines)


VERDICTS = {  # in the plural
    "numbers": {"agrees": "agree", "differs": "differ", "not comparable": "not comparable", "not run": "not run"},
    "claims": {"holds": "hold", "fails": "fail", "undecided": "undecided", "not run": "not run"},
}


def _counted(counts: Mapping[str, int], plurals: Mapping[str, str]) -> str:
    found = [(counts.get(verdict, 0), verdict, plural) for verdict, plural in plurals.items()]
    return ", ".join(f"{n} {verdict if n == 1 else plural}" for n, verdict, plural in found if n) or "none"


def _how_to_read(report: Report) -> str:
    rules = report["rules"]
    return f"""## How to read this

Accuracies are in per cent on the test split; differences are in points. Each stands here twice: with the weight decay
of the probe *chosen on test*, as the paper's code chooses it, and *chosen on held-out train*, a part of the training
labels. The gap between them is what the first choice flatters. ± is the standard error over seeds.

**Numbers.** A number *agrees* when it differs from the published one by no more than the tolerance:
{rules["standard_errors"]:g} standard errors of the difference, plus the precision of the source. Published numbers
come from one run each. Two of them are of one configuration, and differ by {rules["repeat"]:g} points: this is taken as
the standard deviation of a difference of two runs on {rules["repeat_images"]} test images, and grows as the square root
when there are fewer images. It is a single observation, and was made with all labels: with one label a class, where
the draw of the labels matters as well, the true noise is larger. With several seeds, their own standard error counts
if it is larger.

**Claims.** A claim *holds* or *fails* when a one-sided test says so at the level {rules["significance"]:g}: a t-test
over seeds, paired, or, with a single seed, a test against the noise of a single run as above. Otherwise it is
*undecided*: within noise. Of a claim about several points, all must hold, and one that fails refutes it."""


def _numbers(report: Report) -> Iterator[str]:
    yield "## Numbers"
    for experiment in dict.fromkeys(number["experiment"] for number in report["numbers"]):
        rows = [number for number in report["numbers"] if number["experiment"] == experiment]
        source = f"Source: {rows[0]['source']}; known to ± {rows[0]['precision']:g}."
        reason = report["not_run"].get(experiment)
        if reason:
            source += f" Not run: {reason}."
        axes = report["axes"].get(experiment, ("", ""))
        grid = Grid((_axes(*axes), *NUMBERS), [_number(row) for row in rows])
        yield f"### {experiment}\n\n{source}\n\n{markdown_table(grid, left=(0, 8))}"


def _axes(line: str, column: str | None) -> str:
    """What the names of the first column are: nothing to say where they are those of rows."""
    return f"{AXES.get(line, line)}, {AXES.get(column, column)}" if column else ""


AXES = {"dim": "dimension", "n_labels": "labels"}


def _number(number: Mapping[str, Any]) -> tuple[str, ...]:
    ours = number["reproduced"]
    name = f"{number['line']}, {number['column']}" if number["column"] else number["line"]
    if ours is None:
        return (name, f"{number['published']:.1f}", *[ABSENT] * 6, number["verdict"])
    return (
        name,
        f"{number['published']:.1f}",
        _with_error(ours["published"], ours["published_sem"]),
        _with_error(ours["honest"], ours["honest_sem"]),
        f"{ours['published'] - ours['honest']:.1f}",
        str(ours["seeds"]),
        f"{ours['published'] - number['published']:+.1f}",
        f"{number['tolerance']:.2f}",
        number["verdict"],
    )


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.1f}" + ("" if error is None else f" ± {error:.1f}")


def _claims(report: Report) -> str:
    if not report["claims"]:
        return ""
    verdicts = [
        (claim["experiment"], claim["claim"], claim["verdict"], (claim["honest_choice"] or claim)["verdict"])
        for claim in report["claims"]
    ]
    evidence = [row for claim in report["claims"] for row in _evidence(claim, report["comparable"])]
    remarks = [
        f"- {claim['claim']}: {claim['published_choice']['remark']}."
        for claim in report["claims"]
        if claim["published_choice"] and claim["published_choice"]["remark"]
    ]
    parts = ["## Claims", markdown_table(Grid(CLAIMS, verdicts), left=range(4))]
    if remarks:
        parts += ["### What is left of a lead", "\n".join(remarks)]
    if evidence:
        parts += [
            "### What the verdicts rest on",
            EVIDENCE_MEANS,
            markdown_table(Grid(EVIDENCE, evidence), left=(0, 1, 2)),
        ]
    return "\n\n".join(parts)


def _evidence(claim: Mapping[str, Any], comparable: bool) -> Iterator[tuple[str, ...]]:
    """A row for each test of a claim; published contrasts of points that are not here only where they compare."""
    by_choice = [
        {test["what"]: _test(test) for test in (claim[choice] or {"tests": ()})["tests"]}
        for choice in ("published_choice", "honest_choice")
    ]
    names = dict.fromkeys([*by_choice[0], *(claim["published"] if comparable else ())])
    for what in names:
        published = f"{claim['published'][what]:+.1f}" if what in claim["published"] else ABSENT
        tested = (test.get(what, ABSENT) for test in by_choice)
        yield (claim["experiment"], claim["claim"], what or "difference", published, *tested)


def _test(test: Mapping[str, Any]) -> str:
    if test["value"] is None:
        return f"{test['n']} runs are too few"
    p = f"p = {test['p']:.2g}" if test["p"] >= 0.001 else "p < 0.001"
    value = f"{test['value']:+.2f}" if test["error"] is None else f"{test['value']:+.1f} ± {test['error']:.1f}"
    return f"{value}, n = {test['n']}, {p}"


def _without_numbers(report: Report) -> str:
    lines = [f"- {name}: {source}." for name, source in report["without_numbers"].items()]
    return "## Without published numbers\n\n" + "\n".join(lines) if lines else ""


def _runs(report: Report) -> str:
    if not report["runs"]:
        return ""
    changed = {result["path"] for result in report["changed"]}
    rows = [
        (
            run["run"],
            str(run["seed"]),
            ", ".join(run["experiments"]),
            run["device"],
            run["precision"],
            f"{run['seconds'] / 3600:.2g}",
            f"{run['images_per_second']:.0f}",
            f"{run['peak_memory_gb']:.1f}",
            f"{100 * run['test_online_acc']:.1f}",
            _commit(run["git"]),
            _code(run, changed),
            run["data"]["images"][:8],
        )
        for run in sorted(report["runs"], key=lambda run: (run["run"], run["seed"]))
    ]
    hours = sum(run["seconds"] for run in report["runs"]) / 3600
    versions = sorted({_versions(run["versions"]) for run in report["runs"]})
    table = markdown_table(Grid(RUNS, rows), left=(0, 2, 3, 4, 9, 10, 11))
    return (
        f"## Runs\n\n{len(rows)} pretrainings, {hours:.2g} hours. Versions: {'; '.join(versions)}. Every setting of a "
        "run is in its `run.json`. A commit with * had local changes; *data* is the checksum of the images; GB is the "
        f"peak on the device.\n\n{table}"
    )


def _commit(git: Mapping[str, Any] | None) -> str:
    return f"{git['commit'][:8]}{'*' if git['dirty'] else ''}" if git else "none"


def _code(run: Mapping[str, Any], changed: Collection[str]) -> str:
    if len(set(run["code_of_attempts"])) > 1:
        return "changed while it ran"
    return "changed since" if run["path"] in changed else "as now"


def _versions(versions: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _changed(report: Report) -> str:
    """Results that other code made, grouped by what changed: a list by file would be long."""
    if not report["changed"]:
        return "## Code\n\nEvery result was made by the code as it is now."
    groups: dict[str, list[str]] = {}
    for result in report["changed"]:
        modules = result["modules"]
        what = "not on record" if modules is None else ", ".join(modules)
        groups.setdefault(f"{result['stage']}: {what}", []).append(result["path"])
    lines = [f"- {what} ({len(paths)}): {_some(paths)}" for what, paths in groups.items()]
    return (
        "## Code that changed since\n\nOther code than the present one made these results. Nothing is made again by "
        "itself; `snakemake --forcerun RULE TARGET` does it. By stage, with the modules that changed:\n\n"
        + "\n".join(lines)
    )


def _leftovers(report: Report) -> str:
    if not report["leftovers"]:
        return ""
    return (
        "## On disk, but made by no rule\n\nResults of settings that are gone from `config.yaml`, or files put there "
        f"by hand. Nothing on this page stands on them.\n\n- {_some(report['leftovers'])}"
    )


def _some(paths: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(f"`{path}`" for path in paths[:most])
    return shown + (f" and {len(paths) - most} more" if len(paths) > most else "")
