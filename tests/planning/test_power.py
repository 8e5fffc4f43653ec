"""The power of a claim agrees with closed forms, and with the rule of the comparison on drawn results."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from issl.config.evidence import Claim, Comparison
from issl.planning.power import Expected, holds, powers
from issl.report.claims import contrasts, outcomes
from issl.report.noise import UNKNOWN, Noise, Variance, published_pair

RULES = Comparison()
LEVEL, IMAGES = RULES.significance, 10_000
BETTER = contrasts(Claim(better="A", than="B"), [""])
FOUR = 0.02  # more than four standard errors of a power


def power(expected, seeds, single=True):
    return powers([expected], seeds, LEVEL, single)[-1]


@pytest.mark.parametrize("gap", [0, 0.6, 1.2])
def test_one_seed_has_the_power_of_a_known_error(gap):
    """The error is the prior's, so the difference of two runs is compared with a constant."""
    prior, deviation = Variance(0.1, 3), 0.3
    critical = stats.t(3).isf(LEVEL) * math.sqrt(2 * 0.1)
    exact = stats.norm.sf((critical - gap) / (math.sqrt(2) * deviation))
    assert power(Expected(BETTER[0], gap, deviation**2, prior, IMAGES), 1) == pytest.approx(exact, abs=FOUR)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_own_seeds_alone_have_the_power_of_a_paired_t_test(seeds):
    """Exact by the noncentral t distribution."""
    gap, deviation = 1.0, 0.5
    noncentrality = gap / (deviation * math.sqrt(2 / seeds))
    exact = stats.nct.sf(stats.t(seeds - 1).isf(LEVEL), seeds - 1, noncentrality)
    found = power(Expected(BETTER[0], gap, deviation**2, UNKNOWN, IMAGES), seeds, single=False)
    assert found == pytest.approx(exact, abs=FOUR)


def test_a_moderated_test_has_the_power_of_its_integral():
    """Over the chi-square distribution of the variance between own seeds."""
    gap, seeds, prior = 0.8, 3, Variance(0.05, 4)
    critical = stats.t(6).isf(LEVEL)
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    own = 0.2 * stats.chi2(2).ppf(quantiles) / 2
    error = np.sqrt(2 / seeds * (2 * own + 4 * 0.05) / 6)
    exact = stats.norm.sf((critical * error - gap) / math.sqrt(2 * 0.2 / seeds)).mean()
    assert power(Expected(BETTER[0], gap, 0.2, prior, IMAGES), seeds) == pytest.approx(exact, abs=FOUR)


def test_one_seed_decides_nothing_unless_the_preset_is_comparable():
    expected = Expected(BETTER[0], 50, 0.1, Variance(0.1, 4), IMAGES)
    assert power(expected, 1, single=False) == 0
    assert power(expected, 1, single=True) == 1
    assert power(expected._replace(prior=UNKNOWN), 1) == 0


def test_fewer_seeds_are_the_first_ones_of_more():
    """What is told of two seeds does not depend on how many are planned for."""
    expected = [Expected(BETTER[0], 0.5, 0.2, Variance(0.1, 3), IMAGES)]
    deviations = dict(zip(BETTER[0].weights, np.random.default_rng(1).normal(size=(2, 50, 4))))
    whole = holds(expected, deviations, LEVEL)
    for n in (1, 2, 3):
        first = {point: draws[:, :n] for point, draws in deviations.items()}
        assert holds(expected, first, LEVEL)[:, -1].tolist() == whole[:, n - 1].tolist()
    assert 0 < whole.mean() < 1


def tidy(values):
    """Points of a line as `results.points` gives them, from the accuracies (%) of each column's seeds.

    Columns are fractions of the labels, so that the noise of one tells nothing of the others'.
    """
    rows = [
        {"column": column, "fraction": float(column), "encoder": column, "seed": seed, "test_selected": accuracy / 100}
        for column, seeds in values.items()
        for seed, accuracy in enumerate(seeds)
    ]
    about = {"encoding": "e", "kind": "linear", "data": "d", "metric": "top-1", "epochs": 1}
    table = pd.DataFrame(rows).assign(line="A", **about, n_test=IMAGES)
    return table.assign(val_selected=table["test_selected"])


@pytest.mark.parametrize(("verb", "seeds"), [("rises", 2), ("saturates", 3)])
def test_a_claim_of_several_columns_holds_where_the_comparison_says_so(verb, seeds):
    means, deviation, draws = {"0.1": 40.0, "0.5": 41.0, "1": 40.8}, 0.3, 20
    claim, prior = Claim.model_validate({verb: "A"}), published_pair(IMAGES, RULES)
    deviations = np.random.default_rng(0).standard_normal((3, draws, seeds))
    verdicts = []
    for nth in range(draws):
        found = tidy({column: means[column] + deviation * deviations[k, nth] for k, column in enumerate(means)})
        noise = Noise.of([found], True, RULES)
        verdicts.append(outcomes(claim, found, noise)["test_selected"].verdict == "holds")
    asked = contrasts(claim, list(means))
    gaps = [sum(weight * means[column] for (_, column), weight in each.weights.items()) for each in asked]
    expected = [Expected(each, gap, deviation**2, prior, IMAGES) for each, gap in zip(asked, gaps)]
    there = {("A", column): deviations[k] for k, column in enumerate(means)}
    assert holds(expected, there, LEVEL)[:, -1].tolist() == verdicts
    assert 3 < sum(verdicts) < 17
