"""Broken configurations, each through the real training with one thing broken, and what catches it.

The name of each test says who does: the conformance audit of the site, the start-up self-test, or the auditor's verify.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.private_step.models import Rows
from synclave_client.performance import Performance
from synclave_client.training import loop, marginals
from synclave_client.training.batch_selection import select_patients
from synclave_client.training.codes import DiffusionLoss
from synclave_client.training.conformance import RoundWatch
from synclave_client.training.conformance_checks import check_evidence
from synclave_client.training.noise import PatientStreams, SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.training.private.batch import PatientRows
from synclave_client.training.rehearsal import rehearse
from synclave_client.vault.conformance import ConformanceFolder
from synclave_client.vault.workload import PatientWorkload
from synclave_shared.errors import ClippingError, NotConforming
from synclave_shared.models.codes import model_payload_size
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import ModelSpec, TrainPlan
from synclave_shared.protocol import encode_model
from tests.models.small import small_dataset, small_plan, small_schema
from tests.training.clipping.slow_truth import rows, squared_outputs

SCHEMA = small_schema()
PATIENTS = 2_000
PAYLOAD = encode_model(np.zeros(model_payload_size(SCHEMA, ModelSpec(noise_levels=3)), np.float32))


def plan(**privacy: Any) -> TrainPlan:
    """Thirty steps a round on 2,000 patients at q = .2; gradients are longer than the clip norm."""
    return small_plan(
        nominal_patients=PATIENTS,
        privacy={"clip_norm": Decimal("0.05")} | privacy,
        federation={"steps_per_round": 30},
    )


@pytest.fixture
def site(tmp_path: Path) -> PatientWorkload:
    return PatientWorkload(
        site_name="north",
        device="cpu",
        schema=SCHEMA,
        dataset=small_dataset(PATIENTS),
        conformance=ConformanceFolder(tmp_path / "conformance"),
    )


def refusal(site: PatientWorkload, number: int = 1) -> str:
    """What the conformance audit says of the round that it stops."""
    with pytest.raises(NotConforming) as caught:
        site.release(plan(), number, b"" if number == 0 else PAYLOAD)
    return caught.value.found


def test_the_honest_configuration_is_released(site: PatientWorkload) -> None:
    for number in (0, 1, 2):
        site.check_payload(plan(), number, b"" if number == 0 else PAYLOAD)
        site.release(plan(), number, b"" if number == 0 else PAYLOAD)


def test_half_the_noise_is_caught_by_the_conformance_audit(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = SecretRandomness.add_normal
    monkeypatch.setattr(SecretRandomness, "add_normal", lambda self, values, std: usual(self, values, std / 2))
    assert "noise variance" in refusal(site)


def test_marginals_without_noise_are_caught_by_the_conformance_audit(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 26 numbers half the noise is not seen for sure; none is."""
    monkeypatch.setattr(SecretRandomness, "add_normal", lambda self, values, std: None)
    assert "noise variance" in refusal(site, 0)


def test_no_clipping_is_caught_by_the_conformance_audit(site: PatientWorkload, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = PatientGradients.__init__

    def unclipped(self: Any, *arguments: Any) -> None:
        usual(self, *arguments)
        self._clip_norm = 1e9

    monkeypatch.setattr(PatientGradients, "__init__", unclipped)
    assert "one patient's contribution" in refusal(site)


def test_marginals_without_clipping_are_caught_by_the_conformance_audit(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = marginals.clipped_marginals
    monkeypatch.setattr(marginals, "clipped_marginals", lambda *arguments: usual(*arguments[:3], 100.0))
    few = small_plan(privacy={"marginals": {"noise_multiplier": "1", "clip_norm": "0.5"}})
    with pytest.raises(NotConforming, match="one patient's contribution"):
        site.release(few, 0, b"")


def test_a_doubled_selection_rate_is_caught_by_the_conformance_audit(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "select_patients", lambda n, rate, randomness: select_patients(n, 2 * rate, randomness))
    assert "patients selected" in refusal(site)


def test_shuffled_batches_are_caught_by_the_conformance_audit(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []

    def shuffled(patients: int, rate: Decimal, _: SecretRandomness) -> NDArray[np.int64]:
        if len(order) < patients * rate:
            order.extend(np.random.default_rng(len(order)).permutation(patients).tolist())
        return np.sort([order.pop() for _ in range(int(patients * rate))])

    monkeypatch.setattr(loop, "select_patients", shuffled)
    found = refusal(site)
    assert "variance of batch sizes" in found
    assert "variance of a patient's selections" in found


def test_the_noise_of_one_step_reused_in_all_is_caught_by_the_conformance_audit(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = SecretRandomness.add_normal

    def stuck(self: SecretRandomness, values: NDArray[np.float64], std: float) -> None:
        self._noise_calls = 0
        usual(self, values, std)

    monkeypatch.setattr(SecretRandomness, "add_normal", stuck)
    found = refusal(site)
    assert "noise used twice" in found
    assert "noise against the step before" in found


def test_the_noise_of_an_earlier_round_reused_is_caught_by_the_conformance_audit(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is not drawn anew: as if a plan's seed made the noise."""
    monkeypatch.setattr(SecretRandomness, "from_os", lambda: SecretRandomness(bytes(32)))
    site.release(plan(), 1, PAYLOAD)
    assert "noise used twice: expected 0 times" in refusal(site, 2).replace(" (round)", "")


def test_a_loss_that_is_one_mean_over_the_batch_is_caught_before_the_first_step(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = DiffusionLoss.__call__
    monkeypatch.setattr(DiffusionLoss, "__call__", lambda self, network, batch: usual(self, network, batch).mean())
    with pytest.raises(ClippingError, match="one value per patient"):
        site.release(plan(), 1, PAYLOAD)


def test_a_loss_with_the_mean_over_the_batch_in_it_is_caught_by_the_start_up_self_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = DiffusionLoss.__call__

    def mixed(self: DiffusionLoss, network: Any, batch: Any) -> Tensor:
        losses = usual(self, network, batch)
        return losses.mean().expand(len(losses))

    monkeypatch.setattr(DiffusionLoss, "__call__", mixed)
    with pytest.raises(ClippingError):
        rehearse(SCHEMA, ModelSpec(noise_levels=3), Performance())


class StaysLearner:
    """Patients of five stays each, in rows of their own."""

    def __init__(self, patients: int) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Linear(4, 3)
        self.values = 4
        self.x = torch.randn(patients, 5, 4)

    def __len__(self) -> int:
        return len(self.x)

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        return 10 * squared_outputs(network, batch)

    def batch(self, chosen: NDArray[np.int64], size: int, _: PatientStreams, __: int) -> Rows:
        padded = torch.zeros(size, 5, 4)
        padded[: len(chosen)] = self.x[chosen]
        owners = torch.arange(size).repeat_interleave(5).tolist()
        return replace(rows(padded.flatten(0, 1), owners), present=torch.arange(size) < len(chosen))


def stays_of(learner: StaysLearner) -> set[str]:
    """The checks that fail in a training on them."""
    what = plan()
    watch = RoundWatch(what.training()[1], len(learner), seed=0)
    loop.run_steps(
        what,
        "north",
        learner,
        parameter_vector(learner.network),
        SecretRandomness(bytes(32)),
        Performance(patients_at_once=64),
        watch,
    )
    evidence = watch.evidence()
    return {check.name for check in check_evidence(evidence, evidence, 1) if not check.passed}


def test_clipping_per_row_instead_of_per_patient_is_caught_by_the_conformance_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert stays_of(StaysLearner(300)) == set()
    per_row = clipped_row_by_row(PatientGradients._add)
    monkeypatch.setattr(PatientGradients, "_add", per_row)
    assert "one patient's contribution / clip norm" in stays_of(StaysLearner(300))


def clipped_row_by_row(usual: Callable[..., None]) -> Callable[..., None]:
    """Each row as if it were a patient of its own: five stays, five clip norms."""

    def add(self: PatientGradients[Rows], batch: Rows, first: bool) -> None:
        present = PatientRows.of(batch).spread(batch.present)
        usual(self, replace(rows(batch.x), present=present), first)

    return add


def test_a_round_that_was_stopped_stops_the_plan_and_no_other(
    site: PatientWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(loop, "select_patients", lambda n, rate, randomness: np.arange(n))
        refusal(site)
    with pytest.raises(NotConforming, match="patients selected"):
        site.check_payload(plan(), 2, PAYLOAD)
    site.check_payload(plan(noise_multiplier=Decimal(2)), 1, PAYLOAD)
