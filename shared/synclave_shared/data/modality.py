"""One door for schemas and folders of every modality."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from synclave_shared.data.faults import CheckReport
from synclave_shared.data.notes.reading import read_notes
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.schema import Schema
from synclave_shared.data.schema_file import read_json, read_toml
from synclave_shared.data.series.reading import read_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.tables import read_patients
from synclave_shared.errors import SchemaError

__all__ = ["MODALITIES", "AnySchema", "check_folder", "load_schema", "schema_from_json"]

AnySchema = Schema | SeriesSchema | NotesSchema
MODALITIES: Final[dict[str, type[Schema] | type[SeriesSchema] | type[NotesSchema]]] = {
    "codes": Schema,
    "series": SeriesSchema,
    "notes": NotesSchema,
}
"""What ``modality`` in a schema says -> its kind of schema."""


def load_schema(path: Path) -> AnySchema:
    """Read a schema of any modality from its TOML file, or from the canonical JSON of one (ending ``.json``).

    Raises:
        SchemaError: if it, or a vocabulary file it names, cannot be used.
    """
    modality = _modality(path)
    if modality not in MODALITIES:
        raise SchemaError(
            expected=f"modality = {' or '.join(map(repr, MODALITIES))} in {path}",
            found=repr(modality),
            remedy="Correct the file; docs/schema.md describes every setting.",
        )
    return MODALITIES[modality].load(path)


def schema_from_json(data: bytes) -> AnySchema:
    """The schema of any modality whose canonical JSON this is.

    Raises:
        SchemaError: if it is none.
    """
    return MODALITIES.get(_modality_of(data), Schema).from_json_bytes(data)


def check_folder(schema: AnySchema, folder: Path) -> CheckReport:
    """Check a folder (or one file) against a schema and report everything that does not fit."""
    match schema:
        case SeriesSchema():
            return read_series(schema, folder)[1]
        case NotesSchema():
            return read_notes(schema, folder)[1]
        case Schema():
            return read_patients(schema, folder)[1]


def _modality(path: Path) -> str:
    if path.suffix != ".json":
        return str(read_toml(path).get("modality"))
    return _modality_of(read_json(path))


def _modality_of(data: bytes) -> str:
    try:
        document = json.loads(data)
    except ValueError:
        # What is wrong with it is told by the schema that is tried.
        return "codes"
    return str(document.get("modality")) if isinstance(document, dict) else "codes"
