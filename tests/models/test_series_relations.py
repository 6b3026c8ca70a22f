"""How channels, gaps and context bear on each other, out of the anchor's sum."""

from dataclasses import replace

import numpy as np
import pytest

from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.errors import ProtocolError
from synclave_shared.models.series.anchor import anchor_from_moments, context_columns, contributions, moments_size
from synclave_shared.models.series.relations import Relations, relation_rows, relations_size, usual_relations
from tests.models.small_series import SERIES_LAYOUT, STEPS, series_dataset


def related(patients: int, seed: int = 0) -> SeriesDataset:
    """Means of 0 and 1 go together by 0.8 and of 2 against them; 1 and 2 are measured together; sex moves channel 0."""
    rng = np.random.default_rng(seed)
    dataset = series_dataset(patients, seed)
    level = rng.multivariate_normal(np.zeros(3), [[1, 0.8, -0.5], [0.8, 1, -0.4], [-0.5, -0.4, 1]], patients)
    level[:, 0] += np.where(dataset.static[:, 1], 0.6, -0.6)
    moved = rng.multivariate_normal(np.zeros(3), [[1, 0.6, 0], [0.6, 1, 0], [0, 0, 1]], (patients, STEPS))
    busy = rng.normal(size=(patients, 1, 1)) > 0
    panel = rng.random((patients, STEPS, 1)) < np.where(busy, 0.5, 0.1)
    often = rng.random((patients, STEPS, 1)) < 0.9
    inside = (np.arange(STEPS) < dataset.lengths[:, None])[:, :, None]
    observed = (np.concatenate([often, panel, panel], axis=2) & inside).astype(np.uint8)
    values = np.array([-0.4, 0.1, 0.3]) + 0.1 * level[:, None] + 0.05 * moved
    return replace(dataset, observed=observed, values=np.where(observed, np.clip(values, -1, 1), 0).astype(np.float32))


def found(dataset: SeriesDataset, clip_norm: float = 1e6, noise_std: float = 0.0) -> Relations:
    sums = contributions(dataset, SERIES_LAYOUT, clip_norm)
    sums = sums + noise_std * np.random.default_rng(1).standard_normal(sums.size)
    return anchor_from_moments(sums, SERIES_LAYOUT, noise_std)[0].relations


def correlations(matrix: np.ndarray) -> np.ndarray:
    spread = np.sqrt(np.diag(matrix))
    return matrix / np.outer(spread, spread)


def test_correlations_of_stays_steps_and_gaps_are_found() -> None:
    relations = found(related(8000))
    stay = correlations(relations.stay)
    assert stay[0, 1] == pytest.approx(0.8, abs=0.12)
    assert stay[0, 2] == pytest.approx(-0.5, abs=0.12)
    assert stay[4, 5] > 0.9
    # A patient's own mean is of few steps, and takes some of what goes together with it.
    assert relations.step[0, 1] == pytest.approx(0.6, abs=0.2)
    assert relations.step[4, 5] > 0.9
    assert np.abs(relations.step[3, 4:]).max() < 0.1
    # A patient who is busy is measured more often at all lags; the other channel is a coin.
    assert relations.inertia[1, 1:].min() > 0.15
    assert relations.inertia[0, 1:].max() < 0.1


def test_what_the_context_changes_is_found_about_its_usual_columns() -> None:
    relations = found(related(8000))
    effect = relations.effect[:2, 0] - relations.effect[:2, 0].mean()
    # 1.2 of the levels' deviations apart, which are most of the channel's.
    assert effect[1] - effect[0] == pytest.approx(1.0, abs=0.25)
    assert np.abs(relations.effect[:2, 2]).max() < 0.15
    assert relations.usual[:2] == pytest.approx([0.5, 0.5], abs=0.03)


def test_under_usual_noise_the_strong_ones_are_found() -> None:
    relations = found(related(8000), clip_norm=5.0, noise_std=5.0)
    stay = correlations(relations.stay)
    assert stay[0, 1] > 0.4
    assert relations.step[4, 5] > 0.8


@pytest.mark.parametrize("seed", range(5))
def test_of_noise_alone_nothing_bears_on_anything(seed: int) -> None:
    sums = 500.0 * np.random.default_rng(seed).standard_normal(moments_size(SERIES_LAYOUT))
    relations = anchor_from_moments(sums, SERIES_LAYOUT, 500.0)[0].relations
    assert np.abs(relations.stay - np.diag(np.diag(relations.stay))).max() < 0.3
    assert np.abs(relations.effect).max() < 1.0


@pytest.mark.parametrize("bound", [0.5, 3.0])
def test_no_patient_gives_more_than_the_bound(bound: float) -> None:
    """The extremes too: all measured at the bounds, nothing measured, one step."""
    usual = related(60)
    extreme = replace(
        usual,
        values=np.tile(np.where(np.arange(STEPS)[:, None] % 2, 1.0, -1.0), (60, 1, 3)).astype(np.float32),
        observed=np.ones((60, STEPS, 3), np.uint8),
        lengths=np.full(60, STEPS),
    )
    nothing = replace(
        usual, values=np.zeros_like(usual.values), observed=np.zeros_like(usual.observed), lengths=np.ones(60, np.int64)
    )
    for one in (usual, extreme, nothing):
        context = context_columns(one.static, one.lengths, SERIES_LAYOUT)
        rows = relation_rows(one.values.astype(float), one.observed.astype(bool), one.lengths, context, bound)
        assert rows.shape == (60, relations_size(SERIES_LAYOUT))
        assert np.linalg.norm(rows, axis=1).max() <= bound * (1 + 1e-12)


def test_relations_travel_and_impossible_ones_are_refused() -> None:
    relations = found(related(500))
    vector = relations.to_vector()
    assert vector.size == Relations.size(SERIES_LAYOUT)
    again = Relations.from_vector(vector, SERIES_LAYOUT)
    for name in ("stay", "step", "effect", "usual", "inertia"):
        assert np.array_equal(getattr(again, name), getattr(relations, name))
    usual = usual_relations(SERIES_LAYOUT)
    for wrong in (
        replace(usual, stay=np.ones((6, 6), np.float32)),
        replace(usual, step=2 * usual.step),
        replace(usual, effect=usual.effect + 5),
        replace(usual, inertia=0 * usual.inertia),
    ):
        with pytest.raises(ProtocolError):
            Relations.from_vector(wrong.to_vector(), SERIES_LAYOUT)
