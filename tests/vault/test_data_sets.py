"""A budget is of people: a data set's name is bound to its folder and to its patients."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.service import serve_site
from synclave_shared.errors import ConfigurationError, JournalError
from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.budget import Budget
from synclave_shared.protocol import Envelope, HelloRequest, parse_reply
from tests.vault.coordinator import Coordinator, FakeWorkload, make_plan, make_settings, open_vault
from tests.vault.test_service import Remote, make_site

COPY = {"dataset": "copied"}


def bound(settings: SiteSettings, *patients: str) -> None:
    """Let a plan be accepted for these patients, and one of its rounds be released."""
    vault, journal = open_vault(settings, FakeWorkload(patient_ids=patients))
    coordinator = Coordinator(vault, make_plan())
    coordinator.join()
    assert coordinator.round(0).status == "ok"
    journal.close()


def admit(settings: SiteSettings, *patients: str) -> None:
    """What a vault does when it has read its data."""
    journal = Journal.open(settings.journal_file)
    try:
        journal.data_sets.admit(settings.dataset, journal.data_sets.marks(settings.marks_file, patients))
    finally:
        journal.close()


def test_another_data_set_has_its_own_budget(tmp_path: Path) -> None:
    limit = Decimal(str(round(epsilon(make_plan().mechanisms(), 1e-5) * 1.01, 4)))
    budget = Budget(epsilon=limit, delta=Decimal("0.00001"))
    for name, dataset, status in (("a", "one", "ok"), ("b", "one", "refused"), ("c", "two", "ok")):
        settings = make_settings(tmp_path, budget=budget, dataset=dataset, data_folder=tmp_path / "data" / dataset)
        vault, journal = open_vault(settings, FakeWorkload(patient_ids=(f"{dataset}-1",)))
        coordinator = Coordinator(vault, make_plan(name))
        coordinator.hello()
        assert coordinator.propose().status == status
        journal.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "renamed"},
        {"dataset": "renamed", "data_folder": "data/part"},
        {"dataset": "renamed", "data_folder": "."},
        {"dataset": "renamed", "data_folder": "link"},
        {"data_folder": "other"},
    ],
    ids=["new-name", "folder-inside", "folder-around", "link", "other-folder"],
)
def test_a_budget_hangs_on_the_data_and_not_on_their_name(tmp_path: Path, changes: dict[str, str]) -> None:
    (tmp_path / "north" / "data").mkdir(parents=True)
    (tmp_path / "north" / "link").symlink_to("data")
    state = {"state_folder": tmp_path / "state"}
    vault, journal = open_vault(make_settings(tmp_path / "north", **state), FakeWorkload())
    first = Coordinator(vault, make_plan())
    first.join()
    assert first.round(0).status == "ok"
    journal.close()
    moved = {key: tmp_path / "north" / text if key == "data_folder" else text for key, text in changes.items()}
    vault, journal = open_vault(make_settings(tmp_path / "north", **state, **moved), FakeWorkload())
    second = Coordinator(vault, make_plan("second"))
    second.hello()
    first.vault = vault
    before = journal.plan_spends()
    assert (second.propose().status, second.propose().code) == ("failed", "configuration")
    assert first.round(1).status != "ok"
    assert (journal.plan_spends(), second.kinds) == (before, ["key-registered"])
    journal.close()


def test_a_copy_under_another_name_is_refused_when_the_vault_reads_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _, _ = make_site(tmp_path / "n")
    shutil.copytree(settings.data_folder, tmp_path / "copy")
    copied = settings.model_copy(update={**COPY, "data_folder": tmp_path / "copy"})

    def hello(of: SiteSettings) -> str:
        opened = Journal.open(of.journal_file)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "open", lambda _: opened)
            server = serve_site(of, threading.Lock())
        reply = parse_reply(Remote(of).handle(Envelope.of(HelloRequest())))
        server.stop(None).wait()
        opened.close()
        return reply.code or reply.status

    assert hello(copied) == "ok", "of whom no budget was promised yet, they may have any name"
    ids = [line.partition(",")[0] for line in (settings.data_folder / "patients.csv").read_text().splitlines()[1:]]
    journal = Journal.open(settings.journal_file)
    journal.accept(
        make_plan(),
        signature="s",
        dataset=settings.dataset,
        folder=settings.data_folder,
        patients=journal.data_sets.marks(settings.marks_file, ids[:1]),
        budget=settings.budget,
        entry=lambda previous: b"accepted",
    )
    journal.close()
    with caplog.at_level(logging.ERROR):
        assert hello(copied) == "not-ready"
    assert "who have the budget of north-patients" in caplog.text
    assert not any(patient in caplog.text for patient in ids)
    assert hello(settings) == "ok"


def test_one_shared_patient_is_enough_and_nothing_is_written(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    bound(settings, "p1", "p2")
    other = make_settings(tmp_path, **COPY, data_folder=tmp_path / "copy")
    before = settings.journal_file.read_bytes()
    with pytest.raises(ConfigurationError, match="1 who have the budget of north-patients"):
        admit(other, "p2", "p3")
    assert settings.journal_file.read_bytes() == before
    admit(other, "p3")

    vault, journal = open_vault(other, FakeWorkload(patient_ids=("p2", "p3")))
    coordinator = Coordinator(vault, make_plan("second"))
    coordinator.hello()
    spends = journal.plan_spends()
    assert (coordinator.propose().status, coordinator.propose().code) == ("failed", "configuration")
    assert (journal.plan_spends(), coordinator.kinds) == (spends, ["key-registered"])
    journal.close()


@pytest.mark.parametrize("other", ["0017", "17.0", " 17 ", "１７"])
def test_another_export_writes_the_same_identifier_in_another_way(tmp_path: Path, other: str) -> None:
    settings = make_settings(tmp_path)
    bound(settings, "17", "Ab-3")
    copy = make_settings(tmp_path, **COPY, data_folder=tmp_path / "copy")
    for patient in (other, "AB-3 "):
        with pytest.raises(ConfigurationError, match="1 who have the budget of north-patients"):
            admit(copy, patient)
    admit(copy, "170", "ab3", "-17", "1.7")


def test_patients_who_come_later_share_the_budget_of_their_data_set(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    other = make_settings(tmp_path, **COPY, data_folder=tmp_path / "copy")
    bound(settings, "p1")
    admit(other, "p2")
    admit(settings, "p1", "p2")
    with pytest.raises(ConfigurationError, match="north-patients"):
        admit(other, "p2")
    admit(settings)
    with pytest.raises(ConfigurationError, match="north-patients"):
        # Whoever left is not forgotten.
        admit(other, "p1")


def test_marks_tell_nothing_without_the_secret_and_are_never_removed(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    bound(settings, "patient-number-1")
    assert settings.marks_file.stat().st_mode & 0o777 == 0o600
    files = {path: path.read_bytes() for path in settings.state_folder.rglob("*") if path.is_file()}
    assert not any(b"patient-number-1" in content for content in files.values())
    with sqlite3.connect(settings.journal_file) as database:
        (mark,) = database.execute("SELECT mark FROM patients").fetchone()
        assert len(mark) == 16
        for statement in ("DELETE FROM patients", "UPDATE patients SET dataset = 'x'"):
            with pytest.raises(sqlite3.IntegrityError, match="stays counted"):
                database.execute(statement)
    database.close()


def test_a_journal_without_its_secret_knows_nobody_and_is_not_used(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    bound(settings, "p1")
    settings.marks_file.unlink()
    with pytest.raises(JournalError, match="backup"):
        admit(settings, "p1")
    assert not settings.marks_file.exists()
