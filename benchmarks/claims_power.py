"""How often a claim holds in simulated presets whose truth is known: ``python -m benchmarks.claims_power``.

Compares the rule of `issl.report.noise` with the former one, and with other choices of its constants.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from scipy import special, stats

from issl.config.evidence import Comparison
from issl.jobs.files import write_text
from issl.report.noise import MEDIAN, UNKNOWN, Variance, moderated, prior, published_pair

RULES = Comparison()
SEEDS = (1, 2, 3, 4, 5)
PAIR = RULES.repeat / math.sqrt(2)  # standard deviation of one run, from the published pair
GAPS = (0, 0.3, 0.6, 0.9, 1.2, 1.8)


@dataclass(frozen=True)
class Setting:
    """A preset: `points` points, the first two of which a claim compares; deviations of one run in points."""

    name: str
    deviations: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    gaps: tuple[float, ...] = GAPS
    points: int = 20
    n_test: int = 10_000
    comparable: bool = True


def constant(value: float, draws: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.full(shape, value)


def lognormal(median: float, low: float, high: float, draws: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Logarithms deviate from that of the median by 0.5; values beyond the limits are set to them."""
    return np.clip(median * np.exp(0.5 * draws.standard_normal(shape)), low, high)


def noisier(value: float, draws: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The points of the claim have twice the deviation of the others."""
    return value * np.where(np.arange(shape[1]) < 2, 2.0, 1.0) * np.ones(shape)


PAPER = Setting("paper, 0.21 as between the published pair", partial(constant, PAIR))
SPREAD = Setting("paper, lognormal around 0.21", partial(lognormal, PAIR, 0, math.inf))
TWICE = Setting("paper, 0.42 everywhere", partial(constant, 2 * PAIR))
ALONE = Setting("paper, 0.42, no other points", partial(constant, 2 * PAIR), points=2)
NOISIER = Setting("paper, 0.42, other points 0.21", partial(noisier, PAIR))
SYNTHETIC = {"gaps": (0, 2, 4, 8, 16), "n_test": 500, "comparable": False}
TINY = Setting("tiny, lognormal from 1.1 to 7.4", partial(lognormal, 3.3, 1.1, 7.4), **SYNTHETIC)  # pooled 4.0
FEW = Setting("tiny, the same, two other points", TINY.deviations, points=4, **SYNTHETIC)
SETTINGS = (PAPER, SPREAD, TWICE, ALONE, NOISIER, TINY, FEW)

Rule = Callable[[np.ndarray, Setting], np.ndarray]  # accuracies (repeat, point, seed) -> p of the claim (repeat)


def present(accuracies: np.ndarray, setting: Setting, rules: Comparison = RULES) -> np.ndarray:
    """The rule in use, for every repeat at once."""
    pair = published_pair(setting.n_test, rules) if setting.comparable else UNKNOWN
    known = prior(_others(accuracies), pair, rules)
    return _p(accuracies, known, setting)


def _others(accuracies: np.ndarray) -> Variance:
    """The variance of the points that the claim is not about."""
    _, points, seeds = accuracies.shape
    if seeds == 1 or points == 2:
        return UNKNOWN
    return Variance(accuracies[:, 2:].var(-1, ddof=1).mean(1), (points - 2) * (seeds - 1))


def _p(accuracies: np.ndarray, known: Variance, setting: Setting) -> np.ndarray:
    leads, seeds = accuracies[:, 0] - accuracies[:, 1], accuracies.shape[-1]
    own = Variance(leads.var(-1, ddof=1) / 2, seeds - 1) if seeds > 1 else UNKNOWN
    if own.freedom == 0 and not setting.comparable:
        return np.full(len(leads), np.nan)
    noise = moderated(own, known, setting.n_test)
    return stats.t.sf(leads.mean(-1) / np.sqrt(2 * noise.value / seeds), noise.freedom)


def former(accuracies: np.ndarray, setting: Setting) -> np.ndarray:
    """The former rule: the published pair is a lower bound of the error, for every preset."""
    leads, seeds = accuracies[:, 0] - accuracies[:, 1], accuracies.shape[-1]
    least = RULES.repeat * math.sqrt(RULES.repeat_images / setting.n_test / seeds)
    if seeds == 1:
        return stats.norm.sf(leads[:, 0] / least)
    return stats.t.sf(leads.mean(-1) / np.maximum(leads.std(-1, ddof=1) / math.sqrt(seeds), least), seeds - 1)


def estimated(accuracies: np.ndarray, setting: Setting) -> np.ndarray:
    """Smyth's moment estimates of the prior from the logarithms of the other points' variances (his section 6.2)."""
    others = _others(accuracies)
    if others.freedom == 0 or accuracies.shape[1] < 4:
        return present(accuracies, setting)
    half = (accuracies.shape[-1] - 1) / 2
    tiny = (100 / setting.n_test) ** 2 / 12
    logs = np.log(np.maximum(accuracies[:, 2:].var(-1, ddof=1), tiny)) - special.digamma(half) + math.log(half)
    excess = logs.var(1, ddof=1) - special.polygamma(1, half)
    grid = np.logspace(-2, 3, 4000)
    half_prior = np.interp(-np.clip(excess, 1e-3, None), -special.polygamma(1, grid), grid)
    value = np.exp(logs.mean(1) + special.digamma(half_prior) - np.log(half_prior))
    freedom = np.minimum(2 * half_prior, others.freedom)
    leads, seeds = accuracies[:, 0] - accuracies[:, 1], accuracies.shape[-1]
    total = freedom + seeds - 1
    noise = (freedom * value + (seeds - 1) * leads.var(-1, ddof=1) / 2) / total
    return stats.t.sf(leads.mean(-1) / np.sqrt(2 * np.maximum(noise, tiny) / seeds), total)


def rates(setting: Setting, rules: Sequence[Rule], seeds: int, repeats: int, seed: int = 0) -> np.ndarray:
    """How often the claim holds by each rule at each gap: (rule, gap)."""
    draws = np.random.default_rng([seed, seeds])
    noise = setting.deviations(draws, (repeats, setting.points))[..., None]
    noise = noise * draws.standard_normal((repeats, setting.points, seeds))
    step = 100 / setting.n_test
    found = np.empty((len(rules), len(setting.gaps)))
    for column, gap in enumerate(setting.gaps):
        accuracies = 40 + noise
        accuracies[:, 0] += gap
        accuracies = step * np.round(accuracies / step)
        for row, rule in enumerate(rules):
            found[row, column] = (rule(accuracies, setting) < RULES.significance).mean()
    return found


OBSERVED = RULES.repeat * math.sqrt(MEDIAN)  # makes the variance of the pair the unbiased estimate
CHOICES: dict[str, Rule] = {
    "in use": present,
    "pair unbiased, 1": partial(present, rules=Comparison(repeat=OBSERVED, repeat_freedom=1)),
    "pair unbiased, 4": partial(present, rules=Comparison(repeat=OBSERVED, repeat_freedom=4)),
    "others at most 2": partial(present, rules=Comparison(prior_freedom=2)),
    "others at most 8": partial(present, rules=Comparison(prior_freedom=8)),
    "Smyth's estimate": estimated,
}
CASES = [(TWICE, 1, 0), (SPREAD, 2, 0), (NOISIER, 2, 0), (TINY, 2, 0), (PAPER, 1, 1.2), (PAPER, 2, 0.6), (TINY, 2, 8)]


def report(repeats: int) -> Iterator[str]:
    """The page, line by line."""
    yield from HEAD.format(repeats=f"{repeats:,}".replace(",", " ")).splitlines()
    for setting in SETTINGS:
        yield from ("", f"## {setting.name[0].upper()}{setting.name[1:]}", "")
        yield from _rows(["seeds", *(f"gap {gap:g}" for gap in setting.gaps)])
        for seeds in SEEDS:
            before, now = 100 * rates(setting, (former, present), seeds, repeats)
            yield from _rows([str(seeds), *(f"{x:.1f} → {y:.1f}" for x, y in zip(before, now))], head=False)
    yield from (*CONSTANTS.splitlines(), "", *_rows(["preset", "seeds", "gap", *CHOICES]))
    for setting, seeds, gap in CASES:
        values = 100 * rates(setting, [*CHOICES.values()], seeds, repeats)[:, setting.gaps.index(gap)]
        yield from _rows([setting.name, str(seeds), f"{gap:g}", *(f"{value:.1f}" for value in values)], head=False)


def _rows(cells: Sequence[str], head: bool = True) -> list[str]:
    line = f"| {' | '.join(cells)} |"
    return [line, f"|---|{'---:|' * (len(cells) - 1)}"] if head else [line]


HEAD = """\
# How often a claim holds

    python -m benchmarks.claims_power

This page is written by that command. It simulates the claim *A is better than B* in presets whose truth is known, and
gives the share of {repeats} repeats in which it holds, in per cent. The gap is the true difference between A and B in
points; a claim that holds at gap 0 is false. Each cell shows the former rule → the rule in use
([reproduction.md](reproduction.md#noise)). The former rule took a lower bound of the noise from one published pair of
runs, for every preset.

A heading gives the standard deviation of one run in points. There are 18 points besides A and B unless it says
otherwise, all with the same number of seeds. *Paper* has 10 000 test images and is comparable, so that the published
pair counts; *tiny* has 500 test images and is not. Lognormal deviations are drawn anew for each point and repeat.
"""

CONSTANTS = """
## The constants

The published pair enters with the median-unbiased estimate of its variance and 3 degrees of freedom (`repeat_freedom`);
the unbiased estimate is 2.2 times smaller. Everything that was not measured on the claim's own seeds counts for at most
4 degrees of freedom (`prior_freedom`). Each other column changes one of them; the last one replaces the 4 by Smyth's
moment estimate. Rows with gap 0 are false claims.
"""


@click.command()
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default="docs/claims_power.md")
@click.option("--repeats", type=click.IntRange(min=1), default=40_000, show_default=True)
def main(out: Path, repeats: int) -> None:
    """Writes the page."""
    write_text(out, "\n".join(report(repeats)) + "\n")


if __name__ == "__main__":
    main()
