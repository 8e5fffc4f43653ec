"""Hook: lists as on a code host. CommonMark indents what is in an item to its text; the site's Markdown, by four."""

import re

from markdown_it import MarkdownIt

INDENT = 4


def on_page_markdown(markdown: str, **_: object) -> str:
    """Indents the content of list items by four columns for each level, with empty lines where they are needed."""
    lines = markdown.split("\n")
    own: list[tuple[int, int]] = [(0, 0)] * len(lines)  # of each line: its columns of indentation, and its level
    items: dict[int, int] = {}  # the level of the item that begins on a line
    apart: set[int] = set()  # the first line of each list, and of each item of a list with space between its items
    starts: list[list[int]] = []  # of each list that is open: where its items begin
    roomy: list[bool] = []  # and whether it has space between its items, or code in one
    for token in MarkdownIt().parse(markdown):
        if token.type in ("bullet_list_open", "ordered_list_open"):
            apart.add(token.map[0])
            starts.append([])
            roomy.append(False)
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            begun = starts.pop()
            apart.update(begun if roomy.pop() else ())
        elif token.type == "list_item_open":
            start, end = token.map
            starts[-1].append(start)
            items[start] = len(starts) - 1
            content = re.match(r"\s*(?:[-*+]|\d+[.)])\s+", lines[start]).end()
            own[start + 1 : end] = [(content, len(starts))] * (end - start - 1)
        elif starts and (token.type == "fence" or (token.type == "paragraph_open" and not token.hidden)):
            roomy[-1] = True
    return "\n".join(_indented(lines, own, items, apart))


def _indented(lines: list[str], own: list[tuple[int, int]], items: dict[int, int], apart: set[int]) -> list[str]:
    made: list[str] = []
    for number, line in enumerate(lines):
        columns, level = own[number]
        if number in apart and made and made[-1].strip():
            made.append("")
        if number in items:
            made.append(" " * INDENT * items[number] + line.lstrip())
            continue
        indented = len(line) - len(line.lstrip())
        made.append(" " * INDENT * level + line[min(columns, indented) :] if line.strip() else line)
    return made
