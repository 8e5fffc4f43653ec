"""Hook: flowcharts as SVG. The usual library for Mermaid would come from the network.

Knows what these pages use of Mermaid: `flowchart LR`, nodes as `id`, `id[text]` or `id([text])`, and chains of arrows
with or without a label.
"""

import re
from html import escape
from itertools import pairwise

BLOCK = re.compile(r"^```mermaid\nflowchart LR\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ARROW = re.compile(r"\s*-->(?:\|([^|]*)\|)?\s*")
NODE = re.compile(r"(\w+)(?:\[([^]]*)\]|\(\[([^]]*)\]\))?$")
WIDTH, HEIGHT, BESIDE, BELOW = 130, 34, 170, 78  # px: a node, and from one to the next
Edge = tuple[str, str, str]


def on_page_markdown(markdown: str, **_: object) -> str:
    """Draws each flowchart of a page."""
    return BLOCK.sub(lambda block: drawn(block[1]), markdown)


def drawn(chart: str) -> str:
    names, edges = parsed(chart)
    place = placed(names, edges)
    width = (max(column for _, column in place.values()) + 1) * BESIDE
    height = (max(rank for rank, _ in place.values()) + 1) * BELOW
    parts = [_edge(*(place[node] for node in edge[:2]), edge[2]) for edge in edges]
    parts += [_node(place[node], text) for node, text in names.items()]
    label = escape("; ".join(f"{names[a]} to {names[b]}{f' by {text}' if text else ''}" for a, b, text in edges))
    arrow = '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    arrow += '<path d="M0 0L8 4L0 8z"/></marker>'
    return (
        f'<svg class="flow" viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{label}">'
        f"<defs>{arrow}</defs>{''.join(parts)}</svg>"
    )


def parsed(chart: str) -> tuple[dict[str, str], list[Edge]]:
    """The text of each node, and (from, to, label) of each arrow. Raises ValueError for what is not understood."""
    names: dict[str, str] = {}
    edges: list[Edge] = []
    for line in filter(None, map(str.strip, chart.splitlines())):
        words = ARROW.split(line)  # node, label, node, label, node ...
        found = [NODE.match(word) for word in words[::2]]
        if not all(found):
            raise ValueError(f"flowchart: cannot read '{line}'")
        for node in found:
            names[node[1]] = node[2] or node[3] or names.get(node[1], node[1])
        nodes = [node[1] for node in found]
        edges += [(*pair, label or "") for pair, label in zip(pairwise(nodes), words[1::2])]
    return names, edges


def placed(names: dict[str, str], edges: list[Edge]) -> dict[str, tuple[int, int]]:
    """(rank, column) of each node: below all that lead to it, and right of those that were named before it.

    From top to bottom, as a page is narrower than it is high.
    """
    rank = dict.fromkeys(names, 0)
    for _ in names:
        for start, end, _ in edges:
            rank[end] = max(rank[end], rank[start] + 1)
    for start in names:  # what nothing leads to stands just above what it leads to
        if not any(end == start for _, end, _ in edges):
            rank[start] = max(0, min(rank[end] for begin, end, _ in edges if begin == start) - 1)
    columns: dict[int, int] = {}
    place = {}
    for node in names:
        place[node] = (rank[node], columns.get(rank[node], 0))
        columns[rank[node]] = place[node][1] + 1
    return place


def _centre(place: tuple[int, int]) -> tuple[int, int]:
    return place[1] * BESIDE + BESIDE // 2, place[0] * BELOW + BELOW // 2


def _edge(start: tuple[int, int], end: tuple[int, int], label: str) -> str:
    (x, y), (to_x, to_y) = _centre(start), _centre(end)
    y, to_y = y + HEIGHT // 2, to_y - HEIGHT // 2
    path = f'<path d="M{x} {y}C{x} {y + 30} {to_x} {to_y - 30} {to_x} {to_y}" marker-end="url(#tip)"/>'
    text = f'<text class="edge" x="{to_x + 6}" y="{to_y - 14}">{escape(label)}</text>' if label else ""
    return path + text


def _node(place: tuple[int, int], text: str) -> str:
    x, y = _centre(place)
    words = text.split()
    half = (len(words) + 1) // 2
    lines = [text] if len(text) <= 18 else [" ".join(words[:half]), " ".join(words[half:])]
    box = f'<rect x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
    return box + "".join(
        f'<text x="{x}" y="{y + 4 + 14 * (number - (len(lines) - 1) / 2)}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
