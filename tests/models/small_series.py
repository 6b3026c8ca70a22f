"""A small schema, plan and patients with time series for tests of models, training and sampling."""

from decimal import Decimal
from typing import Any

import numpy as np

from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import Federation, Marginals, Optimiser, Privacy, SeriesSpec, SiteEntry, TrainPlan

STEPS, CHANNELS = 6, ("pulse", "pressure", "lactate")


def series_schema() -> SeriesSchema:
    """Three channels over six hours, sex as one-hot group of two, a label of two values."""
    return SeriesSchema.model_validate(
        {
            "name": "small-series",
            "modality": "series",
            "tables": [
                {"name": "stays", "patient": "patient"},
                {"name": "hours", "patient": "patient", "time": "hour", "time_unit": "hours"},
            ],
            "grid": {"step_minutes": 60, "steps": STEPS, "start": "zero", "missing": "fault"},
            "label": {
                "name": "died",
                "values": ["no", "yes"],
                "table": "stays",
                "column": "died",
                "combine": "any",
                "missing": "fault",
            },
            "fields": [
                {
                    "name": "sex",
                    "kind": "category",
                    "table": "stays",
                    "column": "sex",
                    "vocabulary": [{"code": "f"}, {"code": "m"}],
                    "combine": "highest",
                    "outside": "fault",
                    "missing": "fault",
                }
            ],
            "channels": [
                {
                    "name": name,
                    "table": "hours",
                    "column": name,
                    "unit": "1",
                    "minimum": 0,
                    "maximum": 100,
                    "combine": "mean",
                    "outside": "fault",
                }
                for name in CHANNELS
            ],
        }
    )


SERIES_LAYOUT = SeriesLayout.of(series_schema())


def series_dataset(patients: int, seed: int = 0) -> SeriesDataset:
    """Patients whose channels drift slowly; pulse and pressure go together, lactate is higher with the label."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(patients) < 0.3).astype(np.int64)
    level = rng.normal(0, 0.2, (patients, 1, 3))
    course = level + np.cumsum(rng.normal(0, 0.05, (patients, STEPS, 3)), axis=1)
    course[:, :, 1] = 0.8 * course[:, :, 0] + 0.2 * course[:, :, 1]
    course[:, :, 2] += 0.3 * labels[:, None] - 0.4
    lengths = rng.integers(2, STEPS + 1, patients)
    inside = (np.arange(STEPS) < lengths[:, None])[:, :, None]
    observed = ((rng.random((patients, STEPS, 3)) < [0.9, 0.7, 0.2]) & inside).astype(np.uint8)
    return SeriesDataset(
        values=np.where(observed, np.clip(course, -1, 1), 0).astype(np.float32),
        observed=observed,
        lengths=lengths,
        static=np.eye(2, dtype=np.uint8)[rng.integers(0, 2, patients)],
        labels=labels,
        patient_ids=[f"p{number}" for number in range(patients)],
    )


def series_plan(nominal_patients: int = 200, **changes: dict[str, Any]) -> TrainPlan:
    """A plan of two sites; ``privacy={...}``, ``model=``, ``federation=``, ``optimiser=`` replace single numbers."""
    privacy = {
        "noise_multiplier": Decimal(1),
        "selection_rate": Decimal("0.2"),
        "marginals": Marginals(noise_multiplier=Decimal(1), clip_norm=Decimal(3)),
    }
    schema = series_schema()
    keys = {"north": "A" * 42 + "E=", "south": "A" * 42 + "I="}
    return TrainPlan(
        name="small-series",
        coordinator_key="A" * 43 + "=",
        modality="series",
        schema_name=schema.name,
        schema_digest=schema.digest,
        model=SeriesSpec.model_validate({"noise_levels": 2} | changes.get("model", {})),
        optimiser=Optimiser.model_validate({"learning_rate": Decimal("0.5")} | changes.get("optimiser", {})),
        privacy=Privacy.model_validate(privacy | changes.get("privacy", {})),
        federation=Federation.model_validate({"rounds": 2, "steps_per_round": 2} | changes.get("federation", {})),
        sites=tuple(
            SiteEntry(name=name, public_key=key, nominal_patients=nominal_patients) for name, key in keys.items()
        ),
    )
