"""Published numbers beside reproduced ones: verdicts and the tolerance behind them."""

import math

import pandas as pd
import pytest

from issl.config.evidence import Comparison, Published
from issl.report.noise import UNKNOWN, Variance, prior, published_pair
from issl.report.published import Reproduced, numbers, reproduced, tolerance

RULES = Comparison()
PAPER = Published(source="a table", precision=0.05, values={"A": 45.2, "B": {1: 50.0, 0.02: 9.0}})
ONE_RUN = 0.3 / math.sqrt(2) / 0.67449  # points; the median of a normal's absolute values is 0.67449 deviations
PAIR = prior(UNKNOWN, published_pair(10_000, RULES), RULES)


def ours(accuracy, sem=None, seeds=1, n_test=10_000):
    return Reproduced(accuracy, sem, accuracy, sem, seeds, n_test)


def verdicts(found, comparable=True):
    priors = dict.fromkeys(PAPER.points, PAIR) if comparable else None
    return [number.verdict for number in numbers("table", PAPER, found, priors, RULES)]


def test_every_published_number_has_a_verdict_even_without_a_result():
    assert verdicts({}) == ["not run"] * 3
    assert verdicts({("A", ""): ours(45.3), ("B", "0.02"): ours(20.0)}) == ["agrees", "not run", "differs"]


def test_the_verdict_is_on_the_accuracy_that_is_selected_as_the_paper_selects_it():
    assert verdicts({("A", ""): Reproduced(45.2, None, 40.0, None, 1, 10_000)})[0] == "agrees"
    assert verdicts({("A", ""): Reproduced(50.0, None, 45.2, None, 1, 10_000)})[0] == "differs"


def test_other_settings_are_not_comparable():
    assert verdicts({("A", ""): ours(45.2)}, comparable=False) == ["not comparable", "not run", "not run"]
    (number, *_) = numbers("table", PAPER, {("A", ""): ours(45.2)}, None, RULES)
    assert number.tolerance is None


def test_single_runs_agree_within_twice_the_noise_of_their_difference_and_rounding():
    """The difference of two runs deviates by 0.3 / 0.67449 = 0.445; two standard errors are 0.89."""
    assert tolerance(ours(45.2), PAIR, 0.05, RULES) == pytest.approx(0.6 / 0.67449 + 0.05, rel=1e-5)
    assert verdicts({("A", ""): ours(46.13)})[0] == "agrees"
    assert verdicts({("A", ""): ours(46.15)})[0] == "differs"
    assert verdicts({("A", ""): ours(44.25)})[0] == "differs"


def test_seeds_narrow_our_mean_but_not_the_published_number():
    """Four seeds that agree: three degrees of freedom without variance, and three of the pair."""
    one_run = ONE_RUN / math.sqrt(2)
    assert tolerance(ours(45, sem=0.0, seeds=4), PAIR, 0.1, RULES) == pytest.approx(
        2 * math.hypot(one_run / 2, ONE_RUN) + 0.1, rel=1e-5
    )


def test_the_spread_over_seeds_is_averaged_with_the_noise_of_others():
    """Three seeds with a standard error of 1: their variance is 3, with two degrees of freedom."""
    one_run = (2 * 3 + 4 * 0.5) / 6
    assert tolerance(ours(45, sem=1.0, seeds=3), Variance(0.5, 4), 0.1, RULES) == pytest.approx(
        2 * math.sqrt(one_run / 3 + 0.5) + 0.1
    )


def test_fewer_test_images_mean_more_noise_of_both_runs():
    """A quarter of the images: twice the deviation, as for every mean of independent draws."""
    few = prior(UNKNOWN, published_pair(2_500, RULES), RULES)
    assert tolerance(ours(45, n_test=2_500), few, 0.05, RULES) == pytest.approx(2 * 0.6 / 0.67449 + 0.05, rel=1e-5)


def test_points_are_in_per_cent_with_an_error_over_seeds_or_the_interval_of_their_images():
    """Wilson's interval of 50 of 100 is symmetric: 0.5 +- z / (2 sqrt(100 + z^2))."""
    nan = float("nan")
    summary = pd.DataFrame(
        {
            **{"line": ["A", "B"], "column": ["", "1"], "seeds": [1, 3], "n_test": [100, 100]},
            **{"test_selected": [0.5, 0.6], "test_selected_sem": [nan, 0.01]},
            **{"val_selected": [0.5, 0.7], "val_selected_sem": [nan, 0.02]},
        }
    )
    one, several = reproduced(summary).values()
    half = 100 * 1.959964 / (2 * math.sqrt(100 + 1.959964**2))
    assert (one.test_selected, one.test_selected_sem, one.seeds, one.n_test) == (50.0, None, 1, 100)
    assert one.test_selected_interval == one.val_selected_interval == pytest.approx((50 - half, 50 + half), abs=1e-4)
    assert several == Reproduced(60.0, 1.0, 70.0, 2.0, 3, 100, None, None)
