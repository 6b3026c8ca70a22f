"""Cumulative epsilon against the budget, as an SVG that says in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from synclave_shared.audit.report.markup import Markup, element
from synclave_shared.audit.spends import Account, Point
from synclave_shared.audit.words import number

__all__ = ["spend_chart"]

WIDTH: Final = 720
HEIGHT: Final = 220
LEFT, RIGHT, TOP, BOTTOM = 48, 126, 26, 40
"""Margins in SVG units; the lines are named at their ends, in the right one."""

MARKED: Final = 40
"""Up to so many reservations each has a dot; a longer history is a line."""

LABEL_GAP: Final = 16


def spend_chart(account: Account, size: int, identity: str) -> Markup | None:
    """The chart of one account; None if nothing was spent or an epsilon is infinite.

    Args:
        account: whose spend.
        size: number of entries of the ledger: all charts of a page share its axis.
        identity: a prefix for ids, unique on the page.
    """
    points = account.course
    if not points or not all(math.isfinite(point.epsilon) for point in points):
        return None
    bounded = [point for point in points if math.isfinite(point.epsilon_rdp)]
    highest = max(
        points[-1].epsilon,
        account.budget or 0.0,
        *(float(budget.epsilon) for _, budget in account.budgets),
        bounded[-1].epsilon_rdp if bounded and bounded[-1].epsilon_rdp < 3 * points[-1].epsilon else 0.0,
    )
    scale = _Scale(last=size - 1, top=highest)
    course = element("path", class_="course", d=_steps(scale, points, "epsilon"))
    shown = [point for point in bounded if point.epsilon_rdp <= scale.top]
    renyi = element("path", class_="renyi", d=_steps(scale, shown, "epsilon_rdp")) if shown else None
    dots = [
        element(
            "circle",
            element("title", f"entry {point.entry}, round {point.round}: epsilon {number(point.epsilon)}"),
            class_="dot",
            cx=_short(scale.x(point.entry)),
            cy=_short(scale.y(point.epsilon)),
            r=3,
        )
        for point in points
        if len(points) <= MARKED
    ]
    labels = [(points[-1].epsilon, "spent", f"spent {number(points[-1].epsilon, 2)}")]
    if shown and shown[-1] is points[-1]:
        labels.append((shown[-1].epsilon_rdp, "bound", f"Rényi {number(shown[-1].epsilon_rdp, 2)}"))
    if account.budget is not None:
        labels.append((account.budget, "limit", f"budget {account.budget:g}"))
    return element(
        "svg",
        element("title", f"Cumulative epsilon of {account.dataset} at {account.site}", id=f"{identity}-title"),
        element("desc", _description(account), id=f"{identity}-words"),
        _grid(scale),
        _budget(scale, account),
        renyi,
        course,
        dots,
        _labels(scale, labels),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{identity}-title {identity}-words",
    )


class _Scale:
    def __init__(self, *, last: int, top: float) -> None:
        self.last = max(last, 1)
        self.step = _round_step(top)
        self.top = self.step * math.ceil(top * 1.02 / self.step)

    def x(self, entry: int) -> float:
        return LEFT + entry / self.last * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)


def _round_step(top: float) -> float:
    """A distance between lines of 1, 2 or 5 times a power of ten, for three to six lines."""
    power = 10.0 ** math.floor(math.log10(max(top, 1e-9) / 4))
    return next(factor * power for factor in (1, 2, 5, 10) if top / (factor * power) <= 6)


def _short(value: float) -> str:
    return f"{value:.1f}"


def _steps(scale: _Scale, points: Sequence[Point], name: str) -> str:
    """A staircase: a spend happens in an instant, and stays."""
    path = f"M{LEFT} {_short(scale.y(0))}"
    for point in points:
        path += f"H{_short(scale.x(point.entry))}V{_short(scale.y(getattr(point, name)))}"
    return f"{path}H{WIDTH - RIGHT}"


def _grid(scale: _Scale) -> list[Markup]:
    parts = []
    for place in range(round(scale.top / scale.step) + 1):
        value = place * scale.step
        y = _short(scale.y(value))
        parts.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        parts.append(element("text", f"{value:g}", class_="tick", x=LEFT - 8, y=y, dy="0.32em", text_anchor="end"))
    for place in range(5):
        entry = round(place * scale.last / 4)
        x = _short(scale.x(entry))
        parts.append(element("text", str(entry), class_="tick", x=x, y=HEIGHT - BOTTOM + 16, text_anchor="middle"))
    middle = _short((LEFT + WIDTH - RIGHT) / 2)
    parts.append(element("text", "entry of the ledger", class_="tick", x=middle, y=HEIGHT - 6, text_anchor="middle"))
    parts.append(element("text", "epsilon", class_="tick", x=0, y=11))
    return parts


def _budget(scale: _Scale, account: Account) -> Markup | None:
    """The budget over time: it holds from the entry that states it until the next one does."""
    if not account.budgets:
        return None
    path = ""
    for entry, budget in account.budgets:
        x, y = _short(scale.x(entry)), _short(scale.y(float(budget.epsilon)))
        path += f"H{x}V{y}" if path else f"M{x} {y}"
    return element("path", class_="limit", d=f"{path}H{WIDTH - RIGHT}")


def _labels(scale: _Scale, labels: list[tuple[float, str, str]]) -> list[Markup]:
    """Names of the lines at their ends, moved apart where they would touch."""
    parts, occupied = [], -math.inf
    for value, style, text in sorted(labels, key=lambda label: -label[0]):
        occupied = max(scale.y(value), occupied + LABEL_GAP)
        parts.append(
            element("text", text, class_=f"name {style}", x=WIDTH - RIGHT + 8, y=_short(occupied), dy="0.32em")
        )
    return parts


def _description(account: Account) -> str:
    points = account.course
    budget = f"; the budget is {account.budget:g}" if account.budget is not None else ""
    return (
        f"A staircase from epsilon 0 to {number(points[-1].epsilon)} over {len(account.entries)} reservations,"
        f" from entry {points[0].entry} to entry {points[-1].entry}{budget}."
    )
