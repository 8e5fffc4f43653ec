"""Data sets: from archives or folders to memory-mapped arrays.

No other package reads archives. A data set is one module in issl/data/datasets, one entry in its `READERS`, and one
class in issl/spec/data.py. ImageNet is too large for arrays: its files are only listed.
"""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from issl.data import faults
from issl.data.arrays import IMAGES, LABELS, META, Arrays, Content, Listing, read, write, write_list
from issl.data.datasets import READERS
from issl.jobs.locks import build_once
from issl.jobs.records import refuse_other
from issl.spec import plugins
from issl.spec.data import DataSpec, ImageFolder, ImageNet

log = logging.getLogger(__name__)

__all__ = ["Arrays", "Content", "prepare", "read"]


def prepare(spec: DataSpec, folder: str | Path, threads: int = 1, progress: bool = True) -> Arrays:
    """Prepares a data set in `folder` with up to `threads` worker processes, and opens it.

    Waits while another process prepares the same folder, and then uses its result. Raises UserError for a source that
    is missing, damaged or does not match the spec, or a folder that holds another data set; it is then unchanged.
    """
    started = time.monotonic()
    outputs = [Path(folder, name) for name in (IMAGES, LABELS, META)]
    build_once(outputs, lambda: _make(spec, folder, threads, progress))
    arrays = read(folder)
    log.info("%d images of %d classes in %.1f s", len(arrays.labels), arrays.n_classes, time.monotonic() - started)
    return arrays


def _make(spec: DataSpec, folder: str | Path, threads: int, progress: bool) -> None:
    refuse_other(Path(folder, META), "a data set", {"spec": json.loads(spec.canonical())})
    reader = READERS.get(spec.kind) or plugins.implementation(spec)
    content = reader(spec, progress)
    faults.refuse(_degenerate(content, spec))
    if isinstance(content, Listing):
        from issl.data.datasets import imagenet

        checked = imagenet.sound(content, spec, threads, progress) if isinstance(spec, ImageNet) else content
        write_list(folder, checked, spec, [reader])
    else:
        write(folder, content, spec, threads, progress, [reader])


def _degenerate(content: Content | Listing, spec: DataSpec) -> Iterator[str]:
    """Why nothing can be learned from a data set, or scored on it."""
    where = faults.place(spec)
    if len(content.classes) < 2:
        found = f"only one class, '{content.classes[0]}'" if content.classes else "no class"
        layout = ": is this the layout <split>/<class>/<file>?" if isinstance(spec, ImageFolder | ImageNet) else ""
        yield f"{where}: holds {found}, but at least two are needed{layout}"
    yield from (f"{where}: holds no {split} images" for split, count in content.splits.items() if not count)
