"""Training on time series at a site: the noisy moments of the first round, then the patients of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synclave_client.performance import Performance
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.loop import run_steps
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private.batch import PatientBatch
from synclave_client.training.release import release_sum
from synclave_shared.data.shares import places, share_of
from synclave_shared.diffusion.series import SeriesPrior, series_loss, series_posterior
from synclave_shared.errors import DataError, PlanError
from synclave_shared.model_spec import SeriesSpec
from synclave_shared.models.patient_tensors import PatientTensors
from synclave_shared.models.series.anchor import SeriesAnchor, contributions
from synclave_shared.models.series.completion import DRAWS, Completion
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.standard import StandardRows
from synclave_shared.plan import MARGINALS_ROUND, TrainPlan

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset

__all__ = [
    "SeriesBatch",
    "SeriesLearner",
    "SeriesLoss",
    "release_series_marginals",
    "series_spec",
    "train_series_round",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesBatch(PatientTensors):
    """Some patients, each seen at K noise levels.

    Attributes:
        row: [B, T, 2C], normal scores, of which gaps are drawn, then latent gaps.
        observed: [B, T, C], 0/1.
        inside: bool [B, T], the steps of the stay.
        context: [B, S], 0/1.
        labels: [B], label numbers; L where the label is hidden in this step.
        levels: [B, K], standard normal: how much each level hides.
        noise: [B, K, T, 2C], standard normal.
    """

    row: Tensor
    observed: Tensor
    inside: Tensor
    context: Tensor
    labels: Tensor
    levels: Tensor
    noise: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLoss:
    """Mean loss over a patient's K noise levels: averaging before clipping costs no privacy."""

    spec: SeriesSpec
    layout: SeriesLayout
    anchor: SeriesAnchor
    prior: SeriesPrior
    completion: Completion

    @classmethod
    def of(
        cls, spec: SeriesSpec, layout: SeriesLayout, anchor: SeriesAnchor, device: torch.device | str = "cpu"
    ) -> Self:
        """The loss about an anchor, computed on a device."""
        prior = SeriesPrior.of(anchor, device)
        return cls(spec=spec, layout=layout, anchor=anchor, prior=prior, completion=Completion.of(anchor))

    def __call__(self, network: nn.Module, batch: SeriesBatch) -> Tensor:
        """One loss per patient, [B]."""
        spec = self.spec
        sigma = torch.exp(float(spec.log_sigma_mean) + float(spec.log_sigma_std) * batch.levels)
        sigma = sigma.clamp(float(spec.sigma_min), float(spec.sigma_max))
        x = batch.row[:, None] + sigma[..., None, None] * batch.noise
        belief = series_posterior(
            network, x, sigma, batch.labels, batch.context, self.prior, self.prior.stays(batch.inside)
        )
        return series_loss(belief, batch.row, batch.observed, batch.inside).mean(dim=1)

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
        layout, levels, count = self.layout, self.spec.noise_levels, len(rows)
        seen = StandardRows.of(dataset, rows, self.anchor, layout, size)
        coins = np.ones(size)
        cells = layout.steps * layout.channels
        normals = np.zeros((size, levels * (1 + 2 * cells) + DRAWS * cells), np.float32)
        coins[:count], normals[:count] = streams.draw(step, rows, normals.shape[1])
        drawn, noise, unknown = np.split(normals, [levels, levels * (1 + 2 * cells)], axis=1)
        unknown = unknown.reshape(size, DRAWS, layout.steps, layout.channels)
        row = np.zeros((size, layout.steps, 2 * layout.channels), np.float32)
        for place in range(count):
            row[place] = self.completion.complete(
                seen.values[place],
                seen.observed[place],
                int(seen.inside[place].sum()),
                int(seen.labels[place]),
                seen.context[place],
                unknown[place],
            )
        labels = torch.from_numpy(seen.labels)
        hidden = torch.from_numpy(coins < float(self.spec.label_dropout))
        return SeriesBatch(
            row=torch.from_numpy(row),
            observed=torch.from_numpy(seen.observed),
            inside=torch.from_numpy(seen.inside),
            context=torch.from_numpy(seen.context),
            labels=torch.where(hidden, layout.label_values, labels),
            levels=torch.from_numpy(drawn),
            noise=torch.from_numpy(noise).reshape(size, levels, layout.steps, 2 * layout.channels),
            present=torch.from_numpy(places(dataset.shares, rows, size)),
        )


def values_of(spec: SeriesSpec, layout: SeriesLayout) -> int:
    """Numbers that a patient takes in a tile: the network's input at every level, and its process."""
    return layout.channels * layout.steps * (3 * spec.noise_levels + 4 * layout.channels)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesLearner:
    """The site's time series; see :class:`synclave_client.training.loop.Learner`."""

    network: nn.Module
    objective: SeriesLoss
    dataset: SeriesDataset
    device: torch.device | str

    @property
    def values(self) -> int:
        """Numbers of one patient at the network's input."""
        return values_of(self.objective.spec, self.objective.layout)

    def __len__(self) -> int:
        return len(self.dataset)

    def loss(self, network: nn.Module, batch: PatientBatch, /) -> Tensor:
        """One loss per patient, [B]."""
        assert isinstance(batch, SeriesBatch)  # noqa: S101 - made below
        return self.objective(network, batch)

    def batch(self, rows: NDArray[np.int64], size: int, streams: PatientStreams, step: int) -> SeriesBatch:
        """Some patients with their noise, padded to ``size``."""
        return self.objective.draw(self.dataset, rows, size, streams, step).to(self.device)


def series_spec(plan: TrainPlan) -> SeriesSpec:
    """The model of a plan for time series.

    Raises:
        PlanError: if the plan is for another modality.
    """
    if isinstance(plan.model, SeriesSpec):
        return plan.model
    raise PlanError(
        expected="a plan with model.kind = series, as the installed schema's modality is",
        found=f"model.kind = {plan.model.kind}",
        remedy="Use a plan of the schema's modality.",
    )


def release_series_marginals(
    plan: TrainPlan,
    layout: SeriesLayout,
    dataset: SeriesDataset,
    randomness: SecretRandomness,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """The site's noisy moments, by :func:`synclave_client.training.release.release_sum`.

    Args:
        plan: the accepted plan; it fixes clip norm and noise.
        layout: of the schema.
        dataset: the site's patients.
        randomness: the site's secret randomness.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [:func:`~synclave_shared.models.series.anchor.moments_size`], fixed point.

    Raises:
        PlanError: if the plan has no marginals release.
    """
    if plan.privacy.marginals is None:
        raise PlanError(
            expected="a plan with a marginals release", found="none", remedy="Start this plan with round 1."
        )
    mechanism = plan.mechanism(MARGINALS_ROUND)
    clip_norm = float(mechanism.clip_norm)

    def alone(patient: int) -> tuple[float, float]:
        own = contributions(dataset.select(np.array([patient])), layout, clip_norm)
        return float(np.linalg.norm(own)), share_of(dataset.shares, patient)

    return release_sum(contributions(dataset, layout, clip_norm), mechanism, len(dataset), alone, randomness, watch)


def train_series_round(
    plan: TrainPlan,
    site_name: str,
    layout: SeriesLayout,
    dataset: SeriesDataset,
    model_vector: NDArray[np.float32],
    anchor: SeriesAnchor,
    device: torch.device | str,
    randomness: SecretRandomness,
    performance: Performance | None = None,
    watch: RoundWatch | None = None,
) -> NDArray[np.int64]:
    """One round on time series; see :func:`synclave_client.training.loop.run_steps`.

    Args:
        plan: the accepted plan.
        site_name: this site in the plan's roster.
        layout: of the schema.
        dataset: the site's patients.
        model_vector: [P], the global model.
        anchor: of the marginals round.
        device: where to compute.
        randomness: the site's secret randomness.
        performance: how to compute; changes cost only.
        watch: stands beside the round; the vault judges what it saw before anything leaves.

    Returns:
        [P], fixed point.

    Raises:
        DataError: if the data does not have the schema's shape.
        PlanError: if the plan is for another modality.
    """
    if dataset.values.shape[1:] != (layout.steps, layout.channels) or dataset.static.shape[1] != layout.fields:
        raise DataError(
            expected=f"{layout.steps} steps, {layout.channels} channels and {layout.fields} columns",
            found=f"{dataset.values.shape[1:]} and {dataset.static.shape[1]}",
            remedy="Load the data with the schema of the plan.",
        )
    spec = series_spec(plan)
    learner = SeriesLearner(
        network=build_series_denoiser(layout, spec).to(device),
        objective=SeriesLoss.of(spec, layout, anchor, device),
        dataset=dataset,
        device=device,
    )
    return run_steps(plan, site_name, learner, model_vector, randomness, performance or Performance(), watch)
