"""Training curves: every column in the panel of its unit, readable when short and when long, the same bytes again."""

from xml.etree import ElementTree

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from issl.errors import UserError
from issl.report import curves

DISSL = pd.DataFrame(
    {
        "epoch": [0, 1, 2],
        "lr": [0.0, 0.002, 0.001],
        "loss": [3.0, 2.0, 1.0],
        "log_loss": [2.5, 1.5, 0.5],
        "H_M": [6.0, 6.1, 6.2],
        "KL_invariance": [0.3, 0.2, 0.1],
        "cosine_pos": [0.1, 0.2, 0.3],
        "cosine_neg": [0.3, 0.2, 0.1],
        "dist_to_etf": [1.2, 1.0, 0.8],
        "online_loss": [4.0, 3.0, 2.0],
        "online_acc": [0.1, 0.2, 0.3],
        "seconds": [2.0, 1.0, 1.0],
        "images_per_second": [500.0, 1000.0, 1000.0],
        "test_loss": [np.nan, 2.1, 1.1],
        "test_H_M": [np.nan, 5.9, 6.0],
        "test_online_acc": [np.nan, 0.15, 0.25],
    }
)


def panels(history):
    return {axes.get_title(loc="left"): axes for axes in curves.draw(history, "a run").axes}


def values(axes):
    """Of each line or set of points, in the order drawn: epochs and heights."""
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]


def test_every_column_is_drawn_in_the_panel_of_its_unit():
    shown = panels(DISSL)
    assert list(shown) == [
        "Loss (nats)",
        "Terms of the method (nats)",
        "Divergences (nats)",
        "Online accuracy (%)",
        "Online loss (nats)",
        "Geometry",
        "Learning rate",
        "Images per second",
    ]
    names = [text.get_text() for text in shown["Terms of the method (nats)"].get_legend().get_texts()]
    assert names == ["log_loss", "H_M"]
    names = [text.get_text() for text in shown["Geometry"].get_legend().get_texts()]
    assert names == ["cosine_pos", "cosine_neg", "dist_to_etf"]
    assert values(shown["Divergences (nats)"]) == [([0, 1, 2], [0.3, 0.2, 0.1])]
    assert values(shown["Learning rate"]) == [([0, 1, 2], [0.0, 0.002, 0.001])]


def test_test_values_are_points_at_the_evaluated_epochs():
    loss = panels(DISSL)["Loss (nats)"]
    assert values(loss) == [([0, 1, 2], [3.0, 2.0, 1.0]), ([1, 2], [2.1, 1.1])]
    line, points = loss.lines
    assert line.get_linestyle() == "-" and points.get_linestyle() == "None"
    assert points.get_marker() == "o"


def test_accuracies_are_in_per_cent():
    (_, train), (_, test) = values(panels(DISSL)["Online accuracy (%)"])
    assert train == pytest.approx([10, 20, 30]) and test == pytest.approx([15, 25])


def test_a_term_shares_its_colour_with_its_test_value_only():
    log_loss, h_m, test_h_m = panels(DISSL)["Terms of the method (nats)"].lines
    colors = [matplotlib.colors.to_hex(line.get_color()) for line in (log_loss, h_m, test_h_m)]
    assert colors[1] == colors[2] != colors[0]


def test_a_ninth_term_reuses_a_colour_with_another_dash():
    history = DISSL[["epoch", "loss"]].assign(**{f"term_{n}": DISSL["loss"] + n for n in range(9)})
    lines = panels(history)["Terms of the method (nats)"].lines
    looks = [(line.get_color(), line.get_linestyle(), line.is_dashed()) for line in lines]
    assert len(set(looks)) == 9
    assert looks[0][0] == looks[8][0]


def test_panels_without_columns_are_left_out():
    shown = panels(DISSL[["epoch", "loss", "online_acc"]])
    assert list(shown) == ["Loss (nats)", "Online accuracy (%)"]


def test_a_column_of_the_test_split_only_is_drawn():
    history = DISSL[["epoch", "loss", "test_H_M"]]
    assert values(panels(history)["Terms of the method (nats)"]) == [([1, 2], [5.9, 6.0])]


def test_the_legend_explains_points_only_where_there_are_some():
    assert [text.get_text() for text in curves.draw(DISSL, "").legends[0].get_texts()] == ["training", "test split"]
    assert not curves.draw(DISSL[["epoch", "loss"]], "").legends


@pytest.mark.parametrize(("epochs", "marked"), [(1, True), (2, True), (19, True), (20, False), (1000, False)])
def test_few_epochs_have_markers_and_many_keep_every_value(epochs, marked):
    history = pd.DataFrame({"epoch": range(epochs), "loss": np.linspace(2, 1, epochs)})
    (line,) = panels(history)["Loss (nats)"].lines
    assert len(line.get_xdata()) == epochs
    assert (line.get_marker() not in ("", "None")) == marked


def test_epoch_ticks_are_integers_and_rates_start_at_zero():
    for epochs in (1, 2, 3):
        shown = panels(DISSL[:epochs])
        assert all(tick == int(tick) for axes in shown.values() for tick in axes.get_xticks())
        bottom, top = shown["Images per second"].get_ylim()
        assert bottom == 0 and top > DISSL["images_per_second"][:epochs].max()


def test_the_svg_is_complete_self_contained_and_reproducible(tmp_path):
    for name in ("a", "b"):
        curves.save(curves.draw(DISSL, "dissl <1> & $seed$"), tmp_path / f"{name}.svg")
    content = (tmp_path / "a.svg").read_bytes()
    assert content == (tmp_path / "b.svg").read_bytes()
    root = ElementTree.fromstring(content)
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "dissl <1> & $seed$" in texts
    assert not list(root.iter("{http://www.w3.org/2000/svg}image"))
    assert all(href.startswith("#") for e in root.iter() for key, href in e.items() if key.endswith("href"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "b.svg"}


@pytest.mark.parametrize(
    ("history", "missing"),
    [
        (DISSL.drop(columns="epoch"), "no column 'epoch'$"),
        (DISSL.drop(columns="loss"), "no column 'loss'$"),
        (DISSL[["lr"]], "no column 'epoch' and no column 'loss'$"),
        (DISSL[:0], "no rows$"),
    ],
)
def test_a_history_without_the_required_columns_is_refused(history, missing):
    with pytest.raises(UserError, match=f"no training curves: the history has {missing}"):
        curves.draw(history, "a run")


def test_every_column_of_a_real_history_is_drawn(synthetic, make_run, tmp_path):
    from issl.jobs.execution import Execution
    from issl.training.pretrain import pretrain

    execution = Execution(device="cpu", precision="32", progress=False)
    pretrain(make_run("dissl", optim={"epochs": 2}), 1, synthetic, tmp_path, execution)
    history = pd.read_csv(tmp_path / "history.csv")
    drawn = {tuple(heights) for axes in curves.draw(history, "").axes for _, heights in values(axes)}
    in_per_cent = ("online_acc", "test_online_acc")
    for name in history.columns.drop(["epoch", "seconds"]):
        factor = 100 if name in in_per_cent else 1
        assert tuple((factor * history[name]).dropna()) in drawn, name
