"""``synclave-site pause`` and ``resume``."""

from __future__ import annotations

from rich.markup import escape

from synclave_client.commands.arguments import DEFAULT_SETTINGS, SettingsOption, require_state
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["pause", "resume"]


def pause(settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Refuse all plans and rounds from now on, until `resume`. Takes effect at once, also in a running vault."""
    site = SiteSettings.load(settings)
    require_state(site)
    site.pause_file.touch(mode=0o600)
    _show_pause(site, as_json)


def resume(settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Take part again after `pause`."""
    site = SiteSettings.load(settings)
    require_state(site)
    site.pause_file.unlink(missing_ok=True)
    _show_pause(site, as_json)


def _show_pause(site: SiteSettings, as_json: bool) -> None:
    paused = site.pause_file.exists()
    state = "paused: every plan and round is refused" if paused else "taking part again"
    show({"name": site.name, "paused": paused}, as_json, lambda out: out.print(f"Site {escape(site.name)} is {state}."))
