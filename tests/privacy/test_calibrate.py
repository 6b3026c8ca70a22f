from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.errors import PlanError
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.calibrate import GRID, noise_multiplier_for
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian

Mechanisms = list[PoissonGaussian | GaussianSum]


def training(selection: str, steps: int) -> Callable[[Decimal], Mechanisms]:
    def mechanisms(noise: Decimal) -> Mechanisms:
        marginals = GaussianSum(noise_multiplier=8 * noise, clip_norm=Decimal(5))
        step = PoissonGaussian(
            noise_multiplier=noise, clip_norm=Decimal(1), selection_rate=Decimal(selection), steps=steps
        )
        return [marginals, step]

    return mechanisms


def release(noise: Decimal) -> Mechanisms:
    return [GaussianSum(noise_multiplier=noise, clip_norm=Decimal(1))]


@pytest.mark.parametrize(
    ("target", "delta", "mechanisms_of"),
    [
        (1.0, 1e-5, training("0.0256", 400)),
        (Decimal("3"), Decimal("0.00001"), training("0.0256", 400)),
        (8.0, 1e-6, training("0.05", 100)),
        (0.3, 1e-5, training("0.01", 50)),
        (0.05, 1e-5, release),
        (2.5, 1e-3, release),
        (60.0, 1e-5, release),
        (400.0, 1e-5, release),
    ],
)
def test_it_never_protects_less_and_not_a_thousandth_more(
    target: float | Decimal, delta: float | Decimal, mechanisms_of: Callable[[Decimal], Mechanisms]
) -> None:
    noise = noise_multiplier_for(target, delta, mechanisms_of)
    assert noise == noise.quantize(GRID)
    assert epsilon(mechanisms_of(noise), float(delta)) <= float(target)
    assert epsilon(mechanisms_of(noise - GRID), float(delta)) > float(target)


def test_a_fixed_part_that_exceeds_the_target_is_named() -> None:
    fixed = GaussianSum(noise_multiplier=Decimal(1), clip_norm=Decimal(1))
    with pytest.raises(PlanError, match="epsilon of 1"):
        noise_multiplier_for(1.0, 1e-5, lambda noise: [fixed, *release(noise)])


@pytest.mark.parametrize("target", [0, -1, float("nan")])
def test_a_target_is_positive(target: float) -> None:
    with pytest.raises(PlanError, match="above 0"):
        noise_multiplier_for(target, 1e-5, release)


@settings(max_examples=4, deadline=None)
@given(
    target=st.sampled_from(["0.2", "0.7", "1", "2.5", "6"]),
    delta=st.sampled_from([1e-4, 1e-5, 1e-7]),
    selection=st.sampled_from(["0.002", "0.01", "0.06", "0.3", "1"]),
    steps=st.integers(1, 800),
    share=st.integers(2, 20),
    spent=st.integers(0, 40),
)
def test_random_plans_on_top_of_random_spends_never_protect_less(
    target: str, delta: float, selection: str, steps: int, share: int, spent: int
) -> None:
    before = [
        PoissonGaussian(noise_multiplier=Decimal(8), clip_norm=Decimal(1), selection_rate=Decimal("0.01"), steps=1)
    ]

    def mechanisms(noise: Decimal) -> Mechanisms:
        marginals = GaussianSum(noise_multiplier=share * noise, clip_norm=Decimal(5))
        step = PoissonGaussian(
            noise_multiplier=noise, clip_norm=Decimal(1), selection_rate=Decimal(selection), steps=steps
        )
        return [*before * spent, marginals, step]

    noise = noise_multiplier_for(Decimal(target), delta, mechanisms)
    assert epsilon(mechanisms(noise), delta) <= float(target)
    assert epsilon(mechanisms(noise - GRID), delta) > float(target)
