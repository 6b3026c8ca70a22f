"""Patients as records, so that what compares rows of 0/1 columns compares time series as well.

Legend: N patients, T steps, C channels, S static columns, F numbers of a summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.comparison import Columns, Floor, Table, independent_columns
from synclave_server.evaluation.disclosure import Nearness
from synclave_server.evaluation.series.summaries import summaries
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.filling import filled

__all__ = ["channel_scale", "courses", "independent_courses", "nearness", "present", "records"]

EQUAL: Final = 1e-3
"""Two values are equal if they agree to so much of the scale from -1 to 1: a file in the channel's unit rounds them."""


def records(
    values: NDArray[np.float32],
    observed: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    static: NDArray[np.uint8],
) -> NDArray[Any]:
    """One record per patient [N].

    Args:
        values: from -1 to 1, 0 where nothing was observed [N, T, C].
        observed: 0/1 [N, T, C].
        lengths: steps of the stay [N].
        static: 0/1 [N, S].

    Returns:
        Fields ``values``, ``observed``, ``length``, ``static`` and ``summary`` (:func:`summaries`, [N, F]).
    """
    summary = summaries(values, observed, lengths, static)
    kind = np.dtype(
        [
            ("values", np.float32, values.shape[1:]),
            ("observed", np.uint8, observed.shape[1:]),
            ("length", np.int64),
            ("static", np.uint8, static.shape[1:]),
            ("summary", np.float32, summary.shape[1:]),
        ]
    )
    result = np.empty(len(values), dtype=kind)
    for name, part in zip(kind.names or (), (values, observed, lengths, static, summary), strict=True):
        result[name] = part
    return result


def courses(dataset: SeriesDataset) -> Table:
    """The patients of a data set."""
    return Table(
        features=records(dataset.values, dataset.observed, dataset.lengths, dataset.static), labels=dataset.labels
    )


def present(features: NDArray[Any]) -> NDArray[np.bool_]:
    """Steps of each patient's stay; bool [N, T]."""
    steps = features["values"].shape[1]
    inside: NDArray[np.bool_] = np.arange(steps) < features["length"][:, None]
    return inside


def independent_courses(groups: Sequence[Columns]) -> Floor:
    """Every channel at every step drawn on its own, value or gap, from the patients with the same label.

    Stays keep their label and length. Distributions and shares of observations at each step survive; no relation
    between steps or channels does. Static columns are drawn as
    :func:`~synclave_server.evaluation.comparison.independent_columns` does it.
    """

    def floor(source: Table, rng: np.random.Generator) -> Table:
        features = source.features
        values, observed = np.zeros_like(features["values"]), np.zeros_like(features["observed"])
        inside = present(features)
        channels = np.arange(values.shape[2])
        for label in np.unique(source.labels):
            for step in range(values.shape[1]):
                rows = np.flatnonzero((source.labels == label) & inside[:, step])
                if not len(rows):
                    continue
                donors = rows[rng.integers(len(rows), size=(len(rows), len(channels)))]
                values[rows, step] = features["values"][donors, step, channels]
                observed[rows, step] = features["observed"][donors, step, channels]
        static = independent_columns(Table(features=features["static"], labels=source.labels), groups, rng).features
        return Table(features=records(values, observed, features["length"], static), labels=source.labels)

    return floor


def channel_scale(features: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each channel's observed values [C]; 0 and 1 where they do not vary."""
    observed = features["observed"].astype(np.float64)
    count = np.maximum(observed.sum(axis=(0, 1)), 1)
    mean = features["values"].sum(axis=(0, 1), dtype=np.float64) / count
    variance = ((features["values"] - mean) ** 2 * observed).sum(axis=(0, 1)) / count
    varied = variance > 1e-10
    return (
        np.where(varied, mean, 0).astype(np.float32),
        np.sqrt(np.where(varied, variance, 1)).astype(np.float32),
    )


def nearness(real: Table) -> Nearness:
    """Distance of time series: Euclidean, over values carried forward, observations and static columns.

    Values count in standard deviations of ``real``, so that all channels weigh alike; an observation that the other
    patient does not have counts as much as one standard deviation, and so does a static column.
    """
    scale = channel_scale(real.features)

    def vectors(table: Table) -> NDArray[np.float32]:
        features = table.features
        values = (filled(features["values"], features["observed"]) - scale[0]) / scale[1]
        values *= features["observed"].max(axis=1)[:, None]
        parts = (values, features["observed"], features["static"])
        return np.concatenate([part.reshape(len(table), -1).astype(np.float32) for part in parts], axis=1)

    def identity(table: Table) -> list[bytes]:
        features = table.features
        rounded = np.rint(features["values"] / EQUAL).astype(np.int16)
        parts = (rounded, features["observed"], features["length"], features["static"])
        return [b"".join(part.tobytes() for part in row) for row in zip(*parts, strict=True)]

    def distance(rows: Table, others: Table) -> NDArray[np.float32]:
        a, b = vectors(rows), vectors(others)
        squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
        # Equal patients have a distance of 0, whatever is left of rounding in the difference of large squares.
        squares[squares < 1e-5 * float((a**2).sum(axis=1).max(initial=1.0))] = 0
        result: NDArray[np.float32] = np.sqrt(squares)
        return result

    return Nearness(identity=identity, distance=distance)
