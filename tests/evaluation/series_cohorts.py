"""Small cohorts of time series with a known structure, and a schema for them."""

from __future__ import annotations

import dataclasses

import numpy as np

from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.schema import SeriesSchema

STEPS = 12
CHANNELS = ("heart_rate", "pressure", "lactate", "urine")
SHARES = np.array([0.95, 0.9, 0.35, 0.6])


def make_series_schema(first_title: str = "Heart rate", steps: int = STEPS) -> SeriesSchema:
    """Four channels by the hour, a ward and a label of two values."""
    channel = {"table": "hours", "minimum": 0, "maximum": 200, "combine": "last", "outside": "fault"}
    return SeriesSchema.model_validate(
        {
            "name": "ward",
            "modality": "series",
            "title": "Toy stays",
            "tables": [
                {"name": "patients", "patient": "id"},
                {"name": "hours", "patient": "id", "time": "hour", "time_unit": "hours"},
            ],
            "grid": {"step_minutes": 60, "steps": steps, "start": "zero", "missing": "fault"},
            "fields": [
                {
                    "kind": "category",
                    "name": "ward",
                    "title": "Ward",
                    "table": "patients",
                    "column": "ward",
                    "combine": "highest",
                    "vocabulary": [{"code": "medical"}, {"code": "surgical"}],
                    "outside": "fault",
                    "missing": "fault",
                }
            ],
            "channels": [
                {
                    **channel,
                    "name": name,
                    "title": first_title if name == CHANNELS[0] else name.title(),
                    "column": name,
                    "unit": "1/min",
                    **({"transform": "log", "minimum": 1} if name == "lactate" else {}),
                }
                for name in CHANNELS
            ],
            "label": {
                "name": "died",
                "values": ("no", "yes"),
                "table": "patients",
                "column": "died",
                "combine": "any",
                "missing": "fault",
            },
        }
    )


def make_series(patients: int, seed: int, prefix: str = "p", steps: int = STEPS) -> SeriesDataset:
    """Four channels that follow one slowly wandering condition, with noise of their own; bad conditions are fatal."""
    rng = np.random.default_rng(seed)
    condition = np.zeros((patients, steps))
    condition[:, 0] = rng.normal(size=patients)
    for step in range(1, steps):
        condition[:, step] = 0.95 * condition[:, step - 1] + 0.3 * rng.normal(size=patients)
    weights = np.array([0.3, -0.3, 0.25, -0.15])
    own = rng.normal(size=(patients, 1, 4)) * 0.1 + rng.normal(size=(patients, steps, 4)) * 0.05
    values = np.clip(condition[:, :, None] * weights * 0.6 + own, -1, 1)
    lengths = rng.integers(max(steps // 2, 1), steps + 1, patients)
    busy = rng.normal(size=(patients, 1, 1)) * 0.1
    observed = rng.random(values.shape) < np.clip(SHARES + busy, 0.02, 1)
    observed &= (np.arange(steps) < lengths[:, None])[:, :, None]
    labels = rng.random(patients) < 1 / (1 + np.exp(-2.5 * (condition.mean(axis=1) - 0.9)))
    return SeriesDataset(
        values=np.where(observed, values, 0).astype(np.float32),
        observed=observed.astype(np.uint8),
        lengths=lengths.astype(np.int64),
        static=np.eye(2, dtype=np.uint8)[rng.integers(0, 2, patients)],
        labels=labels.astype(np.int64),
        patient_ids=[f"{prefix}{seed}-{row}" for row in range(patients)],
    )


def changed(dataset: SeriesDataset, **parts: np.ndarray) -> SeriesDataset:
    """The data set with other arrays; values are taken away where nothing is observed."""
    result = {f.name: getattr(dataset, f.name) for f in dataclasses.fields(dataset)} | parts
    ended = np.arange(dataset.steps) >= result["lengths"][:, None]
    result["observed"] = (result["observed"] * ~ended[:, :, None]).astype(np.uint8)
    result["values"] = (result["values"] * result["observed"]).astype(np.float32)
    return SeriesDataset(**result)


def mixed_channels(dataset: SeriesDataset, seed: int = 0) -> SeriesDataset:
    """Every channel's course from another patient: what a channel does in time stays, relations between them do not."""
    rng = np.random.default_rng(seed)
    order = [rng.permutation(len(dataset)) for _ in CHANNELS]
    lengths = np.full(len(dataset), dataset.steps, dtype=np.int64)
    return changed(
        dataset,
        values=np.stack([dataset.values[rows, :, c] for c, rows in enumerate(order)], axis=2),
        observed=np.stack([dataset.observed[rows, :, c] for c, rows in enumerate(order)], axis=2),
        lengths=lengths,
    )


def mixed_steps(dataset: SeriesDataset, seed: int = 0) -> SeriesDataset:
    """The steps of each stay in random order: channels keep their relations at a step, not those over time."""
    rng = np.random.default_rng(seed)
    order = np.stack([np.r_[rng.permutation(n), np.arange(n, dataset.steps)] for n in dataset.lengths.tolist()])[
        :, :, None
    ]
    return changed(
        dataset,
        values=np.take_along_axis(dataset.values, order, axis=1),
        observed=np.take_along_axis(dataset.observed, order, axis=1),
    )


def frozen(dataset: SeriesDataset) -> SeriesDataset:
    """Every channel constant in time at the patient's mean."""
    count = np.maximum(dataset.observed.sum(axis=1), 1)
    mean = dataset.values.sum(axis=1) / count
    return changed(dataset, values=np.broadcast_to(mean[:, None], dataset.values.shape))
