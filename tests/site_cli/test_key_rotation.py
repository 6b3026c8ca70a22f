"""Keys that end and are replaced, as a data steward meets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.plan import SiteEntry
from tests.vault.coordinator import Coordinator, FakeWorkload, make_plan, open_vault


def joined(loaded: SiteSettings) -> tuple[Coordinator, SigningKey]:
    """The coordinator of a plan with this site and its key in the roster, accepted and begun."""
    key = SigningKey.load(loaded.key_file)
    plan = make_plan(sites=(SiteEntry(name="north", public_key=key.public_text, nominal_patients=200),))
    vault, journal = open_vault(loaded, FakeWorkload(), key=key)
    coordinator = Coordinator(vault, plan)
    coordinator.join()
    assert coordinator.round(0).status == "ok"
    journal.close()
    return coordinator, key


def let_end(loaded: SiteSettings) -> None:
    """As if the days of ``init --key-valid-days`` had passed."""
    loaded.key_file.write_text(loaded.key_file.read_text().strip() + " 2026-01-01T00:00:00Z\n", encoding="ascii")


def state(loaded: SiteSettings) -> tuple[dict[str, str], list[str]]:
    """Key files by name, and the keys that the journal knows."""
    journal = Journal.read(loaded.journal_file)
    registered = journal.signed.registered_keys()
    journal.close()
    return {path.name: path.read_text() for path in loaded.state_folder.glob("site*.key")}, registered


def test_a_key_is_replaced_and_the_plans_that_are_told_are_named(site: Any, settings: Path) -> None:
    loaded = SiteSettings.load(settings)
    coordinator, key = joined(loaded)
    done = site("rotate-key", "--key-valid-days", "30", "--settings", settings, "--json")
    assert done.code == 0
    assert (done.document["old_public_key"], done.document["plans"]) == (key.public_text, [coordinator.plan.digest])
    new = SigningKey.load(loaded.state_folder / "site-2.key")
    assert (done.document["public_key"], done.document["not_after"]) == (new.public_text, new.not_after)
    assert new.not_after
    assert state(loaded)[1] == [key.public_text, new.public_text]


def test_a_key_that_ended_signs_nothing_and_is_replaced_once_its_plans_are_left(
    site: Any,
    settings: Path,
) -> None:
    loaded = SiteSettings.load(settings)
    coordinator, key = joined(loaded)
    let_end(loaded)
    vault, journal = open_vault(loaded, FakeWorkload(), key=SigningKey.load(loaded.key_file))
    spends = journal.plan_spends()
    coordinator.vault = vault
    reply = coordinator.round(1)
    assert (reply.status, reply.code) == ("failed", "ledger")
    assert journal.plan_spends() == spends
    journal.close()

    before = state(loaded)
    refused = site("rotate-key", "--settings", settings, "--json")
    assert refused.code == 1
    assert "ended 2026-01-01T00:00:00Z" in refused.document["error"]["found"]
    assert "withdraw" in refused.document["error"]["remedy"]
    assert state(loaded) == before

    assert site("withdraw", coordinator.plan.digest[:16], "--settings", settings).code == 0
    done = site("rotate-key", "--settings", settings, "--json")
    assert (done.code, done.document["old_public_key"], done.document["plans"]) == (0, key.public_text, [])
    assert (done.document["not_after"], len(state(loaded)[1])) == ("", 2)


def test_days_that_no_key_can_have_are_refused(site: Any, settings: Path) -> None:
    before = state(SiteSettings.load(settings))
    for days in ("0", "-3", "soon"):
        assert site("rotate-key", "--key-valid-days", days, "--settings", settings).code != 0
    assert state(SiteSettings.load(settings)) == before
