"""The runs that results need: how they differ, how far they are, and what they cost."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from issl.config.plan import Plan
from issl.planning import state
from issl.planning.asked import by_default
from issl.planning.calibration import Estimate
from issl.planning.cost import Costs, total
from issl.spec.probe import READS_IMAGES, grid_id
from issl.spec.run import RunSpec
from issl.spec.value import flat

PULLED = "to be pulled"  # the state of a seed that a source has


class Entry(NamedTuple):
    """A run, or released weights, with the seeds and results that it is needed for."""

    root: str
    name: str
    differs: str  # settings that most of its neighbours have otherwise
    epochs: int
    states: dict[int, str]  # by seed
    users: tuple[str, ...]
    epochs_left: float
    left: Estimate | None  # seconds, for all seeds and their probes; None if nothing of it is known
    whole: Estimate | None  # seconds, as if nothing were done
    unknown: int  # jobs that are left and in no estimate: none such was measured, or the data set is not prepared

    @property
    def state(self) -> str:
        """The states of the seeds: one for all, or "done (1, 2), missing (3)"."""
        found = list(dict.fromkeys(self.states.values()))
        if len(found) == 1:
            return found[0]
        seeds = {words: [str(seed) for seed, each in self.states.items() if each == words] for words in found}
        return ", ".join(f"{words} ({', '.join(each)})" for words, each in seeds.items())


class Score(NamedTuple):
    """A score file that experiments need, and what it is of, by ids."""

    path: Path
    encoder: str  # its folder, below the results folder
    encoding: str
    grid: str
    seed: int


class Needed(NamedTuple):
    """What experiments need of one encoder."""

    users: list[str]
    seeds: list[int]
    scores: list[Score]

    def missing(self) -> list[Score]:
        """The scores that do not exist."""
        return [score for score in self.scores if not score.path.exists()]


def needed(plan: Plan, experiments: Sequence[str]) -> dict[str, Needed]:
    """What experiments need, by the name of the encoder, in their order; other users of a run are named too."""
    found: dict[str, Needed] = {}
    for experiment, row in ((name, row) for name in experiments for row in plan.rows[name]):
        users, seeds, scores = found.setdefault(row.name, Needed([], [], []))
        _extend(users, [experiment])
        _extend(seeds, row.seeds)
        for probe, seed in ((probe, seed) for probe in row.probes for seed in row.seeds):
            path = Path(plan.root, row.score(probe, seed))
            _extend(scores, [Score(path, row.encoder(seed), row.encoding_id, grid_id(row.probes[probe]), seed)])
    others = set(by_default(plan)) - set(experiments)
    for name, each in found.items():
        _extend(each.users, [user for user in plan.experiments_of(name) if user in others])
    return found


def _extend(known: list, more: Iterable) -> None:
    known += [each for each in more if each not in known]


def entries(
    plan: Plan, experiments: Sequence[str], costs: Costs | None, pulled: Container[tuple[str, int]] = ()
) -> list[Entry]:
    """One entry for each run, or released weights, that experiments need, in their order.

    `pulled` are the runs and seeds that sources have: where they are left, no training is.
    """
    every = needed(plan, experiments)
    differing = words({name: plan.runs[name] for name in every if name in plan.runs})
    return [
        _of_run(plan, name, each, differing.get(name, ""), costs, pulled)
        if name in plan.runs
        else _of_weights(plan, name, each, costs)
        for name, each in every.items()
    ]


def _of_run(
    plan: Plan, name: str, needed: Needed, differs: str, costs: Costs | None, pulled: Container[tuple[str, int]]
) -> Entry:
    epochs = plan.runs[name].epochs
    found = {seed: state.of_run(plan, name, seed) for seed in needed.seeds}
    missing = needed.missing()
    unscored = {score.seed for score in missing}
    shown = {
        seed: "to be scored" if each.done and seed in unscored else each.words(epochs) for seed, each in found.items()
    }
    shown |= {seed: PULLED for seed, each in found.items() if each.open and (name, seed) in pulled}
    left = [each.saved for seed, each in found.items() if not each.done and shown[seed] != PULLED]
    epochs_left = sum(epochs * (1 - saved) for saved in left)
    rest, whole = (_jobs(costs, name, *jobs) for jobs in ((left, missing), ([0.0] * len(found), needed.scores)))
    return Entry(
        plan.root,
        name,
        differs,
        epochs,
        shown,
        tuple(needed.users),
        epochs_left,
        costs and _sum(rest),
        costs and _sum(whole),
        rest.count(None),
    )


def _of_weights(plan: Plan, name: str, needed: Needed, costs: Costs | None) -> Entry:
    missing = needed.missing()
    shown = dict.fromkeys(needed.seeds, "to be scored" if missing else "done")
    rest, whole = (_jobs(costs, name, [], scores) for scores in (missing, needed.scores))
    about = (plan.root, name, "released weights", 0, shown, tuple(needed.users), 0.0)
    return Entry(*about, costs and _sum(rest), costs and _sum(whole), rest.count(None))


def _jobs(costs: Costs | None, name: str, trainings: Sequence[float], scores: Sequence[Score]) -> list[Estimate | None]:
    """The times of trainings, by the fraction that is done of each, and of scores with the features they read."""
    if costs is None:
        return []
    reading = [score for score in scores if costs.plan.grids[score.grid].kind not in READS_IMAGES]
    encoded = {(score.encoder, score.encoding) for score in reading}
    return [
        *(costs.pretraining(name, done) for done in trainings),
        *(costs.featurizing(*each) for each in encoded),
        *(costs.probing(score.encoder, score.encoding, score.grid) for score in scores),
    ]


def hours_left(
    plan: Plan, experiments: Sequence[str], costs: Costs, pulled: Container[tuple[str, int]] = ()
) -> Callable[[str, int], float | None]:
    """The hours that a run with a seed still takes with its probes, as a function; None if not all are known.

    Of what is `pulled`, only the probes take time.
    """
    every = needed(plan, experiments)

    def left(run: str, seed: int) -> float | None:
        found = state.of_run(plan, run, seed)
        missing = [score for score in every[run].missing() if score.seed == seed]
        trained = found.done or (found.open and (run, seed) in pulled)
        times = _jobs(costs, run, [] if trained else [found.saved], missing)
        return None if None in times else total(times).median / 3600

    return left


def _sum(times: Sequence[Estimate | None]) -> Estimate | None:
    known = [time for time in times if time is not None]
    return total(known) if known or not times else None


def words(runs: Mapping[str, RunSpec]) -> dict[str, str]:
    """Of each run the settings in which it differs from most others of its method, such as "dim 2048, epochs 1000"."""
    settings = {name: flat(run.model_dump(mode="json")) for name, run in runs.items()}
    keys = {key for each in settings.values() for key in each}
    last = Counter(key.rpartition(".")[2] for key in keys)
    found = {}
    for name, own in settings.items():
        neighbours = [each for other, each in settings.items() if _method(other) == _method(name)]
        usual = {key: Counter(each.get(key) for each in neighbours).most_common(1)[0][0] for key in own}
        short = {key: key.rpartition(".")[2] if last[key.rpartition(".")[2]] == 1 else key for key in own}
        found[name] = ", ".join(f"{short[key]} {value}" for key, value in own.items() if value != usual[key])
    return found


def _method(run: str) -> str:
    return run.partition("-")[0]  # of its id
