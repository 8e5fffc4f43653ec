"""Renders Markdown as one self-contained HTML page."""

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from issl.report.templates import render, text_of

# Verdicts, and the CSS class of table cells with nothing else in them.
VERDICTS = {
    "agrees": "good",
    "holds": "good",
    "differs": "bad",
    "fails": "bad",
    "undecided": "open",
    "not run": "absent",
    "not comparable": "absent",
}


def html(markdown: str, title: str) -> str:
    """The whole page as text; it loads no files and runs no scripts.

    CommonMark with tables. HTML in the Markdown, such as in names from a config, is shown as text. `title` names the
    browser's tab; headings come from the Markdown.
    """
    return render("page.html.j2", title=title, style=text_of("page.css"), body=fragment(markdown))


def fragment(markdown: str, below: int = 0) -> str:
    """The same as a part of a page, its headings `below` levels lower."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable("image")  # would be loaded from elsewhere; the link stays
    reader.add_render_rule("td_open", _open_cell)
    reader.add_render_rule("link_open", _open_link)
    tokens = reader.parse(markdown)
    for token in tokens:
        if token.type.startswith("heading_"):
            token.tag = f"h{min(6, int(token.tag[1]) + below)}"
    return reader.renderer.render(tokens, reader.options, {})


def _open_cell(renderer: RendererHTML, tokens: Sequence[Token], index: int, options, env) -> str:
    content = tokens[index + 1].children or ()
    word = "".join(part.content for part in content)  # also within emphasis
    if word in VERDICTS:
        tokens[index].attrJoin("class", f"verdict {VERDICTS[word]}")
    return renderer.renderToken(tokens, index, options, env)


def _open_link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options, env) -> str:
    if str(tokens[index].attrGet("href")).startswith(("http:", "https:")):
        tokens[index].attrSet("target", "_blank")  # reports show this page in a frame, which most sites refuse
        tokens[index].attrSet("rel", "noopener")
    return renderer.renderToken(tokens, index, options, env)
