"""The noise of one run: moderated variances, and what they make of claims whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import claims_power
from issl.config.evidence import Claim, Comparison
from issl.report.claims import outcomes
from issl.report.noise import UNKNOWN, Noise, Variance, interval, moderated, prior, published_pair

RULES = Comparison()


def points(values, **facts):
    """Accuracies in per cent, (point, seed), of the encoders and lines A, B, C, ..."""
    names = [chr(65 + row) for row in range(len(values))]
    rows = [(name, seed, each / 100) for name, line in zip(names, values) for seed, each in enumerate(line)]
    frame = pd.DataFrame(rows, columns=["line", "seed", "test_selected"])
    about = {
        **{"encoder": frame["line"], "column": "", "encoding": "e", "kind": "linear", "val_selected": 0.5},
        **{
            "data": "tinyimagenet",
            "fraction": 1.0,
            "metric": "top-1",
            "n_test": 10_000,
            "epochs": 300,
            "log_loss": 0.0,
        },
    }
    return frame.assign(**about | facts)


PAIR = published_pair(10_000, RULES)


def test_the_published_pair_differs_by_what_two_runs_differ_by_in_the_median():
    value, freedom = PAIR
    difference = stats.norm(scale=math.sqrt(2 * value))
    assert difference.cdf(0.3) - difference.cdf(-0.3) == pytest.approx(0.5) and freedom == 3
    quarter = published_pair(2_500, RULES).value
    assert quarter == pytest.approx(4 * value), "a quarter of the images has four times the variance"


def test_variances_are_weighted_by_their_degrees_of_freedom():
    assert moderated(Variance(4.0, 2), Variance(1.0, 4), 10_000) == (pytest.approx((2 * 4 + 4 * 1) / 6), 6)
    assert moderated(Variance(4.0, 2), UNKNOWN, 10_000) == (4.0, 2)
    assert moderated(UNKNOWN, Variance(1.0, 4), 10_000) == (1.0, 4)
    assert moderated(UNKNOWN, UNKNOWN, 10_000) == UNKNOWN


def test_equal_accuracies_have_at_least_the_variance_of_rounding():
    """Of 200 images one is half a point; what is uniform over half a point has the variance 0.5² / 12."""
    uniform = np.linspace(0, 0.5, 100_001)
    assert moderated(Variance(0.0, 1), UNKNOWN, 200).value == pytest.approx(uniform.var(), rel=1e-3)
    assert moderated(Variance(1.0, 1), UNKNOWN, 200).value == 1.0


def test_other_points_count_half_and_never_for_more_than_a_few_seeds():
    pair = Variance(0.045, 1.0)
    assert prior(UNKNOWN, UNKNOWN, RULES).freedom == 0
    assert prior(Variance(0.5, 3), UNKNOWN, RULES) == (0.5, 1.5)
    assert prior(Variance(0.1, 4), pair, RULES) == (pytest.approx((4 * 0.1 + 0.045) / 5), 3)
    assert prior(Variance(0.1, 100), pair, RULES).freedom == RULES.prior_freedom == 4


VALUES = np.array([[45.0, 45.4, 45.1], [44.0, 44.9, 44.2], [50.1, 50.0, 50.6], [30.0, 31.0, 30.2]])
NOISIER = VALUES + np.array([0, 9, 18])


def test_noise_elsewhere_is_that_of_points_alike_without_those_of_the_same_encoders():
    everything = points(VALUES)
    few = points(NOISIER, fraction=0.01)
    noise = Noise.of([everything, everything, few], comparable=False, rules=RULES)
    here = everything[everything["line"].isin(["A", "B"])]
    expected = VALUES[2:].var(axis=1, ddof=1).mean()
    assert noise.prior(here, "test_selected") == (pytest.approx(expected), 4 / 2)
    with_pair = Noise.of([everything], comparable=True, rules=RULES).prior(here, "test_selected")
    assert with_pair == (pytest.approx((4 * expected + 3 * PAIR.value) / 7), 4)


def test_points_with_different_numbers_of_seeds_count_by_their_degrees_of_freedom():
    everything = points(VALUES)
    here, single = everything["line"] == "A", (everything["line"] == "B") & (everything["seed"] > 0)
    two = (everything["line"] == "C") & (everything["seed"] == 2)
    noise = Noise.of([everything[~single & ~two]], comparable=False, rules=RULES)
    squares = np.square(VALUES[2, :2] - VALUES[2, :2].mean()).sum() + np.square(VALUES[3] - VALUES[3].mean()).sum()
    assert noise.prior(everything[here], "test_selected") == (pytest.approx(squares / 3), 3 / 2)


def test_without_seeds_of_its_own_noise_is_known_only_with_the_settings_of_the_paper():
    everything = points(VALUES)
    one = everything[(everything["line"] == "A") & (everything["seed"] == 0)]
    ours = Noise.of([everything], comparable=False, rules=RULES)
    assert ours.of_one_run(UNKNOWN, one, "test_selected") == UNKNOWN
    papers = Noise.of([one], comparable=True, rules=RULES)
    assert papers.of_one_run(UNKNOWN, one, "test_selected") == (pytest.approx(PAIR.value), PAIR.freedom)


def test_measured_noise_is_summarised_for_each_kind_of_point():
    few = points(NOISIER[:1], fraction=0.01)
    single = points(VALUES[:1, :1], metric="top-5")
    found = Noise.of([points(VALUES), few, single], comparable=True, rules=RULES).summary("test_selected")
    about = {"data": "tinyimagenet", "metric": "top-1"}
    all_labels, few_labels = VALUES.var(axis=1, ddof=1).mean(), NOISIER[0].var(ddof=1)
    assert found == [
        about | {"fraction": 1.0, "deviation": pytest.approx(math.sqrt(all_labels)), "freedom": 8},
        about | {"fraction": 0.01, "deviation": pytest.approx(math.sqrt(few_labels)), "freedom": 2},
    ]
    assert Noise.of([], comparable=True, rules=RULES).summary("test_selected") == []


@pytest.mark.parametrize(("accuracy", "n"), [(45.2, 10_000), (18.75, 16), (0.0, 500), (100.0, 500)])
def test_the_interval_of_an_accuracy_is_wilsons(accuracy, n):
    p, z = accuracy / 100, 1.959963984540054
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert interval(accuracy, n) == pytest.approx((100 * (center - half), 100 * (center + half)))


# --- claims with known truth ---

REPEATS = 4_000  # the standard error of 5 % is 0.35 %


def held(setting, rule):
    """How often a claim holds, in per cent: (seeds, gap)."""
    return 100 * np.array([claims_power.rates(setting, [rule], n, REPEATS)[0] for n in claims_power.SEEDS])


@pytest.mark.parametrize("setting", [claims_power.PAPER, claims_power.SPREAD, claims_power.TWICE, claims_power.TINY])
def test_few_false_claims_hold_and_more_seeds_decide_more(setting):
    found = held(setting, claims_power.present)
    assert found[:, 0].max() < 5.5
    assert np.diff(found[:, 1:], axis=0).min() > -1
    assert found[-1, -1] > 99 and found[1, -1] > 90, "two seeds decide a large gap"


def test_the_simulation_tells_rules_apart():
    """The former rule let noise hold with one seed, and lost what one seed had shown with the second."""
    found = held(claims_power.TINY, claims_power.former)
    assert found[0, 0] > 25 and np.diff(found[:, 1:], axis=0).min() < -30


@pytest.mark.parametrize("comparable", [True, False])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_simulated_rule_is_the_one_of_the_report(comparable, seeds):
    setting = claims_power.Setting("", None, comparable=comparable)
    accuracies = 45 + 0.3 * np.random.default_rng(0).standard_normal((1, 6, seeds))
    table = points(accuracies[0])
    noise = Noise.of([table], comparable, RULES)
    (test,) = outcomes(Claim(better="A", than="B"), table, noise)["test_selected"].tests
    (p,) = claims_power.present(accuracies, setting)
    assert math.isnan(p) if test.p is None else test.p == pytest.approx(p)


def test_untrained_encoders_are_no_evidence_of_the_noise_of_training():
    trained, untrained = points([[40, 42], [50, 54]]), points([[20, 20]], epochs=0, encoder="untrained")
    both, alone = (Noise.of(tables, False, RULES) for tables in ([trained, untrained], [trained]))
    assert both.summary("test_selected") == alone.summary("test_selected")
    assert both.summary("test_selected")[0]["deviation"] == pytest.approx(math.sqrt((2 + 8) / 2))
