"""Errors for users: one line that says what is wrong, where, and what is allowed."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can fix; its message, on one line, is all that is reported."""

    def __init__(self, message: str):
        one_line = " ".join(message.split())
        super().__init__(one_line.encode(errors="backslashreplace").decode())  # a file's name may not be UTF-8


@contextmanager
def exiting() -> Iterator[None]:
    """Ends the process with one line on stderr and status 1 at a mistake of the user."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")


def nearest(name: object, allowed: Iterable[str]) -> str:
    """The likely spelling, ``did you mean 'dim'?``, or else the allowed names."""
    names = sorted(map(str, allowed))
    close = get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(names)}"
