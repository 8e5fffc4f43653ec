"""Tables: both selections beside each published number, column by column, as Markdown and as LaTeX."""

import re
from html import unescape

import pandas as pd
import pytest
from tidy import TWO_ROWS, tidy

from issl.config.display import Table
from issl.config.evidence import Published
from issl.errors import UserError
from issl.report import tables
from issl.report.html import html

TABLE = Table(caption="A 100 % table.")
PUBLISHED = Published(source="a paper", precision=0.05, values={"A": 45.2})


def test_a_markdown_table_has_published_and_reproduced_columns():
    text = tables.markdown(tables.grid(TWO_ROWS, TABLE, PUBLISHED), TABLE.caption)
    assert "**A 100 % table.**" in text
    assert "|  | published | selected on test | selected on held-out train | seeds |\n| --- | ---: |" in text
    assert "| A | 45.2 | 43.5 ± 1.5 | 40.5 ± 0.5 | 2 |" in text
    assert "| B | – | 61.0 ± 1.0 | 61.0 ± 1.0 | 2 |" in text
    assert "± is the standard error over seeds" in text


def test_a_table_has_a_column_for_each_further_source():
    also = {"label": "1 May", "source": "an older page", "precision": 0.005, "values": {"A": 44.6}}
    published = Published(source="a paper", precision=0.05, values={"A": 45.2, "B": 50}, also=[also])
    grid = tables.grid(TWO_ROWS, TABLE, published)
    assert grid.header[:3] == ("", "published", "published, 1 May")
    assert [row[:3] for row in grid.rows] == [("A", "45.2", "44.60"), ("B", "50.0", "–")]


@pytest.mark.parametrize("published", [None, Published(source="not available")])
def test_a_table_without_published_numbers_lacks_the_column(published):
    grid = tables.grid(TWO_ROWS, TABLE, published)
    text = tables.markdown(grid)
    assert "published" not in text and "| A | 43.5 ± 1.5 | 40.5 ± 0.5 | 2 |" in text
    assert "{lrrr}" in tables.latex(grid, TABLE.caption)


def test_a_single_seed_has_no_error():
    assert tables.grid(TWO_ROWS[TWO_ROWS["seed"] == 1], TABLE, None).rows[0] == ("A", "45.0", "40.0", "1")


def test_a_row_counts_the_seeds_that_all_its_columns_have():
    more = tidy(("A", 1, 1e-6, 0.5, None), probe="svm", kind="svm", grid="svm-00000000")
    grid = tables.grid(pd.concat([TWO_ROWS, more]), Table(caption="", columns=["probe"]), None)
    assert grid.rows == [
        ("A", "43.5 ± 1.5", "40.5 ± 0.5", "50.0", "1"),
        ("B", "61.0 ± 1.0", "61.0 ± 1.0", "–", "2"),
    ]


def test_probes_of_one_setting_have_one_column():
    """There is nothing to select: both numbers would be the same, and neither optimistic."""
    one = TWO_ROWS[TWO_ROWS["weight_decay"] == 1e-4]
    grid = tables.grid(one, TABLE, PUBLISHED)
    assert grid.header == ("", "published", "accuracy", "seeds")
    assert grid.rows == [("A", "45.2", "41.0 ± 1.0", "2"), ("B", "–", "61.0 ± 1.0", "2")]
    assert "selected" not in grid.meaning and "selected" in tables.grid(TWO_ROWS, TABLE, PUBLISHED).meaning


def test_a_table_can_have_columns_for_parts_of_the_labels():
    few = TWO_ROWS[TWO_ROWS["row"] == "A"].assign(fraction=0.02, test_acc=0.1)
    published = Published(source="a paper", precision=0.05, values={"A": {0.02: 9.9}})
    grid = tables.grid(pd.concat([TWO_ROWS, few]), Table(caption="", columns=["fraction"]), published)
    assert grid.header == (
        *("", "100 % of labels, selected on test", "100 % of labels, selected on held-out train"),
        *(f"2 % of labels, {name}" for name in ("published", "selected on test", "selected on held-out train")),
        "seeds",
    )
    assert grid.rows[0] == ("A", "43.5 ± 1.5", "40.5 ± 0.5", "9.9", "10.0 ± 0.0", "10.0 ± 0.0", "2")
    assert grid.rows[1] == ("B", "61.0 ± 1.0", "61.0 ± 1.0", "–", "–", "–", "2")


MEASURED = TWO_ROWS.assign(
    rank_me=TWO_ROWS["seed"] * 10 + 1.0,  # 11 and 21
    alignment=[0.25] * 4 + [float("nan")] * 4,  # of A; B has no settings of views
    uniformity=[-2.0, -2.0, -3.0, -3.0, -1.0, -1.0, float("nan"), float("nan")],
)


def test_a_table_can_have_columns_for_what_representations_are_like():
    shown = Table(caption="", measures=["rank_me", "alignment", "uniformity"])
    grid = tables.grid(MEASURED, shown, None)
    assert grid.header[3:] == ("RankMe", "alignment", "uniformity", "seeds")
    assert [row[3:] for row in grid.rows] == [
        ("16.0 ± 5.0", "0.250 ± 0.000", "-2.50 ± 0.50", "2"),  # sample deviation 7.07 / sqrt(2)
        ("16.0 ± 5.0", "–", "-1.00", "2"),
    ]
    assert all(f" {name} is the " in grid.meaning for name in ("RankMe", "Alignment", "Uniformity"))
    text = tables.markdown(grid)
    assert "| A | 43.5 ± 1.5 | 40.5 ± 0.5 | 16.0 ± 5.0 | 0.250 ± 0.000 | -2.50 ± 0.50 | 2 |" in text
    assert r"16.0 $\pm$ 5.0 & 0.250 $\pm$ 0.000 & -2.50" in tables.latex(grid, "")
    assert '<td style="text-align:right">16.0 ± 5.0</td>' in html(text, "title")


def test_measures_are_of_an_encoder_whatever_probes_it_has():
    """One probe more changes neither the mean nor the number of seeds that it is over."""
    both = pd.concat([MEASURED, MEASURED.assign(probe="svm", kind="svm", grid="svm-00000000")])
    grid = tables.grid(both, Table(caption="", columns=["probe"], measures=["rank_me"]), None)
    assert [row[-2:] for row in grid.rows] == [("16.0 ± 5.0", "2")] * 2
    assert grid.header.count("RankMe") == 1


def test_a_table_that_asks_for_none_has_no_measures():
    assert tables.grid(MEASURED, TABLE, None) == tables.grid(TWO_ROWS, TABLE, None)


def judged(row, probe, metric, *settings):
    """(test, held-out) of each setting of one probe, by one metric."""
    rows = [(row, 0, decay, test, held_out) for decay, (test, held_out) in enumerate(settings)]
    return tidy(*rows, probe=probe, metric=metric, grid=probe)


PROTOCOLS = Table(caption="A caption.", columns=["probe", "metric"])
BOTH = pd.concat(
    [
        judged("A", "cached", "top-1", (0.70, 0.3), (0.60, 0.4)),
        judged("A", "cached", "top-5", (0.80, 0.3), (0.95, 0.4)),
        judged("B", "cached", "top-1", (0.50, 0.3)),
        judged("B", "cached", "top-5", (0.70, 0.3)),
        judged("A", "augmented", "top-1", (0.71, 0.2)),
        judged("A", "augmented", "top-5", (0.90, 0.2)),
    ]
)


def test_a_table_can_have_columns_for_probes_and_metrics():
    values = {"A": {"cached, top-1": 70.2, "augmented, top-1": 69}}
    grid = tables.grid(BOTH, PROTOCOLS, Published(source="here", precision=0.05, values=values))
    selections = ("selected on test", "selected on held-out train")
    assert grid.header[:4] == ("", *(f"cached, top-1: {name}" for name in ("published", *selections)))
    assert grid.header[4:6] == tuple(f"cached, top-5: {name}" for name in selections)
    text = tables.markdown(grid, "A caption.")
    assert "| A | 70.2 | 70.0 | 60.0 | 80.0 | 95.0 | 69.0 | 71.0 | 90.0 | 1 |" in text
    assert "| B | – | 50.0 | 50.0 | 70.0 | 70.0 | – | – | – | 1 |" in text
    assert "The setting of a probe (weight decay, rate, head, C) is selected on the test split" in text
    assert "Only top-1 accuracy selects." in text
    assert "The setting of a probe" in tables.latex(grid, "A caption.")


def test_a_table_says_which_rows_are_judged_by_which_metric():
    rows = [judged("Pets", "svm", "mean per class", (0.65, 0.3)), judged("DTD", "svm", "top-1", (0.70, 0.3))]
    rows += [judged("Food", "svm", "top-1", (0.80, 0.3))]
    meaning = tables.grid(pd.concat(rows), Table(caption="", columns=["probe"]), None).meaning
    assert "By mean per class accuracy: Pets." in meaning and "By top-1 accuracy: DTD, Food." in meaning
    alone = tables.grid(rows[0], Table(caption=""), None).meaning
    assert alone.endswith("All numbers are mean per class accuracies.")
    assert "top-1" not in tables.grid(rows[1], Table(caption=""), None).meaning


def test_results_that_share_a_place_are_refused():
    twice = pd.concat([TWO_ROWS, TWO_ROWS.assign(probe="svm", grid="svm-00000000")])
    with pytest.raises(UserError, match="several results share one place in the figure or table"):
        tables.grid(twice, TABLE, None)


def test_latex_special_characters_are_escaped():
    grid = tables.Grid(("",) * 5, [("50 % & _x_", "–", "1.0 ± 0.1", "1.0", "1")])
    text = tables.latex(grid, "A 100 % table.")
    assert r"50 \% \& \_x\_ & -- & 1.0 $\pm$ 0.1 & 1.0 & 1 \\" in text
    assert r"\caption{A 100 \% table." in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert text.startswith("\\begin{table}\n  \\centering\n") and text.endswith("\\end{table}\n")


# --- any words ---

NAMES = ["a | b", "*bold*", "<b>x</b>", "[a](http://b)", "`code`", "a_b_c", "_c_", "&amp;", "1 < 2", "~~no~~", "\\"]
NAMES += ["a*", "*", "#1", "1. x", "- x", "a\\|b", "![x](y)", "<http://a.b>", "$x$"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_shows_any_name_and_caption_literally(name):
    results = tidy((name, 1, 1e-4, 0.5, None))
    text = tables.markdown(tables.grid(results, Table(caption=""), None), f"Caption {name}")
    shown = html(text, "title")
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert unescape(cells[0]) == name and len(cells) == 3
    assert unescape(re.search(r"<strong>(.*?)</strong>", shown)[1]) == f"Caption {name}"


def test_a_table_breaks_no_line_within_a_name():
    text = tables.markdown(tables.grid(tidy(("a\nb", 1, 1e-4, 0.5, None)), Table(caption=""), None), "c\n\nd")
    assert "| a b |" in text and text.startswith("**c d**")
