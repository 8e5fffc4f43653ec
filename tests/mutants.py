"""Makes small mistakes in the code, one at a time, and counts how many of them the tests notice.

    python tests/mutants.py build/mutants
    python tests/mutants.py build/after --sample build/mutants/sample.json --project ../changed

A mistake, or mutant, is made by one of cosmic-ray's operators: another sign, another number, a condition turned round.
A fixed sample of them is drawn from the lines that the tests run, and written down, so that other tests can be asked
about the same ones. Each is judged in a copy of the project by the tests that run its line, quickest first, until one
fails. A process that has torch loaded, and nothing of the project, forks a child for each. Killed half-way, the same
command goes on where it was.
"""

import ast
import hashlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import click
import coverage
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

PROJECT = Path(__file__).resolve().parent.parent  # not from tests/project.py: each child imports that of its tree
MODULES = ("objectives/*", "probing/*", "models/heads", "views/augment", "views/blur", "views/random", "training/optim")
MODULES += ("training/lars", "report/claims", "report/published")
MODULES += ("config/plan", "config/points", "config/resolve", "config/resources")
UNSEEN = ("workflow", "slurm", "chaos", "together", "notebooks", "benchmarks")  # start processes, which nobody watches
LOADED = ("torchvision.transforms.v2", "pytorch_lightning", "pandas", "pydantic", "scipy.stats", "matplotlib.pyplot")
LOADED += ("sklearn.linear_model", "sklearn.model_selection", "sklearn.pipeline", "sklearn.svm", "safetensors.torch")
MEMORY = 12 * 2**30  # bytes, of a test that a mutant makes greedy

# Arithmetic never becomes an operation on bits: of floats that is an error, which any test notices.
PLAIN = re.compile(r"BinaryOperator_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)_(RShift|LShift|Bit\w+)")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--project", default=PROJECT, type=click.Path(path_type=Path, exists=True), help="Whose tests and code.")
@click.option("--sample", type=click.Path(path_type=Path, exists=True), help="Judges these mutants; else draws some.")
@click.option("--count", default=300, show_default=True, help="Of mutants to draw.")
@click.option("--seed", default=0, show_default=True, help="Of the draw.")
@click.option("--tests", default="tests", show_default=True, help="Folder or file, below the project.")
@click.option("-m", "marks", default="not slow", show_default=True, help="As pytest's -m.")
def main(folder: Path, project: Path, sample: Path | None, count: int, seed: int, tests: str, marks: str) -> None:
    """Judges mutants; FOLDER gets cover.json, results.jsonl and report.md, and sample.json if none is given."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare_process()
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        judge = Judge(copied(project, Path(name, "tree")), ["-m", marks])
        now = state(judge.tree, tests, marks, sample.read_text() if sample else f"{count} {seed}")
        cover = kept(folder / "cover.json", lambda: {"of": now, **judge.covered(tests)})
        if cover["of"] != now:
            raise click.ClickException(f"{folder} is about other code or tests: delete it, or name another folder")
        found = Cover(judge.tree, cover)
        mutants = kept(sample or folder / "sample.json", lambda: draw(found, count, random.Random(seed)))
        results = folder / "results.jsonl"
        done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        for number, mutant in enumerate(mutants):
            if number not in {each["number"] for each in done}:
                done.append({"number": number, **judge.verdict(mutant, found)})
                with results.open("a") as log:
                    log.write(json.dumps(done[-1]) + "\n")
                click.echo(f"{number + 1}/{len(mutants)} {mutant['module']}:{mutant['line']} {done[-1]['verdict']}")
    (folder / "report.md").write_text(report(mutants, sorted(done, key=lambda each: each["number"]), cover))


def prepare_process() -> None:
    """Loads what every child needs; no bytecode is written, so that none can hide a mutant."""
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    for name in LOADED:
        __import__(name)
    assert "issl" not in sys.modules


def copied(project: Path, tree: Path) -> Path:
    """A copy of the project's files as they are, those that git ignores left out."""
    command = ["git", "-C", project, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (project / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project / name, tree / name)
    return tree.resolve()


def state(tree: Path, *asked: str) -> str:
    """Tells apart what results are about: the files of the project, and what was asked."""
    digest = hashlib.sha256(repr(asked).encode())
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(tree)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a file has, made and written first if it is not there."""
    if not path.exists():
        path.write_text(json.dumps(make(), indent=1))
    return json.loads(path.read_text())


# --- mutants ---------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where an operator can change a module; `nth` counts the places of one operator in lines of the same text."""

    operator: str
    occurrence: int
    line: int
    column: int
    text: str
    nth: int


@cache
def places(source: str) -> list[Place]:
    """Everything that can be mutated in a module, save annotations, at which nothing looks."""
    nodes, hints, lines, found = list(ast_nodes(get_ast(source))), annotations(source), source.splitlines(), []
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or PLAIN.search(name):
            continue
        everywhere = [start for node in nodes for start, _ in operator().mutation_positions(node)]
        seen = Counter()
        for occurrence, (line, column) in enumerate(everywhere):
            text = lines[line - 1].strip()
            if not any(first <= (line, column) < last for first, last in hints):
                found.append(Place(name, occurrence, line, column, text, seen[text]))
            seen[text] += 1
    return found


def annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Begin and end of each annotation, (line, column) both."""
    every = [getattr(node, name, None) for node in ast.walk(ast.parse(source)) for name in ("annotation", "returns")]
    return [((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset)) for a in every if a]


def mutated(source: str, place: Place) -> str | None:
    """The module with this mistake; None if it is no Python, or means the same."""
    changed = mutate_code(source, get_operator(place.operator)(), place.occurrence)
    try:
        return None if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source)) else changed
    except SyntaxError:
        return None


def difference(before: str, after: str) -> list[str]:
    """Lines that go (-) and come (+)."""
    old, new = before.splitlines(), after.splitlines()
    for end in (0, -1):
        while old and new and old[end] == new[end]:
            del old[end], new[end]
    return [*(f"-{line}" for line in old), *(f"+{line}" for line in new)]


def draw(cover: "Cover", count: int, draws: random.Random) -> list[dict[str, Any]]:
    """Mutants in lines that a test runs, one a place: first the place is drawn, then what becomes of it."""
    choices: dict[tuple[str, int, int], list[Place]] = {}
    for module in modules(cover.tree):
        for place in places((cover.tree / module).read_text()):
            if cover.watchers(module, place.line):
                choices.setdefault((module, place.line, place.column), []).append(place)
    click.echo(f"{sum(map(len, choices.values()))} mutants in {len(choices)} places that tests run")
    drawn = []
    for module, line, column in draws.sample(sorted(choices), len(choices)):
        source = (cover.tree / module).read_text()
        place = draws.choice(choices[module, line, column])
        if len(drawn) < count and (changed := mutated(source, place)):
            drawn.append({"module": module, **place._asdict(), "diff": difference(source, changed)})
    return sorted(drawn, key=lambda each: (each["module"], each["line"], each["column"]))


def located(mutant: dict[str, Any], source: str) -> tuple[int, str] | None:
    """The line of a mutant, wherever it is by now, and the module with it; None if the line has changed."""
    what = (mutant["operator"], mutant["text"], mutant["nth"])
    for place in places(source):
        if (place.operator, place.text, place.nth) == what:
            changed = mutated(source, place)
            if changed and stripped(difference(source, changed)) == stripped(mutant["diff"]):
                return place.line, changed
    return None


def stripped(diff: list[str]) -> list[str]:
    return [line[0] + line[1:].strip() for line in diff]


def modules(tree: Path) -> list[str]:
    return [str(path.relative_to(tree)) for name in MODULES for path in sorted(tree.glob(f"issl/{name}.py"))]


# --- which tests run which lines -------------------------------------------------------------------------------------


class Cover:
    """Knows the tests that run a line."""

    def __init__(self, tree: Path, record: dict[str, Any]):
        self.tree, self.record, self.names = tree, record, list(record["seconds"])
        self.known: dict[tuple[str, int], list[str]] = {}
        self.files = Counter()
        for name, seconds in record["seconds"].items():
            self.files[file_of(name)] += seconds

    def watchers(self, module: str, line: int) -> list[str]:
        """Tests that run the statement of a line, file by file: the module's own, then the quickest first.

        What runs once, as the module is imported, is watched by all that run anything of the module.
        """
        if (module, line) not in self.known:
            heads, runs = statements((self.tree / module).read_text()), self.record["lines"].get(module, {})
            beside = [n for n, head in heads.items() if line not in heads or head == heads[line]]
            seconds = {name: self.record["seconds"][name] for name in self._names(runs, beside)}
            files = Counter()
            for name in seconds:
                files[file_of(name)] += seconds[name]

            def order(name: str) -> tuple[bool, float, str, float]:
                file = file_of(name)
                return Path(file).stem != f"test_{Path(module).stem}", files[file], file, seconds[name]

            self.known[module, line] = sorted(seconds, key=order)
        return self.known[module, line]

    def _names(self, runs: dict[str, list[int]], lines: list[int]) -> set[str]:
        return {self.names[number] for line in lines for number in runs.get(str(line), ())}

    def limit(self, test: str) -> int:
        """Seconds that a test may take; it may have to set up what its file shares."""
        return math.ceil(5 * self.files[file_of(test)] + 30)


@cache
def statements(source: str) -> dict[int, int]:
    """Line -> first line of its statement, for all lines inside functions."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    heads = {}
    for node in (node for function in functions for part in function.body for node in ast.walk(part)):
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            last = max(node.lineno, node.body[0].lineno - 1) if hasattr(node, "body") else node.end_lineno
            heads |= dict.fromkeys(range(node.lineno, last + 1), node.lineno)
    return heads


def file_of(test: str) -> str:
    return test.partition("::")[0]


# --- pytest in a child -----------------------------------------------------------------------------------------------


class Watching:
    """Plugin: tells coverage which test is at work, or which fixture that several tests share.

    `data` gets the lines by these contexts, and the file beside it the contexts of each test.
    """

    def __init__(self, data: Path, files: list[Path]):
        self.data, self.now, self.contexts = data, "", {}
        self.cover = coverage.Coverage(data, config_file=False, include=list(map(str, files)))

    def pytest_sessionstart(self):
        self.cover.start()

    def pytest_sessionfinish(self):
        self.cover.stop()
        self.cover.save()
        self.data.with_suffix(".json").write_text(json.dumps(self.contexts))

    @contextmanager
    def context(self, name: str) -> Iterator[None]:
        before, self.now = self.now, name
        self.cover.switch_context(name)
        yield
        self.now = before
        self.cover.switch_context(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        names = [f"{scope}:{name}" for name in item.fixturenames for scope in around(item.nodeid)]
        self.contexts[item.nodeid] = [item.nodeid, *names]
        with self.context(item.nodeid):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        own = fixturedef.scope == "function"
        with self.context(self.now if own else f"{fixturedef.baseid}:{fixturedef.argname}"):
            return (yield)


def around(test: str) -> list[str]:
    """Where fixtures may lie that a test uses: "", the folders above it, its file and the class."""
    path, *inside = test.split("::")
    folders = [str(folder) for folder in Path(path).parents]
    return ["", *folders, *("::".join([path, *inside[:depth]]) for depth in range(len(inside)))]


class Chosen:
    """Plugin: runs these tests alone, in this order; one that takes too long ends the process."""

    def __init__(self, limits: dict[str, int]):
        self.limits = limits

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in self.limits if name in found]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item):
        signal.alarm(self.limits[item.nodeid])


class Telling:
    """Plugin: writes what happens into a file, line by line, for whoever finds this process dead."""

    def __init__(self, path: Path):
        self.file = path.open("a", buffering=1)

    def tell(self, what: str, test: str, text: str = "", seconds: float = 0) -> None:
        self.file.write(json.dumps({"what": what, "test": test, "text": text, "seconds": seconds}) + "\n")

    def pytest_runtest_logstart(self, nodeid):
        self.tell("begun", nodeid)

    def pytest_runtest_logreport(self, report):
        self.tell(report.outcome, report.nodeid, message(report), report.duration)

    def pytest_collectreport(self, report):
        if report.failed:
            self.tell("failed", report.nodeid, message(report))


def message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The line that says why a test has failed."""
    lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")] if report.failed else []
    return lines[0][1:].strip() if lines else ""


class Judge:
    """Runs tests in a copy of the project, with and without mutants."""

    def __init__(self, tree: Path, arguments: list[str]):
        self.tree, self.arguments = tree, arguments
        self.passed: set[tuple[str, ...]] = set()  # runs of tests, in this order, that the true code passes
        self.flaky: set[str] = set()

    def run(self, arguments: Iterable[str], plugins: list[Any]) -> tuple[int, list[dict[str, Any]]]:
        """Exit status of pytest in a child, negative for a signal, and what it told."""
        said = self.tree.parent / "said.jsonl"
        said.write_text("")
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                os.setsid()
                os.chdir(self.tree)
                os.environ["PYTHONPATH"] = sys.path[0] = str(self.tree)
                resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
                with (self.tree.parent / "output.txt").open("w") as output:
                    os.dup2(output.fileno(), 1)
                    os.dup2(output.fileno(), 2)
                status = pytest_status([*self.arguments, *arguments], self.tree, [*plugins, Telling(said)])
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what the tests have left running
        return os.waitstatus_to_exitcode(status), [json.loads(line) for line in said.read_text().splitlines()]

    def covered(self, tests: str) -> dict[str, Any]:
        """Seconds of each test that passes, the tests that do not, and the tests that run each line of the modules."""
        data = self.tree.parent / "coverage"
        ignored = [f"--ignore-glob=*/{name}" for each in UNSEEN for name in (each, f"test_{each}*")]
        watching = Watching(data, [self.tree / name for name in modules(self.tree)])
        _, told = self.run([*ignored, tests], [watching])
        seconds, failed = Counter(), {}
        for each in told:
            if each["what"] == "failed":
                failed[each["test"]] = each["text"]
            elif each["what"] != "begun":
                seconds[each["test"]] += each["seconds"]
        seconds = {name: round(value, 3) for name, value in seconds.items() if name not in failed}
        numbers = {name: n for n, name in enumerate(seconds)}
        used = json.loads(data.with_suffix(".json").read_text())
        tests_of: dict[str, list[int]] = {}
        for name, contexts in used.items():
            for context in contexts if name in numbers else ():
                tests_of.setdefault(context, []).append(numbers[name])
        return {"seconds": seconds, "failed": failed, "lines": lines_of(data, self.tree, tests_of)}

    def verdict(self, mutant: dict[str, Any], cover: Cover) -> dict[str, Any]:
        """What the tests say of a mutant, asked file by file until one of them fails."""
        started, path = time.monotonic(), self.tree / mutant["module"]
        source = path.read_text()
        if not (there := located(mutant, source)):
            return {"verdict": "not found"}
        line, changed = there
        tests, result = cover.watchers(mutant["module"], line), {"verdict": "not covered"}
        for _, group in groupby(tests, file_of):
            result = self.noticed(path, changed, list(group), cover)
            if result["verdict"] != "survived":
                break
        result |= {"flaky": sorted(self.flaky)} if self.flaky else {}
        return {**result, "tests": len(tests), "seconds": round(time.monotonic() - started, 1)}

    def noticed(self, path: Path, changed: str, tests: list[str], cover: Cover) -> dict[str, Any]:
        """Whether one of these tests, of one file, fails with a mutant; it must pass in the same run without."""
        source = path.read_text()
        while wanted := [name for name in tests if name not in self.flaky]:
            path.write_text(changed)
            try:
                status, told = self.chosen(wanted, cover)
            finally:
                path.write_text(source)
            if status == 0:
                break
            begun = tuple(each["test"] for each in told if each["what"] == "begun")
            if begun not in self.passed and self.chosen(begun, cover)[0] != 0:
                self.flaky.add(begun[-1])
                continue
            self.passed |= {begun[: n + 1] for n in range(len(begun))}
            failed = next((each for each in told if each["what"] == "failed"), {"test": (*begun, "")[-1], "text": ""})
            said = {"by": failed["test"], "text": failed["text"] or f"exit status {status}"}
            return {"verdict": "timed out" if status == -signal.SIGALRM else "killed", **said}
        return {"verdict": "survived"}

    def chosen(self, tests: Iterable[str], cover: Cover) -> tuple[int, list[dict[str, Any]]]:
        """Runs tests of one file in this order, up to the first that fails."""
        limits = {name: cover.limit(name) for name in tests}
        return self.run(["-x", *dict.fromkeys(map(file_of, limits))], [Chosen(limits)]) if limits else (0, [])


def pytest_status(arguments: list[str], tree: Path, plugins: list[Any]) -> int:
    """Runs pytest without what would write into the tree or start other processes."""
    plain = ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=", f"--basetemp={tree.parent / 'temporary'}"]
    return int(pytest.main([*plain, "-q", "--tb=short", *arguments], plugins=plugins))


def lines_of(data: Path, tree: Path, tests_of: dict[str, list[int]]) -> dict[str, dict[int, list[int]]]:
    """Module -> line -> numbers of the tests that run it."""
    measured = coverage.CoverageData(str(data))
    measured.read()
    found = {}
    for name in modules(tree):
        contexts = measured.contexts_by_lineno(str(tree / name))
        runs = {line: sorted({n for each in names for n in tests_of.get(each, ())}) for line, names in contexts.items()}
        found[name] = {line: tests for line, tests in sorted(runs.items()) if tests}
    return found


# --- report ----------------------------------------------------------------------------------------------------------

VERDICTS = ("killed", "timed out", "survived", "not covered", "not found")


def report(mutants: list[dict[str, Any]], results: list[dict[str, Any]], cover: dict[str, Any]) -> str:
    """Counts, in total and by module, and everything that was not noticed."""
    by_module = {name: Counter() for name in sorted({each["module"] for each in mutants})}
    for each in results:
        by_module[mutants[each["number"]]["module"]][each["verdict"]] += 1
    total = sum(by_module.values(), Counter())
    lines = [f"| module | mutants | {' | '.join(VERDICTS)} |", "|---" * (2 + len(VERDICTS)) + "|"]
    for name, counts in [*by_module.items(), ("**all**", total)]:
        lines.append(f"| {name} | {counts.total()} | {' | '.join(str(counts[each]) for each in VERDICTS)} |")
    lines += ["", f"{len(cover['seconds'])} tests, {sum(cover['seconds'].values()):.0f} s without mutants.", ""]
    lines += ["Left out, as they fail without a mutant:", ""]
    unsure = dict.fromkeys((name for each in results for name in each.get("flaky", ())), "alone, or in another order")
    lines += [f"- {name}: {text}" for name, text in (cover["failed"] | unsure).items()] or ["- none"]
    for each in results:
        if each["verdict"] not in ("killed", "timed out"):
            mutant = mutants[each["number"]]
            title = f"### {each['number']} {each['verdict']}: {mutant['module']}:{mutant['line']}"
            lines += ["", title, "", f"{mutant['operator']}, {each.get('tests', 0)} tests", ""]
            lines += ["```diff", *mutant["diff"], "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
