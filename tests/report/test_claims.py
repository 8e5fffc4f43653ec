"""Claims: the contrasts behind each, and the test that decides."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from issl.config.evidence import Claim, Comparison
from issl.report.claims import Outcome, contrasts, corrected, holm, in_order, outcomes, published_value
from issl.report.noise import Noise
from issl.report.results import SELECTIONS

RULES = Comparison()
ONE_RUN = 0.3 / math.sqrt(2) / stats.norm.ppf(0.75)  # points: 0.31, of which two runs differ by 0.3 in the median
OTHERS = [f"other {i}" for i in range(20)]


def points(*rows, n_test=10_000):
    """(line, column, seed, accuracy in per cent), the same for both selections of the setting."""
    frame = pd.DataFrame(rows, columns=["line", "column", "seed", "test_selected"])
    both = dict.fromkeys(SELECTIONS, frame["test_selected"] / 100)
    facts = {"data": "tinyimagenet", "fraction": 1.0, "metric": "top-1", "encoding": "e", "kind": "linear"}
    return frame.assign(
        **both, **facts, n_test=n_test, encoder=frame["line"] + frame["column"], epochs=300, log_loss=0.0
    )


def outcome(claim, frame, selection="test_selected", comparable=True, others=()):
    """Beside `others`, points that the claim is not about."""
    noise = Noise.of([frame, *others], comparable, RULES)
    return outcomes(Claim.model_validate(claim), frame, noise)[selection]


def verdict(claim, frame, selection="test_selected", **about):
    return outcome(claim, frame, selection, **about).verdict


BETTER = {"better": "A", "than": "B"}


def ab(a, b):
    """Points of A and B, a seed each."""
    return points(*[(line, "", seed, v) for line, values in (("A", a), ("B", b)) for seed, v in enumerate(values)])


@pytest.mark.parametrize(
    ("lead", "says"),
    [(1.05, "holds"), (1.04, "undecided"), (0.0, "undecided"), (-1.04, "undecided"), (-1.05, "fails")],
)
def test_with_one_seed_a_gap_must_exceed_the_noise_of_two_runs(lead, says):
    """5 % of a t with three degrees of freedom: 2.353, times sqrt(2) 0.3145 = 1.047 points."""
    assert verdict(BETTER, ab([45 + lead], [45])) == says


def test_fewer_test_images_require_a_larger_gap():
    frame = ab([48], [45])
    assert verdict(BETTER, frame) == "holds"
    assert verdict(BETTER, frame.assign(n_test=500)) == "undecided"  # 1.047 x sqrt(20) = 4.7 points


def test_one_seed_decides_nothing_where_its_noise_is_unknown():
    found = outcome(BETTER, ab([90], [10]), comparable=False)
    assert found.verdict == "undecided" and found.p is None and found.seeds_needed is None
    (test,) = found.tests
    assert (test.value, test.n, test.error, test.p) == (pytest.approx(80), 1, None, None)
    assert found.deciding == "one seed; a second would show the noise"


A, B = np.array([46.0, 48.1, 50.3]), np.array([44.5, 46.7, 48.0])


def test_several_seeds_without_other_evidence_use_the_paired_t_test():
    (test,) = outcome(BETTER, ab(A, B), comparable=False).tests
    truth = stats.ttest_rel(A, B, alternative="greater")
    assert (test.n, test.value, test.freedom) == (3, pytest.approx((A - B).mean()), 2)
    assert test.error == pytest.approx((A - B).std(ddof=1) / math.sqrt(3))
    assert test.p == pytest.approx(truth.pvalue) and test.verdict == "holds"
    assert test.p_fails == pytest.approx(1 - truth.pvalue)
    unpaired = stats.ttest_ind(A, B, alternative="greater")
    assert unpaired.pvalue > 0.05, "only the pairing tells them apart"


def test_the_published_pair_adds_three_degrees_of_freedom():
    (test,) = outcome(BETTER, ab(A, B)).tests
    one_run = (2 * (A - B).var(ddof=1) / 2 + 3 * ONE_RUN**2) / 5
    assert test.error == pytest.approx(math.sqrt(2 * one_run / 3)) and test.freedom == 5
    assert test.p == pytest.approx(stats.t.sf((A - B).mean() / test.error, 5))


def test_other_points_add_four_degrees_of_freedom_at_most():
    values = 40 + np.random.default_rng(0).standard_normal((20, 3))
    others = points(*[(name, "", seed, v) for name, line in zip(OTHERS, values) for seed, v in enumerate(line)])
    (test,) = outcome(BETTER, ab(A, B), comparable=False, others=[others]).tests
    one_run = (2 * (A - B).var(ddof=1) / 2 + 4 * values.var(axis=1, ddof=1).mean()) / 6
    assert test.error == pytest.approx(math.sqrt(2 * one_run / 3)) and test.freedom == 6
    assert test.p == pytest.approx(stats.t.sf((A - B).mean() / test.error, 6))


def test_the_weights_of_a_contrast_scale_its_noise():
    """A - 2 B + C varies six times as much as one run."""
    values = np.array([[40.0, 40.3], [42.1, 42.5], [43.0, 42.8]])
    frame = points(*[("A", str(2**i), seed, v) for i, line in enumerate(values) for seed, v in enumerate(line)])
    (test,) = outcome({"saturates": "A"}, frame).tests
    contrast = -values[0] + 2 * values[1] - values[2]
    one_run = (contrast.var(ddof=1) / 6 + 3 * ONE_RUN**2) / 4
    assert test.value == pytest.approx(contrast.mean())
    assert test.error == pytest.approx(math.sqrt(6 * one_run / 2))


def test_seeds_that_agree_by_chance_do_not_make_a_claim_certain():
    found = outcome(BETTER, ab([45.1, 45.1], [45.0, 45.0]))
    (test,) = found.tests
    assert test.error == pytest.approx(math.sqrt(2 * ONE_RUN**2 * 3 / 4 / 2)) and test.freedom == 4
    assert found.verdict == "undecided"
    (test,) = outcome(BETTER, ab([45.1, 45.1], [45.0, 45.0]), comparable=False).tests
    assert test.error == pytest.approx(0.01 / math.sqrt(12)), "accuracies are multiples of 0.01 points"


def test_only_common_seeds_are_paired():
    frame = points(("A", "", 1, 50), ("A", "", 2, 50), ("B", "", 2, 40), ("B", "", 3, 90))
    found = outcome(BETTER, frame, comparable=False)
    (test,) = found.tests
    assert (test.n, test.value) == (1, pytest.approx(10))
    assert found.deciding == "only 1 of 3 seeds has all its points; a second would show the noise"
    none = outcome(BETTER, points(("A", "", 1, 50), ("B", "", 2, 40)))
    assert none.verdict == "undecided" and none.p is None and none.deciding == "no seed has all its points"


# --- what would decide ---


def test_the_seeds_that_would_decide_are_the_fewest_whose_t_test_would():
    """0.65 points, errors 0.445 / sqrt(n): t = 2.07 with two seeds, 2.53 with three.

    The limits are 2.13 and 2.02 with three degrees of freedom from the published pair. Other points make it four: 2.02
    with two seeds.
    """
    alone = outcome(BETTER, ab([45.65], [45.0]))
    assert (alone.seeds_needed, alone.deciding) == (3, "it would hold with 3 seeds, if the difference stays")
    others = [points(*[(name, "", 0, 45) for name in OTHERS])]
    assert outcome(BETTER, ab([45.65], [45.0]), others=others).seeds_needed == 2
    behind = outcome(BETTER, ab([45.0], [45.65]))
    assert (behind.seeds_needed, behind.deciding) == (3, "it would fail with 3 seeds, if the difference stays")


def test_where_no_reasonable_number_of_seeds_would_decide_it_is_said():
    """0.1 points: t = 0.1 / (0.445 / sqrt(10)) = 0.71 with ten seeds."""
    found = outcome(BETTER, ab([45.1], [45.0]))
    assert (found.seeds_needed, found.deciding) == (None, "10 seeds would not decide it, if the difference stays")


def test_a_claim_about_several_columns_needs_the_seeds_of_its_smallest_lead():
    """0.6 points: t = 1.91 with two seeds, 2.34 with three; the limits of 5 and 6 degrees of freedom: 2.02, 1.94."""
    columns = {"200": 3.0, "1000": 0.6}
    frame = points(*[(line, c, 1, 40 + lead * (line == "A")) for c, lead in columns.items() for line in "AB"])
    found = outcome(BETTER, frame)
    assert (found.seeds_needed, found.deciding) == (3, "it would hold with 3 seeds, if the differences stay")


def test_a_decided_claim_needs_nothing():
    found = outcome(BETTER, ab([48], [45]))
    assert found.verdict == "holds" and (found.seeds_needed, found.deciding) == (None, "")


# --- each claim ---


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
    (whole, *_) = outcome({"rises": "A"}, shuffled).tests
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
    found = outcome({"narrows": "A", "than": "B"}, pd.concat([mlp, linear]))
    assert found.tests[0].value == pytest.approx(2.7 - 0.2)
    assert found.tests[0].error == pytest.approx(2 * ONE_RUN)  # four runs
    assert found.p == pytest.approx(tail(2.5 / (2 * ONE_RUN))) and found.verdict == "holds"


def tail(t):
    """Upper tail of Student's t with three degrees of freedom, in closed form."""
    x = t / math.sqrt(3)
    return 0.5 - (x / (1 + x**2) + math.atan(x)) / math.pi


def test_the_remaining_gap_is_reported():
    claim = Claim.model_validate({"better": "DISSL", "than": "official", "instead_of": "DINO"})
    frame = points(("DISSL", "", 1, 45.1), ("DINO", "", 1, 43.3), ("official", "", 1, 44.2))
    assert outcome(claim, frame).remark == (
        "the lead is +1.8 points over DINO and +0.9 over official: 50% of it is left"
    )
    ahead = points(("DISSL", "", 1, 45.1), ("DINO", "", 1, 44.1), ("official", "", 1, 43.1))
    assert outcome(claim, ahead).remark.endswith("and +2.0 over official: all of it is left")
    behind = points(("DISSL", "", 1, 43.0), ("DINO", "", 1, 43.3), ("official", "", 1, 44.2))
    assert outcome(claim, behind).remark.endswith("there is no lead to lose")


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


FALLS = {"falls": "A"}
DOWN = (0.5, 0.4, 0.3, 0.2, 0.1)


def test_falling_uses_an_exact_rank_test_over_runs():
    """Of the 5! orders of five runs one is wholly reversed: p = 1 / 120."""
    (test,) = outcome(FALLS, cloud([1, 2, 3, 4, 5], DOWN)).tests
    assert (test.n, test.value, test.p) == (5, pytest.approx(1), pytest.approx(1 / 120))
    assert verdict(FALLS, cloud([5, 4, 3, 2, 1], DOWN)) == "fails"
    few = outcome(FALLS, cloud([1, 2, 3], DOWN[:3]))
    assert few.verdict == "undecided" and few.p == pytest.approx(1 / 6)
    assert few.deciding == "a rank test needs more runs; more seeds of the same runs do not add to it"
    assert verdict(FALLS, cloud([1], [0.5])) == "undecided"


def test_three_runs_in_the_opposite_order_are_too_few_for_a_rank_test_to_fail():
    found = outcome(FALLS, cloud([3, 2, 1], DOWN[:3]))
    assert found.verdict == "undecided" and found.p_fails == pytest.approx(1 / 6)


def test_a_rank_test_is_over_the_runs_of_its_line_alone():
    ours = cloud([1, 2, 3, 4, 5], DOWN)
    others = [cloud([1, 2, 3, 4, 5], DOWN[::-1]).assign(line=line) for line in ("0", "Z")]
    others = [other.assign(encoder=other["line"] + other["encoder"]) for other in others]
    (test,) = outcome(FALLS, pd.concat([ours, *others])).tests
    assert (test.n, test.value) == (5, pytest.approx(1))


def test_seeds_of_a_run_count_as_one_point_of_a_rank_test():
    (test,) = outcome(FALLS, cloud([1, 2, 3], DOWN[:3], seeds=(1, 2, 3))).tests
    assert test.n == 3


def test_released_weights_without_a_log_loss_do_not_enter_a_rank_test():
    ours = cloud([1, 2, 3, 4, 5], DOWN)
    released = cloud([math.nan], [0.9]).assign(encoder="released")
    (test,) = outcome(FALLS, pd.concat([ours, released])).tests
    assert (test.n, test.value) == (5, pytest.approx(1))
    assert verdict(FALLS, released) == "undecided"


# --- several claims ---


def test_a_claim_has_the_largest_p_of_what_it_requires_and_fails_with_the_smallest_of_all():
    """A rise by 6.0 points is required; steps of 3.0, 3.0 and 0.0 points are not, but may fail."""
    difference = math.sqrt(2) * ONE_RUN
    found = outcome({"rises": "A"}, curve(40.0, 43.0, 46.0, 46.0))
    assert found.p == pytest.approx(tail(6 / difference))
    assert found.p_fails == 1.0  # four times 0.5
    low, high = points(("A", "1", 1, 43), ("B", "1", 1, 40)), points(("A", "2", 1, 46), ("B", "2", 1, 40))
    both = outcome(BETTER, pd.concat([low, high]))
    assert (both.p, both.p_fails) == (pytest.approx(tail(3 / difference)), 1.0)
    worse = outcome(BETTER, pd.concat([low, high.assign(test_selected=[0.40, 0.46])]))
    assert worse.p_fails == pytest.approx(2 * tail(6 / difference)) and worse.p > 0.99


def step_down(ps, level):
    """Holm's procedure as he states it: from the smallest p up, reject while p <= level / (claims left)."""
    rejected = [False] * len(ps)
    for left, i in zip(range(len(ps), 0, -1), sorted(range(len(ps)), key=ps.__getitem__)):
        if ps[i] > level / left:
            break
        rejected[i] = True
    return rejected


def test_holms_adjusted_values_reject_what_his_procedure_rejects():
    draws = np.random.default_rng(0)
    for n in (1, 2, 5, 20):
        ps = list(draws.uniform(0, 0.1, n))
        for level in (0.01, 0.05, 0.2):
            assert [p <= level for p in holm(ps)] == step_down(ps, level)
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])  # R's p.adjust
    assert holm([0.5, 0.9]) == [1, 1] and holm([]) == []


def test_the_correction_counts_tested_claims_and_keeps_what_was_not_tested():
    def tested(p, p_fails):
        found = "holds" if p < 0.05 else "fails" if p_fails < 0.05 else "undecided"
        return Outcome(found, p=p, p_fails=p_fails)

    found = [tested(0.01, 0.99), Outcome("not run"), tested(0.03, 0.97), tested(0.999, 0.001), Outcome("undecided")]
    after = corrected(found, 0.05)
    # of three tested claims, 0.01 x 3 and 0.03 x 2; the other side 0.001 x 3
    assert [each.corrected for each in after] == ["holds", "not run", "undecided", "fails", "undecided"]
    assert [each.verdict for each in after] == [each.verdict for each in found]


def test_a_correction_never_turns_a_verdict_round():
    """The whole rise is certain, and the last step falls by 1.2 points: p = 0.037, times four contrasts."""
    found = outcome({"rises": "A"}, curve(40.0, 46.0, 47.2, 46.0))
    assert found.verdict == "fails" and found.p < 0.001
    (after,) = corrected([found], 0.05)
    assert after.corrected == "undecided"


def test_a_published_contrast_needs_all_of_its_numbers():
    (contrast,) = contrasts(Claim(better="A", than="B"), [""])
    assert published_value(contrast, {("A", ""): 45.8, ("B", ""): 45.2}) == pytest.approx(0.6)
    assert published_value(contrast, {("A", ""): 45.8}) is None
