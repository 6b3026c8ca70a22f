"""The sentences of a report that speak of codes: how close, and how well one column is told from the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from synclave_server.evaluation.measure import Measure
from synclave_server.evaluation.words import degree, judged, short

__all__ = ["how_close", "how_columns_are_told"]


def how_close(measures: Mapping[str, Measure]) -> Iterator[str]:
    """Prevalences, relations, and what a judge makes of the patients."""
    error = measures["prevalence_mae"]
    if error.value.value is not None and error.ceiling.value is not None:
        yield (
            f"How many patients have a code is off by {100 * error.value.value:.2f} percentage "
            "points on average; between two "
            f"groups of real patients by {100 * error.ceiling.value:.2f}."
        )
    relation = measures["correlation_pearson"]
    if relation.value.value is None:
        yield f"Relations between codes could not be judged: {relation.value.reason}."
    else:
        yield (
            f"Relations between codes: {degree(relation.way)} (agreement {relation.value.value:.2f}, "
            f"real patients {short(relation.ceiling)}, independent columns {short(relation.floor)})."
        )
    yield from judged(measures["discriminator_boosting"])


def how_columns_are_told(measures: Mapping[str, Measure]) -> Iterator[str]:
    """What the mean over the other targets says."""
    mean = measures["target_logistic_auroc"]
    if mean.value.value is not None:
        yield (
            f"Predicting single columns from all others: mean AUROC {short(mean.value)}, on real patients "
            f"{short(mean.ceiling)}, on independent columns {short(mean.floor)}: {degree(mean.way)}."
        )
