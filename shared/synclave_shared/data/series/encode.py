"""From the rows of a folder's tables to the patients' series, static columns and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synclave_shared.data.faults import ChannelCount, FaultLog
from synclave_shared.data.placing import place_tables
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.grid import fill_channel, lay_on_grid
from synclave_shared.data.series.schema import SeriesSchema

__all__ = ["encode_series"]


def encode_series(
    schema: SeriesSchema, path: Path, faults: FaultLog, files: dict[str, int], counts: list[ChannelCount]
) -> SeriesDataset | None:
    """Read the tables of a folder, or the one table that is a file.

    Args:
        schema: the public schema.
        path: the folder or file.
        faults: takes what does not fit.
        files: takes the number of rows of each file.
        counts: takes what became of each channel that can be read.

    Returns:
        Patients with a label and a row on the grid, sorted by identifier; None if there is any fault.
    """
    placed = place_tables(schema, path, faults)
    files |= placed.files
    labels = placed.labels(schema, faults)
    static = placed.features(schema, faults)[:]
    grid, lengths = lay_on_grid(schema, placed, faults)
    shape = (len(placed.patient_ids), schema.horizon, len(schema.channels))
    values, observed = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.uint8)
    for position, channel in enumerate(schema.channels):
        if channel.table not in grid:
            continue
        count = fill_channel(
            channel,
            placed.rows[channel.table],
            grid[channel.table],
            values[:, :, position],
            observed[:, :, position],
            faults,
        )
        if count is not None:
            counts.append(count)
    if labels is None or faults.total:
        return None
    kept = placed.labelled(schema, labels, faults)
    without = kept[lengths[kept] == 0]
    kept = kept[lengths[kept] > 0]
    file = placed.rows[schema.label.table].source.file
    if len(without) and schema.grid.missing == "leave-out":
        faults.notice(file=file, code="no-series", count=len(without))
    elif len(without):
        expected = "a row on the grid for each patient"
        found = f"{len(without)} patients without one"
        faults.add(file=file, code="no-series", expected=expected, found=found, count=len(without))
    if not len(kept) and not faults.total:
        faults.add(file=file, code="no-patients", expected="at least one patient with a series", found="none")
    if faults.total:
        return None
    everyone = SeriesDataset(
        values=values,
        observed=observed,
        lengths=np.maximum(lengths, 1),
        static=static,
        labels=labels,
        patient_ids=placed.patient_ids,
    )
    return everyone if len(kept) == len(everyone) else everyone.select(kept)
