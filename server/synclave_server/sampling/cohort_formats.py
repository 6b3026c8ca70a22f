"""Formats of a synthetic cohort: who writes drawn patients into files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from synclave_server.sampling.note_lines import blank_line, note_lines
from synclave_server.sampling.rows import DrawnPatients
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

__all__ = ["CODE_FORMATS", "FORMATS", "NOTES_FORMATS", "SERIES_FORMATS", "CohortFormat", "Write"]

Write = Callable[[DrawnPatients], None]
"""Adds patients, whose numbers rise from call to call; each call is a row group or a shard."""

_Schema = TypeVar("_Schema", Schema, SeriesSchema, NotesSchema)


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortFormat:
    """A format by which a cohort can be asked for.

    Attributes:
        writer: begins a cohort of a schema at a path where nothing is yet, with notes for the files' metadata. Leaving
            the ``with`` block finishes the files; after an error they are not used.
        suffix: what the name of a file must end in; None: the cohort is a folder.
    """

    writer: Callable[[Path, AnySchema, Mapping[str, str]], AbstractContextManager[Write]]
    suffix: str | None


@contextmanager
def _parquet(
    tables: Callable[[DrawnPatients], Mapping[Path, pa.Table]], width: int, notes: Mapping[str, str]
) -> Iterator[Write]:
    """Parquet files with the tables of the patients, whose rows are of ``width``."""
    nobody = tables(DrawnPatients.nobody(width))
    with ExitStack() as opened:
        files = {
            path: opened.enter_context(
                pq.ParquetWriter(
                    path, table.schema.with_metadata(dict(notes)), compression="zstd", write_page_checksum=True
                )
            )
            for path, table in nobody.items()
        }

        def write(patients: DrawnPatients) -> None:
            for path, table in tables(patients).items():
                files[path].write_table(table.replace_schema_metadata(dict(notes)))

        yield write


def _codes_parquet(path: Path, schema: Schema, notes: Mapping[str, str]) -> AbstractContextManager[Write]:
    """The wide patient table as one file."""
    return _parquet(
        lambda some: {path: to_table(schema, some.rows, some.labels, some.ids, some.within)}, schema.width, notes
    )


def _series_parquet(path: Path, schema: SeriesSchema, notes: Mapping[str, str]) -> AbstractContextManager[Write]:
    """The two tables of a series cohort in a folder."""
    layout = SeriesLayout.of(schema)

    def tables(some: DrawnPatients) -> dict[Path, pa.Table]:
        dataset = recorded(schema, unpack_series(some.rows, some.labels, some.ids, layout))
        return {
            path / f"{PATIENTS}.parquet": to_table(schema, dataset.static, dataset.labels, some.ids, some.within),
            path / f"{SERIES}.parquet": series_table(schema, dataset),
        }

    path.mkdir()
    return _parquet(tables, row_bytes(layout), notes)


def _notes_parquet(path: Path, schema: NotesSchema, notes: Mapping[str, str]) -> AbstractContextManager[Write]:
    """A row for each note."""

    def tables(some: DrawnPatients) -> dict[Path, pa.Table]:
        lines = note_lines(schema, some)
        columns = {name: pa.array([line[name] for line in lines], pa.string()) for name in blank_line(schema)}
        return {path: pa.table(columns)}

    return _parquet(tables, 1, notes)


@contextmanager
def _notes_lines(path: Path, schema: NotesSchema, _notes: Mapping[str, str]) -> Iterator[Write]:
    """A line of JSON for each note; provenance is beside the file, as a line has no place for it."""
    with path.open("w", encoding="utf-8") as file:

        def write(some: DrawnPatients) -> None:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in note_lines(schema, some))

        yield write


@contextmanager
def _codes_meds(path: Path, schema: Schema, notes: Mapping[str, str]) -> Iterator[Write]:
    with MedsWriter(path, schema, notes) as meds:
        yield lambda some: meds.write(some.rows, some.labels, some.numbers, some.within)


@contextmanager
def _series_meds(path: Path, schema: SeriesSchema, notes: Mapping[str, str]) -> Iterator[Write]:
    layout = SeriesLayout.of(schema)
    with SeriesMedsWriter(path, schema, notes) as meds:

        def write(some: DrawnPatients) -> None:
            ids = [str(number) for number in some.numbers.tolist()]
            dataset = recorded(schema, unpack_series(some.rows, some.labels, ids, layout))
            meds.write(dataset, some.numbers, some.within)

        yield write


def _format(
    kind: type[_Schema],
    writer: Callable[[Path, _Schema, Mapping[str, str]], AbstractContextManager[Write]],
    suffix: str | None = None,
) -> CohortFormat:
    def of_any(path: Path, schema: AnySchema, notes: Mapping[str, str]) -> AbstractContextManager[Write]:
        assert isinstance(schema, kind)  # noqa: S101 - a format is chosen by the modality
        return writer(path, schema, notes)

    return CohortFormat(writer=of_any, suffix=suffix)


CODE_FORMATS: Final[Mapping[str, CohortFormat]] = MappingProxyType(
    {"parquet": _format(Schema, _codes_parquet, ".parquet"), "meds": _format(Schema, _codes_meds)}
)
"""Formats of codes by the name that a user types."""

SERIES_FORMATS: Final[Mapping[str, CohortFormat]] = MappingProxyType(
    {"parquet": _format(SeriesSchema, _series_parquet), "meds": _format(SeriesSchema, _series_meds)}
)
"""Formats of time series: a folder with the two tables of a series cohort, or a MEDS dataset."""

NOTES_FORMATS: Final[Mapping[str, CohortFormat]] = MappingProxyType(
    {
        "parquet": _format(NotesSchema, _notes_parquet, ".parquet"),
        "jsonl": _format(NotesSchema, _notes_lines, ".jsonl"),
    }
)
"""Formats of notes: a row or a line for each."""

FORMATS: Final = tuple(dict.fromkeys((*CODE_FORMATS, *SERIES_FORMATS, *NOTES_FORMATS)))
"""Every name of a format."""
