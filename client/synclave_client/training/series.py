"""What training on time series needs beside the loop: the patients of a step, their noise, and their losses."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.training.noise import PatientStreams
from synclave_shared.data.series.filling import filled
from synclave_shared.diffusion.series import SeriesPrior, series_loss, series_posterior
from synclave_shared.model_spec import SeriesSpec
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.layout import SeriesLayout

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset

__all__ = ["SeriesBatch", "SeriesLoss", "context_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesBatch:
    """Some patients, each seen at K noise levels.

    Attributes:
        values: [B, T, C], filled, in standard deviations about the centre.
        observed: [B, T, C], 0/1.
        inside: bool [B, T], the steps of the stay.
        context: [B, S], 0/1.
        labels: [B], label numbers; L where the label is hidden in this step.
        levels: [B, K], standard normal: how much each level hides.
        noise: [B, K, T, 2C], standard normal.
        present: [B], false for rows of padding.
    """

    values: Tensor
    observed: Tensor
    inside: Tensor
    context: Tensor
    labels: Tensor
    levels: Tensor
    noise: Tensor
    present: Tensor

    def __len__(self) -> int:
        return len(self.values)

    @property
    def patient_of_row(self) -> None:
        """None: the first axis is the patient, whose noise levels lie behind it."""
        return None

    def select(self, patients: Tensor) -> Self:
        """The batch of some patients."""
        return type(self)(**{field.name: getattr(self, field.name)[patients] for field in fields(self)})


def context_of(static: NDArray[np.uint8], lengths: NDArray[np.int64], layout: SeriesLayout) -> NDArray[np.uint8]:
    """Context columns [N, S]: the fields' columns, then the length of the stay as a one-hot group."""
    length = (np.arange(layout.steps) == lengths[:, None] - 1).astype(np.uint8)
    return np.concatenate([static, length], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLoss:
    """Mean loss over a patient's K noise levels: averaging before clipping costs no privacy."""

    spec: SeriesSpec
    layout: SeriesLayout
    anchor: SeriesAnchor
    prior: SeriesPrior

    def __call__(self, network: nn.Module, batch: SeriesBatch) -> Tensor:
        """One loss per patient, [B]."""
        spec = self.spec
        sigma = torch.exp(float(spec.log_sigma_mean) + float(spec.log_sigma_std) * batch.levels)
        sigma = sigma.clamp(float(spec.sigma_min), float(spec.sigma_max))
        clean = torch.cat([batch.values, batch.observed], dim=-1)[:, None]
        x = clean + sigma[..., None, None] * batch.noise
        belief = series_posterior(network, x, sigma, batch.labels, batch.context, batch.inside, self.prior)
        return series_loss(belief, batch.values, batch.observed, batch.inside).mean(dim=1)

    def draw(
        self, dataset: SeriesDataset, rows: NDArray[np.int64], size: int, streams: PatientStreams, step: int
    ) -> SeriesBatch:
        """The patients ``rows`` with their noise, padded to ``size`` with patients who are not there.

        Args:
            dataset: the site's patients.
            rows: which of them.
            size: rows of the batch: always the same, or a patient more would round the others in another way.
            streams: the patients' diffusion randomness.
            step: number of the step in the round.
        """
        layout, levels = self.layout, self.spec.noise_levels
        count = len(rows)
        values = np.zeros((size, layout.steps, layout.channels), np.float32)
        observed = np.zeros_like(values)
        lengths, labels = np.ones(size, np.int64), np.zeros(size, np.int64)
        context = np.zeros((size, layout.context.width), np.float32)
        whole = filled(dataset.values[rows], dataset.observed[rows])
        never = ~dataset.observed[rows].any(axis=1)[:, None]
        expected = self.anchor.shift[dataset.labels[rows]][:, None]
        values[:count] = np.where(never, expected, (whole - self.anchor.centre) / self.anchor.scale)
        observed[:count], lengths[:count] = dataset.observed[rows], dataset.lengths[rows]
        labels[:count] = dataset.labels[rows]
        context[:count] = context_of(dataset.static[rows], dataset.lengths[rows], layout)
        coins = np.ones(size)
        normals = np.zeros((size, levels * (1 + 2 * layout.steps * layout.channels)), np.float32)
        coins[:count], normals[:count] = streams.draw(step, rows, normals.shape[1])
        noise = torch.from_numpy(normals)
        hidden = torch.from_numpy(coins < float(self.spec.label_dropout))
        return SeriesBatch(
            values=torch.from_numpy(values),
            observed=torch.from_numpy(observed),
            inside=torch.from_numpy(np.arange(layout.steps) < lengths[:, None]),
            context=torch.from_numpy(context),
            labels=torch.where(hidden, layout.label_values, torch.from_numpy(labels)),
            levels=noise[:, :levels],
            noise=noise[:, levels:].reshape(size, levels, layout.steps, 2 * layout.channels),
            present=torch.arange(size) < count,
        )
