"""From one noisy sum to what is public of time series: how long, how often measured, how high, how inert.

Every site sums one short vector per patient (:func:`contributions`), and the sum with Gaussian noise is the only thing
that leaves. What is made of it is the exact model of independent channels, each a stationary Gaussian process, and so
to the series what the prevalences are to the codes: the network only has to learn how channels bear on each other.

Shapes: ``N`` patients, ``T`` steps, ``C`` channels, ``S`` context columns, ``L`` label values, ``G`` lags.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri

from synclave_shared.data.shares import limits
from synclave_shared.errors import ProtocolError
from synclave_shared.models.anchor import LARGEST_LOGIT, Anchor, estimate_anchor
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.series.inertia import fitted_inertia, lags, usual_inertia
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.models.series.relations import (
    Relations,
    relation_rows,
    relations_from_sums,
    relations_size,
    usual_relations,
)

if TYPE_CHECKING:
    from synclave_shared.data.series.dataset import SeriesDataset

__all__ = [
    "SeriesAnchor",
    "anchor_from_moments",
    "context_columns",
    "contributions",
    "moments_size",
    "usual_anchor",
]

SMALLEST_SCALE: Final = 0.02
"""Of a channel's standard deviation, in units of half the width of its public bounds."""

LARGEST_SHIFT: Final = 3.0
"""Of a label value's mean, in standard deviations."""

BINS: Final = 64
"""Even bins between a channel's bounds; within one, values are held to be spread evenly."""

BORDERS: Final = np.linspace(-1.0, 1.0, BINS + 1)

MIDDLE: Final = 1.0 - 1.0 / BINS
"""Of the last bin."""

LEAST_SHARE: Final = 1e-5
"""Of a channel's values in a bin, so that every value has a score and every score a value."""

RAREST: Final = 1e-5
"""Scores are of values rarer than one in 100,000 no more: they end at 4.3 standard deviations."""

ROUNDING: Final = 1e-5

BEYOND_LAW: Final = 0.001
"""Share of a channel's values that may lie anywhere between its bounds, before anything is known of them."""

EVER_WEIGHT: Final = 0.5
"""How much "ever observed" counts for in a patient's contribution: it is needed as a divisor only."""

PAIR_WEIGHT: Final = 0.3
"""Likewise of "two values so far apart"."""

EARLY_WEIGHT: Final = 0.15
"""Likewise of the share measured in a span of steps: there are several of them for every channel."""

RELATIONS_PART: Final = 0.1
"""Of the square of a patient's clip norm: what relations may take. Both parts are bounded, so that the whole is."""

CHUNK_PATIENTS: Final = 256
"""Patients taken to float64 at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesAnchor:
    """Public knowledge of the channels.

    Attributes:
        context: logits of the context's columns under each label value, float32 [L, S].
        observed: log-odds that a step of a stay has a value, float32 [L, C].
        pace: what is added to them in each step: the first hours are measured otherwise than the rest; float32 [T, C].
        quantiles: share of each channel's values below the borders of :data:`BINS` even bins between its bounds,
            rising from 0 to 1; float32 [C, BINS + 1].
        shift: mean under each label value, in normal scores; float32 [L, C].
        inertia: autocorrelation of each channel at lags 0 to T - 1, float32 [C, T].
        relations: how channels, gaps and context bear on each other.
    """

    context: NDArray[np.float32]
    observed: NDArray[np.float32]
    pace: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    shift: NDArray[np.float32]
    inertia: NDArray[np.float32]
    relations: Relations

    def to_vector(self) -> NDArray[np.float32]:
        """All numbers as one vector [A], as it travels."""
        parts = (self.context, self.observed, self.pace, self.quantiles, self.shift, self.inertia)
        flat = [np.asarray(part, np.float32).reshape(-1) for part in parts]
        return np.concatenate([*flat, self.relations.to_vector()])

    @classmethod
    def from_vector(cls, vector: NDArray[np.float32], layout: SeriesLayout) -> SeriesAnchor:
        """The inverse of :meth:`to_vector`.

        Every number is bounded as :func:`anchor_from_moments` bounds it, so that whatever passes here can be computed
        with, whoever the patients are: an error later would tell of them without noise.

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
        context, observed, pace, quantiles, shift, inertia = parts
        anchor = cls(
            context=context,
            observed=observed,
            pace=pace,
            quantiles=quantiles,
            shift=shift,
            inertia=inertia,
            relations=Relations.from_vector(vector[position:], layout),
        )
        rising = (np.diff(quantiles, axis=1) >= LEAST_SHARE / 2).all() and not quantiles[:, 0].any()
        if max(np.abs(part).max(initial=0.0) for part in (context, observed, pace)) > LARGEST_LOGIT:
            raise _impossible(f"log-odds of at most {LARGEST_LOGIT:g}")
        if np.abs(shift).max() > LARGEST_SHIFT + ROUNDING:
            raise _impossible(f"label values that shift a mean by at most {LARGEST_SHIFT:g} deviations")
        if not rising or np.abs(quantiles[:, -1] - 1.0).max() > ROUNDING:
            raise _impossible("shares that rise from 0 to 1 with every bin")
        if np.abs(inertia).max() > 1.0 + ROUNDING or np.abs(inertia[:, 0] - 1.0).max() > ROUNDING:
            raise _impossible("autocorrelations from -1 to 1 that begin with 1")
        return anchor

    def scores(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normal scores of values [..., C]: a channel's values, all together, become standard normal.

        A value at a border of the bounds, where many may be (a saturation of 100 %), has the score of its bin's
        middle.
        """
        scores = np.empty(values.shape, np.float32)
        for channel, shares in enumerate(self.quantiles):
            below = np.interp(np.clip(values[..., channel], -MIDDLE, MIDDLE), BORDERS, shares)
            scores[..., channel] = ndtri(np.clip(below, RAREST, 1.0 - RAREST))
        return scores

    def values(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values of normal scores [..., C], the inverse of :meth:`scores`; float32, -1 to 1."""
        values = np.empty(scores.shape, np.float32)
        for channel, shares in enumerate(self.quantiles):
            values[..., channel] = np.interp(ndtr(scores[..., channel].astype(np.float64)), shares, BORDERS)
        return values

    def measured(self) -> NDArray[np.float64]:
        """Share of the stays still there that have a value, by label value and step; [L, T, C]."""
        return np.asarray(expit(self.observed[:, None].astype(np.float64) + self.pace), np.float64)

    @staticmethod
    def shapes(layout: SeriesLayout) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parts, in the order of the vector."""
        values, channels = layout.label_values, layout.channels
        of_channels = ((layout.steps, channels), (channels, BINS + 1), (values, channels), (channels, layout.steps))
        return ((values, layout.context.width), (values, channels), *of_channels)

    @classmethod
    def size(cls, layout: SeriesLayout) -> int:
        """Length A of the vector."""
        return sum(math.prod(shape) for shape in cls.shapes(layout)) + Relations.size(layout)


def usual_anchor(layout: SeriesLayout) -> SeriesAnchor:
    """What is held of series of which nothing is known: for rehearsals on invented patients."""
    values, channels = layout.label_values, layout.channels
    context = np.zeros((values, layout.context.width), np.float32)
    for start, stop in layout.context.categories:
        context[:, start:stop] = -math.log(stop - start)
    return SeriesAnchor(
        context=context,
        observed=np.zeros((values, channels), np.float32),
        pace=np.zeros((layout.steps, channels), np.float32),
        quantiles=np.tile(np.linspace(0.0, 1.0, BINS + 1, dtype=np.float32), (channels, 1)),
        shift=np.zeros((values, channels), np.float32),
        inertia=np.tile(usual_inertia(layout.steps).astype(np.float32), (channels, 1)),
        relations=usual_relations(layout),
    )


def spans(steps: int) -> tuple[int, ...]:
    """Borders of the spans of steps in which shares measured are told apart: 0, powers of two below T, T."""
    return (*lags(steps), steps)


def moments_size(layout: SeriesLayout) -> int:
    """Length of a release of moments."""
    return _moments_size(layout) + relations_size(layout)


def _moments_size(layout: SeriesLayout) -> int:
    """Without the relations."""
    by_label = layout.context.width + 3 * layout.channels + 1
    of_channel = 2 * len(lags(layout.steps)) - 1 + BINS + len(spans(layout.steps)) - 1
    return layout.label_values * by_label + layout.channels * of_channel


def context_columns(static: NDArray[np.uint8], lengths: NDArray[np.int64], layout: SeriesLayout) -> NDArray[np.uint8]:
    """Context [N, S]: the fields' columns, then the length of the stay as a one-hot group."""
    length = (np.arange(layout.steps) == lengths[:, None] - 1).astype(np.uint8)
    return np.concatenate([static, length], axis=1)


def contributions(dataset: SeriesDataset, layout: SeriesLayout, clip_norm: float) -> NDArray[np.float64]:
    """Sum of the patients' moments, each patient's scaled down to ``clip_norm`` in L2.

    A patient gives, in the block of its label: its context columns; per channel the share of its steps that were
    measured, whether any was (times :data:`EVER_WEIGHT`), and the mean of what was measured; a 1 in the label counts;
    and for all labels together the mean square, the share of its values in each bin, and at each lag half the mean
    squared difference of values so far apart (the variogram), and whether there are any (times :data:`PAIR_WEIGHT`).
    Means are of one patient: however often it was measured, it counts once.

    Args:
        dataset: N patients.
        layout: of the schema.
        clip_norm: L2 bound of one patient's contribution, of which each may have its share.

    Returns:
        [:func:`moments_size`], without noise: adding it is the caller's part, who has the randomness.
    """
    values, channels = layout.label_values, layout.channels
    sums: NDArray[np.float64] = np.zeros((values, layout.context.width + 3 * channels))
    counts = np.zeros(values)
    of_all: NDArray[np.float64] = np.zeros(_moments_size(layout) - sums.size - values)
    relations = np.zeros(relations_size(layout))
    bound = clip_norm * math.sqrt(1.0 - RELATIONS_PART)
    for start in range(0, len(dataset), CHUNK_PATIENTS):
        part = dataset.select(np.arange(start, min(start + CHUNK_PATIENTS, len(dataset))))
        context = context_columns(part.static, part.lengths, layout)
        by_label, always = _moments(part.values, part.observed, part.lengths, context)
        norms = np.sqrt(np.square(by_label).sum(axis=1) + np.square(always).sum(axis=1) + 1.0)
        weight = np.minimum(1.0, limits(part.shares, len(part), bound) / norms)
        for label in range(values):
            chosen = part.labels == label
            sums[label] += weight[chosen] @ by_label[chosen]
            counts[label] += weight[chosen].sum()
        of_all += np.asarray(weight @ always, np.float64)
        seen, clean = part.observed.astype(bool), part.values.astype(np.float64)
        rows = relation_rows(clean, seen, part.lengths, context, clip_norm * math.sqrt(RELATIONS_PART))
        relations += (rows * limits(part.shares, len(part), 1.0)[:, None]).sum(axis=0)
    return np.concatenate([sums.reshape(-1), counts, of_all, relations])


def _moments(
    values: NDArray[np.float32], observed: NDArray[np.uint8], lengths: NDArray[np.int64], context: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each patient gives in the block of its label [N, S + 3C], and for all labels [N, (2G - 1 + BINS) * C]."""
    steps = values.shape[1]
    seen = observed.astype(bool)
    clean = values.astype(np.float64)
    number = np.maximum(seen.sum(axis=1), 1)
    ever = np.asarray(seen.any(axis=1))
    always = [np.square(clean).sum(axis=1) / number]
    for lag in lags(steps)[1:]:
        pairs = seen[:, : steps - lag] & seen[:, lag:]
        count = pairs.sum(axis=1)
        apart = np.where(pairs, 0.5 * np.square(clean[:, lag:] - clean[:, : steps - lag]), 0.0).sum(axis=1)
        always += [apart / np.maximum(count, 1), PAIR_WEIGHT * (count > 0)]
    by_label = [context, seen.sum(axis=1) / lengths[:, None], EVER_WEIGHT * ever, clean.sum(axis=1) / number]
    early = []
    for start, stop in itertools.pairwise(spans(steps)):
        there = np.clip(lengths - start, 1, stop - start)[:, None]
        early.append(EARLY_WEIGHT * seen[:, start:stop].sum(axis=1) / there)
    return np.concatenate(by_label, axis=1), np.concatenate([*always, _shares_of_bins(clean, seen), *early], axis=1)


def _shares_of_bins(values: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of each patient's counted steps [N, T, C] in each bin, [N, C * BINS]; 0 where none is."""
    patients, _, channels = values.shape
    bins = np.clip(((values + 1.0) * (BINS / 2)).astype(np.int64), 0, BINS - 1)
    place = (np.arange(patients)[:, None, None] * channels + np.arange(channels)) * BINS + bins
    counts = np.bincount(place[counted], minlength=patients * channels * BINS).reshape(patients, channels, BINS)
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
    return shares.reshape(patients, -1)


def anchor_from_moments(
    sums: NDArray[np.float64], layout: SeriesLayout, noise_std: float
) -> tuple[SeriesAnchor, NDArray[np.float64]]:
    """Estimate the anchor, allowing for the noise. All of it is post-processing.

    Context, shares and "ever observed" are prevalences, estimated as those of codes; so are a channel's bins. Its
    variance is bounded below by what noise alone would show, and its autocorrelation, one less the variogram,
    is the nearest of ``level + (1 - level) decay^lag``, as far as signal exceeds noise; the rest is a usual channel's.

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
    columns = width + channels
    by_label, sums, relations = np.split(sums, [values * (columns + 2 * channels), _moments_size(layout)])
    blocks, evers, totals = np.split(by_label.reshape(values, -1), [columns, columns + channels], axis=1)
    counts, squares, pairs, bins, early = np.split(
        sums, np.cumsum([values, channels, 2 * channels * (len(lags(layout.steps)) - 1), channels * BINS])
    )

    of_columns = CodeLayout(width=columns, categories=layout.context.categories, label_values=values)
    known = estimate_anchor(np.concatenate([blocks.reshape(-1), counts]), of_columns, noise_std)
    # Both of the same noise: what is uncertain of the divisor moves the difference to the centre little.
    evers = evers / EVER_WEIGHT
    seen = np.maximum(evers, max(2.0 * noise_std / EVER_WEIGHT, 1.0))
    all_seen = seen.sum(axis=0)
    centre = np.clip(totals.sum(axis=0) / all_seen, -1.0, 1.0)
    noise = noise_std / all_seen
    variance = squares / all_seen - np.square(centre)
    scale = np.sqrt(np.maximum(variance, np.maximum(2.0 * noise, SMALLEST_SCALE) ** 2))
    error = noise_std * np.sqrt(1.0 + np.square(centre / EVER_WEIGHT)) / seen
    apart = (totals - centre * evers) / seen / scale
    shift = np.clip(_shrunk(apart, np.square(error / scale) + 1.0 / seen), -LARGEST_SHIFT, LARGEST_SHIFT)
    # Differences within a patient do not know the label: they are of what it leaves open.
    left = np.square(scale) * np.maximum(1.0 - (seen / all_seen * np.square(shift)).sum(axis=0), 0.2)
    variogram, flags = pairs.reshape(-1, 2, channels).transpose(1, 0, 2)
    compared = np.maximum(flags / PAIR_WEIGHT, max(2.0 * noise_std / PAIR_WEIGHT, 1.0))
    correlations = 1.0 - variogram / compared / left
    doubt = noise_std / compared / left
    inertia = fitted_inertia(correlations, doubt, usual_inertia(layout.steps))
    patients = float(counts.sum())
    logits = np.clip(known.logits, -LARGEST_LOGIT, LARGEST_LOGIT)
    anchor = SeriesAnchor(
        context=logits[:, :width],
        observed=logits[:, width:],
        pace=_pace(early.reshape(-1, channels), known, layout, noise_std, patients).astype(np.float32),
        quantiles=_quantiles(bins.reshape(channels, BINS), centre, scale, noise_std).astype(np.float32),
        shift=shift.astype(np.float32),
        inertia=inertia.astype(np.float32),
        relations=relations_from_sums(relations, layout, noise_std, patients, inertia),
    )
    return anchor, known.label_shares


def _pace(
    early: NDArray[np.float64], known: Anchor, layout: SeriesLayout, noise_std: float, patients: float
) -> NDArray[np.float64]:
    """What the log-odds of being measured are beyond their mean over the stay, [T, C], of noisy sums in spans."""
    width, shares = layout.context.width, known.label_shares
    lengths = shares @ np.exp(known.logits[:, width - layout.steps : width].astype(np.float64))
    left = 1.0 - np.concatenate([[0.0], np.cumsum(lengths)])
    usual = np.clip(shares @ expit(known.logits[:, width:].astype(np.float64)), RAREST, 1.0 - RAREST)
    pace = np.empty((layout.steps, layout.channels))
    for (start, stop), sums in zip(itertools.pairwise(spans(layout.steps)), early, strict=True):
        there = max(patients * left[start], 2.0 * noise_std / EARLY_WEIGHT, 1.0)
        noise = np.square(noise_std / EARLY_WEIGHT / there) + usual * (1.0 - usual) / there
        apart = sums / EARLY_WEIGHT / there - usual
        signal = max(float((np.square(apart) - noise).mean()), 0.0)
        share = usual + apart * signal / (signal + noise)
        share = np.clip(share, 0.05 * usual, 1.0 - 0.05 * (1.0 - usual))
        pace[start:stop] = logit(share) - logit(usual)
    return pace


def _quantiles(
    bins: NDArray[np.float64], centre: NDArray[np.float64], scale: NDArray[np.float64], noise_std: float
) -> NDArray[np.float64]:
    """Shares below the borders, [C, BINS + 1], of noisy sums in bins [C, BINS].

    They are taken back towards a normal law of the channel's centre and scale, as far as they are noise: a share's
    deviation from what that law says is held to have a variance in proportion to it, so that noise in the empty bins of
    wide bounds does not become patients.
    """
    law = np.diff(ndtr((BORDERS - centre[:, None]) / scale[:, None]), axis=1)
    law = law / np.maximum(law.sum(axis=1, keepdims=True), 1e-9)
    law = (1.0 - BEYOND_LAW) * law + BEYOND_LAW / BINS
    total = np.maximum(bins.sum(axis=1, keepdims=True), max(2.0 * noise_std * math.sqrt(BINS), 1.0))
    noise = np.square(noise_std / total)
    apart = bins / total - law
    relative = np.maximum((np.square(apart) - noise).sum(axis=1, keepdims=True), 0.0) * law
    weight = relative / (relative + noise) if noise_std else np.ones_like(law)
    shares = np.maximum(law + weight * apart, 0.0)
    shares = np.where(shares.sum(axis=1, keepdims=True) > 0, shares, law)
    # Mixed in last, so that every bin has it whatever the noise has made of the others.
    shares = (1.0 - BINS * LEAST_SHARE) * shares / shares.sum(axis=1, keepdims=True) + LEAST_SHARE
    below = np.cumsum(shares, axis=1)
    below[:, -1] = 1.0
    return np.concatenate([np.zeros((len(bins), 1)), below], axis=1)


def _impossible(expected: str) -> ProtocolError:
    return ProtocolError(
        expected=f"in an anchor of series {expected}", found="others", remedy="The message was dropped."
    )


def _shrunk(differences: NDArray[np.float64], variance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences [L, C] taken back as far as they are noise (James and Stein 1961), per label value."""
    confidence = np.square(1.0 / variance)
    signal = (confidence * (np.square(differences) - variance)).sum(axis=1) / confidence.sum(axis=1)
    signal = np.maximum(signal, 0.0)[:, None]
    shrunk: NDArray[np.float64] = differences * signal / (signal + variance)
    return shrunk
