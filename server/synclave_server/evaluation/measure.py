"""A measured number with what it must be read against: the real-versus-real ceiling and the independent floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["Aim", "Measure", "Reading", "defined", "undefined"]

Aim = Literal["one", "zero", "half", "same"]
"""A perfect result: an agreement of 1, a distance of 0, a discriminator that can only guess (0.5), or two cohorts of
which one has as much as the other (a quotient of 1; above is as wrong as below)."""

_IDEAL: Final[dict[Aim, float]] = {"one": 1.0, "zero": 0.0, "half": 0.5, "same": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One number, or the reason why there is none.

    Attributes:
        value: the number; None if it is not defined on these data.
        interval: 95 % interval, if the measure has one.
        reason: why ``value`` is None, in words; None if there is a value.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    reason: str | None = None


def defined(value: float, interval: tuple[float, float] | None = None) -> Reading:
    """A reading of ``value``; a number that is not finite becomes an undefined reading, so that no NaN is reported."""
    if not math.isfinite(value):
        return undefined("the arithmetic has no finite result on these data")
    if interval is not None and not all(math.isfinite(bound) for bound in interval):
        interval = None
    return Reading(value=float(value), interval=interval and (float(interval[0]), float(interval[1])))


def undefined(reason: str) -> Reading:
    """A reading that does not exist, with its reason."""
    return Reading(value=None, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure on three cohorts of equal size: synthetic patients, other real patients, independent columns.

    Attributes:
        key: name in ``metrics.json``.
        title: name in the report.
        section: heading of the report under which it stands.
        aim: the value of a perfect result.
        value, ceiling, floor: the three readings.
        resolution: smallest difference between ceiling and floor (in units of the measure) at which a place between
            them means anything; below it the measure does not tell models apart on these data.
        percent: whether the report writes the value in percent.
    """

    key: str
    title: str
    section: str
    aim: Aim
    value: Reading
    ceiling: Reading
    floor: Reading
    resolution: float = 0.02
    percent: bool = False

    @property
    def way(self) -> float | None:
        """How far from floor (0) to ceiling (1) the value lies; None if undefined or not resolved.

        Distances are taken from the ideal value, so the measure may exceed 1 (better than other real patients, by
        chance) or be negative (worse than independent columns).
        """
        if self.value.value is None or self.ceiling.value is None or self.floor.value is None:
            return None
        value, ceiling, floor = (abs(x - self.ideal) for x in (self.value.value, self.ceiling.value, self.floor.value))
        return (floor - value) / (floor - ceiling) if floor - ceiling >= self.resolution else None

    @property
    def ideal(self) -> float:
        """The value of a perfect result."""
        return _IDEAL[self.aim]

    @property
    def of_ceiling(self) -> float | None:
        """Value / ceiling: the share of what other real patients reach.

        Only where more is better (aim ``one``); None for the other measures, and where the ceiling is below the
        resolution, since real patients then do not agree either. The AUROC of guessing is 0.5 and not 0: there
        :attr:`way` says more.
        """
        if self.aim != "one" or self.value.value is None or self.ceiling.value is None:
            return None
        return self.value.value / self.ceiling.value if self.ceiling.value >= self.resolution else None

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``metrics.json``; what is not defined is null, with a reason beside it."""

        def bounds(reading: Reading) -> list[float] | None:
            return list(reading.interval) if reading.interval else None

        return {
            "title": self.title,
            "section": self.section,
            "ideal": self.ideal,
            "value": self.value.value,
            "interval": bounds(self.value),
            "reason": self.value.reason,
            "ceiling": self.ceiling.value,
            "ceiling_interval": bounds(self.ceiling),
            "ceiling_reason": self.ceiling.reason,
            "floor": self.floor.value,
            "floor_interval": bounds(self.floor),
            "floor_reason": self.floor.reason,
            "floor_to_ceiling": self.way,
            "of_ceiling": self.of_ceiling,
        }
