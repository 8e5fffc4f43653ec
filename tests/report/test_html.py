"""Pages: one file that loads nothing, whatever the Markdown holds, with tables that people can read."""

import re
from html.parser import HTMLParser
from typing import get_args

import pytest

from issl.report import claims, html, published
from issl.report.templates import text_of

STYLE = text_of("page.css")
VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """What a browser sees: tags in order, cells with their attributes and text; complains of tags left open."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.links, self.open = [], [], [], []
        self.texts = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append([dict(attrs), ""])
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][1] += data


def cell(content):
    """Attributes of a table cell with this Markdown in it."""
    page = Page(html.html(f"| verdict |\n|---|\n| {content} |\n", "t"))
    return page.cells[-1][0]


def test_a_page_is_a_whole_document_with_its_title():
    text = html.html("# Results\n\nSome *words*.\n", "Figure 7c & <more>")
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert "<title>Figure 7c &amp; &lt;more&gt;</title>" in text
    assert f"<style>\n{STYLE}\n</style>" in text
    assert "<h1>Results</h1>\n<p>Some <em>words</em>.</p>" in text
    assert "".join(Page(text).texts).split() == ["Results", "Some", "words."]


def test_a_page_loads_nothing_and_runs_nothing():
    source = 'A [paper](https://arxiv.org/abs/2209.06235) and ![a picture](https://elsewhere.org/x.png "t").\n'
    text = html.html(source, "t")
    page = Page(text)
    assert page.links == ["https://arxiv.org/abs/2209.06235", "https://elsewhere.org/x.png"]
    assert text.count("http") == len(page.links)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not any(key == "src" or key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert "@import" not in text and "url(" not in text
    assert "http" not in html.html("No link.", "t")


@pytest.mark.parametrize(
    "source",
    [
        "<script>alert(1)</script>",
        "| <script>alert(1)</script> |\n|---|\n| <script>alert(1)</script> |",
        "# <img src=x onerror=alert(1)>",
        "Text </style></body><script>alert(1)</script>",
        "[click](javascript:alert(1))",
        "<javascript:alert(1)>",
        "[click](data:text/html,<script>alert(1)</script>)",
        '`"><script>alert(1)</script>`',
    ],
)
def test_markup_in_names_is_shown_literally(source):
    page = Page(html.html(source, "</title><script>alert(1)</script>"))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(link.startswith(("javascript", "data")) for link in page.links)
    assert "alert(1)" in "".join(page.texts)


def test_numbers_are_right_aligned():
    page = Page(html.html("| row | accuracy |\n|---|---:|\n| A | 43.5 ± 1.5 |\n", "t"))
    assert [(text, attrs.get("style")) for attrs, text in page.cells] == [
        ("row", None),
        ("accuracy", "text-align:right"),
        ("A", None),
        ("43.5 ± 1.5", "text-align:right"),
    ]


@pytest.mark.parametrize("word", html.VERDICTS)
def test_a_cell_with_only_a_verdict_is_styled(word):
    look = html.VERDICTS[word]
    assert cell(word) == cell(f"**{word}**") == {"class": f"verdict {look}"}
    assert f"td.{look} {{" in STYLE


@pytest.mark.parametrize("content", ["agrees with it", "Agrees", "holds, fails", "not", "12.0", ""])
def test_a_verdict_within_other_words_is_not_styled(content):
    assert cell(content) == {}


def test_external_links_leave_the_frame_and_anchors_do_not():
    page = Page(html.html("[out](https://arxiv.org) and [down](#below)", "t"))
    out, down = (attrs for tag, attrs in page.tags if tag == "a")
    assert out == {"href": "https://arxiv.org", "target": "_blank", "rel": "noopener"}
    assert down == {"href": "#below"}


def test_a_verdict_outside_a_table_is_not_styled():
    assert "class=" not in html.html("agrees\n\n- holds\n", "t")


@pytest.mark.parametrize("verdict", [claims.Verdict, published.Verdict])
def test_every_verdict_has_a_style(verdict):
    assert set(get_args(verdict)) <= set(html.VERDICTS)


def test_a_name_may_contain_a_cell_separator():
    page = Page(html.html("| row | accuracy |\n|---|---:|\n| A\\|B | 45.2 |\n", "t"))
    assert [content for _, content in page.cells][-2:] == ["A|B", "45.2"]


def _luminance(color):
    """Relative luminance of #rrggbb as WCAG 2 defines it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_colours_have_contrast_in_light_dark_and_print():
    palettes = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in STYLE.split(":root {")[1:]]
    assert len(palettes) == 3
    for colors in palettes:
        for ground in ("ground", "stripe"):
            for name in ("text", "faint", "link", "good", "bad", "open"):
                light, dark = sorted((_luminance(colors[name]), _luminance(colors[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)
