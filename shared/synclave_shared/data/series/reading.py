"""From a site's folder to time series on the schema's grid, with every fault found in one pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from synclave_shared.data.faults import ChannelCount, CheckReport, FaultLog
from synclave_shared.data.origin import Origin
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.encode import encode_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import is_series_cohort, read_cohort
from synclave_shared.data.tables import read_checked

__all__ = ["load_series", "read_series"]


def load_series(schema: SeriesSchema, path: Path, origin: Origin = "real") -> SeriesDataset:
    """Read a site's patients, sorted by identifier.

    Args:
        schema: the public schema.
        path: a folder with the schema's tables, or with the two tables of a series cohort; or one file, if the schema
            has one table.
        origin: what rows with a column ``_origin`` must be marked as.

    Raises:
        DataError: if anything does not fit the schema; it tells the first faults and the number of all.
    """
    dataset, report = read_series(schema, path, origin)
    if dataset is None:
        raise report.error()
    return dataset


def read_series(schema: SeriesSchema, path: Path, origin: Origin = "real") -> tuple[SeriesDataset | None, CheckReport]:
    """Read and check in one pass.

    Returns:
        The patients, or None if there is any fault; and the report.
    """
    counts: list[ChannelCount] = []

    def read(faults: FaultLog, rows: dict[str, int]) -> SeriesDataset | None:
        if is_series_cohort(schema, path):
            return read_cohort(schema, path, faults, rows)
        return encode_series(schema, path, faults, rows, counts)

    dataset, report = read_checked(schema, path, read, origin)
    if dataset is None:
        return None, report
    observed = dataset.observed.sum(axis=(0, 1), dtype=np.int64).tolist()
    steps = int(dataset.lengths.sum())
    counts = counts or [
        ChannelCount(name=channel.name, values=seen, dropped=0, clipped=0, observed=0, steps=0)
        for channel, seen in zip(schema.channels, observed, strict=True)
    ]
    channels = tuple(replace(count, observed=seen, steps=steps) for count, seen in zip(counts, observed, strict=True))
    return dataset, replace(report, channels=channels)
