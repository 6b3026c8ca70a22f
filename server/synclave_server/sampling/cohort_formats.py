"""Formats of a synthetic cohort: who writes rows into files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synclave_shared.data.meds.writer import MedsWriter
from synclave_shared.data.patient_table import to_table
from synclave_shared.data.schema import Schema

__all__ = ["FORMATS", "CohortFormat", "CohortWriter", "ParquetWriter"]


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
        ids = [f"synthetic-{number:010d}" for number in numbers.tolist()]
        table = to_table(self._schema, features, labels, ids, within).replace_schema_metadata(self._columns.metadata)
        self._file.write_table(table, row_group_size=len(ids))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortFormat:
    """A format by which a cohort can be asked for.

    Attributes:
        writer: makes the writer of a path where nothing is yet, a schema, and notes for the files' metadata.
        suffix: what the name of a file must end in; None: the cohort is a folder.
    """

    writer: Callable[[Path, Schema, Mapping[str, str]], CohortWriter]
    suffix: str | None


FORMATS: Final[Mapping[str, CohortFormat]] = MappingProxyType(
    {
        "parquet": CohortFormat(writer=ParquetWriter, suffix=".parquet"),
        "meds": CohortFormat(writer=MedsWriter, suffix=None),
    }
)
"""Formats by the name that a user types."""
