"""A drawn patient's time series as a row of bytes, which is how finished parts of a cohort are kept.

::

    ceil((S + T + T * C) / 8) bytes   bits: columns of the fields, length of the stay (one-hot), what was observed
    2 * T * C bytes                   little-endian int16: values, 32,767 for the upper bound of a channel

Values are kept to a 32,767th of half the width of the channel's bounds, finer than any of them is measured.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.models.series.layout import SeriesLayout

__all__ = ["pack_series", "row_bytes", "unpack_series"]

LARGEST: Final = 32_767


def _bit_bytes(layout: SeriesLayout) -> int:
    return -(-(layout.context.width + layout.steps * layout.channels) // 8)


def row_bytes(layout: SeriesLayout) -> int:
    """Bytes of a row."""
    return _bit_bytes(layout) + 2 * layout.steps * layout.channels


def pack_series(
    context: NDArray[np.uint8], observed: NDArray[np.bool_], values: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Rows of bytes.

    Args:
        context: [n, S + T], the fields' columns, then the length.
        observed: [n, T, C].
        values: [n, T, C], -1 to 1; what was not observed is not kept.

    Returns:
        uint8 [n, :func:`row_bytes`].
    """
    patients = len(context)
    bits = np.concatenate([context, observed.reshape(patients, -1).astype(np.uint8)], axis=1)
    numbers = np.rint(np.where(observed, values, 0.0) * LARGEST).astype("<i2").reshape(patients, -1)
    return np.concatenate([np.packbits(bits, axis=1), numbers.view(np.uint8)], axis=1)


def unpack_series(
    rows: NDArray[np.uint8], labels: NDArray[np.int64], ids: list[str], layout: SeriesLayout
) -> SeriesDataset:
    """Patients of rows of bytes; the inverse of :func:`pack_series` up to rounding.

    Args:
        rows: uint8 [n, :func:`row_bytes`].
        labels: [n].
        ids: [n], identifiers.
        layout: of the schema.
    """
    shape = (len(rows), layout.steps, layout.channels)
    at = _bit_bytes(layout)
    bits = np.unpackbits(rows[:, :at], axis=1, count=layout.context.width + layout.steps * layout.channels)
    numbers = np.ascontiguousarray(rows[:, at:]).view("<i2").reshape(shape)
    return SeriesDataset(
        values=(numbers / LARGEST).astype(np.float32),
        observed=bits[:, layout.context.width :].reshape(shape),
        lengths=bits[:, layout.fields : layout.context.width].argmax(axis=1).astype(np.int64) + 1,
        static=bits[:, : layout.fields],
        labels=labels,
        patient_ids=ids,
    )
