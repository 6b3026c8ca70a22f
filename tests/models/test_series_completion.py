"""Gaps are drawn from the channel's process, given what was measured."""

import numpy as np
import pytest

from synclave_shared.models.series.anchor import anchor_from_moments, contributions
from synclave_shared.models.series.completion import JITTER, Completion
from tests.models.small_series import SERIES_LAYOUT, STEPS, series_dataset

ANCHOR, _ = anchor_from_moments(contributions(series_dataset(2000), SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
COMPLETION = Completion.of(ANCHOR)


def draws(scores: np.ndarray, observed: np.ndarray, label: int, number: int) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((number, STEPS, 3)).astype(np.float32)
    return np.stack([COMPLETION.complete(scores, observed, label, one) for one in noise])


def test_what_was_measured_stays_and_gaps_have_the_conditional_law() -> None:
    scores, observed = np.zeros((STEPS, 3), np.float32), np.zeros((STEPS, 3), np.uint8)
    scores[[1, 4], 0], observed[[1, 4], 0] = [1.5, -0.5], 1
    found = draws(scores, observed, 1, 4000)
    assert np.array_equal(found[:, [1, 4], 0], np.tile(np.float32([1.5, -0.5]), (4000, 1)))
    covariance = COMPLETION.covariance[0]
    known, open_ = [1, 4], [0, 2, 3, 5]
    gain = covariance[np.ix_(open_, known)] @ np.linalg.inv(covariance[np.ix_(known, known)] + JITTER * np.eye(2))
    mean = ANCHOR.shift[1, 0] + gain @ (scores[known, 0] - ANCHOR.shift[1, 0])
    assert found[:, open_, 0].mean(axis=0) == pytest.approx(mean, abs=0.06)
    spread = covariance[np.ix_(open_, open_)] - gain @ covariance[np.ix_(known, open_)]
    assert found[:, open_, 0].std(axis=0) == pytest.approx(np.sqrt(np.diag(spread)), abs=0.06)


def test_a_channel_that_was_never_measured_is_a_course_of_its_process_under_the_label() -> None:
    found = draws(np.zeros((STEPS, 3), np.float32), np.zeros((STEPS, 3), np.uint8), 1, 4000)
    assert np.abs(found.mean(axis=0) - ANCHOR.shift[1]).max() < 0.06
    assert np.abs(found.std(axis=0) - 1.0).max() < 0.06
    correlations = [np.corrcoef(found[:, 0, channel], found[:, 2, channel])[0, 1] for channel in range(3)]
    assert correlations == pytest.approx(ANCHOR.inertia[:, 2], abs=0.05)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_inertia_is_that_of_what_was_measured_however_seldom(share: float) -> None:
    """Carried forward, values would seem to stand still the more the fewer there are."""
    rng = np.random.default_rng(0)
    dataset = series_dataset(8000)
    course = np.empty((8000, STEPS, 3))
    course[:, 0] = rng.normal(size=(8000, 3))
    for step in range(1, STEPS):
        course[:, step] = 0.5 * course[:, step - 1] + np.sqrt(0.75) * rng.normal(size=(8000, 3))
    observed = (rng.random(course.shape) < share).astype(np.uint8)
    values = np.where(observed, np.clip(0.2 * course, -1, 1), 0).astype(np.float32)
    lengths = np.full(8000, STEPS)
    sparse = type(dataset)(
        values=values,
        observed=observed,
        lengths=lengths,
        static=dataset.static,
        labels=dataset.labels,
        patient_ids=dataset.patient_ids,
    )
    anchor, _ = anchor_from_moments(contributions(sparse, SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)
    expected = 0.5 ** np.arange(STEPS)
    assert np.abs(anchor.inertia - expected).max() < 0.12
