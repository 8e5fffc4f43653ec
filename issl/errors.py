"""Errors for people: one line that says what is wrong, where, and what is allowed."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can mend; its message is the whole report, on one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def nearest(name: object, allowed: Iterable[str]) -> str:
    """Says what was probably meant: ``did you mean 'dim'?``, or else the allowed names."""
    names = sorted(map(str, allowed))
    close = get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(names)}"
