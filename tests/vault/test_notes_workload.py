"""Notes are watched as other modalities are: a round that does less than its plan says stays at the site."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from synclave_client.performance import Performance
from synclave_client.training.noise import SecretRandomness
from synclave_client.training.private import PatientGradients
from synclave_client.vault import notes_workload
from synclave_client.vault.conformance import ConformanceFolder
from synclave_client.vault.notes_workload import NotesWorkload
from synclave_shared.errors import NotConforming
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, look_up_base
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import Federation, Privacy, TrainPlan
from synclave_shared.protocol import encode_model
from tests.models.small_notes import notes_dataset, notes_schema
from tests.vault.coordinator import make_plan, make_settings

SCHEMA = notes_schema()
SPEC, BASE = look_up_base(NotesSpec(width=64, blocks=1, predicted_tokens=8), Path())
PAYLOAD = encode_model(parameter_vector(build_note_lm(SPEC, BASE)))


def plan(name: str = "notes") -> TrainPlan:
    """Two rounds of 16 steps: in each a patient is computed once more, of any 15 steps in one."""
    privacy = {"noise_multiplier": Decimal(1), "selection_rate": Decimal("0.5"), "marginals": None}
    return TrainPlan.model_validate(
        make_plan(name).model_dump()
        | {
            "modality": "notes",
            "schema_name": SCHEMA.name,
            "schema_digest": SCHEMA.digest,
            "model": SPEC.model_dump(),
            "privacy": Privacy.model_validate(privacy).model_dump(),
            "federation": Federation(rounds=2, steps_per_round=16, minimum_sites=1, round_timeout_s=60).model_dump(),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> ConformanceFolder:
    return ConformanceFolder(tmp_path / "conformance")


@pytest.fixture
def site(folder: ConformanceFolder) -> NotesWorkload:
    return NotesWorkload(
        site_name="north",
        device="cpu",
        schema=SCHEMA,
        dataset=notes_dataset(20),
        performance=Performance(patients_at_once=8),
        conformance=folder,
    )


def test_a_report_is_kept_of_every_round(site: NotesWorkload, folder: ConformanceFolder) -> None:
    for number in (1, 2):
        site.check_payload(plan(), number, PAYLOAD)
        site.release(plan(), number, PAYLOAD)
    reports = folder.reports(plan().digest)
    assert [(report.round, report.passed, report.evidence.steps) for report in reports] == [
        (1, True, 16),
        (2, True, 16),
    ]
    assert all(0 < report.evidence.largest <= 1 for report in reports)


def test_half_the_noise_is_not_released_and_the_plan_goes_no_further(
    site: NotesWorkload, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = SecretRandomness.add_normal
    monkeypatch.setattr(SecretRandomness, "add_normal", lambda self, values, std: usual(self, values, std / 2))
    with pytest.raises(NotConforming, match="noise variance"):
        site.release(plan(), 1, PAYLOAD)
    with pytest.raises(NotConforming, match="noise variance"):
        site.check_payload(plan(), 2, PAYLOAD)
    site.check_payload(plan("another"), 1, PAYLOAD)


def test_no_clipping_is_not_released(site: NotesWorkload, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = PatientGradients.__init__

    def unclipped(self: PatientGradients, *arguments: object) -> None:
        usual(self, *arguments)  # type: ignore[arg-type]
        self._clip_norm = 1e9

    monkeypatch.setattr(PatientGradients, "__init__", unclipped)
    with pytest.raises(NotConforming, match="one patient's contribution"):
        site.release(plan(), 1, PAYLOAD)


def test_a_vault_keeps_the_reports_where_its_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads schema and notes stands in for files of theirs."""
    monkeypatch.setattr(notes_workload, "load_notes", lambda *_: notes_dataset(4))
    monkeypatch.setattr(notes_workload, "_rehearsed", lambda *_: None)
    monkeypatch.setattr(notes_workload, "report_self_test", lambda *_: None)
    monkeypatch.setattr(notes_workload.NotesSchema, "load", lambda _: SCHEMA)
    settings = make_settings(tmp_path)
    NotesWorkload.load(settings).release(plan(), 1, PAYLOAD)
    assert ConformanceFolder(settings.conformance_folder).plans() == [plan().digest]
