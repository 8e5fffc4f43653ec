"""Pictures of a plan: who runs what when, and what a larger budget would buy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from issl.jobs.files import whole
from issl.planning.advice import Advice, readable
from issl.planning.budget import Choice, curve
from issl.planning.schedule import Part, makespan
from issl.report.figures import CATEGORICAL, DASHES, GREY, MARKERS, STYLE, literal, save
from issl.report.layout import number, place_legend

TEXT_SIZE = 10  # points, inside bars
COLUMNS = 6  # of the legend
ROOM = 0.03  # of an axis, beyond its data
BAR = 0.8  # of a GPU's lane
WIDTH, LANE = 12.0, 0.7  # inches


def draw(folder: Path, advice: Advice) -> list[Path]:
    """Writes both pictures as PNG and PDF, and the schedule as CSV; returns the paths of the PNGs and of the CSV."""
    table = folder / "schedule.csv"
    budgets = curve(*advice.offer)
    figures = {
        "schedule": gantt(advice.parts, advice.gpus, advice.names(), *advice.shown),
        "budget": budget_curve(budgets, advice.choice.hours, *readable(advice.unit, budgets[-1][0])),
    }
    for name, figure in figures.items():
        save(figure, folder / f"{name}.pdf", folder / f"{name}.png")
    with whole(table) as temporary:
        advice.timetable().to_csv(temporary, index=False)
    return [*(folder / f"{name}.png" for name in figures), table]


def gantt(
    parts: Sequence[Part], gpus: int, names: Mapping[str, tuple[str, str]], unit: str, factor: float = 1.0
) -> Figure:
    """A lane for each GPU, with a bar for each part of a run, whose times are multiplied with `factor` to get `unit`.

    `names`: a run's method, which has a colour, and a text, which is left out where its bar is too short.
    """
    methods = dict.fromkeys(method for method, _ in names.values())
    colors = {method: CATEGORICAL[nth % len(CATEGORICAL)] for nth, method in enumerate(methods)}
    parts = [part._replace(start=factor * part.start, end=factor * part.end) for part in parts]
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, LANE * gpus))
        axes = figure.add_axes((0, 0, 1, 1))
        for part in parts:
            bar = {"color": colors[names[part.job][0]], "edgecolor": "white", "linewidth": 1.5}
            axes.barh(part.gpu, part.end - part.start, BAR, part.start, **bar)
        axes.set(xlabel=f"{unit} from the start", xlim=(0, makespan(parts) or 1), ylim=(gpus - 0.5, -0.5))
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.set_yticks(range(gpus), [f"GPU {gpu + 1}" for gpu in range(gpus)])
        axes.tick_params(axis="y", length=0)
        for part in parts:
            _write(axes, part, names[part.job][1])
        if colors:
            handles = [Patch(color=color) for color in colors.values()]
            labels = [literal(method) for method in colors]
            axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=COLUMNS, frameon=False)
    return figure


def _write(axes: Axes, part: Part, text: str) -> None:
    """The run and its part in the middle of its bar, if they have room."""
    if part.parts > 1:
        text = f"{text}\n{part.number} of {part.parts}"
    middle = (part.start + part.end) / 2, part.gpu
    written = axes.text(*middle, text, fontsize=TEXT_SIZE, color="white", ha="center", va="center")
    box = written.get_window_extent()
    left, right = (axes.transData.transform((end, part.gpu))[0] for end in (part.start, part.end))
    if box.width > 0.95 * (right - left):
        written.remove()


def budget_curve(points: Sequence[tuple[float, Choice]], chosen: float, unit: str, factor: float = 1.0) -> Figure:
    """Published numbers to compare and claims expected to hold against the budget; a grey line is the chosen one.

    Budgets are multiplied with `factor` to get `unit`.
    """
    budgets = [factor * budget for budget, _ in points]
    numbers = [len(choice.numbers) for _, choice in points]
    claims = [sum(trial.power for trial in choice.trials) for _, choice in points]
    lines = {"published numbers to compare": numbers} if any(numbers) else {}
    lines["claims expected to hold"] = claims
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 5))
        axes = figure.add_axes((0, 0, 1, 1))
        looks = zip(CATEGORICAL, DASHES, MARKERS)
        for (label, values), (color, dash, marker) in zip(lines.items(), looks):
            look = {"color": color, "linestyle": dash, "marker": marker, "markeredgecolor": "white"}
            axes.plot(budgets, values, label=label, linewidth=3, markersize=9, **look)
        axes.axvline(factor * chosen, color=GREY, linewidth=1.5, zorder=0.5, label="this plan")
        right, top = (1 + ROOM) * max(budgets) or 1, (1 + ROOM) * max(*numbers, *claims) or 1
        axes.set(xlabel=f"budget ({unit})", ylabel="how many", xlim=(-ROOM * right, right), ylim=(-ROOM * top, top))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        place_legend(axes, *axes.get_legend_handles_labels(), "", inside=True)
    return figure
