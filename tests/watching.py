"""What running jobs say, and how to wait until they say it."""

import time
from contextlib import suppress


def wait_for(found, seconds=400, explain=lambda: ""):
    """The first true result of a function that is called again and again; a failure shows what `explain` returns."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError(f"it never happened\n{explain()}")


def logs(root, stage, name="*"):
    """All that the jobs of a stage have logged below a results folder, earlier attempts included."""
    texts = {}
    for path in (root / "logs" / stage).glob(f"{name}.log"):
        with suppress(FileNotFoundError):  # a job that starts again removes its log
            texts[path.stat().st_ino] = path.read_text()  # the log of the present attempt has two names
    return "".join(texts.values())
