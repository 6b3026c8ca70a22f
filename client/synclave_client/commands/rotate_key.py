"""``synclave-site rotate-key``."""

from __future__ import annotations

from contextlib import closing

from rich.console import Console
from rich.markup import escape

from synclave_client.commands.arguments import DEFAULT_SETTINGS, KeyValidDaysOption, SettingsOption
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["rotate_key"]


def rotate_key(
    key_valid_days: KeyValidDaysOption = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Replace the signing key, also beside a running vault: the old key signs the new one, in every open plan's ledger.

    Plans that are made from now on name the new public key. The old key is removed once no open plan needs it.
    """
    from synclave_client.vault.journal import Journal
    from synclave_client.vault.keyring import rotate

    site = SiteSettings.load(settings)
    with closing(Journal.open(site.journal_file, exclusive=False)) as journal:
        done = rotate(site, journal, valid_days=key_valid_days)
    document = {
        "name": site.name,
        "old_public_key": done.old,
        "public_key": done.new,
        "not_after": done.not_after,
        "plans": list(done.plans),
    }

    def draw(out: Console) -> None:
        out.print(f"Site {escape(site.name)} signs with a new key from now on.")
        out.print(f"Public key, for the coordinator's next plans: [bold]{done.new}[/bold]", soft_wrap=True)
        out.print(f"Ledgers that are told with the site's next replies: {len(done.plans)}.")
        out.print(f"Back up {escape(str(site.state_folder))}: the new key is there.", soft_wrap=True)

    show(document, as_json, draw)
