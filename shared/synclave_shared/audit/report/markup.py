"""HTML and SVG that cannot be broken out of: text is escaped where it enters, and only elements are markup.

Names, digests and labels in a ledger are written by others. They reach the page through :func:`element` alone, which
escapes every string, and writes control and direction characters out.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from synclave_shared.audit.console import printable

__all__ = ["Child", "Markup", "element", "joined", "trusted"]


@dataclass(frozen=True, slots=True)
class Markup:
    """Finished markup; made by :func:`element`, :func:`joined` and, for our own constants, :func:`trusted`."""

    text: str


Child = str | int | Markup | None | Iterable["Child"]
"""What an element can hold: text, numbers, elements, nothing, or several of these."""

EMPTY: Final = frozenset({"meta", "br", "line", "path", "circle", "rect"})
"""Elements that this report uses without content."""


def element(name: str, /, *children: Child, **attributes: str | int | float | None) -> Markup:
    """One element.

    Args:
        name: of the element, a constant of the caller.
        children: its content; every string is escaped.
        attributes: ``class_`` is written ``class``, other underscores as hyphens; None leaves one out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_text(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in EMPTY and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*children).text}</{name}>")


def joined(*children: Child) -> Markup:
    """Several pieces one after another."""
    return Markup("".join(_child(child) for child in children))


def trusted(text: str) -> Markup:
    """A constant of this program, the style sheet for instance. Never for anything that was read."""
    return Markup(text)


def _child(child: Child) -> str:
    match child:
        case None:
            return ""
        case Markup():
            return child.text
        case str():
            return _text(child)
        case int():
            return str(child)
        case _:
            return "".join(_child(one) for one in child)


def _text(text: str) -> str:
    # Spaces at the ends join words to the elements beside them.
    plain = printable(text)
    before = " " if plain and text[:1].isspace() else ""
    after = " " if plain and text[-1:].isspace() else ""
    return html.escape(f"{before}{plain}{after}" if plain else " " * bool(text))
