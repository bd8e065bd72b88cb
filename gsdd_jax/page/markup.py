"""HTML from values: what is no markup yet is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

# Elements without content; SVG's too need an end that HTML's may have.
EMPTY = {"br", "circle", "img", "input", "line", "meta", "path", "rect"}


class Markup(str):
    """Text that is HTML."""


def element(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element; a text among `children` is escaped, None is left out, a list is its members.

    Attributes are named as in HTML, with _ for -, and `class_` for class. One that is True has no
    value; one that is None or False is left out.
    """
    given = "".join(
        _attribute(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in EMPTY:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Markup:
    """Children of an element, as `element` takes them, without one around them."""
    return Markup("".join(map(_text, children)))


def script_data(value: Any) -> Markup:
    """Plain values as JSON that a script reads and no HTML parser ends early."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], class_: str | None = None) -> Markup:
    """A table that scrolls sideways where it is too wide; the first cell of a row names it."""
    heads = list(head)
    head = element("tr", [element("th", cell, scope="col") for cell in heads])
    body = []
    for first, *rest in rows:
        # Where there is no room for a table, a cell says itself what it is.
        cells = [
            element("td", cell, data_head=name) for name, cell in zip(heads[1:], rest, strict=True)
        ]
        body.append(element("tr", element("th", first, scope="row"), cells))
    content = element("table", element("thead", head), element("tbody", body), class_=class_)
    return element("div", content, class_="scrolls")


def _attribute(name: str, value: Any) -> str:
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def _text(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, (list, tuple)):
        return joined(child)
    return html.escape(str(child))
