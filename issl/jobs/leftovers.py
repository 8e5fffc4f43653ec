"""Results on disk that no rule makes."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path


def leftovers(root: Path, made: Collection[str], others: Collection[str]) -> list[str]:
    """Files and folders below `root` that no rule makes, sorted; a folder ends in "/" and includes all its content.

    `made` are the paths that rules make, existing or not; one that ends in "/" includes everything below it. `others`
    are the folders of other presets. Both are relative to `root`, in posix form.

    A folder is listed as a whole if no path of `made` or `others` is inside it: no running job writes there. An
    unreadable folder is listed too. Hidden files, and folders with nothing else, are ignored. Links are not followed,
    except `root` itself.
    """
    kept = {path.rstrip("/") for path in (*made, *others)}
    homes = _parents(kept)
    found: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = _visible(root / folder)
        except FileNotFoundError:  # nothing was made yet, or it was just removed
            continue
        except OSError:
            found.append(f"{folder or '.'}/")
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if path in kept or (path in homes and entry.is_symlink()):  # such as a folder kept on another disk
                continue
            if not entry.is_dir(follow_symlinks=False):
                found.append(path)
            elif path in homes:
                waiting.append(path)
            elif _holds_files(entry.path):
                found.append(f"{path}/")
    return sorted(found)


def size(root: Path, entry: str) -> int:
    """Bytes of a file, or of all files in a folder, including hidden ones; unreadable or missing files count as 0.

    A file with two hard links in the folder counts once.
    """
    path = root / entry
    files = [path]
    if entry.endswith("/"):
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sum({(about.st_dev, about.st_ino): about.st_size for about in _about(files)}.values())


def _parents(paths: Iterable[str]) -> set[str]:
    parents = {""}
    for path in paths:
        while (path := path.rpartition("/")[0]) not in parents:
            parents.add(path)
    return parents


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _holds_files(folder: str) -> bool:
    try:
        entries = _visible(folder)
    except FileNotFoundError:
        return False
    except OSError:  # unreadable: it may hold files
        return True
    return any(not entry.is_dir(follow_symlinks=False) or _holds_files(entry.path) for entry in entries)


def _about(files: Iterable[Path]) -> Iterator[os.stat_result]:
    for file in files:
        with suppress(OSError):
            yield file.lstat()
