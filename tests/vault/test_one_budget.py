"""One data set has one budget, whatever is made of it: every kind of plan draws on it, before it sees a patient."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synclave_client.vault.journal import Journal
from synclave_shared.model_spec import ClassifierSpec, CopulaSpec, InfluenceSpec, ModelSpec, SeriesSpec
from synclave_shared.plan import Federation, Marginals, Privacy, TrainPlan
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.budget import Budget
from synclave_shared.privacy.mechanism import GaussianSum, PoissonGaussian
from tests.vault.coordinator import Coordinator, FakeWorkload, make_plan, make_scores_plan, make_settings, open_vault

DELTA = Decimal("0.00001")
DATASET = "north-patients"
TRAINING = Privacy(noise_multiplier=Decimal(4), selection_rate=Decimal("0.05"))
ANCHORED = TRAINING.model_copy(update={"marginals": Marginals(noise_multiplier=Decimal(8))})
ROUNDS = Federation(rounds=2, steps_per_round=5)
WARM = "7" * 64


def plans() -> list[TrainPlan]:
    """Every kind of model; scores first, for they are told of patients of whom nothing was learnt."""
    one_sum = Privacy(noise_multiplier=Decimal(9))
    copula = one_sum.model_copy(update={"marginals": Marginals(noise_multiplier=Decimal(7))})
    series = {"modality": "series"}
    return [
        make_scores_plan(),
        make_plan("codes", model=ModelSpec(), privacy=ANCHORED, federation=ROUNDS),
        make_plan("copula", model=CopulaSpec(), privacy=copula, federation=Federation()),
        make_plan("series", model=SeriesSpec(), privacy=ANCHORED, federation=ROUNDS, **series),
        make_plan("clinical", model=ClassifierSpec(), privacy=TRAINING, federation=ROUNDS, warm_start=WARM, **series),
        make_plan(
            "influence", model=InfluenceSpec(), privacy=one_sum, federation=Federation(), warm_start=WARM, **series
        ),
    ]


@dataclass
class Watching(FakeWorkload):
    """Looks into the journal on the disk at the moment when patients are computed with."""

    path: Path = Path()
    seen: tuple[PoissonGaussian | GaussianSum, ...] = ()

    def release(self, plan: TrainPlan, round_number: int, payload: bytes) -> NDArray[np.int64]:
        journal = Journal.read(self.path)
        self.seen = tuple(journal.spent(DATASET))
        journal.close()
        return super().release(plan, round_number, payload)


def test_all_kinds_of_plans_share_it_and_spend_before_they_compute(tmp_path: Path) -> None:
    everything = [mechanism for plan in plans() for mechanism in plan.mechanisms()]
    whole = epsilon(everything, float(DELTA))
    budget = Budget(epsilon=Decimal(f"{whole + 0.01:.4f}"), delta=DELTA)
    settings = make_settings(tmp_path, budget=budget)
    workload = Watching(path=settings.journal_file)
    vault, journal = open_vault(settings, workload)
    done: list[PoissonGaussian | GaussianSum] = []
    for plan in plans():
        coordinator = Coordinator(vault, plan)
        coordinator.join()
        # The worst case of the whole plan is held back at once, on top of all others'.
        assert epsilon(journal.committed(DATASET), 1e-5) == epsilon([*done, *plan.mechanisms()], 1e-5)
        for number in range(plan.first_round(), plan.last_round() + 1):
            assert coordinator.round(number).status == "ok"
            done.append(plan.mechanism(number))
            assert list(workload.seen) == done
        coordinator.close()
        assert journal.spent(DATASET) == done
    assert {spend.kind for spend in journal.plan_spends()} == {plan.model.kind for plan in plans()}
    assert len(journal.plan_spends()) == 6
    assert epsilon(journal.spent(DATASET), 1e-5) == whole
    # Each alone would fit, and some twice; on top of the others nothing more does, of whatever kind.
    for number, plan in enumerate(plans()[1:]):
        again = Coordinator(vault, plan.model_copy(update={"name": f"again-{number}"}))
        again.hello()
        assert epsilon(plan.mechanisms(), 1e-5) < whole / 1.5
        assert again.propose().code == "budget-exceeded"
    assert journal.spent(DATASET) == done
    journal.close()


def test_a_round_that_fails_and_a_plan_that_is_left_give_nothing_back(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    vault, journal = open_vault(settings, FakeWorkload(error=RuntimeError("out of memory")))
    for plan in plans():
        before = journal.spent(DATASET)
        coordinator = Coordinator(vault, plan)
        coordinator.join()
        first = plan.first_round()
        assert coordinator.round(first).status == "failed"
        assert journal.spent(DATASET) == [*before, plan.mechanism(first)]
        coordinator.close()
        assert journal.spent(DATASET) == [*before, plan.mechanism(first)]
    journal.close()
