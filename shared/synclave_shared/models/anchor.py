"""From the sites' noisy marginals to the logits that anchor the denoiser. All of it is post-processing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synclave_shared.errors import ProtocolError
from synclave_shared.models.layout import CodeLayout

if TYPE_CHECKING:
    from synclave_shared.data.schema import Schema

__all__ = [
    "LARGEST_LOGIT",
    "Anchor",
    "anchor_from_marginals",
    "anchor_of_payload",
    "anchor_payload",
    "anchor_payload_size",
    "estimate_anchor",
    "marginals_size",
    "prevalences",
]

LARGEST_FLOOR = 0.01
"""However noisy the marginals, a code is never held to be more common than 1 % only because of the noise."""

CLEAR_OF_NOISE = 8.0
"""Standard deviations above which an observed prevalence is taken as it is."""

LARGEST_LOGIT = 30.0
"""A prevalence of 1e-13: no estimate comes near it, and no function of an anchor overflows."""

EM_ITERATIONS = 200
"""The likelihood has settled to four digits by then; it takes a few milliseconds."""


class Anchor(NamedTuple):
    """Public knowledge of the columns.

    Attributes:
        logits: float32 [L, D]; logits of codes, log-probabilities of one-hot columns, per label value.
        label_shares: float64 [L], summing to 1.
    """

    logits: NDArray[np.float32]
    label_shares: NDArray[np.float64]


def marginals_size(schema: Schema) -> int:
    """Length of a marginals release: L*D column sums, then L label counts."""
    return len(schema.label.values) * (schema.width + 1)


def anchor_from_marginals(total_sums: NDArray[np.float64], schema: Schema, noise_std: float) -> Anchor:
    """:func:`estimate_anchor` for a schema's columns."""
    return estimate_anchor(total_sums, CodeLayout.of(schema), noise_std)


def estimate_anchor(total_sums: NDArray[np.float64], layout: CodeLayout, noise_std: float) -> Anchor:
    """Estimate each column's prevalence under each label value, allowing for the noise.

    The pooled prevalence is a posterior mean (:func:`_denoised`). The difference that a label value makes is shrunk by
    the empirical-Bayes factor ``signal / (signal + noise)`` (James and Stein 1961), in units of the column's standard
    deviation, so that common columns keep theirs and rare ones do not invent any. One-hot groups are renormalised.

    Args:
        total_sums: [L*D + L], sum over sites of the marginals releases.
        layout: columns and label values.
        noise_std: standard deviation of the noise in each coordinate of ``total_sums``
            (noise_multiplier * clip_norm * sqrt(number of sites)).

    Raises:
        ProtocolError: if the length is not :func:`marginals_size` or a value is not finite.
    """
    values, width = layout.label_values, layout.width
    if total_sums.shape != (values * (width + 1),) or not np.all(np.isfinite(total_sums)):
        raise ProtocolError(
            expected=f"{values * (width + 1)} finite sums",
            found=f"shape {total_sums.shape}, finite: {bool(np.all(np.isfinite(total_sums)))}",
            remedy="Check the sites' marginals releases.",
        )
    sums = total_sums[: values * width].reshape(values, width)
    counts = np.maximum(total_sums[values * width :], max(noise_std, 1.0))
    patients = float(counts.sum())

    observed = sums.sum(axis=0) / patients
    observed_std = max(noise_std * math.sqrt(values) / patients, 0.5 / patients)
    floor = min(0.1 * observed_std, LARGEST_FLOOR)
    pooled = np.clip(_denoised(observed, observed_std), floor, 1.0 - floor)

    spread = np.sqrt(pooled * (1.0 - pooled))
    difference = (sums / counts[:, None] - observed) / spread
    variance = np.square(noise_std / counts[:, None] / spread) + 1.0 / counts[:, None]
    confidence = np.square(1.0 / variance)
    signal = np.maximum((confidence * (np.square(difference) - variance)).sum(1) / confidence.sum(1), 0.0)[:, None]
    prevalence = pooled + spread * difference * signal / (signal + variance)
    prevalence = np.clip(prevalence, floor, 1.0 - floor)

    logits = np.log(prevalence) - np.log1p(-prevalence)
    for start, stop in layout.categories:
        group = prevalence[:, start:stop]
        logits[:, start:stop] = np.log(group / group.sum(axis=1, keepdims=True))
    return Anchor(logits=logits.astype(np.float32), label_shares=counts / patients)


def prevalences(anchor: Anchor, layout: CodeLayout) -> NDArray[np.float64]:
    """What the anchor's logits mean: float64 [L, D]."""
    logits = anchor.logits.astype(np.float64)
    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits))
    for start, stop in layout.categories:
        group = np.exp(logits[:, start:stop])
        found[:, start:stop] = group / group.sum(axis=1, keepdims=True)
    return found


def anchor_payload_size(layout: CodeLayout) -> int:
    """Length of :func:`anchor_payload`."""
    return layout.label_values * (layout.width + 1)


def anchor_payload(anchor: Anchor) -> NDArray[np.float32]:
    """An anchor as it goes to the sites: L*D logits, then L label shares."""
    return np.concatenate([anchor.logits.ravel(), anchor.label_shares.astype(np.float32)])


def anchor_of_payload(values: NDArray[np.float32], layout: CodeLayout) -> Anchor:
    """Read :func:`anchor_payload` back. Sender and receiver compute with the very same numbers from here on.

    Raises:
        ProtocolError: if the values are those of no anchor: whoever sends them cannot make a site compute nonsense.
    """
    size = layout.label_values * layout.width
    logits, shares = values[:size], values[size:].astype(np.float64)
    if (
        values.shape != (anchor_payload_size(layout),)
        or not np.all(np.isfinite(values))
        or np.abs(logits).max() > LARGEST_LOGIT
        or shares.min() < 0.0
        or abs(float(shares.sum()) - 1.0) > 1e-3
    ):
        raise ProtocolError(
            expected=f"{size} logits of at most {LARGEST_LOGIT:g} and {layout.label_values} shares that add up to 1",
            found=f"shape {values.shape}, or numbers beyond that",
            remedy="The message was dropped; check that coordinator and site run the same version of Synclave.",
        )
    return Anchor(logits=logits.reshape(layout.label_values, layout.width), label_shares=shares)


def _denoised(observed: NDArray[np.float64], std: float) -> NDArray[np.float64]:
    """Posterior means of quantities >= 0 that were seen with Gaussian noise, their law estimated from all of them.

    Nonparametric maximum likelihood (Kiefer and Wolfowitz 1956) by expectation-maximisation on a grid. Most codes of a
    vocabulary are rare and a few are common; no textbook prior fits both, and clipping at 0 would turn half of the
    noise on the rare ones into patients. Values far above the noise are kept as they are.
    """
    near = observed < CLEAR_OF_NOISE * std
    if not near.any():
        return observed
    grid = std * np.concatenate([[0.0], np.geomspace(0.02, CLEAR_OF_NOISE + 2.0, 160)])
    distance = np.square((observed[near, None] - grid) / std)
    likelihood = np.exp(-0.5 * (distance - distance.min(axis=1, keepdims=True)))
    weights = np.full(grid.size, 1.0 / grid.size)
    for _ in range(EM_ITERATIONS):
        posterior = likelihood * weights
        posterior /= posterior.sum(axis=1, keepdims=True)
        weights = posterior.mean(axis=0)
    estimate = observed.copy()
    estimate[near] = posterior @ grid
    return estimate
