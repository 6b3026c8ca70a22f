"""Do synthetic courses look like real ones? Values, gaps, relations over time and between channels, and two judges.

Legend: N patients, T steps, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from synclave_server.evaluation.classifiers import DISCRIMINATORS
from synclave_server.evaluation.comparison import Comparison, Table
from synclave_server.evaluation.fidelity import (
    SECTION,
    coefficient_agreement,
    compared_pairs,
    correlation_agreement,
    discriminator,
    prevalence,
)
from synclave_server.evaluation.measure import Aim, Measure, Reading, defined, undefined
from synclave_server.evaluation.series.classifiers import series_classifiers
from synclave_server.evaluation.series.courses import channel_scale, present
from synclave_server.evaluation.series.likeness import (
    MINIMUM_PATIENTS,
    autocorrelations,
    channel_correlations,
    lags_of,
    observed_shares,
    value_distances,
)
from synclave_server.evaluation.series.recurrent import Forecaster
from synclave_server.evaluation.sites import SiteRow

__all__ = ["CORRELATED_PATIENTS", "compared_channels", "fidelity_of_series", "next_step_error", "series_rows"]

CORRELATED_PATIENTS: Final = 50
"""A correlation of two channels is compared if so many reference patients have both."""
FORECAST_REPLICATES: Final = 200
NO_CHANNEL: Final = f"no channel that {MINIMUM_PATIENTS} real patients have and that varies"


def compared_channels(reference: NDArray[Any]) -> list[int]:
    """Channels that enough reference patients have, and that vary."""
    carriers = reference["observed"].any(axis=1).sum(axis=0)
    observed = reference["observed"].astype(bool)
    varied = np.where(observed, reference["values"], -np.inf).max(axis=(0, 1)) > np.where(
        observed, reference["values"], np.inf
    ).min(axis=(0, 1))
    return [int(channel) for channel in np.flatnonzero((carriers >= MINIMUM_PATIENTS) & varied)]


def distances(reference: Table, contender: Table) -> tuple[Reading, Reading, Reading]:
    """Wasserstein distance, error of means and error of standard deviations, each a mean over the channels."""
    channels = compared_channels(reference.features)
    if not channels:
        return (undefined(NO_CHANNEL),) * 3
    wasserstein, mean, deviation = (
        defined(float(part.mean())) for part in value_distances(reference.features, contender.features, channels)
    )
    return wasserstein, mean, deviation


def observation_error(reference: Table, contender: Table) -> Reading:
    """Mean absolute difference of the shares observed, over channels and the steps with enough reference patients."""
    steps = present(reference.features).sum(axis=0) >= MINIMUM_PATIENTS
    if not steps.any():
        return undefined(f"no step at which {MINIMUM_PATIENTS} real patients are there")
    truth, found = (observed_shares(table.features)[steps] for table in (reference, contender))
    return defined(float(np.abs(found - truth).mean()))


def observation_correlation(reference: Table, contender: Table) -> Reading:
    """Pearson agreement of how observations of two channels go together in the steps of the stays."""
    truth, found = (_flags(table) for table in (reference, contender))
    return correlation_agreement(truth, found, *compared_pairs(truth, ()))[0]


def observations_per_patient(reference: Table, contender: Table) -> Reading:
    """Wasserstein distance of the observations per patient and step, in standard deviations of the reference."""
    truth, found = (
        table.features["observed"].sum(axis=(1, 2)) / table.features["length"] for table in (reference, contender)
    )
    if truth.std() == 0:
        return undefined("all real patients have equally many observations")
    return defined(float(wasserstein_distance(truth, found) / truth.std()))


def autocorrelation_error(reference: Table, contender: Table) -> Reading:
    """Mean absolute difference of autocorrelations over channels and lags; what the contender lacks counts as 0."""
    lags = lags_of(reference.features["values"].shape[1])
    truth, found = (autocorrelations(table.features, lags) for table in (reference, contender))
    known = np.isfinite(truth)
    known[:, np.setdiff1d(np.arange(truth.shape[1]), compared_channels(reference.features))] = False
    if not known.any():
        return undefined("no channel is observed twice in enough real patients")
    return defined(float(np.abs(np.nan_to_num(found[known]) - truth[known]).mean()))


def correlations(reference: Table, contender: Table) -> tuple[Reading, Reading]:
    """Pearson agreement, and root mean square difference, of the correlations between channels."""
    truth, patients = channel_correlations(reference.features)
    found, _ = channel_correlations(contender.features)
    rows, others = np.triu_indices(len(truth), k=1)
    known = (patients[rows, others] >= CORRELATED_PATIENTS) & np.isfinite(truth[rows, others])
    if known.sum() < 3:
        reason = f"fewer than three pairs of channels that {CORRELATED_PATIENTS} real patients have"
        return undefined(reason), undefined(reason)
    pairs = rows[known], others[known]
    return coefficient_agreement(truth[pairs], np.nan_to_num(found[pairs]))


def next_step_error(test: Table, train: Table, seed: int, rng: np.random.Generator) -> Reading:
    """Mean absolute error, on ``test``, of a forecaster trained on ``train``, with a bootstrap interval over patients.

    In standard deviations of the test patients' channels, over the values observed at the next step.
    """
    if test.features["values"].shape[1] < 2:
        return undefined("the grid has one step")
    if len(train) < MINIMUM_PATIENTS:
        return undefined(f"{len(train)} patients to learn from; at least {MINIMUM_PATIENTS} needed")
    counted = test.features["observed"][:, 1:]
    if not counted.any():
        return undefined("nothing is observed after the first step")
    error = np.abs(Forecaster(seed).fit(train.features).predict(test.features) - test.features["values"][:, 1:])
    sums = (error / channel_scale(test.features)[1] * counted).sum(axis=(1, 2), dtype=np.float64)
    counts = counted.sum(axis=(1, 2), dtype=np.float64)
    picks = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=FORECAST_REPLICATES)
    low, high = np.percentile(picks @ sums / np.maximum(picks @ counts, 1), (2.5, 97.5))
    return defined(float(sums.sum() / counts.sum()), (float(low), float(high)))


def series_rows(reference: Table, contenders: Sequence[Table]) -> list[SiteRow]:
    """What is compared at one site: distributions of values and correlations between channels."""
    if len(reference) < MINIMUM_PATIENTS:
        few = undefined(f"{len(reference)} patients of this site; at least {MINIMUM_PATIENTS} needed")
        values = relations = [few] * len(contenders)
    else:
        values = [distances(reference, contender)[0] for contender in contenders]
        relations = [correlations(reference, contender)[0] for contender in contenders]
    return [
        ("wasserstein", "Values of channels, Wasserstein distance", "zero", values),
        ("correlation_pearson", "Correlations between channels, Pearson", "one", relations),
    ]


def fidelity_of_series(comparison: Comparison, seed: int, progress: Callable[[str], None]) -> list[Measure]:
    """All fidelity measures with ceiling and floor, in the order of the report."""
    rng = np.random.default_rng([seed, 1])
    reference, contenders = comparison.reference, list(comparison.contenders())
    progress("values of channels")
    values = [distances(reference, contender) for contender in contenders]
    measures = [
        _measure("wasserstein", "Values of channels, Wasserstein distance", "zero", [v[0] for v in values]),
        _measure("mean_error", "Means of channels, absolute error", "zero", [v[1] for v in values]),
        _measure("deviation_error", "Standard deviations of channels, relative error", "zero", [v[2] for v in values]),
    ]
    progress("gaps")
    lengths = [
        defined(float(wasserstein_distance(reference.features["length"], contender.features["length"])))
        for contender in contenders
    ]
    measures += [
        _measure(
            "observed_mae",
            "Share observed of each channel and step, absolute error",
            "zero",
            [observation_error(reference, contender) for contender in contenders],
            resolution=0.002,
            percent=True,
        ),
        _measure(
            "observations_wasserstein",
            "Observations per patient, Wasserstein distance",
            "zero",
            [observations_per_patient(reference, contender) for contender in contenders],
        ),
        _measure(
            "observed_correlation_pearson",
            "Which channels are observed together, Pearson",
            "one",
            [observation_correlation(reference, contender) for contender in contenders],
        ),
        _measure("length_wasserstein", "Length of stay in steps, Wasserstein distance", "zero", lengths),
    ]
    progress("relations over time and between channels")
    relations = [correlations(reference, contender) for contender in contenders]
    measures += [
        _measure(
            "autocorrelation_mae",
            "Autocorrelations of channels, absolute error",
            "zero",
            [autocorrelation_error(reference, contender) for contender in contenders],
        ),
        _measure("correlation_pearson", "Correlations between channels, Pearson", "one", [r[0] for r in relations]),
        _measure("correlation_rmse", "Correlations between channels, RMSE", "zero", [r[1] for r in relations]),
    ]
    if reference.features["static"].shape[1]:
        static = [_static(table) for table in (reference, *contenders)]
        measures.append(
            _measure(
                "prevalence_mae",
                "Shares of static columns, absolute error",
                "zero",
                [prevalence(static[0], contender).mean_absolute_error for contender in static[1:]],
                resolution=0.002,
                percent=True,
            )
        )
    summaries = [Table(features=table.features["summary"], labels=table.labels) for table in (reference, *contenders)]
    judges = series_classifiers(seed)
    for key in DISCRIMINATORS:
        name, model = judges[key]
        progress(f"discriminator: {name}")
        readings = [discriminator(summaries[0], contender, model, rng) for contender in summaries[1:]]
        measures.append(_measure(f"discriminator_{key}", f"Discriminator, {name}, AUROC", "half", readings))
    progress("predict the next step")
    errors = [next_step_error(reference, contender, seed, rng) for contender in contenders]
    measures.append(_measure("next_step_mae", "Next step predicted from the past, absolute error", "zero", errors))
    return measures


def _flags(table: Table) -> Table:
    """The steps of all stays as rows of 0/1 columns: what was observed."""
    inside = present(table.features)
    return Table(features=table.features["observed"][inside], labels=np.repeat(table.labels, table.features["length"]))


def _static(table: Table) -> Table:
    return Table(features=table.features["static"], labels=table.labels)


def _measure(key: str, title: str, aim: Aim, readings: Sequence[Reading], **more: Any) -> Measure:
    value, ceiling, floor = readings
    return Measure(key=key, title=title, section=SECTION, aim=aim, value=value, ceiling=ceiling, floor=floor, **more)
