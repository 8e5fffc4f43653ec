"""The documentation as a site: a strict build, what it refuses, and a browser that shows it."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import markdown
import pytest
import yaml
from filelock import FileLock
from markdown_it import MarkdownIt
from mkdocs.exceptions import PluginError
from playwright import sync_api as playwright
from project import PROJECT

from issl.spec.optim import Optim
from issl.spec.released import MODELS

# What the site is made from.
SOURCES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "mkdocs.yml", "config.yaml")
FOLDERS = ("docs", "notebooks", "tests/golden", "issl", "rules", "presets", "experiments")
PAGES = [*(PROJECT / "docs").rglob("*.md"), *(PROJECT / name for name in SOURCES if name.endswith(".md"))]


def hook(name: str):
    spec = spec_from_file_location(f"site_{name}", PROJECT / f"docs/site/{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(project: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", out]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


@pytest.fixture(scope="session")
def site(shared_folder):
    """The folder of the built site."""
    out = shared_folder / "site"
    with FileLock(f"{out}.lock"):
        if not out.exists():
            done = build(PROJECT, out)
            assert done.returncode == 0, done.stderr
    return out


class Outline(HTMLParser):
    """Of a page: each block that matters with the lists around it, and each word with the block it is in."""

    BLOCKS = ("ul", "ol", "li", "pre", "table")

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.words: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag in self.BLOCKS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.BLOCKS:
            self.open.pop()

    def handle_data(self, data):
        self.words += [(word, "/".join(self.open)) for word in data.split()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_a_page_has_the_structure_that_a_code_host_shows(page):
    """Every word is in the same lists, code and tables as CommonMark says."""
    text = page.read_text()
    extensions = ["tables", "pymdownx.superfences", "pymdownx.highlight"]
    options = {"pymdownx.highlight": {"use_pygments": False}}
    made = markdown.markdown(
        hook("commonmark").on_page_markdown(text), extensions=extensions, extension_configs=options
    )
    host = MarkdownIt().enable("table").render(text)
    assert Outline(made).words == Outline(host).words


def test_a_link_leads_to_the_page_of_its_file():
    pages = hook("pages")
    known = {"install.md", "index.md", "notebooks/fit.md", "replication/README.md", "tests/golden/README.md"}
    files = SimpleNamespace(get_file_from_path=lambda path: path if path in known else None)

    def on(place, text):
        return pages.on_page_markdown(text, page=SimpleNamespace(file=SimpleNamespace(src_uri=place)), files=files)

    assert on("index.md", "[a](docs/install.md#conda)") == "[a](install.md#conda)"
    assert on("hub.md", "[a](../notebooks/fit.ipynb)") == "[a](notebooks/fit.md)"
    assert on("notebooks/README.md", "[a](fit.ipynb) [b](../README.md)") == "[a](fit.md) [b](../index.md)"
    assert (
        on("hub.md", "[a](replication/) ![b](replication/)") == "[a](replication/README.md) ![b](replication/README.md)"
    )
    assert on("hub.md", "[a](https://b.c/install.md) [d](#e)") == "[a](https://b.c/install.md) [d](#e)"
    assert (
        on("hub.md", "`[a](../README.md)`\n```\n[a](../README.md)\n```")
        == "`[a](../README.md)`\n```\n[a](../README.md)\n```"
    )


def test_every_setting_of_a_section_is_listed_with_its_default():
    page = hook("made").settings()
    optim = page[page.index("### Optim\n") :].partition("\n###")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| `?(.*?)`? \| [^|]*\|$", optim, re.MULTILINE))
    assert rows.keys() == Optim.model_fields.keys()
    assert Optim.model_validate({name: yaml.safe_load(default) for name, default in rows.items()}) == Optim()
    for name in (
        "temperature",
        "sinkhorn_iterations",
        "published",
        "minutes_per_epoch",
        "checkpoint_minutes",
        "n_jobs",
    ):
        assert (f"| `{name}` |" in page) == (name != "n_jobs")


def test_every_rule_is_listed_with_its_outputs():
    rows = hook("made").rules().splitlines()[2:]
    names = {path.stem for path in (PROJECT / "rules").glob("*.smk")} - {"common"}
    assert {re.search(r"`(\w+)`", row)[1] for row in rows} == names
    [pretrain] = [row for row in rows if row.startswith("| `pretrain`")]
    for file in ("encoder.safetensors", "history.csv", "run.json"):
        assert f"`{{root}}/runs/{{run}}/s{{seed}}/{file}`" in pretrain
    assert "{root}/logs" not in "".join(rows)


def test_a_copy_that_differs_from_the_code_is_refused():
    made = hook("made")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="hub.md"))
    text = (PROJECT / "docs/hub.md").read_text()
    assert made.on_page_markdown(text, page=page) == text
    some = next(iter(MODELS))
    with pytest.raises(PluginError, match="copy of models"):
        made.on_page_markdown(text.replace(f"| `{some}` | 2048 | 100", f"| `{some}` | 2048 | 200"), page=page)


def test_a_public_name_without_docstring_is_refused(tmp_path, monkeypatch):
    made = hook("made")
    monkeypatch.setattr(made, "PROJECT", tmp_path)
    code = (
        '"""A."""\n\nclass Known:\n    """B."""\n\n    def told(self):\n        """C."""\n\n    def _own(self): ...\n'
    )
    (tmp_path / "described.py").write_text(code)
    (tmp_path / "silent.py").write_text(code.replace('"""C."""', "..."))
    assert made.api("described") == "::: described"
    with pytest.raises(PluginError, match=r"no docstring: silent\.Known\.told$"):
        made.api("silent")


def test_a_command_with_another_output_than_the_page_shows_is_refused():
    checked = hook("checked")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"))
    shown = "```console\n$ issl --version\n{}\n```\n"
    version = checked.output("--version").strip()
    assert checked.on_page_markdown(shown.format(version), page=page)
    with pytest.raises(PluginError, match=rf"a\.md: .*now shows\n{re.escape(version)}"):
        checked.on_page_markdown(shown.format("issl 7"), page=page)
    with pytest.raises(PluginError, match="plan nowhere` fails: error: unknown result"):
        checked.on_page_markdown("```console\n$ issl plan nowhere\n```\n", page=page)


def test_a_flowchart_keeps_every_arrow():
    flow = hook("flow")
    chart = (PROJECT / "docs/architecture.md").read_text()
    names, edges = flow.parsed(flow.BLOCK.search(chart)[1])
    assert len(edges) == flow.BLOCK.search(chart)[1].count("-->")
    assert ("archive", "arrays", "prepare") in edges and ("csv", "reproduction", "compare") in edges
    assert names["csv"] == "tidy results"
    place = flow.placed(names, edges)
    assert len(set(place.values())) == len(names), "two nodes in one place"
    assert all(place[start][0] < place[end][0] for start, end, _ in edges), "an arrow leads up"
    with pytest.raises(ValueError, match="cannot read"):
        flow.parsed("a{choice} --> b")


@pytest.mark.slow
def test_a_mistake_in_a_page_stops_the_build(tmp_path):
    for folder in FOLDERS:
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        shutil.copy(PROJECT / name, tmp_path)
    broken = "\n[a](nowhere.md) [b](install.md#nowhere) ![c](nowhere.png)\n"
    with (tmp_path / "docs/tracking.md").open("a") as file:
        file.write(broken)
    (tmp_path / "docs/alone.md").write_text("# Alone\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    for name in ("'nowhere.md'", "'install.md#nowhere'", "'nowhere.png'"):
        assert any("tracking.md" in line and name in line for line in warnings), done.stderr
    assert "alone.md" in done.stderr
    assert "Aborted with 4 warnings in strict mode" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_site_takes_nothing_from_the_network(site):
    for page in site.rglob("*.html"):
        assert not re.findall(
            r"""(?:src|srcset|data)=["']https?://|<link[^>]*href=["']https?://""", page.read_text()
        ), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?://", style.read_text()), style


@pytest.mark.slow
def test_the_reference_has_every_public_name(site):
    ids = set(re.findall(r'id="(issl\.[\w.]+)"', (site / "api.html").read_text()))
    assert {"issl.fitting.fit", "issl.fitting.Fitted.transform", "issl.hub.load", "issl.objectives.build"} <= ids
    assert {"issl.objectives.Objective.forward", "issl.objectives.base.Clock", "issl.errors.UserError"} <= ids


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_a_browser_shows_the_site_from_its_folder(browser, site, width, scheme):
    problems, requests = [], []
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = launched.new_context(
            offline=True, viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and problems.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        for name in ("index.html", "settings.html", "api.html", "architecture.html"):
            page.goto((site / name).as_uri())
            page.wait_for_selector("h1")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert page.evaluate("document.body.dataset.mdColorScheme") == {"light": "default", "dark": "slate"}[scheme]
            assert page.evaluate("[...document.images].every(image => image.alt)"), name
        assert page.locator("svg.flow").is_visible()
        page.goto((site / "settings.html").as_uri())
        assert page.locator("td", has_text="sinkhorn_iterations").count() == 1
        field, found = page.locator(".md-search__input"), page.locator(".md-search-result__item a")
        (page.locator("label[for=__search].md-header__button") if width == 390 else field).click()
        page.get_by_text("Type to start searching").wait_for()  # the index is read when the search opens
        field.press_sequentially("sinkhorn_iterations", delay=20)
        found.first.wait_for()
        assert "settings.html" in found.first.get_attribute("href")
        launched.close()
    assert problems == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}


def test_a_notebook_becomes_a_page_with_its_text_and_code():
    text = hook("pages")._notebook(PROJECT / "notebooks/fit.ipynb")
    cells = json.loads((PROJECT / "notebooks/fit.ipynb").read_text())["cells"]
    assert text.count("```python\n") == sum(cell["cell_type"] == "code" for cell in cells)
    assert text.startswith("# ")
