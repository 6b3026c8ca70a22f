"""Gaps are drawn from the patient's process, given what was measured."""

import numpy as np
import pytest

from synclave_shared.models.series.anchor import SeriesAnchor, anchor_from_moments, contributions
from synclave_shared.models.series.completion import DRAWS, JITTER, Completion
from synclave_shared.models.series.process import cosines, covariances, expectations
from tests.models.small_series import SERIES_LAYOUT, STEPS, series_dataset
from tests.models.test_series_relations import related


def fitted(dataset: object) -> SeriesAnchor:
    return anchor_from_moments(contributions(dataset, SERIES_LAYOUT, 1e6), SERIES_LAYOUT, 0.0)[0]  # type: ignore[arg-type]


ANCHOR = fitted(series_dataset(2000))
COMPLETION = Completion.of(ANCHOR)


def draws(
    completion: Completion, scores: np.ndarray, observed: np.ndarray, number: int, length: int = STEPS
) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((number, DRAWS, STEPS, 3)).astype(np.float32)
    return np.stack([completion.complete(scores, observed, length, 1, completion.usual, one) for one in noise])


def test_what_was_measured_stays_and_gaps_have_the_conditional_law_over_channels() -> None:
    anchor = fitted(related(4000))
    anchor.relations.stay[:3, 3:] = anchor.relations.stay[3:, :3] = 0.0
    scores, observed = np.zeros((STEPS, 3), np.float32), np.zeros((STEPS, 3), np.uint8)
    scores[[1, 4], 0], observed[[1, 4], 0] = [1.5, 0.5], 1
    found = draws(Completion.of(anchor), scores, observed, 4000)[:, :, :3]
    assert np.array_equal(found[:, [1, 4], 0], np.tile(np.float32([1.5, 0.5]), (4000, 1)))
    waves = cosines(STEPS)
    whole = np.einsum("tk,sk,kcd->tcsd", waves, waves, covariances(anchor, STEPS)[:, :3, :3]).reshape(3 * STEPS, -1)
    mean = expectations(anchor)[1, :, :3].reshape(-1)
    known = [3, 12]
    open_ = np.setdiff1d(np.arange(3 * STEPS), known)
    gain = whole[np.ix_(open_, known)] @ np.linalg.inv(whole[np.ix_(known, known)] + JITTER * np.eye(2))
    expected = mean[open_] + gain @ (np.array([1.5, 0.5]) - mean[known])
    values = found.reshape(4000, -1)[:, open_]
    assert values.mean(axis=0) == pytest.approx(expected, abs=0.08)
    spread = whole[np.ix_(open_, open_)] - gain @ whole[np.ix_(known, open_)]
    assert values.std(axis=0) == pytest.approx(np.sqrt(np.diag(spread)), abs=0.08)
    # Channel 1 was never measured, and goes with channel 0 all the same.
    assert values[:, open_ % 3 == 1].mean() > mean[1] + 0.4


def test_latent_gaps_are_above_their_threshold_where_something_was_measured_and_nothing_is_after_the_stay() -> None:
    dataset = series_dataset(50)
    scores = ANCHOR.scores(dataset.values)
    for patient in range(50):
        observed, length = dataset.observed[patient], int(dataset.lengths[patient])
        found = draws(COMPLETION, scores[patient], observed, 3, length)
        assert np.array_equal(found[:, :length, 3:] > 0, np.tile(observed[:length] == 1, (3, 1, 1)))
        assert not found[:, length:].any()


def test_over_patients_of_the_process_completed_gaps_have_its_law() -> None:
    rng = np.random.default_rng(3)
    dataset = related(3000)
    anchor = fitted(dataset)
    completion = Completion.of(anchor)
    whole = dataset.lengths == STEPS
    found = np.stack(
        [
            completion.complete(
                np.zeros((STEPS, 3), np.float32),
                observed,
                STEPS,
                int(label),
                completion.usual,
                rng.standard_normal((DRAWS, STEPS, 3)).astype(np.float32),
            )
            for observed, label in zip(dataset.observed[whole], dataset.labels[whole], strict=True)
        ]
    )[:, :, 3:]
    assert np.abs(found.std(axis=0) - 1.0).max() < 0.3
    assert np.abs(found.mean(axis=(0, 1)) - expectations(anchor)[:, :, 3:].mean(axis=(0, 1))).max() < 0.2
    assert np.corrcoef(found[:, 0, 1], found[:, 0, 2])[0, 1] > 0.85


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
    anchor = fitted(sparse)
    expected = 0.5 ** np.arange(STEPS)
    assert np.abs(anchor.inertia - expected).max() < 0.12
