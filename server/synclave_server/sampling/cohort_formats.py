"""Formats of a synthetic cohort: who writes rows into files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synclave_server.sampling.notes_writers import NotesLinesWriter, NotesParquetWriter
from synclave_server.sampling.rows import synthetic_id
from synclave_server.sampling.series_rows import row_bytes, unpack_series
from synclave_shared.data.meds.series_writer import SeriesMedsWriter
from synclave_shared.data.meds.writer import MedsWriter
from synclave_shared.data.modality import AnySchema
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.patient_table import to_table
from synclave_shared.data.schema import Schema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import PATIENTS, SERIES, recorded, series_table
from synclave_shared.models.series.layout import SeriesLayout

__all__ = [
    "CODE_FORMATS",
    "FORMATS",
    "NOTES_FORMATS",
    "SERIES_FORMATS",
    "CohortFormat",
    "CohortWriter",
    "ParquetWriter",
    "SeriesWriter",
    "synthetic_id",
]


class CohortWriter(Protocol):
    """Writes patients in the order of their numbers, one row group after another, in a ``with`` block that ends it."""

    def __enter__(self) -> Self:
        """Begin the files."""
        ...

    def write(
        self,
        features: NDArray[np.uint8],
        labels: NDArray[np.int64],
        numbers: NDArray[np.int64],
        within: NDArray[np.float64] | None = None,
    ) -> None:
        """Add patients.

        Args:
            features: 0 or 1, [n, D].
            labels: [n], label numbers.
            numbers: [n], patient numbers, rising over all calls.
            within: [n, fields of numbers], where in its bin each number lies; None: in the middle.
        """
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Finish the files; after an error they are not used."""
        ...


class ParquetWriter:
    """The wide patient table as one Parquet file, one row group for each call of :meth:`write`.

    Args:
        path: the file.
        schema: the public schema.
        notes: key-value metadata.
    """

    def __init__(self, path: Path, schema: Schema, notes: Mapping[str, str]) -> None:
        self._path, self._schema = path, schema
        nobody = to_table(schema, np.zeros((0, schema.width), np.uint8), np.zeros(0, np.int64), [])
        self._columns = nobody.schema.with_metadata(dict(notes))

    def __enter__(self) -> Self:
        self._file = pq.ParquetWriter(self._path, self._columns, compression="zstd", write_page_checksum=True)
        return self

    def write(
        self,
        features: NDArray[np.uint8],
        labels: NDArray[np.int64],
        numbers: NDArray[np.int64],
        within: NDArray[np.float64] | None = None,
    ) -> None:
        """Add a row group; the arguments are those of :class:`CohortWriter`."""
        ids = [synthetic_id(number) for number in numbers.tolist()]
        table = to_table(self._schema, features, labels, ids, within).replace_schema_metadata(self._columns.metadata)
        self._file.write_table(table, row_group_size=len(ids))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class SeriesWriter:
    """The two tables of a series cohort in a folder, one row group of patients for each call of :meth:`write`.

    Args:
        folder: where nothing is yet.
        schema: the public schema.
        notes: key-value metadata.
    """

    def __init__(self, folder: Path, schema: SeriesSchema, notes: Mapping[str, str]) -> None:
        self._folder, self._schema, self._notes = folder, schema, dict(notes)
        self._layout = SeriesLayout.of(schema)

    def __enter__(self) -> Self:
        self._folder.mkdir()
        nobody = self._tables(np.zeros((0, row_bytes(self._layout)), np.uint8), np.zeros(0, np.int64), [])
        self._files = {
            name: pq.ParquetWriter(
                self._folder / f"{name}.parquet",
                table.schema.with_metadata(self._notes),
                compression="zstd",
                write_page_checksum=True,
            )
            for name, table in nobody.items()
        }
        return self

    def write(
        self,
        features: NDArray[np.uint8],
        labels: NDArray[np.int64],
        numbers: NDArray[np.int64],
        within: NDArray[np.float64] | None = None,
    ) -> None:
        """Add a row group; ``features`` are rows of :mod:`synclave_server.sampling.series_rows`."""
        ids = [synthetic_id(number) for number in numbers.tolist()]
        for name, table in self._tables(features, labels, ids, within).items():
            self._files[name].write_table(table.replace_schema_metadata(self._notes))

    def _tables(
        self,
        rows: NDArray[np.uint8],
        labels: NDArray[np.int64],
        ids: list[str],
        within: NDArray[np.float64] | None = None,
    ) -> dict[str, pa.Table]:
        dataset = recorded(self._schema, unpack_series(rows, labels, ids, self._layout))
        return {
            PATIENTS: to_table(self._schema, dataset.static, dataset.labels, ids, within),
            SERIES: series_table(self._schema, dataset),
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()


class SeriesEventsWriter:
    """Time series as a MEDS dataset, a shard of patients for each call of :meth:`write`.

    Args:
        folder: where nothing is yet.
        schema: the public schema.
        notes: kept in the dataset's metadata.
    """

    def __init__(self, folder: Path, schema: SeriesSchema, notes: Mapping[str, str]) -> None:
        self._schema, self._layout = schema, SeriesLayout.of(schema)
        self._writer = SeriesMedsWriter(folder, schema, notes)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def write(
        self,
        features: NDArray[np.uint8],
        labels: NDArray[np.int64],
        numbers: NDArray[np.int64],
        within: NDArray[np.float64] | None = None,
    ) -> None:
        """Add a shard; the arguments are those of :class:`SeriesWriter`."""
        ids = [str(number) for number in numbers.tolist()]
        self._writer.write(recorded(self._schema, unpack_series(features, labels, ids, self._layout)), numbers, within)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortFormat:
    """A format by which a cohort can be asked for.

    Attributes:
        writer: makes the writer of a path where nothing is yet, a schema, and notes for the files' metadata.
        suffix: what the name of a file must end in; None: the cohort is a folder.
    """

    writer: Callable[[Path, AnySchema, Mapping[str, str]], CohortWriter]
    suffix: str | None


def _of_codes(
    writer: Callable[[Path, Schema, Mapping[str, str]], CohortWriter],
) -> Callable[[Path, AnySchema, Mapping[str, str]], CohortWriter]:
    def make(path: Path, schema: AnySchema, notes: Mapping[str, str]) -> CohortWriter:
        assert isinstance(schema, Schema)  # noqa: S101 - a format is chosen by the modality
        return writer(path, schema, notes)

    return make


def _of_series(
    writer: Callable[[Path, SeriesSchema, Mapping[str, str]], CohortWriter],
) -> Callable[[Path, AnySchema, Mapping[str, str]], CohortWriter]:
    def make(path: Path, schema: AnySchema, notes: Mapping[str, str]) -> CohortWriter:
        assert isinstance(schema, SeriesSchema)  # noqa: S101 - likewise
        return writer(path, schema, notes)

    return make


def _of_notes(
    writer: Callable[[Path, NotesSchema, Mapping[str, str]], CohortWriter],
) -> Callable[[Path, AnySchema, Mapping[str, str]], CohortWriter]:
    def make(path: Path, schema: AnySchema, notes: Mapping[str, str]) -> CohortWriter:
        assert isinstance(schema, NotesSchema)  # noqa: S101 - likewise
        return writer(path, schema, notes)

    return make


CODE_FORMATS: Final[Mapping[str, CohortFormat]] = MappingProxyType(
    {
        "parquet": CohortFormat(writer=_of_codes(ParquetWriter), suffix=".parquet"),
        "meds": CohortFormat(writer=_of_codes(MedsWriter), suffix=None),
    }
)
"""Formats of codes by the name that a user types."""

SERIES_FORMATS: Final[Mapping[str, CohortFormat]] = MappingProxyType(
    {
        "parquet": CohortFormat(writer=_of_series(SeriesWriter), suffix=None),
        "meds": CohortFormat(writer=_of_series(SeriesEventsWriter), suffix=None),
    }
)
"""Formats of time series: a folder with the two tables of a series cohort, or a MEDS dataset."""

NOTES_FORMATS: Final[Mapping[str, CohortFormat]] = MappingProxyType(
    {
        "parquet": CohortFormat(writer=_of_notes(NotesParquetWriter), suffix=".parquet"),
        "jsonl": CohortFormat(writer=_of_notes(NotesLinesWriter), suffix=".jsonl"),
    }
)
"""Formats of notes: a row or a line for each."""

FORMATS: Final = tuple(dict.fromkeys((*CODE_FORMATS, *SERIES_FORMATS, *NOTES_FORMATS)))
"""Every name of a format."""
