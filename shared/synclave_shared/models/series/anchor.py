"""From one noisy sum to what is public of time series: how long, how often measured, how high, how inert.

Every site sums one short vector per patient (:func:`contributions`), and the sum with Gaussian noise is the only thing
that leaves. What is made of it is the exact model of independent channels, each a stationary Gaussian process, and so
to the series what the prevalences are to the codes: the network only has to learn how channels bear on each other.

Shapes: ``N`` patients, ``T`` steps, ``C`` channels, ``S`` context columns, ``L`` label values, ``G`` lags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.series.filling import filled
from synclave_shared.errors import ProtocolError
from synclave_shared.models.anchor import estimate_anchor, prevalences
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.series.layout import SeriesLayout

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset

__all__ = [
    "SeriesAnchor",
    "anchor_from_moments",
    "context_columns",
    "contributions",
    "lags",
    "moments_size",
    "usual_anchor",
]

SMALLEST_SCALE: Final = 0.02
"""Of a channel's standard deviation, in units of half the width of its public bounds."""

LARGEST_SHIFT: Final = 3.0
"""Of a label value's mean, in standard deviations."""

DECAYS: Final = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98)
"""What is left of a deviation after a step: candidates."""

LEAST_INERTIA: Final = 1e-3
"""Smallest eigenvalue of a channel's covariance: no combination of steps is held to be known exactly."""

CHUNK_PATIENTS: Final = 1024
"""Patients taken to float64 at once."""

USUAL_LEVEL, USUAL_DECAY = 0.5, 0.85
"""A channel of which nothing is known: half of its variance is between patients, the rest fades within hours."""

USUAL_SCALE: Final = 0.2
"""Its standard deviation: a tenth of the width of its bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesAnchor:
    """Public knowledge of the channels.

    Attributes:
        context: logits of the context's columns under each label value, float32 [L, S].
        observed: log-odds that a step of a stay has a value, float32 [L, C].
        centre: mean of each channel, in units of the data set (-1 to 1 between the bounds), float32 [C].
        scale: standard deviation of a patient of known label about its mean, float32 [C].
        shift: how far the mean under a label value lies from the centre, in units of the scale, float32 [L, C].
        inertia: autocorrelation of each channel at lags 0 to T - 1, float32 [C, T].
    """

    context: NDArray[np.float32]
    observed: NDArray[np.float32]
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    inertia: NDArray[np.float32]

    def to_vector(self) -> NDArray[np.float32]:
        """All numbers as one vector [A], as it travels."""
        parts = (self.context, self.observed, self.centre, self.scale, self.shift, self.inertia)
        return np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in parts])

    @classmethod
    def from_vector(cls, vector: NDArray[np.float32], layout: SeriesLayout) -> SeriesAnchor:
        """The inverse of :meth:`to_vector`.

        Raises:
            ProtocolError: if the length is not :meth:`size`, or no anchor has such numbers.
        """
        if vector.shape != (cls.size(layout),) or not np.all(np.isfinite(vector)):
            raise ProtocolError(
                expected=f"{cls.size(layout)} finite numbers of an anchor of series",
                found=f"shape {vector.shape}, finite: {bool(np.all(np.isfinite(vector)))}",
                remedy="Check that coordinator and site run the same version of Synclave.",
            )
        parts, position = [], 0
        for shape in cls.shapes(layout):
            stop = position + math.prod(shape)
            parts.append(vector[position:stop].reshape(shape).astype(np.float32))
            position = stop
        context, observed, centre, scale, shift, inertia = parts
        anchor = cls(context=context, observed=observed, centre=centre, scale=scale, shift=shift, inertia=inertia)
        if (
            scale.min() < SMALLEST_SCALE * (1 - 1e-6)
            or np.abs(inertia).max() > 1.0 + 1e-6
            or np.abs(inertia[:, 0] - 1.0).max() > 1e-6
        ):
            raise ProtocolError(
                expected=f"scales from {SMALLEST_SCALE}, and autocorrelations from -1 to 1 that begin with 1",
                found="others",
                remedy="The message was dropped.",
            )
        return anchor

    @staticmethod
    def shapes(layout: SeriesLayout) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parts, in the order of the vector."""
        values, channels = layout.label_values, layout.channels
        of_channels = ((channels,), (channels,), (values, channels), (channels, layout.steps))
        return ((values, layout.context.width), (values, channels), *of_channels)

    @classmethod
    def size(cls, layout: SeriesLayout) -> int:
        """Length A of the vector."""
        return sum(math.prod(shape) for shape in cls.shapes(layout))


def usual_anchor(layout: SeriesLayout) -> SeriesAnchor:
    """What is held of series of which nothing is known: for rehearsals on invented patients."""
    values, channels = layout.label_values, layout.channels
    context = np.zeros((values, layout.context.width), np.float32)
    for start, stop in layout.context.categories:
        context[:, start:stop] = -math.log(stop - start)
    return SeriesAnchor(
        context=context,
        observed=np.zeros((values, channels), np.float32),
        centre=np.zeros(channels, np.float32),
        scale=np.full(channels, USUAL_SCALE, np.float32),
        shift=np.zeros((values, channels), np.float32),
        inertia=np.tile(_usual_inertia(layout.steps).astype(np.float32), (channels, 1)),
    )


def _usual_inertia(steps: int) -> NDArray[np.float64]:
    return np.asarray(USUAL_LEVEL + (1.0 - USUAL_LEVEL) * USUAL_DECAY ** np.arange(steps), np.float64)


def lags(steps: int) -> tuple[int, ...]:
    """The lags at which covariances are summed: 0, and powers of two below T."""
    return (0, *(2**power for power in range(steps.bit_length()) if 2**power < steps))


def moments_size(layout: SeriesLayout) -> int:
    """Length of a release of moments."""
    columns = layout.context.width + 2 * layout.channels
    return layout.label_values * (columns + layout.channels + 1) + layout.channels * len(lags(layout.steps))


def context_columns(static: NDArray[np.uint8], lengths: NDArray[np.int64], layout: SeriesLayout) -> NDArray[np.uint8]:
    """Context [N, S]: the fields' columns, then the length of the stay as a one-hot group."""
    length = (np.arange(layout.steps) == lengths[:, None] - 1).astype(np.uint8)
    return np.concatenate([static, length], axis=1)


def contributions(dataset: SeriesDataset, layout: SeriesLayout, clip_norm: float) -> NDArray[np.float64]:
    """Sum of the patients' moments, each patient's scaled down to ``clip_norm`` in L2.

    A patient gives, in the block of its label: its context columns; per channel the share of its steps that have a
    value, whether any has, and the mean over its steps; a 1 in the label counts; and for all labels together the mean
    products of values at each lag. Means over time are of one patient: whatever the stay's length, it counts once.

    Args:
        dataset: N patients.
        layout: of the schema.
        clip_norm: L2 bound of one patient's contribution.

    Returns:
        [:func:`moments_size`], without noise: adding it is the caller's part, who has the randomness.
    """
    values, channels = layout.label_values, layout.channels
    sums: NDArray[np.float64] = np.zeros((values, layout.context.width + 3 * channels))
    counts = np.zeros(values)
    of_all: NDArray[np.float64] = np.zeros(channels * len(lags(layout.steps)))
    for start in range(0, len(dataset), CHUNK_PATIENTS):
        part = dataset.select(np.arange(start, min(start + CHUNK_PATIENTS, len(dataset))))
        context = context_columns(part.static, part.lengths, layout)
        by_label, always = _moments(filled(part.values, part.observed), part.observed, part.lengths, context)
        norms = np.sqrt(np.square(by_label).sum(axis=1) + np.square(always).sum(axis=1) + 1.0)
        weight = np.minimum(1.0, clip_norm / norms)
        for label in range(values):
            chosen = part.labels == label
            sums[label] += weight[chosen] @ by_label[chosen]
            counts[label] += weight[chosen].sum()
        of_all += np.asarray(weight @ always, np.float64)
    return np.concatenate([sums.reshape(-1), counts, of_all])


def _moments(
    whole: NDArray[np.float32], observed: NDArray[np.uint8], lengths: NDArray[np.int64], context: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each patient gives in the block of its label [N, S + 3C], and for all labels together [N, G * C]."""
    steps = whole.shape[1]
    length = lengths[:, None]
    ever = observed.any(axis=1)
    inside = np.less(np.arange(steps), length)[:, :, None]
    clean = np.where(inside, whole, 0.0).astype(np.float64)
    products = [np.square(clean).sum(axis=1) / length]
    for lag in lags(steps)[1:]:
        # A stay too short for the lag gives what its own longest lag says: 0 would be taken for a value.
        found = (clean[:, : steps - lag] * clean[:, lag:]).sum(axis=1) / np.maximum(length - lag, 1)
        products.append(np.where(length > lag, found, products[-1]))
    by_label = np.concatenate([context, observed.sum(axis=1) / length, ever, clean.sum(axis=1) / length], axis=1)
    return by_label, np.concatenate(products, axis=1)


def anchor_from_moments(
    sums: NDArray[np.float64], layout: SeriesLayout, noise_std: float
) -> tuple[SeriesAnchor, NDArray[np.float64]]:
    """Estimate the anchor, allowing for the noise. All of it is post-processing.

    Context, shares and "ever observed" are prevalences, estimated as those of codes. A channel's variance and
    autocovariances are bounded below by what noise alone would show, and its autocorrelation is the nearest of
    ``level + (1 - level) decay^lag``, as far as signal exceeds noise; the rest is that of a usual channel.

    Args:
        sums: [:func:`moments_size`], over all sites.
        layout: of the schema.
        noise_std: standard deviation of the noise in each coordinate.

    Returns:
        The anchor, and the label values' shares, float64 [L].

    Raises:
        ProtocolError: if the length is another or a number is not finite.
    """
    if sums.shape != (moments_size(layout),) or not np.all(np.isfinite(sums)):
        raise ProtocolError(
            expected=f"{moments_size(layout)} finite sums",
            found=f"shape {sums.shape}, finite: {bool(np.all(np.isfinite(sums)))}",
            remedy="Check the sites' marginals releases.",
        )
    values, width, channels = layout.label_values, layout.context.width, layout.channels
    columns = width + 2 * channels
    blocks = sums[: values * (columns + channels)].reshape(values, columns + channels)
    counts = sums[values * (columns + channels) :][:values]
    products = sums[values * (columns + channels + 1) :].reshape(-1, channels)

    of_columns = CodeLayout(width=columns, categories=layout.context.categories, label_values=values)
    known = estimate_anchor(np.concatenate([blocks[:, :columns].reshape(-1), counts]), of_columns, noise_std)
    found = prevalences(known, of_columns)
    ever = np.maximum(found[:, width + channels :], 1e-3)
    patients = np.maximum(counts, max(noise_std, 1.0))
    seen = patients[:, None] * ever
    means = blocks[:, columns:] / seen

    share = seen / seen.sum(axis=0)
    centre = np.clip((share * means).sum(axis=0), -1.0, 1.0)
    noise = noise_std / seen.sum(axis=0)
    least = np.maximum(2.0 * noise, SMALLEST_SCALE) ** 2
    covariances = products / seen.sum(axis=0) - np.square(centre)
    total = np.sqrt(np.maximum(covariances[0], least))
    apart = total * _shrunk((means - centre) / total, np.square(noise_std / seen / total) + 1.0 / seen)
    # What the label explains is no variance of a patient whose label is known.
    covariances = covariances - (share * np.square(apart)).sum(axis=0)
    scale = np.sqrt(np.maximum(covariances[0], least))
    shift = np.clip(apart / scale, -LARGEST_SHIFT, LARGEST_SHIFT)
    inertia = _inertia(covariances[1:] / np.square(scale), noise / np.square(scale), layout.steps)
    # A channel that was looked at in some patients only: the share of steps is that of all patients.
    observed = known.logits[:, width : width + channels]
    anchor = SeriesAnchor(
        context=known.logits[:, :width],
        observed=observed,
        centre=centre.astype(np.float32),
        scale=scale.astype(np.float32),
        shift=shift.astype(np.float32),
        inertia=inertia.astype(np.float32),
    )
    return anchor, known.label_shares


def _shrunk(differences: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences [L, C] taken back as far as they are noise (James and Stein 1961), per label value."""
    confidence = np.square(1.0 / variance)
    signal = (confidence * (np.square(differences) - variance)).sum(axis=1) / confidence.sum(axis=1)
    signal = np.maximum(signal, 0.0)[:, None]
    shrunk: NDArray[np.float64] = differences * signal / (signal + variance)
    return shrunk


def _inertia(found: NDArray[np.float64], noise: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Autocorrelations [C, T] nearest to those found at the lags above 0 [G - 1, C], with noise of std [C]."""
    at = np.array(lags(steps)[1:])
    every = np.arange(steps)
    usual = _usual_inertia(steps)
    if not len(at):
        return np.ones((found.shape[1], steps))
    levels = np.linspace(0.0, 0.99, 34)
    candidates = np.stack([level + (1.0 - level) * decay**every for decay in DECAYS for level in levels])
    # Some of a channel's variance is gone within a step: a share that no lag above 0 shows.
    candidates = np.concatenate([share * candidates for share in (1.0, 0.9, 0.8, 0.65, 0.5)])
    candidates[:, 0] = 1.0
    distance = np.square(candidates[:, at, None] - found).sum(axis=1)
    nearest = candidates[distance.argmin(axis=0)]
    trust = 1.0 / (1.0 + np.square(noise) / 0.05)
    mixed: NDArray[np.float64] = trust[:, None] * nearest + (1.0 - trust[:, None]) * usual
    return mixed
