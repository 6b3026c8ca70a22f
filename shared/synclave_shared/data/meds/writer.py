"""Synthetic patients as a MEDS dataset that other programs for MEDS can use at once.

One subject per patient; a one in a column is an event. A row of 0 and 1 knows no time: all events are static (time is
null), and labels hold at a time that stands for "any". Beside the standard's files, ``metadata`` has the schema that
reads the dataset back, exactly, and the notes on where the patients come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import synclave_shared
from synclave_shared.data.bin_values import bin_values_float32
from synclave_shared.data.fields import NumberField
from synclave_shared.data.meds.codes import column_codes, parents, written_schema
from synclave_shared.data.meds.layout import (
    CODE_METADATA,
    CODES_FILE,
    DATA_FOLDER,
    DATASET_FILE,
    EVENTS,
    LABELS,
    SPLITS,
    SPLITS_FILE,
    VERSION,
)
from synclave_shared.data.new_folder import new_folder
from synclave_shared.data.schema import PatientSchema, Schema
from synclave_shared.errors import DataError, SchemaError

__all__ = ["LABEL_TIME", "NOTES_FILE", "SCHEMA_FILE", "MedsFolder", "MedsWriter", "unfit"]

SPLIT: Final = "train"
LABEL_TIME: Final = datetime(1970, 1, 1)
"""Prediction time of every label. MEDS needs one; as no event has a time, all of them are known at it."""
SCHEMA_FILE: Final = Path("metadata", "synclave_schema.json")
NOTES_FILE: Final = Path("metadata", "synclave_notes.json")


class MedsFolder:
    """A dataset that is written shard by shard; leaving the ``with`` block completes it, or removes it on an error.

    Args:
        folder: a new folder; it is there whole or not at all.
        schema: the schema of the patients.
        read_by: the schema that reads the dataset back.
        notes: public notes, such as provenance.

    Raises:
        SchemaError: if a number's bins cannot be told apart in the precision of MEDS (float32).
        ConfigurationError: if there is something at ``folder`` already (on entering).
    """

    def __init__(self, folder: Path, schema: PatientSchema, read_by: PatientSchema, notes: Mapping[str, str]) -> None:
        self._folder, self._schema, self._read_by, self._notes = folder, schema, read_by, dict(notes)
        codes = column_codes(schema)
        self._written = np.flatnonzero([code is not None for code in codes])
        self._codes = pa.array([code or "" for code in codes], pa.string())
        _require_tellable_bins(schema)
        self._numbers: list[npt.NDArray[np.int64]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._out = self._stack.enter_context(new_folder(self._folder))
        for folder in (Path(DATA_FOLDER, SPLIT), self._labels, DATASET_FILE.parent):
            (self._out / folder).mkdir(parents=True)
        return self

    @property
    def _labels(self) -> Path:
        return Path("labels", self._schema.label.name)

    def static_events(
        self, features: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], within: npt.NDArray[np.float64] | None
    ) -> pa.Table:
        """The events, without a time, that stand for the ones in the columns of the fields."""
        rows, at = np.nonzero(features[:, self._written])
        column = pa.array(self._written[at], pa.int64())
        events: list[pa.Array[Any]] = [
            pa.array(numbers[rows], pa.int64()),
            pa.nulls(len(rows), pa.timestamp("us")),
            self._codes.take(column),
            self._numeric_values(rows, self._written[at], within),
            pa.nulls(len(rows), pa.large_string()),
        ]
        return pa.Table.from_arrays(events, schema=EVENTS)

    def add_shard(
        self,
        events: pa.Table,
        labels: npt.NDArray[np.int64],
        numbers: npt.NDArray[np.int64],
        times: npt.NDArray[np.datetime64],
    ) -> None:
        """Write some patients as one file of events and one of labels.

        Args:
            events: of these patients, in the order of MEDS.
            labels: [n].
            numbers: [n], become subject_id.
            times: of the labels' predictions, [n].
        """
        shard = f"{len(self._numbers)}.parquet"
        self._numbers.append(numbers.astype(np.int64))
        self._save(Path(DATA_FOLDER, SPLIT, shard), events)
        outcome = {
            "subject_id": pa.array(numbers, pa.int64()),
            "prediction_time": pa.array(times, pa.timestamp("us")),
            "integer_value": pa.array(labels, pa.int64()),
            "categorical_value": pa.array(self._schema.label.values, pa.string()).take(pa.array(labels, pa.int64())),
        }
        if len(self._schema.label.values) == 2:
            outcome["boolean_value"] = pa.array(labels == 1)
        layout = pa.schema([field.with_nullable(False) for field in LABELS if field.name in outcome])
        self._save(self._labels / shard, pa.table(outcome).select(layout.names).cast(layout))

    def _numeric_values(
        self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], within: npt.NDArray[np.float64] | None
    ) -> pa.Array[Any]:
        """The number of each event, null for those that have none; ``rows`` and ``columns`` [events] say whose."""
        values = np.full(len(rows), np.nan, np.float32)
        number = 0
        for field, group in self._schema.items():
            if isinstance(field, NumberField):
                its = (columns >= group.start) & (columns < group.start + len(field.bins))
                share = None if within is None else within[rows[its], number]
                values[its] = bin_values_float32(field, columns[its] - group.start, share)
                number += 1
        return pa.array(values, pa.float32(), from_pandas=True)

    def check(
        self, features: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]
    ) -> None:
        """Refuse patients that do not fit the schema, each other or those written before.

        Raises:
            DataError: saying why.
        """
        count = len(numbers)
        if features.shape != (count, self._schema.width) or labels.shape != (count,):
            raise unfit(f"features {features.shape}, labels {labels.shape} and {count} numbers")
        if features.size and features.max() > 1:
            raise unfit("a feature that is neither 0 nor 1")
        if count and not 0 <= labels.min() <= labels.max() < len(self._schema.label.values):
            raise unfit("a label that is no position in the label's values")
        last = next((some[-1:] for some in reversed(self._numbers) if len(some)), numbers[:0])
        if (np.diff(np.append(last, numbers)) <= 0).any():
            raise unfit("numbers of patients that do not rise")
        for group in self._schema.groups:
            block = features[:, group.start : group.stop]
            if group.kind == "categorical" and (block.sum(axis=1, dtype=np.int64) != 1).any():
                raise unfit(f"a patient without exactly one value of {group.name}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            self._describe()

    def _describe(self) -> None:
        subjects = np.concatenate([*self._numbers, np.zeros(0, dtype=np.int64)])
        splits = [pa.array(subjects), pa.array([SPLIT] * len(subjects), pa.string())]
        self._save(SPLITS_FILE, pa.Table.from_arrays(splits, schema=SPLITS))
        explained = [*zip(self._codes.to_pylist(), self._titles(), strict=True), *self.further_codes()]
        codes: dict[str, dict[str, Any]] = {
            code: {"code": code, "description": title, "parent_codes": None} for code, title in explained if code
        }
        for code, parent in parents(self._schema).items():
            codes.setdefault(code, {"code": code, "description": None, "parent_codes": [parent]})
        self._save(CODES_FILE, pa.Table.from_pylist(list(codes.values()), schema=CODE_METADATA))
        dataset = {
            "dataset_name": f"synthetic-{self._schema.name}",
            "etl_name": "synclave",
            "etl_version": synclave_shared.__version__,
            "meds_version": VERSION,
        }
        for file, content in ((DATASET_FILE, dataset), (NOTES_FILE, self._notes)):
            (self._out / file).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (self._out / SCHEMA_FILE).write_bytes(self._read_by.to_json_bytes())

    def further_codes(self) -> list[tuple[str, str]]:
        """Codes of events that have a time, with what they mean."""
        return []

    def _titles(self) -> list[str]:
        """What each column's code means: of a number all bins have one code, which means the number."""
        titles = list(self._schema.titles)
        for field, group in self._schema.items():
            if isinstance(field, NumberField):
                title = f"{field.title or field.name} ({field.unit})" if field.unit else field.title or field.name
                titles[group.start : group.stop] = [title] * (group.stop - group.start)
        return titles

    def _save(self, file: Path, table: pa.Table) -> None:
        pq.write_table(table, self._out / file, compression="zstd", write_page_checksum=True)


class MedsWriter(MedsFolder):
    """Writes patients of codes group by group.

    Args:
        folder: a new folder; it is there whole or not at all.
        schema: the schema of the patients' columns.
        notes: public notes, such as provenance.

    Raises:
        SchemaError: if a number's bins cannot be told apart in the precision of MEDS (float32).
        ConfigurationError: if there is something at ``folder`` already (on entering).
    """

    def __init__(self, folder: Path, schema: Schema, notes: Mapping[str, str]) -> None:
        super().__init__(folder, schema, written_schema(schema), notes)

    def write(
        self,
        features: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        numbers: npt.NDArray[np.int64],
        within: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Write some patients, as one file (shard) of the dataset.

        Args:
            features: 0 or 1, uint8 [n, schema.width]; exactly one 1 in each categorical group.
            labels: positions in ``schema.label.values``, int64 [n].
            numbers: the patients' numbers, rising over all calls; they become subject_id, int64 [n].
            within: as in :func:`~synclave_shared.data.patient_table.to_table`.

        Raises:
            DataError: if the arrays do not fit the schema, each other or the patients written before.
        """
        self.check(features, labels, numbers)
        times = np.full(len(numbers), np.datetime64(LABEL_TIME, "us"))
        self.add_shard(self.static_events(features, numbers, within), labels, numbers, times)


def _require_tellable_bins(schema: PatientSchema) -> None:
    """Refuse a schema with a bin whose middle, as float32, is read as another bin's."""
    for field in (field for field in schema.fields if isinstance(field, NumberField)):
        for entry in field.bins:
            # What a reader gets who takes float32 for what it says, see importing.
            stored = float(str(np.float32(float(entry.middle))))
            low, high = float(entry.low), float(entry.high)
            closed = field.integer or entry is field.bins[-1]
            if not (low <= stored <= high if closed else low <= stored < high):
                raise SchemaError(
                    expected=f"bins of {field.name} that float32, the numbers of MEDS, can tell apart",
                    found=f"the bin {entry.text}",
                    remedy="Write the patients as a patient table, or choose wider bins.",
                )


def unfit(found: str) -> DataError:
    """The error of patients that do not fit."""
    return DataError(
        expected="patients that fit the schema", found=found, remedy="Use arrays made for this very schema."
    )
