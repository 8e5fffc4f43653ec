"""Markdown -> one self-contained HTML page."""

from collections.abc import Sequence
from html import escape

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

# Words that judge a result, by the look of the table cell that holds nothing else.
VERDICTS = {
    "agrees": "good",
    "holds": "good",
    "differs": "bad",
    "fails": "bad",
    "undecided": "open",
    "not run": "absent",
    "not comparable": "absent",
}

# Colours: at least 4.5 to 1 against their ground, and the words say the same without them.
STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --text: #1c1e21; --faint: #5d636b; --rule: #d5d9de; --stripe: #f5f6f8; --head: #e9ecf0;
  --link: #0a5a9c; --good: #00694a; --bad: #a83a00; --open: #7a5300;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #16181b; --text: #e4e6e9; --faint: #a0a6ae; --rule: #3a3f46; --stripe: #1d2024; --head: #2a2e34;
    --link: #7fb8ea; --good: #4fcf9f; --bad: #ff9a62; --open: #e8bd5a;
  }
}
body {
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 68rem; background: var(--ground); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
p, ul, ol, blockquote { max-width: 46rem; }
h1, h2, h3 { line-height: 1.25; margin: 2em 0 0.6em; text-wrap: balance; }
h1 { margin-top: 0; font-size: 1.8rem; }
h2 { font-size: 1.35rem; padding-bottom: 0.25em; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1.1rem; }
a { color: var(--link); }
code, pre { font: 0.9em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--stripe); }
code { padding: 0.1em 0.3em; border-radius: 3px; overflow-wrap: anywhere; }
pre { padding: 0.8em 1em; border-radius: 4px; overflow-x: auto; }
pre code { padding: 0; font-size: 1em; }
blockquote { margin: 1em 0; padding: 0 1em; border-left: 3px solid var(--rule); color: var(--faint); }
hr { border: 0; border-top: 1px solid var(--rule); margin: 2em 0; }
table { border-collapse: collapse; margin: 1em 0 1.5em; font-size: 0.93rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4em 0.8em; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th { position: sticky; top: 0; background: var(--head); vertical-align: bottom; }
tbody tr:nth-child(even) { background: var(--stripe); }
td[style*="right"], td.verdict, td:first-child { white-space: nowrap; }
td.verdict { font-weight: 600; }
td.good { color: var(--good); }
td.bad { color: var(--bad); }
td.open { color: var(--open); }
td.absent { color: var(--faint); font-weight: 400; }
@media print {
  :root {
    color-scheme: light;
    --ground: #ffffff; --text: #000000; --faint: #4a4f55; --rule: #b5bac0; --stripe: #f5f6f8; --head: #e9ecf0;
    --link: #000000; --good: #00694a; --bad: #a83a00; --open: #7a5300;
  }
  body { padding: 0; max-width: none; font-size: 10pt; }
  th { position: static; }
  thead { display: table-header-group; }
  tr, pre { break-inside: avoid; }
  h1, h2, h3 { break-after: avoid; }
  th, tbody tr { print-color-adjust: exact; }
}
"""


def html(markdown: str, title: str) -> str:
    """The whole page as text; it loads nothing and runs nothing.

    CommonMark with tables. HTML inside the Markdown, and names from a config that look like it, are shown as they
    stand. `title` names the browser's tab; a heading on the page is the Markdown's own.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable("image")  # a picture would be loaded from elsewhere; its link stays
    reader.add_render_rule("td_open", _open_cell)
    reader.add_render_rule("link_open", _open_link)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{reader.render(markdown)}</body>\n</html>\n"
    )


def _open_cell(renderer: RendererHTML, tokens: Sequence[Token], index: int, options, env) -> str:
    content = tokens[index + 1].children or ()
    word = "".join(part.content for part in content)  # also within emphasis
    if word in VERDICTS:
        tokens[index].attrJoin("class", f"verdict {VERDICTS[word]}")
    return renderer.renderToken(tokens, index, options, env)


def _open_link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options, env) -> str:
    if str(tokens[index].attrGet("href")).startswith(("http:", "https:")):
        tokens[index].attrSet("target", "_blank")  # most sites refuse to open in a frame, as a report shows this page
        tokens[index].attrSet("rel", "noopener")
    return renderer.renderToken(tokens, index, options, env)
