"""A round of time series at a site, as its release is seen from outside."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.rehearsal import rehearse_series
from synclave_client.training.series import SeriesLoss, release_series_marginals, train_series_round
from synclave_client.vault.series_workload import SeriesWorkload
from synclave_shared.data.series.dataset import SeriesDataset
from synclave_shared.errors import DataError, PlanError, ProtocolError
from synclave_shared.fixed_point import from_fixed
from synclave_shared.model_size import parameters_of
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.anchor import SeriesAnchor, contributions, usual_anchor
from synclave_shared.models.series.completion import JITTER
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.plan import SeriesSpec, TrainPlan
from synclave_shared.protocol import encode_model
from tests.models.small import small_plan
from tests.models.small_series import SERIES_LAYOUT, STEPS, series_dataset, series_plan, series_schema
from tests.training.test_noise import has_std

ANCHOR = usual_anchor(SERIES_LAYOUT)


def update(plan: TrainPlan, dataset: SeriesDataset, key: int = 0) -> NDArray[np.float64]:
    model = parameter_vector(build_series_denoiser(SERIES_LAYOUT, SeriesSpec()))
    randomness = SecretRandomness(bytes([key]) * 32)
    return from_fixed(train_series_round(plan, "north", SERIES_LAYOUT, dataset, model, ANCHOR, "cpu", randomness))


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"width": 32, "blocks": 2},
        {"width": 32, "blocks": 1, "couplings": False, "noise_levels": 1},
        {"width": 32, "backbone": "unet"},
        {"width": 32, "backbone": "unet", "blocks": 2, "couplings": False, "noise_levels": 1},
    ],
)
def test_every_model_of_series_passes_the_self_test(spec: dict[str, Any]) -> None:
    report = rehearse_series(SERIES_LAYOUT, SeriesSpec.model_validate(spec), Performance())
    assert report.sum_deviation < 1e-5
    assert any("backbone" in name for name, _ in report.layers) == bool(spec.get("width"))


def test_the_marginals_carry_the_plans_noise_about_the_clipped_sum() -> None:
    plan = series_plan()
    dataset = series_dataset(50)
    releases = [
        from_fixed(release_series_marginals(plan, SERIES_LAYOUT, dataset, SecretRandomness(bytes([key]) * 32)))
        for key in range(60)
    ]
    noise = np.concatenate(releases) - np.tile(contributions(dataset, SERIES_LAYOUT, 3.0), 60)
    assert has_std(noise, 3.0)
    assert not has_std(noise, 2.0)


def test_the_noise_has_the_plans_size_on_the_released_update() -> None:
    """An empty site releases noise alone: std = learning rate * noise_multiplier * clip_norm / expected batch."""
    plan = series_plan(
        privacy={"selection_rate": Decimal("0.5"), "noise_multiplier": Decimal(3), "clip_norm": Decimal(2)},
        federation={"steps_per_round": 1, "update_norm": Decimal(1_000_000)},
        optimiser={"learning_rate": Decimal(1)},
    )
    values = np.concatenate([update(plan, series_dataset(0), key) for key in range(40)])
    assert has_std(values, 3 * 2 / (0.5 * 200))
    assert not has_std(values, 2 * 2 / (0.5 * 200))


def test_a_round_learns_and_depends_on_key_and_patients() -> None:
    plan = series_plan(privacy={"noise_multiplier": Decimal("0.000001"), "selection_rate": Decimal(1)})
    one = update(plan, series_dataset(60))
    assert np.array_equal(one, update(plan, series_dataset(60)))
    assert not np.array_equal(one, update(plan, series_dataset(60), key=1))
    assert not np.array_equal(one, update(plan, series_dataset(60, seed=1)))


@pytest.mark.parametrize("spec", [{}, {"width": 32, "blocks": 1}, {"width": 32, "backbone": "unet"}])
def test_taking_out_a_patient_moves_the_clipped_sum_by_at_most_the_clip_norm(spec: dict[str, Any]) -> None:
    dataset = series_dataset(30)
    model = SeriesSpec.model_validate({"noise_levels": 3, **spec})
    network = build_series_denoiser(SERIES_LAYOUT, model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    loss = SeriesLoss.of(model, SERIES_LAYOUT, ANCHOR)
    streams = PatientStreams(SecretRandomness(bytes(32)))
    gradients = PatientGradients(network, loss, 0.5)
    rows = np.arange(30)
    batch = loss.draw(dataset, rows, 32, streams, 0)
    whole = gradients.clipped_sum([batch]).clone()
    for patient in (0, 7, 29):
        absent = batch.present.clone()
        absent[patient] = False
        fewer = replace(batch, present=absent)
        moved = whole - gradients.clipped_sum([fewer])
        assert 0 < float(moved.norm()) <= 0.5 * (1 + 1e-6)


def test_padding_is_nobody() -> None:
    dataset = series_dataset(4)
    loss = SeriesLoss.of(SeriesSpec(), SERIES_LAYOUT, ANCHOR)
    streams = PatientStreams(SecretRandomness(bytes(32)))
    batch = loss.draw(dataset, np.array([2, 0]), 8, streams, 0)
    assert batch.present.tolist() == [True, True, *[False] * 6]
    assert batch.inside.sum(dim=1).tolist()[:2] == dataset.lengths[[2, 0]].tolist()
    alone = loss.draw(dataset, np.array([0]), 8, streams, 0)
    assert torch.equal(batch.noise[1], alone.noise[0])
    assert torch.equal(batch.row[1], alone.row[0])


def workload() -> SeriesWorkload:
    return SeriesWorkload(site_name="north", device="cpu", schema=series_schema(), dataset=series_dataset(20))


def test_a_payload_is_refused_before_anything_is_spent_on_it() -> None:
    plan, site = series_plan(), workload()
    size = parameters_of(plan.model, series_schema())  # type: ignore[arg-type]
    good = np.concatenate([np.zeros(size, np.float32), ANCHOR.to_vector(), np.full(2, 0.5, np.float32)])
    site.check_payload(plan, 0, b"")
    site.check_payload(plan, 1, encode_model(good))
    bad = good.copy()
    bad[size:-2] = 0.0
    for number, payload in ((0, b"1234"), (1, b""), (1, encode_model(good[:-1])), (1, encode_model(bad))):
        with pytest.raises(ProtocolError):
            site.check_payload(plan, number, payload)


def hostile(**parts: Any) -> SeriesAnchor:
    """The usual anchor with other numbers, also of its relations; ``gaps`` is their inertia."""
    names = {"stay": "stay", "step": "step", "effect": "effect", "usual": "usual", "gaps": "inertia"}
    mine = {name: np.float32(value) for name, value in parts.items() if name not in names}
    theirs = {names[name]: np.float32(value) for name, value in parts.items() if name in names}
    return replace(ANCHOR, **mine, relations=replace(ANCHOR.relations, **theirs))


SIGNS = np.where(np.arange(STEPS) % 2, -1.0, 1.0)
ALIKE = 0.999999 * np.ones((6, 6)) + 0.000001 * np.eye(6)


def everywhere(number: int) -> SeriesDataset:
    """Patients of every length; of each channel every set of steps is measured of somebody, with the widest values."""
    lengths, sets = np.repeat(np.arange(1, STEPS + 1), 2**STEPS), np.tile(np.arange(2**STEPS), STEPS)
    inside = np.less(np.arange(STEPS), lengths[:, None])
    bits = (sets[:, None] >> np.arange(STEPS)) & 1
    observed = np.stack([bits, 1 - bits, np.roll(bits, number, axis=1)], axis=2) * inside[:, :, None]
    sides = np.random.default_rng(number).choice([-1.0, 1.0], observed.shape)
    base = series_dataset(len(lengths))
    return replace(
        base, values=(sides * observed).astype(np.float32), observed=observed.astype(np.uint8), lengths=lengths
    )


@pytest.mark.parametrize(
    "parts",
    [
        {"inertia": np.ones((3, STEPS))},
        {"inertia": np.tile(SIGNS, (3, 1)), "gaps": np.tile(SIGNS, (3, 1))},
        {"inertia": np.tile(np.where(np.arange(STEPS), -1.0, 1.0), (3, 1))},
        {"gaps": np.ones((3, STEPS)), "observed": np.full((2, 3), -30.0)},
        {"stay": np.clip(ALIKE + 1e-5 * np.eye(6), None, 1), "step": np.clip(ALIKE + 1e-5 * np.eye(6), None, 1)},
        {"shift": np.full((2, 3), 3.0), "effect": np.full((8, 6), 2.0), "pace": np.full((STEPS, 3), 30.0)},
    ],
)
def test_an_anchor_that_is_taken_ends_in_a_release_whatever_the_patients_have(parts: dict[str, Any]) -> None:
    """Numbers at the border of what is taken: whether a round fails is seen outside, and must not hang on a patient."""
    anchor = SeriesAnchor.from_vector(hostile(**parts).to_vector(), SERIES_LAYOUT)
    loss, dataset = SeriesLoss.of(SeriesSpec(noise_levels=1), SERIES_LAYOUT, anchor), everywhere(1)
    streams = PatientStreams(SecretRandomness(bytes(32)))
    batch = loss.draw(dataset, np.arange(len(dataset)), len(dataset), streams, 0)
    assert torch.isfinite(batch.row).all()
    assert torch.isfinite(loss(build_series_denoiser(SERIES_LAYOUT, loss.spec), batch)).all()


@pytest.mark.parametrize(
    "parts",
    [
        {"inertia": np.full((3, STEPS), -2.0)},
        {"gaps": np.full((3, STEPS), 1e30)},
        {"shift": np.full((2, 3), 1e30)},
        {"shift": np.full((2, 3), -3.1)},
        {"context": np.full((2, 8), 1e4)},
        {"observed": np.full((2, 3), -1e30)},
        {"pace": np.full((STEPS, 3), 31.0)},
        {"quantiles": ANCHOR.quantiles[:, ::-1]},
        {"usual": np.full(8, -1.0)},
        {"effect": np.full((8, 6), -2.1)},
        {"stay": np.ones((6, 6))},
        {"stay": -np.eye(6)},
        {"step": np.diag([1e-30] + [1.0] * 5)},
        {"step": 3e38 * (1 - np.eye(6)) + np.eye(6)},
        {"stay": np.where(np.eye(6), 1.0, np.inf)},
    ],
)
def test_an_anchor_that_nobody_can_compute_with_is_refused_before_anything_is_spent(parts: dict[str, Any]) -> None:
    plan, site = series_plan(), workload()
    size = parameters_of(plan.model, series_schema())  # type: ignore[arg-type]
    sent = np.concatenate([np.zeros(size, np.float32), hostile(**parts).to_vector(), np.full(2, 0.5, np.float32)])
    with pytest.raises(ProtocolError):
        site.check_payload(plan, 1, encode_model(sent))


@pytest.mark.parametrize("shares", [(0.0, 0.0), (-1.0, 2.0), (1e30, 1.0)])
def test_shares_that_are_none_are_refused(shares: tuple[float, float]) -> None:
    plan, site = series_plan(), workload()
    size = parameters_of(plan.model, series_schema())  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="shares"):
        site.check_payload(
            plan, 1, encode_model(np.concatenate([np.zeros(size), ANCHOR.to_vector(), shares]).astype(np.float32))
        )


def test_a_patient_whose_equations_cannot_be_solved_counts_as_nothing_and_nothing_fails() -> None:
    """No anchor that is taken leads there; if one did, no error may tell of it."""
    spec, dataset = SeriesSpec(noise_levels=1), series_dataset(4)
    loss = SeriesLoss.of(spec, SERIES_LAYOUT, ANCHOR)
    singular = tuple(
        replace(stay, left=np.tile(-JITTER * np.eye(3), (len(stay.left), 1, 1))) for stay in loss.completion.stays
    )
    broken = replace(loss, completion=replace(loss.completion, stays=singular))
    observed = dataset.observed.copy()
    observed[2:] = 0
    dataset = replace(dataset, observed=observed, values=np.where(observed, dataset.values, 0))
    network = build_series_denoiser(SERIES_LAYOUT, spec)
    sums = []
    for of, rows in ((broken, np.arange(4)), (loss, np.arange(2, 4))):
        gradients = PatientGradients(network, of, 1.0, Performance())
        batch = of.draw(dataset, rows, 4, PatientStreams(SecretRandomness(bytes(32))), 0)
        sums.append(gradients.clipped_sum([batch]).clone())
    assert sums[0].norm() > 0
    torch.testing.assert_close(sums[0], sums[1])


def test_a_plan_of_the_other_modality_is_refused() -> None:
    with pytest.raises(PlanError, match="modality"):
        workload().check_model(small_plan())


def test_data_of_another_shape_are_refused() -> None:
    dataset = series_dataset(5)
    short = SeriesDataset(
        values=dataset.values[:, :3],
        observed=dataset.observed[:, :3],
        lengths=np.minimum(dataset.lengths, 3),
        static=dataset.static,
        labels=dataset.labels,
        patient_ids=dataset.patient_ids,
    )
    with pytest.raises(DataError, match="steps"):
        update(series_plan(), short)


def test_an_anchor_from_marginals_is_what_a_training_round_takes() -> None:
    plan, site = series_plan(), workload()
    release = site.release(plan, 0, b"")
    assert release.dtype == np.int64
    size = parameters_of(plan.model, series_schema())  # type: ignore[arg-type]
    shares = np.full(2, 0.5, np.float32)
    payload = encode_model(np.concatenate([np.zeros(size, np.float32), ANCHOR.to_vector(), shares]))
    assert site.release(plan, 1, payload).shape == (size,)
    assert SeriesAnchor.size(SERIES_LAYOUT) == ANCHOR.to_vector().size
