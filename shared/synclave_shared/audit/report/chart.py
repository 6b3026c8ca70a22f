"""Cumulative epsilon against the budget, as an SVG that says in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from synclave_shared.audit.report.markup import Markup, element
from synclave_shared.audit.spends import Account, Point
from synclave_shared.audit.words import listed, number

__all__ = ["spend_chart"]

WIDTH: Final = 720
HEIGHT: Final = 250
LEFT, RIGHT, TOP, BOTTOM = 48, 126, 42, 54
"""Margins in SVG units; the lines are named at their ends, in the right one."""

MARKED: Final = 40
"""Up to so many reservations each has a dot; a longer history is a line."""

LABEL_GAP: Final = 16

MOST_BANDS: Final = 24
"""Trainings that took turns more often than this are not told apart in the background."""

LETTER: Final = 7
"""Width of a letter of a training's name, at most."""


def spend_chart(account: Account, identity: str) -> Markup | None:
    """The chart of one account; None if nothing was spent or an epsilon is infinite.

    Args:
        account: whose spend.
        identity: a prefix for ids, unique on the page.
    """
    points = account.course
    if not points or not all(math.isfinite(point.epsilon) for point in points):
        return None
    bounded = [point for point in points if math.isfinite(point.epsilon_rdp)]
    highest = max(
        points[-1].epsilon,
        account.budget or 0.0,
        *(float(stated.budget.epsilon) for stated in account.budgets),
        bounded[-1].epsilon_rdp if bounded and bounded[-1].epsilon_rdp < 3 * points[-1].epsilon else 0.0,
    )
    scale = _Scale(last=len(account.entries), top=highest)
    course = element("path", class_="course", d=_steps(scale, points, "epsilon"))
    shown = [point for point in bounded if point.epsilon_rdp <= scale.top]
    renyi = element("path", class_="renyi", d=_steps(scale, shown, "epsilon_rdp")) if shown else None
    dots = [
        element(
            "circle",
            element(
                "title",
                f"entry {listed([point.entry])}, round {point.round}, {point.time}: epsilon {number(point.epsilon)}",
            ),
            class_="dot",
            cx=_short(scale.x(point.reservations)),
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
        _bands(scale, account),
        _grid(scale, points),
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

    def x(self, reservations: int) -> float:
        return LEFT + reservations / self.last * (WIDTH - LEFT - RIGHT)

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
        path += f"H{_short(scale.x(point.reservations))}V{_short(scale.y(getattr(point, name)))}"
    return f"{path}H{WIDTH - RIGHT}"


def _grid(scale: _Scale, points: Sequence[Point]) -> list[Markup]:
    parts = []
    for place in range(round(scale.top / scale.step) + 1):
        value = place * scale.step
        y = _short(scale.y(value))
        parts.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        parts.append(element("text", f"{value:g}", class_="tick", x=LEFT - 8, y=y, dy="0.32em", text_anchor="end"))
    days = {point.time[:10] for point in points}
    for place in range(5):
        count = round(place * scale.last / 4)
        x, below = _short(scale.x(count)), HEIGHT - BOTTOM + 16
        time = next(point.time for point in points if point.reservations >= count)
        # The day of each, or the time of day if there is but one.
        when = time[:10] if len(days) > 1 else time[11:16]
        parts.append(element("text", str(count), class_="tick", x=x, y=below, text_anchor="middle"))
        parts.append(element("text", when, class_="tick", x=x, y=below + 14, text_anchor="middle"))
    what = f"reservations, and {'days' if len(days) > 1 else f'the time on {min(days)}'}"
    middle = _short((LEFT + WIDTH - RIGHT) / 2)
    parts.append(element("text", what, class_="tick", x=middle, y=HEIGHT - 6, text_anchor="middle"))
    parts.append(element("text", "epsilon", class_="tick", x=0, y=11))
    return parts


def _bands(scale: _Scale, account: Account) -> list[Markup]:
    """Which training spent: a band for each, in turns shaded and not, with its name where there is room."""
    if len(account.plans) < 2:
        return []
    bands: list[tuple[str, int, int]] = []
    for point in account.course:
        digest, start, end = bands[-1] if bands else ("", 0, 0)
        if digest == point.plan_digest:
            bands[-1] = digest, start, point.reservations
        else:
            bands.append((point.plan_digest, end, point.reservations))
    if len(bands) > MOST_BANDS:
        return []
    names = {plan.digest: plan.name or "(not proposed)" for plan in account.plans}
    parts = []
    for place, (digest, start, end) in enumerate(bands):
        left, width = scale.x(start), scale.x(end) - scale.x(start)
        parts.append(
            element(
                "rect",
                element("title", names[digest]),
                class_=f"band {'odd' if place % 2 else 'even'}",
                x=_short(left),
                y=TOP - 16,
                width=_short(width),
                height=HEIGHT - TOP - BOTTOM + 16,
            )
        )
        room = int(width / LETTER)
        name = names[digest] if len(names[digest]) <= room else f"{names[digest][: room - 1]}…"
        if room > 3:
            parts.append(
                element("text", name, class_="tick", x=_short(left + width / 2), y=TOP - 4, text_anchor="middle")
            )
    return parts


def _budget(scale: _Scale, account: Account) -> Markup | None:
    """The budget over time: it holds from the entry that states it until the next one does."""
    if not account.budgets:
        return None
    path = ""
    for stated in account.budgets:
        x, y = _short(scale.x(stated.before)), _short(scale.y(float(stated.budget.epsilon)))
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
        f" from entry {listed([points[0].entry])} to entry {listed([points[-1].entry])}{budget}."
    )
