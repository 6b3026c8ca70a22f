"""From the rows of one table to the ones of one field, for all patients at once.

Rules are applied to the distinct texts of a column and spread over the rows by index, so the work per row is a few
numpy operations whatever the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synclave_shared.data.faults import FaultLog, shown
from synclave_shared.data.fields import CategoryField, CodesField, FlagField, NumberField, rest_of
from synclave_shared.data.schema import Label
from synclave_shared.data.source import EMPTY, Source, TextColumn

__all__ = ["UNPLACED", "FieldOnes", "TableRows", "bin_positions", "encode_field", "encode_label"]

UNPLACED: Final = -1
"""Patient position of a row that belongs to nobody in the data set."""


@dataclass(frozen=True, slots=True)
class FieldOnes:
    """Which patients have which of a field's columns.

    Attributes:
        patient: positions of patients, int64 [ones]; a pair may occur more than once.
        column: numbers of columns, from 0 for the field's first; int64 [ones].
    """

    patient: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]

    @classmethod
    def of_column(cls, has: npt.NDArray[np.bool_], column: int) -> FieldOnes:
        """The ones of one column: of the patients who have it, ``has`` [patients]."""
        patient = np.flatnonzero(has)
        return cls(patient, np.full(len(patient), column, dtype=np.int64))

    @classmethod
    def of_positions(cls, position: npt.NDArray[np.int64]) -> FieldOnes:
        """At most a one per patient, in column ``position`` [patients]; -1 for none."""
        patient = np.flatnonzero(position >= 0)
        return cls(patient, position[patient])

    @classmethod
    def together(cls, parts: Sequence[FieldOnes]) -> FieldOnes:
        """All ones of several parts; none of no part."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(
            np.concatenate([nothing, *(part.patient for part in parts)]),
            np.concatenate([nothing, *(part.column for part in parts)]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRows:
    """The rows of one table with the patient each belongs to.

    Attributes:
        source: the file.
        missing_values: texts that mean "not recorded" in this table.
        patient: position of the row's patient, or :data:`UNPLACED`; int64 [rows].
        order: rank of the row by the table's order column, None if the table has none; int64 [rows].
        patients: number of patients.
        code: in a table of events, the column that says what a row is about.
        codes: that column, None if it cannot be read.
    """

    source: Source
    missing_values: tuple[str, ...]
    patient: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64] | None
    patients: int
    code: str | None = None
    codes: TextColumn | None = None

    def fits(self, pattern: str | None) -> npt.NDArray[np.bool_] | None:
        """Which rows have a code that fits ``pattern`` [rows], None for all; None if the codes cannot be read."""
        if pattern is None or self.code is None:
            return np.ones(len(self.patient), dtype=bool)
        if self.codes is None:
            return None
        # The two places after the texts are reached by FAULTY (-2) and EMPTY (-1).
        fitting = np.array([*(rest_of(text, pattern) is not None for text in self.codes.texts), False, False])
        fits: npt.NDArray[np.bool_] = fitting[self.codes.index]
        return fits

    def about(self, pattern: str | None) -> TableRows | None:
        """The rows whose code fits ``pattern``, their code cut to what stands in place of its star; None: all rows.

        Returns:
            The rows; None if the code column cannot be read (its fault is recorded).
        """
        fits = self.fits(pattern)
        if fits is None or pattern is None or self.code is None or self.codes is None:
            return None if fits is None else self
        rests = pa.array([rest_of(text, pattern) for text in self.codes.texts], pa.string())
        cut = rests.take(pa.array(self.codes.index[fits], pa.int64()))
        table = self.source.table.filter(pa.array(fits))
        table = table.set_column(table.column_names.index(self.code), self.code, cut)
        return replace(
            self,
            source=replace(self.source, table=table, rows=self.source.rows[fits]),
            patient=self.patient[fits],
            order=None if self.order is None else self.order[fits],
            code=None,
            codes=None,
        )

    def column(self, name: str, faults: FaultLog, missing_values: tuple[str, ...] = ()) -> TextColumn | None:
        """One column as text, see :meth:`Source.column`; ``missing_values`` add to those of the table."""
        return self.source.column(name, (*self.missing_values, *missing_values), faults)

    def fault_cells(
        self,
        rows: npt.NDArray[np.intp],
        column: str,
        texts: TextColumn | None,
        faults: FaultLog,
        code: str,
        expected: str,
    ) -> None:
        """Record the cells of ``column`` in ``rows`` (from 0); ``texts`` shows what is there, None for nothing."""
        faults.add_rows(
            self.source.rows[rows],
            file=self.source.file,
            column=column,
            code=code,
            expected=expected,
            found=lambda i: "nothing" if texts is None else shown(texts.texts[texts.index[rows[i]]]),
        )

    def missing_cells(self, column: str, texts: TextColumn, faults: FaultLog, fault: bool, what: str) -> None:
        """Record empty cells of patients in the data set: as faults, or as a notice."""
        rows = np.flatnonzero((texts.index == EMPTY) & (self.patient >= 0))
        if fault:
            self.fault_cells(rows, column, None, faults, "missing-value", what)
        else:
            faults.notice(file=self.source.file, column=column, code="missing", count=len(rows))

    def fault_unmentioned(self, nothing: npt.NDArray[np.bool_], column: str, what: str, faults: FaultLog) -> None:
        """Record patients with ``nothing`` [patients] because no row is about them; empty cells are faults already."""
        unmentioned = nothing.copy()
        unmentioned[self.patient[self.patient >= 0]] = False
        count = int(unmentioned.sum())
        if count:
            faults.add(
                file=self.source.file,
                column=column,
                code="missing-value",
                expected=f"a row for each patient, with a value of {what}",
                found=f"{count} patients without such a row in this table",
                count=count,
            )

    def last_by(self, rows: npt.NDArray[np.intp], key: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """For each patient, the one of ``rows`` [k] with the largest ``key`` [k]; -1 for patients without any."""
        chosen = np.full(self.patients, -1, dtype=np.int64)
        if len(rows):
            order = np.lexsort((key, self.patient[rows]))
            owner = self.patient[rows][order]
            last = np.append(owner[1:] != owner[:-1], True)
            chosen[owner[last]] = rows[order][last]
        return chosen

    def choose(self, rows: npt.NDArray[np.intp], combine: str, value: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """For each patient the row that counts, -1 for patients without any of ``rows``.

        Args:
            rows: rows that say something [k].
            combine: ``first``, ``last``, ``min``, or the largest value (``max``, ``any``, ``highest``).
            value: what they say [k].
        """
        if combine in ("first", "last"):
            if self.order is None:
                raise ValueError("the table has no order column")
            rank = self.order[rows].astype(np.float64)
            return self.last_by(rows, rank if combine == "last" else -rank)
        return self.last_by(rows, -value if combine == "min" else value)


def encode_label(label: Label, rows: TableRows, faults: FaultLog) -> npt.NDArray[np.int64] | None:
    """Each patient's label.

    Returns:
        Position in ``label.values``, -1 for patients of whom no row says anything [patients]; None if the column
        cannot be read.
    """
    texts = rows.column(label.column, faults)
    if texts is None:
        return None
    expected = f"one of {', '.join(label.mapping or label.values)}"
    rows.missing_cells(label.column, texts, faults, label.missing == "fault", expected)
    positions = [label.position(text) for text in texts.texts]
    value = _looked_up(label.column, texts, positions, rows, faults, expected, "outside-vocabulary")
    spoken = np.flatnonzero((value >= 0) & (rows.patient >= 0))
    labels = _taken(value, rows.choose(spoken, label.combine, value[spoken].astype(np.float64)))
    if label.missing == "fault":
        rows.fault_unmentioned(labels < 0, label.column, label.name, faults)
    return labels


def encode_field(
    field: CodesField | CategoryField | FlagField | NumberField,
    rows: TableRows,
    faults: FaultLog,
) -> FieldOnes:
    """Find one field's ones.

    Args:
        field: the field.
        rows: the rows of its table.
        faults: takes what does not fit.
    """
    if isinstance(field, CodesField):
        return _encode_codes(field, rows, faults)
    if isinstance(field, CategoryField):
        return _encode_category(field, rows, faults)
    if isinstance(field, FlagField):
        return _encode_flag(field, rows, faults)
    return _encode_number(field, rows, faults)


def _encode_codes(field: CodesField, rows: TableRows, faults: FaultLog) -> FieldOnes:
    expected = f"a code of the vocabulary of {field.name}"
    recorded = np.zeros(rows.patients, dtype=bool)
    ones: list[FieldOnes] = []
    for name in field.columns:
        texts = rows.column(name, faults, field.missing_values)
        if texts is None:
            continue
        rows.missing_cells(name, texts, faults, field.missing == "fault", expected)
        targets: list[list[int]] = []
        outside: list[int] = []
        ignored = np.zeros(len(texts.texts), dtype=np.int64)
        other = np.zeros(len(texts.texts), dtype=np.int64)
        for position, text in enumerate(texts.texts):
            targets.append([])
            for code in field.codes_of(text):
                if field.is_ignored(code):
                    ignored[position] += 1
                    continue
                column = field.position(code)
                if column is None:
                    column = field.other_position
                    other[position] += 1
                if column is None:
                    outside.append(position)
                else:
                    targets[position].append(column)
        if outside:
            rows.fault_cells(texts.where(outside), name, texts, faults, "outside-vocabulary", expected)
        elif other.any():
            count = int(other @ texts.occurrences())
            faults.notice(file=rows.source.file, column=name, code="counted-as-other", count=count)
        if ignored.any():
            count = int(ignored @ texts.occurrences())
            faults.notice(file=rows.source.file, column=name, code="ignored", count=count)
        filled = np.flatnonzero((texts.index >= 0) & (rows.patient >= 0))
        recorded[rows.patient[filled]] = True
        for depth in range(max(map(len, targets), default=0)):
            table = np.array([columns[depth] if depth < len(columns) else -1 for columns in targets], dtype=np.int64)
            column_of = table[texts.index[filled]]
            hit = column_of >= 0
            ones.append(FieldOnes(rows.patient[filled[hit]], column_of[hit]))
    if field.missing == "own-category":
        ones.append(FieldOnes.of_column(~recorded, len(field.values()) - 1))
    return FieldOnes.together(ones)


def _encode_category(field: CategoryField, rows: TableRows, faults: FaultLog) -> FieldOnes:
    texts = rows.column(field.column, faults, field.missing_values)
    if texts is None:
        return FieldOnes.together(())
    expected = f"a value of {field.name}: {', '.join(entry.code for entry in field.vocabulary[:12])}"
    rows.missing_cells(field.column, texts, faults, field.missing == "fault", expected)
    positions = [field.position(text) for text in texts.texts]
    if field.other_position is not None:
        outside = np.array([position is None for position in positions], dtype=np.int64)
        count = int(outside @ texts.occurrences()) if len(positions) else 0
        faults.notice(file=rows.source.file, column=field.column, code="counted-as-other", count=count)
        positions = [field.other_position if position is None else position for position in positions]
    value = _looked_up(field.column, texts, positions, rows, faults, expected, "outside-vocabulary")
    spoken = np.flatnonzero((value >= 0) & (rows.patient >= 0))
    chosen = rows.choose(spoken, field.combine, value[spoken].astype(np.float64))
    return _one_each(field, _taken(value, chosen), rows, faults)


def _encode_flag(field: FlagField, rows: TableRows, faults: FaultLog) -> FieldOnes:
    texts = rows.column(field.column, faults, field.missing_values)
    if texts is None:
        return FieldOnes.together(())
    expected = f"one of {', '.join((*field.true, *field.false))}"
    rows.missing_cells(field.column, texts, faults, field.missing == "fault", expected)
    positions = [field.position(text) for text in texts.texts]
    value = _looked_up(field.column, texts, positions, rows, faults, expected, "outside-vocabulary")
    spoken = np.flatnonzero((value >= 0) & (rows.patient >= 0))
    chosen = rows.choose(spoken, field.combine, value[spoken].astype(np.float64))
    return FieldOnes.of_column(_taken(value, chosen) == 1, 0)


def _encode_number(field: NumberField, rows: TableRows, faults: FaultLog) -> FieldOnes:
    texts = rows.column(field.column, faults, field.missing_values)
    if texts is None:
        return FieldOnes.together(())
    inside = field.inside
    if field.combine == "count":
        # Who has no row has counted none; that is a number too.
        counted = rows.patient[(texts.index >= 0) & (rows.patient >= 0)]
        total: npt.NDArray[np.float64] = np.bincount(counted, minlength=rows.patients).astype(np.float64)
        everyone = np.flatnonzero(rows.patient >= 0)
        shown_at = rows.last_by(everyone, -everyone.astype(np.float64))
        known = np.ones(rows.patients, dtype=bool)
    else:
        rows.missing_cells(field.column, texts, faults, field.missing == "fault", inside)
        value = _numbers(field, texts, rows, faults, inside)
        spoken = np.flatnonzero(~np.isnan(value) & (rows.patient >= 0))
        if field.combine == "sum":
            # Without any row numpy counts in integers.
            total = np.bincount(rows.patient[spoken], value[spoken], rows.patients).astype(np.float64)
            shown_at = rows.last_by(spoken, -spoken.astype(np.float64))
        else:
            _check_bounds(field, value, np.arange(len(value)), rows, faults, inside)
            shown_at = rows.choose(spoken, field.combine, value[spoken])
            total = _taken(value, shown_at)
        known = shown_at >= 0
    if field.combine in ("sum", "count"):
        placed = np.flatnonzero(known & (shown_at >= 0))
        _check_bounds(field, total[placed], shown_at[placed], rows, faults, inside)
    position = np.full(rows.patients, -1, dtype=np.int64)
    position[known] = bin_positions(field, total[known])
    return _one_each(field, position, rows, faults)


def _numbers(
    field: NumberField, texts: TextColumn, rows: TableRows, faults: FaultLog, inside: str
) -> npt.NDArray[np.float64]:
    """The number in each row, NaN for none [rows]; texts that are no number are recorded as faults."""
    numbers = [field.number(text) for text in texts.texts]
    wrong = [position for position, number in enumerate(numbers) if number is None]
    kind = "a whole number" if field.integer else "a number"
    rows.fault_cells(texts.where(wrong), field.column, texts, faults, "not-a-number", f"{kind}, {inside}")
    table = np.array([*(np.nan if number is None else number for number in numbers), np.nan, np.nan])
    value: npt.NDArray[np.float64] = table[texts.index]
    return value


def bin_positions(field: NumberField, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Position of the bin of each of ``values`` [k], which are first moved into the public bounds."""
    clipped = np.clip(values, float(field.minimum), float(field.maximum))
    edges = np.array([float(edge) for edge in field.edges])
    return np.searchsorted(edges, clipped, side="right").astype(np.int64)


def _check_bounds(
    field: NumberField,
    values: npt.NDArray[np.float64],
    row_of: npt.NDArray[np.int64],
    rows: TableRows,
    faults: FaultLog,
    inside: str,
) -> None:
    """Record values [k] out of bounds; ``row_of`` [k] is the row (from 0) under which each is shown."""
    beyond = np.flatnonzero((values < float(field.minimum)) | (values > float(field.maximum)))
    if field.outside == "clip":
        faults.notice(file=rows.source.file, column=field.column, code="clipped", count=len(beyond))
        return
    faults.add_rows(
        rows.source.rows[row_of[beyond]],
        file=rows.source.file,
        column=field.column,
        code="out-of-bounds",
        expected=inside,
        found=lambda i: f"{values[beyond[i]]:.15g}" + (" in total" if field.combine in ("sum", "count") else ""),
    )


def _looked_up(
    column: str,
    texts: TextColumn,
    positions: list[int | None],
    rows: TableRows,
    faults: FaultLog,
    expected: str,
    code: str,
) -> npt.NDArray[np.int64]:
    """What each row says, -1 for nothing [rows]; texts that mean nothing known are recorded as faults."""
    wrong = [index for index, position in enumerate(positions) if position is None]
    if wrong:
        rows.fault_cells(texts.where(wrong), column, texts, faults, code, expected)
    table = np.array([*(-1 if position is None else position for position in positions), -1, -1], dtype=np.int64)
    looked_up: npt.NDArray[np.int64] = table[texts.index]
    return looked_up


def _taken(value: npt.NDArray[Any], chosen: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """What each patient's chosen row says, -1 for patients without one [patients]."""
    taken = np.full(len(chosen), -1, dtype=value.dtype)
    known = chosen >= 0
    taken[known] = value[chosen[known]]
    return taken


def _one_each(
    field: CategoryField | NumberField, position: npt.NDArray[np.int64], rows: TableRows, faults: FaultLog
) -> FieldOnes:
    """The ones of a one-hot group; patients without a value (-1) get the last column where that means "missing"."""
    nothing = position < 0
    if field.missing == "own-category":
        position = np.where(nothing, len(field.values()) - 1, position)
    else:
        rows.fault_unmentioned(nothing, field.column, field.name, faults)
    return FieldOnes.of_positions(position)
