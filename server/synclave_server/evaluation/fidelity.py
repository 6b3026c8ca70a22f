"""Do synthetic patients look like real ones? Prevalence, correlation, kernel distance, discriminators.

Each function takes one contender and the reference and returns plain numbers; :func:`fidelity_measures` runs them on
all three contenders of a :class:`~synclave_server.evaluation.comparison.Comparison`. Definitions with formulas stand
in ``docs/evaluation.md``. Legend: N, M patients, D columns, S selected columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from synclave_server.evaluation.classifiers import DISCRIMINATORS, classifiers
from synclave_server.evaluation.comparison import Columns, Comparison, Table
from synclave_server.evaluation.measure import Measure, Reading, defined, undefined
from synclave_server.evaluation.ranking import ranking_quality

__all__ = [
    "DISCRIMINATOR_PATIENTS",
    "MINIMUM_CARRIERS",
    "MMD_PATIENTS",
    "RARE",
    "Prevalence",
    "coefficient_agreement",
    "compared_pairs",
    "correlation_agreement",
    "correlation_matrix",
    "discriminator",
    "fidelity_measures",
    "mmd_squared",
    "prevalence",
    "r_squared",
    "rare_code_mass",
]

RARE: Final = 0.01
"""A code is rare if fewer than this share of the reference patients carry it."""
MINIMUM_CARRIERS: Final = 20
"""A column enters the correlations if at least so many reference patients have it and so many do not: below that a
correlation coefficient is mostly chance."""
CORRELATED_PATIENTS: Final = 100
"""Fewest patients with a label, on either side, whose correlations are compared."""
MMD_PATIENTS: Final = 2_000
"""Patients per side in the kernel distance (cost grows with the square)."""
DISCRIMINATOR_PATIENTS: Final = 3_000
"""Patients per side that the discriminator sees."""
FOLDS: Final = 3
SECTION: Final = "Fidelity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prevalence:
    """Agreement of column prevalences with the reference; see :func:`prevalence`."""

    r2: Reading
    log_r2: Reading
    mean_absolute_error: Reading


def r_squared(truth: NDArray[np.float64], found: NDArray[np.float64]) -> Reading:
    """``1 - sum((found - truth)^2) / sum((truth - mean)^2)``: agreement with the diagonal, not with any line."""
    if len(np.unique(truth)) < 2:
        return undefined("fewer than two different prevalences among the real patients")
    return defined(1.0 - float(((found - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()))


def log_floor(reference: Table, contender: Table) -> float:
    """The prevalence that stands for "nobody" on a log scale: half a patient of the smaller cohort."""
    return 0.5 / min(len(reference), len(contender))


def prevalence(reference: Table, contender: Table) -> Prevalence:
    """Column prevalences of ``contender`` against those of ``reference``.

    The log R2 is over columns that occur in at least one of the two cohorts, with :func:`log_floor` in place of 0.
    """
    truth, found = (t.features.mean(axis=0, dtype=np.float64) for t in (reference, contender))
    floor = log_floor(reference, contender)
    seen = (truth > 0) | (found > 0)
    log_truth, log_found = (np.log10(np.maximum(p[seen], floor)) for p in (truth, found))
    return Prevalence(
        r2=r_squared(truth, found),
        log_r2=r_squared(log_truth, log_found),
        mean_absolute_error=defined(float(np.abs(found - truth).mean())),
    )


def prevalence_within(reference: Table, contender: Table, label: int) -> Reading:
    """Log R2 of prevalences among the patients with one label: does the label keep its meaning?"""
    parts = [table.take(np.flatnonzero(table.labels == label)) for table in (reference, contender)]
    fewest = min(len(part) for part in parts)
    if fewest < MINIMUM_CARRIERS:
        return undefined(f"{fewest} patients with this label in one of the cohorts; at least {MINIMUM_CARRIERS} needed")
    return prevalence(*parts).log_r2


def correlation_within(reference: Table, contender: Table, groups: Sequence[Columns], label: int) -> Reading:
    """Agreement of correlations among the patients with one label, so that no label is a common cause of them."""
    truth, found = (table.take(np.flatnonzero(table.labels == label)) for table in (reference, contender))
    fewest = min(len(truth), len(found))
    if fewest < CORRELATED_PATIENTS:
        return undefined(
            f"{fewest} patients with this label in one of the cohorts; at least {CORRELATED_PATIENTS} needed"
        )
    return correlation_agreement(truth, found, *compared_pairs(truth, groups))[0]


def rare_code_mass(reference: Table, contender: Table) -> Reading:
    """Summed prevalence of the columns that are rare in ``reference``: contender / reference."""
    truth, found = (t.features.mean(axis=0, dtype=np.float64) for t in (reference, contender))
    rare = truth < RARE
    mass = float(truth[rare].sum())
    if mass == 0.0:
        return undefined(f"no code that occurs is rarer than {RARE:.0%} in the real patients")
    return defined(float(found[rare].sum()) / mass)


def compared_pairs(
    reference: Table, groups: Sequence[Columns]
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Columns (int64 [S]) and pairs (positions in them) whose correlation is compared.

    Pairs inside one categorical group are left out: the schema forces their correlation, so every model has it right.
    """
    carriers = reference.features.sum(axis=0, dtype=np.int64)
    columns = np.flatnonzero((carriers >= MINIMUM_CARRIERS) & (len(reference) - carriers >= MINIMUM_CARRIERS))
    group_of = np.arange(reference.features.shape[1])
    for group in groups:
        if group.kind == "categorical":
            group_of[group.start : group.stop] = group.start
    rows, others = np.triu_indices(len(columns), k=1)
    free = group_of[columns[rows]] != group_of[columns[others]]
    return columns, (rows[free], others[free])


def correlation_matrix(features: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pearson correlations [S, S] of 0/1 columns uint8 [N, S]; 0 where a column is constant (no association shown)."""
    values = features.astype(np.float32)
    values -= values.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = (values.T @ values).astype(np.float64) / max(len(values), 1)
    deviation = np.sqrt(np.diag(covariance))
    scale = np.where(features.min(axis=0, initial=1) == features.max(axis=0, initial=0), np.inf, deviation)
    correlation: NDArray[np.float64] = covariance / scale[:, None] / scale[None, :]
    return correlation


def correlation_agreement(
    reference: Table,
    contender: Table,
    columns: NDArray[np.int64],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[Reading, Reading]:
    """Pearson correlation between, and root mean square difference of, the off-diagonal correlations of two cohorts."""
    if len(pairs[0]) < 3:
        reason = (
            f"fewer than three pairs of codes that {MINIMUM_CARRIERS} real patients have and {MINIMUM_CARRIERS} lack"
        )
        return undefined(reason), undefined(reason)
    truth, found = (correlation_matrix(t.features[:, columns])[pairs] for t in (reference, contender))
    return coefficient_agreement(truth, found)


def coefficient_agreement(truth: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[Reading, Reading]:
    """Pearson correlation between, and root mean square difference of, two lists of coefficients, at least three."""
    rmse = defined(float(np.sqrt(((found - truth) ** 2).mean())))
    # A cohort without any association at all (say, one patient repeated) leaves nothing to correlate with.
    if found.std() == 0 or truth.std() == 0:
        return undefined("all correlations are equal in one of the two cohorts"), rmse
    return defined(float(np.corrcoef(truth, found)[0, 1])), rmse


def hamming(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Number of columns in which patients differ, float32 [N, M]; exact, since counts stay below 2^24."""
    a, b = left.astype(np.float32), right.astype(np.float32)
    distance: NDArray[np.float32] = a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :] - 2.0 * (a @ b.T)
    return distance


def mmd_squared(reference: Table, contender: Table, bandwidth: float) -> Reading:
    """Unbiased squared maximum mean discrepancy with kernel ``exp(-hamming / bandwidth)`` (Gretton et al. 2012, eq. 3).

    May be slightly negative where the cohorts do not differ.

    Args:
        reference: real patients.
        contender: patients to compare; the caller limits both to :data:`MMD_PATIENTS`.
        bandwidth: in columns; > 0.
    """
    if min(len(reference), len(contender)) < 2:
        return undefined("fewer than two patients in a cohort")

    def mean_within(features: NDArray[np.uint8]) -> float:
        kernel = np.exp(-hamming(features, features) / bandwidth)
        count = len(features)
        return (float(kernel.sum(dtype=np.float64)) - count) / (count * (count - 1))

    across = float(np.exp(-hamming(reference.features, contender.features) / bandwidth).mean(dtype=np.float64))
    return defined(mean_within(reference.features) + mean_within(contender.features) - 2.0 * across)


def kernel_bandwidth(reference: Table) -> float:
    """Median Hamming distance between reference patients (at least 1), so that all contenders meet the same kernel."""
    distance = hamming(reference.features, reference.features)
    rows = np.triu_indices(len(distance), k=1)
    return max(float(np.median(distance[rows])), 1.0) if len(rows[0]) else 1.0


def discriminator(reference: Table, contender: Table, model: Any, rng: np.random.Generator) -> Reading:
    """Cross-validated AUROC of telling ``contender`` from ``reference`` by columns and label.

    Scores are replaced by their rank within the fold before folds are pooled, because folds are calibrated apart.
    """
    size = min(len(reference), len(contender), DISCRIMINATOR_PATIENTS)
    if size < 10 * FOLDS:
        return undefined(f"fewer than {10 * FOLDS} patients in a cohort")
    sides = [reference.sample(size, rng), contender.sample(size, rng)]
    labels = np.concatenate([side.labels for side in sides])
    one_hot = (labels[:, None] == np.unique(labels)[None, :]).astype(np.uint8)
    features = np.hstack([np.concatenate([side.features for side in sides]), one_hot])
    made = np.repeat([False, True], size)
    scores = np.zeros(2 * size)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    for fit, judge in folds.split(features, made):
        model.fit(features[fit], made[fit])
        raw = model.predict_proba(features[judge])[:, 1]
        scores[judge] = np.searchsorted(np.sort(raw), raw) / len(raw)
    (auroc, interval), _ = ranking_quality(made, scores, rng)
    return defined(auroc, interval)


def fidelity_measures(
    comparison: Comparison,
    groups: Sequence[Columns],
    label_name: str,
    label_values: Sequence[str],
    seed: int,
    progress: Callable[[str], None],
) -> list[Measure]:
    """All fidelity measures with ceiling and floor, in the order of the report."""
    rng = np.random.default_rng([seed, 1])
    reference = comparison.reference
    progress("prevalence")
    agreement = [prevalence(reference, contender) for contender in comparison.contenders()]
    rare = [rare_code_mass(reference, contender) for contender in comparison.contenders()]
    progress("correlations")
    columns, pairs = compared_pairs(reference, groups)
    correlation = [correlation_agreement(reference, contender, columns, pairs) for contender in comparison.contenders()]
    progress("kernel distance")
    few = reference.sample(MMD_PATIENTS, rng)
    bandwidth = kernel_bandwidth(few)
    distance = [
        mmd_squared(few, contender.sample(MMD_PATIENTS, rng), bandwidth) for contender in comparison.contenders()
    ]
    measures = [
        _measure("prevalence_r2", "Prevalence of codes, R²", "one", [a.r2 for a in agreement]),
        _measure("prevalence_log_r2", "Prevalence on a log scale, R²", "one", [a.log_r2 for a in agreement]),
        _measure(
            "prevalence_mae",
            "Prevalence, mean absolute error",
            "zero",
            [a.mean_absolute_error for a in agreement],
            resolution=0.002,
            percent=True,
        ),
        _measure("rare_code_mass", "Rare codes, synthetic / real", "same", rare, resolution=0.05),
        _measure("correlation_pearson", "Correlations between codes, Pearson", "one", [c[0] for c in correlation]),
        _measure(
            "correlation_rmse",
            "Correlations between codes, RMSE",
            "zero",
            [c[1] for c in correlation],
            resolution=0.005,
        ),
        _measure("mmd_squared", "Kernel distance, MMD²", "zero", distance, resolution=0.0005),
    ]
    for position, value in enumerate(label_values):
        readings = [prevalence_within(reference, contender, position) for contender in comparison.contenders()]
        title = f"Prevalence on a log scale where {label_name} = {value}, R²"
        measures.append(_measure(f"prevalence_log_r2[{value}]", title, "one", readings))
    for position, value in enumerate(label_values):
        readings = [correlation_within(reference, contender, groups, position) for contender in comparison.contenders()]
        title = f"Correlations between codes where {label_name} = {value}, Pearson"
        measures.append(_measure(f"correlation_pearson[{value}]", title, "one", readings))
    judges = classifiers(seed)
    for key in DISCRIMINATORS:
        name, model = judges[key]
        progress(f"discriminator: {name}")
        readings = [discriminator(reference, contender, model, rng) for contender in comparison.contenders()]
        measures.append(_measure(f"discriminator_{key}", f"Discriminator, {name}, AUROC", "half", readings))
    return measures


def _measure(key: str, title: str, aim: Any, readings: Sequence[Reading], **more: Any) -> Measure:
    value, ceiling, floor = readings
    return Measure(key=key, title=title, section=SECTION, aim=aim, value=value, ceiling=ceiling, floor=floor, **more)
