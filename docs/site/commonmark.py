"""Hook: lists as on a code host. CommonMark indents what is in an item to its text; the site's Markdown, by four."""

import re

from markdown_it import MarkdownIt

INDENT = 4


def on_page_markdown(markdown: str, **_: object) -> str:
    """Indents the content of list items by four columns for each level, and sets a list apart from text above it."""
    lines = markdown.split("\n")
    own: list[tuple[int, int]] = [(0, 0)] * len(lines)  # of each line: its columns of indentation, and its level
    first: dict[int, int] = {}  # of the first line of each item: the columns before its marker
    begins: set[int] = set()  # the first line of each list
    level = 0
    for token in MarkdownIt().parse(markdown):
        if token.type in ("bullet_list_open", "ordered_list_open"):
            begins.add(token.map[0])
        if token.type == "list_item_open":
            level += 1
            start, end = token.map
            before, marker = re.match(r"(\s*(?:[-*+]|\d+[.)]) )*?(\s*)(?:[-*+]|\d+[.)])\s+", lines[start]).span()
            first[start] = len(lines[start]) - len(lines[start].lstrip())
            for number in range(start + 1, end):
                own[number] = (marker - before, level)
        elif token.type == "list_item_close":
            level -= 1
    return "\n".join(_indented(lines, own, first, begins))


def _indented(lines: list[str], own: list[tuple[int, int]], first: dict[int, int], begins: set[int]) -> list[str]:
    made: list[str] = []
    for number, line in enumerate(lines):
        columns, level = own[number]
        if number in begins and made and made[-1].strip():
            made.append("")
        if number in first:
            made.append(" " * INDENT * level + line.lstrip())
            continue
        indented = len(line) - len(line.lstrip())
        made.append(" " * INDENT * level + line[min(columns, indented) :] if line.strip() else line)
    return made
