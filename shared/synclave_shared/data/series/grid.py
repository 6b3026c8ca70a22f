"""From rows with a time to a regular grid: which step each row is in, and what a channel shows in each step.

All times are whole microseconds, so that a row on the border of two steps is in the later one whatever its unit. The
grid does not depend on the order of rows in the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from synclave_shared.data.encode import TableRows
from synclave_shared.data.faults import ChannelCount, FaultLog, shown
from synclave_shared.data.fields import is_number
from synclave_shared.data.placing import PlacedTables, order_ranks
from synclave_shared.data.series.channel import Channel
from synclave_shared.data.series.schema import SeriesSchema, SeriesTable, Start, Stay
from synclave_shared.data.source import EMPTY

__all__ = ["OFF_GRID", "GridRows", "fill_channel", "lay_on_grid"]

OFF_GRID: Final = -1
"""Step of a row that is not on the grid."""
NO_TIME: Final = np.iinfo(np.int64).min
"""Time of a row without one."""
NO_END: Final = np.iinfo(np.int64).max
"""End of a stay that no row tells."""
MAX_TIME_US: Final = 2**60
"""Furthest time from 0, 36,000 years: differences still fit 64 bits."""
_UNIT_US: Final = {"seconds": 10**6, "minutes": 60 * 10**6, "hours": 3600 * 10**6, "days": 86400 * 10**6}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRows:
    """Where the rows of one table are on the grid.

    Attributes:
        time: microseconds; int64 [rows].
        step: from 0, or :data:`OFF_GRID`; int64 [rows].
    """

    time: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64]


def lay_on_grid(
    schema: SeriesSchema, placed: PlacedTables, faults: FaultLog
) -> tuple[dict[str, GridRows], npt.NDArray[np.int64]]:
    """Find the step of every row that a channel reads.

    Returns:
        The rows of each table with a time; and each patient's number of steps, 0 without a row on the grid [patients].
    """
    kept = _kept_stays(schema.stay, placed, faults) if schema.stay is not None else None
    times: dict[str, npt.NDArray[np.int64]] = {}
    read: dict[str, npt.NDArray[np.bool_]] = {}
    for table in schema.tables:
        rows = placed.rows.get(table.name)
        if rows is None or table.time is None:
            continue
        channel_rows = _rows_read(rows, [channel.code for channel in schema.channels if channel.table == table.name])
        needed = channel_rows | _rows_read(rows, [one.code for one in schema.moments if one.table == table.name])
        if schema.stay is not None and kept is not None:
            belongs = _in_kept_stay(schema.stay, rows, needed, kept, faults)
            faults.notice(file=rows.source.file, code="other-stay", count=int((channel_rows & ~belongs).sum()))
            needed &= belongs
        time = _times(table, rows, needed, faults)
        times[table.name] = np.where(needed, time, NO_TIME)
        read[table.name] = channel_rows & needed & (time != NO_TIME)
    zero, end = _bounds_of_stays(schema, placed, times, read)
    step_us = schema.grid.step_minutes * _UNIT_US["minutes"]
    lengths = np.zeros(len(placed.patient_ids), dtype=np.int64)
    grid: dict[str, GridRows] = {}
    for name, time in times.items():
        rows = placed.rows[name]
        on = np.flatnonzero(read[name])
        on = on[zero[rows.patient[on]] != NO_TIME]
        owner = rows.patient[on]
        before, ended = time[on] < zero[owner], time[on] >= end[owner]
        ahead = (time[on] - zero[owner]) // step_us
        beyond = ~ended & (ahead >= schema.horizon)
        for code, some in (("before-start", before), ("after-end", ended), ("after-horizon", beyond)):
            faults.notice(file=rows.source.file, code=code, count=int(some.sum()))
        np.maximum.at(lengths, owner[~before & ~ended], np.minimum(ahead + 1, schema.horizon)[~before & ~ended])
        step = np.full(len(time), OFF_GRID, dtype=np.int64)
        inside = ~before & ~ended & ~beyond
        step[on[inside]] = ahead[inside]
        grid[name] = GridRows(time=time, step=step)
    told = (lengths > 0) & (end != NO_END)
    # Rounded up: a stay of 90 minutes lasts two steps of an hour.
    lengths[told] = np.minimum(-((zero - end)[told] // step_us), schema.horizon)
    return grid, lengths


def fill_channel(
    channel: Channel,
    rows: TableRows,
    grid: GridRows,
    values: npt.NDArray[np.float32],
    observed: npt.NDArray[np.uint8],
    faults: FaultLog,
) -> ChannelCount | None:
    """Fill one channel.

    Args:
        channel: the channel.
        rows: the rows of its table.
        grid: where they are.
        values: the channel's part of the data set, zeros [patients, steps].
        observed: likewise.
        faults: takes what does not fit.

    Returns:
        What became of the values, its ``observed`` and ``steps`` still 0; None if they cannot be read.
    """
    about, fits = rows.about(channel.code), rows.fits(channel.code)
    numbers = None if about is None else _numbers(channel, about, faults)
    if about is None or fits is None or numbers is None:
        return None
    step, time = grid.step[fits], grid.time[fits]
    at = np.flatnonzero((step != OFF_GRID) & ~np.isnan(numbers))
    read = len(at)
    beyond = np.zeros(0, dtype=bool)
    if channel.combine != "sum":
        beyond = _beyond(channel, numbers[at], at, about, faults)
        at = at[~beyond] if channel.outside == "drop" else at
        numbers = channel.bounded(numbers)
    cell = about.patient[at] * values.shape[1] + step[at]
    if len(cell) and np.bincount(cell).max() > 1:
        place = np.zeros_like(step) if about.order is None else about.order
        # The value is a key too: neither what is first nor the rounding of a sum depends on the order of rows.
        keys = (numbers[at], place[at], time[at]) if channel.combine in ("first", "last") else (numbers[at],)
        order = np.lexsort((*keys, cell))
        at, cell = at[order], cell[order]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    combined, cell = _combined(channel, numbers[at], starts), cell[starts]
    if channel.combine == "sum":
        beyond = _beyond(channel, combined, at[starts], about, faults)
        combined, cell = (combined[~beyond], cell[~beyond]) if channel.outside == "drop" else (combined, cell)
    patient, place_in_grid = np.divmod(cell, values.shape[1])
    values[patient, place_in_grid] = channel.scaled(channel.bounded(combined))
    observed[patient, place_in_grid] = 1
    return ChannelCount(
        name=channel.name,
        values=read,
        dropped=int(beyond.sum()) if channel.outside == "drop" else 0,
        clipped=int(beyond.sum()) if channel.outside == "clip" else 0,
        observed=0,
        steps=0,
    )


def _rows_read(rows: TableRows, codes: list[str | None]) -> npt.NDArray[np.bool_]:
    """Rows of somebody in the data set that any of ``codes`` means [rows]."""
    read = np.zeros(len(rows.patient), dtype=bool)
    for code in codes:
        fits = rows.fits(code)
        if fits is not None:
            read |= fits
    return read & (rows.patient >= 0)


def _times(
    table: SeriesTable, rows: TableRows, needed: npt.NDArray[np.bool_], faults: FaultLog
) -> npt.NDArray[np.int64]:
    """Time of each row in microseconds, :data:`NO_TIME` where there is none [rows]; ``needed`` rows must have one."""
    name, unit = table.time, table.time_unit
    column = rows.column(name, faults) if name is not None else None
    if name is None or column is None or unit is None:
        return np.full(len(rows.patient), NO_TIME, dtype=np.int64)
    known = [_timestamp_us(text) if unit == "timestamp" else _number_us(text, unit) for text in column.texts]
    time = np.array([*(NO_TIME if one is None else one for one in known), NO_TIME, NO_TIME], dtype=np.int64)
    times: npt.NDArray[np.int64] = time[column.index]
    # What cannot be read at all is a fault already.
    wrong = np.flatnonzero(needed & (times == NO_TIME) & (column.index >= EMPTY))
    faults.add_rows(
        rows.source.rows[wrong],
        file=rows.source.file,
        column=name,
        code="bad-time",
        expected="an ISO date and time" if unit == "timestamp" else f"a number of {unit}",
        found=lambda i: shown(column.texts[index]) if (index := column.index[wrong[i]]) >= 0 else "nothing",
    )
    return times


def _number_us(text: str, unit: str) -> int | None:
    value = float(text) * _UNIT_US[unit] if is_number(text) else float("nan")
    return round(value) if abs(value) <= MAX_TIME_US else None


def _timestamp_us(text: str) -> int | None:
    """Microseconds since 1970; a time without zone is taken as it stands."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)


def _bounds_of_stays(
    schema: SeriesSchema,
    placed: PlacedTables,
    times: dict[str, npt.NDArray[np.int64]],
    read: dict[str, npt.NDArray[np.bool_]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each patient's time 0 (:data:`NO_TIME` for none) and end (:data:`NO_END` for none) in microseconds [patients].

    Args:
        schema: the public schema.
        placed: the tables.
        times: time of the rows of each table with a time.
        read: which of them a channel reads.
    """
    start, patients = schema.grid.start, len(placed.patient_ids)
    zero = np.zeros(patients, dtype=np.int64)
    end = np.full(patients, NO_END, dtype=np.int64)
    if start != "zero":
        sign = -1 if isinstance(start, Start) and start.combine == "last" else 1
        extreme = np.full(patients, NO_END, dtype=np.int64)
        for name, time in times.items():
            rows = placed.rows[name]
            if isinstance(start, Start):
                some = _rows_read(rows, [start.code] if start.table == name else []) & (time != NO_TIME)
            else:
                some = read[name]
            np.minimum.at(extreme, rows.patient[some], sign * time[some])
        zero = np.where(extreme == NO_END, NO_TIME, sign * extreme)
    if schema.grid.end is not None and schema.grid.end.table in times:
        rows, time = placed.rows[schema.grid.end.table], times[schema.grid.end.table]
        some = _rows_read(rows, [schema.grid.end.code]) & (time != NO_TIME)
        later = np.flatnonzero(some & (time > zero[rows.patient]))
        np.minimum.at(end, rows.patient[later], time[later])
    return zero, end


def _kept_stays(
    stay: Stay, placed: PlacedTables, faults: FaultLog
) -> tuple[dict[str, int], npt.NDArray[np.int64]] | None:
    """Number of each stay by its identifier, and of the stay that each patient keeps, -1 for none [patients]."""
    rows = placed.rows.get(stay.table)
    stays = None if rows is None else rows.column(stay.column, faults)
    if rows is None or stays is None:
        return None
    mine = rows.patient >= 0
    name = stay.order or stay.column
    ordered = order_ranks(rows.source, name, stay.order_form, rows.missing_values, mine, faults)
    if ordered is None:
        return None
    rank = ordered[1] if stay.keep == "last" else -ordered[1]
    some = np.flatnonzero(mine & (stays.index >= 0) & (ordered[1] >= 0))
    chosen = rows.last_by(some, rank[some].astype(np.float64))
    kept = np.where(chosen >= 0, stays.index[chosen], -1)
    equal = rank[some] == rank[chosen[rows.patient[some]]]
    tied = some[equal & (stays.index[some] != kept[rows.patient[some]])]
    rows.fault_cells(tied, stay.column, stays, faults, "bad-order", f"one {stay.keep} stay of a patient by {name}")
    return {text: number for number, text in enumerate(stays.texts)}, kept


def _in_kept_stay(
    stay: Stay,
    rows: TableRows,
    read: npt.NDArray[np.bool_],
    kept: tuple[dict[str, int], npt.NDArray[np.int64]],
    faults: FaultLog,
) -> npt.NDArray[np.bool_]:
    """Which of the rows that are ``read`` belong to the stay that their patient keeps [rows]."""
    stays = rows.column(stay.column, faults)
    if stays is None:
        return read
    empty = np.flatnonzero(read & (stays.index == EMPTY))
    rows.fault_cells(empty, stay.column, None, faults, "missing-value", "a stay in every row that a channel reads")
    number_of, kept_by = kept
    numbers = np.array([*(number_of.get(text, -2) for text in stays.texts), -2, -2], dtype=np.int64)[stays.index]
    belongs: npt.NDArray[np.bool_] = read & (numbers == kept_by[rows.patient])
    return belongs


def _numbers(channel: Channel, rows: TableRows, faults: FaultLog) -> npt.NDArray[np.float64] | None:
    """The number in each row, NaN for none [rows]; None if the column cannot be read."""
    if not (channel.mapping or channel.missing_values or rows.missing_values):
        # No text has a meaning of its own.
        stored = rows.source.numbers(channel.column, faults)
        if stored is not None:
            return stored
    texts = rows.column(channel.column, faults, channel.missing_values)
    if texts is None:
        return None
    numbers = [channel.number(text) for text in texts.texts]
    wrong = [position for position, number in enumerate(numbers) if number is None]
    rows.fault_cells(texts.where(wrong), channel.column, texts, faults, "not-a-number", f"a number, {channel.inside}")
    # The two places after the texts are reached by FAULTY (-2) and EMPTY (-1).
    table = np.array([*(np.nan if number is None else number for number in numbers), np.nan, np.nan])
    in_rows: npt.NDArray[np.float64] = table[texts.index]
    return in_rows


def _beyond(
    channel: Channel, values: npt.NDArray[np.float64], row_of: npt.NDArray[np.intp], rows: TableRows, faults: FaultLog
) -> npt.NDArray[np.bool_]:
    """Which values are out of bounds [k]: faults where the channel says so, shown at the rows ``row_of`` [k]."""
    beyond: npt.NDArray[np.bool_] = (values < float(channel.minimum)) | (values > float(channel.maximum))
    if channel.outside == "fault":
        # In the order of the file, as every list of faults.
        wrong = np.flatnonzero(beyond)[np.argsort(row_of[beyond], kind="stable")]
        faults.add_rows(
            rows.source.rows[row_of[wrong]],
            file=rows.source.file,
            column=channel.column,
            code="out-of-bounds",
            expected=channel.inside,
            found=lambda i: f"{values[wrong[i]]:.15g}" + (" in one step" if channel.combine == "sum" else ""),
        )
    return beyond


def _combined(
    channel: Channel, sorted_values: npt.NDArray[np.float64], first: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """What each step shows [cells] of its sorted values, which begin at ``first`` [cells]."""
    ends = np.append(first, len(sorted_values))[1:]
    combined: npt.NDArray[np.float64]
    if channel.combine in ("first", "min"):
        combined = sorted_values[first]
    elif channel.combine in ("last", "max"):
        combined = sorted_values[ends - 1]
    else:
        combined = np.add.reduceat(sorted_values, first) if len(first) else np.zeros(0)
    return combined / (ends - first) if channel.combine == "mean" else combined
