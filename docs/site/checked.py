"""Hook: what pages show of the code's output is what the code puts out.

A block ```console begins with the command, after a dollar sign. It runs in a folder that has the config and no results.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n\$ (?:python -m )?issl ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Raises PluginError where a command has another output than the page shows."""
    for command, shown in BLOCK.findall(markdown):
        made = output(command)
        if made.split() != shown.split():
            raise PluginError(f"{page.file.src_uri}: `issl {command}` now shows\n{made}")
    return markdown


def output(command: str) -> str:
    """Standard output of a command of issl beside a copy of the config."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.yaml", "presets", "experiments"):
            Path(folder, name).symlink_to(PROJECT / name)
        variables = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "100", "NO_COLOR": "1"}
        words = [sys.executable, "-m", "issl", *shlex.split(command, comments=True)]
        done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise PluginError(f"`issl {command}` fails: {done.stderr.strip()}")
    return done.stdout
