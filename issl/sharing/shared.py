"""The sources that a config names in `shared`: what they have of a plan's runs, and how a workflow takes it.

A workflow pulls when it starts, in its own process: machines that train may have no network, and a source that cannot
be reached must stop it before anything trains, not after hours in a queue. The files go to the hidden folder beside the
outputs of `pretrain` in which its job looks for what is made already. So the job itself knows of no source, and nothing
of a run's identity, command or settings changes with `shared`.
"""

import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from issl.config.plan import Plan, run_in
from issl.errors import UserError
from issl.jobs.files import write_json
from issl.jobs.locks import KEPT, is_forced
from issl.jobs.records import read_record
from issl.sharing import records, sources
from issl.sharing.index import OUTPUTS, Files, Index, seeds_of
from issl.sharing.pull import bring
from issl.spec.data import data_id

CACHE = Path("results/.planning/shared.json")  # what sources on the web had when they were last asked
WITHOUT = "to train here instead: --config 'shared=[]'"


class Job(NamedTuple):
    """A pretraining of a plan with one seed."""

    root: str
    run: str
    seed: int
    at: str = ""  # the results folder as jobs see it, where a storage plugin has another one

    @property
    def results(self) -> str:
        return self.at or self.root

    @property
    def folder(self) -> Path:
        return Path(self.results, "runs", self.run, f"s{self.seed}")


def pull_planned(dag: Any, plans: Mapping[str, Plan], name: str) -> None:
    """Pulls what the trainings of Snakemake's DAG would make, before they start; `name` is that of rule pretrain there.

    Raises UserError if a source that is needed cannot be reached, or has damaged files.
    """
    needed = [job for job in dag.needrun_jobs(exclude_finished=False) if job.rule.name == name]
    jobs = [
        Job(each.wildcards.root, each.wildcards.run, int(each.wildcards.seed), str(Path(each.output[0]).parents[3]))
        for each in needed
    ]
    wanted = [job for job in jobs if plans[job.root].config.shared and not _decided(job)]
    asked: dict[str, Index] = {}
    pulled = []
    try:
        for job in wanted:
            source = _first(job, plans[job.root].config.shared, asked)
            if source and _bring(job, source, asked[source], plans[job.root]):
                pulled.append(source)
    except UserError as error:
        raise UserError(f"shared: {error}; {WITHOUT}") from None
    finally:
        _remember(asked)
    if wanted:
        left = len(wanted) - len(pulled)
        print(f"shared: pulled {counted(pulled)}; {left} to train here", file=sys.stderr, flush=True)


def find(
    plans: Mapping[str, Plan], run: str, source: str | None, seed: int | None, preset: Plan | None
) -> list[tuple[Job, str, Files]]:
    """What `issl pull` brings: each seed, its source and its files there.

    `run` is an id or a path, which also names the seed and the results folder if it has them. Without `source`, those
    of the config are asked in turn. Raises UserError if nobody has it, or if it is not clear where it goes.
    """
    name, path = run_in(run), Path(run).as_posix()
    in_path = re.search(r"/s(\d+)(/|$)", path)
    seed = int(in_path[1]) if seed is None and in_path else seed
    root = next((root for root in plans if path.startswith(f"{root}/runs/")), None)
    plan = preset or plans.get(root or "") or next((plan for plan in plans.values() if name in plan.runs), None)
    named = [source] if source else [*dict.fromkeys(each for one in plans.values() for each in one.config.shared)]
    if not named:
        raise UserError("no source: add --from, or name some in `shared` of config.yaml")
    for each in named:
        index = sources.index_of(each)
        seeds = seeds_of(index, name, each) if each == named[-1] else [*index.runs.get(name, {})]
        chosen = [found for found in seeds if seed in (None, found)]
        if chosen:
            break
    else:
        raise UserError(f"{each}: has {name} with seeds {', '.join(map(str, seeds))}, not with {seed}")
    if plan is None:
        raise UserError(f"{name}: no preset of this config has this run; add --preset to say whose results it joins")
    return [(Job(plan.root, name, found), each, index.runs[name][found]) for found in chosen]


def counted(sources: Iterable[str]) -> str:
    """How many of some runs each source has: "2 from A, 1 from B", or "none"."""
    return ", ".join(f"{number} from {source}" for source, number in Counter(sources).items()) or "none"


def _decided(job: Job) -> bool:
    """Whether its training is asked for, or its job has results here that it judges itself."""
    forced = is_forced("pretrain", [job.folder / name for name in OUTPUTS])
    return forced or (job.folder / KEPT / records.RECORD).exists()


def _first(job: Job, named: Iterable[str], asked: dict[str, Index]) -> str | None:
    """The first of these sources that has a run. One is asked, once, only if those before it lack a run."""
    for source in named:
        if source not in asked:
            asked[source] = sources.index_of(source)
        if job.seed in asked[source].runs.get(job.run, {}):
            return source
    return None


def _bring(job: Job, source: str, index: Index, plan: Plan) -> bool:
    """Pulls a run, unless the data set was prepared here and its images are others."""
    files, kept = index.runs[job.run][job.seed], job.folder / KEPT
    bring(source, job.run, job.seed, {name: files[name] for name in OUTPUTS}, kept)
    images = Path(job.results, "data", data_id(plan.runs[job.run].data), "meta.json")
    if images.exists() and read_record(images).get("sha256") != read_record(kept / records.RECORD)["data"]:
        shutil.rmtree(kept)
        print(f"shared: {job.run} s{job.seed} of {source} was trained on other images", file=sys.stderr, flush=True)
        return False
    for name in OUTPUTS:
        os.utime(kept / name, (0, 0))  # not made by this workflow: so its job compares the images once more
    return True


# --- for plans and dry runs ------------------------------------------------------------------------------------------


class Offer(NamedTuple):
    """What sources have: the source of each run and seed, and the sources of which it is not known, with the reason."""

    runs: dict[tuple[str, int], str]
    unknown: dict[str, str]


def offer(plan: Plan, ask: bool) -> Offer:
    """What the sources of a plan have. Without `ask`, the network is not used: a source on the web has what it had when
    it was last asked."""
    runs: dict[tuple[str, int], str] = {}
    unknown = {}
    for source in plan.config.shared:
        try:
            found = _has(source, ask)
        except UserError as error:
            unknown[source] = str(error)
            continue
        for run, seeds in found.items():
            runs |= {(run, seed): source for seed in seeds if (run, seed) not in runs}
    return Offer(runs, unknown)


def _has(source: str, ask: bool) -> Mapping[str, Iterable[int]]:
    """The seeds of each run of a source. Raises UserError if that is not known."""
    if ask or sources.is_folder(source):
        index = sources.index_of(source)
        _remember({source: index})
        return index.runs
    remembered = _remembered()
    if source not in remembered:
        raise UserError(f"{source}: not asked yet, `issl plan` does")
    return remembered[source]


def _remember(asked: Mapping[str, Index]) -> None:
    new = {source: {run: [*seeds] for run, seeds in index.runs.items()} for source, index in asked.items()}
    new = {source: runs for source, runs in new.items() if not sources.is_folder(source)}
    if new:
        with suppress(UserError):  # somebody else's results, say: a dry run then knows less
            write_json(CACHE, _remembered() | new)


def _remembered() -> dict[str, dict[str, list[int]]]:
    try:
        return json.loads(CACHE.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none yet, or it is being replaced
        return {}
