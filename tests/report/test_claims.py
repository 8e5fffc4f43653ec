"""Claims: the contrasts behind each, and the test that decides."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from issl.config.evidence import Claim, Comparison
from issl.report.claims import contrasts, in_order, outcomes, published_value
from issl.report.results import SELECTIONS

RULES = Comparison()
ONE_RUN = 0.3 / math.sqrt(2)  # points


def points(*rows, n_test=10_000):
    """(line, column, seed, accuracy in per cent), the same for both selections of the setting."""
    frame = pd.DataFrame(rows, columns=["line", "column", "seed", "test_selected"])
    both = dict.fromkeys(SELECTIONS, frame["test_selected"] / 100)
    return frame.assign(**both, n_test=n_test, encoder=frame["column"], log_loss=0.0)


def verdict(claim, frame, selection="test_selected"):
    return outcomes(Claim.model_validate(claim), frame, RULES)[selection].verdict


BETTER = {"better": "A", "than": "B"}


@pytest.mark.parametrize(
    ("lead", "says"),
    [(0.6, "holds"), (0.5, "holds"), (0.49, "undecided"), (0.0, "undecided"), (-0.49, "undecided"), (-0.5, "fails")],
)
def test_with_one_seed_a_gap_must_exceed_the_noise_of_two_runs(lead, says):
    """One-sided 5 % of a normal with deviation 0.3: 1.645 x 0.3 = 0.4935 points."""
    assert verdict(BETTER, points(("A", "", 1, 45 + lead), ("B", "", 1, 45))) == says


def test_fewer_test_images_require_a_larger_gap():
    frame = points(("A", "", 1, 46), ("B", "", 1, 45))
    assert verdict(BETTER, frame) == "holds"
    assert verdict(BETTER, frame.assign(n_test=500)) == "undecided"  # 1.645 x 0.3 x sqrt(20) = 2.2 points


def test_several_seeds_use_the_paired_t_test():
    a, b = np.array([46.0, 48.1, 50.3]), np.array([44.5, 46.7, 48.0])
    frame = points(*[("A", "", s, v) for s, v in enumerate(a)], *[("B", "", s, v) for s, v in enumerate(b)])
    (test,) = outcomes(Claim.model_validate(BETTER), frame, RULES)["test_selected"].tests
    truth = stats.ttest_rel(a, b, alternative="greater")
    assert (test.n, test.value) == (3, pytest.approx((a - b).mean()))
    assert test.error == pytest.approx((a - b).std(ddof=1) / math.sqrt(3))
    assert test.p == pytest.approx(truth.pvalue) and test.verdict == "holds"
    unpaired = stats.ttest_ind(a, b, alternative="greater")
    assert unpaired.pvalue > 0.05, "only the pairing tells them apart"


def test_seeds_that_agree_by_chance_do_not_make_a_claim_certain():
    frame = points(*[(line, "", seed, value) for seed in (1, 2) for line, value in (("A", 45.1), ("B", 45.0))])
    (test,) = outcomes(Claim.model_validate(BETTER), frame, RULES)["test_selected"].tests
    assert test.error == pytest.approx(math.sqrt(2) * ONE_RUN / math.sqrt(2))
    assert test.verdict == "undecided"


def test_only_common_seeds_are_paired():
    frame = points(("A", "", 1, 50), ("A", "", 2, 50), ("B", "", 2, 40), ("B", "", 3, 90))
    (test,) = outcomes(Claim.model_validate(BETTER), frame, RULES)["test_selected"].tests
    assert (test.n, test.value) == (1, pytest.approx(10))
    assert verdict(BETTER, points(("A", "", 1, 50), ("B", "", 2, 40))) == "undecided"


def test_better_means_better_in_every_column():
    low, high = points(("A", "200", 1, 8), ("B", "200", 1, 6)), points(("A", "1000", 1, 18), ("B", "1000", 1, 14))
    assert verdict(BETTER, pd.concat([low, high])) == "holds"
    assert verdict(BETTER, pd.concat([low, high.assign(test_selected=0.1)])) == "undecided"
    worse = points(("A", "1000", 1, 10), ("B", "1000", 1, 14))
    assert verdict(BETTER, pd.concat([low, worse])) == "fails"


def curve(*values, line="A"):
    return points(*[(line, str(column), 1, value) for column, value in zip((128, 512, 2048, 8192), values)])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((40.3, 47.0, 48.4, 48.8), "holds"),
        ((43.0, 47.7, 49.1, 49.0), "holds"),  # the last step is within noise
        ((43.0, 47.7, 49.1, 47.0), "fails"),
        ((45.0, 45.1, 45.2, 45.3), "undecided"),
        ((49.0, 48.0, 47.0, 46.0), "fails"),
    ],
)
def test_rising_compares_the_ends_and_allows_no_fall_between(values, says):
    assert verdict({"rises": "A"}, curve(*values)) == says


def test_columns_are_ordered_numerically():
    shuffled = curve(40.3, 47.0, 48.4, 48.8).sample(frac=1, random_state=0)
    (whole, *_) = outcomes(Claim(rises="A"), shuffled, RULES)["test_selected"].tests
    assert (whole.what, whole.value) == ("128 to 8192", pytest.approx(8.5))


def test_a_column_without_a_name_comes_before_numbers_and_names_come_last():
    assert in_order(["top-5", "0.5", "", "top-1", "10"]) == ["", "0.5", "10", "top-1", "top-5"]


def test_saturation_means_the_last_step_gains_less_than_the_first():
    assert verdict({"saturates": "A"}, curve(40.3, 47.0, 48.4, 48.8)) == "holds"  # 6.7 against 0.4
    assert verdict({"saturates": "A"}, curve(40, 42, 44, 46)) == "undecided"
    assert verdict({"saturates": "A"}, curve(40, 41, 43, 49)) == "fails"


def test_a_step_that_shares_a_point_with_the_other_counts_it_twice():
    (contrast,) = contrasts(Claim(saturates="A"), ["1", "2", "3"])
    assert contrast.weights == {("A", "1"): -1, ("A", "2"): 2, ("A", "3"): -1}
    assert contrasts(Claim(saturates="A"), ["1", "2"]) == []


def test_narrowing_means_a_shrinking_gap():
    mlp, linear = curve(43.0, 47.7, 49.1, 49.0), curve(40.3, 47.0, 48.4, 48.8, line="B")
    outcome = outcomes(Claim(narrows="A", than="B"), pd.concat([mlp, linear]), RULES)["test_selected"]
    assert outcome.verdict == "holds" and outcome.tests[0].value == pytest.approx(2.7 - 0.2)
    assert outcome.tests[0].error == pytest.approx(2 * ONE_RUN)  # four runs


def test_the_remaining_gap_is_reported():
    claim = Claim.model_validate({"better": "DISSL", "than": "official", "instead_of": "DINO"})
    frame = points(("DISSL", "", 1, 45.1), ("DINO", "", 1, 43.3), ("official", "", 1, 44.2))
    assert outcomes(claim, frame, RULES)["test_selected"].remark == (
        "the lead is +1.8 points over DINO and +0.9 over official: 50% of it is left"
    )
    ahead = points(("DISSL", "", 1, 45.1), ("DINO", "", 1, 44.1), ("official", "", 1, 43.1))
    assert outcomes(claim, ahead, RULES)["test_selected"].remark.endswith("and +2.0 over official: all of it is left")
    behind = points(("DISSL", "", 1, 43.0), ("DINO", "", 1, 43.3), ("official", "", 1, 44.2))
    assert outcomes(claim, behind, RULES)["test_selected"].remark.endswith("there is no lead to lose")


def test_both_accuracies_are_tested_separately():
    frame = points(("A", "", 1, 50), ("B", "", 1, 40)).assign(val_selected=[0.4, 0.5])
    assert verdict(BETTER, frame, "test_selected") == "holds"
    assert verdict(BETTER, frame, "val_selected") == "fails"


def test_a_line_without_results_is_not_run():
    assert verdict(BETTER, points(("A", "", 1, 50))) == "not run"
    assert verdict({"rises": "A"}, points(("A", "128", 1, 50))) == "not run"


def cloud(losses, accuracies, seeds=(1,)):
    runs = [("A", f"run{i}", seed, 100 * acc) for i, acc in enumerate(accuracies) for seed in seeds]
    return points(*runs).assign(log_loss=np.repeat(losses, len(seeds)))


def test_falling_uses_an_exact_rank_test_over_runs():
    """Of the 5! orders of five runs one is wholly reversed: p = 1 / 120."""
    (test,) = outcomes(Claim(falls="A"), cloud([1, 2, 3, 4, 5], [0.5, 0.4, 0.3, 0.2, 0.1]), RULES)[
        "test_selected"
    ].tests
    assert (test.n, test.value, test.p) == (5, pytest.approx(1), pytest.approx(1 / 120))
    assert verdict({"falls": "A"}, cloud([5, 4, 3, 2, 1], [0.5, 0.4, 0.3, 0.2, 0.1])) == "fails"
    assert verdict({"falls": "A"}, cloud([1, 2, 3], [0.5, 0.4, 0.3])) == "undecided"  # 1 / 6
    assert verdict({"falls": "A"}, cloud([1], [0.5])) == "undecided"


def test_a_rank_test_is_over_the_runs_of_its_line_alone():
    ours = cloud([1, 2, 3, 4, 5], [0.5, 0.4, 0.3, 0.2, 0.1])
    others = [cloud([1, 2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4, 0.5]).assign(line=line) for line in ("0", "Z")]
    others = [other.assign(encoder=other["line"] + other["encoder"]) for other in others]
    (test,) = outcomes(Claim(falls="A"), pd.concat([ours, *others]), RULES)["test_selected"].tests
    assert (test.n, test.value) == (5, pytest.approx(1))


def test_seeds_of_a_run_count_as_one_point_of_a_rank_test():
    (test,) = outcomes(Claim(falls="A"), cloud([1, 2, 3], [0.5, 0.4, 0.3], seeds=(1, 2, 3)), RULES)[
        "test_selected"
    ].tests
    assert test.n == 3


def test_released_weights_without_a_log_loss_do_not_enter_a_rank_test():
    ours = cloud([1, 2, 3, 4, 5], [0.5, 0.4, 0.3, 0.2, 0.1])
    released = cloud([math.nan], [0.9]).assign(encoder="released")
    (test,) = outcomes(Claim(falls="A"), pd.concat([ours, released]), RULES)["test_selected"].tests
    assert (test.n, test.value) == (5, pytest.approx(1))
    assert verdict({"falls": "A"}, released) == "undecided"


def test_a_published_contrast_needs_all_of_its_numbers():
    (contrast,) = contrasts(Claim(better="A", than="B"), [""])
    assert published_value(contrast, {("A", ""): 45.8, ("B", ""): 45.2}) == pytest.approx(0.6)
    assert published_value(contrast, {("A", ""): 45.8}) is None
