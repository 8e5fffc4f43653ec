"""Targets and rules of the command line: a misspelt one is refused in one line, before Snakemake looks for it."""

import os
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

from issl.config.plan import Plan
from issl.errors import UserError, nearest

OF_RULES_OR_FILES = ("until", "omit_from", "forcerun")  # options of Snakemake
OF_RULES = ("allowed_rules",)
FOR_RULES = ("set_threads", "set_resources")  # a person's own profile may have these for rules of other workflows


def refuse_unknown(targets: Iterable[str], plans: Mapping[str, Plan], rules: Iterable[Any]) -> None:
    """Raises UserError for a target that is neither one of Snakemake's rules nor anything that a plan makes."""
    results = {file for plan in plans.values() for name in plan.rows for file in plan.files(name)}
    results |= {target for plan in plans.values() for target in (*plan.targets(), *plan.reproduction, *plan.times)} | {
        rule.name for rule in rules
    }
    made: set[str] = set()
    for target in map(os.path.normpath, targets):
        if PurePath(target).is_absolute():
            raise UserError(f"{target}: give the path of a result from here: '{os.path.relpath(target)}'")
        if target in results:
            continue
        made = made or {f"{plan.root}/{path}".rstrip("/") for plan in plans.values() for path in plan.made()}
        if target not in made:
            raise UserError(f"unknown result '{target}', {_advice(target, results)}")


def refuse_unknown_rules(options: Any, rules: Iterable[Any]) -> None:
    """Raises UserError if an option of Snakemake names a rule that does not exist: some are ignored in silence.

    Threads and resources for unknown rules are only warned of. `options` are the parsed ones.
    """
    names = {rule.name for rule in rules}
    for option in (*OF_RULES_OR_FILES, *OF_RULES):
        for name in getattr(options, option, None) or ():
            is_file = option in OF_RULES_OR_FILES and ("/" in name or PurePath(name).suffix)
            if name not in names and not is_file:
                raise UserError(f"{_spelt(option)} {name}: unknown rule, {nearest(name, names)}")
    for option in FOR_RULES:
        for name in {*(getattr(options, option, None) or ())} - names:
            print(f"{_spelt(option)} {name}: unknown rule, {nearest(name, names)}", file=sys.stderr)


def _spelt(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _advice(target: str, results: Iterable[str]) -> str:
    """The nearest figure, table or rule: by its path, or else by the name of its file."""
    shown = sorted(result for result in results if PurePath(result).suffix in ("", ".pdf", ".md"))
    found = [path for path in (f"results/{target}",) if path in shown]
    found = found or get_close_matches(target, shown, n=1, cutoff=0.8)
    names = {PurePath(result).stem: result for result in reversed(shown)}
    found = found or [names[name] for name in get_close_matches(PurePath(target).stem, names, n=1, cutoff=0.6)]
    return f"did you mean '{found[0]}'?" if found else "README.md lists the results, and `snakemake --list` the rules"
