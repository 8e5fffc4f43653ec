"""Hook: pages from elsewhere in the repository, and links that work on a code host and on the site alike.

In the Markdown files, links are relative paths of the repository. Those to another page lead to it on the site. Any
other file that a page links to is copied to the site.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parents[2]
HOME = "README.md"
ELSEWHERE = (HOME, "CONTRIBUTING.md", "CHANGELOG.md", "notebooks/README.md", "tests/golden/README.md")
CODE = re.compile(
    r"^(?P<fence>```+)[^`\n]*\n.*?^(?P=fence)[ ]*$|(?P<ticks>`+)[^`].*?(?<!`)(?P=ticks)(?!`)", re.M | re.S
)
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from elsewhere, and whatever else a page links to."""
    for path in ELSEWHERE:
        files.append(File.generated(config, _place(path), content=(PROJECT / path).read_text()))
    for file in [*files.documentation_pages()]:
        for target in _targets(file):
            _add(target, files, config)
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Rewrites the links of a page for its place on the site."""
    source = _origin(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri)

    def here(link: re.Match[str]) -> str:
        place = _place(_target(link[1], source))
        known = files.get_file_from_path(place) is not None
        return (posixpath.relpath(place, folder or ".") if known else link[1]) + (link[2] or "")

    return "".join(text if code else LINK.sub(here, text) for text, code in _parts(markdown))


def _place(path: str) -> str:
    """The place on the site, below docs/, of a file of the repository."""
    if path == HOME:
        return "index.md"
    return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))


def _origin(place: str) -> str:
    """The file of the repository that a page is made of: the inverse of `_place`."""
    if place == "index.md":
        return HOME
    outside = place in ELSEWHERE or place.startswith("notebooks/")
    return place if outside else f"docs/{place}"


def _target(path: str, source: str) -> str:
    """The file that a link of a source leads to: the README of a folder."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    readme = posixpath.join(target, "README.md")
    return readme if (PROJECT / readme).exists() else target


def _targets(file: File) -> list[str]:
    """The files that a page links to."""
    source = _origin(file.src_uri)
    return [
        _target(link[1], source)
        for text, code in _parts(file.content_string)
        if not code
        for link in LINK.finditer(text)
    ]


def _add(target: str, files: Files, config: MkDocsConfig) -> None:
    file = PROJECT / target
    if file.is_file() and files.get_file_from_path(_place(target)) is None:
        content = _notebook(file) if file.suffix == ".ipynb" else file.read_bytes()
        files.append(File.generated(config, _place(target), content=content))


def _parts(markdown: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, each with whether it is code."""
    position = 0
    for code in CODE.finditer(markdown):
        yield markdown[position : code.start()], False
        yield code[0], True
        position = code.end()
    yield markdown[position:], False


def _notebook(path: Path) -> str:
    """A notebook as Markdown: its text and its code. Notebooks are stored without outputs."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells)
