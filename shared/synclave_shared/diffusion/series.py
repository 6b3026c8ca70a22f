"""Posterior of a time series seen through Gaussian noise: scores and latent gaps as one Gaussian process.

A patient's row is, per step and channel, the value in normal scores (drawn where it was not measured) and a latent gap,
above 0 where it was measured. All numbers get noise of one level. What the anchor says of it is exact: of a Gaussian
process with covariance R the posterior mean is ``m + R (R + sigma^2 I)^-1 (x - m)``. The network corrects it in units
of the posterior's standard deviation, so that its loss has about the same size at every level (Karras et al. 2022,
section 5).

Shapes: ``B`` patients, ``K`` noise levels, ``T`` steps, ``C`` channels, ``L`` label values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.process import cosines, covariances, expectations

__all__ = ["Belief", "SeriesPrior", "Stays", "series_loss", "series_posterior", "series_start"]

FILLED_WEIGHT = 0.3
"""Weight of a value that was drawn for a gap, beside 1 of one that was measured."""

LEAST_VARIANCE = 1e-3
"""Of a combination of quantities in a cosine: none is held to be known exactly."""

SeriesNetwork = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPrior:
    """The anchor as tensors; the hidden label's rows are the mean over the label values.

    Attributes:
        expected: means of scores, then of latent gaps, [L + 1, T, 2C].
        effect: change of the stay's means per column of context, [S, 2C].
        usual: the context about which that is, [S].
        basis: orthonormal cosines over the steps of a stay, by its length, 0 beyond it; [T + 1, T, T].
        powers: variance of each quantity in each cosine, by length, [T + 1, T, 2C].
        variances: eigenvalues of the quantities' covariance in each cosine, by length, [T + 1, T, 2C].
        modes: its eigenvectors, [T + 1, T, 2C, 2C], the last axis numbering them.
    """

    expected: Tensor
    effect: Tensor
    usual: Tensor
    basis: Tensor
    powers: Tensor
    variances: Tensor
    modes: Tensor

    @classmethod
    def of(cls, anchor: SeriesAnchor, device: torch.device | str = "cpu") -> Self:
        """The tensors of an anchor."""
        channels, steps = anchor.inertia.shape
        basis = torch.zeros(steps + 1, steps, steps)
        powers = torch.ones(steps + 1, steps, 2 * channels)
        variances = torch.ones(steps + 1, steps, 2 * channels)
        modes = torch.zeros(steps + 1, steps, 2 * channels, 2 * channels)
        for length in range(1, steps + 1):
            blocks = covariances(anchor, length)
            values, vectors = np.linalg.eigh(blocks)
            powers[length, :length] = torch.from_numpy(np.diagonal(blocks, axis1=1, axis2=2).copy()).float()
            basis[length, :length, :length] = torch.from_numpy(cosines(length)).float()
            variances[length, :length] = torch.from_numpy(np.maximum(values, LEAST_VARIANCE)).float()
            modes[length, :length] = torch.from_numpy(vectors).float()
        expected = torch.from_numpy(expectations(anchor)).float()
        return cls(
            expected=torch.cat([expected, expected.mean(dim=0, keepdim=True)]).to(device),
            usual=torch.from_numpy(anchor.relations.usual).to(device),
            effect=torch.from_numpy(anchor.relations.effect).to(device),
            basis=basis.to(device),
            powers=powers.to(device),
            variances=variances.to(device),
            modes=modes.to(device),
        )

    def mean(self, labels: Tensor, context: Tensor) -> Tensor:
        """What is expected under label and context, [B, T, 2C]."""
        return self.expected[labels] + ((context - self.usual) @ self.effect)[:, None]

    def stays(self, inside: Tensor) -> Stays:
        """The process of patients who are there in the steps ``inside``, bool [B, T]."""
        length = inside.sum(dim=1)
        return Stays(
            inside=inside,
            basis=self.basis[length],
            powers=self.powers[length],
            variances=self.variances[length],
            modes=self.modes[length],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stays:
    """The process of some patients, as in :class:`SeriesPrior`: many numbers, which samplers need again and again.

    Attributes:
        inside: the steps of the stay, bool [B, T].
        basis: [B, T, T].
        powers, variances: [B, T, 2C].
        modes: [B, T, 2C, 2C].
    """

    inside: Tensor
    basis: Tensor
    powers: Tensor
    variances: Tensor
    modes: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What is believed of the clean row.

    Attributes:
        row: posterior means of scores, then of latent gaps; [B, K, T, 2C].
        spread: about its standard deviations, [B, K, T, 2C].
    """

    row: Tensor
    spread: Tensor

    def shown(self) -> Tensor:
        """Scores, then the probabilities of being measured; [B, K, T, 2C]."""
        scores, gaps = self.row.chunk(2, dim=-1)
        return torch.cat([scores, torch.special.ndtr(gaps / self.spread[..., gaps.shape[-1] :])], dim=-1)


def _through_noise(x: Tensor, sigma: Tensor, stays: Stays) -> tuple[Tensor, Tensor]:
    """Posterior mean of the centred process seen as ``x`` [B, K, T, 2C] at ``sigma`` [B, K], and its usual deviation.

    The deviation is what a quantity's own inertia leaves open, whatever the others say: a scale that varies little.
    What stands after the end of a stay tells nothing of it; there the mean is 0 and the deviation 1.
    """
    noise = sigma.square()[..., None, None]
    gain = stays.variances[:, None] / (stays.variances[:, None] + noise)
    parts = torch.matmul(stays.basis.transpose(1, 2)[:, None], x).transpose(1, 2)
    told = torch.matmul(torch.matmul(parts, stays.modes) * gain.transpose(1, 2), stays.modes.transpose(-1, -2))
    mean = torch.matmul(stays.basis[:, None], told.transpose(1, 2))
    left = stays.powers[:, None] * noise / (stays.powers[:, None] + noise)
    variance = torch.matmul(stays.basis.square()[:, None], left)
    return mean, torch.where(stays.inside[:, None, :, None], variance, 1.0).sqrt()


def series_start(
    noise: Tensor, sigma: float, labels: Tensor, context: Tensor, prior: SeriesPrior, stays: Stays
) -> Tensor:
    """Rows seen through the noise of the first level, drawn as if all were Gaussian.

    That is their law to first order, so that sampling can begin at a level where not all is noise.

    Args:
        noise: [B, T, 2C], standard normal.
        sigma: the level.
        labels: [B], label numbers.
        context: [B, S], 0/1.
        prior: of the anchor.
        stays: the patients' process.

    Returns:
        [B, T, 2C].
    """
    deviation = (stays.variances + sigma**2).sqrt()
    parts = torch.matmul(stays.modes, (deviation * noise)[..., None])[..., 0]
    return prior.mean(labels, context) + torch.matmul(stays.basis, parts)


def series_posterior(
    network: SeriesNetwork,
    x: Tensor,
    sigma: Tensor,
    labels: Tensor,
    context: Tensor,
    prior: SeriesPrior,
    stays: Stays,
) -> Belief:
    """The denoiser: what is believed of clean rows given noisy ones.

    Args:
        network: :class:`synclave_shared.models.series.denoiser.SeriesDenoiser`.
        x: [B, K, T, 2C], noisy scores, then noisy latent gaps.
        sigma: [B, K].
        labels: [B], label numbers; L for a hidden label.
        context: [B, S], 0/1.
        prior: of the anchor.
        stays: the patients' process.
    """
    expected = prior.mean(labels, context)[:, None]
    surprise, spread = _through_noise(x - expected, sigma, stays)
    visible = torch.reciprocal(1.0 + sigma.square())
    noisy = (x - expected) * visible.sqrt()[..., None, None]
    correction = network(noisy[..., : x.shape[-1] // 2], surprise, visible, labels, context, stays.inside)
    # With the right means and covariances the process knows all up to second order in 1 / sigma^2: what a network adds
    # where nearly all is noise is its own error, which would add up over the levels of a sampler.
    return Belief(row=expected + surprise + spread * visible[..., None, None] * correction, spread=spread)


def series_loss(belief: Belief, row: Tensor, observed: Tensor, inside: Tensor) -> Tensor:
    """Squared errors in units of the posterior's spread, per step of the stay.

    Args:
        belief: of the noisy rows.
        row: [B, T, 2C], completed scores and latent gaps.
        observed: [B, T, C], 0/1.
        inside: bool [B, T]; what comes after the stay counts nowhere.

    Returns:
        [B, K]: a mean over steps, so that a long stay weighs as much as a short one.
    """
    within = inside[:, None, :, None]
    weight = torch.cat([FILLED_WEIGHT + (1.0 - FILLED_WEIGHT) * observed, torch.ones_like(observed)], dim=-1)[:, None]
    squares = ((belief.row - row[:, None]) / belief.spread).square()
    return 0.5 * torch.where(within, weight * squares, 0.0).sum(dim=(2, 3)) / within.sum(dim=(2, 3))
