"""A small schema, plan and patients for tests of models, training and sampling."""

from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.schema import Schema
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.models.layout import CodeLayout
from synclave_shared.plan import Federation, Marginals, ModelSpec, Optimiser, Privacy, SiteEntry, TrainPlan

CODES = [f"c{number}" for number in range(9)]


def small_schema() -> Schema:
    """Nine codes, a flag-like group of three categories, a label of two values: 12 columns."""
    common = {"table": "visits", "combine": "last", "outside": "fault"}
    return Schema.model_validate(
        {
            "name": "small",
            "modality": "codes",
            "tables": [{"name": "visits", "patient": "patient", "order": "day"}],
            "fields": [
                {
                    "name": "code",
                    "kind": "codes",
                    "table": "visits",
                    "columns": ["code"],
                    "vocabulary": [{"code": code} for code in CODES],
                    "outside": "fault",
                    "missing": "none",
                },
                {
                    "name": "kind",
                    "kind": "category",
                    "column": "kind",
                    "vocabulary": [{"code": value} for value in ("a", "b", "c")],
                    "missing": "fault",
                    **common,
                },
            ],
            "label": {
                "name": "outcome",
                "values": ["no", "yes"],
                "table": "visits",
                "column": "outcome",
                "combine": "any",
                "missing": "fault",
            },
        }
    )


LAYOUT = CodeLayout(width=12, categories=((9, 12),), label_values=2)


def small_rows(patients: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Correlated patients: codes 0 to 2 occur together, code 3 with the label."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(patients) < 0.3).astype(np.int64)
    features = np.zeros((patients, 12), np.uint8)
    together = rng.random(patients) < 0.3
    for code in range(9):
        share = np.where(together, 0.8, 0.1) if code < 3 else np.where(labels == 1, 0.5, 0.1) if code == 3 else 0.15
        features[:, code] = rng.random(patients) < share
    features[np.arange(patients), 9 + rng.integers(0, 3, patients)] = 1
    return features, labels


def small_dataset(patients: int, seed: int = 0) -> PatientDataset:
    features, labels = small_rows(patients, seed)
    return PatientDataset(
        features=SparseRows.of(features), labels=labels, patient_ids=[f"p{i}" for i in range(patients)]
    )


def small_plan(nominal_patients: int = 200, **changes: dict[str, Any]) -> TrainPlan:
    """A plan of two sites; ``privacy={...}``, ``model=``, ``federation=``, ``optimiser=`` replace single numbers."""
    privacy = {
        "noise_multiplier": Decimal(1),
        "clip_norm": Decimal(1),
        "selection_rate": Decimal("0.2"),
        "marginals": Marginals(noise_multiplier=Decimal(1), clip_norm=Decimal(3)),
    }
    model = {"noise_levels": 3}
    schema = small_schema()
    keys = {"north": "A" * 42 + "E=", "south": "A" * 42 + "I="}
    return TrainPlan(
        name="small",
        coordinator_key="A" * 43 + "=",
        schema_name=schema.name,
        schema_digest=schema.digest,
        model=ModelSpec.model_validate(model | changes.get("model", {})),
        optimiser=Optimiser.model_validate(
            {"name": "sgd", "learning_rate": Decimal("0.5")} | changes.get("optimiser", {})
        ),
        privacy=Privacy.model_validate(privacy | changes.get("privacy", {})),
        federation=Federation.model_validate({"rounds": 2, "steps_per_round": 2} | changes.get("federation", {})),
        sites=tuple(
            SiteEntry(name=name, public_key=key, nominal_patients=nominal_patients) for name, key in keys.items()
        ),
    )


def small_copula_plan(**privacy: Any) -> TrainPlan:
    """The same two sites, a copula in place of a training."""
    plan = small_plan().model_dump(mode="json")
    fields = {"noise_multiplier": "2", "clip_norm": "0.5", "marginals": plan["privacy"]["marginals"]} | privacy
    return TrainPlan.model_validate(
        plan | {"model": {"kind": "copula"}, "optimiser": {}, "federation": {}, "privacy": fields}
    )
