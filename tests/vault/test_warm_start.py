"""A site computes with the model that the signed plan names, and with no other."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synclave_client.vault.series_workload import SeriesWorkload
from synclave_client.vault.session import Workload
from synclave_client.vault.workload import PatientWorkload
from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import ProtocolError
from synclave_shared.model_size import parameters_of
from synclave_shared.models.codes import anchor_size
from synclave_shared.models.series.anchor import usual_anchor
from synclave_shared.plan import (
    ClassifierSpec,
    Federation,
    InfluenceSpec,
    Marginals,
    ModelSpec,
    Privacy,
    ScoresSpec,
    SeriesSpec,
    TrainPlan,
)
from synclave_shared.protocol import encode_model
from tests.models.small import small_dataset, small_schema
from tests.models.small_series import SERIES_LAYOUT, series_dataset, series_schema
from tests.vault.coordinator import Coordinator, make_plan, make_settings, open_vault

SCHEMA = small_schema()
ANCHOR, SHARES = usual_anchor(SERIES_LAYOUT).to_vector(), np.array([0.7, 0.3], np.float32)
OF_SERIES = [SeriesSpec(), ClassifierSpec(), InfluenceSpec(), ScoresSpec()]


def plan_of(spec: Any, start: bytes) -> TrainPlan:
    """A plan that begins with ``start``, of rounds and marginals as its model needs them."""
    schema = SCHEMA if isinstance(spec, ModelSpec) else series_schema()
    once = isinstance(spec, InfluenceSpec | ScoresSpec)
    marginals = None if isinstance(spec, ClassifierSpec) else Marginals(noise_multiplier=Decimal(8))
    rate = None if once else Decimal("0.05")
    return make_plan(
        modality=schema.modality,
        schema_name=schema.name,
        schema_digest=schema.digest,
        model=spec,
        privacy=Privacy(noise_multiplier=Decimal(8), selection_rate=rate, marginals=marginals),
        federation=Federation() if once else Federation(rounds=2, steps_per_round=1),
        warm_start=sha256_hex(start),
    )


def site_of(spec: Any) -> Workload:
    if isinstance(spec, ModelSpec):
        return PatientWorkload(site_name="north", device="cpu", schema=SCHEMA, dataset=small_dataset(30))
    return SeriesWorkload(site_name="north", device="cpu", schema=series_schema(), dataset=series_dataset(20))


def parts_of(spec: Any) -> tuple[np.ndarray, np.ndarray]:
    """A model, and what follows it in a payload."""
    if isinstance(spec, ModelSpec):
        return np.full(parameters_of(spec, SCHEMA), 0.1, np.float32), np.zeros(anchor_size(SCHEMA), np.float32)
    return np.full(parameters_of(spec, series_schema()), 0.1, np.float32), np.concatenate([ANCHOR, SHARES])


@pytest.mark.parametrize("spec", [ModelSpec(), *OF_SERIES], ids=lambda spec: spec.kind)
def test_another_model_than_the_plan_names_is_refused_in_the_first_round(spec: Any) -> None:
    model, rest = parts_of(spec)
    right, wrong = (encode_model(np.concatenate([one, rest])) for one in (model, np.nextafter(model, np.float32(1))))
    clinical, site = isinstance(spec, ClassifierSpec), site_of(spec)
    plan = plan_of(spec, right if clinical else encode_model(model))
    site.check_payload(plan, 1, right)
    with pytest.raises(ProtocolError, match="as the signed plan says"):
        site.check_payload(plan, 1, wrong)
    if plan.last_round() > 1:
        site.check_payload(plan, 2, wrong)


@pytest.mark.parametrize("spec", [ClassifierSpec(), InfluenceSpec(), ScoresSpec()], ids=lambda spec: spec.kind)
def test_another_anchor_or_other_shares_than_those_of_the_clinical_model_are_refused(spec: Any) -> None:
    model, rest = parts_of(spec)
    plan, site = plan_of(spec, encode_model(np.concatenate([model, rest]))), site_of(spec)
    for place in (0, ANCHOR.size):
        other = rest.copy()
        other[place : place + 2] += np.float32([0.1, -0.1])
        with pytest.raises(ProtocolError, match="as the signed plan says"):
            site.check_payload(plan, 1, encode_model(np.concatenate([model, other])))


def test_nothing_is_spent_on_another_model(tmp_path: Path) -> None:
    spec = ScoresSpec()
    model, rest = parts_of(spec)
    right, wrong = (encode_model(np.concatenate([one, rest])) for one in (model, 2 * model))
    settings = make_settings(tmp_path)
    vault, journal = open_vault(settings, site_of(spec))
    try:
        coordinator = Coordinator(vault, plan_of(spec, right))
        coordinator.join()
        reply = coordinator.round(1, wrong)
        assert (reply.status, reply.code) == ("failed", "protocol")
        assert journal.spent(settings.dataset) == []
        assert coordinator.round(1, right).status == "ok"
    finally:
        journal.close()
