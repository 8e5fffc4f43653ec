"""jinja2 templates of the report."""

import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **values: Any) -> str:
    """Renders the template of this name; a missing value is an error."""
    return _environment().get_template(name).render(values)


def text_of(name: str) -> str:
    """A file beside the templates, unrendered."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8").rstrip()


MARKUP = re.compile(r"[\\`*~\[\]|]|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


def plain(text: str) -> str:
    """Text as Markdown shows it literally: names and captions may hold any character."""
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("issl.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown and LaTeX; the HTML template escapes its values itself
    )
    environment.filters["plain"] = plain
    return environment
