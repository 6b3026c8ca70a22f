"""The sentences of a report that speak of time series: how close they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.words import degree, judged, short

__all__ = ["how_close_series"]


def how_close_series(measures: Mapping[str, Measure]) -> Iterator[str]:
    """Values, gaps, relations over time and between channels, and what a judge makes of the patients."""
    values, gaps = measures["wasserstein"], measures["observed_mae"]
    if values.value.value is not None:
        yield (
            f"The values of a channel lie {short(values.value)} standard deviations from the real ones on average; "
            f"those of other real patients {short(values.ceiling)}."
        )
    if gaps.value.value is not None and gaps.ceiling.value is not None:
        yield (
            f"How often a channel is observed is off by {100 * gaps.value.value:.1f} percentage points on average; "
            f"between two groups of real patients by {100 * gaps.ceiling.value:.1f}."
        )
    for key, what, words in (
        ("autocorrelation_mae", "How values follow each other in time", "error of autocorrelations"),
        ("correlation_pearson", "Relations between channels", "agreement"),
    ):
        measure = measures[key]
        if measure.value.value is None:
            yield f"{what} could not be judged: {measure.value.reason}."
        else:
            yield (
                f"{what}: {degree(measure.way)} ({words} {short(measure.value)}, real patients "
                f"{short(measure.ceiling)}, independent columns {short(measure.floor)})."
            )
    yield from judged(measures["discriminator_boosting"])
