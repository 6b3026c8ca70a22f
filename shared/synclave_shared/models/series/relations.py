"""How channels, gaps and context bear on each other: a Gaussian copula of patients, out of the anchor's noisy sum.

A patient gives outer products: of its *stay* (context, what was measured at all, shares measured, mean of each channel)
and of its *steps*, about the patient's own means. Nobody knows a channel's centre and spread while this is summed. So
means are laid on a circle, as cosine and sine of :data:`TURN` times the mean. To turn the circle by the channel's phase
is post-processing; then they are deviations from the centre, and those of a tenth of the bounds count for much. Of such
sines covariances are those of normal numbers in closed form. A value is measured where a *latent gap*, normal as the
scores are, lies above a threshold; what is summed of 0/1 numbers becomes latent by the bivariate normal law
(tetrachoric correlations, Pearson 1900).

Shapes: ``N`` patients, ``T`` steps, ``C`` channels, ``S`` context columns, ``G`` lags above 0, ``H`` = 2C quantities:
the channels' scores, then their latent gaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from synclave_shared.errors import ProtocolError
from synclave_shared.models.series.inertia import fitted_inertia, lags
from synclave_shared.models.series.layout import SeriesLayout

__all__ = ["Relations", "relation_rows", "relations_from_sums", "relations_size", "usual_relations"]

TURN: Final = 4.0
"""Radians of the circle per half width of a channel's bounds, for means of stays."""

STEP_TURN: Final = 8.0
"""Likewise for values about their patient's mean, which are closer together."""

CONTEXT_WEIGHT, EVER_WEIGHT, CIRCLE_WEIGHT = 0.5, 0.3, 0.7
"""What the parts of a stay count for beside the shares measured: there are many of them, or they are divisors only."""

STEP_WEIGHT, APART_WEIGHT = 6.0, 6.0
"""What the outer products of steps and the gaps' variogram count for: they are short, being of differences."""

USUAL_LENGTH: Final = 0.6
"""Length of a contribution per channel: the unit in which contributions are bounded."""

SMALLEST_CONTEXT_SPREAD: Final = 0.1
"""Of a column of context: one rarer than 1 % is scaled as if it were that common."""

LEAST_SHARE: Final = 0.002
"""Share of steps measured of a channel, at least, where thresholds are set."""

LEAST_BOTH: Final = 0.01
"""Share of patients (or steps) held to have both of two quantities at least."""

LARGEST_CORRELATION: Final = 0.995
LEAST_EIGENVALUE: Final = 0.003
"""Of a matrix of correlations: no quantity is held to be known from the others exactly."""

CONTEXT_RIDGE: Final = 0.02
"""Likewise of the context's, whose one-hot columns add up to 1."""

LARGEST_EFFECT: Final = 2.0
"""Of a column of context on a mean, in standard deviations."""

ANGLES: Final = 64
"""Cells in which the bivariate normal integral is inverted."""

SURE: Final = 2.0
"""Standard errors by which the mean square of correlations must exceed what noise and chance give."""

FEWEST: Final = 4.0
"""Deviations of the noise by which the number of patients must exceed it."""

LEAST_RECEIVED: Final = 1e-6
"""Eigenvalue of a matrix that sites take: what is estimated has some 1e-4, scaled and rounded to float32 as it is."""

PROJECTIONS: Final = 40
ROUNDING: Final = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """Public knowledge of how quantities bear on each other.

    Attributes:
        stay: covariances of the stays' means that the context leaves open, in units of their variances; float32 [H, H].
        step: correlations within the steps, about the stays' means, float32 [H, H].
        effect: what a column of context changes in the stays' means, float32 [S, H].
        usual: mean of the context's columns, about which effects are, float32 [S].
        inertia: autocorrelation of each latent gap at lags 0 to T - 1, float32 [C, T].
    """

    stay: NDArray[np.float32]
    step: NDArray[np.float32]
    effect: NDArray[np.float32]
    usual: NDArray[np.float32]
    inertia: NDArray[np.float32]

    def to_vector(self) -> NDArray[np.float32]:
        """All numbers as one vector [R], as it travels; of symmetric matrices the upper triangle."""
        upper = np.triu_indices(len(self.stay))
        parts = (self.stay[upper], self.step[upper], self.effect, self.usual, self.inertia)
        return np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in parts])

    @classmethod
    def size(cls, layout: SeriesLayout) -> int:
        """Length R of the vector."""
        quantities, width = 2 * layout.channels, layout.context.width
        return quantities * (quantities + 1) + (quantities + 1) * width + layout.channels * layout.steps

    @classmethod
    def from_vector(cls, vector: NDArray[np.float32], layout: SeriesLayout) -> Relations:
        """The inverse of :meth:`to_vector`; of finite numbers, as many as :meth:`size`.

        Raises:
            ProtocolError: if no relations have such numbers.
        """
        quantities, width = 2 * layout.channels, layout.context.width
        pairs = quantities * (quantities + 1) // 2
        stay, step, effect, usual, inertia = np.split(vector, np.cumsum([pairs, pairs, quantities * width, width]))
        if np.abs(effect).max(initial=0.0) > LARGEST_EFFECT + ROUNDING or np.abs(usual - 0.5).max() > 0.5 + ROUNDING:
            raise _impossible(f"effects of at most {LARGEST_EFFECT:g} about shares from 0 to 1")
        if np.abs(inertia).max() > 1.0 + ROUNDING or np.abs(inertia[:: layout.steps] - 1.0).max() > ROUNDING:
            raise _impossible("autocorrelations from -1 to 1 that begin with 1")
        return cls(
            stay=_matrix(stay, quantities),
            step=_matrix(step, quantities),
            effect=effect.reshape(width, quantities).astype(np.float32),
            usual=usual.astype(np.float32),
            inertia=inertia.reshape(layout.channels, layout.steps).astype(np.float32),
        )


def _impossible(expected: str) -> ProtocolError:
    return ProtocolError(
        expected=f"in relations of series {expected}", found="others", remedy="The message was dropped."
    )


def _matrix(upper: NDArray[np.float32], quantities: int) -> NDArray[np.float32]:
    """The matrix of an upper triangle.

    Raises:
        ProtocolError: if it is not one of variances of at most 1.
    """
    matrix = np.zeros((quantities, quantities), np.float32)
    matrix[np.triu_indices(quantities)] = upper
    matrix = matrix + np.triu(matrix, 1).T
    # No covariance is larger than the larger variance; and of numbers of that size eigenvalues can be computed.
    if np.abs(matrix).max() > 1.0 + ROUNDING or np.linalg.eigvalsh(matrix.astype(np.float64))[0] < LEAST_RECEIVED:
        raise _impossible("positive definite matrices of variances of at most 1")
    return matrix


def usual_relations(layout: SeriesLayout) -> Relations:
    """Nothing bears on anything: for rehearsals on invented patients."""
    quantities, width = 2 * layout.channels, layout.context.width
    return Relations(
        stay=np.eye(quantities, dtype=np.float32),
        step=np.eye(quantities, dtype=np.float32),
        effect=np.zeros((width, quantities), np.float32),
        usual=np.zeros(width, np.float32),
        inertia=np.tile(np.eye(1, layout.steps, dtype=np.float32), (layout.channels, 1)),
    )


def relations_size(layout: SeriesLayout) -> int:
    """Numbers that a patient gives."""
    compared = len(lags(layout.steps)) - 1
    return _pairs(_stay_size(layout)) + 2 * _pairs(layout.channels) + compared * (layout.channels + 1)


def _stay_size(layout: SeriesLayout) -> int:
    return 1 + layout.context.width + 4 * layout.channels


def _pairs(size: int) -> int:
    return size * (size + 1) // 2


def relation_rows(
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    lengths: NDArray[np.int64],
    context: NDArray[np.uint8],
    bound: float,
) -> NDArray[np.float64]:
    """What each patient gives: outer products of its stay and of its steps, and the variogram of being measured.

    Off the diagonal outer products count sqrt(2) times: then equal noise in every number is noise that no turn of the
    numbers changes, and the length of a contribution is that of the matrix.

    Args:
        values: [N, T, C], 0 where nothing was measured.
        observed: [N, T, C].
        lengths: [N].
        context: [N, S].
        bound: L2 bound of a patient's numbers; a patient of the usual length is as long as that.
            Infinite: of public patients.

    Returns:
        [N, :func:`relations_size`].
    """
    steps, channels = values.shape[1:]
    inside = np.less(np.arange(steps), lengths[:, None])[:, :, None]
    number, ever = observed.sum(axis=1), observed.any(axis=1)
    mean = values.sum(axis=1) / np.maximum(number, 1)
    share = number / lengths[:, None]
    parts = [np.ones((len(values), 1)), context * CONTEXT_WEIGHT, ever * EVER_WEIGHT, share]
    parts += [CIRCLE_WEIGHT * ever * wave(TURN * mean) for wave in (np.cos, np.sin)]
    stay = np.concatenate(parts, axis=1)
    moved = np.where(observed, np.sin(STEP_TURN * (values - mean[:, None])), 0.0)
    flags = np.where(inside, observed - share[:, None], 0.0)
    within = [np.matmul(of.transpose(0, 2, 1), of) * (STEP_WEIGHT / lengths[:, None, None]) for of in (moved, flags)]
    apart, compared = [], []
    for lag in lags(steps)[1:]:
        pairs = inside[:, lag:]
        count = pairs.sum(axis=1)
        differ = (pairs & (observed[:, lag:] != observed[:, : steps - lag])).sum(axis=1)
        apart.append(0.5 * APART_WEIGHT * differ / np.maximum(count, 1))
        compared.append(count > 0)
    products = (stay[:, :, None] * stay[:, None], *within)
    rows = np.concatenate([*(_triangle(product) for product in products), *apart, *compared], axis=1)
    if math.isinf(bound):
        return rows
    norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return np.asarray(rows * (bound / np.maximum(norms, USUAL_LENGTH * channels)))


def _triangle(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper triangles of symmetric matrices [N, D, D], what is off the diagonal times sqrt(2)."""
    rows, columns = np.triu_indices(products.shape[-1])
    return np.asarray(products[:, rows, columns] * np.where(rows == columns, 1.0, math.sqrt(2.0)))


def _square(triangle: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The inverse of :func:`_triangle` for one matrix."""
    rows, columns = np.triu_indices(size)
    matrix = np.zeros((size, size))
    matrix[rows, columns] = triangle / np.where(rows == columns, 1.0, math.sqrt(2.0))
    matrix[columns, rows] = matrix[rows, columns]
    return matrix


def relations_from_sums(
    sums: NDArray[np.float64],
    layout: SeriesLayout,
    noise_std: float,
    patients: float,
    scores_inertia: NDArray[np.float64],
) -> Relations:
    """Estimate the relations, allowing for the noise. All of it is post-processing.

    Moments are divided by how many have both quantities, and by their own spreads; correlations are taken back as far
    as they are noise or chance (James and Stein 1961), and the nearest matrix of correlations that is positive definite
    is taken: where noise is all there is, nothing bears on anything.

    Args:
        sums: [:func:`relations_size`], over all sites.
        layout: of the schema.
        noise_std: standard deviation of the noise in each of them; 0 for none.
        patients: about how many they are.
        scores_inertia: autocorrelation of each channel's scores, [C, T].
    """
    if sums[0] < FEWEST * noise_std or sums[0] <= 0.0:
        return usual_relations(layout)
    length, channels, compared = _stay_size(layout), layout.channels, len(lags(layout.steps)) - 1
    # The first number is a one of every patient, as long as its contribution.
    count = float(sums[0])
    sizes = [_pairs(length), _pairs(channels), _pairs(channels), compared * channels]
    of_stay, of_scores, of_gaps, differ, long = np.split(sums / count, np.cumsum(sizes))
    within = np.stack([_square(part, channels) / STEP_WEIGHT for part in (of_scores, of_gaps)])
    found = _Found.of(_square(of_stay, length), within, layout)
    noise = noise_std / count
    variance = found.share * (1.0 - found.share)
    compared_by = APART_WEIGHT * np.maximum(long, LEAST_BOTH)[:, None]
    apart = differ.reshape(compared, channels) / compared_by
    latent = _latent(variance - apart, found.threshold, found.threshold)
    doubt = noise / (compared_by * variance)
    inertia = fitted_inertia(latent, doubt, np.eye(1, layout.steps)[0])
    lag = np.abs(np.subtract.outer(np.arange(layout.steps), np.arange(layout.steps)))
    # Of a quantity's variance, what is of its mean over a stay.
    steady = np.clip(np.concatenate([scores_inertia, inertia])[:, lag].mean(axis=(1, 2)), 0.02, 0.98)
    stay, effect = _of_stay(found, noise, patients, steady)
    return Relations(
        stay=stay.astype(np.float32),
        step=_of_step(found, noise, patients).astype(np.float32),
        effect=np.clip(effect, -LARGEST_EFFECT, LARGEST_EFFECT).astype(np.float32),
        usual=np.clip(found.usual, 0.0, 1.0).astype(np.float32),
        inertia=inertia.astype(np.float32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Mean moments in their own units.

    Attributes:
        usual: means of the context, [S].
        share, threshold: measured of all steps, and above which latent gaps are measured; [C].
        stay: second moments of context, sines of mean scores and shares measured about their means, [S + H, S + H].
        had: share of patients who have both of them.
        step: second moments within the steps of sines of values, and of 0/1 numbers; [2, C, C].
        turned: what a number of ``stay`` weighs less than 1, by which its noise is larger; [S + H].
    """

    usual: NDArray[np.float64]
    share: NDArray[np.float64]
    threshold: NDArray[np.float64]
    stay: NDArray[np.float64]
    had: NDArray[np.float64]
    step: NDArray[np.float64]
    turned: NDArray[np.float64]

    @classmethod
    def of(cls, stay: NDArray[np.float64], step: NDArray[np.float64], layout: SeriesLayout) -> _Found:
        channels, width = layout.channels, layout.context.width
        weight = np.repeat(
            [1.0, CONTEXT_WEIGHT, EVER_WEIGHT, 1.0, CIRCLE_WEIGHT], [1, width, channels, channels, 2 * channels]
        )
        stay = stay / np.outer(weight, weight)
        columns, ever, measured, across, up = np.split(
            np.arange(1, len(stay)), np.cumsum([width, channels, channels, channels])
        )
        mean = stay[0]
        phase = np.arctan2(mean[up], mean[across])
        # Quantities are linear in what a stay gives: the circle turned to its centre, everything else less its mean.
        turn = np.zeros((width + 2 * channels, len(stay)))
        every, each = np.arange(width), np.arange(channels)
        turn[every, columns], turn[every, 0] = 1.0, -mean[columns]
        turn[width + each, up], turn[width + each, across] = np.cos(phase), -np.sin(phase)
        turn[width + channels + each, measured], turn[width + channels + each, 0] = 1.0, -mean[measured]
        share = np.clip(mean[measured], LEAST_SHARE, 1.0 - LEAST_SHARE)
        had = np.ones((len(turn), len(turn)))
        scores = slice(width, width + channels)
        least = np.clip(np.diag(stay)[ever], LEAST_BOTH, 1.0)
        had[scores], had[:, scores] = least[:, None], least
        had[scores, scores] = np.clip(stay[np.ix_(ever, ever)], LEAST_BOTH, np.minimum.outer(least, least))
        return cls(
            usual=mean[columns],
            share=share,
            threshold=-ndtri(share),
            stay=turn @ stay @ turn.T,
            had=had,
            step=step,
            turned=np.repeat([CONTEXT_WEIGHT, CIRCLE_WEIGHT, 1.0], [width, channels, channels]),
        )

    @property
    def slope(self) -> NDArray[np.float64]:
        """Of a latent gap, how much more of it there is per share measured, [C]."""
        return np.asarray(math.sqrt(2.0 * math.pi) * np.exp(0.5 * np.square(self.threshold)))


def _of_stay(
    found: _Found, noise: float, patients: float, steady: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Covariances of means that the context leaves open, and its effects; [H, H], [S, H]."""
    channels, width = len(found.share), len(found.usual)
    context, scores, gaps = slice(0, width), slice(width, width + channels), slice(width + channels, None)
    floor = 2.0 * noise / np.square(found.turned)
    moments, powers = found.stay / found.had, np.maximum(np.diag(found.stay) / np.diag(found.had), floor)
    squares, stretch = _unwound(powers[scores])
    scale = np.concatenate([np.ones(width), stretch, found.slope])
    latent = moments * np.outer(scale, scale)
    latent[scores, scores] = np.arcsinh(moments[scores, scores] * np.outer(stretch, stretch))
    latent[gaps, gaps] = _latent(found.stay[gaps, gaps], found.threshold[:, None], found.threshold)
    own = np.maximum(np.diag(latent)[gaps], steady[channels:])
    spread = np.sqrt(np.concatenate([np.maximum(powers[context], SMALLEST_CONTEXT_SPREAD**2), squares, own]))
    unit = scale / spread / found.turned
    doubt = _doubt(noise * np.outer(unit, unit) / found.had, patients * found.had)
    whole = _correlations(latent / np.outer(spread, spread), doubt, (context, scores, gaps))
    inner = whole[context, context] + CONTEXT_RIDGE * np.eye(width)
    effect = np.linalg.solve(inner, whole[context, width:])
    left = _positive(whole[width:, width:] - whole[context, width:].T @ effect)
    return left, effect * np.sqrt(steady) / spread[context, None]


def _of_step(found: _Found, noise: float, patients: float) -> NDArray[np.float64]:
    """Correlations within the steps, [H, H]; none of scores with gaps, of which a step measured says nothing."""
    channels, share, noise = len(found.share), found.share, noise / STEP_WEIGHT
    scores, gaps = slice(0, channels), slice(channels, None)
    between, (values, flags) = found.stay[-channels:, -channels:], found.step
    least = np.minimum.outer(share, share)
    together = np.clip(np.outer(share, share) + between + flags, 0.05 * least, least)
    np.fill_diagonal(together, share)
    squares, stretch = _unwound(np.maximum(np.diag(values), 2.0 * noise) / share)
    latent, unit, had = np.zeros((2 * channels,) * 2), np.zeros((2 * channels,) * 2), np.ones((2 * channels,) * 2)
    had[scores, scores] = together
    spread = np.sqrt(np.outer(squares, squares))
    latent[scores, scores] = np.arcsinh(values / together * np.outer(stretch, stretch)) / spread
    unit[scores, scores] = np.outer(stretch, stretch) / spread / together
    every, common = (_latent(part, found.threshold[:, None], found.threshold) for part in (between + flags, between))
    free = 1.0 - np.clip(np.diag(common), 0.02, 0.98)
    spread = np.sqrt(np.outer(free, free))
    latent[gaps, gaps] = (every - common) / spread
    unit[gaps, gaps] = np.outer(found.slope, found.slope) / spread
    return _correlations(latent, _doubt(noise * unit, patients * had), (scores, gaps))


def _unwound(powers: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of sines of normal angles their mean squares; of the angles the variances, and the inverse slope of the sines."""
    squares = np.maximum(-0.5 * np.log(np.maximum(1.0 - 2.0 * powers, 0.05)), 1e-4)
    return squares, np.exp(0.5 * squares)


def _doubt(noise: NDArray[np.float64], patients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of correlations by noise, of so much in a diagonal moment, and by chance."""
    return np.asarray(0.5 * np.square(noise) + 1.0 / np.maximum(patients, 1.0))


def _latent(
    covariance: NDArray[np.float64], one: NDArray[np.float64], other: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correlations of two normal numbers that lie above their thresholds with such a covariance; shapes broadcast."""
    edges = np.linspace(-math.asin(LARGEST_CORRELATION), math.asin(LARGEST_CORRELATION), 2 * ANGLES + 1)
    angles = 0.5 * (edges[1:] + edges[:-1])
    one, other = one[..., None], other[..., None]
    apart = np.square(one) + np.square(other) - 2.0 * one * other * np.sin(angles)
    cells = np.exp(-apart / (2.0 * np.square(np.cos(angles)))) * (edges[1] - edges[0]) / (2.0 * math.pi)
    reached = np.cumsum(cells, axis=-1)
    reached = np.concatenate([np.zeros_like(reached[..., :1]), reached], axis=-1)
    reached = reached - reached[..., ANGLES : ANGLES + 1]
    wanted = np.clip(covariance[..., None], reached[..., :1], reached[..., -1:])
    place = np.clip((reached < wanted).sum(axis=-1), 1, 2 * ANGLES)[..., None]
    reached = np.broadcast_to(reached, (*wanted.shape[:-1], reached.shape[-1]))
    low, high = (np.take_along_axis(reached, index, axis=-1)[..., 0] for index in (place - 1, place))
    part = (wanted[..., 0] - low) / np.maximum(high - low, 1e-300)
    return np.asarray(np.sin(edges[place[..., 0] - 1] + np.clip(part, 0.0, 1.0) * (edges[1] - edges[0])))


def _correlations(
    found: NDArray[np.float64], doubt: NDArray[np.float64], parts: tuple[slice, ...]
) -> NDArray[np.float64]:
    """Correlations taken back as far as they are noise or chance, each two parts by themselves; 1 on the diagonal."""
    shrunk = np.zeros_like(found)
    off = np.logical_not(np.eye(len(found), dtype=bool))
    for one in parts:
        for other in parts:
            confidence = np.where(off[one, other], 1.0 / np.square(doubt[one, other]), 0.0)
            excess = confidence * (np.square(found[one, other]) - doubt[one, other])
            certain = max(float(confidence.sum()), 1e-300)
            # Less what so few correlations may seem to have of it by accident.
            signal = max(float(excess.sum()) / certain - SURE * math.sqrt(2.0 / certain), 0.0)
            shrunk[one, other] = found[one, other] * signal / (signal + doubt[one, other])
    return _positive(np.where(off, np.clip(shrunk, -LARGEST_CORRELATION, LARGEST_CORRELATION), 1.0))


def _positive(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest matrix with positive eigenvalues and the same diagonal, at most 1 (Higham 2002, algorithm 3.3)."""
    diagonal = np.sqrt(np.clip(np.diag(matrix), 0.05, 1.0))
    target = matrix / np.outer(diagonal, diagonal)
    np.fill_diagonal(target, 1.0)
    step = np.zeros_like(target)
    for _ in range(PROJECTIONS):
        raised = _raised(target - step)
        step = raised - (target - step)
        target = raised.copy()
        np.fill_diagonal(target, 1.0)
    raised = _raised(target)
    scale = diagonal / np.sqrt(np.diag(raised))
    return np.asarray(raised * np.outer(scale, scale))


def _raised(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, LEAST_EIGENVALUE)) @ vectors.T)
