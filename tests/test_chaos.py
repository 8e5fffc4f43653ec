"""A workflow that is killed a few times ends with the results of an undisturbed one. `make chaos` is the long way."""

import random

from chaos import chaos


def test_what_is_killed_a_few_times_ends_the_same():
    summary = chaos(kills=4, target="results/tiny/table2_mlp.md", draws=random.Random(3))
    assert sum(summary["kills"].values()) >= 4
    assert summary["files compared"] == 9  # of two runs: weights, histories, scores; results and table
    assert summary["differences"] == []
