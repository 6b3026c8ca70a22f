"""kill -9 at every step of a key's replacement: the site has a key that counts, and its ledgers stay whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.keyring import Keyring, rotate
from synclave_shared.ledger.folder import write_ledger
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import verify_ledger
from tests.vault.coordinator import SITE_KEY, Coordinator, FakeWorkload, make_plan, make_settings, open_vault
from tests.vault.test_crash import NEVER, KillAt, in_child


def rotate_until(settings: SiteSettings, kill_at: int) -> None:
    """A steward's command that is killed on its way: before and after each call that leaves something behind."""
    kill = KillAt(kill_at)

    def marked(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            kill()
            result = real(*arguments, **named)
            kill()
            return result

        setattr(owner, name, call)

    for owner, name in ((os, "open"), (os, "fdopen"), (os, "fsync"), (Path, "unlink")):
        marked(owner, name)
    journal = Journal.open(settings.journal_file, exclusive=False)
    journal._database._connection.set_trace_callback(kill)
    rotate(settings, journal, key=SITE_KEY)
    journal.close()


def test_kill_9_at_every_step_of_a_rotation(tmp_path: Path) -> None:
    data = tmp_path / "data"
    vault, opened = open_vault(make_settings(tmp_path / "before", data_folder=data), FakeWorkload())
    before = Coordinator(vault, make_plan())
    before.begin()
    before.join()
    assert before.round(0).status == "ok"
    opened.close()
    replaced = []
    for kill_at in range(1, NEVER):
        folder = tmp_path / str(kill_at)
        shutil.copytree(tmp_path / "before", folder)
        settings = make_settings(folder, data_folder=data)
        ended = in_child(lambda: rotate_until(settings, kill_at))  # noqa: B023 - runs at once

        vault, opened = open_vault(settings, FakeWorkload())
        registered = opened.signed.registered_keys()
        assert registered[0] == SITE_KEY.public_text
        assert len(registered) in (1, 2)
        replaced.append(len(registered) == 2)
        assert Keyring(settings, opened, SITE_KEY).current().public_text == registered[-1]
        coordinator = before.fork(vault)
        assert coordinator.round(1).status == "ok"
        assert coordinator.kinds.count("key-rotated") == len(registered) - 1

        # The next rotation takes place, whatever the first one left behind.
        done = rotate(settings, opened, key=SITE_KEY)
        assert (done.old, opened.signed.registered_keys()) == (registered[-1], [*registered, done.new])
        assert coordinator.round(2).status == "ok"
        assert coordinator.witness().status == "ok"
        assert coordinator.close().status == "ok"
        files = {SigningKey.load(path).public_text for path in settings.state_folder.glob("site*.key")}
        assert files == {done.new}, "a key that counts no more stays behind"
        seen = opened.ledgers.seen(coordinator.plan.digest)
        assert seen is not None
        write_ledger(folder / "ledger", opened.ledgers.entries(coordinator.plan.digest), seen.note, seen.witnessed)
        opened.close()
        report = verify_ledger(folder / "ledger")
        assert (report.findings, report.sites["north"].public_key) == ((), done.new)
        if ended:
            break
    # Once it has taken place, it stays; before that, nothing has.
    assert replaced == sorted(replaced)
    assert replaced.count(False) >= 10
    assert replaced.count(True) >= 3
