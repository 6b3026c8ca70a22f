"""What shall hold of every synthetic patient beside the label: columns that a person fixes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.schema import Schema
from synclave_shared.errors import ConfigurationError
from synclave_shared.models.anchor import Anchor, prevalences
from synclave_shared.models.layout import CodeLayout

__all__ = ["label_shares_given", "read_given"]


def read_given(options: Sequence[str], schema: Schema) -> dict[str, int]:
    """Read ``COLUMN`` (the patient has it) and ``COLUMN=0`` (has it not) options.

    Args:
        options: as written; a column is named as in the schema, such as ``diagnosis:108`` or ``sex:f``.
        schema: columns.

    Returns:
        Value of each fixed column; of a category that is given, all columns are.

    Raises:
        ConfigurationError: if a column is unknown, or two options contradict each other.
    """
    given: dict[str, int] = {}
    for option in options:
        name, _, value = (option, "", "1") if option in schema.columns else option.rpartition("=")
        group = next((group for group in schema.groups if name in group.columns), None)
        if group is None or value not in ("0", "1") or (value == "0" and group.kind == "categorical"):
            near = difflib.get_close_matches(name or option, schema.columns, n=3)
            raise ConfigurationError(
                expected="--given COLUMN of the schema, or COLUMN=0 for a code or flag",
                found=option,
                remedy=f"Did you mean {', '.join(near)}?" if near else "See the columns of a patient table.",
            )
        fixed = {column: int(column == name) for column in group.columns}
        for column, wanted in (fixed if group.kind == "categorical" else {name: int(value)}).items():
            if given.setdefault(column, wanted) != wanted:
                raise ConfigurationError(
                    expected="options that can hold together", found=option, remedy="Give each field one value."
                )
    return given


def label_shares_given(
    anchor: Anchor, layout: CodeLayout, columns: Sequence[str], given: Mapping[str, int]
) -> NDArray[np.float64]:
    """Shares of the label values [L] among patients of whom some columns are known: Bayes' rule on the anchor."""
    found = prevalences(anchor, layout)
    likely = np.log(np.maximum(anchor.label_shares, 1e-300))
    numbers = {column: number for number, column in enumerate(columns)}
    one_hot = {column for start, stop in layout.categories for column in range(start, stop)}
    for name, value in given.items():
        column = numbers[name]
        if value:
            likely = likely + np.log(found[:, column])
        elif column not in one_hot:
            likely = likely + np.log1p(-found[:, column])
    weights = np.exp(likely - likely.max())
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares
