"""The pieces that sections of the page are made of: tables, figures with their sources, badges, links to formulas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from synclave_shared.audit.reading import Place
from synclave_shared.audit.report.markup import Child, Markup, element
from synclave_shared.audit.words import listed

__all__ = ["badge", "code", "figures", "formula", "paragraph", "prose", "section", "source", "table", "under"]

NUMERIC = "number"


def section(identity: str, title: str, *children: Child) -> Markup:
    """A section with a heading that can be linked to."""
    return element("section", element("h2", title, id=identity), *children)


def paragraph(*children: Child, class_: str | None = None) -> Markup:
    """A paragraph."""
    return element("p", *children, class_=class_)


def under(*children: Child) -> Markup:
    """A remark in small type."""
    return element("p", *children, class_="under")


def code(text: str) -> Markup:
    """A command, key or digest, to be copied as it is."""
    return element("code", text)


def prose(text: str) -> list[Child]:
    """A sentence in which commands stand between backticks."""
    return [code(part) if place % 2 else part for place, part in enumerate(text.split("`"))]


def badge(text: str, style: str) -> Markup:
    """A short state: style ``good``, ``bad``, ``warn`` or ``plain``."""
    return element("span", text, class_=f"badge {style}")


def formula(name: str) -> Markup:
    """A link to a formula."""
    return element("a", name, href=f"#{name}")


def source(name: str, entries: Iterable[Place]) -> Markup:
    """Where a number comes from: its formula and the entries that go into it."""
    named = listed(entries)
    return element("span", formula(name), f" of entries {named}" if named else " of no entry", class_="from")


def figures(items: Sequence[tuple[str, Markup]]) -> Markup:
    """Numbers side by side."""
    cells = [element("div", element("dt", label), element("dd", value)) for label, value in items]
    return element("dl", cells, class_="figures")


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Child]], *, numeric: Sequence[int] = (), wide: Sequence[int] = ()
) -> Markup:
    """A table; on a narrow screen its rows become blocks in which each cell is named.

    Args:
        heads: of the columns.
        rows: their cells.
        numeric: columns of numbers, by place.
        wide: columns of sentences, by place.
    """

    def style(place: int) -> str | None:
        if place in numeric:
            return NUMERIC
        return "wide" if place in wide else None

    head = element("tr", [element("th", text, scope="col", class_=style(place)) for place, text in enumerate(heads)])
    body = [
        element(
            "tr",
            [
                element("td", cell, class_=style(place), data_label=label)
                for place, (label, cell) in enumerate(zip(heads, row, strict=True))
            ],
        )
        for row in rows
    ]
    return element("div", element("table", element("thead", head), element("tbody", body)), class_="scroll", tabindex=0)
