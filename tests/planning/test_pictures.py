"""The pictures show every part of a schedule where it is, and every point of a curve."""

import pytest

from issl.planning.budget import Choice, Number, Trial
from issl.planning.pictures import budget_curve, gantt
from issl.planning.schedule import Part

PARTS = [Part("a", 0, 0, 10, 1, 2), Part("b", 1, 0, 4), Part("c", 1, 4, 4.1), Part("a", 1, 10, 12.5, 2, 2)]
NAMES = {"a": ("SimCLR", "z512 e300 s1"), "b": ("CI$SL", "z64 e9 s1"), "c": ("CI$SL", "z64 e9 s2")}


def test_a_bar_is_a_part_on_its_gpu():
    [axes] = gantt(PARTS, 2, NAMES, "hours").axes
    drawn = [
        (bar.get_x(), bar.get_x() + bar.get_width(), round(bar.get_y() + bar.get_height() / 2)) for bar in axes.patches
    ]
    assert drawn == [pytest.approx((part.start, part.end, part.gpu)) for part in PARTS]
    assert axes.get_xlim() == (0, 12.5)
    assert axes.get_xlabel() == "hours from the start"


def test_a_colour_is_a_method_and_short_bars_have_no_text():
    [axes] = gantt(PARTS, 2, NAMES, "hours").axes
    colors = [bar.get_facecolor() for bar in axes.patches]
    assert colors[0] == colors[3] != colors[1] == colors[2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SimCLR", r"CI\$SL"]
    assert [text.get_text() for text in axes.texts] == ["z512 e300 s1\n1 of 2", "z64 e9 s1", "z512 e300 s1\n2 of 2"]


def test_nothing_to_run_is_an_empty_chart():
    [axes] = gantt([], 1, {}, "hours").axes
    assert not axes.patches


def choice(numbers, *powers):
    trials = tuple(Trial(str(n), 1, frozenset(), power) for n, power in enumerate(powers))
    return Choice((), 0.0, 0.0, tuple(Number(str(n), frozenset()) for n in range(numbers)), trials)


def test_a_curve_has_the_numbers_and_the_expected_claims():
    [axes] = budget_curve([(0, choice(0)), (3, choice(2, 0.5)), (8, choice(5, 0.9, 0.25))], 3, "hours").axes
    numbers, claims, chosen = axes.lines
    assert numbers.get_xydata().tolist() == [[0, 0], [3, 2], [8, 5]]
    assert claims.get_xydata().tolist() == [[0, 0], [3, 0.5], [8, pytest.approx(1.15)]]
    assert set(chosen.get_xdata()) == {3}


def test_without_numbers_only_claims_are_drawn():
    """As in presets that are not comparable with the paper."""
    [axes] = budget_curve([(0, choice(0)), (3, choice(0, 0.5))], 3, "hours").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["claims expected to hold", "this plan"]
