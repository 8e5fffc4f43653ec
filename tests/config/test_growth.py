"""Planning grows as the number of runs: counts of calls, which do not depend on the machine."""

import cProfile
import pstats

import pytest
from project import PROJECT

from issl.config import plan as catalog
from issl.config import resources
from issl.config.presets import merge
from issl.planning import runtime
from issl.spec.probe import grid_id

EXPERIMENTS = {  # shape of a config -> an experiment of n runs
    "grid": lambda n: {"grid": {"method": ["simclr"], "optim.weight_decay": [number / 1e6 for number in range(n)]}},
    "rows": lambda n: {"rows": {f"r{i}": {"method": "simclr", "optim": {"weight_decay": i / 1e6}} for i in range(n)}},
    "seeds": lambda n: {"rows": {"SimCLR": {"method": "simclr"}}, "seeds": list(range(n))},
}


def look_everything_up(raw):
    """What the rules and `all` ask of a plan."""
    plans = catalog.plans(raw)
    plan = plans["results"]
    plan.targets(), plan.made(), plan.trained(), plan.comparison()
    for experiment in plan.rows:
        plan.scores(experiment), plan.histories(experiment), plan.measured(experiment), plan.rows_for(experiment)
    minutes = runtime.requests(plans)
    for row, probe, seed in plan.scored("many"):
        encoder, encoding, grid = row.encoder(seed), row.encoding_id, grid_id(row.probes[probe])
        plan.arrays(row.run.data), plan.place(row.run.data), plan.settings(), plan.experiments_of(row.name)
        plan.weights(encoder), plan.encoder(encoder), plan.read_by(encoder, encoding, grid)
        plan.group(encoder, encoding), plan.group(encoder, encoding, grid)
        minutes(plan, "pretrain", {"run": row.name, "seed": str(seed)})
        for rule in ("featurize", "probe"):
            minutes(plan, rule, {"encoder": encoder, "encoding": encoding, "grid": grid})
            resources.request(plan, rule, encoder, encoding, grid)


def calls(raw, experiment):
    """Calls of the package's functions."""
    many = experiment | {"probes": [{"weight_decay": [1e-4, 1e-5]}], "table": {"caption": "Many runs."}}
    profile = cProfile.Profile()
    profile.runcall(look_everything_up, merge(raw, {"presets": None, "experiments": {"many": many}}))
    found = pstats.Stats(profile).stats.items()
    return sum(count for (file, _, _), (_, count, *_) in found if file.startswith(str(PROJECT / "issl")))


@pytest.mark.parametrize("shape", EXPERIMENTS)
def test_twice_the_runs_take_twice_the_calls(raw, shape):
    _, few, some, many = (calls(raw, EXPERIMENTS[shape](n)) for n in (2, 40, 80, 160))  # the first fills caches
    assert many - some < 2.05 * (some - few)
