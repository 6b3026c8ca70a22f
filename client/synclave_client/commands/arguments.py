"""Options that several commands take, and what several of them ask of a site's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from synclave_client.settings import CoordinatorAddress, SiteSettings
from synclave_shared.errors import ConfigurationError

__all__ = ["DEFAULT_SETTINGS", "KeyValidDaysOption", "SettingsOption", "address_of", "require_state"]

SettingsOption = Annotated[Path, typer.Option("--settings", help="The site's settings file.", metavar="SITE.toml")]
KeyValidDaysOption = Annotated[
    int | None, typer.Option(min=1, max=36_500, help="Days for which the new key may sign (default: without end).")
]
DEFAULT_SETTINGS: Final = Path("site.toml")


def require_state(site: SiteSettings) -> None:
    """Make sure that the site was set up.

    Raises:
        ConfigurationError: if it has no journal.
    """
    if not site.journal_file.is_file():
        raise ConfigurationError(
            expected=f"the site's journal in {site.state_folder}",
            found="none",
            remedy="Set the site up with `synclave-site init`, or check state_folder in its settings.",
        )


def address_of(site: SiteSettings, settings: Path) -> CoordinatorAddress:
    """Where the gateway of ``site``, whose settings file is ``settings``, finds the coordinator.

    Raises:
        ConfigurationError: if the settings do not say so.
    """
    if site.gateway is None:
        raise ConfigurationError(
            expected="a [gateway] section with superlink, root_certificate and state_folder",
            found=f"none in {settings}",
            remedy="Add it; the coordinator tells you the address and sends the certificate.",
        )
    return site.gateway
