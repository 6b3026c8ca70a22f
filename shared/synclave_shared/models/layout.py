"""What a model needs to know of a schema: how many columns, which belong together, how many label values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synclave_shared.data.schema import Group, PatientSchema

__all__ = ["CodeLayout", "one_hot_ranges"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeLayout:
    """Columns of the 0/1 patient matrix.

    Attributes:
        width: number of columns D.
        categories: half-open column ranges of which exactly one column is 1 (one-hot groups), ascending, disjoint.
            Every column outside is a code of its own: 0 or 1.
        label_values: number of values L of the label.
    """

    width: int
    categories: tuple[tuple[int, int], ...]
    label_values: int

    def __post_init__(self) -> None:
        end = 0
        for start, stop in self.categories:
            if start < end or stop <= start or stop > self.width:
                raise ValueError(f"one-hot group {start}:{stop} overlaps another or lies outside {self.width} columns")
            end = stop
        if self.width < 1 or self.label_values < 1:
            raise ValueError("a layout needs at least one column and one label value")

    @property
    def pieces(self) -> list[tuple[int, bool]]:
        """The columns as neighbouring pieces: (number of columns, whether they are a one-hot group)."""
        pieces: list[tuple[int, bool]] = []
        position = 0
        for start, stop in self.categories:
            if start > position:
                pieces.append((start - position, False))
            pieces.append((stop - start, True))
            position = stop
        if position < self.width:
            pieces.append((self.width - position, False))
        return pieces

    @classmethod
    def of(cls, schema: PatientSchema) -> CodeLayout:
        """The layout of a schema's fields."""
        return cls(
            width=schema.width,
            categories=one_hot_ranges(schema.groups),
            label_values=len(schema.label.values),
        )


def one_hot_ranges(groups: Iterable[Group]) -> tuple[tuple[int, int], ...]:
    """Column ranges of the groups of which exactly one column is 1."""
    return tuple((group.start, group.stop) for group in groups if group.kind == "categorical")
