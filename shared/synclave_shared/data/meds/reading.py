"""What a schema reads of a MEDS dataset.

A schema reads MEDS if its tables are ``events``, ``subjects`` and ``labels``, all or some of them, with the columns
below: nothing else is needed in it, and nothing of a hospital's data goes into it. Docs: docs/meds.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from synclave_shared.data.fields import rest_of
from synclave_shared.data.meds.layout import EVENTS, LABELS
from synclave_shared.data.schema import PatientSchema
from synclave_shared.errors import SchemaError

__all__ = ["EVENT_COLUMNS", "LABEL_COLUMNS", "SUBJECT_COLUMNS", "MedsReading"]

EVENT_COLUMNS: Final = ("subject_id", "event", *EVENTS.names[1:])
"""One row per event. ``event`` is its number in the subject's record, from 1."""
SUBJECT_COLUMNS: Final = ("subject_id", "died", "first_age", "last_age")
"""One row per subject: whether there is a death, and the ages in whole years at the first and the last event."""
LABEL_COLUMNS: Final = tuple(LABELS.names)
"""One row per label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MedsReading:
    """The tables and columns that a schema reads, and of the events those that it reads.

    Attributes:
        events, subjects, labels: columns of each table, None for a table that the schema does not have.
        patterns: codes of the events that are read (:func:`rest_of`); None for all of them.
        roll: the table that says who is a patient.
        until: events after a subject's ``first`` or ``last`` prediction time are not read; None without labels.
    """

    events: tuple[str, ...] | None
    subjects: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    patterns: tuple[str, ...] | None
    roll: str
    until: Literal["first", "last"] | None

    @classmethod
    def of(cls, schema: PatientSchema) -> MedsReading:
        """Take the reading from a schema.

        Raises:
            SchemaError: if the schema has other tables or columns than a MEDS dataset gives.
        """
        known = {"events": EVENT_COLUMNS, "subjects": SUBJECT_COLUMNS, "labels": LABEL_COLUMNS}
        columns: dict[str, tuple[str, ...]] = {}
        patterns: tuple[str | None, ...] = ()
        for table in schema.tables:
            if table.name not in known:
                raise _not_meds(f"the tables {', '.join(known)}, all or some of them", f"a table {table.name}")
            if table.patient != "subject_id":
                raise _not_meds(f'patient = "subject_id" in table {table.name}', f"{table.patient or 'a join'}")
            used = schema.used_columns(table)
            strangers = sorted(set(used) - set(known[table.name]))
            # Events may have columns beyond the standard's; the dataset's files show whether they are there.
            if strangers and table.name != "events":
                raise _not_meds(f"of {table.name} the columns {', '.join(known[table.name])}", strangers[0])
            columns[table.name] = used
            if table.name == "events":
                patterns = schema.patterns(table)
        until: Literal["first", "last"] | None = None
        if "labels" in columns:
            until = "first" if schema.label.table == "labels" and schema.label.combine == "first" else "last"
        return cls(
            events=columns.get("events"),
            subjects=columns.get("subjects"),
            labels=columns.get("labels"),
            patterns=None if None in patterns else tuple(pattern for pattern in patterns if pattern is not None),
            roll=schema.label.table,
            until=until,
        )

    def reads(self, code: str) -> bool:
        """Whether events with this code are read."""
        return self.events is not None and (
            self.patterns is None or any(rest_of(code, pattern) is not None for pattern in self.patterns)
        )


def _not_meds(expected: str, found: str) -> SchemaError:
    return SchemaError(
        expected=f"a schema that reads MEDS: {expected}",
        found=found,
        remedy="docs/meds.md describes how a schema reads MEDS.",
    )
