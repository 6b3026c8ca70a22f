"""A Gaussian copula from one noisy sum: the fast model, and the baseline that training has to beat.

Every site sums one outer product per patient, of the patient's residuals: what the patient's columns are beyond what
the anchor (the noisy prevalences under the patient's label) expects. The sum with Gaussian noise is the only thing
that leaves. Out of it, all by post-processing: the covariances freed of noise, latent loadings, patients.

Moments are given in units of the mean length that the anchor expects of a patient's contribution
(:func:`expected_norm`): the clip norm is then a public number of a plan before anything is known of the columns.

The latent model: factors f ~ N(0, I) of a patient; a code is 1 where its normal latent value (loadings times f, and
noise of its own) lies above the threshold that gives it the anchor's prevalence; in a one-hot group the column with
the largest utility is 1 (loadings times f, an offset, and Gumbel noise: the mixed logit of McFadden and Train 2000),
the offsets being such that the prevalences are the anchor's.

Shapes: ``N`` patients, ``D`` columns, ``L`` label values, ``R`` factors, ``M`` = D*(D+1)/2 moments.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_shared.data.shares import limits
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.errors import ProtocolError, SnapshotError
from synclave_shared.models.anchor import Anchor, prevalences
from synclave_shared.models.layout import CodeLayout

__all__ = [
    "Copula",
    "copula_of_vector",
    "copula_vector",
    "expected_norm",
    "fit_copula",
    "independent_copula",
    "moments_size",
    "residual_scale",
    "second_moments",
]

SMALLEST_SCALE: Final = 0.2
"""Residuals of a code rarer than about 4 % are scaled as if it were that common: or a patient with one very rare code
would spend the whole clip norm on it."""

CHUNK_PATIENTS: Final = 8192
"""Patients whose residuals are in memory at once."""

LARGEST_COMMUNALITY: Final = 0.95
"""Most of a code's latent variance that factors may explain: some part of a patient is always the patient's own."""

WEAKEST_FACTOR: Final = 0.5
"""Factors are kept down to this part of the variance at which an average column's loading is half noise."""

FACTORISATIONS: Final = 4
"""Passes that fill the unseen diagonal blocks by what the factors say of them; later ones change little."""

LARGEST_UTILITY: Final = 2.0
"""Bound of a one-hot group's latent covariances: first order says nothing sensible beyond."""

RAREST: Final = 1e-9
"""Prevalences are kept so far from 0 and 1, where normal quantiles are finite."""

ANGLES: Final = 16
"""Cells in which the bivariate normal integral is inverted; with linear interpolation good to about 0.001."""

UTILITY_DRAWS: Final = 4096
"""Draws (and their mirror images) with which the offsets of one-hot groups are matched."""

OFFSET_STEPS: Final = 12
"""Newton steps for the offsets; they converge quadratically."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copula:
    """A fitted model: public, since it was made of noisy sums only.

    Attributes:
        layout: columns and label values.
        label_shares: float64 [L].
        loadings: float32 [D, R].
        levels: float32 [L, D]; a code is 1 where latent value + level > 0; of a one-hot group, offsets of utilities.
    """

    layout: CodeLayout
    label_shares: NDArray[np.float64]
    loadings: NDArray[np.float32]
    levels: NDArray[np.float32]


def moments_size(layout: CodeLayout) -> int:
    """Length M of a release of second moments."""
    return layout.width * (layout.width + 1) // 2


def residual_scale(anchor: Anchor, layout: CodeLayout) -> NDArray[np.float64]:
    """Standard deviation of each column about its prevalence under the label, at least :data:`SMALLEST_SCALE`; [D]."""
    found = prevalences(anchor, layout)
    return np.maximum(np.sqrt(anchor.label_shares @ (found * (1.0 - found))), SMALLEST_SCALE)


def expected_norm(anchor: Anchor, layout: CodeLayout) -> float:
    """Mean over patients of |z|^2, a contribution's L2 norm, by what is public: the unit of moments and clip norms."""
    found = prevalences(anchor, layout)
    variance = anchor.label_shares @ (found * (1.0 - found))
    return max(float((variance / np.square(residual_scale(anchor, layout))).sum()), RAREST)


def second_moments(
    features: SparseRows,
    labels: NDArray[np.int64],
    anchor: Anchor,
    layout: CodeLayout,
    clip_norm: float,
    shares: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Sum over patients of the outer product of the residuals z = (x - prevalence under the label) / scale.

    A contribution is the upper triangle of z z' / :func:`expected_norm`, what is off the diagonal times sqrt(2): its L2
    norm is |z|^2 in those units, and equal noise in every coordinate is noise that no rotation of the columns changes.
    Contributions longer than ``clip_norm`` are scaled down to it, whatever the anchor says.

    Args:
        features: [N, D], 0/1.
        labels: [N].
        anchor: public.
        layout: columns and label values.
        clip_norm: L2 bound of one patient's contribution, in units of the expected norm.
        shares: [N], what share of it each patient may have; None: all of it.

    Returns:
        [M], without noise: adding it is the caller's part, who has the randomness.
    """
    centre = prevalences(anchor, layout)
    scale = residual_scale(anchor, layout) * math.sqrt(expected_norm(anchor, layout))
    total = np.zeros((layout.width, layout.width))
    bounds = limits(shares, len(features), clip_norm)
    for start in range(0, len(features), CHUNK_PATIENTS):
        rows = features[start : start + CHUNK_PATIENTS]
        residuals = (rows - centre[labels[start : start + CHUNK_PATIENTS]]) / scale
        norms = np.square(residuals).sum(axis=1)
        bound = bounds[start : start + CHUNK_PATIENTS]
        residuals *= np.sqrt(np.minimum(1.0, bound / np.maximum(norms, bound)))[:, None]
        total += residuals.T @ residuals
    rows_of, columns_of = np.triu_indices(layout.width)
    moments: NDArray[np.float64] = total[rows_of, columns_of]
    moments[rows_of != columns_of] *= math.sqrt(2.0)
    return moments


def fit_copula(noisy_moments: NDArray[np.float64], noise_std: float, anchor: Anchor, layout: CodeLayout) -> Copula:
    """Estimate the latent model from noisy second moments.

    Args:
        noisy_moments: [M], sum over sites of :func:`second_moments` with noise.
        noise_std: standard deviation of the noise in each of them, in their unit; 0 for none.
        anchor: the one that the moments were taken about.
        layout: columns and label values.

    Raises:
        ProtocolError: if the length is not :func:`moments_size` or a value is not finite.
    """
    if noisy_moments.shape != (moments_size(layout),) or not np.all(np.isfinite(noisy_moments)):
        raise ProtocolError(
            expected=f"{moments_size(layout)} finite moments",
            found=f"shape {noisy_moments.shape}, finite: {bool(np.all(np.isfinite(noisy_moments)))}",
            remedy="Check the sites' releases of second moments.",
        )
    unit = expected_norm(anchor, layout)
    covariance, error = _covariances(unit * noisy_moments, unit * noise_std, anchor, layout)
    slopes = _slopes(anchor, layout)
    # From latent values to residuals, in which the error is alike for all columns.
    metric = (anchor.label_shares @ slopes) / residual_scale(anchor, layout)
    loadings = _loadings(_latent(covariance, slopes, anchor, layout), metric, error, layout)
    return Copula(
        layout=layout,
        label_shares=anchor.label_shares,
        loadings=loadings.astype(np.float32),
        levels=_levels(loadings, anchor, layout).astype(np.float32),
    )


def independent_copula(anchor: Anchor, layout: CodeLayout) -> Copula:
    """The copula of independent columns: what is known before any moments are."""
    loadings = np.zeros((layout.width, 0))
    return Copula(
        layout=layout,
        label_shares=anchor.label_shares,
        loadings=loadings.astype(np.float32),
        levels=_levels(loadings, anchor, layout).astype(np.float32),
    )


def copula_vector(copula: Copula) -> NDArray[np.float32]:
    """A model's parameters in one vector: levels [L * D], then loadings [D * R], as many as there are factors."""
    return np.concatenate([copula.levels.ravel(), copula.loadings.ravel()])


def copula_of_vector(vector: NDArray[np.float32], label_shares: NDArray[np.floating], layout: CodeLayout) -> Copula:
    """Read :func:`copula_vector` back.

    Raises:
        SnapshotError: if the length is that of no copula of this layout.
    """
    rest = vector.size - layout.label_values * layout.width
    if vector.ndim != 1 or rest < 0 or rest % layout.width:
        raise SnapshotError(
            expected=f"levels and loadings of {layout.width} columns under {layout.label_values} label values",
            found=f"shape {vector.shape}",
            remedy="Use the snapshot with the version of Synclave that made it.",
        )
    levels, loadings = vector[: vector.size - rest], vector[vector.size - rest :]
    return Copula(
        layout=layout,
        label_shares=np.asarray(label_shares, np.float64),
        loadings=loadings.reshape(layout.width, rest // layout.width),
        levels=levels.reshape(layout.label_values, layout.width),
    )


def _blocks(layout: CodeLayout) -> NDArray[np.int64]:
    """For each column the number of its block: a one-hot group is one, every other column one of its own; [D]."""
    block = np.arange(layout.width)
    for start, stop in layout.categories:
        block[start:stop] = start
    return block


def _covariances(
    noisy_moments: NDArray[np.float64], noise_std: float, anchor: Anchor, layout: CodeLayout
) -> tuple[NDArray[np.float64], float]:
    """Covariances of columns within a label, freed of noise, [D, D]; 0 inside blocks, which tell nothing.

    Returns:
        The covariances, and the standard error of one of them before it was freed of noise, for columns of scale 1:
        by noise, and by patients being so many only.
    """
    width = layout.width
    upper = np.zeros((width, width))
    rows_of, columns_of = np.triu_indices(width)
    upper[rows_of, columns_of] = np.where(rows_of == columns_of, noisy_moments, noisy_moments / math.sqrt(2.0))
    observed = upper + np.triu(upper, 1).T

    found, scale, shares = prevalences(anchor, layout), residual_scale(anchor, layout), anchor.label_shares
    expected = np.diag(shares @ (found * (1.0 - found)))
    for start, stop in layout.categories:
        group = found[:, start:stop]
        expected[start:stop, start:stop] = np.diag(shares @ group) - np.einsum("l,li,lj->ij", shares, group, group)
    expected /= scale[:, None] * scale[None, :]

    # Clipping makes patients count for less than one; how many a column's moments count for, its diagonal tells.
    known, seen = np.diag(expected), np.diag(observed)
    overall = max(float(known @ seen) / float(known @ known), 1.0)
    error = np.square(noise_std / known)
    precision = np.square(1.0 / (error + np.square(0.1 * overall)))
    signal = max(float(precision @ (np.square(seen / known - overall) - error)) / float(precision.sum()), 0.0)
    patients = overall + (seen / known - overall) * signal / np.maximum(signal + error, 1e-300)
    patients = np.clip(patients, 0.2 * overall, 5.0 * overall)
    weight = np.sqrt(patients)

    clean = _denoised(observed - expected * weight[:, None] * weight[None, :], noise_std / math.sqrt(2.0))
    covariance: NDArray[np.float64] = clean * (scale / weight)[:, None] * (scale / weight)[None, :]
    block = _blocks(layout)
    covariance[block[:, None] == block[None, :]] = 0.0
    return covariance, math.sqrt(0.5 * noise_std**2 + overall) / overall


def _denoised(observed: NDArray[np.float64], noise_std: float) -> NDArray[np.float64]:
    """The best estimate, in squared error, that keeps the eigenvectors of a symmetric matrix seen with Gaussian noise.

    Each eigenvalue moves by -2 D noise_std^2 times the Hilbert transform of the spectrum (Bun, Allez, Bouchaud and
    Potters 2016, additive case). Far from the bulk this is the optimal shrinkage of a spike,
    sqrt(value^2 - 4 D noise_std^2); inside it, most of the way to zero. Nothing has to be chosen.

    Args:
        observed: [D, D], symmetric.
        noise_std: of an element off the diagonal; on it the noise has sqrt(2) times as much.
    """
    if noise_std == 0.0:
        return observed
    values, vectors = np.linalg.eigh(observed)
    distance = values[:, None] - values[None, :]
    # The noise repels neighbouring eigenvalues at this distance; below it the sum would see only that.
    kernel = distance / (np.square(distance) + noise_std**2)
    shrunk = values - 2.0 * noise_std**2 * kernel.sum(axis=1)
    denoised: NDArray[np.float64] = (vectors * shrunk) @ vectors.T
    return denoised


def _thresholds(anchor: Anchor, layout: CodeLayout) -> NDArray[np.float64]:
    """Normal quantiles of the prevalences, [L, D]."""
    quantile = NormalDist().inv_cdf
    found = np.clip(prevalences(anchor, layout), RAREST, 1.0 - RAREST)
    return np.array([[quantile(float(value)) for value in row] for row in found])


def _slopes(anchor: Anchor, layout: CodeLayout) -> NDArray[np.float64]:
    """What a small rise of a column's latent value adds to its prevalence, per label value, [L, D].

    For a code the normal density at the threshold. For a column of a one-hot group p: the logit's Jacobian
    diag(p) - pp' multiplies by p whatever utilities sum, weighted by p, to 0.
    """
    slopes = np.exp(-0.5 * np.square(_thresholds(anchor, layout))) / math.sqrt(2.0 * math.pi)
    found = prevalences(anchor, layout)
    for start, stop in layout.categories:
        slopes[:, start:stop] = found[:, start:stop]
    return slopes


def _latent(
    covariance: NDArray[np.float64], slopes: NDArray[np.float64], anchor: Anchor, layout: CodeLayout
) -> NDArray[np.float64]:
    """Covariances of latent values that give these covariances of columns, [D, D]; 0 inside blocks.

    Exact for two codes, by the bivariate normal law; of first order where a one-hot group takes part.
    """
    gain = np.einsum("l,li,lj->ij", anchor.label_shares, slopes, slopes)
    latent: NDArray[np.float64] = np.clip(covariance / np.maximum(gain, RAREST**2), -LARGEST_UTILITY, LARGEST_UTILITY)
    code = np.ones(layout.width, np.bool_)
    for start, stop in layout.categories:
        code[start:stop] = False
    pairs = np.ix_(code, code)
    latent[pairs] = _tetrachoric(covariance[pairs], _thresholds(anchor, layout)[:, code], anchor.label_shares)
    return latent


def _tetrachoric(
    covariance: NDArray[np.float64], threshold: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Normal correlations [C, C] that give thresholded values these covariances within the labels, on average.

    cov(r) = 1/(2 pi) * integral over the angle from 0 to asin r of exp(-(a^2 + b^2 - 2 a b sin) / (2 cos^2))
    (Drezner and Wesolowsky 1990), which grows with r: the angle is found cell by cell on the covariance's side of 0.
    What no correlation reaches gets the last one.
    """
    rows, columns = np.triu_indices(len(covariance), 1)
    wanted = np.abs(covariance[rows, columns])
    sign = np.where(covariance[rows, columns] < 0, -1.0, 1.0)
    edges = np.linspace(0.0, math.asin(LARGEST_COMMUNALITY), ANGLES + 1)
    reached, angle = np.zeros_like(wanted), np.full_like(wanted, edges[-1])
    squares = [np.square(row[rows]) + np.square(row[columns]) for row in threshold]
    products = [sign * row[rows] * row[columns] for row in threshold]
    for low, high in itertools.pairwise(edges):
        gained = np.zeros_like(wanted)
        # Two-point Gauss-Legendre.
        for node in (0.5 - 0.5 / math.sqrt(3.0), 0.5 + 0.5 / math.sqrt(3.0)):
            at = low + node * (high - low)
            for share, square, product in zip(shares, squares, products, strict=True):
                gained += share * np.exp((product * math.sin(at) - 0.5 * square) / math.cos(at) ** 2)
        gained *= 0.5 * (high - low) / (2.0 * math.pi)
        inside = (wanted >= reached) & (wanted < reached + gained)
        angle[inside] = low + (high - low) * (wanted[inside] - reached[inside]) / gained[inside]
        reached += gained
    correlation = np.zeros_like(covariance)
    correlation[rows, columns] = correlation[columns, rows] = sign * np.sin(angle)
    return correlation


def _loadings(
    latent: NDArray[np.float64], metric: NDArray[np.float64], error: float, layout: CodeLayout
) -> NDArray[np.float64]:
    """Loadings F [D, R] with FF' close to ``latent`` outside blocks: principal factors, iterated.

    Distances are taken where the noise is even, in moments: ``metric`` [D] leads from latent values there, and what
    is rare weighs little. A loading is shrunk by what its column's noise leaves of it, loadings of a factor being held
    alike a priori. Diagonal blocks are unseen and filled by the factors so far. No eigenvalue below the noise is kept
    and no code's row is longer than :data:`LARGEST_COMMUNALITY` allows, so the model is always a valid one.
    """
    block = _blocks(layout)
    unseen = block[:, None] == block[None, :]
    codes = np.bincount(block, minlength=layout.width)[block] == 1
    weight = np.square(metric) / np.square(metric).mean()
    target = latent * metric[:, None] * metric[None, :]
    filled = np.zeros_like(latent)
    for _ in range(FACTORISATIONS):
        values, vectors = np.linalg.eigh(target + filled)
        kept = values > WEAKEST_FACTOR * error * math.sqrt(layout.width)
        values = values[kept]
        noise_share = np.square(error / values) * layout.width
        trust = weight[:, None] / (weight[:, None] + noise_share)
        # Eigenvalues are shrunk already, by as much as an average column asks for.
        trust = np.minimum(trust * np.sqrt(1.0 + noise_share), 1.0)
        loadings: NDArray[np.float64] = vectors[:, kept] * np.sqrt(values) * trust / metric[:, None]
        length = np.square(loadings).sum(axis=1)
        too_long = codes & (length > LARGEST_COMMUNALITY)
        loadings[too_long] *= np.sqrt(LARGEST_COMMUNALITY / length[too_long])[:, None]
        filled = np.where(unseen, loadings @ loadings.T, 0.0) * metric[:, None] * metric[None, :]
    return loadings


def _levels(loadings: NDArray[np.float64], anchor: Anchor, layout: CodeLayout) -> NDArray[np.float64]:
    """Levels [L, D] that give each column the anchor's prevalence under each label.

    For a code the normal quantile. For a one-hot group the offsets b with mean softmax(b + utilities) = p: the
    gradient of a concave function, so Newton's method finds them from log p.
    """
    found, levels = prevalences(anchor, layout), _thresholds(anchor, layout)
    rng = np.random.default_rng(0)
    for start, stop in layout.categories:
        # The group's utilities are normal with this covariance; as many factors as it has columns are enough.
        values, vectors = np.linalg.eigh(loadings[start:stop] @ loadings[start:stop].T)
        half = rng.standard_normal((UTILITY_DRAWS, stop - start)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        utilities = np.concatenate([half, -half])
        for label, wanted in enumerate(found[:, start:stop]):
            levels[label, start:stop] = _offsets(utilities, wanted)
    return levels


def _offsets(utilities: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets [K] with which the mean softmax of utilities [S, K] is ``wanted`` [K]."""
    offsets: NDArray[np.float64] = np.log(wanted)
    for _ in range(OFFSET_STEPS):
        shifted = utilities + offsets
        shares = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        mean = shares.mean(axis=0)
        jacobian = np.diag(mean) - shares.T @ shares / len(shares)
        step = np.linalg.lstsq(jacobian, wanted - mean, rcond=1e-12)[0]
        offsets = offsets + np.clip(step, -1.0, 1.0)
    return offsets
