"""Pictures of a plan: who runs what when, and what a larger budget would buy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from issl.planning.budget import Choice
from issl.planning.schedule import Part, makespan
from issl.report.figures import CATEGORICAL, DASHES, GREY, MARKERS, STYLE, literal, save
from issl.report.layout import number, place_legend

TEXT_SIZE = 10  # points, inside bars
BAR = 0.8  # of a GPU's lane
WIDTH, LANE = 12.0, 0.7  # inches


def draw(folder: Path, schedule: Figure, budget: Figure) -> list[Path]:
    """Writes both pictures as PNG and PDF, and returns the paths of the PNGs."""
    for name, figure in (("schedule", schedule), ("budget", budget)):
        save(figure, folder / f"{name}.pdf", folder / f"{name}.png")
    return [folder / "schedule.png", folder / "budget.png"]


def gantt(parts: Sequence[Part], gpus: int, names: Mapping[str, tuple[str, str]], unit: str) -> Figure:
    """A lane for each GPU, with a bar for each part of a run. `names`: its method, which has a colour, and a text."""
    methods = dict.fromkeys(method for method, _ in names.values())
    colors = {method: CATEGORICAL[nth % len(CATEGORICAL)] for nth, method in enumerate(methods)}
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, LANE * gpus))
        axes = figure.add_axes((0, 0, 1, 1))
        for part in parts:
            bar = {"color": colors[names[part.job][0]], "edgecolor": "white", "linewidth": 1.5}
            axes.barh(part.gpu, part.end - part.start, BAR, part.start, **bar)
        axes.set(xlabel=f"{unit} from the start", xlim=(0, makespan(parts) or 1), ylim=(gpus - 0.5, -0.5))
        axes.set_yticks(range(gpus), [f"GPU {gpu + 1}" for gpu in range(gpus)])
        axes.tick_params(axis="y", length=0)
        for part in parts:
            _write(axes, part, names[part.job][1])
        handles = [Patch(color=color) for color in colors.values()]
        place_legend(axes, handles, [literal(method) for method in colors], "", inside=False)
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


def budget_curve(points: Sequence[tuple[float, Choice]], chosen: float, unit: str) -> Figure:
    """Published numbers to compare and claims expected to hold against the budget; a grey line is the chosen one."""
    budgets = [budget for budget, _ in points]
    numbers = [len(choice.numbers) for _, choice in points]
    claims = [sum(trial.power for trial in choice.trials) for _, choice in points]
    lines = {"numbers to compare": numbers} if any(numbers) else {}
    lines["claims expected to hold"] = claims
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 5))
        axes = figure.add_axes((0, 0, 1, 1))
        looks = zip(CATEGORICAL, DASHES, MARKERS)
        for (label, values), (color, dash, marker) in zip(lines.items(), looks):
            look = {"color": color, "linestyle": dash, "marker": marker, "markeredgecolor": "white"}
            axes.plot(budgets, values, label=label, linewidth=3, markersize=9, clip_on=False, **look)
        axes.axvline(chosen, color=GREY, linewidth=1.5, zorder=0.5, label="this plan")
        axes.set(xlabel=f"budget ({unit})", ylabel="number", xlim=(0, None), ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        place_legend(axes, *axes.get_legend_handles_labels(), "", inside=True)
    return figure
