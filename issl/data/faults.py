"""Reports all faults of a data set in one message, so that one run finds them all."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from issl.errors import SHOWN, UserError, printable
from issl.spec.data import DataSpec


def refuse(faults: Iterable[str]) -> None:
    """Raises UserError with the first `SHOWN` of these messages and the number of the others, if there are any."""
    messages = list(dict.fromkeys(faults))  # one for a whole archive may come from each of its images
    if len(messages) == 1:
        raise UserError(messages[0])
    if messages:
        raise UserError(f"{len(messages)} faults: {first(messages, '; ')}")


def first(names: Sequence[str], separator: str = ", ") -> str:
    """The first `SHOWN` names on one printable line, and the number of the others."""
    more = f"{separator}and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return separator.join(map(printable, names[:SHOWN])) + more


def one_sided(where: str, train: np.ndarray, test: np.ndarray, classes: Sequence[str]) -> Iterator[str]:
    """A message for each class that only one of the two splits has, by the labels of each."""
    for labels, others, split in ((train, test, "training"), (test, train, "test")):
        for label in np.setdiff1d(others, labels).tolist():
            yield f"{where}: class '{classes[label]}' has no {split} images: correct `split`"


def place(spec: DataSpec) -> str:
    """Where the files of a data set are, or else its name, for a message."""
    return getattr(spec, "path", None) or getattr(spec, "archive", spec.name)
