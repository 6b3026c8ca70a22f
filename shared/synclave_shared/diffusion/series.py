"""Posterior of a time series seen through Gaussian noise: values by a Gaussian process, gaps by Bernoulli.

A patient's row is, per step and channel, the value (drawn where it was not measured, in normal
scores) and whether it was measured. All numbers get noise of one level. What independent channels say of it is exact:
of a stationary Gaussian process with covariance R the posterior mean is ``m + R (R + sigma^2 I)^-1 (x - m)``, of a 0/1
number the logit ``logit(p) + (x - 1/2) / sigma^2``. The network corrects both, the former in units of the posterior's
standard deviation, so that its loss has about the same size at every level (Karras et al. 2022, section 5).

Shapes: ``B`` patients, ``K`` noise levels, ``T`` steps, ``C`` channels, ``L`` label values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from synclave_shared.diffusion.losses import bernoulli_nats
from synclave_shared.diffusion.preconditioning import LOGIT_BOUND, sigmoid
from synclave_shared.models.series.anchor import LEAST_INERTIA, SeriesAnchor

__all__ = ["Belief", "SeriesPrior", "series_loss", "series_posterior", "series_start"]

FILLED_WEIGHT = 0.3
"""Weight of a value that was drawn for a gap, beside 1 of one that was measured."""

SeriesNetwork = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPrior:
    """The anchor as tensors; the hidden label's rows are the mean over the label values.

    Attributes:
        observed: logits, [L + 1, C].
        shift: means, in normal scores, [L + 1, C].
        variances: eigenvalues of each channel's covariance over the steps of a stay, by its length; [T + 1, C, T].
        modes: its eigenvectors, 0 after the end of the stay; [T + 1, C, T, T], the last axis numbering them.
    """

    observed: Tensor
    shift: Tensor
    variances: Tensor
    modes: Tensor

    @classmethod
    def of(cls, anchor: SeriesAnchor, device: torch.device | str = "cpu") -> Self:
        """The tensors of an anchor."""
        inertia = torch.from_numpy(anchor.inertia.astype("float64"))
        channels, steps = inertia.shape
        lag = (torch.arange(steps)[:, None] - torch.arange(steps)).abs()
        variances = torch.ones(steps + 1, channels, steps)
        modes = torch.zeros(steps + 1, channels, steps, steps)
        for length in range(1, steps + 1):
            values, vectors = torch.linalg.eigh(inertia[:, lag[:length, :length]])
            variances[length, :, :length] = values.clamp_min(LEAST_INERTIA).float()
            modes[length, :, :length, :length] = vectors.float()
        logits = torch.from_numpy(anchor.observed)
        hidden = torch.logit(sigmoid(logits).mean(dim=0, keepdim=True).clamp(1e-7, 1 - 1e-7))
        shift = torch.from_numpy(anchor.shift)
        return cls(
            observed=torch.cat([logits, hidden]).to(device),
            shift=torch.cat([shift, shift.mean(dim=0, keepdim=True)]).to(device),
            variances=variances.to(device),
            modes=modes.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What is believed of the clean row.

    Attributes:
        values: posterior means, [B, K, T, C].
        spread: standard deviations of independent channels' posteriors, [B, K, T, C].
        observed: posterior logits of being measured, [B, K, T, C].
    """

    values: Tensor
    spread: Tensor
    observed: Tensor

    def mean(self) -> Tensor:
        """The posterior mean of the row, [B, K, T, 2C]: what samplers ask for."""
        return torch.cat([self.values, sigmoid(self.observed)], dim=-1)


def _through_noise(x: Tensor, sigma: Tensor, inside: Tensor, prior: SeriesPrior) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of centred processes seen as ``x`` [B, K, T, C] at ``sigma`` [B, K].

    What stands after the end of a stay tells nothing of it; there the mean is 0 and the deviation 1.
    """
    noise = sigma.square()[..., None, None]
    length = inside.sum(dim=1)
    modes = prior.modes[length]
    variances = prior.variances[length][:, None]
    gain = variances / (variances + noise)
    parts = torch.einsum("bktc,bctm->bkcm", x, modes)
    mean = torch.einsum("bkcm,bctm->bktc", gain * parts, modes)
    variance = torch.einsum("bkcm,bctm->bktc", gain * noise, modes.square())
    return mean, torch.where(inside[:, None, :, None], variance, 1.0).sqrt()


def series_start(noise: Tensor, sigma: float, labels: Tensor, inside: Tensor, prior: SeriesPrior) -> Tensor:
    """Rows seen through the noise of the first level, drawn as if channels were independent.

    That is their law to first order, so that sampling can begin at a level where not all is noise.

    Args:
        noise: [B, T, 2C], standard normal.
        sigma: the level.
        labels: [B], label numbers.
        inside: bool [B, T].
        prior: of the anchor.

    Returns:
        [B, T, 2C].
    """
    length = inside.sum(dim=1)
    values, seen = noise.chunk(2, dim=-1)
    deviation = (prior.variances[length] + sigma**2).sqrt()
    course = torch.einsum("bcm,bctm->btc", deviation * values.transpose(1, 2), prior.modes[length])
    share = sigmoid(prior.observed[labels])[:, None]
    return torch.cat(
        [prior.shift[labels][:, None] + course, share + (share * (1.0 - share) + sigma**2).sqrt() * seen], dim=-1
    )


def series_posterior(
    network: SeriesNetwork,
    x: Tensor,
    sigma: Tensor,
    labels: Tensor,
    context: Tensor,
    inside: Tensor,
    prior: SeriesPrior,
) -> Belief:
    """The denoiser: what is believed of clean rows given noisy ones.

    Args:
        network: :class:`synclave_shared.models.series.denoiser.SeriesDenoiser`.
        x: [B, K, T, 2C], noisy values, then noisy 0/1 numbers.
        sigma: [B, K].
        labels: [B], label numbers; L for a hidden label.
        context: [B, S], 0/1.
        inside: bool [B, T], the steps of the stay.
        prior: of the anchor.
    """
    values, seen = x.chunk(2, dim=-1)
    level = sigma[..., None, None]
    expected = prior.shift[labels][:, None, None]
    beyond, spread = _through_noise(values - expected, sigma, inside, prior)
    before = prior.observed[labels][:, None, None]
    logits = before + (seen - 0.5) / level.square()
    surprise = torch.cat([beyond, sigmoid(logits.clamp(-LOGIT_BOUND, LOGIT_BOUND)) - sigmoid(before)], dim=-1)
    visible = torch.reciprocal(1.0 + sigma.square())
    noisy = (values - expected) * visible.sqrt()[..., None, None]
    correction = network(noisy, surprise, visible, labels, context, inside)
    of_values, of_observed = correction.chunk(2, dim=-1)
    return Belief(
        values=expected + beyond + spread * of_values,
        spread=spread,
        observed=(logits + of_observed).clamp(-LOGIT_BOUND, LOGIT_BOUND),
    )


def series_loss(belief: Belief, filled: Tensor, observed: Tensor, inside: Tensor) -> Tensor:
    """Squared errors in units of the posterior's spread, and cross-entropy of being measured, per step of the stay.

    Args:
        belief: of the noisy rows.
        filled: [B, T, C], values without gaps.
        observed: [B, T, C], 0/1.
        inside: bool [B, T]; what comes after the stay counts nowhere.

    Returns:
        [B, K]: a mean over steps, so that a long stay weighs as much as a short one.
    """
    truth, seen = filled[:, None], observed[:, None]
    within = inside[:, None, :, None]
    weight = torch.where(within, FILLED_WEIGHT + (1.0 - FILLED_WEIGHT) * seen, 0.0)
    squares = weight * ((belief.values - truth) / belief.spread).square()
    nats = torch.where(within, bernoulli_nats(belief.observed, seen.expand_as(belief.observed)), 0.0)
    return (0.5 * squares + nats).sum(dim=(2, 3)) / within.sum(dim=(2, 3))
