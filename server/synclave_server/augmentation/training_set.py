"""The augmented training set as files: real patients, then synthetic ones in the order in which alpha takes them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synclave_server.augmentation.patients import Patients, PatientsOfKind
from synclave_shared.data.fields import NumberField
from synclave_shared.data.origin import ALPHA, ORIGIN
from synclave_shared.data.schema import PatientSchema
from synclave_shared.data.series.table import PATIENTS

__all__ = ["NAME", "write_training_set"]

NAME: Final = "training"
"""Of the folder, or of the file before its ending."""
ROWS_AT_ONCE: Final = 4096
"""Patients of a row group: memory does not grow with their number."""


def write_training_set(
    out: Path,
    schema: PatientSchema,
    kind: PatientsOfKind[Patients],
    real: Patients,
    added: Patients,
    alpha_of_added: NDArray[np.float64],
    *,
    seed: int,
    notes: Mapping[str, str],
) -> Path:
    """Write ``out/training.parquet``, or the two tables of a series cohort in ``out/training``.

    The table of patients has two columns more, :data:`~synclave_shared.data.origin.ORIGIN` and
    :data:`~synclave_shared.data.origin.ALPHA`: the rows up to an alpha are the training set of that alpha.
    Fields of numbers are known by their bins alone; in real and synthetic patients alike they are drawn evenly from
    them, so that how a number is written tells nobody apart.

    Args:
        out: an existing folder.
        schema: the public schema.
        kind: of the patients.
        real: all of them are in the set.
        added: synthetic patients in the order in which they were drawn [M].
        alpha_of_added: from which alpha on each added one belongs to the set [M].
        seed: of the places in the bins.
        notes: key-value metadata.

    Returns:
        The file or folder.
    """
    order = np.argsort(alpha_of_added, kind="stable")
    parts: Sequence[tuple[str, Patients, NDArray[np.float64]]] = (
        ("real", real, np.zeros(len(real))),
        ("synthetic", added.select(order), alpha_of_added[order]),
    )
    number_fields = sum(isinstance(field, NumberField) for field in schema.fields)
    rng = np.random.default_rng([seed, 2])
    path = out / NAME if kind.folder else out / f"{NAME}.parquet"
    if kind.folder:
        path.mkdir()
    with ExitStack() as opened:
        files: dict[str, pq.ParquetWriter] = {}
        for origin, patients, alpha in parts:
            for start in range(0, len(patients), ROWS_AT_ONCE):
                rows = np.arange(start, min(start + ROWS_AT_ONCE, len(patients)))
                tables = kind.tables(patients.select(rows), rng.random((len(rows), number_fields)))
                for name, table in tables.items():
                    if name == PATIENTS:
                        table = table.append_column(ORIGIN, pa.array([origin] * len(rows), pa.string()))
                        table = table.append_column(ALPHA, pa.array(alpha[rows], pa.float64()))
                    table = table.replace_schema_metadata(dict(notes))
                    if name not in files:
                        file = path / f"{name}.parquet" if kind.folder else path
                        writer = pq.ParquetWriter(file, table.schema, compression="zstd", write_page_checksum=True)
                        files[name] = opened.enter_context(writer)
                    files[name].write_table(table)
    return path
