"""Patients as the networks of time series see them."""

from dataclasses import replace

import numpy as np

from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.models.series.anchor import anchor_from_moments, contributions
from synclave_shared.models.series.standard import StandardRows
from tests.models.small_series import SERIES_LAYOUT, series_dataset

DATASET = series_dataset(500)
ANCHOR, _ = anchor_from_moments(contributions(DATASET, SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
ROWS = np.arange(20)


def test_rows_are_filled_and_in_normal_scores_with_their_stay_and_context() -> None:
    seen = StandardRows.of(DATASET, ROWS, ANCHOR, SERIES_LAYOUT, size=24)
    measured = DATASET.observed[ROWS] == 1
    values = ANCHOR.scores(DATASET.values[ROWS])
    np.testing.assert_allclose(seen.values[:20][measured], values[measured], rtol=1e-5)
    assert seen.inside[:20].sum(axis=1).tolist() == DATASET.lengths[ROWS].tolist()
    assert seen.context[:20, : SERIES_LAYOUT.fields].astype(int).tolist() == DATASET.static[ROWS].tolist()
    assert (seen.context[:20, SERIES_LAYOUT.fields :].argmax(axis=1) + 1).tolist() == DATASET.lengths[ROWS].tolist()
    assert seen.inside[20:].sum() == 4
    assert not seen.observed[20:].any()


def test_a_clinical_model_is_not_told_the_label_by_what_was_never_measured() -> None:
    never = DATASET.observed[ROWS].any(axis=1) == 0
    assert never.any()
    flipped = replace(DATASET, labels=1 - DATASET.labels)

    def values(dataset: SeriesDataset) -> np.ndarray:
        return StandardRows.of(dataset, ROWS, ANCHOR, SERIES_LAYOUT).values

    assert np.array_equal(values(DATASET), values(flipped))
    assert not np.abs(values(DATASET)).max(axis=1)[never].any()
