"""What a model of time series needs to know of a schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synclave_shared.models.layout import CodeLayout, one_hot_ranges

if TYPE_CHECKING:
    from synclave_shared.data.series.schema import SeriesSchema

__all__ = ["SeriesLayout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLayout:
    """A patient: ``T`` steps of ``C`` channels, and a *context* of ``S`` 0/1 columns that do not change in time.

    Attributes:
        steps: T.
        channels: C.
        context: the columns of the schema's fields and, as the last one-hot group, the length of the stay in steps.
    """

    steps: int
    channels: int
    context: CodeLayout

    def __post_init__(self) -> None:
        if self.steps < 1 or self.channels < 1:
            raise ValueError("a series needs at least one step and one channel")
        if self.context.categories[-1:] != ((self.context.width - self.steps, self.context.width),):
            raise ValueError("the last columns of the context must be the length of the stay")

    @property
    def label_values(self) -> int:
        """Number of values L of the label."""
        return self.context.label_values

    @property
    def fields(self) -> int:
        """Number of columns of the schema's fields: the context without the length."""
        return self.context.width - self.steps

    @classmethod
    def of(cls, schema: SeriesSchema) -> SeriesLayout:
        """The layout of a schema."""
        fields, width = one_hot_ranges(schema.groups), schema.width + schema.horizon
        return cls(
            steps=schema.horizon,
            channels=len(schema.channels),
            context=CodeLayout(
                width=width,
                categories=(*fields, (schema.width, width)),
                label_values=len(schema.label.values),
            ),
        )
