from __future__ import annotations

from decimal import Decimal

import pytest

from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.mechanism import MAX_STEPS, GaussianSum, PoissonGaussian
from synclave_shared.privacy.tally import spent, spent_together, tallied

STEP = PoissonGaussian(noise_multiplier=Decimal(20), clip_norm=Decimal(1), selection_rate=Decimal("0.001"), steps=5)
SUM = GaussianSum(noise_multiplier=Decimal(10), clip_norm=Decimal(5))


def test_a_long_history_becomes_a_short_one_of_the_same_epsilon() -> None:
    history = [SUM, *[STEP] * 2000, SUM, STEP.model_copy(), *[STEP] * 1000]
    short = tallied(history)
    assert len(short) == 4
    assert sum(each.steps for each in short if isinstance(each, PoissonGaussian)) == 5 * 3001
    assert spent(history, 1e-5) == epsilon(history, 1e-5)
    assert tallied([]) == []
    assert spent([], 1e-5) == 0.0


def test_no_mechanism_of_it_has_more_steps_than_one_may_have() -> None:
    most = STEP.model_copy(update={"steps": MAX_STEPS - 1})
    short = tallied([most] * 3)
    assert [each.steps for each in short if isinstance(each, PoissonGaussian)] == [MAX_STEPS, MAX_STEPS, MAX_STEPS - 3]


def test_data_sets_together_are_composed_at_the_smallest_delta_of_those_on_which_anything_was_done() -> None:
    first, second = [SUM, STEP], [SUM]
    assert spent_together([(first, 1e-5), (second, 1e-6), ([], 1e-9)]) == (epsilon([*first, *second], 1e-6), 1e-6)
    # Adding up would say something else.
    assert epsilon([*first, *second], 1e-6) < epsilon(first, 1e-6) + epsilon(second, 1e-6)
    assert spent_together([([], 1e-9)]) is None
    assert spent_together([]) is None


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_delta_is_a_probability(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        spent([SUM], delta)
