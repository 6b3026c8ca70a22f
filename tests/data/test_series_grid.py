"""From rows with a time to the grid: by hand, against a row-by-row encoder, and with every fault in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synclave_shared.data.faults import CheckReport
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.reading import load_series, read_series
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import DataError

from .icu import channel, make_schema, scaled, slow_truth, write

COMBINES = ("mean", "first", "last", "min", "max", "sum")


def notices(report: CheckReport) -> dict[str, int]:
    return {notice.code: notice.count for notice in report.notices}


def places(report: CheckReport) -> list[tuple[str, int | None, str | None, str]]:
    return [(fault.file, fault.row, fault.column, fault.code) for fault in report.faults]


def shown(schema: SeriesSchema, dataset: SeriesDataset, position: int = 0) -> list[list[float | None]]:
    """A channel's values in its unit, None where nothing was observed."""
    values = schema.channels[position].unscaled(dataset.values[:, :, position])
    return [
        [round(float(value), 4) if seen else None for value, seen in zip(row, mark, strict=True)]
        for row, mark in zip(values, dataset.observed[:, :, position], strict=True)
    ]


def test_a_grid_by_hand(tmp_path: Path) -> None:
    chart = {
        "person": ["p", "p", "q", "p", "p", "p", "q"],
        # On the border of two steps a row is in the later one; times are neither regular nor sorted.
        "minute": [59.5, 0.0, 120, 60, 119.999, 200, 10],
        "pulse": [20, 10, 7, 40, 50, None, 5],
    }
    schema = make_schema(*(channel(f"pulse_{rule}", column="pulse", combine=rule) for rule in COMBINES))
    dataset, report = read_series(schema, write(tmp_path, chart))
    assert dataset is not None, report.faults
    expected = {
        "mean": [15, 45],
        "first": [10, 40],
        "last": [20, 50],
        "min": [10, 40],
        "max": [20, 50],
        "sum": [30, 90],
    }
    for position, rule in enumerate(COMBINES):
        p, q = shown(schema, dataset, position)
        assert p == [*expected[rule], None, None]
        assert q == [5, None, 7, None]
    # A row in which nothing was recorded shows that the stay went on.
    assert dataset.lengths.tolist() == [4, 3]
    assert dataset.patient_ids == ["p", "q"]
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.static.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert dataset.values[0, 0, 0] == np.float32(-0.7)
    assert not dataset.values[dataset.observed == 0].any()
    assert [(count.values, count.observed, count.steps) for count in report.channels] == [(6, 4, 7)] * 6


def test_of_values_at_one_time_the_order_column_decides_then_the_value(tmp_path: Path) -> None:
    chart = {
        "person": ["p", "p", "p", "q"],
        "minute": [5, 5, 5, 5],
        "row": [3, 1, 2, 1],
        "pulse": [30, 20, 40, 1],
    }
    rules = (channel("a", column="pulse", combine="first"), channel("b", column="pulse", combine="last"))
    for order, expected in (("row", [20, 30]), (None, [20, 40])):
        schema = make_schema(*rules, chart={"order": order})
        dataset = load_series(schema, write(tmp_path / str(order), chart))
        assert [shown(schema, dataset, position)[0][0] for position in (0, 1)] == expected


ROWS = st.lists(
    st.tuples(
        st.sampled_from("pq"),
        st.one_of(st.integers(-60, 320), st.sampled_from([59.9, 60.1, 0.5, 119.9])),
        st.one_of(st.none(), st.sampled_from([-5, 0, 1.25, 30, 64.5, 99.9, 100, 130])),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS, outside=st.sampled_from(["drop", "clip"]), seed=st.integers(0, 100))
def test_the_encoder_agrees_with_row_by_row(
    rows: list[tuple[str, float, float | None]], outside: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [*rows, ("p", 0, 1), ("q", 0, 1)]  # both have a row on the grid
    schema = make_schema(*(channel(rule, column="pulse", combine=rule, outside=outside) for rule in COMBINES))
    rules = [channel(rule, code="PULSE", column="value", combine=rule, outside=outside) for rule in COMBINES]
    long = make_schema(*rules, chart={"code": "what"})
    folder = tmp_path_factory.mktemp("icu")
    mixed = [rows[position] for position in np.random.default_rng(seed).permutation(len(rows))]
    found = []
    for suffix in (".parquet", ".csv"):
        for order in (rows, mixed):
            who, when, value = ([row[part] for row in order] for part in range(3))
            place = folder / f"{suffix[1:]}-{order is rows}"
            when = [float(minute) for minute in when]
            number = [None if one is None else float(one) for one in value]
            found.append(load_series(schema, write(place, {"person": who, "minute": when, "pulse": number}, suffix)))
            events = {"person": who, "minute": when, "what": ["PULSE"] * len(who), "value": number}
            found.append(load_series(long, write(folder / f"long-{place.name}", events, suffix)))
    for other in found[1:]:
        # CSV as Parquet, long as wide, whatever the order of rows: to the last bit.
        assert np.array_equal(other.values, found[0].values)
        assert np.array_equal(other.observed, found[0].observed)
        assert np.array_equal(other.lengths, found[0].lengths)
    for position, one in enumerate(schema.channels):
        truth = slow_truth(one, 60, 4, rows)
        for patient, person in enumerate("pq"):
            for step in range(4):
                value = truth.get((person, step))
                assert found[0].observed[patient, step, position] == (value is not None)
                expected = 0 if value is None else scaled(one, value)
                assert found[0].values[patient, step, position] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("outside", "combine", "expected", "counts"),
    [
        ("drop", "mean", [30, None], (3, 0)),
        ("clip", "mean", [40, 100], (0, 3)),
        # Bounds of a sum hold for the step's total: -1 + 20 + 40 + 101 and 4000.
        ("drop", "sum", [None, None], (2, 0)),
        ("clip", "sum", [100, 100], (0, 2)),
    ],
)
def test_values_out_of_bounds_are_dropped_or_clipped_and_counted(
    tmp_path: Path, outside: str, combine: str, expected: list[float | None], counts: tuple[int, int]
) -> None:
    chart = {
        "person": ["p"] * 6 + ["q"],
        "minute": [0, 1, 2, 3, 60, 500, 0],
        "pulse": [-1, 20, 101, 40, 4000, 9999, 1],
    }
    schema = make_schema(channel(outside=outside, combine=combine))
    dataset, report = read_series(schema, write(tmp_path, chart))
    assert dataset is not None, report.faults
    assert shown(schema, dataset)[0][:2] == expected
    (count,) = report.channels
    # What lies after the horizon is not read, so it is not counted as out of bounds.
    assert (count.values, count.dropped, count.clipped) == (6, *counts)
    assert notices(report) == {"after-horizon": 1}
    assert dataset.lengths.tolist() == [4, 1]


def test_a_skewed_channel_is_even_in_the_logarithm(tmp_path: Path) -> None:
    schema = make_schema(channel(minimum=1, maximum=10_000, transform="log"))
    chart = {"person": ["p", "p", "p", "p", "q"], "minute": [0, 60, 120, 180, 0], "pulse": [1, 100, 10_000, 5, 10]}
    dataset = load_series(schema, write(tmp_path, chart))
    assert dataset.values[0, :3, 0].tolist() == [-1, 0, 1]
    assert dataset.values[1, 0, 0] == np.float32(-0.5)
    assert shown(schema, dataset)[0] == [1, 100, 10_000, 5]


@settings(deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50),
    st.sampled_from([("0", "100", "none"), ("0.05", "500", "log"), ("-40", "40", "none"), ("6.5", "8", "none")]),
)
def test_scaling_is_exact_both_ways(numbers: list[float], bounds: tuple[str, str, str]) -> None:
    low, high, transform = bounds
    one = make_schema(channel(minimum=low, maximum=high, transform=transform)).channels[0]
    values = np.array(numbers, dtype=np.float32)
    real = one.unscaled(values)
    assert np.all((real >= float(low)) & (real <= float(high)))
    assert np.abs(one.scaled(real) - values).max() <= 2**-24


class TestTime:
    """Units of time, and where time 0 is."""

    @pytest.mark.parametrize(
        ("unit", "times"),
        [
            ("seconds", [0, 3599.999, 3600]),
            ("minutes", [0, 59.99, 60]),
            ("hours", [0, 0.999, 1]),
            ("days", [0, 0.0416, 0.041666666667]),
        ],
    )
    def test_every_unit(self, tmp_path: Path, unit: str, times: list[float]) -> None:
        chart = {"person": ["p", "p", "p", "q"], "minute": [*times, 0], "pulse": [10, 20, 30, 1]}
        schema = make_schema(channel(), chart={"time_unit": unit})
        assert shown(schema, load_series(schema, write(tmp_path, chart)))[0][:2] == [15, 30]

    def test_a_border_is_exact_in_decimals(self, tmp_path: Path) -> None:
        # 0.7 h is 42 minutes though 0.7 * 60 * 60 / 360 in floating point is less than 7.
        schema = make_schema(channel(), chart={"time_unit": "hours"}, grid={"step_minutes": 6, "steps": 12})
        chart = {"person": ["p", "p", "p", "q"], "minute": [0.7, 0.3, 1.1, 0], "pulse": [10, 20, 30, 1]}
        row = shown(schema, load_series(schema, write(tmp_path, chart)))[0]
        assert [row.index(value) for value in (10, 20, 30)] == [7, 3, 11]

    def test_timestamps_from_the_first_row(self, tmp_path: Path) -> None:
        stamps = ["2020-02-28T23:30:00", "2020-02-29 00:29:59.999", "2020-02-29 00:30", "2020-01-01"]
        chart = {"person": ["p", "p", "p", "q"], "minute": stamps, "pulse": [10, 20, 30, 1]}
        schema = make_schema(channel(), chart={"time_unit": "timestamp"}, grid={"start": "first-row"})
        dataset = load_series(schema, write(tmp_path / "text", chart))
        assert shown(schema, dataset) == [[15, 30, None, None], [1, None, None, None]]
        zoned = {**chart, "minute": ["2020-02-29T00:30:00+01:00", "2020-02-28T23:40:00Z", stamps[2], stamps[3]]}
        assert shown(schema, load_series(schema, write(tmp_path / "zones", zoned)))[0][:2] == [15, 30]
        typed = {**chart, "minute": np.array([stamp.replace(" ", "T") for stamp in stamps], dtype="datetime64[ms]")}
        assert np.array_equal(load_series(schema, write(tmp_path / "typed", typed)).values, dataset.values)

    def test_the_first_row_is_the_first_that_a_channel_reads(self, tmp_path: Path) -> None:
        chart = {
            "person": ["p", "p", "p", "q"],
            "minute": [0, 100, 160, 30],
            "what": ["VISIT", "PULSE", "PULSE", "PULSE"],
            "value": [None, 10, 20, 1],
        }
        one = channel(code="PULSE", column="value")
        schema = make_schema(one, chart={"code": "what"}, grid={"start": "first-row"})
        dataset, report = read_series(schema, write(tmp_path, chart))
        assert dataset is not None
        assert shown(schema, dataset) == [[10, 20, None, None], [1, None, None, None]]
        assert notices(report) == {"not-read": 1}

    @pytest.mark.parametrize(
        ("combine", "expected", "before"),
        [("first", [10, 20, None, 30], 1), ("last", [30, None, None, None], 3)],
    )
    def test_an_event_is_the_start(
        self, tmp_path: Path, combine: str, expected: list[float | None], before: int
    ) -> None:
        chart = {
            "person": ["p"] * 6 + ["q", "q"],
            "minute": [0, 100, 110, 160, 290, 290, 5, 5],
            "what": ["PULSE", "ADMISSION//A", "PULSE", "PULSE", "PULSE", "ADMISSION//B", "ADMISSION//A", "PULSE"],
            "value": [1, None, 10, 20, 30, None, None, 1],
        }
        start = {"table": "chart", "code": "ADMISSION//*", "combine": combine}
        schema = make_schema(channel(code="PULSE", column="value"), chart={"code": "what"}, grid={"start": start})
        dataset, report = read_series(schema, write(tmp_path, chart))
        assert dataset is not None
        assert shown(schema, dataset)[0] == expected
        assert notices(report) == {"before-start": before}

    def test_another_table_tells_the_start(self, tmp_path: Path) -> None:
        chart = {"person": ["p", "p", "q"], "minute": [100, 170, 5], "pulse": [10, 20, 1]}
        visits = {"person": ["p", "q"], "came": [1.5, 0]}
        tables = [
            {"name": "people", "patient": "person"},
            {"name": "chart", "patient": "person", "time": "minute", "time_unit": "minutes"},
            {"name": "visits", "patient": "person", "time": "came", "time_unit": "hours"},
        ]
        schema = make_schema(channel(), tables=tables, grid={"start": {"table": "visits", "combine": "first"}})
        dataset = load_series(schema, write(tmp_path, chart, visits=visits))
        assert shown(schema, dataset) == [[10, 20, None, None], [1, None, None, None]]

    def test_an_event_is_the_end(self, tmp_path: Path) -> None:
        chart = {
            "person": ["p"] * 5 + ["q"] * 3 + ["r"] * 2,
            "minute": [5, 89, 90, 90, 100, 20, 600, 700, 0, 60],
            "what": ["PULSE", "PULSE", "PULSE", "OUT", "PULSE", "PULSE", "OUT", "PULSE", "OUT", "PULSE"],
            "value": [10, 20, 30, None, 40, 50, None, 60, None, 70],
        }
        people = {"person": ["p", "q", "r"], "died": ["no"] * 3, "sex": ["f"] * 3}
        schema = make_schema(
            channel(code="PULSE", column="value"),
            chart={"code": "what"},
            grid={"end": {"table": "chart", "code": "OUT"}},
        )
        dataset, report = read_series(schema, write(tmp_path, chart, people=people))
        assert dataset is not None, report.faults
        # A row at the very time of the end is after it; an end at time 0 is none of this stay.
        assert shown(schema, dataset) == [[10, 20, None, None], [50, None, None, None], [None, 70, None, None]]
        # 90 minutes are two steps; a stay beyond the horizon has them all, though nothing was observed in most.
        assert dataset.lengths.tolist() == [2, 4, 2]
        assert notices(report) == {"after-end": 3}

    def test_who_has_no_row_on_the_grid(self, tmp_path: Path) -> None:
        chart = {"person": ["p", "q"], "minute": [0, -5], "pulse": [10, 20]}
        dataset, report = read_series(make_schema(), write(tmp_path, chart))
        assert dataset is None
        assert [(fault.code, fault.found) for fault in report.faults] == [("no-series", "1 patients without one")]
        dataset, report = read_series(make_schema(grid={"missing": "leave-out"}), tmp_path)
        assert dataset is not None
        assert dataset.patient_ids == ["p"]
        assert notices(report) == {"before-start": 1, "no-series": 1}
        nobody = write(tmp_path / "nobody", {**chart, "minute": [-1, -5]})
        _, report = read_series(make_schema(grid={"missing": "leave-out"}), nobody)
        assert [fault.code for fault in report.faults] == ["no-patients"]


STAYS: dict[str, list[Any]] = {
    "person": ["p", "p", "p", "q", "q"],
    "stay": [9, 10, 10, 3, 3],
    "minute": [0, 0, 60, 0, 500],
    "pulse": [10, 20, 30, 1, 2],
}


class TestStays:
    """One item is one patient, whatever number of stays."""

    @pytest.mark.parametrize(
        ("keep", "expected", "other"),
        [("first", [10, None, None, None], 2), ("last", [20, 30, None, None], 1)],
    )
    def test_numbers_order_as_numbers(
        self, tmp_path: Path, keep: str, expected: list[float | None], other: int
    ) -> None:
        schema = make_schema(channel(), stay={"table": "chart", "column": "stay", "keep": keep})
        dataset, report = read_series(schema, write(tmp_path, STAYS))
        assert dataset is not None, report.faults
        assert shown(schema, dataset)[0] == expected
        assert notices(report) == {"other-stay": other, "after-horizon": 1}

    def test_a_column_orders_the_stays_of_a_joined_table(self, tmp_path: Path) -> None:
        tables = [
            {"name": "people", "patient": "person"},
            {"name": "chart", "join": {"table": "stays", "column": "stay"}, "time": "minute", "time_unit": "minutes"},
            {"name": "stays", "patient": "person"},
        ]
        stays = {"person": ["p", "p", "q"], "stay": [9, 10, 3], "came": ["2020-05-01", "2019-01-01", "2020-01-01"]}
        rule = {"table": "stays", "column": "stay", "order": "came", "order_form": "text", "keep": "first"}
        schema = make_schema(channel(), tables=tables, stay=rule)
        dataset = load_series(schema, write(tmp_path, STAYS, stays=stays))
        assert shown(schema, dataset)[0] == [20, 30, None, None]
        equal = {**stays, "came": ["2019-01-01", "2019-01-01", "2020-01-01"]}
        _, report = read_series(schema, write(tmp_path, STAYS, stays=equal))
        assert [(fault.file, fault.column, fault.code) for fault in report.faults] == [
            ("stays.parquet", "stay", "bad-order")
        ]

    def test_a_row_without_stay_is_a_fault(self, tmp_path: Path) -> None:
        schema = make_schema(channel(), stay={"table": "chart", "column": "stay", "keep": "first"})
        _, report = read_series(schema, write(tmp_path, {**STAYS, "stay": [9, 10, None, 3, 3]}))
        assert ("chart.parquet", 3, "stay", "missing-value") in places(report)


FAULTY_CELLS: list[tuple[str, list[Any], list[tuple[int | None, str]]]] = [
    ("person", ["p", "x", "q"], [(2, "unknown-patient")]),
    ("person", ["p", None, "q"], [(2, "null-key")]),
    ("minute", [0, None, 1], [(2, "bad-time")]),
    ("minute", ["0", "noon", "1"], [(2, "bad-time")]),
    ("minute", ["0", "1e300", "1"], [(2, "bad-time")]),
    ("minute", [0.0, float("nan"), 1.0], [(2, "not-a-number")]),
    ("pulse", ["1", "fast", "1"], [(2, "not-a-number")]),
    ("pulse", [1.0, float("inf"), float("nan")], [(2, "not-a-number"), (3, "not-a-number")]),
    ("pulse", [1.0, -0.001, 100.001], [(2, "out-of-bounds"), (3, "out-of-bounds")]),
    ("pulse", [[1], [2], [3]], [(None, "wrong-type")]),
]


@pytest.mark.parametrize(("column", "values", "expected"), FAULTY_CELLS)
def test_a_wrong_cell_is_named_by_row_and_column(
    tmp_path: Path, column: str, values: list[Any], expected: list[tuple[int | None, str]]
) -> None:
    chart = {"person": ["p", "p", "q"], "minute": [0, 60, 0], "pulse": [1.0, 2.0, 3.0], column: values}
    schema = make_schema(channel(outside="fault"))
    dataset, report = read_series(schema, write(tmp_path, chart))
    assert dataset is None
    assert places(report) == [("chart.parquet", row, column, code) for row, code in expected]
    assert report.channels == ()
    with pytest.raises(DataError, match="faults"):
        load_series(schema, tmp_path)


def test_a_sum_out_of_bounds_is_one_fault(tmp_path: Path) -> None:
    chart = {"person": ["p", "p", "q"], "minute": [0, 1, 0], "pulse": [60, 50, 3]}
    _, report = read_series(make_schema(channel(outside="fault", combine="sum")), write(tmp_path, chart))
    assert [(fault.code, fault.found) for fault in report.faults] == [("out-of-bounds", "110 in one step")]


def test_faults_in_long_tables_name_the_row_of_the_file(tmp_path: Path) -> None:
    chart = {
        "person": ["p", "p", "q", "q"],
        "minute": [0, 0, 0, None],
        "what": ["TEMP", "PULSE", "PULSE", "OTHER"],
        "value": [1, 200, 1, 1],
    }
    schema = make_schema(channel(code="PULSE", column="value", outside="fault"), chart={"code": "what"})
    _, report = read_series(schema, write(tmp_path, chart))
    # Of a row that no channel reads not even the time is.
    assert places(report) == [("chart.parquet", 2, "value", "out-of-bounds")]


def test_a_missing_column_or_file_is_one_fault(tmp_path: Path) -> None:
    folder = write(tmp_path, {"person": ["p", "q"], "minute": [0, 0]})
    _, report = read_series(make_schema(), folder)
    assert places(report) == [("chart.parquet", None, "pulse", "missing-column")]
    (folder / "chart.parquet").unlink()
    _, report = read_series(make_schema(), folder)
    assert [fault.code for fault in report.faults][:1] == ["missing-file"]


def test_texts_may_stand_for_numbers_or_nothing(tmp_path: Path) -> None:
    chart = {"person": ["p", "p", "p", "q"], "minute": [0, 60, 120, 0], "pulse": ["<5", "-1", "?", "7"]}
    one = channel(mapping={"<5": 4}, missing_values=["-1"])
    schema = make_schema(one, chart={"missing_values": ["?"]})
    dataset = load_series(schema, write(tmp_path, chart))
    assert shown(schema, dataset) == [[4, None, None, None], [7, None, None, None]]
