"""Published numbers beside reproduced ones: verdicts and the tolerance behind them."""

import math

import pandas as pd
import pytest

from issl.config.evidence import Comparison, Published
from issl.report.published import Reproduced, numbers, reproduced, run_deviation, tolerance

RULES = Comparison()
PAPER = Published(source="a table", precision=0.05, values={"A": 45.2, "B": {1: 50.0, 0.02: 9.0}})


def ours(accuracy, sem=None, seeds=1, n_test=10_000):
    return Reproduced(accuracy, sem, accuracy, sem, seeds, n_test)


def verdicts(found, comparable=True):
    return [number.verdict for number in numbers("table", PAPER, found, RULES, comparable)]


def test_every_published_number_has_a_verdict_even_without_a_result():
    assert verdicts({}) == ["not run"] * 3
    assert verdicts({("A", ""): ours(45.3), ("B", "0.02"): ours(20.0)}) == ["agrees", "not run", "differs"]


def test_the_verdict_is_on_the_accuracy_that_is_selected_as_the_paper_selects_it():
    assert verdicts({("A", ""): Reproduced(45.2, None, 40.0, None, 1, 10_000)})[0] == "agrees"
    assert verdicts({("A", ""): Reproduced(50.0, None, 45.2, None, 1, 10_000)})[0] == "differs"


def test_other_settings_are_not_comparable():
    assert verdicts({("A", ""): ours(45.2)}, comparable=False) == ["not comparable", "not run", "not run"]


def test_single_runs_agree_within_twice_the_authors_repeat_and_rounding():
    """Each run deviates by 0.3 / sqrt(2); the difference of two by 0.3; two standard errors are 0.6."""
    assert tolerance(ours(45.2), 0.05, RULES) == pytest.approx(0.65)
    assert verdicts({("A", ""): ours(45.85)})[0] == "agrees"
    assert verdicts({("A", ""): ours(45.86)})[0] == "differs"
    assert verdicts({("A", ""): ours(44.54)})[0] == "differs"


def test_more_seeds_narrow_our_mean_but_not_the_published_number():
    one_run = 0.3 / math.sqrt(2)
    assert tolerance(ours(45, sem=0.0, seeds=4), 0.1, RULES) == pytest.approx(
        2 * math.hypot(one_run / 2, one_run) + 0.1
    )


def test_the_spread_over_seeds_counts_where_it_is_larger():
    assert tolerance(ours(45, sem=1.0, seeds=3), 0.1, RULES) == pytest.approx(
        2 * math.hypot(1, 0.3 / math.sqrt(2)) + 0.1
    )


def test_fewer_test_images_mean_more_noise():
    """A quarter of the images: twice the deviation, as for every mean of independent draws."""
    assert run_deviation(2_500, RULES) == pytest.approx(2 * run_deviation(10_000, RULES))


def test_points_are_in_per_cent_and_a_single_seed_has_no_error():
    summary = pd.DataFrame(
        {
            **{"line": ["A"], "column": [""], "test_selected": [0.5], "test_selected_sem": [float("nan")]},
            **{"val_selected": [0.4], "val_selected_sem": [float("nan")], "seeds": [1], "n_test": [100]},
        }
    )
    assert reproduced(summary) == {("A", ""): Reproduced(50.0, None, 40.0, None, 1, 100)}
