"""One look for all figures, and SVG that stands inside a page: no outside address, colours from the page's own palette.

Matplotlib draws with placeholder colours, one per role. Afterwards each is replaced by a CSS variable, so that one
drawing serves light, dark and print.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

__all__ = ["LEVELS", "ROLES", "Drawing", "canvas", "drawing", "level_colour", "plain_text", "short_title"]

ROLES: Final = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "surface": "#040404",
    "synthetic": "#050505",
    "real": "#060606",
    "independent": "#070707",
    "alarm": "#080808",
    "band": "#090909",
    "neutral": "#0a0a0a",
}
"""Role -> placeholder; the page defines ``--<role>`` for light and dark."""
LEVELS: Final = 10
"""Steps of the diverging scale on either side of zero."""
_STYLE: Final[dict[Any, Any]] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.edgecolor": ROLES["muted"],
    "axes.labelcolor": ROLES["ink"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": ROLES["ink"],
    "xtick.color": ROLES["muted"],
    "ytick.color": ROLES["muted"],
    "xtick.labelcolor": ROLES["ink"],
    "ytick.labelcolor": ROLES["ink"],
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": ROLES["grid"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "synclave",
    "path.simplify": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure for the page.

    Attributes:
        svg: an ``<svg>`` element, safe to place in HTML.
        alt: what the figure shows, for people who do not see it.
        caption: how to read it.
    """

    svg: str
    alt: str
    caption: str


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A transparent figure of ``width`` x ``height`` inches in the report's style; no global state is left behind."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}):
        # SVG counts in points; at any other resolution text measured here would not be where it is drawn.
        figure = Figure(figsize=(width, height), dpi=72, facecolor="none", layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def level_colour(level: int) -> str:
    """Placeholder of a step of the diverging scale, -:data:`LEVELS` to :data:`LEVELS`."""
    return f"#0b0b{level + LEVELS:02x}"


def _variables() -> dict[str, str]:
    named = {colour: f"var(--{role})" for role, colour in ROLES.items()}
    return named | {level_colour(k): f"var(--level-{k + LEVELS})" for k in range(-LEVELS, LEVELS + 1)}


def drawing(figure: Figure, key: str, alt: str, caption: str) -> Drawing:
    """Turn a figure into inline SVG; must be called inside its :func:`canvas`.

    Args:
        figure: the finished figure.
        key: prefix of all identifiers, so that several drawings can stand in one page; letters and digits.
        alt: plain text, escaped here.
        caption: plain text.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = text.replace('href="#', f'href="#{key}-').replace("url(#", f"url(#{key}-")
    variables = _variables()
    text = re.sub(r"#[0-9a-f]{6}\b", lambda match: variables.get(match[0], match[0]), text)
    text = re.sub(r'\n\s*(?=[<"])', "\n", text)
    head = f'<svg role="img" aria-labelledby="{key}-alt" preserveAspectRatio="xMidYMid meet" '
    view = re.search(r'viewBox="[^"]*"', text)
    body = text[text.index(">") + 1 :]
    return Drawing(
        svg=f'{head}{view[0] if view else ""}><title id="{key}-alt">{escape(alt)}</title>{body}',
        alt=alt,
        caption=caption,
    )


@cache
def _glyphs() -> frozenset[int]:
    font = FT2Font(str(Path(font_manager.findfont("DejaVu Sans"))))
    return frozenset(font.get_charmap())


def plain_text(text: str, longest: int) -> str:
    """``text`` as one line of at most ``longest`` characters that the font can draw; what it cannot becomes a box."""
    line = " ".join("".join(c if unicodedata.category(c)[0] != "C" else " " for c in text).split())
    line = "".join(c if ord(c) in _glyphs() else "\u25a1" for c in line)
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "\u2026"


def short_title(title: str, longest: int) -> str:
    """A title in at most ``longest`` characters: of ``field: value`` the field is cut first, then the value."""
    field, colon, value = plain_text(title, 10_000).partition(": ")
    if len(title) <= longest or not colon:
        return plain_text(title, longest)
    room = longest - len(value) - 2
    return f"{plain_text(field, room)}: {value}" if room >= 6 else plain_text(value, longest)
