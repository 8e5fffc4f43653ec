"""Training curves of one run, from its history.csv."""

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from issl.errors import UserError
from issl.jobs.files import whole
from issl.report.figures import CATEGORICAL, DASHES, GREY

TEST = "test_"  # prefix of columns measured on the test split
GEOMETRY = ("cosine_pos", "cosine_neg", "dist_to_etf")
NOT_TERMS = ("epoch", "lr", "loss", "online_loss", "online_acc", *GEOMETRY, "seconds", "images_per_second")

COLUMNS = 4
IN_A_ROW = 3  # names that fit into a row of a legend
FEW = 20  # epochs: with fewer, lines get markers
POINTS = {"linestyle": "", "marker": "o", "markersize": 3.5, "markerfacecolor": "white"}

STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 1.2,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.0,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0.3,
    "svg.fonttype": "none",  # text stays text: smaller, and a viewer without this wide font uses a narrower one
    "svg.hashsalt": "issl",  # otherwise the file has new random ids each time
}


@dataclass(frozen=True)
class Panel:
    """One panel: quantities that share a scale."""

    title: str
    names: tuple[str, ...]
    factor: float = 1.0
    from_zero: bool = False


def draw(history: pd.DataFrame, title: str) -> Figure:
    """Panels against the epoch, counted from 0: training as lines, the test split as points of the same colour.

    Panels without any of their columns are left out. Raises UserError if the column `epoch` or `loss`, or every row,
    is missing.
    """
    _refuse_incomplete(history)
    panels = [panel for panel in _panels(history) if panel.names]
    rows = ceil(len(panels) / COLUMNS)
    with rc_context(STYLE):
        figure = Figure(figsize=(3.0 * COLUMNS, 0.5 + 2.4 * rows), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.07, hspace=0.05, wspace=0.03)
        for number, panel in enumerate(panels, start=1):
            _fill(figure.add_subplot(rows, COLUMNS, number), panel, history)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
        if any(name.startswith(TEST) for name in history):
            _explain_points(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes an SVG atomically; the same history gives the same bytes."""
    with rc_context(STYLE), whole(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _refuse_incomplete(history: pd.DataFrame) -> None:
    missing = [f"no column '{name}'" for name in ("epoch", "loss") if name not in history]
    missing = missing or ["no rows"] * history.empty
    if missing:
        raise UserError(f"no training curves: the history has {' and '.join(missing)}")


def _panels(history: pd.DataFrame) -> tuple[Panel, ...]:
    """All panels in reading order, each with its quantities that are in the history."""
    known = tuple(dict.fromkeys(name.removeprefix(TEST) for name in history))
    terms = tuple(name for name in known if name not in NOT_TERMS)
    # Divergences approach 0 while entropies stay near their maximum: on one scale both would look constant.
    divergences = tuple(name for name in terms if name.startswith("KL_"))
    others = tuple(name for name in terms if name not in divergences)

    def given(*names: str) -> tuple[str, ...]:
        return tuple(name for name in names if name in known)

    return (
        Panel("Loss (nats)", given("loss")),
        Panel("Terms of the method (nats)", others),
        Panel("Divergences (nats)", divergences),
        Panel("Online accuracy (%)", given("online_acc"), factor=100),
        Panel("Online loss (nats)", given("online_loss")),
        Panel("Geometry", given(*GEOMETRY)),
        Panel("Learning rate", given("lr"), from_zero=True),
        Panel("Images per second", given("images_per_second"), from_zero=True),
    )


def _fill(axes: Axes, panel: Panel, history: pd.DataFrame) -> None:
    looks = [_look(number) for number in range(len(panel.names))]
    for name, look in zip(panel.names, looks):
        if name in history:
            marker = "." if len(history) < FEW else ""
            axes.plot(history["epoch"], panel.factor * history[name], marker=marker, **look)
        if TEST + name in history:
            test = history[["epoch", TEST + name]].dropna()  # only some epochs evaluate the test split
            axes.plot(test["epoch"], panel.factor * test[TEST + name], **look | POINTS)

    legend_rows = 1  # even without a legend, so that all panels of a row have the same height
    if len(looks) > 1:
        legend_rows = ceil(len(looks) / IN_A_ROW)
        handles = [Line2D([], [], **look) for look in looks]
        axes.legend(handles, panel.names, loc="lower left", bbox_to_anchor=(0, 1), ncols=IN_A_ROW)
    axes.set_title(panel.title, pad=5 + 11 * legend_rows)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    if panel.from_zero:
        axes.update_datalim([(history["epoch"].iloc[0], 0)])
        axes.autoscale_view()
        axes.set_ylim(bottom=0)


def _look(number: int) -> dict[str, object]:
    """Colour and dash of the nth quantity of a panel: all colours solid first, then dashed."""
    turn, color = divmod(number, len(CATEGORICAL))
    return {"color": CATEGORICAL[color], "linestyle": DASHES[turn % len(DASHES)]}


def _explain_points(figure: Figure) -> None:
    handles = (Line2D([], [], color=GREY), Line2D([], [], color=GREY, **POINTS))
    figure.legend(handles, ("training", "test split"), loc="upper right", ncols=2)
