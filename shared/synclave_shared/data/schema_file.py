"""From a schema's TOML and the vocabulary files beside it to plain values that are complete in themselves.

The TOML uses singular section names (``[[table]]``, ``[[field]]``, ``[[channel]]``); ``vocabulary`` may be a list of
codes, and ``vocabulary_file`` / ``mapping_file`` name CSV files with the headers ``code,title`` and ``code,target``.
"""

from __future__ import annotations

import csv
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from synclave_shared.errors import SchemaError

__all__ = ["MAX_FILE_BYTES", "read_json", "read_toml"]

MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Largest schema or vocabulary file: the whole of ICD-10-CM with titles is a tenth of it."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a schema's TOML and put the named files' content in their places.

    Args:
        path: the TOML file; files it names are relative to its folder.

    Raises:
        SchemaError: if a file is missing, too large, not UTF-8, not TOML or not the expected CSV.
    """
    try:
        document = tomllib.loads(_read(path).decode("utf-8"), parse_float=Decimal)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _unusable(path, "TOML in UTF-8", str(error)) from None
    for singular, plural in (("table", "tables"), ("field", "fields"), ("channel", "channels")):
        if singular in document:
            document[plural] = document.pop(singular)
    fields = document.get("fields")
    if isinstance(fields, list):
        document["fields"] = [_resolved(field, path.parent) if isinstance(field, dict) else field for field in fields]
    return document


def read_json(path: Path) -> bytes:
    """The bytes of a schema in canonical JSON.

    Raises:
        SchemaError: if the file is missing or too large.
    """
    return _read(path)


def _resolved(field: dict[str, Any], folder: Path) -> dict[str, Any]:
    result = dict(field)
    for setting, header in (("vocabulary", "title"), ("mapping", "target")):
        name = result.pop(f"{setting}_file", None)
        if name is None:
            continue
        if setting in result or not isinstance(name, str):
            raise SchemaError(
                expected=f"either {setting} or {setting}_file (a file name) in field {field.get('name')}",
                found="both, or something that is no file name",
                remedy="Keep one of them.",
            )
        pairs = _read_pairs(folder / name, header)
        if setting == "vocabulary":
            result[setting] = [{"code": code, "title": title} for code, title in pairs]
        else:
            result[setting] = dict(pairs)
    vocabulary = result.get("vocabulary")
    if isinstance(vocabulary, list):
        result["vocabulary"] = [{"code": entry} if isinstance(entry, str) else entry for entry in vocabulary]
    return result


def _read_pairs(path: Path, second: str) -> list[tuple[str, str]]:
    expected = f"a CSV file in UTF-8 with the header code,{second} and each code once"
    try:
        rows = list(csv.reader(_read(path).decode("utf-8-sig").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unusable(path, expected, str(error)) from None
    if not rows or rows[0] != ["code", second]:
        raise _unusable(path, expected, f"the header {','.join(rows[0]) if rows else '(nothing)'}")
    seen: set[str] = set()
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or not row[0] or row[0] in seen:
            raise _unusable(path, expected, f"line {line}: {','.join(row)[:120]!r}")
        seen.add(row[0])
    return [(code, value) for code, value in rows[1:]]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unusable(path, "a readable file", error.strerror or "nothing") from None
    if len(data) > MAX_FILE_BYTES:
        raise _unusable(path, f"at most {MAX_FILE_BYTES} bytes", "a larger file")
    return data


def _unusable(path: Path, expected: str, found: str) -> SchemaError:
    return SchemaError(
        expected=f"{expected} at {path}", found=found, remedy="Correct the file; docs/schema.md describes it."
    )
