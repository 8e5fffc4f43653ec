"""A preset on one page: what is on disk and nothing else, in one file that a browser shows without a network."""

import base64
import gzip
import json
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from click import ClickException
from click.testing import CliRunner
from playwright import sync_api as playwright
from project import copy_config

from issl.cli import issl
from issl.errors import UserError
from issl.upkeep import overview

ROOT = Path("results/tiny")
HEAD = "kind,setting,weight_decay,fraction,n_labels,n_test,metric,test_acc,holdout_acc\n"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CURVE = '<svg xmlns="http://www.w3.org/2000/svg" width="800" height="400"><text x="9" y="20">{}</text></svg>'
ODD = "<b>a</b> & \"c\" 'd'"
RUNS = {"simclr-z64-e9-00000001": 0.5, "simclr-z64-e9-00000002": 0.09, "dissl-z64-e9-00000003": 0.123}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)


def put(run, accuracy, seconds=360):
    folder = ROOT / "runs" / run / "s1"
    (folder / "probes/toy-00000000").mkdir(parents=True)
    spec = {"objective": {"name": run.partition("-")[0]}, "encoder": {"dim": 64}, "optim": {"epochs": 9}}
    record = {"run": run, "seed": 1, "spec": spec, "seconds": seconds, "loss": 1.25, "test_online_acc": 0.5}
    (folder / "run.json").write_text(json.dumps(record))
    line = f"linear,weight decay 1e-6,1e-6,1.0,100,50,top-1,{accuracy},0.4\n"
    (folder / "probes/toy-00000000/linear-11111111-s1.csv").write_text(HEAD + line)


@pytest.fixture
def results():
    """Three runs, a figure, a table, a comparison and curves."""
    for run, accuracy in RUNS.items():
        put(run, accuracy)
    (ROOT / "curves").mkdir()
    for run in RUNS:
        (ROOT / f"curves/{run}-s1.svg").write_text(CURVE.format(run))
    (ROOT / "fig7c.png").write_bytes(PIXEL)
    (ROOT / "table2_mlp.md").write_text(f"| {ODD} | accuracy |\n|---|---:|\n| DISSL | 43.21 |\n")
    (ROOT / "reproduction.md").write_text("# Published and reproduced\n\n## Claims\n\n| a |\n|---|\n| holds |\n")


def made(*arguments) -> str:
    done = CliRunner().invoke(issl, ["report", *arguments], standalone_mode=False)
    if done.exception:
        raise done.exception
    return Path(done.output.partition(":")[0]).read_text()


class Cells(HTMLParser):
    """The texts of the cells of the table of runs, by row; and every heading's level."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.levels, self.inside, self.cell = [], [], False, False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.inside = ("id", "list") in attributes
        elif self.inside and tag == "tr":
            self.rows.append([])
        elif self.inside and tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True
        elif re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))

    def handle_endtag(self, tag):
        self.cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside and self.cell:
            self.rows[-1][-1] += data.strip()


def test_the_numbers_of_the_page_are_those_of_the_files(results):
    head, *rows = Cells(made("tiny", "--out", "page.html")).rows
    found = {row[head.index("run")]: row for row in rows}
    assert found.keys() == RUNS.keys()
    for run, accuracy in RUNS.items():
        assert float(found[run][head.index("test selected")]) == pytest.approx(100 * accuracy, abs=0.05)
        assert float(found[run][head.index("hours")]) == 0.1
        assert float(found[run][head.index("loss")]) == 1.25


def test_what_the_results_cost_is_summed_by_method_and_stage(results):
    (ROOT / "times.csv").write_text("stage,name,seconds\npretrain,a,1800\npretrain,b,1800\nprobe,c,900\n")
    page = re.sub(r"<[^>]+>", " ", made("tiny", "--out", "page.html"))
    for line in ("dissl 1 0.10", "simclr 2 0.20", "all 3 0.30", "pretrain 2 1.00", "probe 1 0.25"):
        assert line in " ".join(page.split())


def test_figures_and_curves_are_the_files(results):
    page = made("tiny", "--out", "page.html")
    assert base64.b64encode(PIXEL).decode() in page
    packed = dict(re.findall(r'data-curve="([^"]+)">([^<]+)<', page))
    unpacked = {name: gzip.decompress(base64.b64decode(data)).decode() for name, data in packed.items()}
    assert unpacked == {f"{run}-s1": CURVE.format(run) for run in RUNS}


def test_any_character_is_shown_as_it_is(results):
    page = made("tiny", "--out", "page.html")
    assert "<b>a</b>" not in page
    assert "&lt;b&gt;a&lt;/b&gt; &amp; " in page


def test_headings_lead_from_the_title_down_without_a_gap(results):
    levels = Cells(made("tiny", "--out", "page.html")).levels
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_what_is_missing_is_named_with_its_command(results):
    page = made("tiny", "--out", "page.html")
    (ROOT / "fig7c.png").unlink()
    without = made("tiny", "--out", "page.html")
    command = "<code>snakemake results/tiny/fig7c.png</code>"
    assert command not in page and command in without
    assert "<code>snakemake results/tiny/fig7a.png</code>" in page


def test_a_preset_without_results_is_refused():
    with pytest.raises(UserError, match=r"results/tiny: has no results yet; make them with: snakemake tiny$"):
        made("tiny", "--out", "page.html")
    with pytest.raises((UserError, ClickException), match="unknown preset 'tinny', did you mean 'tiny'"):
        made("tinny")
    assert not Path("page.html").exists()


def test_curves_beyond_the_size_of_a_mail_are_left_out_and_counted(results, monkeypatch):
    noise = random.Random(0)  # cannot be compressed by more than half
    for path in (ROOT / "curves").iterdir():
        path.write_text(CURVE.format(noise.randbytes(10_000).hex()))
    whole = len(made("tiny", "--out", "page.html").encode())
    monkeypatch.setattr(overview, "MOST_BYTES", whole - 5_000)
    page = made("tiny", "--out", "page.html")
    assert len(page.encode()) <= overview.MOST_BYTES
    assert len(re.findall("<script [^>]*data-curve", page)) == len(RUNS) - 1
    assert "training curves of 1 more run, left out" in page


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_a_browser_sorts_searches_and_zooms_without_a_network(browser, results, width, scheme):
    made("tiny", "--out", "page.html")
    problems, requests = [], []
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = launched.new_context(offline=True, viewport={"width": width, "height": 844}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and problems.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(Path("page.html").resolve().as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width

        def column(number):
            return page.locator(f"#list tbody tr:not([hidden]) td:nth-child({number})").all_inner_texts()

        # by keyboard alone; numbers sort as numbers: 9 < 12.3 < 50
        heading = page.get_by_role("button", name="test selected")
        heading.focus()
        page.keyboard.press("Enter")
        assert column(3) == ["9", "12.3", "50"]
        assert page.locator("th[aria-sort]").all_inner_texts() == ["test selected"]
        page.keyboard.press("Enter")
        assert column(3) == ["50", "12.3", "9"]
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"

        page.get_by_label("Search").fill("SimCLR 0002")
        assert column(1) == ["simclr-z64-e9-00000002"]
        assert page.locator("#count").inner_text() == "1 of 3 rows"
        page.get_by_label("Search").fill("")
        assert len(column(1)) == 3

        picture = page.locator("#picture")
        page.get_by_label("Run", exact=True).select_option("simclr-z64-e9-00000002-s1")
        page.wait_for_function("document.getElementById('picture').alt.endsWith('00000002-s1')")
        page.wait_for_function("document.getElementById('picture').naturalWidth === 800")
        before = picture.bounding_box()["width"]
        page.locator("#frame").focus()
        page.keyboard.press("+")
        assert picture.bounding_box()["width"] == pytest.approx(1.5 * before, rel=0.03)
        page.keyboard.press("0")
        page.get_by_role("button", name="Larger").click()
        assert page.locator("#zoom").inner_text() == "150 %"
        page.get_by_role("button", name="Smaller").click()
        assert picture.bounding_box()["width"] == pytest.approx(before, rel=0.03)

        assert page.evaluate("[...document.images].every(image => image.alt)")
        assert page.evaluate("[...document.querySelectorAll('input, select')].every(field => field.labels.length)")
        assert page.evaluate("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.hash))")
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 20 and min(contrasts) >= 4.5
        launched.close()
    assert problems == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}


# The contrast of each text with its ground, by WCAG 2.2's formula.
CONTRASTS = """
() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = rgb(color).map((v) => ((v /= 255), v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      const parts = rgb(color);
      if (parts.length < 4 || parts[3] > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) =>
    element.offsetParent && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  return texts.map((element) => {
    const pair = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  });
}
"""
