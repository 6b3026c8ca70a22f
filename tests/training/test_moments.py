"""The copula's round at a site: what one patient can change, how much noise there is, and what is refused before it."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_client.training.moments import release_moments
from synclave_client.training.noise import SecretRandomness
from synclave_client.vault import site_workload as workloads
from synclave_client.vault.workload import PatientWorkload
from synclave_shared.errors import ClippingError, PlanError, ProtocolError
from synclave_shared.fixed_point import from_fixed
from synclave_shared.models.anchor import LARGEST_LOGIT, Anchor, anchor_of_payload, anchor_payload
from synclave_shared.models.copula import moments_size, second_moments
from synclave_shared.models.layout import CodeLayout
from synclave_shared.protocol import encode_model
from tests.models.small import LAYOUT, small_copula_plan, small_dataset, small_plan, small_rows, small_schema
from tests.sampling.stored import ANCHOR
from tests.training.test_noise import has_std

SCHEMA = small_schema()
SHARES = np.array([0.7, 0.3])
USUAL = Anchor(logits=ANCHOR, label_shares=SHARES)
M = moments_size(LAYOUT)


def site() -> PatientWorkload:
    return PatientWorkload(site_name="north", device="cpu", schema=SCHEMA, dataset=small_dataset(30))


def wide(logit: float, width: int = 400) -> tuple[Anchor, CodeLayout]:
    layout = CodeLayout(width=width, categories=(), label_values=2)
    return Anchor(logits=np.full((2, width), logit, np.float32), label_shares=SHARES), layout


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("logit", [-LARGEST_LOGIT, -12.0, -3.0, 0.0, 12.0, LARGEST_LOGIT])
@pytest.mark.parametrize("clip_norm", [0.001, 0.35, 1000.0])
def test_one_patient_moves_the_sum_by_at_most_the_clip_norm_whatever_the_anchor(
    value: int, logit: float, clip_norm: float
) -> None:
    """The patient has all of 400 codes, or none; the anchor may call that all but impossible."""
    anchor, layout = wide(logit)
    rng = np.random.default_rng(0)
    features = (rng.random((50, layout.width)) < 0.1).astype(np.uint8)
    features[-1] = value
    labels = rng.integers(0, 2, 50)
    whole = second_moments(features, labels, anchor, layout, clip_norm)
    without = second_moments(features[:-1], labels[:-1], anchor, layout, clip_norm)
    moved = float(np.linalg.norm(whole - without))
    assert moved <= clip_norm * (1 + 1e-9)
    if (value, logit) == (1, -3.0) and clip_norm < 1:
        # Twenty times as many codes as expected: such a patient is clipped, and counts for as much as any may.
        assert moved == pytest.approx(clip_norm)


def test_the_noise_has_the_plans_size_and_is_there_beside_patients() -> None:
    """std = noise_multiplier * clip_norm = 2 * 0.5 on every coordinate."""
    plan = small_copula_plan()
    clean = second_moments(*small_rows(30), USUAL, LAYOUT, 0.5)
    for dataset, centre in ((small_dataset(0), np.zeros(M)), (small_dataset(30), clean)):
        values = np.concatenate(
            [
                from_fixed(release_moments(plan, 1, SCHEMA, dataset, USUAL, SecretRandomness(bytes([key]) * 32)))
                - centre
                for key in range(60)
            ]
        )
        assert has_std(values, 1.0)
        assert not has_std(values, 2 / 3)
        assert not has_std(values, 3 / 2)


def test_noise_is_drawn_anew_in_every_round() -> None:
    payload = encode_model(anchor_payload(USUAL))
    first, second = (site().release(small_copula_plan(), 1, payload) for _ in range(2))
    assert (first.size, np.mean(first == second) < 0.1) == (M, True)


def test_the_workload_runs_what_the_plan_says_of_the_round() -> None:
    plan = small_copula_plan(noise_multiplier="0.000001")
    assert site().release(plan, 0, b"").size == 26
    released = from_fixed(site().release(plan, 1, encode_model(anchor_payload(USUAL))))
    assert released == pytest.approx(second_moments(*small_rows(30), USUAL, LAYOUT, 0.5), abs=1e-4)


def spoilt(**changes: Any) -> NDArray[np.float32]:
    values = anchor_payload(USUAL)
    for place, value in changes.items():
        values[int(place[1:])] = value
    return values


@pytest.mark.parametrize(
    "values",
    [
        anchor_payload(USUAL)[:-1],
        np.zeros(0, np.float32),
        spoilt(_0=np.nan),
        spoilt(_0=np.inf),
        spoilt(_3=LARGEST_LOGIT * 1.01),
        spoilt(_24=-0.1, _25=1.1),
        spoilt(_24=0.9),
        spoilt(_25=np.nan),
    ],
    ids=["short", "empty", "nan", "infinite", "certain", "negative share", "shares of too much", "share nan"],
)
def test_an_anchor_that_is_none_is_refused_before_anything_is_spent(values: NDArray[np.float32]) -> None:
    with pytest.raises(ProtocolError):
        site().check_payload(small_copula_plan(), 1, encode_model(values))


def test_payloads_are_those_of_the_round() -> None:
    plan, anchor = small_copula_plan(), encode_model(anchor_payload(USUAL))
    site().check_payload(plan, 0, b"")
    site().check_payload(plan, 1, anchor)
    with pytest.raises(ProtocolError, match="no payload"):
        site().check_payload(plan, 0, anchor)
    with pytest.raises(PlanError):
        site().check_payload(plan, 2, anchor)
    with pytest.raises(ProtocolError):
        site().check_payload(small_plan(), 1, anchor)


@pytest.mark.parametrize(("plan", "number"), [(small_copula_plan(), 0), (small_plan(), 1)])
def test_moments_without_a_place_in_the_plan_are_refused(plan: Any, number: int) -> None:
    with pytest.raises(PlanError, match="second moments"):
        release_moments(plan, number, SCHEMA, small_dataset(3), USUAL, SecretRandomness(bytes(32)))


def test_an_anchor_survives_the_journey_to_the_bit() -> None:
    values = anchor_payload(USUAL)
    assert np.array_equal(anchor_payload(anchor_of_payload(values, LAYOUT)), values)


def test_moments_that_could_not_travel_are_refused_at_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "MOST_PARAMETERS", M)
    site().check_model(small_copula_plan())
    monkeypatch.setattr(workloads, "MOST_PARAMETERS", M - 1)
    with pytest.raises(ClippingError, match=str(M)):
        site().check_model(small_copula_plan())
