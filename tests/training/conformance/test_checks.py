"""The conformance checks alone: they see what they should from 30 steps, and never cry wolf."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
from numpy.typing import NDArray

from synclave_client.training.batch_selection import select_patients
from synclave_client.training.conformance import LOOKED_AT, STEPS_PER_PROBE, RoundWatch
from synclave_client.training.conformance_checks import FALSE_ALARM, SCOPES, TESTS, Check, check_evidence, threshold
from synclave_client.training.conformance_evidence import Evidence
from synclave_client.training.conformance_scores import FURTHEST, normal_scores
from synclave_client.training.noise import SecretRandomness
from synclave_shared.privacy.mechanism import PoissonGaussian

RATE = 0.05
PATIENTS = 10_000
STEPS = 30

Select = Callable[[int], NDArray[np.int64]]


def mechanism(rate: float = RATE, steps: int = STEPS) -> PoissonGaussian:
    return PoissonGaussian(
        noise_multiplier=Decimal("1.1"), clip_norm=Decimal(2), selection_rate=Decimal(str(rate)), steps=steps
    )


def simulated(
    select: Select, noise: Callable[[int], NDArray[np.float64]], *, patients: int, what: PoissonGaussian, seed: int
) -> RoundWatch:
    watch = RoundWatch(what, patients, seed=seed)
    for step in range(what.steps):
        chosen = select(step)
        watch.selected(chosen)
        added = noise(step)
        values = np.zeros(added.size)
        with watch.noising(values, len(chosen)):
            values += added
    return watch


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.passed}


def judged(
    select: Select | None = None, noise: Callable[[int], NDArray[np.float64]] | None = None, seed: int = 0
) -> list[Check]:
    """One round of 30 steps, 10,000 patients at q = .05 and 100,000 coordinates, honest where nothing else is given."""
    randomness = SecretRandomness(bytes([seed]) * 32)

    def honest_selection(_: int) -> NDArray[np.int64]:
        return select_patients(PATIENTS, Decimal(str(RATE)), randomness)

    def honest_noise(_: int) -> NDArray[np.float64]:
        return 2.2 * randomness.normal(100_000)

    watch = simulated(select or honest_selection, noise or honest_noise, patients=PATIENTS, what=mechanism(), seed=seed)
    evidence = watch.evidence()
    return check_evidence(evidence, evidence, 1)


def deviation(checks: list[Check], name: str) -> float:
    (check,) = [check for check in checks if check.name == name and check.scope == "round"]
    assert check.deviation is not None
    return check.deviation


def test_the_honest_mechanism_passes_at_full_size() -> None:
    assert not failed(judged())


def test_200_honest_runs_of_all_sizes_give_no_alarm() -> None:
    """Few patients or none, rates from nearly 0 to 1, 1 to 30 steps, 3 rounds each: the sizes at which "about normal"
    is wrong.
    """
    rng = np.random.default_rng(0)
    probabilities = []
    for run in range(200):
        patients, rate, steps = int(rng.integers(0, 400)), rng.choice([0.001, 0.05, 0.3, 1.0]), int(rng.integers(1, 31))
        what, together = mechanism(float(rate), steps), Evidence()
        sketches: frozenset[bytes] = frozenset()
        for look in (1, 2, 3):
            watch = simulated(
                lambda _: np.flatnonzero(rng.random(patients) < rate),  # noqa: B023 - called at once
                lambda _: 2.2 * rng.standard_normal(100),
                patients=patients,
                what=what,
                seed=3 * run + look,
            )
            evidence = watch.evidence(sketches)
            sketches |= set(watch.sketches)
            together = together + evidence
            checks = check_evidence(evidence, together, look)
            assert not failed(checks)
            probabilities += [c.probability for c in checks if c.scope == "round" and c.probability is not None]
    # Of 6,000 probabilities a share of x is at most x: bounds, and some are never small.
    for share in (0.001, 0.01, 0.05):
        assert np.mean(np.array(probabilities) < share) < share + 4 * np.sqrt(share / len(probabilities))


def test_all_looks_together_stay_within_the_stated_false_alarm_probability() -> None:
    spent = sum(threshold(look) for look in range(1, 10_000)) * TESTS * SCOPES
    assert 0.99 * FALSE_ALARM < spent < FALSE_ALARM
    evidence = simulated(
        lambda _: np.zeros(0, np.int64), lambda _: np.zeros(5), patients=0, what=mechanism(), seed=0
    ).evidence()
    tests = [check for check in check_evidence(evidence, evidence, 1) if check.probability is not None]
    assert len(tests) <= TESTS * SCOPES


def test_two_percent_less_noise_are_seen() -> None:
    checks = judged(noise=lambda step: 0.98 * 2.2 * np.random.default_rng(step).standard_normal(100_000))
    assert failed(checks) >= {"noise variance / the plan's"}
    assert deviation(checks, "noise variance / the plan's") < -15


def test_noise_of_another_law_and_the_same_variance_is_seen() -> None:
    wide = np.sqrt(12) * 2.2
    assert failed(judged(noise=lambda step: wide * (np.random.default_rng(step).random(100_000) - 0.5))) >= {
        "noise law, distance from normal"
    }


def test_a_hundredth_of_the_coordinates_without_noise_is_seen() -> None:
    def patchy(step: int) -> NDArray[np.float64]:
        noise = 2.2 * np.random.default_rng(step).standard_normal(100_000)
        noise[50_000:51_000] = 0
        return noise

    assert failed(judged(noise=patchy)) >= {"noise variance / the plan's"}


def test_noise_that_is_partly_that_of_the_step_before_is_seen() -> None:
    def echoing(step: int) -> NDArray[np.float64]:
        now, before = (np.random.default_rng(number).standard_normal(100_000) for number in (step + 1, step))
        return 2.2 * (np.sqrt(1 - 0.05**2) * now + 0.05 * before)

    assert failed(judged(noise=echoing)) == {"noise against the step before"}


def test_noise_of_an_earlier_step_or_round_is_seen() -> None:
    first = simulated(
        lambda _: np.arange(5), lambda step: np.random.default_rng(step).standard_normal(50), patients=9,
        what=mechanism(1.0, 4), seed=0,
    )  # fmt: skip
    again = simulated(
        lambda _: np.arange(5), lambda step: np.random.default_rng(3 - step % 2).standard_normal(50), patients=9,
        what=mechanism(1.0, 4), seed=1,
    )  # fmt: skip
    assert first.evidence().repeated == 0
    assert again.evidence().repeated == 2
    assert again.evidence(frozenset(first.sketches)).repeated == 4


@pytest.mark.parametrize("factor", [0.9, 1.1, 2.0])
def test_a_selection_rate_that_is_a_tenth_off_is_seen(factor: float) -> None:
    rng = np.random.default_rng(0)
    checks = judged(select=lambda _: np.flatnonzero(rng.random(PATIENTS) < factor * RATE))
    assert "patients selected" in failed(checks)
    assert abs(deviation(checks, "patients selected")) > 10


def test_shuffled_batches_of_one_size_are_seen() -> None:
    """Without replacement until everybody was there: 500 patients a step, never one more."""
    order = np.random.default_rng(0).permutation(PATIENTS)
    size = int(RATE * PATIENTS)
    checks = judged(select=lambda step: order[size * (step % 20) : size * (step % 20 + 1)])
    assert failed(checks) >= {
        "variance of batch sizes / binomial",
        "variance of a patient's selections / binomial",
        "patients selected again at once",
    }


def test_batches_of_one_size_drawn_anew_are_seen() -> None:
    rng = np.random.default_rng(0)
    checks = judged(select=lambda _: rng.choice(PATIENTS, int(RATE * PATIENTS), replace=False))
    assert failed(checks) == {"variance of batch sizes / binomial"}


def test_a_batch_that_stays_is_seen() -> None:
    kept: list[NDArray[np.int64]] = []
    rng = np.random.default_rng(0)

    def lazy(step: int) -> NDArray[np.int64]:
        if step % 2 == 0:
            kept.append(np.flatnonzero(rng.random(PATIENTS) < RATE))
        return kept[-1]

    assert "patients selected again at once" in failed(judged(select=lazy))


def test_one_patient_who_is_always_selected_is_seen() -> None:
    rng = np.random.default_rng(0)
    always = [0] + [1] * (PATIENTS - 1)
    assert failed(judged(select=lambda _: np.flatnonzero(rng.random(PATIENTS) * always < RATE))) == {
        "most selected patient, chance of it"
    }


def test_a_contribution_above_the_clip_norm_and_a_sum_above_that_of_its_patients_are_seen() -> None:
    watch = RoundWatch(mechanism(steps=1), 10, seed=0)
    watch.selected(np.array([1, 2]))
    values = np.full(4, 2.1)
    with watch.noising(values, 2):
        values += 2.2 * np.random.default_rng(0).standard_normal(4)
    watch.contributed(2.001)
    evidence = watch.evidence()
    assert evidence.largest == pytest.approx(1.0005)
    assert evidence.longest_sum == pytest.approx(1.05)
    assert failed(check_evidence(evidence, Evidence(), 1)) == {
        "one patient's contribution / clip norm",
        "a step's sum / patients' clip norms",
    }


def test_rows_clipped_in_float64_are_no_finding() -> None:
    """Of many rows scaled down to length 3 a third come out a last bit longer, as the norm is computed."""
    rows = [np.full(count, 3.0 / np.sqrt(count)) for count in range(9, 300)]
    watch = RoundWatch(mechanism(steps=1).model_copy(update={"clip_norm": Decimal(3)}), 1)
    for row in rows:
        watch.contributed(float(np.linalg.norm(row)))
    evidence = watch.evidence()
    assert evidence.largest > 1.0
    assert not failed(check_evidence(evidence, Evidence(), 1))


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_noise_that_is_no_number_conforms_to_nothing(fault: float) -> None:
    watch = RoundWatch(mechanism(steps=1), 0, seed=0)
    watch.selected(np.zeros(0, np.int64))
    values = np.zeros(100)
    with np.errstate(invalid="ignore"), watch.noising(values, 0):
        values += fault
    evidence = watch.evidence()
    assert "noise variance / the plan's" in failed(check_evidence(evidence, evidence, 1))


def test_one_patient_in_fifteen_steps_is_computed_once_more_also_where_rounds_are_short() -> None:
    assert STEPS_PER_PROBE == 15
    for steps, rounds in ((1, 600), (2, 300), (30, 20), (100, 6)):
        made = []
        for seed in range(rounds):
            watch = RoundWatch(mechanism(steps=steps), 10, seed=seed)
            assert watch.probe(0, 0) is None
            made.append([place for step in range(steps) if (place := watch.probe(step, 3)) is not None])
            assert steps // 15 <= len(made[-1]) <= -(-steps // 15)
            assert all(0 <= place < 3 for place in made[-1])
        assert sum(map(len, made)) == pytest.approx(40, abs=25)


@pytest.mark.parametrize(
    ("trials", "rate"), [(0, 0.5), (1, 0.01), (5, 1.0), (20, 0.3), (400, 0.001), (1_000_000, 0.01)]
)
def test_scores_of_binomial_counts_are_standard_normal(trials: int, rate: float) -> None:
    """20,000 scores: mean, variance and distribution function within 4.5 standard errors."""
    rng = np.random.default_rng(0)
    scores = normal_scores(rng.binomial(trials, rate, 20_000), trials, rate, rng.random(20_000))
    assert abs(scores.mean()) < 4.5 / np.sqrt(20_000)
    assert abs(scores.var() - 1) < 4.5 * np.sqrt(2 / 20_000)
    for place, share in ((-2.0, 0.02275), (-0.5, 0.30854), (1.0, 0.84134), (3.0, 0.99865)):
        assert abs(np.mean(scores < place) - share) < 4.5 * np.sqrt(share * (1 - share) / 20_000)


def test_counts_that_cannot_be_have_the_furthest_scores() -> None:
    scores = normal_scores(np.array([0, 999_999]), 1_000_000, 0.5, np.array([0.5, 0.5]))
    assert scores.tolist() == [-FURTHEST, FURTHEST]
    assert np.isfinite(normal_scores(np.array([0, 3]), 3, 1.0, np.array([0.5, 0.5]))).all()


def test_long_vectors_are_looked_at_evenly() -> None:
    """A watch of a vector of ten times as many coordinates as are looked at sees noise missing in any tenth of it."""
    for tenth in range(10):
        noise = np.random.default_rng(tenth).standard_normal(10 * LOOKED_AT) * 2.2
        noise[tenth * LOOKED_AT : (tenth + 1) * LOOKED_AT] = 0
        watch = simulated(lambda _: np.zeros(0, np.int64), lambda _: noise, patients=0, what=mechanism(1.0, 1), seed=0)  # noqa: B023
        assert "noise variance / the plan's" in failed(check_evidence(watch.evidence(), Evidence(), 1))
