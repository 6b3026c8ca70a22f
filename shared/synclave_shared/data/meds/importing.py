"""From a hospital's MEDS dataset to the tables that its schema reads, in one pass over the events.

Only what the schema reads is copied. Everything else is counted, with the reason: nothing is left out in silence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synclave_shared.data.meds.dataset import MedsDataset, read_labels
from synclave_shared.data.meds.event_table import EventTable, Life, complete
from synclave_shared.data.meds.layout import LABELS
from synclave_shared.data.meds.reading import MedsReading
from synclave_shared.data.meds.selection import Selection
from synclave_shared.data.new_folder import new_folder
from synclave_shared.data.schema import PatientSchema
from synclave_shared.errors import ConfigurationError, DataError

__all__ = ["LEFT_OUT", "ImportReport", "import_meds"]

LEFT_OUT: Final = {
    "other-split": "subjects of another split, or of none",
    "no-label": "subjects without a label",
    "their-events": "events of those subjects",
    "no-event": "subjects without an event that the schema reads",
    "no-subject": "labels of subjects that are not in the data set or not in the split",
    "after-prediction": "events after the subject's prediction time",
    "not-read": "events with codes that no field reads",
}
"""Closed vocabulary of what is not copied: reason -> what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did. It describes private data and stays at the site.

    Attributes:
        dataset: the dataset's name and version, as it states them.
        out: the new folder.
        split: the split that was taken, empty for all.
        files, events: what was read.
        births_and_deaths: events that are not rows but are told of each subject in the table of subjects.
        rows: table -> rows written.
        left_out: reason (:data:`LEFT_OUT`) -> number of subjects, events or labels.
        unread: first part of a code (before ``//``) -> number of events that no field reads.
    """

    dataset: str
    out: str
    split: str
    files: int
    events: int
    births_and_deaths: int
    rows: dict[str, int]
    left_out: dict[str, int]
    unread: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def import_meds(
    folder: Path, schema: PatientSchema, out: Path, *, split: str | None = None, labels: Path | None = None
) -> ImportReport:
    """Write the tables that ``schema`` reads from the MEDS dataset in ``folder``.

    Args:
        folder: the dataset.
        schema: a schema that reads MEDS, see :class:`MedsReading`.
        out: a new folder; it is there whole or not at all.
        split: take only the subjects of this split.
        labels: label file, or folder of such files, if the schema has a table of labels.

    Raises:
        SchemaError: if the schema does not read MEDS.
        DataError: if the dataset is not as the standard says, or nobody is left.
        ConfigurationError: if ``out`` exists, or labels are given or lacking against the schema.
    """
    reading = MedsReading.of(schema)
    if (reading.labels is None) != (labels is None):
        raise ConfigurationError(
            expected="a label file" if labels is None else "no label file: the schema reads no table of labels",
            found="none" if labels is None else str(labels),
            remedy="Give it with --labels." if labels is None else "Leave it away, or choose another schema.",
        )
    dataset = MedsDataset.open(folder)
    label_rows = None if labels is None else read_labels(labels)
    selection = Selection.of(dataset, split, label_rows, reading)
    with new_folder(out) as unfinished:
        events = EventTable(reading, selection, unfinished / "events.parquet")
        columns = [name for name in reading.events or () if name != "event"]
        with events:
            for batch in dataset.batches(columns):
                events.take(batch)
        lives = events.lives
        patients = selection.finish(
            (subject for subject, life in lives.items() if life.events) if reading.roll == "events" else None
        )
        left_out = selection.left_out() + events.left_out
        if not patients:
            raise _nobody(folder, left_out)
        rows = {} if reading.events is None else {"events": events.written}
        if reading.subjects is not None:
            table = _subject_table(patients, lives).select(list(reading.subjects))
            pq.write_table(table, unfinished / "subjects.parquet", compression="zstd", write_page_checksum=True)
            rows["subjects"] = table.num_rows
        if reading.labels is not None and label_rows is not None:
            known = pc.is_in(label_rows["subject_id"], pa.array(patients, pa.int64()))
            table = complete(label_rows.filter(known), reading.labels, LABELS)
            pq.write_table(table, unfinished / "labels.parquet", compression="zstd", write_page_checksum=True)
            rows["labels"] = table.num_rows
            left_out["no-subject"] = label_rows.num_rows - table.num_rows
    return ImportReport(
        dataset=" ".join(filter(None, (dataset.name, dataset.version))),
        out=str(out),
        split=split or "",
        files=len(dataset.shards),
        events=events.read,
        births_and_deaths=events.births_and_deaths,
        rows=rows,
        left_out={reason: left_out[reason] for reason in LEFT_OUT if left_out[reason]},
        unread=dict(events.unread().most_common()),
    )


def _subject_table(patients: list[int], lives: dict[int, Life]) -> pa.Table:
    some = [lives.get(subject, Life()) for subject in patients]
    births = np.array([life.birth for life in some], dtype="datetime64[us]")
    return pa.table(
        {
            "subject_id": pa.array(patients, pa.int64()),
            "died": pa.array([life.died for life in some], pa.bool_()),
            "first_age": _years(births, np.array([life.first for life in some], dtype="datetime64[us]")),
            "last_age": _years(births, np.array([life.last for life in some], dtype="datetime64[us]")),
        }
    )


def _years(start: npt.NDArray[np.datetime64], end: npt.NDArray[np.datetime64]) -> pa.Array[Any]:
    """Completed years from ``start`` to ``end`` [n]; null where either is not known (NaT)."""
    unknown = np.isnat(start) | np.isnat(end)

    def parts(times: npt.NDArray[np.datetime64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        times = np.where(unknown, np.datetime64(0, "us"), times)
        years, months, days = (times.astype(f"datetime64[{unit}]") for unit in "YMD")
        # Month and day as one number that orders as they do.
        return years.astype(np.int64), months.astype(np.int64) % 12 * 32 + (days - months).astype(np.int64)

    (from_year, from_day), (to_year, to_day) = parts(start), parts(end)
    return pa.array(to_year - from_year - (to_day < from_day), pa.int64(), mask=unknown)


def _nobody(folder: Path, left_out: Counter[str]) -> DataError:
    reasons = ", ".join(f"{number} {LEFT_OUT[reason]}" for reason, number in left_out.items() if number)
    return DataError(
        expected=f"at least one patient in {folder}",
        found=f"none: {reasons or 'there is no event'}",
        remedy="Check the split, the labels and the codes of the schema.",
    )
