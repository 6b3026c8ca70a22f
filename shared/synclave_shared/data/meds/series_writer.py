"""Synthetic time series as a MEDS dataset: what was observed is an event with a time, at the beginning of its step.

Time 0 of every stay is :data:`~synclave_shared.data.meds.writer.LABEL_TIME`; dates mean nothing, distances do. Beside
the observations there are an event at time 0 and one at the end of the stay, at which the label's prediction is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synclave_shared.data.meds.codes import END, START, channel_codes, written_series_schema
from synclave_shared.data.meds.layout import EVENTS
from synclave_shared.data.meds.writer import LABEL_TIME, MedsFolder, unfit
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.schema import SeriesSchema

__all__ = ["SeriesMedsWriter"]


class SeriesMedsWriter(MedsFolder):
    """Writes patients with time series group by group.

    Args:
        folder: a new folder; it is there whole or not at all.
        schema: the schema of the patients.
        notes: public notes, such as provenance.

    Raises:
        SchemaError: if a number's bins cannot be told apart in the precision of MEDS (float32).
        ConfigurationError: if there is something at ``folder`` already (on entering).
    """

    def __init__(self, folder: Path, schema: SeriesSchema, notes: Mapping[str, str]) -> None:
        super().__init__(folder, schema, written_series_schema(schema), notes)
        self._series = schema
        self._timed = (*channel_codes(schema), START, END)

    def write(
        self,
        dataset: SeriesDataset,
        numbers: npt.NDArray[np.int64],
        within: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Write some patients, as one file (shard) of the dataset.

        Args:
            dataset: the patients; values are written in whole steps of a channel's resolution, identifiers not.
            numbers: the patients' numbers, rising over all calls; they become subject_id, int64 [n].
            within: as in :func:`~synclave_shared.data.patient_table.to_table`.

        Raises:
            DataError: if the arrays do not fit the schema, each other or the patients written before.
        """
        self.check(dataset.static, dataset.labels, numbers)
        if dataset.values.shape != (len(numbers), self._series.horizon, len(self._series.channels)):
            raise unfit(f"series of shape {dataset.values.shape}")
        static, timed = self.static_events(dataset.static, numbers, within), self._events(dataset, numbers)
        events = pa.concat_tables([static, timed])
        # A stable sort: what holds at any time first, then by time; within a time as it was made.
        when = np.append(np.full(static.num_rows, -1), timed["time"].cast(pa.int64()).to_numpy())
        order = np.lexsort((when, events["subject_id"].to_numpy()))
        ends = self._times(np.asarray(dataset.lengths))
        self.add_shard(events.take(order).combine_chunks(), dataset.labels, numbers, ends)

    def further_codes(self) -> list[tuple[str, str]]:
        """See :class:`~synclave_shared.data.meds.writer.MedsFolder`."""
        titles = [
            f"{one.title or one.name} ({one.unit})" if one.unit else one.title or one.name
            for one in self._series.channels
        ]
        return list(zip(self._timed, [*titles, "Time 0", "End of the stay"], strict=True))

    def _events(self, dataset: SeriesDataset, numbers: npt.NDArray[np.int64]) -> pa.Table:
        """Beginnings, observations and ends of all stays."""
        channels, everyone = len(self._series.channels), np.arange(len(numbers))
        patient, step, channel = np.nonzero(dataset.observed)
        values = np.full(len(patient), np.nan)
        for place, about in enumerate(self._series.channels):
            its = channel == place
            # The scale's float32 would leave 56.000004 of 56.
            values[its] = about.whole_steps(about.unscaled(dataset.values[patient[its], step[its], place]))
        # Nobody is without a row: of a stay in which nothing was observed, one says so.
        bare = np.flatnonzero(np.logical_not(dataset.observed.any(axis=(1, 2))))
        zeros = np.zeros(len(numbers), np.int64)
        rows = np.concatenate([everyone, patient, bare, everyone])
        steps = np.concatenate([zeros, step, zeros[bare], np.asarray(dataset.lengths)])
        kinds = np.concatenate([zeros + channels, channel, zeros[bare], zeros + channels + 1])
        known = np.concatenate([zeros * np.nan, values, zeros[bare] * np.nan, zeros * np.nan])
        events: list[pa.Array[Any]] = [
            pa.array(numbers[rows], pa.int64()),
            pa.array(self._times(steps), pa.timestamp("us")),
            pa.array(self._timed, pa.string()).take(pa.array(kinds, pa.int64())),
            pa.array(known.astype(np.float32), pa.float32(), from_pandas=True),
            pa.nulls(len(rows), pa.large_string()),
        ]
        return pa.Table.from_arrays(events, schema=EVENTS)

    def _times(self, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
        """When steps begin."""
        minutes = (steps * self._series.grid.step_minutes).astype("timedelta64[m]")
        times: npt.NDArray[np.datetime64] = np.datetime64(LABEL_TIME, "us") + minutes.astype("timedelta64[us]")
        return times
