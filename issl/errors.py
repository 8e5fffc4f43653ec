"""Errors for users: one line that says what is wrong, where, and what is allowed."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

SHOWN = 20  # names that a message lists
LONG = 80  # characters of a value that it shows


class UserError(Exception):
    """A mistake that the user can fix; its message, on one line, is all that is reported."""

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """A text on one line, with an escape for each character that is no letter, such as a byte that is not UTF-8."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


@contextmanager
def exiting() -> Iterator[None]:
    """Ends the process with one line on stderr and status 1 at a mistake of the user."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")


def quoted(value: object) -> str:
    """A value as Python writes it, ``'dim'`` or ``[1, 2]``; of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def nearest(name: object, allowed: Iterable[str]) -> str:
    """The likely spelling, ``did you mean 'dim'?``, or else the allowed names, of which the first `SHOWN`."""
    names = sorted({*map(str, allowed)})
    close = get_close_matches(str(name), names, n=1, cutoff=0.6)
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(names[:SHOWN])}{more}"
