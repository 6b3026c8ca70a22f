"""A round at a site, as its release is seen from outside."""

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.training.codes import DiffusionBatch, DiffusionLoss, train_round
from synclave_client.training.marginals import clipped_marginals, release_marginals
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.release import fixed_point_update
from synclave_client.vault.workload import PatientWorkload
from synclave_shared.data.patients import PatientDataset
from synclave_shared.data.sparse_rows import SparseRows
from synclave_shared.diffusion.corruption import corrupt
from synclave_shared.errors import ClippingError, DataError, PlanError, ProtocolError, SnapshotError
from synclave_shared.fixed_point import SCALE_BITS, from_fixed
from synclave_shared.models.codes import build_code_denoiser, model_payload_size
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import LARGEST_LEARNING_RATE, PARAMETER_NOISE, ModelSpec, TrainPlan
from synclave_shared.protocol import encode_model
from tests.models.small import LAYOUT, small_dataset, small_plan, small_rows, small_schema
from tests.training.test_noise import has_std

SCHEMA = small_schema()
ROUNDING = 2.0 ** -(SCALE_BITS + 1)
TINY_NOISE = Decimal("0.000001")


def update(plan: TrainPlan, dataset: PatientDataset, key: int = 0, **changes: Any) -> NDArray[np.float64]:
    arguments: dict[str, Any] = {
        "plan": plan,
        "site_name": "north",
        "schema": SCHEMA,
        "dataset": dataset,
        "model_vector": parameter_vector(build_code_denoiser(LAYOUT, ModelSpec())),
        "anchor": None,
        "device": "cpu",
        "randomness": SecretRandomness(bytes([key]) * 32),
    }
    return from_fixed(train_round(**(arguments | changes)))


def one_step(nominal_patients: int = 200, **privacy: Any) -> TrainPlan:
    return small_plan(
        nominal_patients=nominal_patients,
        privacy={"selection_rate": Decimal("0.5"), **privacy},
        federation={"steps_per_round": 1, "update_norm": Decimal(1_000_000)},
        optimiser={"learning_rate": Decimal(1)},
    )


def test_the_noise_has_the_plans_size_on_the_released_update() -> None:
    """An empty site releases noise alone: std = learning rate * noise_multiplier * clip_norm / expected batch."""
    plan = one_step(noise_multiplier=Decimal(3), clip_norm=Decimal(2))
    parts = [update(plan, small_dataset(0), key) for key in range(40)]
    values = np.concatenate(parts)
    expected_std = 3 * 2 / (0.5 * 200)
    assert has_std(values, expected_std)
    assert not has_std(values, expected_std * 2 / 3)
    assert not has_std(values, expected_std * 3 / 2)


def test_the_noise_is_there_beside_patients_too() -> None:
    quiet, loud = one_step(noise_multiplier=TINY_NOISE), one_step(noise_multiplier=Decimal(1))
    differences = [update(loud, small_dataset(50), key) - update(quiet, small_dataset(50), key) for key in range(15)]
    assert has_std(np.concatenate(differences), 1.0 / 100)


def test_noise_is_drawn_anew_in_every_round() -> None:
    plan = one_step()
    dataset = small_dataset(30)
    first = update(plan, dataset, randomness=SecretRandomness.from_os())
    second = update(plan, dataset, randomness=SecretRandomness.from_os())
    assert not np.allclose(first, second)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("model_size", [0.0, 1e6])
def test_one_patient_moves_an_unnoised_update_by_at_most_rate_times_clip_over_batch(
    row: int, model_size: float
) -> None:
    """A patient of no code or of every code is added to 20 others and removed from them; its gradient exceeds C."""
    clip_norm, learning_rate, batch_size = 0.05, 1.0, 200.0
    plan = one_step(noise_multiplier=TINY_NOISE, selection_rate=Decimal(1), clip_norm=Decimal("0.05"))
    features, labels = small_rows(21)
    features[-1, :9] = row
    features[-1, 9:] = [1, 0, 0] if row else [0, 0, 1]
    vector = model_size * np.random.default_rng(0).standard_normal(78).astype(np.float32)
    with_patient, without = (
        update(
            plan,
            PatientDataset(
                features=SparseRows.of(features[:n]), labels=labels[:n], patient_ids=[str(i) for i in range(n)]
            ),
            model_vector=vector,
        )
        for n in (21, 20)
    )
    moved = float(np.linalg.norm(with_patient - without))
    allowed = learning_rate * clip_norm / batch_size
    assert moved <= allowed + 2 * ROUNDING * math.sqrt(with_patient.size)
    assert moved > 0.9 * allowed or model_size > 0


def first_patients(dataset: PatientDataset, count: int) -> PatientDataset:
    return dataset.select(np.arange(count))


def watch(monkeypatch: pytest.MonkeyPatch) -> list[list[DiffusionBatch]]:
    """The batches of every step, as clipped_sum gets them."""
    steps: list[list[DiffusionBatch]] = []
    original = PatientGradients.clipped_sum

    def watched(self: Any, batches: Any) -> torch.Tensor:
        steps.append(list(batches))
        return original(self, steps[-1])

    monkeypatch.setattr(PatientGradients, "clipped_sum", watched)
    return steps


def test_a_patient_more_leaves_the_others_diffusion_randomness_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = watch(monkeypatch)
    plan = small_plan(
        model={"label_dropout": Decimal("0.5")}, privacy={"selection_rate": Decimal(1), "noise_multiplier": TINY_NOISE}
    )
    update(plan, small_dataset(21))
    larger, steps[:] = list(steps), []
    update(plan, first_patients(small_dataset(21), 20))
    assert len(steps) == len(larger) == 2
    for (many,), (few,) in zip(larger, steps, strict=True):
        assert int(many.present.sum()) == 21
        assert int(few.present.sum()) == 20
        for name in ("labels", "levels", "noise"):
            assert torch.equal(getattr(many, name)[:20], getattr(few, name)[:20])
    assert not torch.equal(steps[0][0].noise[:20], steps[1][0].noise[:20])
    assert torch.unique(steps[0][0].noise[:20].flatten()).numel() > 0.99 * 20 * 36


def test_selection_in_a_round_is_a_coin_per_patient_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and variance of the batch sizes within 4.5 standard errors (a fixed size has variance 0), each patient's and
    each neighbouring pair's count within 4.9: at most one failure in 10,000 seeds.
    """
    steps = watch(monkeypatch)
    patients, rate, rounds = 300, 0.1, 10
    codes = (np.arange(patients)[:, None] >> np.arange(9)) & 1
    features = np.concatenate([codes, np.tile([1, 0, 0], (patients, 1))], axis=1).astype(np.uint8)
    dataset = PatientDataset(
        features=SparseRows.of(features),
        labels=np.zeros(patients, np.int64),
        patient_ids=[str(i) for i in range(patients)],
    )
    plan = small_plan(privacy={"selection_rate": Decimal("0.1")}, federation={"steps_per_round": 50})
    for key in range(rounds):
        update(plan, dataset, key)
    chosen = np.zeros((len(steps), patients))
    for number, batches in enumerate(steps):
        for batch in batches:
            numbers = (batch.clean[batch.present][:, :9].numpy() @ (1 << np.arange(9))).astype(int)
            np.add.at(chosen[number], numbers, 1)
    assert chosen.max() == 1
    assert len(steps) == 500
    sizes, variance = chosen.sum(axis=1), patients * rate * (1 - rate)
    assert abs(float(sizes.mean()) - patients * rate) < 4.5 * math.sqrt(variance / 500)
    assert abs(float(sizes.var()) / variance - 1) < 4.5 * math.sqrt(2 / 500)
    assert np.abs(chosen.sum(axis=0) - 500 * rate).max() < 4.9 * math.sqrt(500 * rate * (1 - rate))


def test_a_step_that_selects_nobody_is_a_step_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = watch(monkeypatch)
    plan = one_step(selection_rate=Decimal("0.000001"), noise_multiplier=Decimal(3), clip_norm=Decimal(2))
    values = np.concatenate([update(plan, small_dataset(50), key) for key in range(40)])
    assert steps == [[]] * 40
    assert has_std(values, 3 * 2 / (0.000001 * 200))


def test_the_noise_of_a_step_is_finer_than_float32() -> None:
    """Rate, batch and noise are powers of 2: float32 noise would be released as float32 numbers."""
    plan = one_step(256, noise_multiplier=Decimal(2**19))
    values = update(plan, small_dataset(0))
    assert np.mean(values != values.astype(np.float32)) > 0.9


@pytest.mark.parametrize("round_number", [0, 1])
def test_two_releases_of_one_request_have_different_noise(round_number: int) -> None:
    """Through the vault's workload, which makes the key: the same site and another site, on no patient at all."""
    plan = small_plan()
    payload = encode_model(np.zeros(model_payload_size(SCHEMA, ModelSpec()), np.float32)) if round_number else b""
    sites = [
        PatientWorkload(site_name=name, device="cpu", schema=SCHEMA, dataset=small_dataset(0))
        for name in ("north", "south")
    ]
    releases = [site.release(plan, round_number, payload) for site in (sites[0], sites[0], sites[1])]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(releases[first] != releases[second]) > 0.99


def test_gradients_are_divided_by_the_public_batch_size_not_the_real_one() -> None:
    small = one_step(noise_multiplier=TINY_NOISE)
    twice = small_plan(
        nominal_patients=400,
        privacy=small.privacy.model_dump(),
        federation=small.federation.model_dump(),
        optimiser=small.optimiser.model_dump(),
    )
    dataset = small_dataset(100)
    assert np.allclose(update(small, dataset), 2 * update(twice, dataset), atol=3 * ROUNDING)


def test_tiles_change_the_cost_only() -> None:
    plan = one_step(noise_multiplier=TINY_NOISE, selection_rate=Decimal(1))
    whole = update(plan, small_dataset(64))
    pieces = update(plan, small_dataset(64), performance=Performance(patients_at_once=7))
    assert np.linalg.norm(whole) > 0.01
    assert np.allclose(pieces, whole, atol=3 * ROUNDING)


def test_ways_to_clip_change_the_cost_only() -> None:
    plan = one_step(noise_multiplier=TINY_NOISE, selection_rate=Decimal(1))
    usual = update(plan, small_dataset(64))
    found = update(plan, small_dataset(64), performance=Performance(clipping="hooks"))
    assert np.linalg.norm(usual) > 0.01
    assert np.allclose(found, usual, atol=3 * ROUNDING)
    # It sums in float32, for which the proof for couplings does not hold.
    with pytest.raises(ClippingError, match="ghost"):
        update(plan, small_dataset(64), performance=Performance(clipping="ghost"))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_site_of_one_patient_releases_something_bounded(name: str) -> None:
    plan = small_plan(nominal_patients=1, optimiser={"name": name}, federation={"update_norm": Decimal(3)})
    found = update(plan, small_dataset(1))
    assert np.linalg.norm(found) <= 3 + ROUNDING * math.sqrt(found.size)


def test_the_update_is_scaled_down_to_the_plans_bound() -> None:
    plan = small_plan(federation={"update_norm": Decimal("0.01")})
    found = update(plan, small_dataset(50))
    assert np.linalg.norm(found) == pytest.approx(0.01, rel=0.01)


def test_a_model_gone_wild_makes_a_step_of_noise_alone() -> None:
    """Parameters so large that no patient's gradient is finite: the release is still noise, not NaN."""
    plan = one_step(noise_multiplier=Decimal(1))
    wild = parameter_vector(build_code_denoiser(LAYOUT, ModelSpec())) + np.float32(3e38)
    dataset = small_dataset(50)
    found = from_fixed(train_round(plan, "north", SCHEMA, dataset, wild, None, "cpu", SecretRandomness(bytes(32))))
    assert np.all(np.isfinite(found))
    assert np.linalg.norm(found) < 10


def test_a_gradient_that_is_not_finite_is_counted_in_the_sites_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = one_step(noise_multiplier=TINY_NOISE, selection_rate=Decimal(1))
    update(plan, small_dataset(50))
    assert not caplog.text
    usual = DiffusionLoss.__call__

    def spoilt(self: DiffusionLoss, network: Any, batch: DiffusionBatch) -> torch.Tensor:
        return usual(self, network, batch) * torch.where(torch.arange(len(batch)) < 3, torch.nan, 1.0)

    monkeypatch.setattr(DiffusionLoss, "__call__", spoilt)
    found = update(plan, small_dataset(50))
    assert "3 times a patient's gradient was not finite and did not count" in caplog.text
    assert np.all(np.isfinite(found))


def test_private_training_learns_which_codes_go_together() -> None:
    plan = small_plan(
        model={"noise_levels": 4},
        privacy={"noise_multiplier": Decimal("0.5"), "selection_rate": Decimal("0.2"), "clip_norm": Decimal(2)},
        federation={"steps_per_round": 40},
        nominal_patients=2000,
        optimiser={"learning_rate": Decimal("0.5")},
    )
    features, _ = small_rows(2000)
    prevalence = np.clip(features.mean(axis=0), 0.01, 0.99)
    anchor = np.log(prevalence / (1 - prevalence))
    anchor[9:] = np.log(prevalence[9:])
    found = update(plan, small_dataset(2000), anchor=np.stack([anchor, anchor]).astype(np.float32))
    matrix = np.zeros((12, 12))
    matrix[np.triu_indices(12)] = found
    together = matrix[[0, 0, 1], [1, 2, 2]]
    strangers = [matrix[i, j] for i in range(9) for j in range(i + 1, 9) if j > 3]
    assert together.min() > 3 * np.abs(strangers).max()


def auto(sites_patients: int, noise_multiplier: str, steps: int = 10) -> float:
    plan = small_plan(
        nominal_patients=sites_patients,
        privacy={"noise_multiplier": Decimal(noise_multiplier)},
        federation={"rounds": 1, "steps_per_round": steps},
        optimiser={"learning_rate": None},
    )
    return plan.learning_rate()


def test_without_a_learning_rate_the_plan_takes_the_step_that_its_noise_allows() -> None:
    assert auto(1000, "2") == pytest.approx(2 * auto(1000, "4"))
    assert auto(2000, "2") == pytest.approx(2 * auto(1000, "2"))
    assert auto(1000, "2", steps=10) == pytest.approx(2 * auto(1000, "2", steps=40))
    assert auto(100_000, "0.01") == LARGEST_LEARNING_RATE


def test_the_chosen_learning_rate_lets_noise_move_a_parameter_as_far_as_stated() -> None:
    """Two sites of noise alone, averaged as the coordinator does: the std of a parameter is PARAMETER_NOISE."""
    plan = small_plan(
        privacy={"noise_multiplier": Decimal(2)},
        federation={"rounds": 1, "steps_per_round": 9},
        optimiser={"learning_rate": None},
    )
    average = [
        sum(
            update(plan, small_dataset(0), 2 * key + i, site_name=name) / 2 for i, name in enumerate(("north", "south"))
        )
        for key in range(40)
    ]
    assert has_std(np.concatenate(average), PARAMETER_NOISE)


@pytest.mark.parametrize("fault", ["columns", "label"])
def test_data_of_another_schema_is_refused(fault: str) -> None:
    features, labels = small_rows(5)
    if fault == "columns":
        features = features[:, :-1]
    else:
        labels = labels + 5
    dataset = PatientDataset(features=SparseRows.of(features), labels=labels, patient_ids=[str(i) for i in range(5)])
    with pytest.raises(DataError):
        update(small_plan(), dataset)


def test_a_model_of_another_size_is_refused() -> None:
    with pytest.raises(SnapshotError):
        update(small_plan(), small_dataset(5), model_vector=np.zeros(3, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_not_released(value: float) -> None:
    with pytest.raises(ProtocolError):
        fixed_point_update(np.zeros(3, np.float32), np.array([0.0, value, 1.0]), 1.0)


def test_marginal_rows_are_clipped_per_patient() -> None:
    features, labels = small_rows(40)
    expected = np.zeros(26)
    for row, label in zip(features.astype(float), labels, strict=True):
        own = np.zeros(26)
        own[label * 12 : label * 12 + 12] = row
        own[24 + label] = 1
        expected += own * min(1.0, 1.5 / np.linalg.norm(own))
    assert np.allclose(clipped_marginals(SparseRows.of(features), labels, 2, 1.5), expected)


@pytest.mark.parametrize("row", [0, 1])
def test_one_patient_moves_the_marginals_by_at_most_the_clip_norm(row: int) -> None:
    features, labels = small_rows(40)
    features[-1] = row
    with_it, without_it = SparseRows.of(features), SparseRows.of(features[:-1])
    moved = clipped_marginals(with_it, labels, 2, 1.5) - clipped_marginals(without_it, labels[:-1], 2, 1.5)
    assert 0 < np.linalg.norm(moved) <= 1.5 + 1e-9


def test_the_marginals_noise_has_the_plans_size() -> None:
    plan = small_plan()
    empty = [
        from_fixed(release_marginals(plan, SCHEMA, small_dataset(0), SecretRandomness(bytes([key]) * 32)))
        for key in range(200)
    ]
    values = np.concatenate(empty)
    assert has_std(values, 3.0)
    assert not has_std(values, 2.0)
    assert not has_std(values, 4.5)


def test_marginals_without_a_place_in_the_plan_are_refused() -> None:
    with pytest.raises(PlanError):
        release_marginals(
            small_plan(privacy={"marginals": None}), SCHEMA, small_dataset(3), SecretRandomness(bytes(32))
        )


def test_hidden_labels_have_the_plans_share() -> None:
    """4,000 patients; within 4.5 standard errors of 25 %."""
    plan = small_plan(model={"label_dropout": Decimal("0.25")})
    loss = DiffusionLoss(spec=plan.model, layout=LAYOUT, prior=torch.zeros(3, 12))
    features, labels = small_rows(4000)
    streams = PatientStreams(SecretRandomness(bytes(32)))
    batch = loss.draw(torch.from_numpy(features).float(), torch.from_numpy(labels), streams, 0, np.arange(4000))
    share = (batch.labels == 2).float().mean().item()
    assert abs(share - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / 4000)
    assert bool(((batch.labels == torch.from_numpy(labels)) | (batch.labels == 2)).all())
    sigma = corrupt(batch.clean, batch.levels, batch.noise, plan.model, LAYOUT).sigma
    assert sigma.min().item() >= float(plan.model.sigma_min) - 1e-6
    assert sigma.max().item() <= float(plan.model.sigma_max) + 1e-6
