"""A workflow that is killed a few times ends with the results of an undisturbed one. `make chaos` is the long way."""

import random

import pytest
from chaos import chaos
from miniature import MINIATURE

from issl.config.presets import merge

# One row of the table, whose training is long enough to be killed between two checkpoints.
ONE_ROW = {
    "defaults": {"optim": {"epochs": 60}},
    "experiments": {
        "table2_mlp": {"rows": {"DISSL MLP": None}, "claims": {"an MLP student is better for MLP probes": None}}
    },
}


@pytest.mark.slow
def test_a_workflow_killed_four_times_makes_the_same_results():
    tiny = merge(MINIATURE, ONE_ROW)
    summary = chaos(kills=4, target="results/tiny/table2_mlp.md", draws=random.Random(0), changes=tiny)
    kills = summary["kills"]
    assert kills["workflow SIGKILL"] == kills["everything SIGKILL"] == 1 and sum(kills.values()) == 4
    assert summary["files compared"] == 6  # weights, history and scores of a run; results and table
    assert summary["differences"] == []
