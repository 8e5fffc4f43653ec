"""The code of docs/extending.md, which tests carry out."""

import re

from project import PROJECT

PAGE = (PROJECT / "docs/extending.md").read_text()


def blocks(section, language="python"):
    """Code blocks of a section of the page."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    assert text, section
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
