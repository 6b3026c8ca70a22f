"""A patient who is at m sites moves every sum of each by at most 1/m of the clip norm, and nobody else notices."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synclave_client.performance import Performance
from synclave_client.training.clinical import release_influence, train_clinical_round
from synclave_client.training.codes import train_round
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.conformance_checks import check_evidence
from synclave_client.training.marginals import release_marginals
from synclave_client.training.moments import release_moments
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.notes import train_notes_round
from synclave_client.training.private import PatientGradients
from synclave_client.training.scores import release_scores
from synclave_client.training.series import release_series_marginals, train_series_round
from synclave_client.vault.shared_patients import MOST_SITES
from synclave_shared.fixed_point import from_fixed
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.coupling import SymmetricCoupling
from synclave_shared.models.note_base import build_note_lm
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.models.series.denoiser import build_series_denoiser
from synclave_shared.plan import ClassifierSpec, InfluenceSpec, ModelSpec, ScoresSpec, SeriesSpec, TrainPlan
from synclave_shared.text.chunks import encode_notes
from tests.models.small import LAYOUT, small_copula_plan, small_dataset, small_plan, small_schema
from tests.models.small_notes import notes_dataset
from tests.models.small_series import SERIES_LAYOUT, series_dataset, series_plan
from tests.training import test_notes
from tests.training.test_clinical import ANCHOR, SHARES, clinical_plan, model
from tests.training.test_moments import USUAL
from tests.training.test_private import clipped, hostile_levels, pulled
from tests.training.test_scores import scores_plan

TINY = Decimal("0.000001")
CLIP = 0.05
PATIENTS = 12
STEP: dict[str, Any] = {
    "privacy": {"noise_multiplier": TINY, "clip_norm": Decimal(str(CLIP)), "selection_rate": Decimal(1)},
    "federation": {"rounds": 1, "steps_per_round": 1, "update_norm": Decimal(1_000_000)},
    "optimiser": {"name": "sgd", "learning_rate": Decimal(1)},
}


@dataclass(frozen=True)
class Released:
    """What a mechanism does with a data set: the sum [P] in units of the plan's clip norm."""

    dataset: Any
    plan: TrainPlan
    release: Callable[[Any, RoundWatch | None], NDArray[np.int64]]
    round: int = 1

    def sum(self, dataset: Any, watch: RoundWatch | None = None) -> NDArray[np.float64]:
        values = from_fixed(self.release(dataset, watch))
        kind = self.plan.round_kind(self.round)
        batch = self.plan.expected_batch_size("north") if kind == "training" else 1.0
        return values * batch / float(self.plan.mechanism(self.round).clip_norm)


def secret() -> SecretRandomness:
    return SecretRandomness(bytes(32))


def codes(performance: Performance | None = None, **changes: Any) -> Released:
    plan = small_plan(4, **STEP)
    start = parameter_vector(build_code_denoiser(LAYOUT, ModelSpec()))
    return Released(
        small_dataset(PATIENTS),
        plan,
        lambda data, watch: train_round(
            plan, "north", small_schema(), data, start, None, "cpu", secret(), performance, watch
        ),
    )


def marginals() -> Released:
    plan = small_plan(privacy={"marginals": {"noise_multiplier": TINY, "clip_norm": Decimal(1)}})
    return Released(
        small_dataset(PATIENTS),
        plan,
        lambda data, watch: release_marginals(plan, small_schema(), data, secret(), watch),
        round=0,
    )


def moments() -> Released:
    plan = small_copula_plan()
    privacy = plan.privacy.model_copy(update={"noise_multiplier": TINY, "clip_norm": Decimal(str(CLIP))})
    plan = plan.model_copy(update={"privacy": privacy})
    return Released(
        small_dataset(PATIENTS),
        plan,
        lambda data, watch: release_moments(plan, 1, small_schema(), data, USUAL, secret(), watch),
    )


def series_marginals() -> Released:
    plan = series_plan(privacy={"marginals": {"noise_multiplier": TINY, "clip_norm": Decimal(1)}})
    return Released(
        series_dataset(PATIENTS),
        plan,
        lambda data, watch: release_series_marginals(plan, SERIES_LAYOUT, data, secret(), watch),
        round=0,
    )


def series() -> Released:
    plan = series_plan(4, **STEP)
    start = parameter_vector(build_series_denoiser(SERIES_LAYOUT, SeriesSpec()))
    return Released(
        series_dataset(PATIENTS),
        plan,
        lambda data, watch: train_series_round(
            plan, "north", SERIES_LAYOUT, data, start, ANCHOR, "cpu", secret(), None, watch
        ),
    )


def clinical() -> Released:
    plan = clinical_plan(ClassifierSpec(), **STEP["privacy"])
    changes = {"optimiser": STEP["optimiser"], "federation": STEP["federation"]}
    plan = TrainPlan.model_validate({**plan.model_dump(), **changes})
    return Released(
        series_dataset(PATIENTS),
        plan,
        lambda data, watch: train_clinical_round(
            plan, "north", SERIES_LAYOUT, data, model(ClassifierSpec()), ANCHOR, "cpu", secret(), None, watch
        ),
    )


def influence() -> Released:
    spec = InfluenceSpec()
    plan = clinical_plan(spec, noise_multiplier=TINY, clip_norm=Decimal(str(CLIP)))
    return Released(
        series_dataset(PATIENTS),
        plan,
        lambda data, watch: release_influence(
            plan, 1, SERIES_LAYOUT, data, model(spec), ANCHOR, SHARES, "cpu", secret(), None, watch
        ),
    )


def scores() -> Released:
    plan = scores_plan(TINY)
    return Released(
        series_dataset(PATIENTS),
        plan,
        lambda data, watch: release_scores(
            plan, 1, SERIES_LAYOUT, data, model(ScoresSpec()), ANCHOR, "cpu", secret(), None, watch
        ),
    )


def notes() -> Released:
    spec, base = test_notes.small()
    plan = small_plan(4, **STEP)
    privacy = plan.privacy.model_copy(update={"marginals": None})
    plan = plan.model_copy(update={"modality": "notes", "model": spec, "privacy": privacy})
    start = parameter_vector(build_note_lm(spec, base))
    return Released(
        notes_dataset(PATIENTS),
        plan,
        lambda data, watch: train_notes_round(
            plan,
            "north",
            encode_notes(data, test_notes.SCHEMA, base.tokenizer),
            base,
            start,
            "cpu",
            secret(),
        ),
    )


MECHANISMS: dict[str, Callable[[], Released]] = {
    "codes": codes,
    "codes-hooks": lambda: codes(Performance(clipping="hooks")),
    "marginals": marginals,
    "moments": moments,
    "series-marginals": series_marginals,
    "series": series,
    "clinical": clinical,
    "influence": influence,
    "scores": scores,
    "notes": notes,
}

every_mechanism = pytest.mark.parametrize("name", MECHANISMS)


def without_last(dataset: Any) -> Any:
    if hasattr(dataset, "select"):
        return dataset.select(np.arange(PATIENTS - 1))
    return replace(
        dataset,
        notes=dataset.notes[:-1],
        identifiers=dataset.identifiers[:-1],
        labels=dataset.labels[:-1],
        patient_ids=dataset.patient_ids[:-1],
        shares=None if dataset.shares is None else dataset.shares[:-1],
    )


def shares(last: float, first: float = 1.0) -> NDArray[np.float64]:
    found = np.ones(PATIENTS)
    found[0], found[-1] = first, last
    return found


@every_mechanism
def test_a_patient_moves_every_release_by_at_most_its_share_of_the_clip_norm(name: str) -> None:
    """Added and removed beside others, one of whom has a share as well; patients here are longer than their bounds."""
    made = MECHANISMS[name]()
    moves = {}
    for sites in (1, 2, 7):
        data = replace(made.dataset, shares=shares(1 / sites, first=1 / 3))
        moves[sites] = float(np.linalg.norm(made.sum(data) - made.sum(without_last(data))))
    for sites, moved in moves.items():
        # The noise of these plans and the grid of a release are far below that.
        assert moved <= 1 / sites + 2e-3, (sites, moved)
    # The patient would count for more without its share, and is not left out.
    assert moves[1] > 1 / 2 + 2e-3
    assert moves[7] > 0.8 / 7


@every_mechanism
def test_where_everybody_counts_in_full_a_release_is_the_same_to_the_bit(name: str) -> None:
    made = MECHANISMS[name]()
    whole = replace(made.dataset, shares=np.ones(PATIENTS))
    assert np.array_equal(made.release(made.dataset, None), made.release(whole, None))


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name != "notes"])
def test_the_conformance_audit_judges_a_patient_by_its_own_share(name: str) -> None:
    made = MECHANISMS[name]()
    mechanism = made.plan.mechanism(made.round)
    for seed in range(3):
        watch = RoundWatch(mechanism, PATIENTS, seed=seed)
        watch._first_probe = 0.99
        made.sum(replace(made.dataset, shares=np.full(PATIENTS, 1 / 3)), watch)
        evidence = watch.evidence()
        assert evidence.contributions
        assert 0.9 < evidence.largest <= 1.0 + 1e-12
        assert all(check.passed for check in check_evidence(evidence, evidence, 1) if "contribution" in check.name)


def test_a_contribution_beyond_a_patients_share_is_seen() -> None:
    watch = RoundWatch(marginals().plan.mechanism(0), 1)
    watch.contributed(0.51, 0.5)
    assert watch.evidence().largest == pytest.approx(1.02)


@pytest.mark.parametrize("kind", ["opposite", "nearly opposite", "antisymmetric", "loud"])
def test_levels_that_cancel_do_not_smuggle_a_patient_past_its_share(kind: str) -> None:
    """The rounding of a coupling's sum does not shrink with the share: the reserve under the bound is kept whole."""
    levels = hostile_levels(kind, 1.0)
    present = torch.full((len(levels),), 1 / MOST_SITES, dtype=torch.float64)
    gradients = PatientGradients(SymmetricCoupling(12), pulled, 1.0)
    whole = clipped(gradients, [replace(levels, present=present)])
    for patient in range(3):
        fewer = present.clone()
        fewer[patient] = 0.0
        assert np.linalg.norm(whole - clipped(gradients, [replace(levels, present=fewer)])) <= 1 / MOST_SITES
