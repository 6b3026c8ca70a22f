"""Patients as the plain tensors that published generators of series know, and back.

Values are carried forward within a patient's course (and the first one back), standardised by channel, and bounded to 4
standard deviations; what was never observed is the mean. Beside them stand 0/1 channels: what was observed, whether the
stay still lasts, and the static columns, the same at every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.filling import filled
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.data.series.table import recorded

__all__ = ["Clock", "Draw", "Fitted", "PeerRows", "batches", "from_rows", "to_rows"]

BOUND: Final = 4.0
"""Of a standardised value: an extreme one must not squeeze all others together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRows:
    """N patients, T steps, C channels, F flags, L label values.

    Attributes:
        values: standardised, [N, T, C].
        flags: 0 or 1, [N, T, F]: C of what was observed, one of being there, the static columns.
        labels: one-hot, [N, L].
        mean, deviation: of each channel, to undo the standardising [C].
    """

    values: Tensor
    flags: Tensor
    labels: Tensor
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]


Draw = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""From one-hot labels [M, L] to values [M, T, C] and flags [M, T, F], of which those above .5 are raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A trained peer.

    Attributes:
        draw: draws patients.
        steps: optimiser steps that the time allowed.
        calls: of the network for a patient.
    """

    draw: Draw
    steps: int
    calls: int


class Clock:
    """How much of a peer's time is over, in seconds of a core."""

    def __init__(self, limit_s: float) -> None:
        self._limit, self._begun = limit_s, time.process_time()

    def over(self, share: float = 1.0) -> bool:
        """Whether this share of the time is over."""
        return time.process_time() - self._begun >= share * self._limit


def batches(patients: int, size: int, generator: torch.Generator) -> Callable[[], Tensor]:
    """Positions of a batch, drawn with replacement."""
    return lambda: torch.randint(patients, (size,), generator=generator)


def to_rows(dataset: SeriesDataset, label_values: int) -> PeerRows:
    """Patients as tensors."""
    seen = dataset.observed.astype(bool)
    count = np.maximum(seen.sum(axis=(0, 1)), 1)
    mean = dataset.values.sum(axis=(0, 1), dtype=np.float64) / count
    square = np.where(seen, (dataset.values - mean) ** 2, 0.0).sum(axis=(0, 1)) / count
    deviation = np.maximum(np.sqrt(square), 1e-3)
    ever = seen.any(axis=1)[:, None]
    standard = np.where(ever, (filled(dataset.values, dataset.observed) - mean) / deviation, 0.0)
    there = np.arange(dataset.steps) < dataset.lengths[:, None]
    static = np.repeat(dataset.static[:, None], dataset.steps, axis=1)
    return PeerRows(
        values=torch.from_numpy(np.clip(standard, -BOUND, BOUND).astype(np.float32)),
        flags=torch.from_numpy(np.concatenate([seen, there[..., None], static], axis=2, dtype=np.float32)),
        labels=torch.from_numpy(np.eye(label_values, dtype=np.float32)[dataset.labels]),
        mean=mean.astype(np.float32),
        deviation=deviation.astype(np.float32),
    )


def from_rows(
    schema: SeriesSchema, rows: PeerRows, values: Tensor, flags: Tensor, labels: NDArray[np.int64]
) -> SeriesDataset:
    """Patients from drawn tensors: as long a stay as there are steps with its flag raised, and one value of a field."""
    channels, raised = len(schema.channels), flags.numpy()
    lengths = np.maximum((raised[..., channels] > 0.5).sum(axis=1), 1)
    there = np.arange(schema.horizon) < lengths[:, None]
    observed = ((raised[..., :channels] > 0.5) & there[..., None]).astype(np.uint8)
    means = raised[..., channels + 1 :].mean(axis=1)
    static = np.zeros(means.shape, np.uint8)
    for group in schema.groups:
        block = means[:, group.start : group.stop]
        if group.kind == "categorical":
            static[np.arange(len(block)), group.start + block.argmax(axis=1)] = 1
        else:
            static[:, group.start : group.stop] = block > 0.5
    scaled = np.clip(np.nan_to_num(values.numpy()) * rows.deviation + rows.mean, -1.0, 1.0).astype(np.float32)
    return recorded(
        schema,
        SeriesDataset(
            values=np.where(observed, scaled, np.float32(0.0)),
            observed=observed,
            lengths=lengths.astype(np.int64),
            static=static,
            labels=labels,
            patient_ids=[f"synthetic-{number}" for number in range(len(labels))],
        ),
    )
