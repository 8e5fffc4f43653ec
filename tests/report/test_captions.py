"""Captions in Snakemake's report, which reads them as reStructuredText: each is shown as it is."""

import re
from html import unescape
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment
from project import PROJECT

CAPTION = (PROJECT / "workflow/report/result.rst").read_text()
# What Snakemake adds to each caption (snakemake/report/__init__.py, rst_links).
LINKS = "\n\n.. _Workflow: file:workflow\n.. _Figures: file:figures\n"


def shown(caption):
    """The text that the report has for a caption, as Snakemake makes it."""
    snakemake = SimpleNamespace(params=SimpleNamespace(caption=caption))
    text = Environment().from_string(CAPTION + LINKS).render(snakemake=snakemake)
    body = publish_parts(text, writer="html")["body"]
    assert "system-message" not in body and "ERROR" not in body, body
    return unescape(re.sub(r"<[^>]*>", "", body)).strip()


@pytest.mark.parametrize(
    "caption",
    [
        *("A larger dimension helps, and an MLP probe needs less of it.", "a_b* `c` |d| \\e", "- a", "1. a", "* a"),
        *(".. figure:: x", "Workflow_", "`Figures`_", "__ a", "[1]_", "<http://a.b>", "http://a.b/c_d", "a@b.c", "a::"),
        *("====", "a\n====", "a\n\n  b", "| a", "+--+", "-a  file", "$x$", "{{ snakemake }}", "{% for %}", "a & b < c"),
        *("50 % ± 1", "漢字 🙂", "...", "'a' \"b\" -- c --- d", "(a)", "A. b", "#. a", ">>> a", "--a b", ":a: b"),
        *("a---", ":math:`x`", "a\\"),
    ],
)
def test_a_caption_is_shown_as_it_is(caption):
    assert shown(caption) == " ".join(caption.split())


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"]), max_size=20))
def test_any_caption_is_shown_as_it_is(caption):
    assert shown(caption).split() == caption.split()
