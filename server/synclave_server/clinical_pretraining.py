"""A clinical model trained without privacy: on public patients, or on synthetic ones to see what they teach.

See :mod:`synclave_server.pretraining` for what must never be given to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_server.pretraining import FitSettings, Precision, PretrainedModel, fit
from synclave_shared.errors import DataError
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import SeriesAnchor, anchor_from_moments, contributions
from synclave_shared.models.series.classifier import build_series_classifier
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.standard import StandardRows

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset
    from synclave_shared.data.series.schema import SeriesSchema
    from synclave_shared.plan import ClassifierSpec

__all__ = ["label_counts", "pretrain_classifier"]

SETTINGS: Final[FitSettings] = {
    "steps": 600,
    "batch_size": 512,
    "learning_rate": 3e-3,
    "weight_decay": 0.2,
    "ema": 0.99,
    "seed": 0,
}

PATIENTS_AT_ONCE: Final = 4096
"""Patients whose gaps are filled together: bounds what filling takes beside its result."""


def pretrain_classifier(
    schema: SeriesSchema,
    dataset: SeriesDataset,
    spec: ClassifierSpec,
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    **settings: Unpack[FitSettings],
) -> PretrainedModel:
    """Train a clinical model by :func:`synclave_server.pretraining.fit`; the anchor is that of the same patients.

    Args:
        schema: channels, fields and label values.
        dataset: synthetic or public patients.
        spec: the network.
        device: where to compute.
        precision: what the network computes in.
        **settings: of that; what is left away is of :data:`SETTINGS`.

    Raises:
        ConfigurationError: if the loss does not stay finite.
        DataError: if there are no patients, or none with one of the label values.
    """
    if not len(dataset):
        raise DataError(expected="at least one patient", found="none", remedy="Check the data folder.")
    patients_of = label_counts(schema, dataset)
    if not all(patients_of.values()):
        raise DataError(
            expected=f"patients with every value of {schema.label.name}",
            found=f"none with {', '.join(value for value, patients in patients_of.items() if not patients)}",
            remedy="Add such patients: what is never seen cannot be learnt.",
        )
    layout = SeriesLayout.of(schema)
    moments = contributions(dataset, layout, clip_norm=float("inf"))
    anchor, shares = anchor_from_moments(moments, layout, noise_std=0.0)
    network = build_series_classifier(layout, spec).to(device)

    *inputs, labels = _seen(dataset, anchor, layout)

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(*(part[rows].to(device) for part in inputs))
        return nn.functional.cross_entropy(logits.float(), labels[rows].to(device))

    fit(network, loss_of, len(dataset), **(SETTINGS | settings))
    return PretrainedModel(
        parameters=parameter_vector(network), anchor=anchor.to_vector(), label_shares=shares.astype(np.float32)
    )


def label_counts(schema: SeriesSchema, dataset: SeriesDataset) -> dict[str, int]:
    """How many patients have each label value."""
    counts = np.bincount(dataset.labels, minlength=len(schema.label.values)).tolist()
    return dict(zip(schema.label.values, counts, strict=True))


def _seen(dataset: SeriesDataset, anchor: SeriesAnchor, layout: SeriesLayout) -> list[Tensor]:
    """What the network is shown of all patients, and their labels: filling gaps again in every step takes longer."""
    places = np.arange(len(dataset))
    parts = [
        StandardRows.of(dataset, places[first : first + PATIENTS_AT_ONCE], anchor, layout)
        for first in range(0, len(dataset), PATIENTS_AT_ONCE)
    ]
    names = ("values", "observed", "context", "inside", "labels")
    return [torch.from_numpy(np.concatenate([getattr(part, name) for part in parts])) for name in names]
